package checklist

import (
	"testing"
	"time"

	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/scenarios"
)

// Objectives distinguish the requests that met a fault from the others. The pod-kill of
// these runs is injected at 15 s and counts until 25 s. The requests from the 46th,
// which was under way then, to the 150th met it.
func TestDuringAndOutsideFaults(t *testing.T) {
	w := healthy(t,
		"p95(ttft) outside faults <= 200ms", "p95(ttft) during pod-kill <= 2s", "p95(ttft) <= 200ms", "max(ttft) during pod-kill <= 2s",
		"error_rate in steady during pod-kill <= 10%", "errors outside faults == 0", "error_rate in steady/main during pod-kill <= 1%",
		"attainment outside faults >= 90%").withFault()
	for i := range w.requests[:200] {
		switch r := &w.requests[i]; {
		case i < 46 || i > 150:
		case i%50 == 0: // the 50th, 100th and 150th
			r.Error, r.FinishReason = recording.ErrorTruncated, ""
		default:
			r.FirstToken, r.FirstOutput = r.Due+900*ms, r.Due+900*ms
			r.LastToken, r.End = r.Due+1200*ms, r.Due+1200*ms
		}
	}
	v, err := Judge(w.gate, w.recording())
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []struct {
		samples int64
		verdict Outcome
	}{{95, Unproven}, {102, Unproven}, {197, Fail}, {102, Pass}, {105, Pass}, {95, Pass}, {105, Fail}, {95, Pass}} {
		f := v.Objectives[i]
		if f.Samples != want.samples || f.Verdict != want.verdict {
			t.Errorf("%s: %v of %d samples (%s), want %v of %d", f.Source, f.Verdict, f.Samples, f.Why, want.verdict, want.samples)
		}
	}
	if got := v.Objectives[0].Value; got == nil || *got > 0.11 {
		t.Errorf("outside faults p95(ttft) is %v", got)
	}
	if got := v.Objectives[1].Value; got == nil || *got < 0.89 {
		t.Errorf("during the fault p95(ttft) is %v", got)
	}
}

// A fault that was never seen gone is met by all requests after it. A fault that was
// never injected is met by none.
func TestWindowsThatDoNotEnd(t *testing.T) {
	w := healthy(t, "errors outside faults == 0", "errors during pod-kill == 0").withFault()
	w.injections = w.injections[:4] // not seen gone
	v, err := Judge(w.gate, w.recording())
	if err != nil {
		t.Fatal(err)
	}
	if a, b := v.Objectives[0].Samples, v.Objectives[1].Samples; a != 46 || b != 154 {
		t.Errorf("%d requests are outside, %d met it, want 46 and 154", a, b)
	}
	w.injections = w.injections[:1]
	if v, err = Judge(w.gate, w.recording()); err != nil {
		t.Fatal(err)
	}
	if a, b := v.Objectives[0].Samples, v.Objectives[1].Samples; a != 200 || b != 0 || v.Objectives[1].Verdict == Pass {
		t.Errorf("%d requests are outside, %d met it (%v), want 200 and 0", a, b, v.Objectives[1].Verdict)
	}
}

// A request may meet several faults at once, but none of another scenario.
func TestRequestsMeetSeveralFaults(t *testing.T) {
	w := healthy(t, "errors during pod-kill == 0", "errors during network-delay == 0", "errors outside faults == 0").withFault()
	s := &w.gate.Scenarios[0]
	s.Faults = append(s.Faults, scenarios.Fault{Kind: "network-delay", At: scenarios.Duration(10 * time.Second), For: scenarios.Duration(time.Second)})
	for at, state := range map[time.Duration]string{20 * time.Second: recording.FaultInjected, 20*time.Second + ms: recording.FaultInEffect,
		21 * time.Second: recording.FaultHeld, 21*time.Second + ms: recording.FaultReverted, 21*time.Second + 2*ms: recording.FaultGone} {
		w.injections = append(w.injections, recording.Injection{At: at, ID: "steady/1", Scenario: "steady", Kind: "network-delay", Target: "replica-0", State: state})
	}
	v, err := Judge(w.gate, w.recording())
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []int64{105, 104, 46} { // the second counts until 30 s
		if got := v.Objectives[i].Samples; got != want {
			t.Errorf("%s: %d requests, want %d", v.Objectives[i].Source, got, want)
		}
	}
}
