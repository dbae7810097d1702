package checklist

import (
	"math"
	"slices"
	"time"

	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/scenarios"
)

// TooFew lists the objectives whose percentile or share the gate's load cannot prove,
// however good the service is. requests estimates the most requests that an
// objective can be about. It is not known how many requests will meet a fault, but
// not more than its scenario has. Gaps between chunks cannot be estimated.
func TooFew(gate scenarios.Gate, requests func(scenarios.Objective) (int64, bool)) []words.Sentence {
	var short []words.Sentence
	for _, o := range gate.Objectives {
		sent, known := mostOf(gate, o, requests)
		if others, ofOthers := mostOf(gate, o.Reference(), requests); ofOthers && others < sent {
			sent = others
		}
		takes := Takes(gate, o)
		if !known || sent >= takes {
			continue
		}
		what := words.Say("%s needs %d samples, and the stages send about %d requests: lengthen the stages, raise the rate, or let the last stage extend", o.Source, takes, sent)
		if ofCanaries(o) {
			what = words.Say("%s needs %d answers, and about %d will be requested: ask more often (canary.every), or lengthen the stages", o.Source, takes, sent)
		}
		if lower, ok := provable(gate, o, sent); ok {
			what = words.Say("%s, or use %s as the objective", what, lower)
		}
		short = append(short, what)
	}
	return short
}

// ofCanaries reports whether an objective is about the answers of canaries.
func ofCanaries(o scenarios.Objective) bool {
	m, _ := scenarios.MetricOf(o.Metric)
	return m.Needs == scenarios.NeedsCanaries
}

// mostOf is about how many requests an objective is about, at the most.
func mostOf(gate scenarios.Gate, o scenarios.Objective, requests func(scenarios.Objective) (int64, bool)) (int64, bool) {
	m, _ := scenarios.MetricOf(o.Metric)
	kind := o.During
	shareOfFault := m.Arg == scenarios.FaultArg && m.Bound == scenarios.BoundShare
	if shareOfFault {
		kind = o.Arg
	}
	switch {
	case ofCanaries(o):
		return canaries(gate, o), true
	case kind != "":
		var sum int64
		for _, s := range gate.Scenarios {
			if (o.Scenario == "" || o.Scenario == s.Name) && slices.ContainsFunc(s.Faults, func(f scenarios.Fault) bool { return f.Kind == kind }) {
				of := o
				of.Scenario = s.Name
				n, known := requests(of)
				if !known {
					return 0, false
				}
				sum += n
			}
		}
		return sum, m.OfRequests() && !m.PerChunk || shareOfFault
	case !m.OfRequests() || m.PerChunk:
		return 0, false
	}
	return requests(o)
}

// canaries is how many are asked in the time of the stages.
func canaries(gate scenarios.Gate, o scenarios.Objective) (n int64) {
	for _, s := range gate.Scenarios {
		if s.Canary == nil || s.Canary.Every <= 0 || o.Scenario != "" && o.Scenario != s.Name {
			continue
		}
		var lasts time.Duration
		for _, st := range s.Stages {
			lasts += time.Duration(st.For + st.Extend)
		}
		n += int64(lasts / time.Duration(s.Canary.Every))
	}
	return n
}

// provable is a weaker limit that so many requests could prove.
func provable(gate scenarios.Gate, o scenarios.Objective, sent int64) (words.Sentence, bool) {
	if isShare(o) && !counted(o) && sent > 0 {
		_, high := rateBoundsAt(sureOf(gate, scopeOf(o)), 0, sent)
		limit := math.Ceil(high*100) / 100
		if limit >= 1 {
			return words.Sentence{}, false
		}
		if atLeast(o) {
			limit = 1 - limit
		}
		return words.Say("%s %s", o.Op, show(limit, o.Unit)), true
	}
	for _, lower := range []struct {
		stat     string
		quantile float64
	}{{"p99", 0.99}, {"p95", 0.95}, {"p90", 0.90}, {"p50", 0.50}} {
		promise := o
		promise.Quantile = lower.quantile
		if lower.quantile < o.Quantile && (o.Op == "<=" || o.Op == "<") && Takes(gate, promise) <= sent {
			return words.Verbatim(lower.stat), true
		}
	}
	return words.Sentence{}, false
}
