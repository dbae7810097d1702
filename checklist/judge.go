package checklist

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/scenarios"
)

// Judge says what a recording proves about a gate. It is pure: the same gate
// and recording give the same verdict. The error is of a recording that cannot
// be read; everything else that is wrong with a run is part of the verdict.
func Judge(gate scenarios.Gate, rec *recording.Recording) (Verdict, error) {
	gate = gate.Resolved()
	e, err := gather(gate, rec)
	if err != nil {
		return Verdict{}, err
	}
	v := Verdict{Incomplete: !rec.Complete, Client: judgeClient(e), Objectives: []Finding{}, Faults: []Fault{}, Scenarios: []Scenario{}}
	for _, o := range gate.Objectives {
		v.Objectives = append(v.Objectives, e.judge(o))
	}
	for _, l := range e.faults {
		l.judge(e)
		v.Faults = append(v.Faults, l.Fault)
	}
	for _, s := range gate.Scenarios {
		v.Scenarios = append(v.Scenarios, e.summary(s.Name))
	}
	v.decide(rec)
	return v, nil
}

// decide draws the verdict from its parts: Invalid before Fail before Unproven
// before Pass, because numbers of a run that was not what it was meant to be
// prove neither.
func (v *Verdict) decide(rec *recording.Recording) {
	because := map[Outcome][]string{}
	say := func(o Outcome, format string, args ...any) {
		because[o] = append(because[o], fmt.Sprintf(format, args...))
	}
	if !v.Client.Valid {
		say(Invalid, "The client cannot be believed: %s.", v.Client.Why)
	}
	for _, f := range v.Faults {
		if f.Verdict != Pass {
			say(f.Verdict, "%s: %s.", f.ID, f.Why)
		}
	}
	for _, f := range v.Objectives {
		if f.Verdict != Pass {
			say(f.Verdict, "%s: %s.", f.Source, f.Why)
		}
	}
	interrupted := interruption(rec)
	switch {
	case interrupted != "":
		say(Unproven, "The run was stopped before its end (%s).", interrupted)
	case v.Incomplete:
		say(Unproven, "The recording has no end: the harness was ended from outside, or the disk was full. Run the gate again.")
	case len(v.Objectives) == 0:
		say(Unproven, "The gate has no objective, so there is nothing to pass.")
	}
	for _, o := range []Outcome{Invalid, Fail, Unproven} {
		if len(because[o]) > 0 && v.Verdict == Unproven {
			v.Verdict = o
		}
		v.Why = append(v.Why, because[o]...)
	}
	if len(v.Why) == 0 {
		v.Verdict, v.Why = Pass, []string{fmt.Sprintf("All %d objectives hold.", len(v.Objectives))}
	}
	v.ExitCode = map[Outcome]int{Pass: ExitPass, Fail: ExitFail, Unproven: ExitUnproven, Invalid: ExitInvalid}[v.Verdict]
	if interrupted != "" {
		v.ExitCode = ExitInterrupted
	}
}

// interruption says what stopped the run, if something did.
func interruption(rec *recording.Recording) string {
	for _, o := range rec.Observations {
		if o.Name == recording.ObsInterrupted {
			if o.Text == "" {
				return "interrupted"
			}
			return o.Text
		}
	}
	return ""
}

// judge decides one objective.
func (e *evidence) judge(o scenarios.Objective) Finding {
	f := Finding{Source: o.Source, Scenario: o.Scenario, Unit: o.Unit, Threshold: o.Threshold}
	if why := e.unplayed(o.Scenario); why != "" {
		f.Why = why
		return f
	}
	s := e.within(o.Scenario, o.Stage)
	switch {
	case o.Metric == "icl":
		f.distribution(s.icl.n, o, s.icl.at, func() float64 { return s.icl.sum / float64(s.icl.n) })
	case o.Stat != "":
		v := s.values[o.Metric]
		f.distribution(int64(len(v)), o, func(i int64) float64 { return float64(v[i]) }, func() float64 { return mean(v) })
	case o.Arg != "" && o.Metric != "security":
		e.fault(&f, o)
	default:
		e.whole(&f, o, s)
	}
	return f
}

