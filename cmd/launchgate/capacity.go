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

	"github.com/launchgate/launchgate/capacity"
	"github.com/launchgate/launchgate/capacity/measure"
	"github.com/launchgate/launchgate/checklist"
	"github.com/launchgate/launchgate/internal/run"
	"github.com/launchgate/launchgate/internal/version"
	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/reports"
	"github.com/launchgate/launchgate/scenarios"
)

// capacityFlags are the flags of launchgate capacity.
type capacityFlags struct {
	runFlags
	scenario string
	profile  string
	from, to scenarios.Rate
	probe    time.Duration
	longest  time.Duration
	percent  float64
	confirm  int
}

func capacityCommand(out, errOut io.Writer, code *int, c *console) *cobra.Command {
	f := capacityFlags{runFlags: runFlags{console: c}, from: 1, to: 10_000}
	cmd := &cobra.Command{
		Use:   "capacity [GATE.yaml | NAME]",
		Short: "Find the highest rate at which the objectives hold",
		Long: `Capacity finds the highest rate at which every objective of one scenario holds. It
deploys the gate's target (or drives the one named with --target) and plays the
scenario's workload at one rate after another:

  1. It doubles the rate until an objective is missed.
  2. It halves the interval between the highest rate that held and the lowest that
     did not, until the interval is no wider than --precision.
  3. It tries the rate that held again, with other arrivals.

Each try has its own run folder with a report. A try ends early when requests pile
up faster than they are answered. The next try begins when the service answers as
quickly as it did without load. If the client was too slow for a try, the search
ends, because such a try says nothing about the service.

A percentile needs samples (p95 130, p99 662), so a try at a low rate lasts until it
has them, up to --longest. An objective that still has too few samples is decided by
what was measured, and the result says so.`,
		Example: `  launchgate capacity
  launchgate capacity --target http://127.0.0.1:8000 --profile mlperf-llama-3.1-8b-server my-gate.yaml
  launchgate capacity --from 4/s --to 64/s --precision 2 --scenario steady my-gate.yaml`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			gate, err := one(f.gate(args))
			if err != nil {
				return err
			}
			if err := f.apply(&gate, cmd.Flags().Changed("seed")); err != nil {
				return err
			}
			ctx, cancel := f.limited(cmd.Context())
			defer cancel()
			*code, err = findCapacity(ctx, gate, f, out, errOut)
			return err
		},
	}
	f.targetFlags(cmd)
	cmd.Flags().StringVar(&f.out, "out", "", "the `folder` to make (default runs/<time>-capacity-<gate>)")
	cmd.Flags().StringVar(&f.scenario, "scenario", "", "the `scenario` whose workload and objectives to use (default the gate's first without faults)")
	cmd.Flags().StringVar(&f.profile, "profile", "", "use this ready-made `set` of objectives in place of the gate's (see launchgate list profiles)")
	cmd.Flags().Var((*rateFlag)(&f.from), "from", "the `rate` to start with")
	cmd.Flags().Var((*rateFlag)(&f.to), "to", "the highest `rate` to try")
	cmd.Flags().DurationVar(&f.probe, "probe", 15*time.Second, "the shortest time that a try lasts")
	cmd.Flags().DurationVar(&f.longest, "longest", time.Minute, "the longest time that a try lasts to collect the samples that a percentile needs")
	cmd.Flags().Float64Var(&f.percent, "precision", 5, "the largest width of the final interval, in `percent` of the rate")
	cmd.Flags().IntVar(&f.confirm, "confirm", 1, "how many more `times` the rate that was found must hold")
	return cmd
}

// rateFlag is a rate on the command line.
type rateFlag scenarios.Rate

func (r *rateFlag) String() string     { return scenarios.Rate(*r).String() }
func (r *rateFlag) Set(s string) error { return (*scenarios.Rate)(r).UnmarshalText([]byte(s)) }
func (r *rateFlag) Type() string       { return "rate" }

