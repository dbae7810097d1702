package main

import (
	"errors"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/launchgate/launchgate/checklist"
	"github.com/launchgate/launchgate/reports"
	"github.com/launchgate/launchgate/reports/ci"
)

// gitHubStep is the step of a GitHub Actions job that a run is.
type gitHubStep struct {
	ci.GitHub
	gate     string // the gate's file; empty: it has none
	reported bool   // the result of the run
}

// toldToGitHub wraps the run command: where it is a step of a GitHub Actions job,
// the step gets a summary, outputs and annotations, also where nothing could be run.
func toldToGitHub(f *runFlags, out io.Writer, play func(*cobra.Command, []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		step, is := ci.InGitHub(os.Getenv, out)
		if !is {
			return play(cmd, args)
		}
		f.github = &gitHubStep{GitHub: step}
		if len(args) == 0 {
			args = []string{ownGate}
		}
		if len(args) == 1 {
			if st, err := os.Stat(args[0]); err == nil && st.Mode().IsRegular() {
				f.github.gate = args[0]
			}
		}
		err := play(cmd, args)
		if err != nil && !f.github.reported && cmd.Context().Err() == nil {
			err = errors.Join(err, f.github.Failed(err, f.github.gate, checklist.ExitCouldNotRun))
		}
		return err
	}
}

func (s *gitHubStep) judged(v judged, dir string) error {
	if s == nil {
		return nil
	}
	s.reported = true
	return s.Judged(v.report, dir, s.gate, v.ExitCode)
}

func (s *gitHubStep) compared(doc reports.Comparison, dir string, code int) error {
	if s == nil {
		return nil
	}
	s.reported = true
	var text strings.Builder
	if err := reports.CompareTerminal(&text, doc, dir); err != nil {
		return err
	}
	return s.Compared(string(doc.Change), text.String(), dir, code)
}
