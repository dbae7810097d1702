package main

import (
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/loadgen/trace"
	"github.com/launchgate/launchgate/scenarios"
)

func TestGrowthOf(t *testing.T) {
	for _, tt := range []struct {
		text string
		want float64
		bad  bool
	}{{"8%/month", 0.08, false}, {"100%/year", math.Pow(2, 1./12) - 1, false}, {"0%/month", 0, false}, {"8%", 0, true}, {"8/month", 0, true}, {"-1%/month", 0, true}} {
		got, err := growthOf(tt.text)
		if (err != nil) != tt.bad || math.Abs(got-tt.want) > 1e-12 {
			t.Errorf("%s: found %v, %v; expected %v", tt.text, got, err, tt.want)
		}
	}
}

// An hour with one request a second, and three in ten minutes of it.
func TestBusiestOf(t *testing.T) {
	var all []trace.Request
	for s := range 3600 {
		n := 1
		if s >= 1200 && s < 1800 {
			n = 3
		}
		for range n {
			all = append(all, trace.Request{At: time.Duration(s) * time.Second, Input: 10, Output: 5})
		}
	}
	busiest, rate, mean := busiestOf(all)
	if busiest[0].At != 20*time.Minute || math.Abs(rate-3) > 0.01 || math.Abs(mean-4./9) > 0.01 {
		t.Errorf("found %.3g/s from %s with a mean of %.3g of it, expected 3/s from 20m with 0.444", rate, busiest[0].At, mean)
	}
	asks := replaying(busiest, rate)(6, 100, 1)
	if len(asks) < 590 || len(asks) > 610 || asks[len(asks)-1].Due >= 100 {
		t.Errorf("found %d requests in 100 s, expected about 600", len(asks))
	}
}

// Objectives of which a forecast knows nothing do not count as held.
func TestForecastable(t *testing.T) {
	gate, err := scenarios.Parse("gate.yaml", []byte(`name: planned
target: {endpoint: {url: "http://127.0.0.1:1"}}
scenarios:
  - name: steady
    classes: [{name: a, weight: 1, workload: {max_tokens: 8}}, {name: b, weight: 1, workload: {max_tokens: 9}}]
    stages: [{name: main, for: 60s, rate: 5/s}]
objectives:
  - p95(ttft) <= 500ms
  - p50(tpot) <= 50ms
  - p95(latency) <= 2s
  - error_rate <= 1%
  - p95(max_icl) <= 500ms
  - p99(icl) <= 100ms
  - p95(end_delay) <= 1s
  - p95(ttft) of a <= 500ms
`))
	if err != nil {
		t.Fatal(err)
	}
	judged, not := forecastable(gate)
	var known []string
	for _, s := range judged {
		known = append(known, s.Objective.Source)
	}
	if want := []string{"p95(ttft) <= 500ms", "p50(tpot) <= 50ms", "p95(latency) <= 2s"}; !slices.Equal(known, want) || len(not) != 5 {
		t.Errorf("found %s that a model forecasts, and not %s; expected %s", strings.Join(known, ", "), strings.Join(not, ", "), strings.Join(want, ", "))
	}
}

// An objective that no request counts for does not hold.
func TestNothingCountedDoesNotHold(t *testing.T) {
	one := recording.Request{Streamed: true, Status: 200, Due: 1, Sent: 1, FirstToken: 2, FirstOutput: 2, LastToken: 2, LastVisible: 2, End: 3, PromptTokens: 9, OutputTokens: 1, FirstChunkTokens: 1}
	many := one
	many.OutputTokens, many.LastToken, many.LastVisible, many.End = 11, 2+time.Second, 2+time.Second, 3+time.Second
	gate, err := scenarios.Parse("gate.yaml", []byte(`name: planned
target: {endpoint: {url: "http://127.0.0.1:1"}}
scenarios: [{name: steady, stages: [{name: main, for: 60s, rate: 5/s}]}]
objectives: [p50(tpot) <= 200ms]
`))
	if err != nil {
		t.Fatal(err)
	}
	judged, _ := forecastable(gate)
	if holds := holdsAll(judged); holds([]recording.Request{one, one}) || !holds([]recording.Request{many, one}) {
		t.Errorf("answers of one token hold: %v, and of eleven: %v; expected false and true", holds([]recording.Request{one, one}), holds([]recording.Request{many, one}))
	}
}
