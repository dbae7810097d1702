// Package measure plays many runs against one target: rate after rate until it knows
// the highest at which the objectives hold, or blocks of the same load in turns against
// two services. It acts only through internal/run. The packages capacity and checklist
// interpret the runs, each of which has a run folder of its own.
package measure

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/launchgate/launchgate/capacity"
	"github.com/launchgate/launchgate/checklist"
	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/internal/run"
	"github.com/launchgate/launchgate/internal/version"
	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/scenarios"
)

// Capacity is a search for the highest rate.
type Capacity struct {
	Gate    scenarios.Gate // whose target is tried
	One     scenarios.Gate // for a single try, see capacity.Try
	Search  capacity.Search
	AtLeast float64 // if above 0, it is only decided whether the objectives hold at this rate
	Dir     string  // for the recordings of the tries; it must exist
	Server  string  // the reference-server program
	Command []string
	// Workers and Worker are as in run.Options.
	Workers int
	Worker  []string
	// Judge judges the recording in a folder, and Read reads it.
	Judge func(dir string) (checklist.Verdict, error)
	Read  func(dir string) (scenarios.Gate, *recording.Recording, error)
	// Tell receives the progress of the n-th try, and Tried the result of each try.
	Tell  func(n int, rate scenarios.Rate, p run.Progress)
	Tried func(capacity.Point)
}

// Found is the result of a search, and the address of the target.
type Found struct {
	capacity.Result
	Target   string
	Decision capacity.Decision // if it was asked about a rate
}

// Find searches. If it is stopped or fails, it returns the results so far with the
// error; opened is false if the target could not be opened.
func (c Capacity) Find(ctx context.Context) (f Found, opened bool, err error) {
	logs := filepath.Join(c.Dir, "logs")
	if err := os.Mkdir(logs, 0o755); err != nil {
		return f, false, err
	}
	s := &seeker{Capacity: c}
	if s.session, err = run.Open(ctx, c.Gate, c.Server, logs); err != nil {
		return f, false, err
	}
	defer s.session.Close()
	f.Target = s.session.Endpoint.URL
	s.One.Target = scenarios.Target{Endpoint: &s.session.Endpoint}
	if s.Search.Answer, _, err = s.session.Answer(ctx, s.One); err != nil {
		return f, false, err
	}
	if s.Search.For == 0 {
		s.Search.For = capacity.DefaultFor(s.Search.Answer)
	}
	s.Search.Scores = checklist.Scores(s.One)
	if c.AtLeast > 0 {
		f.Decision, f.Result, err = s.Search.AtLeast(ctx, c.AtLeast, s.try)
	} else {
		f.Result, err = s.Search.Find(ctx, s.try)
	}
	return f, true, err
}

// Expected is how long the load of a search takes, and the whole search, with the time
// between its tries. A target that the search deploys is not there to be asked how long
// an answer takes, so that is assumed; any other has to be running.
func (c Capacity) Expected(ctx context.Context, deploys bool) (answer, load, whole time.Duration, err error) {
	longest := time.Second
	if deploys {
		answer = longest
	} else {
		logs, err := os.MkdirTemp("", "launchgate-capacity-")
		if err != nil {
			return 0, 0, 0, err
		}
		defer os.RemoveAll(logs)
		session, err := run.Open(ctx, c.Gate, c.Server, logs)
		if err != nil {
			return 0, 0, 0, err
		}
		defer session.Close()
		one := c.One
		one.Target = scenarios.Target{Endpoint: &session.Endpoint}
		if answer, longest, err = session.Answer(ctx, one); err != nil {
			return 0, 0, 0, err
		}
	}
	load, whole = c.Search.Takes(answer, longest)
	return answer, load, whole, nil
}

// seeker tries rates of one workload against one target.
type seeker struct {
	Capacity
	session *run.Session
	n       int
	longest time.Duration // how long draining may take
}

// errSaturated ends a try whose requests pile up.
var errSaturated = errors.New("saturated")

