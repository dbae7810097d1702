package scenarios

import (
	"slices"
	"time"
)

// What a gate that leaves it out gets. docs/gate.md tells each to the reader.
const (
	DefaultReplicas     = 3
	DefaultReadyTimeout = Duration(time.Minute)
	DefaultWarmup       = 8
	DefaultAPI          = APIChat
	DefaultMaxTokens    = 48
	DefaultTimeout      = Duration(30 * time.Second)
	DefaultArrivals     = ArrivalsPoisson
	DefaultVictim       = VictimBusiest
	DefaultWithin       = Duration(30 * time.Second)

	DefaultProbeEvery       = Duration(100 * time.Millisecond)
	DefaultProbeConsecutive = 3
	DefaultProbeMaxTokens   = 4
	DefaultProbeTimeout     = Duration(2 * time.Second)
)

// Resolved is the gate with everything it leaves out filled in, so that it says
// by itself what a run of it did. A seed of 0 stays, for the run to draw one.
func (g Gate) Resolved() Gate {
	if g.Target.Local != nil {
		local := *g.Target.Local
		or(&local.Replicas, DefaultReplicas)
		or(&local.ReadyTimeout, DefaultReadyTimeout)
		g.Target.Local = &local
	}
	or(&g.Warmup.Requests, DefaultWarmup)
	g.Scenarios = slices.Clone(g.Scenarios)
	for i, s := range g.Scenarios {
		g.Scenarios[i] = s.resolved()
	}
	return g
}

func (s Scenario) resolved() Scenario {
	s.Workload = s.Workload.resolved()
	s.Stages = slices.Clone(s.Stages)
	for i := range s.Stages {
		or(&s.Stages[i].Arrivals, DefaultArrivals)
	}
	s.Faults = slices.Clone(s.Faults)
	for i := range s.Faults {
		if kind, known := kindOf(s.Faults[i].Kind); kind.replica || !known {
			or(&s.Faults[i].Target, DefaultVictim)
		}
		if kind, _ := kindOf(s.Faults[i].Kind); slices.Contains(kind.may, "cut") {
			or(&s.Faults[i].Cut, CutSilent)
		}
		or(&s.Faults[i].Within, DefaultWithin)
	}
	if s.Probe == nil && len(s.Faults) == 0 {
		return s
	}
	var probe Probe
	if s.Probe != nil {
		probe = *s.Probe
	}
	or(&probe.Every, DefaultProbeEvery)
	or(&probe.Consecutive, DefaultProbeConsecutive)
	or(&probe.MaxTokens, DefaultProbeMaxTokens)
	or(&probe.Timeout, DefaultProbeTimeout)
	s.Probe = &probe
	return s
}

// resolved streams, and asks at temperature 0, so that the same prompt is the
// same work in every run. The prompts are written out: a run of a gate that
// names none can be repeated after the default set has changed.
func (w Workload) resolved() Workload {
	or(&w.API, DefaultAPI)
	if w.Stream == nil {
		w.Stream = new(true)
	}
	if w.Temperature == nil {
		w.Temperature = new(float64(0))
	}
	if len(w.Prompts) == 0 {
		w.Prompts = DefaultPrompts()
	}
	or(&w.MaxTokens, DefaultMaxTokens)
	or(&w.Timeout, DefaultTimeout)
	return w
}

func or[T comparable](value *T, otherwise T) {
	var zero T
	if *value == zero {
		*value = otherwise
	}
}
