package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/launchgate/launchgate/checklist"
	"github.com/launchgate/launchgate/internal/run"
	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/reports"
	"github.com/launchgate/launchgate/scenarios"
)

func compareCommand(out io.Writer, code *int) *cobra.Command {
	var to string
	var lang reports.Language
	var perStage int
	cmd := &cobra.Command{
		Use:   "compare BASE HEAD",
		Short: "Compare two recorded runs: a regression, an improvement, or the same",
		Long: `Compare reads two run folders and decides for each metric whether HEAD is worse
than BASE, better, or the same. Each stage without faults is cut into blocks of
time, and blocks are what is compared: requests of one moment are not
independent witnesses.

Two runs were made at different times, so whatever else changed on the machine
between them is part of the difference. launchgate run --baseline takes turns
between the two services and does not have this fault.`,
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
				Language: lang, Gate: name, Base: args[0], Head: args[1], At: time.Now().UTC().Truncate(time.Second), Version: run.Version(), Command: os.Args,
				How:        words.Say("Each stage without faults was cut into %d blocks of time. The two runs were made at different times: what else changed on the machine between them is part of the difference.", perStage),
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
			return reports.CompareTerminal(out, doc, to)
		},
	}
	cmd.Flags().StringVar(&to, "out", "", "a `folder` for compare.json and compare.html")
	languageFlag(cmd, &lang)
	cmd.Flags().IntVar(&perStage, "blocks", 10, "into how many blocks a stage is cut")
	return cmd
}

// changeCode is the exit code of what was found.
var changeCode = map[checklist.Change]int{
	checklist.Same: checklist.ExitPass, checklist.Improvement: checklist.ExitPass,
	checklist.Regression: checklist.ExitFail, checklist.Undecided: checklist.ExitUnproven,
}

func writeComparison(dir string, doc reports.Comparison) error {
	b, err := json.MarshalIndent(doc, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "compare.json"), append(b, '\n'), 0o644); err != nil {
		return err
	}
	f, err := os.Create(filepath.Join(dir, "compare.html"))
	if err != nil {
		return err
	}
	defer f.Close()
	if err := reports.CompareHTML(f, doc); err != nil {
		return err
	}
	return f.Close()
}

// baselineFlags are those of run --baseline.
type baselineFlags struct {
	baseline string
	pairs    int
	block    time.Duration
}

func (f *baselineFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.baseline, "baseline", "", "compare with the service at this `URL`, or with this reference-server program, in turns: one scenario of the gate in blocks, base and head alternating")
	cmd.Flags().IntVar(&f.pairs, "pairs", 60, "how many `blocks` of each --baseline measures: 60 of 100 requests find a p95 that is 10 % worse 19 times of 20")
	cmd.Flags().DurationVar(&f.block, "block", 5*time.Second, "how long a block of --baseline is")
}

