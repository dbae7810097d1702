package checklist

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/scenarios"
)

// world is a small run under construction: the recording of a healthy service and a
// healthy client, which tests change.
type world struct {
	gate         scenarios.Gate
	requests     []recording.Request
	injections   []recording.Injection
	observations []recording.Observation
}

const ms = time.Millisecond

// Times of every test run, which is one scenario of a single stage, 20 seconds long.
const (
	stageFrom  = 10 * time.Second
	stageTo    = 30 * time.Second
	injectedAt = 15 * time.Second
	inEffectAt = 15*time.Second + 20*ms
	goneAt     = 18 * time.Second
)

// healthy is a run of 200 requests, all with the first token after 100 ms and the end
// after 400 ms, with the given objectives.
func healthy(t testing.TB, promises ...string) *world {
	t.Helper()
	w := &world{gate: scenarios.Gate{
		Name:   "test",
		Target: scenarios.Target{Local: &scenarios.Local{}},
		Scenarios: []scenarios.Scenario{{
			Name:   "steady",
			Stages: []scenarios.Stage{{Name: "main", For: scenarios.Duration(stageTo - stageFrom), Rate: 10}},
		}},
	}}
	for _, p := range promises {
		w.promise(t, p)
	}
	w.observe(stageFrom-ms, recording.ObsScenarioStarted, "steady", 0)
	w.observe(stageFrom, recording.ObsStageStarted, "steady/main", 200)
	for s := stageFrom + time.Second; s <= stageTo; s += time.Second {
		w.observe(s, recording.ObsClientCPU, "", 0.2)
		w.observe(s, recording.ObsClientSched, "", 0.0001)
		w.observe(s, recording.ObsClientGCPause, "", 0.00005)
	}
	w.observe(stageTo, recording.ObsStageEnded, "steady/main", 200)
	w.observe(stageTo+ms, recording.ObsScenarioEnded, "steady", 0)
	w.observe(stageTo+2*ms, recording.ObsRunEnded, "", 0)
	for i := range 200 {
		w.requests = append(w.requests, answered(int64(i), stageFrom+time.Duration(i)*100*ms, 100*ms, 400*ms))
	}
	return w
}

// withFault adds a pod-kill that affected nobody, and a probe every 100 ms, all of them
// answered.
func (w *world) withFault() *world {
	s := &w.gate.Scenarios[0]
	s.Faults = []scenarios.Fault{{Kind: "pod-kill", At: scenarios.Duration(5 * time.Second)}}
	s.Probe = &scenarios.Probe{Every: scenarios.Duration(100 * ms), Consecutive: 3, Timeout: scenarios.Duration(2 * time.Second), MaxTokens: 1}
	for _, step := range []struct {
		at    time.Duration
		state string
	}{{stageFrom, recording.FaultDeclared}, {injectedAt, recording.FaultInjected}, {inEffectAt, recording.FaultInEffect},
		{inEffectAt + ms, recording.FaultReverted}, {goneAt, recording.FaultGone}} {
		w.injections = append(w.injections, recording.Injection{At: step.at, ID: "steady/0", Scenario: "steady", Kind: "pod-kill", Target: "replica-1", State: step.state})
	}
	for i := range 200 {
		p := answered(int64(i), stageFrom+time.Duration(i)*100*ms, 10*ms, 20*ms)
		p.Kind = recording.KindProbe
		w.requests = append(w.requests, p)
	}
	w.observe(inEffectAt+200*ms, recording.ObsReplicaReady, "replica-1", 0)
	return w
}

func answered(seq int64, due, toFirst, toEnd time.Duration) recording.Request {
	r := recording.Request{
		Seq: seq, Kind: recording.KindLoad, Scenario: "steady", Stage: "main", Streamed: true,
		Due: due, Sent: due + ms, FirstByte: due + toFirst, FirstToken: due + toFirst, FirstOutput: due + toFirst,
		LastToken: due + toEnd, End: due + toEnd, Status: 200, FinishReason: "stop", OutputTokens: 4, FirstChunkTokens: 1, TokensFrom: "usage",
	}
	for i := range 4 {
		r.Chunks = append(r.Chunks, due+toFirst+time.Duration(i)*(toEnd-toFirst)/3)
	}
	return r
}

func (w *world) promise(t testing.TB, src string) {
	t.Helper()
	o, err := scenarios.ParseObjective(src)
	if err != nil {
		t.Fatal(err)
	}
	w.gate.Objectives = append(w.gate.Objectives, o)
}

func (w *world) observe(at time.Duration, name, subject string, v float64) {
	w.observations = append(w.observations, recording.Observation{At: at, Name: name, Subject: subject, Value: v})
}

// loads and probes are the world's requests of a kind, for tests to change.
func (w *world) loads() []*recording.Request  { return w.of(recording.KindLoad) }
func (w *world) probes() []*recording.Request { return w.of(recording.KindProbe) }

// spread are so many of the load requests, far apart in time, so that they are not
// correlated.
func (w *world) spread(n int) []*recording.Request {
	var some []*recording.Request
	loads := w.loads()
	for i := range n {
		some = append(some, loads[i*len(loads)/n])
	}
	return some
}

func (w *world) of(kind string) []*recording.Request {
	var of []*recording.Request
	for i := range w.requests {
		if w.requests[i].Kind == kind {
			of = append(of, &w.requests[i])
		}
	}
	return of
}

func breakOff(r *recording.Request) {
	r.Error, r.FinishReason, r.LastToken = recording.ErrorTruncated, "", r.FirstToken
}

// slow delays a request's first token.
func slow(r *recording.Request, first time.Duration) {
	shift := r.Due + first - r.FirstToken
	for _, p := range []*time.Duration{&r.FirstByte, &r.FirstToken, &r.FirstOutput, &r.LastToken, &r.End} {
		*p += shift
	}
}

func (w *world) dropObservations(drop func(recording.Observation) bool) {
	w.observations = slices.DeleteFunc(w.observations, drop)
}

func (w *world) dropInjections(states ...string) {
	w.injections = slices.DeleteFunc(w.injections, func(i recording.Injection) bool { return slices.Contains(states, i.State) })
}

// failedStep replaces the steps from a state on by one that failed.
func (w *world) failedStep(text string, dropped ...string) {
	w.dropInjections(dropped...)
	w.injections = append(w.injections, withText(recording.Injection{At: goneAt, ID: "steady/0", Scenario: "steady", Kind: "pod-kill", Target: "replica-1", State: recording.FaultFailed}, text))
}

// withText is a step with a text. A text that begins with "unsupported: " says that the
// target cannot have the fault.
func withText(i recording.Injection, text string) recording.Injection {
	if why, is := strings.CutPrefix(text, "unsupported: "); is {
		i.Unsupported, i.Text = true, recording.Unsupported(words.Verbatim(why))
		return i
	}
	i.Text = words.Verbatim(text)
	return i
}

func (w *world) recording() *recording.Recording {
	rec := recording.InMemory(w.requests, w.injections, w.observations)
	rec.Environment.Host.Cores = 2
	return rec
}

func (w *world) judge(t *testing.T) Verdict {
	t.Helper()
	v, err := Judge(w.gate, w.recording())
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func outcomes(v Verdict) string {
	s := v.Verdict.String() + ":"
	for _, f := range v.Objectives {
		s += " " + f.Verdict.String()
	}
	for _, f := range v.Faults {
		s += fmt.Sprintf(" (%s)", f.Verdict)
	}
	return s
}
