package checklist

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/scenarios"
)

// Every rule of docs/judging.md has a row: a change to a healthy run, and the resulting
// verdict.
func TestJudge(t *testing.T) {
	for _, tt := range []struct {
		name     string
		promises []string
		spoil    func(w *world)
		want     string // the verdict, those of the objectives and (those of the faults)
		why      string // part of the first sentence
	}{
		// Percentiles.
		{"a percentile whose bound holds passes", []string{"p95(ttft) <= 1s"}, nil, "pass: pass", "The objective holds"},
		{"a value at its limit holds for <=", []string{"p95(ttft) <= 100ms"}, nil, "pass: pass", ""},
		{"and not for <", []string{"p95(ttft) < 100ms"}, nil, "fail: fail", "it is 100 ms, and must be < 100 ms"},
		{"a percentile beyond its limit fails", []string{"p95(ttft) <= 1s"}, func(w *world) {
			for _, r := range w.loads()[:11] {
				slow(r, 3*time.Second)
			}
		}, "fail: fail", "it is 3 s, and must be <= 1 s"},
		{"a percentile within it and a bound beyond it prove nothing", []string{"p95(ttft) <= 1s"}, func(w *world) {
			for _, r := range w.spread(8) {
				slow(r, 3*time.Second)
			}
		}, "unproven: unproven", "with 99 % confidence it is only known to be below 3 s, and must be <= 1 s; it needs about"},
		{"too few samples prove nothing, and it says how many more", []string{"p99(ttft) <= 1s"}, nil, "unproven: unproven", "a p99 needs at least 662 samples as proof: it needs 462 more samples"},
		{"too few samples still fail when nearly all are beyond the limit", []string{"p99(ttft) <= 50ms"}, nil, "fail: fail", "it is 100 ms"},
		{"no sample proves nothing", []string{"p50(ttfo) <= 1s"}, func(w *world) {
			for _, r := range w.loads() {
				r.FirstOutput = 0
			}
		}, "unproven: unproven", "no successful request has a ttfo"},
		{"response times count from when the request was due", []string{"p50(latency) <= 400ms", "p50(service_latency) <= 300ms"}, func(w *world) {
			for _, r := range w.loads() { // the delay before a request is sent counts as the client's and the service's
				r.Sent = r.Due + 45*ms
			}
		}, "fail: pass fail", "service_latency"},
		{"a mean, a minimum and a maximum are of what was seen", []string{"mean(ttft) <= 100ms", "min(ttft) >= 100ms", "max(ttft) <= 99ms"}, nil, "fail: pass pass fail", "max(ttft)"},
		{"tpot leaves the first chunk out", []string{"p50(tpot) <= 100ms", "p50(tpot) >= 100ms"}, nil, "pass: pass pass", ""},
		{"tpot of one token is undefined, not zero", []string{"p50(tpot) <= 1s"}, func(w *world) {
			for _, r := range w.loads() {
				r.OutputTokens = 1
			}
		}, "unproven: unproven", "tpot"},
		{"gaps between chunks", []string{"p95(icl) <= 101ms", "max(icl) <= 99ms"}, nil, "fail: pass fail", "max(icl)"},
		{"a floor under a percentile", []string{"p50(ttft) >= 90ms", "p50(ttft) >= 110ms"}, nil, "fail: pass fail", ">= 110"},

		// Errors.
		{"a failed request is not a sample", []string{"p95(ttft) <= 200ms", "error_rate <= 10%"}, func(w *world) {
			for _, r := range w.spread(10) {
				slow(r, time.Second)
				breakOff(r)
			}
		}, "pass: pass pass", ""},
		{"but it is an error", []string{"p95(ttft) <= 200ms", "error_rate <= 1%", "errors == 0"}, func(w *world) {
			breakOff(w.loads()[0])
			breakOff(w.loads()[1])
			breakOff(w.loads()[2])
		}, "fail: pass fail fail", "3 of 200: it is 1.5 %, and must be <= 1 %"},
		{"a latency objective alone gets a warning", []string{"p95(ttft) in steady <= 200ms"}, nil, "pass: pass", "The objective holds"},
		{"an answer without a token is no success, whatever the client says", []string{"errors == 0"}, func(w *world) { w.loads()[0].FirstToken = 0 }, "fail: fail", "errors"},
		{"an answer without an end is no success", []string{"errors == 0"}, func(w *world) { w.loads()[0].End = 0 }, "fail: fail", "errors"},
		{"a share that the requests cannot express proves nothing", []string{"error_rate <= 0.1%"}, nil, "unproven: unproven", "0 of 200 is too few to measure 0.1 %: it needs 4403 more requests"},
		{"nor does it fail by one", []string{"error_rate <= 0.1%"}, func(w *world) { breakOff(w.loads()[0]) }, "unproven: unproven", "too few"},
		{"but by many", []string{"error_rate <= 0.1%"}, func(w *world) {
			for _, r := range w.loads()[:50] {
				breakOff(r)
			}
		}, "fail: fail", "50 of 200"},

		{"a share passes when its bound holds", []string{"error_rate <= 3%", "attainment >= 97%"}, nil, "pass: pass pass", ""},
		{"and proves nothing when it does not", []string{"error_rate <= 1%"}, nil, "unproven: unproven",
			"0 of 200: it is 0 %, but with 99 % confidence it is only known to be below 2.28 %, and must be <= 1 %; 259 more requests would decide"},
		{"nor near its limit", []string{"error_rate <= 5%"}, func(w *world) {
			for _, r := range w.spread(10) {
				breakOff(r)
			}
		}, "unproven: unproven", "too near to its limit"},
		{"failures of one moment tell of few", []string{"error_rate <= 5%"}, func(w *world) {
			for _, r := range w.loads()[50:54] {
				breakOff(r)
			}
		}, "unproven: unproven", "requests close in time resembled one another"},
		{"as many, one by one, tell of all", []string{"error_rate <= 6%"}, func(w *world) {
			for _, r := range w.spread(4) {
				breakOff(r)
			}
		}, "pass: pass", ""},
		{"a limit of nothing is about what was seen", []string{"error_rate <= 0%", "error_rate == 0%"}, nil, "pass: pass pass", ""},
		{"less confidence takes fewer", []string{"error_rate <= 1.6%"}, func(w *world) { w.gate.Confidence = 0.95 }, "pass: pass", "The objective holds, with 95 % confidence"},

		// Goodput.
		{"attainment counts the slow and the failed", []string{"p95(ttft) <= 1s", "attainment >= 90%", "goodput >= 6.5/s"}, func(w *world) {
			for i, r := range w.spread(8) {
				if i%2 == 0 {
					slow(r, 3*time.Second)
				} else {
					breakOff(r)
				}
			}
		}, "unproven: unproven pass pass", "p95(ttft)"},
		{"of two percentiles the looser limit speaks of every request", []string{"p50(ttft) <= 100ms", "p95(ttft) <= 2s", "attainment >= 97%"}, func(w *world) {
			for _, r := range w.spread(60) {
				slow(r, time.Second)
			}
		}, "pass: pass pass pass", ""},
		{"throughput", []string{"output_tokens_per_second >= 38", "achieved_rate >= 10/s", "achieved_rate >= 10.1/s"}, nil, "fail: pass pass fail", "it is 10/s, and must be >= 10.1/s"},
		{"tokens that are not counted may be more", []string{"output_tokens_per_second >= 1000", "output_tokens_per_second >= 38"}, func(w *world) {
			for _, r := range w.loads() {
				r.TokensFrom = "chunks"
			}
		}, "unproven: unproven pass", "do not say how many tokens they have"},
		{"a rate as high as its limit is not proven, even where all went well", []string{"goodput >= 9.9/s", "goodput >= 9.7/s"}, nil, "unproven: unproven pass", "only known to be above 9.77/s"},
		{"nor one that comes and goes", []string{"goodput >= 6/s", "goodput >= 2/s"}, func(w *world) {
			for _, r := range w.loads()[60:90] { // three consecutive seconds
				breakOff(r)
			}
		}, "unproven: unproven pass", "a longer stage gives a narrower bound"},
		{"users who wait bring what they bring", []string{"output_tokens_per_second >= 30", "output_tokens_per_second >= 11"}, func(w *world) {
			w.gate.Scenarios[0].Stages[0].Rate, w.gate.Scenarios[0].Stages[0].Users = 0, 4
			for i, r := range w.loads() {
				if i/20%2 == 0 {
					r.OutputTokens = 1
				} else {
					r.OutputTokens = 7
				}
			}
		}, "unproven: unproven pass", "40 tokens/s"},

		// Metrics without a recording to measure them.
		{"cost, security and rpo are unproven", []string{"cost_per_million_output_tokens <= $1", "security(high) == 0", "rpo(pod-kill) < 1m"}, func(w *world) { w.withFault() },
			"unproven: unproven unproven unproven (pass)", "gives no price for a replica"},

		// Faults.
		{"a fault nobody felt", []string{"rto(pod-kill) < 200ms", "lost(pod-kill) == 0", "detection(pod-kill) < 1s", "errors_during(pod-kill) <= 10%"}, func(w *world) { w.withFault() },
			"pass: pass pass pass pass (pass)", ""},
		{"recovery counts from in effect to the end of the first good probe of a row", []string{"rto(pod-kill) <= 1s", "rto(pod-kill) <= 999ms"}, func(w *world) {
			w.withFault()
			for _, p := range w.probes() {
				if p.Due > inEffectAt && p.Due < inEffectAt+980*ms && p.Due != 15500*ms { // a single answer in between is not enough
					breakOff(p)
				}
			}
		}, "fail: pass fail (fail)", "rto(pod-kill) <= 999ms: it is 1 s"},
		{"a probe answered too late is not served", []string{"rto(pod-kill) < 1s"}, func(w *world) {
			w.withFault()
			for _, p := range w.probes() {
				if p.Due > inEffectAt && p.Due < inEffectAt+2*time.Second {
					p.End = p.Due + 2001*ms
				}
			}
		}, "fail: fail (fail)", "it is 2"},
		{"a service that never recovers has broken its promise", []string{"rto(pod-kill) < 5s"}, func(w *world) {
			w.withFault()
			for _, p := range w.probes() {
				if p.Due > inEffectAt {
					breakOff(p)
				}
			}
		}, "fail: fail (unproven)", "users were still not served 14.9"},
		{"unless it was not watched for long enough", []string{"rto(pod-kill) < 5m"}, func(w *world) {
			w.withFault()
			for _, p := range w.probes() {
				if p.Due > inEffectAt {
					breakOff(p)
				}
			}
		}, "unproven: unproven (unproven)", "never were 3 in a row answered"},
		{"no probes after the fault prove nothing", []string{"rto(pod-kill) < 5m"}, func(w *world) {
			w.withFault()
			w.requests = slices.DeleteFunc(w.requests, func(r recording.Request) bool { return r.Kind == recording.KindProbe && r.Due > inEffectAt })
		}, "unproven: unproven (unproven)", "no probe was due after the fault"},
		{"a missing probe could be the one that failed", []string{"rto(pod-kill) < 5m"}, func(w *world) {
			w.withFault()
			w.requests = slices.DeleteFunc(w.requests, func(r recording.Request) bool { return r.Kind == recording.KindProbe && r.Due == 15100*ms })
		}, "unproven: unproven (unproven)", "probes are missing"},
		{"an outage that begins a while after the fault is its own", []string{"rto(pod-kill) <= 2s", "rto(pod-kill) <= 1s"}, func(w *world) {
			w.withFault()
			for _, p := range w.probes() {
				if p.Due >= 16*time.Second && p.Due < 17*time.Second {
					breakOff(p)
				}
			}
		}, "fail: pass fail (fail)", "rto(pod-kill) <= 1s: it is 2 s"},
		{"and may begin as the fault ends", []string{"rto(pod-kill) <= 3s"}, func(w *world) {
			w.withFault()
			for _, p := range w.probes() {
				if p.Due >= goneAt && p.Due < goneAt+time.Second {
					breakOff(p)
				}
			}
		}, "fail: fail (fail)", "it is 4 s"},
		{"after the fault it is another one's", []string{"rto(pod-kill) <= 200ms"}, func(w *world) {
			w.withFault()
			for _, p := range w.probes() {
				if p.Due > goneAt {
					breakOff(p)
				}
			}
		}, "pass: pass (pass)", ""},
		{"a service that is away again and stays away has not recovered", []string{"rto(pod-kill) <= 10s", "rto(pod-kill) <= 1m"}, func(w *world) {
			w.withFault()
			for _, p := range w.probes() {
				if p.Due > 17*time.Second {
					breakOff(p)
				}
			}
		}, "fail: fail unproven (unproven)", "users were still not served 14.9"},
		{"missing probes could be an outage", []string{"rto(pod-kill) < 5m"}, func(w *world) {
			w.withFault()
			w.requests = slices.DeleteFunc(w.requests, func(r recording.Request) bool {
				return r.Kind == recording.KindProbe && r.Due >= 16*time.Second && r.Due < 16300*ms
			})
		}, "unproven: unproven (unproven)", "probes are missing"},
		{"requests cut between the injection and its being seen are lost", []string{"lost(pod-kill) == 0", "errors_during(pod-kill) <= 1%"}, func(w *world) {
			w.withFault()
			for _, r := range w.loads()[48:50] { // due at 14.8 and 14.9 s, and cut at 15.01 s
				breakOff(r)
				r.End = injectedAt + 10*ms
			}
		}, "fail: fail fail (fail)", "lost(pod-kill) == 0: it is 2"},
		{"requests that failed before the fault are not its", []string{"lost(pod-kill) == 0"}, func(w *world) {
			w.withFault()
			breakOff(w.loads()[40])
		}, "pass: pass (pass)", ""},
		{"a service that never notices has no detection time", []string{"detection(pod-kill) < 10s"}, func(w *world) {
			w.withFault()
			w.dropObservations(func(o recording.Observation) bool { return o.Name == recording.ObsReplicaReady })
		}, "unproven: unproven (pass)", "never seen to detect the fault"},
		{"what it notices after the fault was gone is another one", []string{"detection(pod-kill) < 10s"}, func(w *world) {
			w.withFault()
			w.dropObservations(func(o recording.Observation) bool { return o.Name == recording.ObsReplicaReady })
			w.observe(goneAt+time.Second, recording.ObsReplicaReady, "replica-1", 0)
		}, "unproven: unproven (pass)", "never seen to detect the fault"},
		{"a fault never seen in effect makes the run invalid", []string{"rto(pod-kill) < 5m"}, func(w *world) {
			w.withFault().failedStep("never seen in_effect: not within 15s", recording.FaultInEffect, recording.FaultReverted, recording.FaultGone)
		}, "invalid: invalid (invalid)", "never seen in effect"},
		{"so does one that could not be injected", []string{"error_rate <= 3%"}, func(w *world) {
			w.withFault().failedStep("not injected: no such process", recording.FaultInjected, recording.FaultInEffect, recording.FaultReverted, recording.FaultGone)
		}, "invalid: pass (invalid)", "no such process"},
		{"one that the target cannot have leaves it unproven", []string{"rto(pod-kill) < 5m", "error_rate <= 3%"}, func(w *world) {
			w.withFault().failedStep("unsupported: launchgate did not deploy this target", recording.FaultInjected, recording.FaultInEffect, recording.FaultReverted, recording.FaultGone)
		}, "unproven: unproven pass (unproven)", "launchgate did not deploy this target"},
		{"one not reverted makes the run invalid", []string{"error_rate <= 3%"}, func(w *world) {
			w.withFault().failedStep("not reverted: permission denied", recording.FaultReverted, recording.FaultGone)
		}, "invalid: pass (invalid)", "not reverted"},
		{"one that ended before its time makes the run invalid", []string{"error_rate <= 3%"}, func(w *world) {
			w.withFault().failedStep("never seen held: the process that was stopped is gone", recording.FaultGone)
			w.gate.Scenarios[0].Faults[0].For = scenarios.Duration(5 * time.Second)
		}, "invalid: pass (invalid)", "the process that was stopped is gone"},
		{"a replica that never comes back is the service's failure", []string{"rto(pod-kill) < 5m"}, func(w *world) {
			w.withFault().failedStep("never seen gone: not within 15s", recording.FaultGone)
		}, "fail: pass (fail)", "never returned to its state"},
		{"an objective about a fault that is not in the gate", []string{"rto(pod-kill) < 5m"}, nil, "unproven: unproven", "the gate injects no pod-kill"},

		// The client.
		{"load that was not sent makes the run invalid", []string{"error_rate <= 20%"}, func(w *world) {
			for _, r := range w.spread(11) {
				*r = recording.Request{Seq: r.Seq, Kind: r.Kind, Scenario: r.Scenario, Stage: r.Stage, Streamed: true, Due: r.Due, Error: recording.ErrorNotSent}
			}
		}, "invalid: pass", "only 189 of the 200 requests"},
		{"so does load sent late", []string{"error_rate <= 3%"}, func(w *world) {
			for _, r := range w.loads()[:3] {
				r.Sent = r.Due + 51*ms
			}
		}, "invalid: pass", "51 ms late at p99"},
		{"so does a client without a processor", []string{"error_rate <= 3%"}, func(w *world) {
			w.spoilClient(recording.ObsClientSched, 0.06, 2)
		}, "invalid: pass", "waited more than 50 ms for a CPU"},
		{"but not for one second", []string{"error_rate <= 3%"}, func(w *world) { w.spoilClient(recording.ObsClientSched, 0.06, 1) }, "pass: pass", ""},
		{"so does a client that collects garbage", []string{"error_rate <= 3%"}, func(w *world) { w.spoilClient(recording.ObsClientGCPause, 0.06, 2) }, "invalid: pass", "garbage"},
		{"so does a client that takes the machine", []string{"error_rate <= 3%"}, func(w *world) { w.spoilClient(recording.ObsClientCPU, 1.9, 2) }, "invalid: pass", "bottleneck"},
		{"a worker on another machine has its own cores", []string{"error_rate <= 3%"}, func(w *world) {
			w.observe(stageFrom, recording.ObsWorkerPlace, "worker-0", 4)
			w.workers(2, 1.9)
		}, "pass: pass", ""},
		{"and may take all of them", []string{"error_rate <= 3%"}, func(w *world) {
			w.observe(stageFrom, recording.ObsWorkerPlace, "worker-0", 2)
			w.workers(1, 1.9)
		}, "invalid: pass", "worker-0 used more than 90 % of its 2 cores (maximum 1.9)"},
		{"a clock that is known well enough", []string{"error_rate <= 3%"}, func(w *world) { w.observe(stageTo, recording.ObsWorkerClock, "worker-0", 0.004) }, "pass: pass", ""},
		{"a clock that is not", []string{"error_rate <= 3%"}, func(w *world) {
			w.observe(stageTo, recording.ObsWorkerClock, "worker-0", 0.004)
			w.observe(stageTo, recording.ObsWorkerClock, "worker-1", 0.061)
		}, "invalid: pass", "the clock of worker-1 may have been off by 61.0 ms, and at most 50 ms"},
		{"so does a client that did not look at itself", []string{"error_rate <= 3%"}, func(w *world) {
			w.dropObservations(func(o recording.Observation) bool { return o.Name == recording.ObsClientSched && o.At > 20*time.Second })
		}, "invalid: pass", "recorded its own state in only 10 of 19 seconds"},

		// Missing evidence.
		{"requests without a trace", []string{"error_rate <= 3%"}, func(w *world) { w.requests = w.requests[:199] }, "unproven: unproven", "1 of 200 requests"},
		{"a stage that did not end", []string{"error_rate <= 3%"}, func(w *world) {
			w.dropObservations(func(o recording.Observation) bool { return o.Name == recording.ObsStageEnded })
		}, "unproven: unproven", "not played to its end"},
		{"a scenario that was not played", []string{"error_rate <= 3%"}, func(w *world) { w.observations = w.observations[len(w.observations)-1:] }, "unproven: unproven", "was not played"},
		{"a recording without an end", []string{"error_rate <= 3%"}, func(w *world) { w.observations = w.observations[:len(w.observations)-1] }, "unproven: pass", "The recording has no end"},
		{"a gate without objectives", nil, nil, "unproven:", "The gate has no objective"},
		{"invalid comes before fail", []string{"error_rate <= 3%"}, func(w *world) {
			for _, r := range w.loads()[:20] {
				breakOff(r)
			}
			w.spoilClient(recording.ObsClientSched, 0.06, 5)
		}, "invalid: fail", "The client was not reliable"},
		{"fail comes before unproven", []string{"error_rate <= 3%", "p99(ttft) <= 1s"}, func(w *world) {
			for _, r := range w.loads()[:20] {
				breakOff(r)
			}
		}, "fail: fail unproven", "error_rate"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := healthy(t, tt.promises...)
			if tt.spoil != nil {
				tt.spoil(w)
			}
			v := w.judge(t)
			if got := outcomes(v); got != tt.want {
				t.Errorf("%s, want %s\n%s", got, tt.want, v.Why)
			}
			if !strings.Contains(v.Why[0].String(), tt.why) {
				t.Errorf("the first sentence is %q, want it to say %q", v.Why[0], tt.why)
			}
			for _, f := range v.Objectives {
				if f.Why.IsZero() {
					t.Errorf("%s has no why", f.Source)
				}
			}
			if want := []int{ExitUnproven, ExitPass, ExitFail, ExitInvalid}[v.Verdict]; v.ExitCode != want {
				t.Errorf("exit code %d, want %d", v.ExitCode, want)
			}
		})
	}
}

