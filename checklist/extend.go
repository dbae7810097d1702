package checklist

import (
	"math"

	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/scenarios"
)

// looks is how many times a stage that may be extended is judged, including the last
// time at its end.
const looks = 5

// sure is the confidence for the percentiles and shares of a scope.
func (e *evidence) sure(scope stageID) float64 { return sureOf(e.gate, scope) }

func sureOf(gate scenarios.Gate, scope stageID) float64 {
	for _, s := range gate.Scenarios {
		for _, st := range s.Stages {
			if st.Extend > 0 && (stageID{scenario: scope.scenario, stage: scope.stage}).covers(stageID{scenario: s.Name, stage: st.Name}) {
				return sureAfter(gate.Sure(), looks)
			}
		}
	}
	return gate.Sure()
}

// Takes is the fewest samples that can prove an objective about a percentile or a share
// of requests; 0 for other objectives, such as those about a share of tokens. If the
// objective is a comparison, each side needs that many.
func Takes(gate scenarios.Gate, o scenarios.Objective) int64 {
	switch {
	case isShare(o):
		if counted(o) {
			return expressing(o.Threshold)
		}
		return sharesFor(sureOf(gate, scopeOf(o)), bad(o))
	case o.Quantile == 0:
		return 0
	case o.Than != (scenarios.Than{}):
		sure := halfSure(gate, scopeOf(o))
		return max(samplesFor(sure, o.Quantile), samplesFor(sure, 1-o.Quantile))
	}
	quantile := o.Quantile
	if atLeast(o) {
		quantile = 1 - quantile
	}
	return samplesFor(sureOf(gate, scopeOf(o)), quantile)
}

// halfSure is the confidence for each side of a comparison.
func halfSure(gate scenarios.Gate, scope stageID) float64 { return 1 - (1-sureOf(gate, scope))/2 }

// isShare reports whether an objective is about a share of requests.
func isShare(o scenarios.Objective) bool {
	m, _ := scenarios.MetricOf(o.Metric)
	return m.Bound == scenarios.BoundShare && o.Than == (scenarios.Than{})
}

// bad is the share of requests that may miss the objective.
func bad(o scenarios.Objective) float64 {
	if atLeast(o) {
		return 1 - o.Threshold
	}
	return o.Threshold
}

// counted reports whether an objective about a share only concerns the observed
// requests, such as error_rate <= 0%. No number of requests could prove it for all
// others.
func counted(o scenarios.Objective) bool { return o.Op == "==" || bad(o) <= 0 }

// expressing is how many requests are needed to express a share: with twenty requests,
// one percent cannot be seen.
func expressing(share float64) int64 {
	if distance := min(share, 1-share); distance > 0 {
		return int64(math.Ceil(1/distance - 1e-9))
	}
	return 1
}

// Unsettled are the objectives about a scenario's requests that are unproven so far and
// could be proven by more requests. Objectives that have failed are decided.
func Unsettled(gate scenarios.Gate, rec *recording.Recording, scenario string) ([]string, error) {
	gate = gate.Resolved()
	e, err := gather(gate, rec)
	if err != nil {
		return nil, err
	}
	e.endNow(scenario)
	var unsettled []string
	ofIt := func(o scenarios.Objective) bool {
		return o.Scenario == scenario || o.Scenario == "" && len(gate.Scenarios) == 1
	}
	for _, o := range gate.Objectives {
		reference := o.Reference()
		if o.Quantile == 0 && !isShare(o) || !ofIt(o) && !ofIt(reference) {
			continue
		}
		// More of this scenario does not decide a comparison with a scenario that is
		// played later.
		if !ofIt(o) && !e.unplayed(o).IsZero() || !ofIt(reference) && !e.unplayed(reference).IsZero() {
			continue
		}
		if f := e.judge(o); f.Verdict == Unproven {
			unsettled = append(unsettled, f.Source)
		}
	}
	return unsettled, nil
}

// Missed says which objectives are missed already, whatever is still to be played: those
// whose scenarios have all ended.
func Missed(gate scenarios.Gate, rec *recording.Recording) ([]Finding, error) {
	gate = gate.Resolved()
	e, err := gather(gate, rec)
	if err != nil {
		return nil, err
	}
	for _, l := range e.faults {
		l.judge(e)
	}
	var missed []Finding
	for _, o := range gate.Objectives {
		if !e.unplayed(o).IsZero() || !e.unplayed(o.Reference()).IsZero() {
			continue
		}
		if f := e.judge(o); f.Verdict == Fail && !f.Waived {
			missed = append(missed, f)
		}
	}
	return missed, nil
}

// endNow treats a scenario as if it had ended now.
func (e *evidence) endNow(scenario string) {
	e.ended[scenario] = true
	for _, o := range e.rec.Observations {
		if o.Name != recording.ObsStageStarted {
			continue
		}
		for _, st := range e.scenario(scenario).Stages {
			id := stageID{scenario: scenario, stage: st.Name}
			if _, played := e.played[id]; !played && o.Subject == scenario+"/"+st.Name {
				last := e.rec.Observations[len(e.rec.Observations)-1].At
				e.played[id] = span{from: o.At, to: max(last, o.At+1)}
			}
		}
	}
}
