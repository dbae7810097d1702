package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/launchgate/launchgate/checklist"
	"github.com/launchgate/launchgate/internal/run"
	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/loadgen/capacity"
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

func capacityCommand(out, errOut io.Writer, code *int) *cobra.Command {
	f := capacityFlags{from: 1, to: 10_000}
	cmd := &cobra.Command{
		Use:   "capacity [GATE.yaml | NAME]",
		Short: "Find the highest rate at which the objectives hold",
		Long: `Capacity deploys the gate's target (or drives the one named with --target) and
plays the workload of one scenario at one rate after the other, until it knows
the highest at which every objective of that scenario holds. The rate doubles
until an objective is missed; then the interval between what held and what did
not is halved until it is no wider than --precision; then what held is tried
again with other arrivals. Each try is a run folder of its own, with a report.

A try ends early when requests pile up faster than they are answered, and the
next begins when the service answers as quickly as it did without load. A try
that the client was too slow for ends the search: it says nothing about the
service.

A percentile needs samples (p95 130, p99 662), so a try at a low rate lasts as
long as that takes, up to --longest; what is then still short of samples is
decided by what was measured, and the result says so.`,
		Example: `  launchgate capacity
  launchgate capacity --target http://127.0.0.1:8000 --profile mlperf-llama-3.1-8b-server my-gate.yaml
  launchgate capacity --from 4/s --to 64/s --precision 2 --scenario steady my-gate.yaml`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			gate, err := gateOf(args, f.target)
			if err != nil {
				return err
			}
			if err := f.apply(&gate, cmd.Flags().Changed("seed")); err != nil {
				return err
			}
			*code, err = findCapacity(cmd.Context(), gate, f, out, errOut)
			return err
		},
	}
	f.targetFlags(cmd)
	cmd.Flags().StringVar(&f.out, "out", "", "the `folder` to make (default runs/<time>-capacity-<gate>)")
	cmd.Flags().StringVar(&f.scenario, "scenario", "", "whose workload and objectives (default the gate's first without faults)")
	cmd.Flags().StringVar(&f.profile, "profile", "", "a ready set of objectives in place of the gate's (launchgate list profiles)")
	cmd.Flags().Var((*rateFlag)(&f.from), "from", "the `rate` to begin with")
	cmd.Flags().Var((*rateFlag)(&f.to), "to", "the highest `rate` to try")
	cmd.Flags().DurationVar(&f.probe, "probe", 15*time.Second, "how long a try lasts at least")
	cmd.Flags().DurationVar(&f.longest, "longest", time.Minute, "how long a try lasts at most, for the samples that a percentile needs")
	cmd.Flags().Float64Var(&f.percent, "precision", 5, "how wide the interval may be at the end, in `percent` of the rate")
	cmd.Flags().IntVar(&f.confirm, "confirm", 1, "how many `times` the rate that is found has to hold again")
	return cmd
}

// rateFlag is a rate on the command line.
type rateFlag scenarios.Rate

func (r *rateFlag) String() string     { return scenarios.Rate(*r).String() }
func (r *rateFlag) Set(s string) error { return (*scenarios.Rate)(r).UnmarshalText([]byte(s)) }
func (r *rateFlag) Type() string       { return "rate" }

// seeker tries rates of one workload against one target.
type seeker struct {
	f       capacityFlags
	gate    scenarios.Gate // the target is an endpoint, the scenarios are one
	dir     string
	session *run.Session
	screen  *screen
	n       int
}

// findCapacity searches and returns the exit code: 0 when a rate was found.
func findCapacity(ctx context.Context, gate scenarios.Gate, f capacityFlags, out, errOut io.Writer) (int, error) {
	search := capacity.Search{From: float64(f.from), To: float64(f.to), Precision: f.percent / 100, Confirm: f.confirm}
	if err := search.Check(); err != nil {
		return 0, err
	}
	if f.probe < time.Second || f.longest < f.probe {
		return 0, fmt.Errorf("found a try of %s and at most %s, expected at least 1s, and --longest no shorter than --probe", f.probe, f.longest)
	}
	one, err := f.tried(gate)
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
	logs := filepath.Join(dir, "logs")
	if err := os.Mkdir(logs, 0o755); err != nil {
		return 0, err
	}
	screen := newScreen(errOut, f.lang)
	s := &seeker{f: f, gate: one, dir: dir, screen: screen}
	screen.say("searching between %s and %s for %s", f.from, f.to, promises(one.Objectives))
	if s.session, err = run.Open(ctx, gate, server, logs); err != nil {
		return 0, err
	}
	defer s.session.Close()
	s.gate.Target = scenarios.Target{Endpoint: &s.session.Endpoint}

	result, err := search.Find(ctx, s.try)
	screen.clear()
	if err != nil && ctx.Err() == nil {
		result.Why = words.Told(err.Error())
	}
	doc := s.told(result)
	if writeErr := s.write(doc); writeErr != nil {
		return 0, writeErr
	}
	if writeErr := reports.CapacityTerminal(out, doc, dir); writeErr != nil {
		return 0, writeErr
	}
	switch {
	case ctx.Err() != nil:
		return exitInterrupted, nil
	case err != nil:
		return 0, err
	case !result.Found:
		return checklist.ExitFail, nil
	}
	return checklist.ExitPass, nil
}