// spoilClient changes the last observations of the client to bad values.
func (w *world) spoilClient(name string, v float64, n int) {
	for i := len(w.observations) - 1; i >= 0 && n > 0; i-- {
		if w.observations[i].Name == name {
			w.observations[i].Value = v
			n--
		}
	}
}

func TestAnInterruptedRunExitsWith130AndNeverPasses(t *testing.T) {
	w := healthy(t, "error_rate <= 3%")
	w.observations[len(w.observations)-1] = recording.Observation{At: stageTo + 2*ms, Name: recording.ObsInterrupted, Text: words.Verbatim("interrupt")}
	v := w.judge(t)
	if v.Verdict != Unproven || v.ExitCode != ExitInterrupted || !v.Incomplete || !strings.Contains(v.Why[0].String(), "stopped before its end (interrupt)") {
		t.Errorf("%v, exit code %d, incomplete %v: %q", v.Verdict, v.ExitCode, v.Incomplete, v.Why)
	}
}

// The verdict describes the effect of a fault on users even if no objective asks for
// it.
func TestTheStoryOfAFault(t *testing.T) {
	between := func(rows []*recording.Request, from, to time.Duration) {
		for _, r := range rows {
			if r.Due >= from && r.Due < to {
				breakOff(r)
			}
		}
	}
	for _, tt := range []struct {
		name  string
		spoil func(w *world)
		want  string
	}{
		{"nobody felt it", func(w *world) {}, "users were served throughout, and 0 requests under way were lost"},
		{"it was an outage", func(w *world) { between(w.probes(), 15100*ms, 16*time.Second) }, "9 probes failed until users were served again, and"},
		{"it was one later", func(w *world) { between(w.probes(), 16*time.Second, 17*time.Second) }, "10 probes failed until users were served again, and"},
		{"a single probe failed before it", func(w *world) {
			between(w.probes(), 15500*ms, 15600*ms)
			between(w.probes(), 16*time.Second, 17*time.Second)
		}, "11 probes failed until users were served again, and"},
		{"single probes failed", func(w *world) { between(w.probes(), 16*time.Second, 16200*ms) }, "2 probes failed before the fault was gone, and"},
		{"it was both", func(w *world) {
			between(w.probes(), 15100*ms, 15200*ms)
			between(w.probes(), 16*time.Second, 16200*ms)
		}, "1 probe failed until users were served again, 2 more failed before the fault was gone, and"},
		{"probes alone were answered", func(w *world) { between(w.loads(), 15100*ms, 15600*ms) },
			"no probe failed, and 0 requests under way were lost; 5 of 105 affected requests failed"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := healthy(t, "error_rate <= 10%").withFault()
			tt.spoil(w)
			if f := w.judge(t).Faults[0]; f.Verdict != Pass || !strings.Contains(f.Why.String(), tt.want) {
				t.Errorf("%v: %q, want a pass and %q", f.Verdict, f.Why, tt.want)
			}
		})
	}
}

