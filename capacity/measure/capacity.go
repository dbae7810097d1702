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
	Least   time.Duration // the shortest duration of a try
	Longest time.Duration // the longest duration of a try, if its percentiles need many samples
	Dir     string        // for the recordings of the tries; it must exist
	Server  string        // the reference-server program
	Command []string
	// Judge judges the recording in a folder.
	Judge func(dir string) (checklist.Verdict, error)
	// Tell receives the progress of the n-th try, and Tried the result of each try.
	Tell  func(n int, rate scenarios.Rate, p run.Progress)
	Tried func(capacity.Point)
}

// Found is the result of a search, and the address of the target.
type Found struct {
	capacity.Result
	Target string
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
	f.Result, err = c.Search.Find(ctx, s.try)
	return f, true, err
}

// seeker tries rates of one workload against one target.
type seeker struct {
	Capacity
	session *run.Session
	n       int
}

// errSaturated ends a try whose requests pile up.
var errSaturated = errors.New("saturated")

// try plays a rate and judges it.
func (s *seeker) try(ctx context.Context, rate float64, again int) (capacity.Point, error) {
	if s.n > 0 {
		if err := s.session.Drain(ctx); err != nil {
			return capacity.Point{}, err
		}
	}
	s.n++
	gate, name := s.gate(rate, again), s.name(rate)
	dir := filepath.Join(s.Dir, name)
	trying, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var backlog capacity.Backlog
	err := run.Run(trying, run.Options{
		Gate: gate, Keys: s.session.Keys, Dir: dir, Version: version.Short(), Command: s.Command,
		Tell: func(p run.Progress) {
			if p.Live == nil {
				return
			}
			s.Tell(s.n, scenarios.Rate(rate), p)
			if backlog.Look(p.Live.Elapsed, p.Live.Due, p.Live.Done) {
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
	p := capacity.Measured(v)
	p.Rate, p.Dir, p.Seconds = rate, name, time.Duration(gate.Scenarios[0].Stages[0].For).Seconds()
	p.Outcome, p.Why = capacity.Concluded(gate, v)
	if errors.Is(context.Cause(trying), errSaturated) {
		p.Outcome, p.Why = capacity.Saturated, words.Say("requests piled up faster than they were answered")
		p.Seconds = 0
	}
	s.Tried(p)
	return p, nil
}

// gate is the gate of a try, with arrivals of its own.
func (s *seeker) gate(rate float64, again int) scenarios.Gate {
	gate := s.One
	gate.Name = fmt.Sprintf("%s-try-%d", trimmed(s.One.Name), s.n)
	gate.Seed = s.One.Seed + uint64(again)*1_000_003 + uint64(rate*1000)
	scenario := gate.Scenarios[0]
	scenario.Stages = slices.Clone(scenario.Stages)
	scenario.Stages[0].Rate = scenarios.Rate(rate)
	scenario.Stages[0].For = scenarios.Duration(capacity.Lasting(s.One.Objectives, rate, s.Least, s.Longest))
	gate.Scenarios = []scenarios.Scenario{scenario}
	return gate
}

// name is the name of a try's folder.
func (s *seeker) name(rate float64) string {
	return fmt.Sprintf("try-%02d-%s", s.n, strings.ReplaceAll(strings.ReplaceAll(scenarios.Rate(rate).String(), "/s", ""), ".", "_"))
}

// trimmed shortens a name, so that there is room for a suffix.
func trimmed(name string) string { return name[:min(len(name), 48)] }
