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
		Short: "Print which build of launchgate this is",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			b := version.Of()
			if asJSON {
				return printJSON(out, b)
			}
			fmt.Fprintf(out, "launchgate %s\n", b.Version)
			if b.Revision != "" {
				changed := ""
				if b.Changed {
					changed = ", with changes"
				}
				fmt.Fprintf(out, "source  %s of %s%s\n", b.Revision, b.Time, changed)
			}
			_, err := fmt.Fprintf(out, "built   with %s for %s/%s\n", b.Go, b.OS, b.Arch)
			return err
		},
	}
	jsonFlag(cmd, &asJSON, "the build")
	return cmd
}

// jsonFlag is that of every command that has something to tell.
func jsonFlag(cmd *cobra.Command, to *bool, what string) {
	cmd.Flags().BoolVar(to, "json", false, "print "+what+" as JSON")
}

// printJSON writes a value as the files of a run are written.
func printJSON(out io.Writer, v any) error {
	encoder := json.NewEncoder(out)
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false) // objectives are full of < and >
	return encoder.Encode(v)
}
