package checklist

import (
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/scenarios"
)

// The runs in testdata/runs are generated here, from a synthetic service with known
// behaviour, so that their verdicts can be checked. With -update the tests write them
// with recording.Create, like real runs. The other runs there were recorded: in
// late-outage the service was down from one second after the fault for 1.2 s, and an
// older judge found an RTO of 0.1 s.

const paperGate = `name: %s
description: Three replicas, a burst and a kill, on paper.
seed: 7
target:
  %s
scenarios:
  - name: steady
    workload: {max_tokens: 12}
    stages:
      - {name: main, for: %s, rate: 9/s, arrivals: poisson}
  - name: burst
    workload: {max_tokens: 12}
    stages:
      - {name: before, for: 5s, rate: 8/s}
      - {name: peak, for: 10s, rate: 16/s}
      - {name: after, for: 5s, rate: 8/s}
  - name: pod-kill
    workload: {max_tokens: 12}
    stages:
      - {name: main, for: 24s, rate: 6/s}
    faults:
      - {kind: pod-kill, target: busiest, at: 6s, min_streams: 1, within: 15s}
    probe: {every: 200ms, consecutive: 3, timeout: 2s}
objectives:
  - p95(ttft) in steady <= 1s
  - p95(tpot) in steady <= 100ms
  - p95(ttft) in burst <= 2s
  - error_rate in steady <= 3%%
  - error_rate in burst <= 2%%
  - attainment in steady >= 90%%
  - rto(pod-kill) < 5s
  - errors_during(pod-kill) <= 20%%
  - error_rate in pod-kill <= 10%%
`

// paper describes how the service and the client of a run behave.
type paper struct {
	name      string
	steady    time.Duration // how long the steady stage is
	overload  time.Duration // how late first tokens are at the end of the peak
	refuse    float64       // share of the peak's requests that are shed
	outage    time.Duration // how long nobody is served after the kill; 0: the other replicas take over
	endpoint  bool          // a service that launchgate did not deploy, so that nothing can be killed
	stall     time.Duration // how late the client sometimes is
	cutAt     time.Duration // when the run is stopped; 0: it is not stopped
	restarted time.Duration // from the kill until the gateway routes to the new process
}

var papers = []paper{
	{name: "pass", steady: 20 * time.Second, restarted: 2300 * ms},
	{name: "fail", steady: 20 * time.Second, restarted: 8 * time.Second, overload: 3200 * ms, refuse: 0.06, outage: 6600 * ms},
	{name: "unproven", steady: 8 * time.Second, endpoint: true},
	{name: "invalid", steady: 20 * time.Second, restarted: 2300 * ms, stall: 180 * ms},
	{name: "interrupted", steady: 20 * time.Second, cutAt: 33 * time.Second},
}

// author generates one run.
type author struct {
	paper
	draw *rand.Rand
	w    *recording.Writer
	now  time.Duration
	dead [2]time.Duration // from when to when a replica is down
}

func (p paper) write(t *testing.T, dir string) {
	t.Helper()
	w, err := recording.Create(dir)
	if err != nil {
		t.Fatal(err)
	}
	target, kind := "local: {replicas: 3}", recording.Target{Kind: "local", URL: "http://127.0.0.1:8080", Model: "launchgate-10m", Replicas: 3}
	if p.endpoint {
		target, kind = "endpoint: {url: 'https://inference.example', model: large}", recording.Target{Kind: "endpoint", URL: "https://inference.example", Model: "large"}
	}
	gate, err := scenarios.Parse(p.name+".yaml", fmt.Appendf(nil, paperGate, "paper-"+p.name, target, p.steady))
	if err != nil {
		t.Fatal(err)
	}
	src, err := scenarios.Marshal(gate.Resolved())
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Gate(src); err != nil {
		t.Fatal(err)
	}
	if err := w.Environment(recording.Environment{
		Version: "v0.1.0", StartedAt: time.Date(2026, 3, 14, 9, 26, 53, 0, time.UTC), Command: []string{"launchgate", "run", p.name + ".yaml"}, Seed: 7,
		Host:   recording.Host{OS: "linux", Arch: "amd64", CPU: "Paper 3000", Cores: 4, MemoryBytes: 16 << 30, Go: "go1.26.0"},
		Target: kind,
	}); err != nil {
		t.Fatal(err)
	}
	a := &author{paper: p, draw: rand.New(rand.NewPCG(7, 7)), w: w, now: 2 * time.Second}
	a.play(gate.Resolved())
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, recording.LogsFolder)); err != nil {
		t.Fatal(err)
	}
}