// If a run is stopped during a fault, it is not known whether the service recovers.
func TestAFaultCutShortIsUnproven(t *testing.T) {
	w := healthy(t, "error_rate <= 3%").withFault()
	w.failedStep("never seen gone: the run was stopped", recording.FaultGone)
	for i := range w.observations {
		if w.observations[i].Name == recording.ObsRunEnded {
			w.observations[i].Name = recording.ObsInterrupted
		}
	}
	if v := w.judge(t); outcomes(v) != "unproven: pass (unproven)" || v.ExitCode != ExitInterrupted {
		t.Errorf("%s, exit code %d: %q", outcomes(v), v.ExitCode, v.Why)
	}
}

func TestADamagedRecordingNeverPasses(t *testing.T) {
	w := healthy(t, "error_rate <= 3%")
	rec := w.recording()
	rec.Warnings = []words.Sentence{words.Verbatim("requests-000002.parquet: its requests are left out.")}
	v, err := Judge(w.gate, rec)
	if err != nil || v.Verdict != Unproven || !strings.Contains(v.Why[0].String(), "requests-000002.parquet") {
		t.Errorf("%v, %v: %q", v.Verdict, err, v.Why)
	}
}

func TestARecordingThatCannotBeReadIsAnError(t *testing.T) {
	w := healthy(t, "error_rate <= 3%")
	rec := w.recording()
	broken := errors.New("the disk is gone")
	rec.Requests = func(yield func(recording.Request, error) bool) { yield(recording.Request{}, broken) }
	if _, err := Judge(w.gate, rec); !errors.Is(err, broken) {
		t.Errorf("the error is %v", err)
	}
}

