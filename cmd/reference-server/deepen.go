package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/launchgate/launchgate/reference-server/weights"
)

// deepenCommand is for tests of releases. It makes a version of a model that
// gives the same answers and is slower.
func deepenCommand() *cobra.Command {
	var times int
	var to string
	cmd := &cobra.Command{
		Use:   "deepen --to FILE MODEL.gguf",
		Short: "Write a model with the same answers that takes longer for them",
		Long: `deepen writes a GGUF file in which layers that add nothing follow each layer. The
model gives the same answers, to the last bit, and takes several times the work.`,
		Hidden: true,
		Args:   cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) (err error) {
			b, err := os.ReadFile(args[0])
			if err != nil {
				return fmt.Errorf("only a GGUF file can be deepened: %w", err)
			}
			f, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
			if err != nil {
				return err
			}
			w := bufio.NewWriter(f)
			if err := errors.Join(weights.Deepen(w, b, times), w.Flush(), f.Close()); err != nil {
				return errors.Join(fmt.Errorf("%s: %w", args[0], err), os.Remove(to))
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&to, "to", "", "the `file` to write, which must not exist yet")
	cmd.Flags().IntVar(&times, "times", 4, "how many layers replace each layer")
	_ = cmd.MarkFlagRequired("to") // the flag exists
	return cmd
}
