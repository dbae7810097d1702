package main

import (
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/launchgate/launchgate/checklist"
	"github.com/launchgate/launchgate/internal/interchange"
	"github.com/launchgate/launchgate/reports"
)

func exportCommand(out io.Writer) *cobra.Command {
	var as, scenario, file string
	cmd := &cobra.Command{
		Use:   "export --as FORMAT RUN",
		Short: "Write a recorded run in the format of another tool",
		Long: `Export judges a run folder and writes its numbers in the format of another tool, to
the standard output or into a file:

` + formatList() + `
In the formats of other load generators latencies start when a request was sent, as
they do there; launchgate's own metrics (openmetrics) start when it was due.
docs/interchange.md says what each format holds.`,
		Example: `  launchgate export --as k6 --out load-performance.json runs/A
  launchgate export --as openmetrics runs/A`,
		Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) (err error) {
			gate, rec, err := openRun(args[0])
			if err != nil {
				return err
			}
			v, err := checklist.Judge(gate, rec)
			if err != nil {
				return err
			}
			if file == "" {
				return interchange.Export(out, as, rec, v, scenario)
			}
			return reports.Replace(file, func(w io.Writer) error { return interchange.Export(w, as, rec, v, scenario) })
		},
	}
	cmd.Flags().StringVar(&as, "as", "", "the `format`: "+interchange.FormatNames())
	cmd.Flags().StringVar(&scenario, "scenario", "", "export the load of one `scenario` only")
	cmd.Flags().StringVar(&file, "out", "", "the `file` to write (default: the standard output)")
	_ = cmd.MarkFlagRequired("as")
	return cmd
}

func formatList() string {
	var b strings.Builder
	for _, f := range interchange.Formats() {
		fmt.Fprintf(&b, "  %-12s %s\n", f.Name, f.Means)
	}
	return b.String()
}

// writeFiles writes files into a folder by their names, each as a whole.
func writeFiles(dir string, files map[string]func(io.Writer) error) error {
	for name, write := range files {
		if err := reports.Replace(filepath.Join(dir, name), write); err != nil {
			return err
		}
	}
	return nil
}