func TestALatencyObjectiveAloneIsWarnedOf(t *testing.T) {
	for _, tt := range []struct {
		promises []string
		warnings int
	}{
		{[]string{"p95(ttft) in steady <= 1s"}, 1},
		{[]string{"p95(ttft) in steady <= 1s", "p95(tpot) in steady <= 1s"}, 1},
		{[]string{"p95(ttft) in steady <= 1s", "error_rate in steady <= 3%"}, 0},
		{[]string{"p95(ttft) in steady <= 1s", "error_rate <= 3%"}, 0},
		{[]string{"p95(ttft) <= 1s", "error_rate in steady <= 3%"}, 0}, // there is no other scenario
		{[]string{"p95(ttft) <= 1s", "error_rate in steady/main <= 3%"}, 1},
		{[]string{"p95(ttft) in steady/main <= 1s", "attainment in steady >= 90%"}, 0},
	} {
		v := healthy(t, tt.promises...).judge(t)
		if got := len(v.Why) - 1; got != tt.warnings || v.Verdict != Pass {
			t.Errorf("%v: %v with %d warnings, want %d: %q", tt.promises, v.Verdict, got, tt.warnings, v.Why)
		}
	}
}

// An objective that counts errors has to cover the same requests as the latency
// objective, and the warning suggests such an objective.
func TestErrorsAreCountedInTheSameWindow(t *testing.T) {
	for _, tt := range []struct {
		promises []string
		add      string // the objective that the warning suggests; empty: no warning
	}{
		{[]string{"p90(ttft) in s outside faults <= 1s"}, "add error_rate in s outside faults <= 1%."},
		{[]string{"p90(ttft) in s outside faults <= 1s", "errors_during(pod-kill) <= 5%"}, "add error_rate in s outside faults <= 1%."},
		{[]string{"p90(ttft) in s outside faults <= 1s", "error_rate in s outside faults <= 1%"}, ""},
		{[]string{"p90(ttft) in s outside faults <= 1s", "error_rate in s <= 5%"}, ""},
		{[]string{"p90(ttft) in s during pod-kill <= 1s"}, "add error_rate in s during pod-kill <= 1%."},
		{[]string{"p90(ttft) in s during pod-kill <= 1s", "errors_during(pod-hang) <= 5%"}, "add error_rate in s during pod-kill <= 1%."},
		{[]string{"p90(ttft) in s during pod-kill <= 1s", "errors_during(pod-kill) in other <= 5%"}, "add error_rate in s during pod-kill <= 1%."},
		{[]string{"p90(ttft) in s during pod-kill <= 1s", "errors_during(pod-kill) <= 5%"}, ""},
		{[]string{"p90(ttft) in s <= 1s", "errors_during(pod-kill) <= 5%"}, "add error_rate in s <= 1%."},
	} {
		gate := scenarios.Gate{Scenarios: []scenarios.Scenario{{Name: "s"}, {Name: "other"}}}
		for _, p := range tt.promises {
			o, err := scenarios.ParseObjective(p)
			if err != nil {
				t.Fatal(err)
			}
			gate.Objectives = append(gate.Objectives, o)
		}
		said := warnings(gate)
		if len(said) > 1 || (len(said) == 1) != (tt.add != "") || len(said) == 1 && !strings.HasSuffix(said[0].String(), tt.add) {
			t.Errorf("%v: %v, want %q", tt.promises, said, tt.add)
		}
	}
}

