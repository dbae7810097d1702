package checklist

import (
	"slices"

	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/scenarios"
)

// Judge says what a recording proves about a gate. It is pure: the same gate and
// recording give the same verdict. It returns an error only if the recording cannot be
// read; everything else that is wrong with a run is part of the verdict.
// docs/judging.md explains its rules.
func Judge(gate scenarios.Gate, rec *recording.Recording) (Verdict, error) {
	gate = gate.Resolved()
	e, err := gather(gate, rec)
	if err != nil {
		return Verdict{}, err
	}
	v := Verdict{Confidence: float64(gate.Confidence), Incomplete: !rec.Complete, Client: judgeClient(e), Objectives: []Finding{}, Faults: []Fault{}, Scenarios: []Scenario{}}
	for _, l := range e.faults {
		l.judge(e)
		l.tellBlast(e.calm[l.Scenario])
		l.promises(e)
		v.Faults = append(v.Faults, l.Fault)
	}
	for _, o := range gate.Objectives {
		v.Objectives = append(v.Objectives, e.judge(o))
	}
	for _, s := range gate.Scenarios {
		v.Scenarios = append(v.Scenarios, e.summary(s.Name))
	}
	v.Alerts = e.alerts()
	v.Cost, v.Energy, v.Devices = e.costs(v.Faults), e.energy(), e.devices()
	v.decide(e)
	return v, nil
}

// decide makes the verdict from its parts. Invalid takes precedence over Fail, Fail
// over Unproven and Unproven over Pass, because the numbers of an invalid run prove
// nothing either way.
func (v *Verdict) decide(e *evidence) {
	because := map[Outcome][]Reason{}
	say := func(about About, o Outcome, p words.Phrase, args ...any) {
		because[o] = append(because[o], Reason{words.Say(p, args...), about})
	}
	if !v.Client.Valid {
		say(AboutRun, Invalid, "The client was not reliable: %s.", v.Client.Why)
	}
	for _, l := range e.faults {
		if l.Verdict != Pass && !l.broken { // otherwise the objective gives the reason itself
			if l.Target == "" { // such as a fault of the whole machine
				say(AboutFault, l.Verdict, "%s: %s.", l.Kind, l.Why)
			} else {
				say(AboutFault, l.Verdict, "%s of %s: %s.", l.Kind, l.Target, l.Why)
			}
		}
	}
	waived := 0
	for _, f := range v.Objectives {
		ofAFault := slices.ContainsFunc(v.Faults, func(fault Fault) bool { return fault.Why.Same(f.Why) })
		if f.Waived {
			waived++
			continue
		}
		if f.Verdict != Pass && !ofAFault {
			say(AboutObjective, f.Verdict, "%s: %s.", f.Source, f.Why)
		}
	}
	by, interrupted := interruption(e.rec)
	for _, why := range e.doubts(waived, by, interrupted) {
		// The cause of an interruption comes before the objectives that it left
		// unproven.
		because[Unproven] = slices.Insert(because[Unproven], 0, Reason{Said: why})
	}
	for _, o := range []Outcome{Invalid, Fail, Unproven} {
		if len(because[o]) > 0 && v.Verdict == Unproven {
			v.Verdict = o
		}
		v.Reasons = append(v.Reasons, because[o]...)
	}
	if len(v.Reasons) == 0 {
		v.Verdict, v.Reasons = Pass, []Reason{{Said: e.allHold(v.Objectives)}}
	}
	for _, f := range v.Objectives {
		if f.Waived {
			v.Reasons = append(v.Reasons, Reason{Said: words.Say("Left out: %s: %s.", f.Source, f.Why)})
		}
	}
	for _, warning := range slices.Concat(warnings(e.gate), e.ofOthers(), e.unreportedTokens(), e.remarks(), deviceWarnings(v.Devices)) {
		v.Reasons = append(v.Reasons, Reason{Said: warning})
	}
	for _, r := range v.Reasons {
		v.Why = append(v.Why, r.Said)
	}
	v.ExitCode = map[Outcome]int{Pass: ExitPass, Fail: ExitFail, Unproven: ExitUnproven, Invalid: ExitInvalid}[v.Verdict]
	if interrupted {
		v.ExitCode = ExitInterrupted
	}
	if !notBegun(e.rec).IsZero() {
		v.ExitCode = ExitCouldNotRun
	}
}

