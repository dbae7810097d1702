package checklist

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/scenarios"
)

// queue is a run against an M/M/c queue: c servers, exponential service times with a
// mean, Poisson arrivals at a rate. The first token comes when a server takes the
// request.
func queue(t testing.TB, seed uint64, servers int, mean, rate float64, lasts time.Duration, promises ...string) Verdict {
	t.Helper()
	w := healthy(t, promises...)
	draw := rand.New(rand.NewPCG(seed, 1))
	to := stageFrom + lasts
	w.gate.Scenarios[0].Stages[0] = scenarios.Stage{Name: "main", For: scenarios.Duration(lasts), Rate: scenarios.Rate(rate), Arrivals: "poisson"}
	w.requests = nil
	free := make([]time.Duration, servers)
	for at := stageFrom; ; {
		if at += time.Duration(draw.ExpFloat64() / rate * 1e9); at >= to {
			break
		}
		i := slices.Index(free, slices.Min(free))
		begin := max(free[i], at+ms)
		free[i] = begin + time.Duration(draw.ExpFloat64()*mean*1e9) + ms
		w.requests = append(w.requests, answered(int64(len(w.requests)), at, begin-at+ms, free[i]-at+2*ms))
	}
	for i := range w.observations {
		o := &w.observations[i]
		if o.Name == recording.ObsStageStarted || o.Name == recording.ObsStageEnded {
			o.Value = float64(len(w.requests))
		}
		if o.Name == recording.ObsStageEnded || o.Name == recording.ObsScenarioEnded || o.Name == recording.ObsRunEnded {
			o.At += to - stageTo
		}
	}
	v, err := Judge(w.gate, w.recording())
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// Above the capacity of a service no latency is proven, and below it a run is rarely
// called unsettled.
func TestAQueueThatGrowsProvesNothing(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped with -short: the race detector takes ten times as long")
	}
	for _, tt := range []struct {
		name    string
		servers int
		mean    float64
		load    float64 // as a share of the capacity
		lasts   time.Duration
		promise string
	}{
		{"A above", 8, 0.25, 1.3, time.Minute, "p50(ttft) <= 1m"},
		{"B above", 16, 0.5, 1.3, time.Minute, "p50(ttft) <= 1m"},
		{"c=64 above", 64, 2, 1.3, time.Minute, "p50(ttft) <= 1m"},
		{"A a sixth above", 8, 0.25, 1.17, 2 * time.Minute, "p50(ttft) <= 1m"},
		{"c=64 in less than an answer needs", 64, 8, 1.4, 15 * time.Second, "p50(ttft) <= 1m"},
		{"A at 95 %", 8, 0.25, 0.95, time.Minute, "p50(ttft) <= 1m"},
		{"A below", 8, 0.25, 0.7, time.Minute, "p50(ttft) <= 1m"},
		{"B below", 16, 0.5, 0.8, time.Minute, "p50(ttft) <= 1m"},
		{"c=64 below", 64, 2, 0.8, time.Minute, "p50(ttft) <= 1m"},
	} {
		const runs = 100
		proven, grew := 0, 0
		for seed := range uint64(runs) {
			f := queue(t, seed, tt.servers, tt.mean, tt.load*float64(tt.servers)/tt.mean, tt.lasts, tt.promise).Objectives[0]
			if f.Verdict == Pass {
				proven++
			}
			if strings.Contains(f.Why.String(), "settle") {
				grew++
			}
		}
		t.Logf("%s: of %d runs %d are proven, %d have not settled", tt.name, runs, proven, grew)
		if tt.load > 1 && proven > 0 {
			t.Errorf("%s: %d of %d runs above what can be served are proven", tt.name, proven, runs)
		}
		if tt.load < 1 && grew > runs/100 {
			t.Errorf("%s: %d of %d stable runs are said to grow", tt.name, grew, runs)
		}
	}
}