func (a *author) play(gate scenarios.Gate) {
	for _, s := range gate.Scenarios {
		if a.cut(a.now) {
			break
		}
		a.scenario(s)
	}
	if a.cutAt > 0 {
		a.observe(a.cutAt, recording.ObsInterrupted, "", 0, "interrupt")
		return
	}
	a.observe(a.now, recording.ObsRunEnded, "", 0, "")
}

func (a *author) cut(at time.Duration) bool { return a.cutAt > 0 && at >= a.cutAt }

func (a *author) scenario(s scenarios.Scenario) {
	start := a.now
	a.observe(start, recording.ObsScenarioStarted, s.Name, 0, "")
	if len(s.Faults) > 0 {
		a.kill(s, start)
	}
	var seq int64
	for _, st := range s.Stages {
		if a.cut(a.now) {
			break
		}
		a.stage(s.Name, st, &seq)
	}
	if s.Probe != nil {
		for i, at := int64(0), start; at < a.now; i, at = i+1, at+time.Duration(s.Probe.Every) {
			a.request(recording.KindProbe, s.Name, s.Stages[0].Name, i, at, 0)
		}
	}
	for at := start + time.Second; at <= a.now; at += time.Second {
		a.look(at)
	}
	a.observe(a.now, recording.ObsScenarioEnded, s.Name, 0, "")
	a.now += 300 * ms
}

func (a *author) stage(scenario string, st scenarios.Stage, seq *int64) {
	from, end := a.now, a.now+time.Duration(st.For)
	var due []time.Duration
	for at := from; at < end; {
		due = append(due, at)
		gap := time.Duration(float64(time.Second) / float64(st.Rate))
		if st.Arrivals == "poisson" {
			gap = time.Duration(float64(gap) * a.draw.ExpFloat64())
		}
		at += gap
	}
	a.observe(from, recording.ObsStageStarted, scenario+"/"+st.Name, float64(len(due)), "")
	for _, at := range due {
		if !a.cut(at) {
			behind := time.Duration(float64(a.overload) * float64(at-from) / float64(end-from))
			if st.Name != "peak" {
				behind = 0
			}
			a.request(recording.KindLoad, scenario, st.Name, *seq, at, behind)
		}
		*seq++
	}
	if a.now = end; a.cut(end) {
		a.now = a.cutAt
		return
	}
	a.observe(end, recording.ObsStageEnded, scenario+"/"+st.Name, float64(len(due)), "")
}

// request writes the row of a request that is due at a time.
func (a *author) request(kind, scenario, stage string, seq int64, due, behind time.Duration) {
	r := recording.Request{Seq: seq, Kind: kind, Scenario: scenario, Stage: stage, Streamed: true, Due: due,
		Sent: due + a.jitter(300*time.Microsecond), Status: 200, TokensFrom: "usage", FirstChunkTokens: 1, PromptTokens: 18}
	if a.stall > 0 && int(due/time.Second)%4 == 0 {
		r.Sent = due + a.stall + a.jitter(40*ms)
	}
	tokens := 12
	if kind == recording.KindProbe {
		tokens = 1
	}
	r.Replica = fmt.Sprintf("replica-%d", a.draw.IntN(3))
	if a.endpoint {
		r.Replica = ""
	}
	r.FirstByte = r.Sent + behind + 60*ms + a.jitter(90*ms)
	r.FirstToken = r.FirstByte + a.jitter(2*ms)
	r.FirstOutput = r.FirstToken
	at := r.FirstToken
	for range tokens {
		r.Chunks = append(r.Chunks, at.Round(100*time.Microsecond))
		at += 22*ms + a.jitter(12*ms)
	}
	r.FirstToken, r.FirstOutput, r.LastToken = r.Chunks[0], r.Chunks[0], r.Chunks[tokens-1]
	r.End, r.OutputTokens, r.FinishReason, r.Bytes = r.LastToken+a.jitter(ms), int32(tokens), "length", int64(tokens)*190
	a.w.Request(a.spoil(r, behind))
}