func TestTokensThatTheServiceDoesNotTellAreWarnedOf(t *testing.T) {
	for _, tt := range []struct {
		promise, from string
		warnings      int
	}{
		{"p95(tpot) in steady <= 1s", "chunks", 1},
		{"output_tokens_per_second in steady >= 1", "", 1},
		{"p95(tpot) in steady <= 1s", "usage", 0},
		{"p95(ttft) in steady <= 1s", "chunks", 0},
	} {
		r := healthy(t, tt.promise, "error_rate <= 3%")
		for i := range r.requests {
			r.requests[i].TokensFrom = tt.from
		}
		v := r.judge(t)
		if got := len(v.Why) - 1; got != tt.warnings || v.Verdict != Pass {
			t.Errorf("%s from %q: %v with %d warnings, want %d: %q", tt.promise, tt.from, v.Verdict, got, tt.warnings, v.Why)
		}
	}
}

// Removing evidence from a run that did not pass never makes it pass. The test leaves
// out evidence that need not exist (a second without garbage collection has no pause),
// and the run's last line, which is missing whenever there is an interruption.
func TestDroppingEvidenceNeverMakesAPass(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped with -short: the race detector takes ten times as long")
	}
	promises := []string{
		"p95(ttft) <= 1s", "p50(icl) <= 1s", "error_rate <= 3%", "attainment >= 90%", "output_tokens_per_second >= 30",
		"rto(pod-kill) < 2s", "lost(pod-kill) == 0", "errors_during(pod-kill) <= 10%", "detection(pod-kill) < 1s",
	}
	spoilers := []func(w *world, draw *rand.Rand){
		func(w *world, draw *rand.Rand) { // slow requests
			for range 15 {
				r := w.loads()[draw.IntN(200)]
				slow(r, 2*time.Second)
			}
		},
		func(w *world, draw *rand.Rand) { // errors
			for range 4 {
				breakOff(w.loads()[draw.IntN(200)])
			}
		},
		func(w *world, draw *rand.Rand) { // an outage
			for _, p := range w.probes() {
				if p.Due > inEffectAt && p.Due < inEffectAt+3*time.Second {
					breakOff(p)
				}
			}
		},
		func(w *world, draw *rand.Rand) { // a lost request
			r := w.loads()[49]
			breakOff(r)
		},
		func(w *world, draw *rand.Rand) { w.failedStep("never seen gone", recording.FaultGone) },
		func(w *world, draw *rand.Rand) { w.spoilClient(recording.ObsClientSched, 0.2, 3) },
		func(w *world, draw *rand.Rand) {
			for i := range w.observations {
				if w.observations[i].Name == recording.ObsReplicaReady {
					w.observations[i].At += 3 * time.Second
				}
			}
		},
	}
	if v := healthy(t, promises...).withFault().judge(t); v.Verdict != Pass {
		t.Fatalf("the healthy run is %v: %q", v.Verdict, v.Why)
	}
	for seed := range uint64(120) {
		draw := rand.New(rand.NewPCG(seed, 1))
		w := healthy(t, promises...).withFault()
		spoilers[draw.IntN(len(spoilers))](w, draw)
		if v := w.judge(t); v.Verdict == Pass {
			t.Fatalf("seed %d: the spoiled run passes", seed)
		}
		share := []float64{0.002, 0.02, 0.3}[draw.IntN(3)]
		gone := func() bool { return draw.Float64() < share }
		w.requests = slices.DeleteFunc(w.requests, func(recording.Request) bool { return gone() })
		w.injections = slices.DeleteFunc(w.injections, func(recording.Injection) bool { return gone() })
		w.dropObservations(func(o recording.Observation) bool { return o.Name != recording.ObsRunEnded && gone() })
		for i := range w.requests { // and fields of what remains
			if gone() {
				w.requests[i].FirstToken = 0
			}
			if gone() {
				w.requests[i].End = 0
			}
		}
		if v := w.judge(t); v.Verdict == Pass {
			t.Fatalf("seed %d: it passes with evidence dropped: %s", seed, outcomes(v))
		}
	}
}

