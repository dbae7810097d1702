package checklist

import (
	"math"

	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/scenarios"
)

// side is one side of a comparison: the measured value and its bounds. A bound is nil
// if there were too few samples for it.
type side struct {
	value     float64
	low, high *float64
	samples   int64
	why       words.Sentence // why it has no value
	more      words.Sentence // why it has no bounds
}

// side measures one side of a comparison. Each bound has the given confidence.
func (e *evidence) side(o scenarios.Objective, sure float64) side {
	scope := scopeOf(o)
	s := e.within(scope)
	if o.Stat == "" {
		if s.due == 0 {
			return side{why: words.Say("no request was due")}
		}
		p := e.pace(measureOf(o.Metric).rate, scope, sure)
		if p.good == 0 {
			return side{samples: s.due, why: words.Say("no request met the objectives (%d were due), so a comparison of %s proves nothing; find out why they failed", s.due, o.Metric)}
		}
		m := side{value: p.value, samples: s.due}
		if p.bounded {
			m.low, m.high = &p.low, &p.high
		} else {
			m.more = words.Say("%s of load is too short to measure a rate: it needs %s", show(p.seconds, scenarios.UnitSeconds), show(leastBatches, scenarios.UnitSeconds))
		}
		return m
	}
	n, at, alikeAbove := s.icl.n, s.icl.at, likeness(s.gapsAbove)
	if of, ok := latencyOf(o.Metric); ok {
		v := &s.values[of]
		n, at, alikeAbove = v.n(), v.at, s.latencyAbove(of)
	}
	m := side{samples: n}
	if n == 0 {
		m.why = words.Say("no successful request has a %s: none succeeded, or the answers do not contain it", o.Metric)
		return m
	}
	m.value = at(rank(n, o.Quantile))
	alike := alikeAbove(m.value, sure)
	m.high, m.low = percentileBounds(sure, n, o.Quantile, alike, at)
	if least := int64(math.Ceil(alike * float64(max(samplesFor(sure, o.Quantile), samplesFor(sure, 1-o.Quantile))))); n < least {
		m.more = words.Say("the bound of a %s needs at least %d samples, and there are %d", o.Stat, least, n)
	}
	return m
}

// relative decides the ratio of a percentile or a rate to that of other requests. The
// bounds of the ratio are the ratios of the outer bounds of both sides, with 99 %
// confidence together (Bonferroni).
func (f *Finding) relative(o scenarios.Objective, e *evidence) {
	reference := o.Reference()
	a, b := e.side(o, halfSure(e.gate, scopeOf(o))), e.side(reference, halfSure(e.gate, scopeOf(reference)))
	f.Samples = min(a.samples, b.samples)
	for _, m := range []side{a, b} {
		if !m.why.IsZero() {
			f.Why = m.why
			return
		}
	}
	if b.value <= 0 {
		f.Why = words.Say("the value it is compared with is %s, so there is no ratio", inUnit(b.value, o))
		return
	}
	f.decide(a.value/b.value, o)
	f.Why = words.Say("%s to %s: %s", inUnit(a.value, o), inUnit(b.value, o), f.Why)
	above, below := over(a.high, b.low), over(a.low, b.high)
	bound, best := above, below
	if atLeast(o) {
		bound, best = below, above
	}
	f.Bound = bound
	switch {
	case f.Verdict == Fail && (best == nil || Holds(*best, o)):
		// The ratio misses its limit, but its bounds include values that meet it.
		if !a.more.IsZero() || !b.more.IsZero() {
			f.Verdict = Unproven
		}
	case f.Verdict == Pass && bound == nil:
		f.Verdict = Unproven
		if a.more.IsZero() && b.more.IsZero() {
			f.Why = words.Say("%s; with %s confidence the value it is compared with is not known to be above 0; more samples give a narrower bound", f.Why, f.confident())
		}
	case f.Verdict == Pass && !Holds(*bound, o):
		f.Verdict, f.Why = Unproven, words.Say("%s; with %s confidence it is only known to be %s; more samples give a narrower bound", f.Why, f.confident(), bounded(*bound, o))
	case f.Verdict == Pass:
		f.Why = words.Say("%s; with %s confidence it is %s", f.Why, f.confident(), bounded(*bound, o))
	}
	for _, m := range []side{a, b} {
		if f.Verdict == Unproven && !m.more.IsZero() {
			f.Why = words.Say("%s; %s", f.Why, m.more)
			return
		}
	}
}

// over is the ratio of two bounds; nil if one is missing.
func over(a, b *float64) *float64 {
	if a == nil || b == nil || *b <= 0 {
		return nil
	}
	return new(*a / *b)
}

// inUnit formats the value of the metric itself, for an objective that compares it.
func inUnit(v float64, o scenarios.Objective) words.Sentence {
	m, _ := scenarios.MetricOf(o.Metric)
	return show(v, m.Unit)
}

// bounded formats the bound on the side of the limit.
func bounded(v float64, o scenarios.Objective) words.Sentence {
	if atLeast(o) {
		return words.Say("above %s", show(v, o.Unit))
	}
	return words.Say("below %s", show(v, o.Unit))
}