// spoil applies overload, the kill and the end of the run to a request.
func (a *author) spoil(r recording.Request, behind time.Duration) recording.Request {
	none := recording.Request{Seq: r.Seq, Kind: r.Kind, Scenario: r.Scenario, Stage: r.Stage, Streamed: true, Due: r.Due, Sent: r.Sent}
	killed, back := a.dead[0], a.dead[0]+a.outage
	switch {
	case behind > 0 && a.draw.Float64() < a.refuse:
		none.FirstByte, none.End, none.Status = r.Sent+3*ms, r.Sent+3*ms, 503
		none.Error, none.ErrorText = recording.ErrorStatus, `503 Service Unavailable: {"error":{"message":"the queue is full","type":"overloaded"}}`
		return none
	case killed > 0 && r.Sent < killed && r.End > killed && r.Replica == "replica-1":
		r.Chunks = r.Chunks[:len(r.Chunks)/2]
		r.LastToken, r.FirstToken, r.FirstOutput, r.OutputTokens = 0, 0, 0, 0
		if n := len(r.Chunks); n > 0 {
			r.FirstToken, r.FirstOutput, r.LastToken, r.OutputTokens = r.Chunks[0], r.Chunks[0], r.Chunks[n-1], int32(n)
		}
		r.End, r.FinishReason, r.Error, r.ErrorText = killed+4*ms, "", recording.ErrorTruncated, "the stream ended without a finish reason: unexpected EOF"
	case killed > 0 && r.Sent >= killed && r.Sent < back:
		none.End, none.Status = r.Sent+2*ms, 502
		none.Error, none.ErrorText = recording.ErrorStatus, "502 Bad Gateway: no replica is ready"
		return none
	case a.cut(r.End):
		none.End, none.Error, none.ErrorText = a.cutAt, recording.ErrorCancelled, "the run was interrupted"
		return none
	}
	return r
}

func (a *author) kill(s scenarios.Scenario, start time.Duration) {
	step := func(at time.Duration, state, victim, text string) {
		a.w.Inject(withText(recording.Injection{At: at, ID: s.Name + "/0", Scenario: s.Name, Kind: "pod-kill", Target: victim, State: state}, text))
	}
	at := start + time.Duration(s.Faults[0].At)
	step(start, recording.FaultDeclared, "busiest", "due 6s into the scenario")
	if a.endpoint {
		step(at, recording.FaultFailed, "busiest", "unsupported: launchgate did not deploy this target, so it has no process of it to kill; use target.local, or break it by other means")
		return
	}
	a.dead = [2]time.Duration{at, at + a.restarted}
	step(at, recording.FaultInjected, "replica-1", "SIGKILL sent to pid 4711 with 2 streams in flight")
	step(at+12*ms, recording.FaultInEffect, "replica-1", "pid 4711 is gone (signal: killed)")
	step(at+13*ms, recording.FaultReverted, "replica-1", "nothing to undo: the supervisor restarts the replica")
	step(at+a.restarted, recording.FaultGone, "replica-1", "the gateway routes to replica-1 again, now pid 4802")
	a.observe(at+150*ms, recording.ObsReplicaReady, "replica-1", 0, "")
	a.observe(at+a.restarted, recording.ObsReplicaReady, "replica-1", 1, "")
}

// look writes the observations of one second.
func (a *author) look(at time.Duration) {
	a.observe(at, recording.ObsClientCPU, "", 0.18+0.1*a.draw.Float64(), "")
	a.observe(at, recording.ObsClientGCPause, "", 0.00004+0.00004*a.draw.Float64(), "")
	sched := 0.0001 + 0.0002*a.draw.Float64()
	if a.stall > 0 && int(at/time.Second)%4 == 0 {
		sched = a.stall.Seconds()
	}
	a.observe(at, recording.ObsClientSched, "", sched, "")
	if a.endpoint {
		return
	}
	ready := 3.0
	if at >= a.dead[0] && at < a.dead[1] {
		ready = 2
	}
	a.observe(at, recording.ObsReplicasReady, "", ready, "")
	for i := range 3 {
		wave := 1 + math.Sin(at.Seconds()/4+float64(i))
		replica := fmt.Sprintf("replica-%d", i)
		if i == 1 && ready < 3 {
			wave = 0
		}
		a.observe(at, recording.ObsInFlight, replica, math.Round(wave*1.4), "")
		a.observe(at, recording.ObsKVUsed, replica, math.Round(wave*14)/100, "")
		a.observe(at, recording.ObsMemory, replica, float64(int64(180+40*wave)<<20), "")
	}
}

func (a *author) observe(at time.Duration, name, subject string, v float64, text string) {
	a.w.Observe(recording.Observation{At: at, Name: name, Subject: subject, Value: v, Text: words.Verbatim(text)})
}

// jitter is a random duration up to most, in steps that compress well.
func (a *author) jitter(most time.Duration) time.Duration {
	return time.Duration(a.draw.Float64() * float64(most)).Round(10 * time.Microsecond)
}