func TestTheWorstOfSeveralFaultsCounts(t *testing.T) {
	w := healthy(t, "lost(pod-kill) == 0").withFault()
	w.gate.Scenarios[0].Faults = append(w.gate.Scenarios[0].Faults, w.gate.Scenarios[0].Faults[0])
	for _, i := range slices.Clone(w.injections) {
		i.ID = "steady/1"
		i.At += 5 * time.Second
		w.injections = append(w.injections, i)
	}
	breakOff(w.loads()[99]) // under way at 20 s
	if v := w.judge(t); outcomes(v) != "fail: fail (pass) (fail)" {
		t.Errorf("%s: %q", outcomes(v), v.Why)
	}
}

// Every metric of the grammar is either computed or reported as without evidence.
func TestEveryMetricIsJudged(t *testing.T) {
	for _, m := range scenarios.Metrics() {
		src := m.Example
		for _, name := range []string{"burst", "steady/main", "steady"} {
			src = strings.Replace(src, " in "+name+" ", " ", 1)
		}
		src = strings.Replace(src, "node-loss", "pod-kill", 1)
		v := healthy(t, src).withFault().judge(t)
		f := v.Objectives[0]
		if strings.Contains(f.Why.String(), "does not know") || f.Verdict == Invalid {
			t.Errorf("%s: %v, %s", src, f.Verdict, f.Why)
		}
		if f.Value == nil && f.Verdict != Unproven {
			t.Errorf("%s is %v without a value", src, f.Verdict)
		}
	}
}

