package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/launchgate/launchgate/internal/version"
	"github.com/launchgate/launchgate/security"
)

func versionCommand(out io.Writer) *cobra.Command {
	var asJSON, sbom bool
	cmd := &cobra.Command{
		Use:   "version [PROGRAM...]",
		Short: "Print which build of launchgate this is, or what Go programs are made of (--sbom)",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 && !sbom {
				return fmt.Errorf("found %s, expected programs with --sbom only", args[0])
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error {
			if sbom {
				if len(args) == 0 {
					self, err := os.Executable()
					if err != nil {
						return err
					}
					args = []string{self}
				}
				return security.SBOM(out, args)
			}
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
	cmd.Flags().BoolVar(&sbom, "sbom", false, "print a CycloneDX list of the modules in this program, or in the Go `programs` named")
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