// unplayed says why a scope has no complete evidence; empty when it has.
func (e *evidence) unplayed(scenario string) string {
	for _, s := range e.gate.Scenarios {
		if scenario != "" && s.Name != scenario {
			continue
		}
		if !e.started[s.Name] {
			return fmt.Sprintf("the scenario %s was not played", s.Name)
		}
		if !e.complete(s.Name) {
			return fmt.Sprintf("the scenario %s was not played to its end", s.Name)
		}
	}
	return ""
}

func holds(v float64, o scenarios.Objective) bool {
	switch o.Op {
	case "<=":
		return v <= o.Threshold
	case "<":
		return v < o.Threshold
	case ">=":
		return v >= o.Threshold
	case ">":
		return v > o.Threshold
	}
	return v == o.Threshold
}

// statistic is an objective's statistic over sorted values.
func statistic(sorted []float32, o scenarios.Objective) float64 {
	switch o.Stat {
	case "mean":
		return mean(sorted)
	case "min":
		return float64(sorted[0])
	case "max":
		return float64(sorted[len(sorted)-1])
	}
	return nearestRank(sorted, o.Quantile)
}

func mean(v []float32) float64 {
	var sum float64
	for _, x := range v {
		sum += float64(x)
	}
	return sum / float64(len(v))
}

// distribution decides an objective over n sorted values. A percentile is
// proven when its 99 % bound holds too, and failed when the percentile of what
// was seen misses the threshold; with too few samples it is failed only when
// even the bound on the other side misses.
func (f *Finding) distribution(n int64, o scenarios.Objective, at func(int64) float64, mean func() float64) {
	f.Samples = n
	if n == 0 {
		f.Why = "no request has this value" + map[bool]string{true: ": the answers were not streamed, or all failed", false: ""}[o.Metric != "latency"]
		return
	}
	if o.Quantile == 0 {
		f.moment(n, o, at, mean)
		return
	}
	value := at(rank(n, o.Quantile))
	f.Value = &value
	upper, lower := bounds(n, o.Quantile, at)
	bound, other := upper, lower
	if o.Op == ">=" || o.Op == ">" {
		bound, other = lower, upper
	}
	f.Bound = bound
	least := needed(o.Quantile)
	switch {
	case other != nil && !holds(*other, o), n >= least && !holds(value, o):
		f.Verdict, f.Why = Fail, fmt.Sprintf("it is %s, and must be %s %s", show(value, o.Unit), o.Op, show(o.Threshold, o.Unit))
	case n < least:
		f.Why = fmt.Sprintf("%d samples are too few for %s: %d more are needed (longer stages, or a higher rate)", n, o.Stat, least-n)
	case bound == nil || !holds(*bound, o):
		f.Why = fmt.Sprintf("it is %s, but with 99 %% confidence only %s; %s", show(value, o.Unit), showBound(bound, o.Unit), more(n, o, at))
	default:
		f.Verdict, f.Why = Pass, fmt.Sprintf("it is %s, with 99 %% confidence %s, and may be %s", show(value, o.Unit), showBound(bound, o.Unit), show(o.Threshold, o.Unit))
	}
}

// moment decides a mean, a minimum or a maximum: statements about what was
// seen.
func (f *Finding) moment(n int64, o scenarios.Objective, at func(int64) float64, mean func() float64) {
	value := at(0)
	switch o.Stat {
	case "mean":
		value = mean()
	case "max":
		value = at(n - 1)
	}
	f.decide(value, o)
}

// bounds are the 99 % bounds of a percentile: order statistics, so that
// nothing is assumed of the distribution. nil: there are too few samples.
func bounds(n int64, quantile float64, at func(int64) float64) (upper, lower *float64) {
	if t := allowed(n, 1-quantile); t >= 0 {
		upper = new(at(n - 1 - t))
	}
	if t := allowed(n, quantile); t >= 0 {
		lower = new(at(t))
	}
	return upper, lower
}

