package checklist

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/scenarios"
)

// judge decides one objective.
func (e *evidence) judge(o scenarios.Objective) Finding {
	f, scope, m := e.finding(o), scopeOf(o), measureOf(o.Metric)
	if m.wholeRun {
		m.of(&f, o, e, nil)
		return f
	}
	for _, part := range []scenarios.Objective{o, o.Reference()} {
		if why := e.unplayed(part); !why.IsZero() {
			f.Why = why
			return f
		}
	}
	if why := e.untold(o); !why.IsZero() {
		f.Why = why
		return f
	}
	o.WhereSupported = o.WhereSupported && e.tool == "" // nobody looked at what another tool's service supports
	switch {
	case o.Than != (scenarios.Than{}):
		f.relative(o, e)
	case m.strike != nil:
		e.fault(&f, o, m)
	default:
		m.of(&f, o, e, e.within(scope))
	}
	if f.Verdict == Pass {
		if why := e.unsettled(o); !why.IsZero() {
			f.Verdict, f.Why = Unproven, why
		}
	}
	missing, offered := e.unrecorded(scope)
	if o.Than != (scenarios.Than{}) {
		m, n := e.unrecorded(scopeOf(o.Reference()))
		missing, offered = missing+m, offered+n
	}
	if missing > 0 && f.Verdict == Pass {
		f.Verdict = Unproven
		f.Why = words.Say("%d of %d requests that were due are missing from the recording, so the others prove nothing", missing, offered)
	}
	return f
}

// finding is the finding of an objective before it is decided.
func (e *evidence) finding(o scenarios.Objective) Finding {
	f := Finding{Source: o.Source, Scenario: o.Scenario, Unit: o.Unit, Threshold: o.Threshold, sure: e.sure(scopeOf(o)), asked: e.gate.Sure()}
	if f.Source == "" {
		f.Source = o.String()
	}
	return f
}

// unplayed says why the evidence of a scenario that an objective is about is
// incomplete; empty if it is complete. An objective about a fault is about the
// scenarios that inject it.
func (e *evidence) unplayed(o scenarios.Objective) words.Sentence {
	ofFault := slices.Contains(scenarios.FaultKinds, o.Arg)
	for _, s := range e.gate.Scenarios {
		injects := func(f scenarios.Fault) bool { return f.Kind == o.Arg }
		switch {
		case o.Scenario != "" && s.Name != o.Scenario, ofFault && !slices.ContainsFunc(s.Faults, injects):
		case !e.started[s.Name]:
			return words.Say("the scenario %s was not played", s.Name)
		case !e.complete(s.Name):
			return words.Say("the scenario %s was not played to its end", s.Name)
		}
	}
	return words.Sentence{}
}