func TestOutcomesAreReadAsTheyAreWritten(t *testing.T) {
	for _, o := range []Outcome{Unproven, Pass, Fail, Invalid} {
		text, err := o.MarshalText()
		if err != nil {
			t.Fatal(err)
		}
		var back Outcome
		if err := back.UnmarshalText(text); err != nil || back != o {
			t.Errorf("%s is read as %v (%v)", text, back, err)
		}
	}
	var o Outcome
	if o != Unproven {
		t.Error("what nobody decided is not unproven")
	}
	if err := o.UnmarshalText([]byte("green")); err == nil || !strings.Contains(err.Error(), "unproven, pass, fail, invalid") {
		t.Errorf("the error is %v", err)
	}
}

// A shown value has enough digits to see on which side of its limit it is.
func TestValuesAreShownForPeople(t *testing.T) {
	limit := func(threshold float64, unit string) scenarios.Objective {
		return scenarios.Objective{Threshold: threshold, Unit: unit}
	}
	for _, tt := range []struct {
		value, threshold float64
		unit, want       string
	}{
		{0.0028131, 0.1, "s", "2.81 ms"}, {3.0134, 2, "s", "3.01 s"}, {2.0004, 2, "s", "2.0004 s"}, {2, 2, "s", "2 s"}, {0, 1, "s", "0 s"}, {0.0000004, 1, "s", "0.4 µs"},
		{95, 60, "s", "1m35s"}, {60, 1, "s", "1m"}, {3605, 60, "s", "1h0m5s"}, {-95, 60, "s", "-1m35s"}, {0.7529, 0.2, "ratio", "75.3 %"}, {0.01004, 0.01, "ratio", "1.004 %"}, {1234, 10, "count", "1234"}, {9.999, 10, "per_second", "9.999/s"},
	} {
		if got := measured(tt.value, limit(tt.threshold, tt.unit)); got.String() != tt.want {
			t.Errorf("%v beside %v is shown as %q, want %q", tt.value, tt.threshold, got, tt.want)
		}
	}
}

// A trace that ended before its stage is warned of in the verdict.
func TestShortTraceIsWarnedOf(t *testing.T) {
	w := healthy(t, "error_rate <= 3%")
	w.observe(stageTo, recording.ObsTraceEnded, "steady", 0)
	w.observations[len(w.observations)-1].Text = words.Say("it ended after %s", "2s")
	v, err := Judge(w.gate, w.recording())
	if err != nil {
		t.Fatal(err)
	}
	if said := fmt.Sprint(v.Why); v.Verdict != Pass || !strings.Contains(said, "Warning: it ended after 2s.") {
		t.Errorf("%s: %s", v.Verdict, said)
	}
}

// workers has the load sent by n workers that use so much CPU each.
func (w *world) workers(n int, cpu float64) {
	for s := stageFrom + time.Second; s <= stageTo; s += time.Second {
		for i := range n {
			who := fmt.Sprintf("worker-%d", i)
			w.observe(s, recording.ObsClientCPU, who, cpu/float64(n))
			w.observe(s, recording.ObsClientSched, who, 0.0001)
		}
	}
}
