package checklist

import (
	"cmp"
	"math"
	"slices"
	"time"

	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/scenarios"
)

// tally is what became of the requests that were due in a second.
type tally struct{ due, succeeded, attained, tokens int64 }

// The interval of a rate is of batch means (Schmeiser 1982: 10 to 30 batches
// are enough, more make them too short): the requests of one moment resemble
// each other, so the time of the load is cut into batches, and each is one
// witness. Fewer than leastBatches of a second each are none.
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
	good             int64 // requests that it is of
	bounded          bool
}

// brings counts the good requests of a tally, and the amount that they contribute to
// the rate: themselves or their tokens.
type brings func(tally) (good, brought int64)

// pace is a scope's rate: of the requests that attained, or of the tokens of those
// that succeeded. Each of its bounds is as sure as is asked.
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
	// Two bounds, of which the farther counts. One is of how much the batches
	// brought. It is symmetric, so it is too near where little of what comes in
	// spells was seen; the other is of the share that was good, of as many
	// witnesses as there were in effect. Both are of batches of one size and of
	// twice that: spells that span two make the smaller ones look too much alike.
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

// throughput decides a rate. It is proven when its 99 % bound holds too.
func (f *Finding) throughput(of brings, o scenarios.Objective, e *evidence) {
	p := e.pace(of, scopeOf(o), e.gate.Sure())
	f.decide(p.value, o)
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
	if f.Verdict != Pass {
		return
	}
	known := words.Phrase("it is %s, with %s confidence up to %s, and must be %s")
	switch holds := Holds(bound, o); {
	case atLeast(o) && holds:
		known = "it is %s, with %s confidence no less than %s, and must be %s"
	case atLeast(o):
		f.Verdict, known = Unproven, "it is %s, but with %s confidence it is only known to be above %s, and must be %s; a longer stage gives a narrower bound"
	case !holds:
		f.Verdict, known = Unproven, "it is %s, but with %s confidence it is only known to be below %s, and must be %s; a longer stage gives a narrower bound"
	}
	f.Why = words.Say(known, measured(p.value, o), f.confident(), show(bound, o.Unit), must(o))
}

// batch is what the requests that were due in a stretch of load came to.
type batch struct{ due, good, brought float64 }

// batches cuts the load into n stretches of the same time.
func (s *samples) batches(spans []span, seconds float64, n int, of brings) []batch {
	cut := make([]batch, n)
	for second, t := range s.seconds {
		at := time.Duration(second)*time.Second + time.Second/2
		var before time.Duration // of the scope's load, at that moment
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

// deviation is the standard error of what the batches came to together, by how
// they differ. How many requests were due in a batch was known before the run,
// so it is no part of the doubt (a ratio estimator, Cochran 1977, chapter 6); of
// users who wait for their answers (closed) it was not.
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

// witnessesIn is how many independent requests would tell the share of good
// ones as well as these do, which come in spells: fewer by as much as the
// batches differ more than those of independent ones would, and by what is not
// known of that (Korn and Graubard 1998). Where all were good or none, nothing
// is known of spells, and each counts as a witness.
func witnessesIn(cut []batch, t, sure float64) float64 {
	var due, good float64
	for _, b := range cut {
		due += b.due
		good += b.good
	}
	alone := good * (due - good) / due // their variance, if they were independent
	if alone == 0 {
		return due
	}
	spread := deviation(cut, func(b batch) float64 { return b.good }, false)
	normal := tQuantile(sure, 1e6)
	return due / max(1, spread*spread/alone) * (normal / t) * (normal / t)
}

// shareBounds are the bounds of the share good of due, which so many witnesses
// tell.
func shareBounds(sure float64, good, due int64, witnesses float64) (low, high float64) {
	each := witnesses / float64(due)
	n := max(int64(witnesses), 1)
	up := func(k int64) int64 { return min(int64(math.Ceil(float64(k)*each-1e-9)), n) }
	low, _ = rateBoundsAt(sure, n-up(due-good), n)
	_, high = rateBoundsAt(sure, up(good), n)
	return low, high
}

// spans are the played stages of a scope in their order, and how many seconds
// of load they are.
func (e *evidence) spans(scope stageID) ([]span, float64) {
	scope.class, scope.met = "", "" // all classes are offered in the same time
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

// closed reports whether users who wait for their answers ask in a scope.
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