// more says how many samples would decide.
func more(n int64, o scenarios.Objective, at func(int64) float64) string {
	var over int64
	for i := n - 1; i >= 0 && !holds(at(i), o); i-- {
		over++
	}
	if total := neededFor(o.Quantile, float64(over)/float64(n)); total > n {
		return fmt.Sprintf("about %d more samples would decide it", total-n)
	}
	return "it lies too near to its limit for more samples to decide it"
}

// decide judges a number that is what it is.
func (f *Finding) decide(value float64, o scenarios.Objective) {
	f.Value = &value
	if holds(value, o) {
		f.Verdict, f.Why = Pass, fmt.Sprintf("it is %s, and must be %s %s", show(value, o.Unit), o.Op, show(o.Threshold, o.Unit))
	} else {
		f.Verdict, f.Why = Fail, fmt.Sprintf("it is %s, and must be %s %s", show(value, o.Unit), o.Op, show(o.Threshold, o.Unit))
	}
}

// whole decides the metrics that are one number for a scope.
func (e *evidence) whole(f *Finding, o scenarios.Objective, s *samples) {
	f.Samples = s.due
	seconds := e.seconds(o.Scenario, o.Stage)
	if s.due == 0 {
		f.Why = "no request was due"
		return
	}
	switch o.Metric {
	case "error_rate":
		f.rate(s.errors, s.due, o)
	case "attainment":
		f.rate(s.attained, s.due, o)
	case "errors":
		f.decide(float64(s.errors), o)
	case "goodput":
		f.decide(float64(s.attained)/seconds, o)
	case "output_tokens_per_second":
		f.decide(float64(s.tokens)/seconds, o)
	case "achieved_rate":
		f.decide(float64(s.due-s.notSent)/seconds, o)
	case "cost_per_million_output_tokens":
		f.Why = "no price is known: this version has no price book"
	case "security":
		f.Why = "nothing was scanned: this version has no security scan"
	default:
		f.Why = fmt.Sprintf("%s cannot be measured by this version", o.Metric)
	}
}

// rate decides a share of this run's requests. The share itself decides; its
// 99 % bound is told. A share needs as many requests as it takes to express the
// threshold: one percent of twenty is nothing that could be seen.
func (f *Finding) rate(k, n int64, o scenarios.Objective) {
	f.Samples = n
	low, high := rateBounds(k, n)
	f.Bound = &high
	if o.Op == ">=" || o.Op == ">" {
		f.Bound = &low
	}
	f.decide(float64(k)/float64(n), o)
	distance := min(o.Threshold, 1-o.Threshold)
	if least := int64(math.Ceil(1/distance - 1e-9)); f.Verdict == Pass && distance > 0 && n < least {
		f.Verdict = Unproven
		f.Why = fmt.Sprintf("%d of %d is too little to tell %s: %d more requests are needed", k, n, show(o.Threshold, o.Unit), least-n)
		return
	}
	f.Why = fmt.Sprintf("%d of %d: %s", k, n, f.Why)
}

// fault decides the metrics of a fault; where it struck several times the worst
// counts.
func (e *evidence) fault(f *Finding, o scenarios.Objective) {
	var lives []*faultLife
	for _, l := range e.faults {
		if l.Kind == o.Arg && (o.Scenario == "" || l.Scenario == o.Scenario) {
			lives = append(lives, l)
		}
	}
	if len(lives) == 0 {
		f.Why = fmt.Sprintf("no %s is injected in this gate", o.Arg)
		return
	}
	var findings []Finding
	for _, l := range lives {
		findings = append(findings, e.ofFault(*f, o, l))
	}
	*f = slices.MaxFunc(findings, func(a, b Finding) int {
		if a.Verdict != b.Verdict {
			return badness[a.Verdict] - badness[b.Verdict]
		}
		if a.Value == nil || b.Value == nil {
			return 0
		}
		return int(math.Copysign(1, *a.Value-*b.Value))
	})
	f.Samples = int64(len(lives))
}

var badness = map[Outcome]int{Pass: 0, Unproven: 1, Invalid: 2, Fail: 3}