// try plays a rate for a time and observes it.
func (s *seeker) try(ctx context.Context, rate float64, lasts time.Duration, n int) (capacity.Point, error) {
	if s.n > 0 {
		if err := s.session.Drain(ctx, s.longest); err != nil {
			return capacity.Point{}, err
		}
	}
	s.n++
	gate, name := s.gate(rate, lasts, n), s.name(rate)
	dir := filepath.Join(s.Dir, name)
	trying, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var backlog capacity.Backlog
	var elapsed time.Duration
	err := run.Run(trying, run.Options{
		Gate: gate, Keys: s.session.Keys, Dir: dir, Version: version.Short(), Command: s.Command, Workers: s.Workers, Worker: s.Worker,
		Tell: func(p run.Progress) {
			if p.Live == nil {
				return
			}
			s.Tell(s.n, scenarios.Rate(rate), p)
			if p.Live.Elapsed < lasts && trying.Err() == nil && backlog.Look(p.Live.Elapsed, p.Live.Due, p.Live.Done) {
				elapsed = p.Live.Elapsed
				stop(errSaturated)
			}
		},
	})
	if err != nil {
		return capacity.Point{}, err
	}
	if ctx.Err() != nil {
		return capacity.Point{}, context.Cause(ctx)
	}
	v, err := s.Judge(dir)
	if err != nil {
		return capacity.Point{}, err
	}
	_, rec, err := s.Read(dir)
	if err != nil {
		return capacity.Point{}, err
	}
	saturated := errors.Is(context.Cause(trying), errSaturated)
	if !saturated {
		elapsed = lasts
	}
	seen, err := observe(s.Search.Scores, checklist.Good(gate), rec, elapsed)
	if err != nil {
		return capacity.Point{}, err
	}
	p := capacity.Measured(v)
	p.Rate, p.Dir, p.Seconds, p.WarmUp = rate, name, elapsed.Seconds(), seen.WarmUp.Seconds()
	switch {
	case saturated:
		seen.Growing = true
		p.Outcome, p.Why = capacity.Saturated, words.Say("requests piled up faster than they were answered")
	case !v.Client.Valid:
		p.Outcome, p.Why = capacity.Limited, v.Client.Why
	default:
		p.Outcome, p.Why = capacity.Judged(s.Search.Scores, seen)
	}
	p.Drawn, p.Seen = seen.Load, seen
	p.GoodputPerSecond, p.TokensPerSecond = &seen.Good, &seen.Tokens
	s.longest = max(s.longest, 4*elapsed, 10*seen.Answer)
	s.Tried(p)
	return p, nil
}

// observe sums up the load of a recording, from the start of its stage.
func observe(scores []checklist.Score, good func(*recording.Request) bool, rec *recording.Recording, lasted time.Duration) (capacity.Seen, error) {
	var from time.Duration
	for _, o := range rec.Observations {
		if o.Name == recording.ObsStageStarted {
			from = o.At
		}
	}
	var failed error
	seen := capacity.Observe(scores, good, from, from+lasted, func(yield func(*recording.Request) bool) {
		for r, err := range rec.Requests {
			if err != nil {
				failed = err
				return
			}
			if !yield(&r) {
				return
			}
		}
	})
	return seen, failed
}

// gate is the gate of a try, with arrivals of its own.
func (s *seeker) gate(rate float64, lasts time.Duration, n int) scenarios.Gate {
	gate := s.One
	gate.Name = fmt.Sprintf("%s-try-%d", trimmed(s.One.Name), s.n)
	gate.Seed = s.One.Seed + uint64(n)*1_000_003 + uint64(rate*1000)
	scenario := gate.Scenarios[0]
	scenario.Stages = slices.Clone(scenario.Stages)
	scenario.Stages[0].Rate = scenarios.Rate(rate)
	scenario.Stages[0].For = scenarios.Duration(lasts)
	gate.Scenarios = []scenarios.Scenario{scenario}
	return gate
}

// name is the name of a try's folder.
func (s *seeker) name(rate float64) string {
	return fmt.Sprintf("try-%02d-%s", s.n, strings.ReplaceAll(strings.ReplaceAll(scenarios.Rate(rate).String(), "/s", ""), ".", "_"))
}

// trimmed shortens a name, so that there is room for a suffix.
func trimmed(name string) string { return name[:min(len(name), 48)] }
