package checklist

import (
	"encoding/json"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/launchgate/launchgate/internal/recording"
)

// FuzzJudge judges runs that make no sense: times out of order, repeated steps,
// undeclared names. There is always a verdict, it can be written, and it is a pass only
// if every part of it is.
func FuzzJudge(f *testing.F) {
	for seed := range uint64(20) {
		f.Add(seed, uint16(40*seed))
	}
	f.Fuzz(func(t *testing.T, seed uint64, wild uint16) {
		draw := rand.New(rand.NewPCG(seed, 0))
		w := healthy(t, "p95(ttft) <= 1s", "p50(tpot) <= 1s", "max(icl) <= 1s", "error_rate <= 1%", "attainment >= 90%",
			"goodput >= 1/s", "rto(pod-kill) < 2s", "lost(pod-kill) == 0", "errors_during(pod-kill) <= 10%", "detection(pod-kill) < 1s",
			"rpo(pod-kill) < 1s", "lost_writes == 0").withFault().withRecords()
		w.muddle(draw, int(wild%2000))
		v := w.judge(t)
		if _, err := json.Marshal(v); err != nil {
			t.Fatal(err)
		}
		if len(v.Why) == 0 || len(v.Objectives) != len(w.gate.Objectives) || len(v.Faults) != 1 {
			t.Fatalf("%d reasons, %d objectives, %d faults", len(v.Why), len(v.Objectives), len(v.Faults))
		}
		for _, o := range v.Objectives {
			if o.Verdict == Pass && (o.Value == nil || o.Samples < 1) {
				t.Errorf("%s passes on nothing: %+v", o.Source, o)
			}
			if v.Verdict == Pass && o.Verdict != Pass {
				t.Errorf("the run passes and %s is %v", o.Source, o.Verdict)
			}
		}
		if v.Verdict == Pass && (!v.Client.Valid || v.Incomplete || v.Faults[0].Verdict != Pass || v.ExitCode != ExitPass) {
			t.Errorf("the run passes: %+v", v)
		}
	})
}

// muddle changes n things of a run to impossible values.
func (w *world) muddle(draw *rand.Rand, n int) {
	when := func() time.Duration {
		return time.Duration(draw.Int64N(int64(40*time.Second))) - 5*time.Second
	}
	for range n {
		r := &w.requests[draw.IntN(len(w.requests))]
		in := &w.injections[draw.IntN(len(w.injections))]
		o := &w.observations[draw.IntN(len(w.observations))]
		switch draw.IntN(16) {
		case 0:
			r.Due = when()
		case 1:
			r.Sent = when()
		case 2:
			r.FirstToken = when()
		case 3:
			r.LastToken = when()
		case 4:
			r.End = when()
		case 5:
			r.Chunks = []time.Duration{when(), when(), when()}
		case 6:
			r.OutputTokens, r.FirstChunkTokens = draw.Int32()-1<<30, draw.Int32()-1<<30
		case 7:
			r.Error = []string{"", recording.ErrorNotSent, recording.ErrorCancelled, recording.ErrorGone, "new"}[draw.IntN(5)]
		case 8:
			r.Scenario, r.Stage = "nobody", "declared"
		case 9:
			r.Kind = []string{recording.KindLoad, recording.KindProbe, recording.KindWrite, recording.KindRead, "new"}[draw.IntN(5)]
		case 10:
			r.Seq = draw.Int64()
		case 11:
			in.At, in.State = when(), []string{recording.FaultInjected, recording.FaultInEffect, recording.FaultGone, recording.FaultFailed, "new"}[draw.IntN(5)]
		case 12:
			in.ID, in.Target = "nobody/7", "nobody"
		case 13:
			o.At = when()
		case 14:
			o.Value = []float64{-1, 0, 1e300, -1e300}[draw.IntN(4)]
		case 15:
			o.Name, o.Subject = []string{recording.ObsStageStarted, recording.ObsStageEnded, recording.ObsInterrupted, recording.ObsReplicaReady}[draw.IntN(4)], "steady/main"
		}
	}
}