// tried is the gate of a single try: one scenario of one stage, and the
// objectives that are about it.
func (f capacityFlags) tried(gate scenarios.Gate) (scenarios.Gate, error) {
	i := slices.IndexFunc(gate.Scenarios, func(s scenarios.Scenario) bool {
		return s.Name == f.scenario || f.scenario == "" && len(s.Faults) == 0
	})
	if i < 0 && f.scenario != "" {
		var known []string
		for _, s := range gate.Scenarios {
			known = append(known, s.Name)
		}
		return gate, fmt.Errorf("%s has no scenario %s; known: %s", gate.Name, f.scenario, strings.Join(known, ", "))
	}
	if i < 0 {
		return gate, fmt.Errorf("every scenario of %s has a fault; name the one whose workload is to be tried with --scenario", gate.Name)
	}
	from := gate.Scenarios[i]
	one := gate
	arrivals, burstiness := scenarios.ArrivalsPoisson, 0.0
	for _, st := range from.Stages {
		if st.Arrivals != "" {
			arrivals, burstiness = st.Arrivals, st.Burstiness
			break
		}
	}
	for _, class := range from.Mix() {
		if class.Workload.Turns > 1 {
			return gate, fmt.Errorf("%s is of conversations, whose questions wait for answers, so it has no rate; name another scenario with --scenario", from.Name)
		}
	}
	one.Scenarios = []scenarios.Scenario{{
		Name: from.Name, Description: from.Description, Workload: from.Workload, Classes: from.Classes,
		Stages: []scenarios.Stage{{Name: "main", For: scenarios.Duration(f.probe), Rate: f.from, Arrivals: arrivals, Burstiness: burstiness}},
	}}
	one.Objectives = nil
	for _, o := range gate.Objectives {
		m, _ := scenarios.MetricOf(o.Metric)
		switch {
		case o.Scenario != "" && o.Scenario != from.Name || o.During != "" || !m.OfRequests():
			continue // of other scenarios, of faults, of what is measured beside the load
		case o.Metric == "errors" || o.Metric == "refused_rate" && (o.Op == ">=" || o.Op == ">"):
			continue // they grow with the rate
		case o.Than != (scenarios.Than{}):
			continue // it tells parts of the load apart, and not what is too much
		}
		o.Stage, o.Outside = "", false // there is one, and no fault
		o.Source = o.String()
		if !slices.ContainsFunc(one.Objectives, func(have scenarios.Objective) bool { return have.Source == o.Source }) {
			one.Objectives = append(one.Objectives, o)
		}
	}
	if f.profile != "" {
		profiles := scenarios.Profiles()
		i := slices.IndexFunc(profiles, func(p scenarios.Profile) bool { return p.Name == f.profile })
		if i < 0 {
			return gate, fmt.Errorf("%s is no profile; launchgate list profiles tells which there are", f.profile)
		}
		one.Objectives = profiles[i].Objectives(from.Name)
	}
	if len(one.Objectives) == 0 {
		return gate, fmt.Errorf("no objective of %s is about the latency or the errors of %s, so every rate would do; add one, or take a --profile", gate.Name, from.Name)
	}
	// A service that refuses what is too much for it must not look quick.
	if !slices.ContainsFunc(one.Objectives, func(o scenarios.Objective) bool { return o.Metric == "error_rate" || o.Metric == "attainment" }) {
		o, err := scenarios.ParseObjective("error_rate <= 1%")
		if err != nil {
			return gate, err
		}
		one.Objectives = append(one.Objectives, o)
	}
	one = one.Resolved()
	one.Target = gate.Target.WithoutKeys() // they are those of other scenarios too
	return one, scenarios.Validate(one)
}

// lasts is how long a try of a rate lasts: long enough for the samples that the
// percentiles need, within bounds.
func (s *seeker) lasts(rate float64) time.Duration {
	need := 0.0
	for _, o := range s.gate.Objectives {
		if o.Quantile > 0 {
			need = max(need, float64(checklist.SamplesFor(o.Quantile)))
		}
	}
	// A tenth more, because Poisson arrivals are sometimes fewer.
	return min(max(s.f.probe, time.Duration(math.Ceil(1.1*need/rate))*time.Second), s.f.longest)
}

