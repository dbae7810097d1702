package checklist

import (
	"slices"

	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/scenarios"
)

// measure decides one metric of scenarios.Metrics, by one of its two functions. The row
// of the metric there names the kind of its confidence bound: distribution computes
// BoundRank, share BoundShare, throughput BoundRate, drift BoundMedians, lateFor
// BoundTest and recoveryPoint BoundWrites; decide computes none.
type measure struct {
	metric string
	// of decides an objective over its scope, from the samples in it and the rest of
	// the evidence.
	of func(f *Finding, o scenarios.Objective, e *evidence, s *samples)
	// strike decides an objective about one strike of a fault.
	strike func(f *Finding, o scenarios.Objective, e *evidence, l *faultLife)
	// rate says what a rate counts of the requests.
	rate brings
	// wholeRun: it is not about a scenario, so no scenario has to have been played.
	wholeRun bool
}

// measures are the metrics, in the order of scenarios.Metrics.
var measures = []measure{
	ofLatency(ttft),
	ofLatency(ttfo),
	ofLatency(tpot),
	{metric: "icl", of: func(f *Finding, o scenarios.Objective, _ *evidence, s *samples) {
		f.distribution(s.icl.n, o, s.icl.at, s.icl.mean, s.gapsAbove)
	}},
	ofLatency(maxICL),
	ofLatency(iclGrowth),
	ofLatency(endDelay),
	ofLatency(latency),
	ofLatency(serviceTTFT),
	ofLatency(serviceLatency),
	{metric: "error_rate", of: shareOfDue(func(n became) int64 { return n.errors })},
	{metric: "errors", of: ofDue(func(f *Finding, o scenarios.Objective, e *evidence, s *samples) { f.decide(float64(s.errors), o) })},
	{metric: "refused_rate", of: shareOfDue(func(n became) int64 { return n.refused })},
	{metric: "broken_rate", of: shareOfDue(func(n became) int64 { return n.errors - n.refused })},
	rateOfTime("goodput", func(t tally) (good, brought int64) { return t.attained, t.attained }),
	{metric: "attainment", of: shareOfDue(func(n became) int64 { return n.attained })},
	rateOfTime("output_tokens_per_second", func(t tally) (good, brought int64) { return t.succeeded, t.tokens }),
	{metric: "achieved_rate", of: ofDue(func(f *Finding, o scenarios.Objective, e *evidence, s *samples) {
		f.decide(float64(s.due-s.notSent)/e.seconds(scopeOf(o)), o)
	})},
	{metric: "drift", of: func(f *Finding, o scenarios.Objective, e *evidence, _ *samples) { f.drift(o, e) }},
	{metric: "late_for_some", of: func(f *Finding, o scenarios.Objective, e *evidence, _ *samples) { f.lateFor(o, e) }},
	{metric: "wrong_length", of: func(f *Finding, o scenarios.Objective, _ *evidence, s *samples) { f.wrongLength(o, s) }},
	{metric: "cache_hit_rate", of: func(f *Finding, o scenarios.Objective, _ *evidence, s *samples) { f.cacheHits(o, s) }},
	{metric: "changed_answers", of: func(f *Finding, o scenarios.Objective, e *evidence, _ *samples) { f.changed(o, e.canariesOf(o)) }},
	{metric: "miscounted_tokens", of: func(f *Finding, o scenarios.Objective, e *evidence, _ *samples) { f.miscounted(o, e) }},
	{metric: "foreign_answers", of: func(f *Finding, o scenarios.Objective, e *evidence, _ *samples) { f.foreign(o, e) }},
	{metric: "repeated_answers", of: func(f *Finding, o scenarios.Objective, e *evidence, _ *samples) { f.repeated(o, e) }},
	{metric: "disagreeing_twins", of: func(f *Finding, o scenarios.Objective, e *evidence, _ *samples) { f.disagreeing(o, e) }},
	{metric: "false_ends", of: func(f *Finding, o scenarios.Objective, _ *evidence, s *samples) { f.falseEnd(o, s) }},
	{metric: "answer_count_error", of: func(f *Finding, o scenarios.Objective, e *evidence, _ *samples) { f.answerCounts(o, e) }},
	{metric: "prompt_count_error", of: func(f *Finding, o scenarios.Objective, e *evidence, _ *samples) { f.promptCounts(o, e) }},
	{metric: "false_health", of: func(f *Finding, o scenarios.Objective, e *evidence, _ *samples) { f.falseHealth(o, e) }},
	{metric: "memory_growth", of: func(f *Finding, o scenarios.Objective, e *evidence, _ *samples) { f.memoryGrowth(o, e) }},
	{metric: "lost_writes", of: func(f *Finding, o scenarios.Objective, e *evidence, _ *samples) { f.lostWrites(o, e) }},
	{metric: "replicas_ready", of: func(f *Finding, o scenarios.Objective, e *evidence, _ *samples) { f.replicasReady(o, e) }},
	{metric: "rto", strike: func(f *Finding, o scenarios.Objective, e *evidence, l *faultLife) { f.recovery(o, l, e) }},
	{metric: "rpo", strike: func(f *Finding, o scenarios.Objective, e *evidence, l *faultLife) { f.recoveryPoint(o, l, e) }},
	{metric: "lost", strike: func(f *Finding, o scenarios.Objective, _ *evidence, l *faultLife) {
		f.decide(float64(l.LostRequests), o)
		f.Why = words.Say("%s (failed requests among those under way when the fault took effect; for lost acknowledged writes see rpo)", f.Why)
	}},
	{metric: "errors_during", strike: func(f *Finding, o scenarios.Objective, e *evidence, l *faultLife) { f.during(o, l, e) }},
	{metric: "noticed_elsewhere", strike: func(f *Finding, o scenarios.Objective, e *evidence, l *faultLife) { f.elsewhere(o, l, e) }},
	{metric: "detection", strike: func(f *Finding, o scenarios.Objective, _ *evidence, l *faultLife) {
		if l.DetectionSeconds == nil {
			f.Why = words.Say("the service was never seen to detect the fault: it reported the victim as ready all the time, or was not observed")
			return
		}
		f.decide(*l.DetectionSeconds, o)
	}},
	{metric: "alert", of: func(f *Finding, o scenarios.Objective, e *evidence, _ *samples) { f.alert(o, e) }},
	{metric: "alerts", of: func(f *Finding, o scenarios.Objective, e *evidence, _ *samples) { f.alerts(o, e) }},
	{metric: "cost_per_million_output_tokens", of: func(f *Finding, o scenarios.Objective, e *evidence, s *samples) { f.cost(o, e, s) }},
	{metric: "security", wholeRun: true, of: func(f *Finding, o scenarios.Objective, e *evidence, _ *samples) { f.security(o, e) }},
}

