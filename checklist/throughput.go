package checklist

import (
	"cmp"
	"math"
	"slices"
	"time"

	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/scenarios"
)

// tally counts the results of the requests that were due in a second.
type tally struct{ due, succeeded, attained, tokens int64 }

// Rates have confidence intervals by batch means (Schmeiser 1982: 10 to 30 batches are
// enough, more make the intervals too short). Requests close in time are correlated, so
// the time of the load is divided into batches, and each batch counts as one
// observation. A rate needs at least leastBatches batches of one second each.
const (
	mostBatches  = 20
	leastBatches = 5
)

func wantsRates(gate scenarios.Gate) bool {
	return slices.ContainsFunc(gate.Objectives, func(o scenarios.Objective) bool {
		m, _ := scenarios.MetricOf(o.Metric)
		return m.Bound == scenarios.BoundRate
	})
}

// pace is a rate with its bounds; a load of too few seconds has no bounds.
type pace struct {
	value, low, high float64
	seconds          float64
	good             int64 // number of requests that it counts
	bounded          bool
}

// brings counts the good requests of a tally, and the amount that they contribute to
// the rate: themselves or their tokens.
type brings func(tally) (good, brought int64)

// pace is the rate of a scope, of the good requests or their tokens, as of selects.
// Each bound has the given confidence.
func (e *evidence) pace(of brings, scope stageID, sure float64) pace {
	s := e.within(scope)
	spans, seconds := e.spans(scope)
	var good, sum int64
	for _, t := range s.seconds {
		g, b := of(*t)
		good, sum = good+g, sum+b
	}
	p := pace{value: float64(sum) / seconds, seconds: seconds, good: good}
	batches := min(mostBatches, int(seconds+1e-9))
	if batches < leastBatches {
		return p
	}
	// There are two bounds, and the outer one counts. The first comes from the
	// variation of the batches. It is symmetric, so it is too narrow if few bursts were
	// seen. The second comes from the share of good requests, with the effective number
	// of independent requests. Both are computed with batches of one size and of twice
	// that size, because bursts that span two batches make small batches look too
	// similar.
	off, witnesses := 0.0, float64(s.due)
	for n := batches; n >= leastBatches && n >= batches/2; n /= 2 {
		t := tQuantile(sure, float64(n-1))
		cut := s.batches(spans, seconds, n, of)
		brought := func(b batch) float64 { return b.brought }
		off = max(off, t*deviation(cut, brought, e.closed(scope))/seconds)
		witnesses = min(witnesses, witnessesIn(cut, t, sure))
	}
	low, high := shareBounds(sure, good, s.due, witnesses)
	p.low, p.high, p.bounded = max(0, p.value-off), p.value+off, true
	if good > 0 {
		each := p.value / float64(good)
		p.low, p.high = min(p.low, each*low*float64(s.due)), max(p.high, each*high*float64(s.due))
	}
	return p
}

// throughput decides a rate. It passes if its 99 % bound holds too.
func (f *Finding) throughput(of brings, o scenarios.Objective, e *evidence) {
	p := e.pace(of, scopeOf(o), e.gate.Sure())
	f.decide(p.value, o)
	f.uncounted(o, e)
	if o.Op == "==" {
		return
	}
	if !p.bounded {
		if f.Verdict == Pass {
			f.Verdict = Unproven
			f.Why = words.Say("%s; %s of load is too short to measure a rate: it needs %s", f.Why,
				show(p.seconds, scenarios.UnitSeconds), show(leastBatches, scenarios.UnitSeconds))
		}
		return
	}
	bound := p.high
	if atLeast(o) {
		bound = p.low
	}
	f.Bound = &bound
	if f.Verdict == Pass {
		f.bounded(p.value, bound, o)
	}
}

// uncounted leaves an objective unproven that misses its limit only because answers tell
// no number of tokens: a chunk is counted as one token, and may hold several.
func (f *Finding) uncounted(o scenarios.Objective, e *evidence) {
	if m, _ := scenarios.MetricOf(o.Metric); f.Verdict == Fail && m.Tokens && atLeast(o) && e.uncounted > 0 {
		f.Verdict = Unproven
		f.Why = words.Say("%s, but %d of %d answers do not say how many tokens they have, so it may be more", f.Why, e.uncounted, e.answers)
	}
}