// Holds reports whether a value meets an objective.
func Holds(v float64, o scenarios.Objective) bool {
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

// atLeast reports whether the threshold of an objective is a lower limit.
func atLeast(o scenarios.Objective) bool { return o.Op == ">=" || o.Op == ">" }

// distribution decides a statistic over n sorted values. likeness is the design effect
// of the values above a given one.
func (f *Finding) distribution(n int64, o scenarios.Objective, at func(int64) float64, mean func() float64, likeness likeness) {
	f.Samples = n
	switch {
	case n == 0 && o.During != "":
		f.Why = words.Say("no successful request affected by %s has a %s: the fault did not happen, there were no requests meanwhile, or none was answered", o.During, o.Metric)
	case n == 0:
		f.Why = words.Say("no successful request has a %s: none succeeded, or the answers do not contain it", o.Metric)
	case o.Quantile > 0:
		f.percentile(n, o, at, likeness)
	case o.Stat == "mean":
		f.decide(mean(), o)
	case o.Stat == "max":
		f.decide(at(n-1), o)
	default:
		f.decide(at(0), o)
	}
}

// percentile decides a percentile. It passes if its 99 % bound meets the threshold too.
// It fails if the observed percentile misses the threshold. With fewer samples than a
// proof needs, it fails only if even the bound on the other side misses it.
func (f *Finding) percentile(n int64, o scenarios.Objective, at func(int64) float64, likeness likeness) {
	value := at(rank(n, o.Quantile))
	f.Value = &value
	// The design effect is that of the requests above the limit. If the slowest
	// requests are near the limit, the requests above the percentile count too; if they
	// are far from it, their correlation has no influence.
	alike := likeness(o.Threshold, f.sure)
	if at(n-1) > o.Threshold/2 {
		alike = max(alike, likeness(value, f.sure))
	}
	bound, best := percentileBounds(f.sure, n, o.Quantile, alike, at)
	least := samplesFor(f.sure, o.Quantile)
	if atLeast(o) {
		bound, best, least = best, bound, samplesFor(f.sure, 1-o.Quantile)
	}
	enough := int64(math.Ceil(float64(least) * alike))
	f.Bound = bound
	is := measured(value, o)
	switch {
	case n >= least && !Holds(value, o), best != nil && !Holds(*best, o):
		f.Verdict, f.Why = Fail, words.Say("it is %s, and must be %s", is, must(o))
	case bound == nil:
		f.Why = words.Say("it is %s of %s, and a %s needs at least %d samples as proof: it needs %s (a longer stage, or a higher rate)",
			is, words.Count(n, "1 sample", "%d samples"), o.Stat, least, words.Count(max(enough-n, 1), "1 more sample", "%d more samples"))
	case !Holds(*bound, o):
		known := words.Phrase("it is %s, but with %s confidence it is only known to be below %s, and must be %s; %s")
		if atLeast(o) {
			known = "it is %s, but with %s confidence it is only known to be above %s, and must be %s; %s"
		}
		f.Why = words.Say(known, is, f.confident(), show(*bound, o.Unit), must(o), more(f.sure, n, alike, o, at))
	default:
		known := words.Phrase("it is %s, with %s confidence up to %s, and must be %s")
		if atLeast(o) {
			known = "it is %s, with %s confidence no less than %s, and must be %s"
		}
		f.Verdict, f.Why = Pass, words.Say(known, is, f.confident(), show(*bound, o.Unit), must(o))
	}
	f.resemblance(n, alike)
}

// more says how many more samples would decide.
func more(sure float64, n int64, alike float64, o scenarios.Objective, at func(int64) float64) words.Sentence {
	quantile, misses := o.Quantile, int64(0)
	for i := range n {
		if !Holds(at(i), o) {
			misses++
		}
	}
	if atLeast(o) {
		quantile = 1 - quantile
	}
	if total := int64(math.Ceil(float64(neededFor(sure, quantile, float64(misses)/float64(n))) * alike)); total > n {
		return words.Say("it needs about %s", words.Count(total-n, "1 more sample", "%d more samples"))
	}
	return words.Say("the value is too near to its limit for more samples to decide; make the service faster or relax the limit")
}

// decide judges a number without a bound.
func (f *Finding) decide(value float64, o scenarios.Objective) {
	f.Value = &value
	f.Verdict = Pass
	if !Holds(value, o) {
		f.Verdict = Fail
	}
	f.Why = words.Say("it is %s, and must be %s", measured(value, o), must(o))
}

// share decides a share k of n requests. alike is the design effect: how many of the
// requests count as one independent request. The share passes if its bound (Clopper and
// Pearson) meets the limit too. It fails if the observed share misses the limit. With
// too few requests to express the limit (with twenty, one percent cannot be seen), it
// fails only if even the bound on the other side misses it. A limit of 0 or 100 %, or
// an exact one, is only about the observed requests: no number of requests proves it
// for others.
func (f *Finding) share(k, n int64, alike float64, o scenarios.Objective) {
	f.Samples = n
	low, high := shareBoundsOf(f.sure, k, n, alike)
	bound, best := high, low
	if atLeast(o) {
		bound, best = low, high
	}
	value := float64(k) / float64(n)
	if alike > 1 { // an observed failure needs no correction for correlated requests
		low, high := rateBoundsAt(f.sure, k, n)
		if best = low; atLeast(o) {
			best = high
		}
	}
	f.decide(value, o)
	f.Bound = &bound
	is, failed := measured(value, o), f.Verdict == Fail
	least := expressing(o.Threshold)
	if counted(o) {
		if n < least && (!failed || Holds(best, o)) {
			f.Verdict = Unproven
			f.Why = words.Say("%d of %d is too few to measure %s: it needs %s", k, n, show(o.Threshold, o.Unit), words.Count(least-n, "1 more request", "%d more requests"))
			return
		}
		f.Why = words.Say("%d of %d: %s", k, n, f.Why)
		return
	}
	switch {
	case failed && (n >= least || !Holds(best, o)):
		f.Why = words.Say("%d of %d: %s", k, n, f.Why)
	case n < least:
		f.Verdict = Unproven
		more := int64(math.Ceil(float64(sharesFor(f.sure, bad(o)))*alike)) - n
		f.Why = words.Say("%d of %d is too few to measure %s: it needs %s", k, n, show(o.Threshold, o.Unit), words.Count(max(more, 1), "1 more request", "%d more requests"))
	case !Holds(bound, o):
		f.Verdict = Unproven
		known := words.Phrase("%d of %d: it is %s, but with %s confidence it is only known to be below %s, and must be %s; %s")
		if atLeast(o) {
			known = "%d of %d: it is %s, but with %s confidence it is only known to be above %s, and must be %s; %s"
		}
		f.Why = words.Say(known, k, n, is, f.confident(), show(bound, o.Unit), must(o), f.moreRequests(k, n, alike, o))
	default:
		known := words.Phrase("%d of %d: it is %s, with %s confidence up to %s, and must be %s")
		if atLeast(o) {
			known = "%d of %d: it is %s, with %s confidence no less than %s, and must be %s"
		}
		f.Why = words.Say(known, k, n, is, f.confident(), show(bound, o.Unit), must(o))
	}
	f.resemblance(n, alike)
}

// moreRequests says how many more requests would decide a share.
func (f *Finding) moreRequests(k, n int64, alike float64, o scenarios.Objective) words.Sentence {
	share := float64(k) / float64(n)
	if atLeast(o) {
		share = 1 - share
	}
	if total := int64(math.Ceil(float64(sharesNeeded(f.sure, share, bad(o))) * alike)); total > n {
		return words.Say("%s would decide it", words.Count(total-n, "1 more request", "%d more requests"))
	}
	return words.Say("the value is too near to its limit for more requests to decide; improve the service or relax the limit")
}

// resemblance adds that correlated requests count as fewer independent ones.
func (f *Finding) resemblance(n int64, alike float64) {
	if alike > 1 && f.Verdict != Fail {
		f.Why = words.Say("%s (requests close in time resembled one another, so these %d count as %d independent ones)", f.Why, n, max(1, int64(float64(n)/alike)))
	}
}

// confident is the confidence that the gate asks for, for the reader, however many
// times a stage was judged.
func (f *Finding) confident() words.Sentence { return show(f.asked, scenarios.UnitRatio) }

// fault decides the metrics of a fault. If it struck several times, the worst strike
// counts.
func (e *evidence) fault(f *Finding, o scenarios.Objective, m measure) {
	var findings []Finding
	for _, l := range e.faults {
		if l.Kind == o.Arg && (o.Scenario == "" || l.Scenario == o.Scenario) {
			findings = append(findings, e.ofFault(*f, o, m, l))
		}
	}
	if len(findings) == 0 {
		f.Why = words.Say("the gate injects no %s", o.Arg)
		return
	}
	strikes := len(findings)
	*f = slices.MaxFunc(findings, func(a, b Finding) int {
		switch {
		case a.Verdict != b.Verdict:
			return badness[a.Verdict] - badness[b.Verdict]
		case a.Value == nil || b.Value == nil || *a.Value == *b.Value:
			return 0
		case *a.Value > *b.Value != atLeast(o):
			return 1
		}
		return -1
	})
	if row, _ := scenarios.MetricOf(o.Metric); f.Value != nil && row.Bound != scenarios.BoundShare { // the samples of a share are requests
		f.strikes(int64(strikes), o)
	}
}

// strikes says how many strikes a finding is the worst of: each strike is one sample.
// If several strikes all met the objective, it adds the lower bound of the share of
// such faults that meet it.
func (f *Finding) strikes(n int64, o scenarios.Objective) {
	if n == 1 {
		f.Why = words.Say("%s (seen once)", f.Why)
		return
	}
	f.Samples = n
	if f.Verdict != Pass {
		f.Why = words.Say("%s (the worst of %d)", f.Why, n)
		return
	}
	low, _ := rateBoundsAt(f.sure, n, n)
	f.Why = words.Say("%s (the worst of %d; with %s confidence, at least %s of such faults meet it)", f.Why, n, f.confident(), show(low, scenarios.UnitRatio))
}

var badness = map[Outcome]int{Pass: 0, Unproven: 1, Fail: 2, Invalid: 3}

func (e *evidence) ofFault(f Finding, o scenarios.Objective, m measure, l *faultLife) Finding {
	if !l.struck() {
		f.Verdict, f.Why = l.Verdict, l.Why
		return f
	}
	f.Samples = 1
	m.strike(&f, o, e, l)
	return f
}

// during decides the error rate while the fault lasted.
func (f *Finding) during(o scenarios.Objective, l *faultLife, e *evidence) {
	if l.RTOSeconds == nil {
		f.Samples, f.Why = 0, l.noRecovery(e)
		return
	}
	failed, all := l.errorsDuring()
	if all == 0 {
		f.Samples, f.Why = 0, words.Say("no request was under way while the fault lasted; raise the rate so that requests are affected")
		return
	}
	f.share(failed, all, 1, o)
}

// elsewhere decides how many requests noticed a fault of a GPU that replicas on other
// GPUs answered.
func (f *Finding) elsewhere(o scenarios.Objective, l *faultLife, e *evidence) {
	f.Samples = 0
	others, struck := e.onOtherGPUs(l.Target)
	switch {
	case l.Target == "":
		f.Why = words.Say("the fault names no replica, so the recording does not say which GPU it struck; give it a target, such as busiest")
		return
	case !struck:
		f.Waived, f.Why = o.WhereSupported, words.Say("%s does not compute on a GPU that the recording knows", l.Target)
		return
	case len(others) == 0:
		f.Waived, f.Why = o.WhereSupported, words.Say("all replicas compute on the GPU of %s, so there is no other that could notice", l.Target)
		return
	case l.Blast == nil || l.Blast.SlowerThan == nil:
		f.Why = words.Say("fewer than %d requests met no fault, so it is not known which answers were late; let the scenario run longer, or raise its rate", leastCalm)
		return
	}
	var noticed, all int64
	for _, r := range l.met {
		there := slices.Contains(others, r.replica)
		if r.due > l.until() || !there && (r.ok || r.replica != "") {
			continue
		}
		all++
		if !r.ok || r.response > *l.Blast.SlowerThan {
			noticed++
		}
	}
	if all == 0 {
		f.Why = words.Say("no request was answered by a replica on another GPU while the fault lasted; raise the rate")
		return
	}
	f.Samples = all
	f.share(noticed, all, 1, o)
}

// onOtherGPUs are the replicas that compute on other GPUs than a replica; false if the
// recording does not know its GPU.
func (e *evidence) onOtherGPUs(replica string) (others []string, known bool) {
	for _, g := range e.rec.Environment.Host.GPUs {
		if slices.Contains(g.Replicas, replica) {
			known = true
		} else {
			others = append(others, g.Replicas...)
		}
	}
	return others, known
}

// recovery decides an RTO. If the service had not recovered after more time than the
// objective allows, the objective has failed.
func (f *Finding) recovery(o scenarios.Objective, l *faultLife, e *evidence) {
	if l.RTOSeconds != nil {
		f.decide(*l.RTOSeconds, o)
		return
	}
	watched := l.lastBad - l.at[recording.FaultInEffect]
	if l.bad > 0 && !l.lostProbes && !atLeast(o) && !Holds(watched.Seconds(), o) {
		f.Verdict, f.Why = Fail, words.Say("users were still not served %s after the fault, and must be served within %s", show(watched.Seconds(), o.Unit), show(o.Threshold, o.Unit))
		return
	}
	f.Samples, f.Why = 0, l.noRecovery(e)
}

// must writes the requirement of an objective.
func must(o scenarios.Objective) words.Sentence {
	return words.Say("%s %s", o.Op, show(o.Threshold, o.Unit))
}

// show formats a value for people, with three significant digits.
func show(v float64, unit string) words.Sentence { return showDigits(v, unit, 3) }

// measured formats a value that is compared with a threshold. It has more digits if
// three would hide on which side of the threshold it is.
func measured(v float64, o scenarios.Objective) words.Sentence {
	digits := 3
	for digits < 9 && v != o.Threshold && showDigits(v, o.Unit, digits).String() == showDigits(o.Threshold, o.Unit, digits).String() {
		digits++
	}
	return showDigits(v, o.Unit, digits)
}

func showDigits(v float64, unit string, digits int) words.Sentence {
	switch unit {
	case scenarios.UnitSeconds:
		return showSeconds(v, digits)
	case scenarios.UnitRatio:
		return words.Say("%s %%", significant(v*100, digits))
	case scenarios.UnitPerSecond:
		return words.Say("%s/s", significant(v, digits))
	case scenarios.UnitTokensPerSecond:
		return words.Say("%s tokens/s", significant(v, digits))
	case scenarios.UnitUSD:
		return words.Say("$%s", significant(v, digits))
	}
	return words.Verbatim(significant(v, digits))
}

func showSeconds(v float64, digits int) words.Sentence {
	switch a := math.Abs(v); {
	case a >= 60:
		whole := int64(math.Round(a))
		hours, minutes, seconds := whole/3600, whole/60%60, whole%60
		sign := ""
		if v < 0 {
			sign = "-"
		}
		if hours > 0 {
			return words.Say("%s%dh%dm%ds", sign, hours, minutes, seconds)
		}
		if seconds == 0 {
			return words.Say("%s%dm", sign, minutes)
		}
		return words.Say("%s%dm%ds", sign, minutes, seconds)
	case a >= 0.9995 || a == 0:
		return words.Verbatim(significant(v, digits) + " s")
	case a >= 0.9995e-3:
		return words.Verbatim(significant(v*1e3, digits) + " ms")
	}
	return words.Verbatim(significant(v*1e6, digits) + " µs")
}

// significant keeps so many significant digits, and all digits before the decimal
// point.
func significant(v float64, digits int) string {
	decimals := digits - 1
	if v != 0 {
		decimals -= int(math.Floor(math.Log10(math.Abs(v))))
	}
	s := fmt.Sprintf("%.*f", max(decimals, 0), v)
	if strings.Contains(s, ".") {
		s = strings.TrimRight(strings.TrimRight(s, "0"), ".")
	}
	return s
}
