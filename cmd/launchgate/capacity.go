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

// capacityFlags are the flags of launchgate capacity.
type capacityFlags struct {
	runFlags
	scenario string
	profile  string
	from, to scenarios.Rate
	lasts    time.Duration
	atLeast  scenarios.Rate
	percent  float64
}

func capacityCommand(out, errOut io.Writer, code *int, c *console) *cobra.Command {
	f := capacityFlags{runFlags: runFlags{console: c}, from: 1, to: 10_000}
	cmd := &cobra.Command{
		Use:   "capacity [GATE.yaml | NAME]",
		Short: "Find the highest rate at which the objectives hold",
		Long: `Capacity finds the highest rate at which every objective of one scenario holds. It
deploys the gate's target (or drives the one named with --target) and plays the
scenario's workload at one rate after another:

  1. It doubles the rate in short tries until an objective is missed.
  2. It spends the rest of its time in a few long tries close to the limit.
  3. It fits a curve to how many requests missed each limit, at the rates that were
     really drawn, and tells where the curve reaches what the objective allows. The
     interval says how far chance may have moved it: it holds the truth in about nine of
     ten searches (docs/capacity-coverage.md).

All tries together last 9 minutes, and longer if an answer takes longer than a
second; --for sets another time. --dry-run tells how long. A longer search gives a
narrower interval.

Each try has its own run folder with a report. A try ends early when requests pile
up faster than they are answered. The next try begins when the service answers as
quickly as it did without load. If the client was too slow for a try, the search
ends, because such a try says nothing about the service.

--at-least RATE only decides whether the objectives hold at that rate. That takes
much less time, unless the limit is very close to it.`,
		Example: `  launchgate capacity
  launchgate capacity --target http://127.0.0.1:8000 --profile mlperf-llama-3.1-8b-server my-gate.yaml
  launchgate capacity --from 4/s --to 64/s --for 20m --scenario steady my-gate.yaml
  launchgate capacity --at-least 20/s --target http://127.0.0.1:8000 my-gate.yaml`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			gate, err := one(f.gate(args))
			if err != nil {
				return err
			}
			if err := f.apply(&gate, cmd.Flags().Changed("seed")); err != nil {
				return err
			}
			if f.workers.onCluster {
				return errors.New("found --workers kubernetes:N; capacity takes workers of this machine only, so give a number")
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
	cmd.Flags().DurationVar(&f.lasts, "for", 0, "how long the load of all tries lasts together (default 9m, or longer if an answer takes longer than 1s)")
	cmd.Flags().Var((*rateFlag)(&f.atLeast), "at-least", "decide only whether the objectives hold at this `rate`")
	cmd.Flags().Float64Var(&f.percent, "precision", 0, "end early when the interval is no wider than so many `percent` of the rate (default: take all of the time)")
	cmd.Flags().Var(&f.workers, "workers", "send the load from this `number` of worker processes; 0 sends it from launchgate itself")
	cmd.Flags().BoolVar(&f.dryRun, "dry-run", false, "only tell how long the search would take; a service that already runs is asked how long an answer takes")
	return cmd
}

// rateFlag is a rate on the command line.
type rateFlag scenarios.Rate

func (r *rateFlag) String() string     { return scenarios.Rate(*r).String() }
func (r *rateFlag) Set(s string) error { return (*scenarios.Rate)(r).UnmarshalText([]byte(s)) }
func (r *rateFlag) Type() string       { return "rate" }

// findCapacity searches and returns the exit code: 0 when a rate was found.
func findCapacity(ctx context.Context, gate scenarios.Gate, f capacityFlags, out, errOut io.Writer) (int, error) {
	search := capacity.Search{From: float64(f.from), To: float64(f.to), Precision: f.percent / 100, For: f.lasts}
	if err := search.Check(); err != nil {
		return 0, err
	}
	one, err := f.tried().Of(gate)
	if err != nil {
		return 0, err
	}
	server, err := serverProgram()
	if err != nil {
		return 0, err
	}
	if f.dryRun {
		return checklist.ExitPass, f.tellDuration(ctx, measure.Capacity{Gate: gate, One: one, Search: search, Server: server}, out)
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
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	screen := newScreen(errOut, f.lang, f.console)
	if f.atLeast > 0 {
		screen.say("deciding whether %s holds for %s", f.atLeast, promises(one.Objectives))
	} else {
		screen.say("searching between %s and %s for %s", f.from, f.to, promises(one.Objectives))
	}
	found, opened, err := measure.Capacity{
		Gate: gate, One: one, Search: search, AtLeast: float64(f.atLeast), Dir: dir, Server: server, Command: os.Args,
		Workers: f.workers.n, Worker: []string{self, workerName}, Read: openRun,
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
		AtLeast: float64(f.atLeast), Decision: found.Decision, Broken: err != nil,
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
	}
	return reports.CapacityExit(doc), nil
}

// tellDuration tells how long a search would take.
func (f capacityFlags) tellDuration(ctx context.Context, c measure.Capacity, out io.Writer) error {
	deploys := len(targets.PlanFor(c.Gate).Replicas()) > 0
	answer, load, whole, err := c.Expected(ctx, deploys)
	if err != nil {
		return err
	}
	l := f.lang
	if deploys {
		fmt.Fprintln(out, l.Word(words.Say("the service is deployed for the search, so how long its answers take is not known yet; this assumes up to %s", answer)))
	} else {
		fmt.Fprintln(out, l.Word(words.Say("an answer takes %s", answer.Round(time.Millisecond))))
	}
	said := words.Say("the search would take about %s: %s of load, and the time between tries", whole.Round(time.Second), load)
	if f.atLeast > 0 {
		said = words.Say("the decision would take at most about %s: %s of load, and the time between tries", whole.Round(time.Second), load)
	}
	_, err = fmt.Fprintln(out, l.Word(said))
	return err
}

// shownTry is the length of a try in the gate that is validated; each try has its own.
const shownTry = 15 * time.Second

// tried says how a rate is tried.
func (f capacityFlags) tried() capacity.Try {
	return capacity.Try{Scenario: f.scenario, Profile: f.profile, Rate: f.from, Lasts: shownTry}
}

func promises(objectives []scenarios.Objective) string {
	var all []string
	for _, o := range objectives {
		all = append(all, o.Source)
	}
	return strings.Join(all, ", ")
}

// writeCapacity writes capacity.json, capacity.html, junit.xml and summary.md.
func writeCapacity(dir string, doc reports.Capacity) error {
	return writeFiles(dir, map[string]func(io.Writer) error{
		"capacity.json": func(w io.Writer) error { return printJSON(w, doc) },
		"capacity.html": func(w io.Writer) error { return reports.CapacityHTML(w, doc) },
		"junit.xml":     func(w io.Writer) error { return reports.CapacityJUnit(w, doc) },
		"summary.md":    func(w io.Writer) error { return reports.CapacityMarkdown(w, doc) },
	})
}