// bounded decides a value that meets its limit: it passes if its confidence bound
// meets the limit too.
func (f *Finding) bounded(value, bound float64, o scenarios.Objective) {
	known := words.Phrase("it is %s, with %s confidence up to %s, and must be %s")
	switch holds := Holds(bound, o); {
	case atLeast(o) && holds:
		known = "it is %s, with %s confidence no less than %s, and must be %s"
	case atLeast(o):
		f.Verdict, known = Unproven, "it is %s, but with %s confidence it is only known to be above %s, and must be %s; a longer stage gives a narrower bound"
	case !holds:
		f.Verdict, known = Unproven, "it is %s, but with %s confidence it is only known to be below %s, and must be %s; a longer stage gives a narrower bound"
	}
	f.Why = words.Say(known, measured(value, o), f.confident(), show(bound, o.Unit), must(o))
}

// batch sums up the requests that were due in an interval of load.
type batch struct{ due, good, brought float64 }

// batches divides the load into n intervals of equal duration.
func (s *samples) batches(spans []span, seconds float64, n int, of brings) []batch {
	cut := make([]batch, n)
	for second, t := range s.seconds {
		at := time.Duration(second)*time.Second + time.Second/2
		var before time.Duration // how much of the scope's load came before that moment
		for _, p := range spans {
			before += min(max(at-p.from, 0), p.to-p.from)
		}
		b := &cut[min(int(float64(n)*before.Seconds()/seconds), n-1)]
		good, brought := of(*t)
		b.due += float64(t.due)
		b.good += float64(good)
		b.brought += float64(brought)
	}
	return cut
}

// deviation is the standard error of the sum over the batches, from their variation. In
// an open loop the number of requests due in a batch is fixed before the run, so it
// adds no uncertainty (a ratio estimator, Cochran 1977, chapter 6). In a closed loop it
// is not fixed.
func deviation(cut []batch, of func(batch) float64, closed bool) float64 {
	var due, sum, squares float64
	for _, b := range cut {
		due += b.due
		sum += of(b)
	}
	n := float64(len(cut))
	for _, b := range cut {
		expected := sum * b.due / due
		if closed {
			expected = sum / n
		}
		squares += (of(b) - expected) * (of(b) - expected)
	}
	return math.Sqrt(squares * n / (n - 1))
}

// witnessesIn is the effective number of independent requests for the share of good
// ones. Bursts reduce it, by the ratio of the variance of the batches to that of
// independent requests, and by the uncertainty of that ratio (Korn and Graubard 1998).
// If all requests were good or none, nothing is known about bursts, and each request
// counts.
func witnessesIn(cut []batch, t, sure float64) float64 {
	var due, good float64
	for _, b := range cut {
		due += b.due
		good += b.good
	}
	alone := good * (due - good) / due // variance of independent requests
	if alone == 0 {
		return due
	}
	spread := deviation(cut, func(b batch) float64 { return b.good }, false)
	normal := tQuantile(sure, 1e6)
	return due / max(1, spread*spread/alone) * (normal / t) * (normal / t)
}

// shareBounds are the bounds of a share of good requests, from an effective number of
// independent requests.
func shareBounds(sure float64, good, due int64, witnesses float64) (low, high float64) {
	each := witnesses / float64(due)
	n := max(int64(witnesses), 1)
	up := func(k int64) int64 { return min(int64(math.Ceil(float64(k)*each-1e-9)), n) }
	low, _ = rateBoundsAt(sure, n-up(due-good), n)
	_, high = rateBoundsAt(sure, up(good), n)
	return low, high
}

// spans are the played stages of a scope in their order, and their total seconds of
// load.
func (e *evidence) spans(scope stageID) ([]span, float64) {
	scope.class, scope.met = "", "" // all classes are offered at the same time
	var spans []span
	var sum time.Duration
	for id, s := range e.played {
		if scope.covers(id) {
			spans = append(spans, s)
			sum += s.to - s.from
		}
	}
	slices.SortFunc(spans, func(a, b span) int { return cmp.Compare(a.from, b.from) })
	return spans, sum.Seconds()
}

// closed reports whether a scope has a closed-loop stage.
func (e *evidence) closed(scope stageID) bool {
	for _, s := range e.gate.Scenarios {
		for _, stage := range s.Stages {
			if !stage.OpenLoop() && (stageID{scenario: scope.scenario, stage: scope.stage}).covers(stageID{scenario: s.Name, stage: stage.Name}) {
				return true
			}
		}
	}
	return false
}
