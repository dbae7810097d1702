package main

import (
	"errors"
	"io"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/launchgate/launchgate/checklist"
	"github.com/launchgate/launchgate/checklist/release"
	"github.com/launchgate/launchgate/reports"
)

func checklistCommand(out io.Writer, code *int) *cobra.Command {
	var file string
	var text, asJSON bool
	var lang reports.Language
	cmd := &cobra.Command{
		Use:   "checklist [RUN...]",
		Short: "Show what is still missing before the service may go live",
		Long: `Checklist compares a go-live checklist with its evidence: what runs proved, what
tests and scans found, when the runbook was reviewed, and which statements people
signed. An item without evidence is open, never done. The result is written into the
newest run's folder and shown in its report.`,
		Example: `  launchgate checklist runs/A runs/B
  launchgate checklist --print > release.yaml
  launchgate checklist --file release.yaml runs/*
  ssh-keygen -Y sign -n launchgate -f ~/.ssh/id_ed25519 release/drill.yaml`,
		RunE: func(_ *cobra.Command, args []string) error {
			if text {
				_, err := out.Write(checklist.GoLive)
				return err
			}
			result, err := holdChecklist(file, args, lang)
			if err != nil {
				return err
			}
			*code = map[release.State]int{release.Done: checklist.ExitPass, release.Failed: checklist.ExitFail, release.Open: checklist.ExitUnproven}[result.State]
			if asJSON {
				return printJSON(out, result)
			}
			return reports.ChecklistText(out, result, lang, coloured(out))
		},
	}
	cmd.Flags().StringVar(&file, "file", "", "the `checklist` file (default release.yaml if it exists, otherwise the ready-made checklist)")
	languageFlag(cmd, &lang)
	jsonFlag(cmd, &asJSON, "the result")
	cmd.Flags().BoolVar(&text, "print", false, "print the ready-made checklist, as a file to start from")
	return cmd
}

// holdChecklist checks runs against a checklist and writes the result to the
// newest run.
func holdChecklist(file string, dirs []string, lang reports.Language) (release.Result, error) {
	list, err := loadChecklist(file)
	if err != nil {
		return release.Result{}, err
	}
	var runs []release.Run
	newest := ""
	var at time.Time
	for _, dir := range dirs {
		gate, rec, err := openRun(dir)
		if err != nil {
			return release.Result{}, err
		}
		v, err := checklist.Judge(gate, rec)
		if err != nil {
			return release.Result{}, err
		}
		started := rec.Environment.StartedAt
		runs = append(runs, release.Run{Name: filepath.Clean(dir), At: started, Verdict: v})
		if newest == "" || started.After(at) {
			newest, at = dir, started
		}
	}
	result := list.Hold(time.Now(), runs)
	if newest == "" {
		return result, nil
	}
	if err := reports.KeepChecklist(newest, result); err != nil {
		return release.Result{}, err
	}
	_, err = judgeDir(newest, lang)
	return result, err
}

func loadChecklist(file string) (release.Checklist, error) {
	if file != "" {
		return release.Load(file)
	}
	list, err := release.Load("release.yaml")
	if errors.Is(err, fs.ErrNotExist) {
		return release.Parse("release.yaml", ".", checklist.GoLive)
	}
	return list, err
}
