package checklist

import (
	"math"
	"time"

	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/scenarios"
)

// leastAnswers is how many of its longer answers (p90) a stage has to last for.
const leastAnswers = 3

// flow is what came into a stage and what left it in its second half: where more
// comes than is answered, what is measured is not what the next hour would be.
type flow struct{ arrived, answered int64 }

// flowOf counts a request that is due in a stage, or ends in it.
func (e *evidence) flowOf(s *samples, r *recording.Request) {
	played, ok := e.played[stageID{scenario: r.Scenario, stage: r.Stage}]
	if !ok || r.Seq >= closedLoop {
		return
	}
	late := func(at time.Duration) bool { return at > played.from+(played.to-played.from)/2 && at <= played.to }
	if late(r.Due) {
		s.flow.arrived++
	}
	if r.End > 0 && late(r.End) {
		s.flow.answered++
	}
}

// grows is how many more requests came in the second half of a stage than left
// it, where that is more than chance makes of a queue that does not grow. In one
// that does not, the two differ by less than two independent streams of these sizes
// would: what waits has an end. Two of their standard deviations were passed in none
// of 200 runs at 95 % of what can be served.
func (f flow) grows() (more int64, grows bool) {
	more = f.arrived - f.answered
	return more, float64(more) > 2*math.Sqrt(float64(f.arrived+f.answered))
}

// unsettled says of an objective about how quick the service is that the backlog of
// a stage it is about still grew; empty where none did. A scenario whose stages are
// loaded differently is not to settle as a whole, and neither is one with a fault.
func (e *evidence) unsettled(o scenarios.Objective) words.Sentence {
	upper := o.Op == "<=" || o.Op == "<"
	switch m, _ := scenarios.MetricOf(o.Metric); {
	case o.Than != (scenarios.Than{}), !m.Speed || m.Distribution && !upper:
		return words.Sentence{}
	}
	scope := scopeOf(o)
	for id := range e.played {
		if !scope.covers(id) || !e.even(id) || o.Stage == "" && !e.alikeStages(id.scenario) {
			continue
		}
		of := id
		of.class = o.Class
		s := e.within(of)
		lasts := e.played[id].to - e.played[id].from
		if v := &s.values[latency]; s.flow.arrived > 0 && v.n() > 0 && leastAnswers*v.quantile(0.9) > lasts.Seconds() {
			return words.Say("%s/%s lasted %s, and one answer in ten took longer than %s. The stage had no time to settle, so it proves nothing about a longer time; make it at least three times as long as such an answer",
				id.scenario, id.stage, show(lasts.Seconds(), scenarios.UnitSeconds), show(v.quantile(0.9), scenarios.UnitSeconds))
		}
		if more, grows := s.flow.grows(); grows {
			return words.Say("the backlog of %s/%s was still growing: in its second half, %d more requests arrived than were answered. The stage had not settled, so it proves nothing about a longer time; lower the rate, or make the stage longer", id.scenario, id.stage, more)
		}
	}
	return words.Sentence{}
}

// alikeStages reports whether all stages of a scenario have the same load.
func (e *evidence) alikeStages(scenario string) bool {
	s := e.scenario(scenario)
	for _, st := range s.Stages {
		if st.Rate != s.Stages[0].Rate || st.Users != s.Stages[0].Users || st.To != nil || st.Trace != nil {
			return false
		}
	}
	return true
}