// findCapacity searches and returns the exit code: 0 when a rate was found.
func findCapacity(ctx context.Context, gate scenarios.Gate, f capacityFlags, out, errOut io.Writer) (int, error) {
	search := capacity.Search{From: float64(f.from), To: float64(f.to), Precision: f.percent / 100, Confirm: f.confirm}
	if err := search.Check(); err != nil {
		return 0, err
	}
	if f.probe < time.Second || f.longest < f.probe {
		return 0, fmt.Errorf("found a try of %s and at most %s, expected at least 1s, and --longest no shorter than --probe", f.probe, f.longest)
	}
	one, err := f.tried().Of(gate)
	if err != nil {
		return 0, err
	}
	dir := f.out
	if dir == "" {
		dir = freshFolder("capacity-" + gate.Name)
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return 0, err
	}
	if err := os.Mkdir(dir, 0o755); errors.Is(err, os.ErrExist) {
		return 0, fmt.Errorf("%s is already there; name another folder with --out", dir)
	} else if err != nil {
		return 0, err
	}
	server, err := serverProgram()
	if err != nil {
		return 0, err
	}
	screen := newScreen(errOut, f.lang, f.console)
	screen.say("searching between %s and %s for %s", f.from, f.to, promises(one.Objectives))
	found, opened, err := measure.Capacity{
		Gate: gate, One: one, Search: search, Least: f.probe, Longest: f.longest, Dir: dir, Server: server, Command: os.Args,
		Judge: func(dir string) (checklist.Verdict, error) { v, err := judgeDir(dir, f.lang); return v.Verdict, err },
		Tell: func(n int, rate scenarios.Rate, p run.Progress) {
			p.Live.Scenario = f.lang.Word(words.Say("try %d: %s", n, rate))
			screen.tell(p)
		},
		Tried: func(p capacity.Point) {
			screen.say("%-10s %-9s %s", scenarios.Rate(p.Rate), p.Outcome.Said(), p.Why)
		},
	}.Find(ctx)
	screen.clear()
	if !opened {
		return 0, err
	}
	if err != nil && ctx.Err() == nil {
		found.Why = words.Of(err)
	}
	doc := reports.Capacity{
		Language: f.lang, Gate: one.Name, Scenario: one.Scenarios[0].Name, Target: found.Target, Seed: one.Seed,
		Command: os.Args, Version: version.Short(), At: time.Now().UTC().Truncate(time.Second), Result: found.Result,
	}
	for _, o := range one.Objectives {
		doc.Objectives = append(doc.Objectives, o.Source)
	}
	if err := writeCapacity(dir, doc); err != nil {
		return 0, err
	}
	if f.asJSON {
		if err := printJSON(out, doc); err != nil {
			return 0, err
		}
	} else if err := reports.CapacityTerminal(out, doc, dir); err != nil {
		return 0, err
	}
	switch {
	case ctx.Err() != nil:
		return exitInterrupted, nil
	case err != nil:
		return 0, err
	case !found.Found:
		return checklist.ExitFail, nil
	}
	return checklist.ExitPass, nil
}

// tried says how a rate is tried.
func (f capacityFlags) tried() capacity.Try {
	return capacity.Try{Scenario: f.scenario, Profile: f.profile, Rate: f.from, Lasts: f.probe}
}

func promises(objectives []scenarios.Objective) string {
	var all []string
	for _, o := range objectives {
		all = append(all, o.Source)
	}
	return strings.Join(all, ", ")
}

// writeCapacity writes capacity.json and capacity.html.
func writeCapacity(dir string, doc reports.Capacity) error {
	b, err := json.MarshalIndent(doc, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "capacity.json"), append(b, '\n'), 0o644); err != nil {
		return err
	}
	f, err := os.Create(filepath.Join(dir, "capacity.html"))
	if err != nil {
		return err
	}
	defer f.Close()
	if err := reports.CapacityHTML(f, doc); err != nil {
		return err
	}
	return f.Close()
}
