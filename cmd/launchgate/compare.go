package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/launchgate/launchgate/capacity"
	"github.com/launchgate/launchgate/capacity/measure"
	"github.com/launchgate/launchgate/checklist"
	"github.com/launchgate/launchgate/deploy/targets"
	"github.com/launchgate/launchgate/internal/run"
	"github.com/launchgate/launchgate/internal/version"
	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/reports"
	"github.com/launchgate/launchgate/scenarios"
)

func compareCommand(out io.Writer, code *int) *cobra.Command {
	var to string
	var lang reports.Language
	var perStage int
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "compare BASE HEAD",
		Short: "Compare two recorded runs and find regressions",
		Long: `Compare reads two run folders and decides for each metric whether HEAD is worse
than BASE, better, or the same. It cuts each stage without faults into blocks of
time and compares the blocks, because requests of one moment are not independent
samples.

The two runs were made at different times, so any other change on the machine is
part of the difference. launchgate run --baseline avoids this: it alternates between
the two services.`,
		Args: cobra.ExactArgs(2),
		RunE: func(_ *cobra.Command, args []string) error {
			var sides [2][]checklist.Block
			name := ""
			for i, dir := range args {
				gate, rec, err := openRun(dir)
				if err != nil {
					return err
				}
				if sides[i], err = checklist.Blocks(gate, rec, perStage); err != nil {
					return err
				}
				if i == 1 && gate.Name != name {
					return fmt.Errorf("%s is of the gate %s and %s of %s: runs of different gates were asked different things", args[0], name, dir, gate.Name)
				}
				name = gate.Name
			}
			doc := reports.Comparison{
				Language: lang, Gate: name, Base: args[0], Head: args[1], At: time.Now().UTC().Truncate(time.Second), Version: version.Short(), Command: os.Args,
				How:        words.Say("Each stage without faults was cut into %d blocks of time. The two runs were made at different times, so other changes on the machine are part of the difference.", perStage),
				Comparison: checklist.Compare(sides[0], sides[1], false),
			}
			*code = changeCode[doc.Change]
			if to != "" {
				if err := os.MkdirAll(to, 0o755); err != nil {
					return err
				}
				if err := writeComparison(to, doc); err != nil {
					return err
				}
			}
			if asJSON {
				return printJSON(out, doc)
			}
			return reports.CompareTerminal(out, doc, to)
		},
	}
	cmd.Flags().StringVar(&to, "out", "", "write compare.json and compare.html into this `folder`")
	languageFlag(cmd, &lang)
	jsonFlag(cmd, &asJSON, "the comparison")
	cmd.Flags().IntVar(&perStage, "blocks", 10, "the number of blocks that each stage is cut into")
	return cmd
}

// changeCode has the exit code of each result of a comparison.
var changeCode = map[checklist.Change]int{
	checklist.Same: checklist.ExitPass, checklist.Improvement: checklist.ExitPass,
	checklist.Regression: checklist.ExitFail, checklist.Undecided: checklist.ExitUnproven,
}

func writeComparison(dir string, doc reports.Comparison) error {
	return writeFiles(dir, map[string]func(io.Writer) error{
		"compare.json": func(w io.Writer) error { return printJSON(w, doc) },
		"compare.html": func(w io.Writer) error { return reports.CompareHTML(w, doc) },
	})
}

// baselineFlags are those of run --baseline.
type baselineFlags struct {
	baseline string
	pairs    int
	block    time.Duration
}

func (f *baselineFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.baseline, "baseline", "", "compare with the service at this `URL`, or with this reference-server program. Plays one scenario of the gate in blocks that alternate between base and head")
	cmd.Flags().IntVar(&f.pairs, "pairs", 60, "how many `blocks` of each side --baseline measures. 60 blocks of 100 requests find a p95 that is 10 % worse in 19 of 20 comparisons")
	cmd.Flags().DurationVar(&f.block, "block", 5*time.Second, "the length of a block of --baseline")
}

// runBaseline compares the gate's target with a baseline in turns, and returns
// the exit code.
func runBaseline(ctx context.Context, gate scenarios.Gate, f runFlags, out, errOut io.Writer) (int, error) {
	if f.pairs < 6 || f.block < time.Second {
		return 0, fmt.Errorf("found %d blocks of %s, expected at least 6 of at least 1s", f.pairs, f.block)
	}
	rate, err := measure.FirstRate(gate)
	if err != nil {
		return 0, err
	}
	one, err := capacity.Try{Rate: rate, Lasts: f.block}.Of(gate)
	if err != nil {
		return 0, err
	}
	dir := f.out
	if dir == "" {
		dir = freshFolder("compare-" + gate.Name)
	}
	if _, err := os.Stat(filepath.Join(dir, "compare.json")); err == nil {
		return 0, fmt.Errorf("%s is already there; name another folder with --out", dir)
	}
	server, err := serverProgram()
	if err != nil {
		return 0, err
	}
	base, err := f.base(gate, server)
	if err != nil {
		return 0, err
	}
	screen := newScreen(errOut, f.lang, f.console)
	compared, err := measure.Baseline{
		Base: base, Head: measure.Side{Gate: gate, Server: server}, One: one, Pairs: f.pairs, Dir: dir, Command: os.Args,
		Judge: func(dir string) (checklist.Verdict, error) { v, err := judgeDir(dir, f.lang); return v.Verdict, err },
		Read:  openRun,
		Tell: func(block string, p run.Progress) {
			p.Live.Scenario = block
			screen.tell(p)
		},
		Opened:  func(side, url string) { screen.say("%s is %s", side, url) },
		Ready:   func() { screen.say("%d blocks of each, %s long, at %s", f.pairs, f.block, rate) },
		LeftOut: func(pair int, why words.Sentence) { screen.say("block %d was left out: %s", pair, why) },
	}.Play(ctx)
	screen.clear()
	if err != nil {
		return 0, err
	}
	doc := reports.Comparison{
		Language: f.lang, Gate: gate.Name, Base: f.baseline, Head: compared.Head, At: time.Now().UTC().Truncate(time.Second), Version: version.Short(), Command: os.Args,
		How:        words.Say("Blocks of %s at %s, base and head in turns. Both blocks of a pair send the same requests, and pairs are compared. %d pairs were left out because the client was too slow in one of their blocks.", f.block, rate, compared.LeftOut),
		Comparison: checklist.Compare(compared.Sides[0], compared.Sides[1], true),
	}
	if err := writeComparison(dir, doc); err != nil {
		return 0, err
	}
	if f.asJSON {
		if err := printJSON(out, doc); err != nil {
			return 0, err
		}
	} else if err := reports.CompareTerminal(out, doc, dir); err != nil {
		return 0, err
	}
	code := changeCode[doc.Change]
	if ctx.Err() != nil {
		code = exitInterrupted
	}
	return code, f.github.compared(doc, dir, code)
}

// base is the baseline's side: a service at a URL, or the gate's own target
// with another program.
func (f runFlags) base(gate scenarios.Gate, server string) (measure.Side, error) {
	if strings.Contains(f.baseline, "://") {
		gate.Target = scenarios.Target{Endpoint: &scenarios.Endpoint{URL: f.baseline, Model: f.model, APIKeyEnv: f.apiKeyEnv}}
		return measure.Side{Gate: gate, Server: server}, nil
	}
	if !targets.PlanFor(gate).About().RunsBuild {
		return measure.Side{}, errors.New("--baseline names a program, and the target is a service that is already there; give the URL of its baseline")
	}
	return measure.Side{Gate: gate, Server: f.baseline}, nil
}
