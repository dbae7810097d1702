package capacity

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/launchgate/launchgate/checklist"
	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/scenarios"
)

// Try says how the workload of one scenario is tried at a rate.
type Try struct {
	Scenario string // its workload and objectives are used; empty: the gate's first scenario without faults
	Profile  string // a predefined set of objectives in place of the gate's; empty: the gate's
	Rate     scenarios.Rate
	Lasts    time.Duration
}

// Of is the gate of a single try: one scenario with one stage, and the objectives that
// apply to it.
func (t Try) Of(gate scenarios.Gate) (scenarios.Gate, error) {
	i := slices.IndexFunc(gate.Scenarios, func(s scenarios.Scenario) bool {
		return s.Name == t.Scenario || t.Scenario == "" && len(s.Faults) == 0
	})
	if i < 0 && t.Scenario != "" {
		var known []string
		for _, s := range gate.Scenarios {
			known = append(known, s.Name)
		}
		return gate, fmt.Errorf("%s has no scenario %s; known: %s", gate.Name, t.Scenario, strings.Join(known, ", "))
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
		Stages: []scenarios.Stage{{Name: "main", For: scenarios.Duration(t.Lasts), Rate: t.Rate, Arrivals: arrivals, Burstiness: burstiness}},
	}}
	one.Objectives = nil
	for _, o := range gate.Objectives {
		m, _ := scenarios.MetricOf(o.Metric)
		switch {
		case o.Scenario != "" && o.Scenario != from.Name || o.During != "" || !m.OfRequests():
			continue // it is about other scenarios, about faults, or about what is measured beside the load
		case m.Unit == scenarios.UnitCount || !m.MoreIsBetter && (o.Op == ">=" || o.Op == ">"):
			continue // its value grows with the rate
		case o.Than != (scenarios.Than{}):
			continue // it compares parts of the load, and says nothing about saturation
		}
		o.Stage, o.Outside = "", false // there is one stage, and no fault
		o.Source = o.String()
		if !slices.ContainsFunc(one.Objectives, func(have scenarios.Objective) bool { return have.Source == o.Source }) {
			one.Objectives = append(one.Objectives, o)
		}
	}
	if t.Profile != "" {
		profiles := scenarios.Profiles()
		i := slices.IndexFunc(profiles, func(p scenarios.Profile) bool { return p.Name == t.Profile })
		if i < 0 {
			return gate, fmt.Errorf("%s is no profile; launchgate list profiles tells which there are", t.Profile)
		}
		one.Objectives = profiles[i].Objectives(from.Name)
	}
	// What no single request can miss says nothing about how far a rate is from its limit.
	one.Objectives = slices.DeleteFunc(one.Objectives, func(o scenarios.Objective) bool {
		return !slices.ContainsFunc(checklist.Scores(one), func(s checklist.Score) bool { return s.Objective.Source == o.Source })
	})
	if len(one.Objectives) == 0 {
		return gate, fmt.Errorf("no objective of %s is about the latency or the errors of %s, so every rate would do; add one, or take a --profile", gate.Name, from.Name)
	}
	// A service that sheds load must not pass as a fast one.
	if !slices.ContainsFunc(one.Objectives, func(o scenarios.Objective) bool {
		m, _ := scenarios.MetricOf(o.Metric)
		return m.Errors && m.Bound == scenarios.BoundShare
	}) {
		o, err := scenarios.ParseObjective(scenarios.ErrorRate + " <= 1%")
		if err != nil {
			return gate, err
		}
		one.Objectives = append(one.Objectives, o)
	}
	one = one.Resolved()
	one.Target = gate.Target.WithoutKeys() // other scenarios use the keys too
	return one, scenarios.Validate(one)
}

// Judged is the outcome of a try by what was seen: it holds if no objective was missed
// more often than it allows, and no more requests arrived than were answered.
func Judged(scores []checklist.Score, seen Seen) (Outcome, words.Sentence) {
	if seen.Growing {
		return Misses, words.Say("the backlog was still growing at the end")
	}
	worst, far := -1, 0.0
	for i, m := range seen.Of {
		if m.Of == 0 {
			continue
		}
		if by := m.Over / m.Of / scores[i].Most(); worst < 0 || by > far {
			worst, far = i, by
		}
	}
	if worst < 0 {
		return Misses, words.Say("no request was answered")
	}
	m, score := seen.Of[worst], scores[worst]
	outcome := Holds
	if far > 1 {
		outcome = Misses
	}
	if score.Mean {
		return outcome, words.Say("%s: it is %.3g %% of its limit", score.Objective.Source, 100*far)
	}
	return outcome, words.Say("%s: %.3g %% of %.0f missed the limit, and %.3g %% may", score.Objective.Source, 100*m.Over/m.Of, m.Of, 100*score.Allowed)
}

// Measured are the latencies that the verdict on a try holds.
func Measured(v checklist.Verdict) (p Point) {
	if len(v.Scenarios) == 0 {
		return p
	}
	s := v.Scenarios[0]
	if q := s.TTFT; q != nil {
		p.TTFTP50, p.TTFTP95 = &q.P50, &q.P95
	}
	if q := s.TPOT; q != nil {
		p.TPOTP50, p.TPOTP95 = &q.P50, &q.P95
	}
	return p
}