// allHold says that all objectives hold, and on what basis: those with a bound are
// proven with a confidence, and the others are about the observed requests.
func (e *evidence) allHold(findings []Finding) words.Sentence {
	var held, seen int64
	for _, f := range findings {
		if f.Waived {
			continue
		}
		held++
		if f.Bound == nil {
			seen++
		}
	}
	sure := show(e.gate.Sure(), scenarios.UnitRatio)
	switch {
	case held == 1 && seen == 1:
		return words.Say("The objective holds for what was observed, without a confidence bound.")
	case held == 1:
		return words.Say("The objective holds, with %s confidence.", sure)
	case seen == held:
		return words.Say("All %d objectives hold for what was observed, without a confidence bound.", held)
	case seen == 0:
		return words.Say("All %d objectives hold, each with %s confidence.", held, sure)
	}
	return words.Say("All %d objectives hold: %d with %s confidence, and %d for what was observed, without a confidence bound.", held, held-seen, sure, seen)
}

// doubts are the reasons of the whole run that prevent a pass. The most important one
// is the last.
func (e *evidence) doubts(waived int, by words.Sentence, interrupted bool) []words.Sentence {
	var doubts []words.Sentence
	doubt := func(p words.Phrase, args ...any) { doubts = append(doubts, words.Say(p, args...)) }
	switch len(e.gate.Objectives) {
	case 0:
		doubt("The gate has no objectives, so it cannot pass; add one.")
	case waived:
		doubt("No objective of the gate applies to this service, so nothing is proven; add one that does.")
	}
	if missing, offered := e.unrecorded(stageID{}); missing > 0 {
		doubt("%d of %d requests that were due are missing from the recording, and they may be the ones that failed; run the gate again.", missing, offered)
	}
	if n := len(e.rec.Warnings); n > 0 {
		doubt("The recording is damaged: %s Run the gate again.", words.List("%s %s", e.rec.Warnings...))
	}
	switch {
	case !notBegun(e.rec).IsZero():
		doubt("The run could not be made: %s.", notBegun(e.rec))
	case interrupted:
		doubt("The run was stopped before its end (%s); run the gate again.", by)
	case !e.rec.Complete:
		doubt("The recording has no end: launchgate was killed, or the disk was full; run the gate again.")
	}
	return doubts
}

// interruption says what stopped the run, if it was stopped.
func interruption(rec *recording.Recording) (by words.Sentence, interrupted bool) {
	for _, o := range rec.Observations {
		if o.Name == recording.ObsInterrupted {
			if o.Text.IsZero() {
				return words.Say("the recording gives no reason"), true
			}
			return o.Text, true
		}
	}
	return words.Sentence{}, false
}

// notBegun says why the run could not be made, if it could not.
func notBegun(rec *recording.Recording) words.Sentence {
	for _, o := range rec.Observations {
		if o.Name == recording.ObsCouldNotRun {
			return o.Text
		}
	}
	return words.Sentence{}
}

// warnings are weaknesses of the gate itself.
func warnings(gate scenarios.Gate) []words.Sentence {
	var said []words.Sentence
	var asked []string
	for _, o := range gate.Objectives {
		if o.Stat == "" || slices.ContainsFunc(gate.Objectives, func(w scenarios.Objective) bool { return countsErrors(inFull(gate, w), inFull(gate, o)) }) {
			continue
		}
		promise := scenarios.Objective{Metric: scenarios.ErrorRate, Class: o.Class, Scenario: o.Scenario, Stage: o.Stage, During: o.During, Outside: o.Outside, Op: "<=", Threshold: 0.01, Unit: scenarios.UnitRatio}
		beside := promise.String()
		if !slices.Contains(asked, beside) {
			asked = append(asked, beside)
			said = append(said, words.Say("Warning: failed requests have no latency, so a service that fails quickly looks fast. No objective counts errors beside %s; add %s.", o.Source, beside))
		}
	}
	return said
}