func (e *evidence) ofFault(f Finding, o scenarios.Objective, l *faultLife) Finding {
	l.judge(e)
	if _, struck := l.at[recording.FaultInEffect]; !struck {
		f.Verdict, f.Why = l.Verdict, l.Why
		return f
	}
	switch o.Metric {
	case "rto":
		f.recovery(o, l)
	case "detection":
		if l.DetectionSeconds == nil {
			f.Why = "the service was never seen to notice the fault"
			return f
		}
		f.decide(*l.DetectionSeconds, o)
	case "lost":
		f.decide(float64(l.LostRequests), o)
		f.Why += " (answers that had begun when the fault struck and were cut short)"
	case "errors_during":
		if l.RTOSeconds == nil {
			f.Why = l.noRecovery()
			return f
		}
		failed, all := l.errorsDuring()
		if all == 0 {
			f.Why = "no request was under way between the fault and the recovery; a higher rate would meet it"
			return f
		}
		f.decide(float64(failed)/float64(all), o)
		f.Why = fmt.Sprintf("%d of %d: %s", failed, all, f.Why)
	default:
		f.Why = fmt.Sprintf("%s needs acknowledged writes to be counted, which this version does not", o.Metric)
	}
	return f
}

// recovery decides an RTO. A service that did not recover while it was watched
// has failed when it was watched for longer than the promise.
func (f *Finding) recovery(o scenarios.Objective, l *faultLife) {
	if l.RTOSeconds != nil {
		f.decide(*l.RTOSeconds, o)
		return
	}
	watched := (l.lastProbe - l.at[recording.FaultInEffect]).Seconds()
	if l.bad > 0 && (o.Op == "<" || o.Op == "<=") && watched > o.Threshold {
		f.Verdict, f.Why = Fail, fmt.Sprintf("users were still not served %s after the fault", show(watched, o.Unit))
		return
	}
	f.Why = l.noRecovery()
}

// summary is what a scenario measured, for the reader.
func (e *evidence) summary(name string) Scenario {
	s := e.within(name, "")
	sum := Scenario{
		Name: name, Requests: s.due, Errors: s.errors,
		TTFT: quantiles(s.values["ttft"]), TPOT: quantiles(s.values["tpot"]), Latency: quantiles(s.values["latency"]), ICL: s.icl.quantiles(),
	}
	if seconds := e.seconds(name, ""); seconds > 0 {
		sum.OutputTokensPerSecond, sum.GoodputPerSecond = new(float64(s.tokens)/seconds), new(float64(s.attained)/seconds)
	}
	return sum
}

func quantiles(sorted []float32) *Quantiles {
	n := int64(len(sorted))
	if n == 0 {
		return nil
	}
	at := func(q float64) float64 { return nearestRank(sorted, q) }
	return &Quantiles{n, at(0.5), at(0.9), at(0.95), at(0.99), float64(sorted[n-1])}
}

func (h *histogram) quantiles() *Quantiles {
	if h.n == 0 {
		return nil
	}
	at := func(q float64) float64 { return h.at(rank(h.n, q)) }
	return &Quantiles{h.n, at(0.5), at(0.9), at(0.95), at(0.99), h.high}
}

// show writes a value as a person would.
func show(v float64, unit string) string {
	switch unit {
	case scenarios.UnitSeconds:
		d := time.Duration(v * float64(time.Second))
		for _, step := range []time.Duration{time.Second, time.Millisecond, time.Microsecond} {
			if d >= 10*step {
				return d.Round(step / 100 * 10).String()
			}
		}
		return d.Round(10 * time.Microsecond).String()
	case scenarios.UnitRatio:
		return trim(v*100, 2) + " %"
	case scenarios.UnitPerSecond:
		return trim(v, 2) + "/s"
	case scenarios.UnitTokensPerSecond:
		return trim(v, 1) + " tokens/s"
	case scenarios.UnitUSD:
		return "$" + trim(v, 2)
	}
	return trim(v, 2)
}

func trim(v float64, digits int) string {
	s := fmt.Sprintf("%.*f", digits, v)
	if strings.Contains(s, ".") {
		s = strings.TrimRight(strings.TrimRight(s, "0"), ".")
	}
	return s
}

func showBound(b *float64, unit string) string {
	if b == nil {
		return "unknown"
	}
	return show(*b, unit)
}
