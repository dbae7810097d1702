package checklist

import (
	"testing"

	"github.com/launchgate/launchgate/internal/recording"
)

// The requests that met the pod-kill (the 46th to the 150th) are counted by replica and
// by class. The requests that did not meet it define what is slow.
func TestBlast(t *testing.T) {
	w := healthy(t, "errors_during(pod-kill) <= 50%").withFault()
	for i := range w.requests[:200] {
		r := &w.requests[i]
		r.Replica, r.Class = []string{"replica-0", "replica-1"}[i%2], []string{"chat", "batch", "batch"}[i%3]
		switch {
		case i < 46 || i > 150:
		case i%10 == 0: // 50, 60, …, 150; all of replica-0
			r.Error, r.FinishReason = recording.ErrorTruncated, ""
		case i%10 == 1: // 51, 61, …, 141; all of replica-1
			r.FirstToken, r.FirstOutput, r.Retries = r.Due+300*ms, r.Due+300*ms, 1
		}
	}
	judged := func() *Blast {
		v, err := Judge(w.gate, w.recording())
		if err != nil {
			t.Fatal(err)
		}
		return v.Faults[0].Blast
	}
	// 95 requests met no fault, which are too few to define what is slow.
	if b := judged(); b == nil || b.SlowerThan != nil || b.Slowed != nil || b.Requests != 105 || b.Failed != 11 || b.Retried != 10 {
		t.Fatalf("%+v", b)
	}
	for i := range 10 { // later requests, of a longer stage
		w.requests = append(w.requests, answered(int64(200+i), stageTo-ms, 100*ms, 400*ms))
	}
	b := judged()
	if b == nil || b.SlowerThan == nil || *b.SlowerThan < 0.099 || *b.SlowerThan > 0.101 || *b.Slowed != 10 || b.Seconds != 10 {
		t.Fatalf("%+v", b)
	}
	parts := map[string]BlastPart{}
	for _, p := range append(b.Replicas, b.Classes...) {
		parts[p.Name] = p
	}
	for name, want := range map[string][4]int64{"replica-0": {53, 11, 0, 0}, "replica-1": {52, 0, 10, 10}, "chat": {35, 4, 4, 4}, "batch": {70, 7, 6, 6}} {
		p := parts[name]
		if got := [4]int64{p.Requests, p.Failed, *p.Slowed, p.Retried}; got != want {
			t.Errorf("%s: %v requests, failed, slowed and retried, want %v", name, got, want)
		}
	}
	// Each second has its own counts: the failed requests are 1 s apart, and so are the
	// slowed and retried ones.
	failed, slowed, retried := int64(0), int64(0), int64(0)
	for i, s := range b.Steps {
		failed, slowed, retried = failed+s.Failed, slowed+*s.Slowed, retried+s.Retried
		if i > 0 && s.From < b.Steps[i-1].From || s.Requests < 1 || s.Failed+*s.Slowed+s.Retried == 0 || (s.Failed > 0) != (s.Replica == "replica-0") {
			t.Errorf("%+v", s)
		}
	}
	if failed != 11 || slowed != 10 || retried != 10 || b.StepSeconds != 1 || b.Steps[0].From != 0 || b.Steps[len(b.Steps)-1].From != 10 {
		t.Errorf("%d failed, %d slowed and %d retried in steps of %d s: %+v", failed, slowed, retried, b.StepSeconds, b.Steps)
	}
	// A fault that never took effect affects no request.
	w.injections = w.injections[:1]
	if b := judged(); b != nil {
		t.Errorf("%+v", b)
	}
}
