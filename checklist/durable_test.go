package checklist

import (
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

// withRecords adds a record every half second of the 20 s, acknowledged 10 ms
// after it was due and found at the end. The first is of 10.01 s, and the newest
// before the fault at 15 s was acknowledged at 14.51 s.
func (w *world) withRecords() *world {
	w.gate.Scenarios[0].Durability = &scenarios.Durability{}
	for i := range int64(40) {
		due := stageFrom + time.Duration(i)*500*ms
		row := recording.Request{Seq: i, Kind: recording.KindWrite, Scenario: "steady", Due: due, Sent: due, End: due + 10*ms, Status: 200, Record: fmt.Sprintf("resp_%d", i)}
		w.requests = append(w.requests, row)
		row.Kind, row.Due, row.Sent, row.End = recording.KindRead, stageTo+ms, stageTo+ms, stageTo+2*ms
		w.requests = append(w.requests, row)
	}
	w.observe(stageTo+3*ms, recording.ObsReadBack, "steady", 40)
	return w
}

func (w *world) writes() []*recording.Request { return w.of(recording.KindWrite) }
func (w *world) reads() []*recording.Request  { return w.of(recording.KindRead) }

func fail(rows []*recording.Request, why string) {
	for _, r := range rows {
		r.Error = why
	}
}

// refuse makes the service answer writes with a status.
func refuse(rows []*recording.Request, status int32) {
	for _, r := range rows {
		r.Status, r.Error, r.ErrorText, r.Record = status, recording.ErrorStatus, "no such thing", ""
	}
}

func (w *world) drop(gone func(r recording.Request) bool) {
	w.requests = slices.DeleteFunc(w.requests, gone)
}

func TestRecords(t *testing.T) {
	reads := func(r recording.Request) bool { return r.Kind == recording.KindRead }
	for _, tt := range []struct {
		name     string
		promises []string
		spoil    func(w *world)
		want     string
		why      string
		rpo      float64 // of the fault; negative: not known
	}{
		{"nothing is lost", []string{"rpo(pod-kill) < 1s", "lost_writes in steady == 0"}, nil,
			"pass: pass pass (pass)", "2 objectives hold", 0},
		{"the age is that of the oldest at the injection", []string{"rpo(pod-kill) < 2s", "rpo(pod-kill) <= 1s", "lost_writes == 0"}, func(w *world) {
			fail(w.reads()[7:10], recording.ErrorGone) // acknowledged at 13.51, 14.01 and 14.51 s
		}, "fail: pass fail fail (fail)", "rpo(pod-kill) <= 1s: 16 acknowledged records: 3 lost, 0 duplicated, 0 truncated: it is 1.49 s", 1.49},
		{"a lost record within the promise keeps it, and is still lost", []string{"rpo(pod-kill) < 1m", "lost_writes in steady <= 1", "lost_writes in steady == 0"}, func(w *world) {
			fail(w.reads()[9:10], recording.ErrorGone)
		}, "fail: pass pass fail (pass)", "lost_writes in steady == 0: 40 acknowledged records: 1 lost, 0 duplicated, 0 truncated: it is 1", 0.49},
		{"what was lost after the fault is not of it", []string{"rpo(pod-kill) < 1s", "lost_writes in steady == 0"}, func(w *world) {
			fail(w.reads()[30:31], recording.ErrorGone)
		}, "fail: pass fail (pass)", "lost_writes in steady == 0", 0},
		{"what was acknowledged while it lasted is lost, and has no age", []string{"rpo(pod-kill) < 1s", "lost_writes in steady == 0"}, func(w *world) {
			fail(w.reads()[12:13], recording.ErrorGone)
		}, "fail: pass fail (pass)", "lost_writes", 0},
		{"an id that is given out twice is a duplicate", []string{"rpo(pod-kill) < 1s", "lost_writes == 0"}, func(w *world) {
			w.writes()[5].Record = w.writes()[2].Record
		}, "fail: fail fail (fail)", "0 lost, 1 duplicated, 0 truncated: it is 2.49 s", 2.49},
		{"also where the later of the two found the earlier in its place", []string{"lost_writes == 1"}, func(w *world) {
			w.writes()[5].Record = w.writes()[2].Record
			fail(w.reads()[5:6], recording.ErrorGone)
		}, "pass: pass (pass)", "0 lost, 1 duplicated, 0 truncated", 2.49},
		{"a record that was cut short", []string{"rpo(pod-kill) < 1s", "lost_writes == 0"}, func(w *world) {
			fail(w.reads()[0:1], recording.ErrorTruncated)
		}, "fail: fail fail (fail)", "0 lost, 0 duplicated, 1 truncated: it is 4.99 s", 4.99},
		{"no final read is unknown, and not zero", []string{"rpo(pod-kill) < 1m", "lost_writes == 0"}, func(w *world) {
			w.drop(reads)
			w.dropObservations(func(o recording.Observation) bool { return o.Name == recording.ObsReadBack })
		}, "unproven: unproven unproven (pass)", "not all records were read back", -1},
		{"a read that is missing is unknown", []string{"rpo(pod-kill) < 1m", "lost_writes == 0"}, func(w *world) {
			w.drop(func(r recording.Request) bool { return reads(r) && r.Seq == 3 })
		}, "unproven: unproven unproven (pass)", "1 of 16 acknowledged records could not be read", -1},
		{"so is one that was not answered", []string{"rpo(pod-kill) < 1m", "lost_writes == 0"}, func(w *world) {
			fail(w.reads()[30:32], recording.ErrorTimeout)
		}, "unproven: pass unproven (pass)", "2 of 40 acknowledged records could not be read", 0},
		{"what is lost fails, whatever else is unknown", []string{"rpo(pod-kill) < 1s", "lost_writes == 0"}, func(w *world) {
			fail(w.reads()[2:3], recording.ErrorGone)
			fail(w.reads()[3:4], recording.ErrorTimeout)
		}, "fail: fail fail (fail)", "1 lost", -1},
		{"but an age within the promise proves nothing then", []string{"rpo(pod-kill) < 1m"}, func(w *world) {
			fail(w.reads()[2:3], recording.ErrorGone)
			fail(w.reads()[1:2], recording.ErrorTimeout)
		}, "unproven: unproven (pass)", "could not be read", -1},
		{"a write that left no trace could be the one that is lost", []string{"rpo(pod-kill) < 1m", "lost_writes == 0"}, func(w *world) {
			w.drop(func(r recording.Request) bool { return r.Seq == 3 && (reads(r) || r.Kind == recording.KindWrite) })
		}, "unproven: unproven unproven (pass)", "1 of 40 writes are missing from the recording", -1},
		{"a write that was never acknowledged is not lost", []string{"rpo(pod-kill) < 1s", "lost_writes == 0"}, func(w *world) {
			refuse(w.writes()[10:14], 503)
			w.drop(func(r recording.Request) bool { return reads(r) && r.Seq >= 10 && r.Seq < 14 })
		}, "pass: pass pass (pass)", "", 0},
		{"a fault before anything was acknowledged proves nothing", []string{"rpo(pod-kill) < 1m", "lost_writes == 0"}, func(w *world) {
			refuse(w.writes()[:10], 503)
			w.drop(func(r recording.Request) bool { return reads(r) && r.Seq < 10 })
		}, "unproven: unproven pass (pass)", "no record had been acknowledged when the fault took effect", -1},
		{"of a shorter time than the newest record is old nothing is known", []string{"rpo(pod-kill) < 400ms", "rpo(pod-kill) < 500ms"}, nil,
			"unproven: unproven pass (pass)", "the newest record was 490 ms old when the fault took effect", 0},
		{"a service that takes nothing proves nothing", []string{"rpo(pod-kill) < 1m", "lost_writes == 0"}, func(w *world) {
			refuse(w.writes(), 503)
			w.drop(reads)
		}, "unproven: unproven unproven (pass)", "no write was acknowledged", -1},
		{"even where supported: it may have it, and be broken", []string{"error_rate <= 3%", "lost_writes in steady == 0 where supported"}, func(w *world) {
			refuse(w.writes(), 404)
			refuse(w.writes()[3:4], 503)
			w.drop(reads)
		}, "unproven: pass unproven (pass)", "no write was acknowledged", -1},
		{"a service without the API is unproven", []string{"rpo(pod-kill) < 1m", "lost_writes in steady == 0"}, func(w *world) {
			refuse(w.writes(), 404)
			w.drop(reads)
		}, "unproven: unproven unproven (pass)", "the service has no background responses (no such thing)", -1},
		{"and left out where the gate says so", []string{"error_rate <= 3%", "lost_writes in steady == 0 where supported"}, func(w *world) {
			refuse(w.writes(), 404)
			w.drop(reads)
		}, "pass: pass unproven (pass)", "Left out: lost_writes in steady == 0 where supported: the service has no background responses", -1},
		{"but not if nothing is left", []string{"lost_writes in steady == 0 where supported"}, func(w *world) {
			refuse(w.writes(), 404)
			w.drop(reads)
		}, "unproven: unproven (pass)", "No objective of the gate applies to this service", -1},
		{"a service that has it is held to it", []string{"error_rate <= 3%", "lost_writes in steady == 0 where supported"}, func(w *world) {
			refuse(w.writes()[:20], 404)
			w.drop(func(r recording.Request) bool { return reads(r) && r.Seq < 20 })
			fail(w.reads()[3:4], recording.ErrorGone)
		}, "fail: pass fail (pass)", "1 lost", -1},
		{"a gate that writes nothing", []string{"rpo(pod-kill) < 1m", "lost_writes == 0"}, func(w *world) {
			w.drop(func(r recording.Request) bool { return reads(r) || r.Kind == recording.KindWrite })
			w.gate.Scenarios[0].Durability = nil
		}, "unproven: unproven unproven (pass)", "add durability: {} to one", -1},
		{"a fault that was never gone may lose more yet", []string{"rpo(pod-kill) < 1m"}, func(w *world) { w.dropInjections(recording.FaultGone) },
			"fail: unproven (fail)", "was not seen gone", -1},
		{"replicas that nobody tells of", []string{"error_rate <= 3%", "replicas_ready in steady >= 2 where supported"}, func(w *world) {
			w.dropObservations(func(o recording.Observation) bool { return o.Name == recording.ObsReplicasReady })
			w.observations = append(w.observations, recording.Observation{At: stageFrom, Name: recording.ObsReplicasUnreported, Text: words.Verbatim("404 Not Found")})
		}, "pass: pass unproven (pass)", "the service does not report how many of its replicas are ready: 404", 0},
		{"or that nobody asked for", []string{"error_rate <= 3%", "replicas_ready in steady >= 2 where supported"}, nil,
			"unproven: pass unproven (pass)", "the number of ready replicas is unknown", 0},
		{"one replica is too few where it is told", []string{"error_rate <= 3%", "replicas_ready in steady >= 2 where supported"}, func(w *world) {
			w.observe(stageFrom+time.Second, recording.ObsReplicasReady, "", 3)
			w.observe(stageFrom+5*time.Second, recording.ObsReplicasReady, "", 1)
		}, "fail: pass fail (pass)", "it is 1", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := healthy(t, tt.promises...).withFault().withRecords()
			if tt.spoil != nil {
				tt.spoil(w)
			}
			v := w.judge(t)
			if got := outcomes(v); got != tt.want {
				t.Errorf("%s, want %s\n%v", got, tt.want, v.Why)
			}
			if !strings.Contains(fmt.Sprint(v.Why, v.Objectives), tt.why) {
				t.Errorf("no %q in %v", tt.why, v.Why)
			}
			switch rpo := v.Faults[0].RPOSeconds; {
			case (rpo == nil) != (tt.rpo < 0):
				t.Errorf("the fault's RPO is %v", rpo)
			case rpo != nil && fmt.Sprintf("%.2f", *rpo) != fmt.Sprintf("%.2f", tt.rpo):
				t.Errorf("the fault's RPO is %v s, want %v", *rpo, tt.rpo)
			}
		})
	}
}

