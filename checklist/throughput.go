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
type tally struct{ due, attained, tokens int64 }

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
		return o.Metric == "goodput" || o.Metric == "output_tokens_per_second"
	})
}

// throughput decides a rate: of the requests that attained, or of their tokens.
// It is proven when its 99 % bound holds too. good is how many requests of
// those due it was made by.
func (f *Finding) throughput(o scenarios.Objective, e *evidence, s *samples, good int64, of func(tally) int64) {
	spans, seconds := e.spans(scopeOf(o))
	var sum int64
	for _, t := range s.seconds {
		sum += of(*t)
	}
	value := float64(sum) / seconds
	f.decide(value, o)
	batches := min(mostBatches, int(seconds+1e-9))
	if o.Op == "==" {
		return
	}
	if batches < leastBatches {
		if f.Verdict == Pass {
			f.Verdict = Unproven
			f.Why = words.Say("%s; load of %s is too little to tell a rate by: it needs %s", f.Why,
				show(seconds, scenarios.UnitSeconds), show(leastBatches, scenarios.UnitSeconds))
		}
		return
	}
	off := tQuantile(confidence, float64(batches-1)) * e.batchError(scopeOf(o), s, spans, seconds, batches, of) / seconds
	// Where all went well the batches do not differ, which does not mean that
	// nothing can go wrong: what a share of so many can hide, a rate can.
	low, high := rateBounds(good, s.due)
	bound := value + off
	if atLeast(o) {
		bound = max(0, value-off)
	}
	if good > 0 {
		each := value / float64(good)
		if atLeast(o) {
			bound = min(bound, each*low*float64(s.due))
		} else {
			bound = max(bound, each*high*float64(s.due))
		}
	}
	f.Bound = &bound
	if f.Verdict != Pass {
		return
	}
	known := words.Phrase("it is %s, with 99 %% confidence up to %s, and must be %s")
	switch holds := Holds(bound, o); {
	case atLeast(o) && holds:
		known = "it is %s, with 99 %% confidence no less than %s, and must be %s"
	case atLeast(o):
		f.Verdict, known = Unproven, "it is %s, but with 99 %% confidence it is only known to be above %s, and must be %s; a longer stage tells it closer"
	case !holds:
		f.Verdict, known = Unproven, "it is %s, but with 99 %% confidence it is only known to be below %s, and must be %s; a longer stage tells it closer"
	}
	f.Why = words.Say(known, measured(value, o), show(bound, o.Unit), must(o))
}

// batchError is the standard error of the sum of what the requests of a scope
// have brought, by how its batches differ. How many requests were due in a
// batch was known before the run, so it is no part of the doubt (a ratio
// estimator, Cochran 1977, chapter 6); of users who wait for their answers it
// was not.
func (e *evidence) batchError(scope stageID, s *samples, spans []span, seconds float64, batches int, of func(tally) int64) float64 {
	due, got := make([]float64, batches), make([]float64, batches)
	for second, t := range s.seconds {
		at := time.Duration(second)*time.Second + time.Second/2
		var before time.Duration // of the scope's load, at that moment
		for _, p := range spans {
			before += min(max(at-p.from, 0), p.to-p.from)
		}
		i := min(int(float64(batches)*before.Seconds()/seconds), batches-1)
		due[i] += float64(t.due)
		got[i] += float64(of(*t))
	}
	var dueSum, gotSum float64
	for i := range batches {
		dueSum += due[i]
		gotSum += got[i]
	}
	var squares float64
	for i := range batches {
		expected := gotSum * due[i] / dueSum
		if e.closed(scope) {
			expected = gotSum / float64(batches)
		}
		squares += (got[i] - expected) * (got[i] - expected)
	}
	return math.Sqrt(squares * float64(batches) / float64(batches-1))
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