// measureOf is the measure of a metric. An unknown metric has a measure that leaves the
// finding unproven.
func measureOf(metric string) measure {
	i := slices.IndexFunc(measures, func(m measure) bool { return m.metric == metric })
	if i >= 0 {
		return measures[i]
	}
	return measure{of: func(f *Finding, o scenarios.Objective, _ *evidence, _ *samples) {
		f.Why = words.Say("this version does not know how to measure %s", o.Metric)
	}}
}

// ofLatency is the measure of a statistic of a latency that each request has.
func ofLatency(of int) measure {
	return measure{metric: perRequestLatencies[of].metric, of: func(f *Finding, o scenarios.Objective, _ *evidence, s *samples) {
		v := &s.values[of]
		f.distribution(v.n(), o, v.at, v.mean, s.latencyAbove(of))
	}}
}

// ofDue decides a number about the requests that were due; without any, the objective
// is unproven.
func ofDue(decide func(*Finding, scenarios.Objective, *evidence, *samples)) func(*Finding, scenarios.Objective, *evidence, *samples) {
	return func(f *Finding, o scenarios.Objective, e *evidence, s *samples) {
		f.Samples = s.due
		if s.due == 0 || e.seconds(scopeOf(o)) <= 0 {
			f.Why = words.Say("no request was due")
			return
		}
		decide(f, o, e, s)
	}
}

// became counts the results of the requests that were due.
type became struct {
	errors, refused int64 // refused: of the errors, with a Retry-After
	attained        int64
}

// shareOfDue decides a share of the requests that were due; count selects them.
func shareOfDue(count func(became) int64) func(*Finding, scenarios.Objective, *evidence, *samples) {
	return ofDue(func(f *Finding, o scenarios.Objective, _ *evidence, s *samples) {
		alike := s.alike(f.sure, func(p *part) (int64, int64) { return count(became{p.errors, p.refused, p.attained}), p.due })
		f.share(count(became{s.errors, s.refused, s.attained}), s.due, alike, o)
	})
}

// rateOfTime is the measure of an amount per second.
func rateOfTime(metric string, of brings) measure {
	return measure{metric: metric, rate: of, of: ofDue(func(f *Finding, o scenarios.Objective, e *evidence, _ *samples) {
		f.throughput(of, o, e)
	})}
}
