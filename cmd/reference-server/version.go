package main

import (
	"encoding/json"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/launchgate/launchgate/internal/version"
)

func versionCommand(out io.Writer) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Print which build of reference-server this is",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			b := version.Of()
			if asJSON {
				encoder := json.NewEncoder(out)
				encoder.SetIndent("", "  ")
				return encoder.Encode(b)
			}
			_, err := fmt.Fprintf(out, "reference-server %s\nbuilt   with %s for %s/%s\n", b.Version, b.Go, b.OS, b.Arch)
			if !b.CGO && err == nil {
				_, err = fmt.Fprintln(out, "built   without a C compiler, so the CPU backend computes without vector instructions and is several times slower; install a C compiler and build with CGO_ENABLED=1")
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the build as JSON")
	return cmd
}