// remarks describes what was seen that is not an error: how the service treated
// connections, a trace that ended before its stage, and a run that was ended because it
// could no longer pass.
func (e *evidence) remarks() (said []words.Sentence) {
	for _, seen := range e.rec.Observations {
		n := int64(seen.Value)
		switch seen.Name {
		case recording.ObsResent:
			said = append(said, words.Say("%s again on a new connection, because the service had closed the kept connection before it answered. Each counts once and is not an error.", words.Count(n, "1 request was sent", "%d requests were sent")))
		case recording.ObsLeftOpen:
			said = append(said, words.Say("The service left %s open after an answer had ended. The last event counts as the end of the answer, as clients see it.", words.Count(n, "1 connection", "%d connections")))
		case recording.ObsEndedEarly:
			said = append(said, words.Say("The run was ended after the scenario %s, because it could no longer pass (stop.when_failed): %s. What was not played is unproven.", seen.Subject, seen.Text))
		case recording.ObsSized:
			said = append(said, words.Say("The load of %s follows from the speed that was measured after the warm-up: %s.", seen.Subject, seen.Text))
		case recording.ObsTraceEnded:
			said = append(said, words.Say("Warning: %s.", seen.Text))
		case recording.ObsSentAfterEnd:
			said = append(said, words.Say("%s after its end; the data after the end was not counted.", words.Count(n, "1 answer went on", "%d answers went on")))
		}
	}
	return said
}

// unreportedTokens warns of objectives that count tokens if the service sent no usage: then
// each chunk counts as one token, although it may hold several.
func (e *evidence) unreportedTokens() []words.Sentence {
	counts := func(o scenarios.Objective) bool {
		m, _ := scenarios.MetricOf(o.Metric)
		return m.Tokens
	}
	i := slices.IndexFunc(e.gate.Objectives, counts)
	if e.uncounted == 0 || i < 0 {
		return nil
	}
	return []words.Sentence{words.Say("Warning: %d of %d answers had no usage, so each of their chunks was counted as one token (none if they were not streamed). %s is wrong if a chunk holds several tokens; make the service report its usage (stream_options.include_usage).", e.uncounted, e.answers, e.gate.Objectives[i].Source)}
}

// inFull sets the scenario of an objective if the gate has only one.
func inFull(gate scenarios.Gate, o scenarios.Objective) scenarios.Objective {
	if o.Scenario == "" && len(gate.Scenarios) == 1 {
		o.Scenario = gate.Scenarios[0].Name
	}
	return o
}

// countsErrors reports whether an objective notices failed requests in the scope of a
// latency objective.
func countsErrors(o, beside scenarios.Objective) bool {
	m, _ := scenarios.MetricOf(o.Metric)
	switch {
	case !m.Errors || !scopeOf(o).covers(scopeOf(beside)):
		return false
	case m.Arg == scenarios.FaultArg: // it counts the requests that met the fault
		return beside.During == o.Arg
	}
	return true
}

// summary is what a scenario measured, for the report.
func (e *evidence) summary(name string) Scenario {
	scope := stageID{scenario: name}
	s := e.within(scope)
	sum := Scenario{
		Name: name, Requests: s.due, Errors: s.errors, ICL: s.icl.quantiles(),
		TTFT: s.values[ttft].quantiles(), TPOT: s.values[tpot].quantiles(), Latency: s.values[latency].quantiles(),
	}
	if seconds := e.seconds(scope); seconds > 0 && e.complete(name) {
		sum.OutputTokensPerSecond, sum.GoodputPerSecond = new(float64(s.tokens)/seconds), new(float64(s.attained)/seconds)
	}
	return sum
}

func (h *histogram) quantiles() *Quantiles {
	if h.n == 0 {
		return nil
	}
	at := func(q float64) float64 { return h.at(rank(h.n, q)) }
	return &Quantiles{h.n, at(0.5), at(0.9), at(0.95), at(0.99), h.high}
}