// Removing evidence about lost records never makes a run pass, with where supported or
// without it.
func TestDroppingRecordsNeverMakesAPass(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped with -short: the race detector takes ten times as long")
	}
	for seed := range uint64(300) {
		draw := rand.New(rand.NewPCG(seed, 0))
		w := healthy(t, "error_rate <= 3%", "rpo(pod-kill) < 100s", "lost_writes == 0", "lost_writes in steady == 0 where supported").withFault().withRecords()
		w.promise(t, "rpo(pod-kill) <= 500ms")
		refuse(w.writes()[30:31], 404)
		w.drop(func(r recording.Request) bool { return r.Kind == recording.KindRead && r.Seq == 30 })
		fail(w.reads()[draw.IntN(9):][:1], recording.ErrorGone)
		if v := w.judge(t); v.Verdict != Fail {
			t.Fatalf("seed %d: %s: %v", seed, v.Verdict, v.Why)
		}
		share := draw.Float64()
		w.drop(func(r recording.Request) bool {
			return (r.Kind == recording.KindRead || r.Kind == recording.KindWrite) && draw.Float64() < share
		})
		w.dropObservations(func(o recording.Observation) bool { return o.Name == recording.ObsReadBack && draw.IntN(3) == 0 })
		if v := w.judge(t); v.Verdict == Pass {
			t.Errorf("seed %d: a run that lost a record passes: %v", seed, v.Why)
		}
	}
}