// runBaseline plays blocks of one scenario against base and head in the order
// base, head, head, base, and so on, so that what drifts meets both alike. The
// two blocks of a pair ask the same.
func runBaseline(ctx context.Context, gate scenarios.Gate, f runFlags, out, errOut io.Writer) (int, error) {
	if f.pairs < 6 || f.block < time.Second {
		return 0, fmt.Errorf("found %d blocks of %s, expected at least 6 of at least 1s", f.pairs, f.block)
	}
	rate, err := firstRate(gate)
	if err != nil {
		return 0, err
	}
	one, err := capacityFlags{from: rate, probe: f.block}.tried(gate)
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
	screen := newScreen(errOut, f.lang)
	baseGate, baseServer := gate, server
	if strings.Contains(f.baseline, "://") {
		baseGate.Target = scenarios.Target{Endpoint: &scenarios.Endpoint{URL: f.baseline, Model: f.model, APIKeyEnv: f.apiKeyEnv}}
	} else if gate.Target.Local == nil {
		return 0, errors.New("--baseline names a program, and the target is a service that is already there; give the URL of its baseline")
	} else {
		baseServer = f.baseline
	}
	var sessions [2]*run.Session
	for i, side := range []struct {
		name, server string
		gate         scenarios.Gate
	}{{"base", baseServer, baseGate}, {"head", server, gate}} {
		logs := filepath.Join(dir, "logs-"+side.name)
		if err := os.MkdirAll(logs, 0o755); err != nil {
			return 0, err
		}
		if sessions[i], err = run.Open(ctx, side.gate, side.server, logs); err != nil {
			return 0, fmt.Errorf("%s: %w", side.name, err)
		}
		defer sessions[i].Close()
		screen.say("%s is %s", side.name, sessions[i].Endpoint.URL)
	}
	screen.say("%d blocks of each, %s long, at %s", f.pairs, f.block, rate)

	var sides [2][]checklist.Block
	left := 0
	for pair := range f.pairs {
		var both [2]*checklist.Block
		for turn := range 2 {
			side := (pair + turn) % 2 // base head, head base, …
			b, why, err := playBlock(ctx, one, f.lang, sessions[side], screen, filepath.Join(dir, fmt.Sprintf("block-%03d-%s", pair+1, []string{"base", "head"}[side])), pair)
			if err != nil {
				return 0, err
			}
			if ctx.Err() != nil {
				break
			}
			if b == nil {
				screen.say("block %d is left out: %s", pair+1, why)
			}
			both[side] = b
		}
		if both[0] != nil && both[1] != nil {
			sides[0], sides[1] = append(sides[0], *both[0]), append(sides[1], *both[1])
		} else {
			left++
		}
		if ctx.Err() != nil {
			break
		}
	}
	screen.clear()
	doc := reports.Comparison{
		Language: f.lang, Gate: gate.Name, Base: f.baseline, Head: sessions[1].Endpoint.URL, At: time.Now().UTC().Truncate(time.Second), Version: run.Version(), Command: os.Args,
		How:        words.Say("Blocks of %s at %s, base and head in turns; both blocks of a pair ask the same, and pairs are compared. %d pairs were left out because the client was too slow in one of their blocks.", f.block, rate, left),
		Comparison: checklist.Compare(sides[0], sides[1], true),
	}
	if err := writeComparison(dir, doc); err != nil {
		return 0, err
	}
	if err := reports.CompareTerminal(out, doc, dir); err != nil {
		return 0, err
	}
	if ctx.Err() != nil {
		return exitInterrupted, nil
	}
	return changeCode[doc.Change], nil
}

// firstRate is the rate of the first open-loop stage of the gate's first
// scenario without faults.
func firstRate(gate scenarios.Gate) (scenarios.Rate, error) {
	for _, s := range gate.Scenarios {
		for _, st := range s.Stages {
			if len(s.Faults) == 0 && st.Rate > 0 {
				return st.Rate, nil
			}
		}
	}
	return 0, fmt.Errorf("%s has no scenario without faults that has a rate, which is what --baseline compares", gate.Name)
}

// playBlock plays one block and cuts what is compared out of it; nil where the
// client was too slow.
func playBlock(ctx context.Context, gate scenarios.Gate, lang reports.Language, s *run.Session, screen *screen, dir string, pair int) (*checklist.Block, words.Sentence, error) {
	gate.Target = scenarios.Target{Endpoint: &s.Endpoint}
	gate.Seed += uint64(pair)
	err := run.Run(ctx, run.Options{Gate: gate, Keys: s.Keys, Dir: dir, Version: run.Version(), Command: os.Args, Tell: func(p run.Progress) {
		if p.Live != nil {
			p.Live.Scenario = filepath.Base(dir)
			screen.tell(p)
		}
	}})
	if err != nil || ctx.Err() != nil {
		return nil, words.Sentence{}, err
	}
	v, err := judgeDir(dir, lang)
	if err != nil {
		return nil, words.Sentence{}, err
	}
	if !v.Client.Valid {
		return nil, v.Client.Why, nil
	}
	g, rec, err := openRun(dir)
	if err != nil {
		return nil, words.Sentence{}, err
	}
	blocks, err := checklist.Blocks(g, rec, 1)
	if err != nil || len(blocks) != 1 {
		return nil, words.Say("it holds no load"), err
	}
	return &blocks[0], words.Sentence{}, nil
}
