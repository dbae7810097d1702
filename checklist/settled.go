package checklist

import (
	"math"
	"time"

	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/scenarios"
)

// leastAnswers is how many times as long as its longer answers (p90) a stage has to
// last.
const leastAnswers = 3

// flow counts the requests that arrived in the second half of a stage and those that
// were answered in it. If more arrive than are answered, the measurements say nothing
// about the next hour.
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

// grows is how many more requests arrived in the second half of a stage than were
// answered. It is true if that is more than chance makes of a stable queue. In a stable
// queue the two numbers differ by less than two independent streams of these sizes
// would, because the queue is bounded. In none of 200 runs at 95 % of the capacity was
// the difference more than two standard deviations.
func (f flow) grows() (more int64, grows bool) {
	more = f.arrived - f.answered
	return more, float64(more) > 2*math.Sqrt(float64(f.arrived+f.answered))
}

// unsettled says of an objective about speed that the backlog of one of its stages
// still grew; empty if none did. It does not apply to a scenario with stages of
// different loads as a whole, or to one with a fault.
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