// try plays a rate and judges it.
func (s *seeker) try(ctx context.Context, rate float64, again int) (capacity.Point, error) {
	if s.n > 0 {
		if err := s.session.Drain(ctx); err != nil {
			return capacity.Point{}, err
		}
	}
	s.n++
	gate := s.gate
	gate.Name = fmt.Sprintf("%s-try-%d", trimmed(s.gate.Name), s.n)
	gate.Seed = s.gate.Seed + uint64(again)*1_000_003 + uint64(rate*1000)
	scenario := gate.Scenarios[0]
	scenario.Stages = slices.Clone(scenario.Stages)
	scenario.Stages[0].Rate, scenario.Stages[0].For = scenarios.Rate(rate), scenarios.Duration(s.lasts(rate))
	gate.Scenarios = []scenarios.Scenario{scenario}

	name := fmt.Sprintf("try-%02d-%s", s.n, strings.ReplaceAll(strings.ReplaceAll(scenarios.Rate(rate).String(), "/s", ""), ".", "_"))
	dir := filepath.Join(s.dir, name)
	trying, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	saturated := errors.New("saturated")
	var backlog capacity.Backlog
	err := run.Run(trying, run.Options{
		Gate: gate, Keys: s.session.Keys, Dir: dir, Version: run.Version(), Command: os.Args,
		Tell: func(p run.Progress) {
			if p.Live == nil {
				return
			}
			p.Live.Scenario = s.f.lang.Word(words.Say("try %d: %s", s.n, scenarios.Rate(rate)))
			s.screen.tell(p)
			if backlog.Look(p.Live.Elapsed, p.Live.Due, p.Live.Done) {
				stop(saturated)
			}
		},
	})
	if err != nil {
		return capacity.Point{}, err
	}
	if ctx.Err() != nil {
		return capacity.Point{}, context.Cause(ctx)
	}
	v, err := judgeDir(dir, s.f.lang)
	if err != nil {
		return capacity.Point{}, err
	}
	p := measured(v.Verdict)
	p.Rate, p.Dir, p.Seconds = rate, name, time.Duration(scenario.Stages[0].For).Seconds()
	p.Outcome, p.Why = outcomeOf(gate, v.Verdict)
	if errors.Is(context.Cause(trying), saturated) {
		p.Outcome, p.Why = capacity.Saturated, words.Say("requests piled up faster than they were answered")
		p.Seconds = 0
	}
	s.screen.say("%-10s %-9s %s", scenarios.Rate(rate), words.Told(string(p.Outcome)), p.Why)
	return p, nil
}

// outcomeOf a try. What lacks nothing but samples is decided by what was
// measured: a search cannot wait for the last of them at every rate.
func outcomeOf(gate scenarios.Gate, v checklist.Verdict) (capacity.Outcome, words.Sentence) {
	if !v.Client.Valid {
		return capacity.Limited, v.Client.Why
	}
	var short words.Sentence
	for i, f := range v.Objectives {
		switch {
		case f.Verdict == checklist.Fail:
			return capacity.Misses, words.Say("%s: %s", f.Source, f.Why)
		case f.Verdict == checklist.Pass:
		case f.Value == nil:
			return capacity.Misses, words.Say("%s: %s", f.Source, f.Why)
		case !checklist.Holds(*f.Value, gate.Objectives[i]):
			return capacity.Misses, words.Say("%s: by %d samples, too few to prove it", f.Source, f.Samples)
		default:
			short = words.Say("%s holds by %d samples, too few to prove it", f.Source, f.Samples)
		}
	}
	if !short.IsZero() {
		return capacity.Holds, short
	}
	return capacity.Holds, words.Count(int64(len(v.Objectives)), "1 objective, proven", "%d objectives, proven")
}

func measured(v checklist.Verdict) (p capacity.Point) {
	if len(v.Scenarios) == 0 {
		return p
	}
	s := v.Scenarios[0]
	p.GoodputPerSecond, p.TokensPerSecond = s.GoodputPerSecond, s.OutputTokensPerSecond
	if q := s.TTFT; q != nil {
		p.TTFTP50, p.TTFTP95 = &q.P50, &q.P95
	}
	if q := s.TPOT; q != nil {
		p.TPOTP50, p.TPOTP95 = &q.P50, &q.P95
	}
	return p
}

// trimmed leaves room for what is added to a name.
func trimmed(name string) string { return name[:min(len(name), 48)] }

func promises(objectives []scenarios.Objective) string {
	var all []string
	for _, o := range objectives {
		all = append(all, o.Source)
	}
	return strings.Join(all, ", ")
}

// told is what is told of a result.
func (s *seeker) told(r capacity.Result) reports.Capacity {
	doc := reports.Capacity{
		Language: s.f.lang, Gate: s.gate.Name, Scenario: s.gate.Scenarios[0].Name, Target: s.session.Endpoint.URL, Seed: s.gate.Seed,
		Command: os.Args, Version: run.Version(), At: time.Now().UTC().Truncate(time.Second), Result: r,
	}
	for _, o := range s.gate.Objectives {
		doc.Objectives = append(doc.Objectives, o.Source)
	}
	return doc
}

// write leaves capacity.json and capacity.html.
func (s *seeker) write(doc reports.Capacity) error {
	b, err := json.MarshalIndent(doc, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(s.dir, "capacity.json"), append(b, '\n'), 0o644); err != nil {
		return err
	}
	f, err := os.Create(filepath.Join(s.dir, "capacity.html"))
	if err != nil {
		return err
	}
	defer f.Close()
	if err := reports.CapacityHTML(f, doc); err != nil {
		return err
	}
	return f.Close()
}
