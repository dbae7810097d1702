package checklist

import (
	"slices"
	"testing"
	"time"

	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/scenarios"
)

// A scenario under way is judged by its requests so far. An objective that has failed,
// or does not depend on the number of samples, needs no more.
func TestUnsettled(t *testing.T) {
	w := healthy(t, "p95(ttft) <= 1s", "p99(ttft) <= 1s", "p99.9(ttft) <= 1s", "p99(latency) <= 100ms", "error_rate <= 5%", "p95(tpot) in steady/main <= 1s")
	w.gate.Scenarios[0].Stages[0].Extend = scenarios.Duration(10 * time.Minute)
	rec := w.recording()
	rec.Observations = slices.DeleteFunc(rec.Observations, func(o recording.Observation) bool {
		return slices.Contains([]string{recording.ObsStageEnded, recording.ObsScenarioEnded, recording.ObsRunEnded}, o.Name)
	})
	got, err := Unsettled(w.gate, rec, "steady")
	if err != nil {
		t.Fatal(err)
	}
	// 200 samples decide a p95, but no p99.
	if want := []string{"p99(ttft) <= 1s", "p99.9(ttft) <= 1s"}; !slices.Equal(got, want) {
		t.Errorf("%q are unsettled, want %q", got, want)
	}
}

// More of this scenario settles a comparison with a scenario that was played before,
// but not one with a later scenario.
func TestUnsettledComparisons(t *testing.T) {
	for compared, wants := range map[string]bool{
		"p99(ttft) in steady <= 150% of that in before": true,
		"p99(ttft) in before <= 150% of that in steady": true,
		"p50(ttft) in steady <= 150% of that in before": false, // already decided
		"p99(ttft) in steady <= 150% of that in later":  false,
		"p99(ttft) in later <= 150% of that in steady":  false,
		"p99(ttft) in before <= 150% of that in later":  false,
	} {
		w := healthy(t, compared)
		main := w.gate.Scenarios[0]
		before, later := main, main
		before.Name, later.Name = "before", "later"
		w.gate.Scenarios = []scenarios.Scenario{before, main, later}
		for _, r := range slices.Clone(w.requests) {
			r.Scenario = "before"
			w.requests = append(w.requests, r)
		}
		w.observe(stageFrom-ms, recording.ObsScenarioStarted, "before", 0)
		w.observe(stageFrom, recording.ObsStageStarted, "before/main", 200)
		w.observe(stageTo, recording.ObsStageEnded, "before/main", 200)
		w.observe(stageTo+ms, recording.ObsScenarioEnded, "before", 0)
		got, err := Unsettled(w.gate, w.recording(), "steady")
		if err != nil {
			t.Fatal(err)
		}
		if (len(got) > 0) != wants {
			t.Errorf("%s: %q are unsettled", compared, got)
		}
	}
}

// Five looks give chance five opportunities, so a stage that may be extended needs more
// to pass.
func TestLookingOftenTakesMore(t *testing.T) {
	if n, m := SamplesFor(0.95), samplesFor(sureAfter(confidence, looks), 0.95); n != 130 || m <= n || m > 200 {
		t.Errorf("a p95 takes %d samples, and %d where it is looked five times", n, m)
	}
	judge := func(extend time.Duration) Outcome {
		w := healthy(t, "p95(ttft) <= 105ms")
		w.requests = w.requests[:140]
		for i := range w.observations {
			if o := &w.observations[i]; o.Subject == "steady/main" {
				o.Value = 140
			}
		}
		w.gate.Scenarios[0].Stages[0].Extend = scenarios.Duration(extend)
		v, err := Judge(w.gate, w.recording())
		if err != nil {
			t.Fatal(err)
		}
		return v.Objectives[0].Verdict
	}
	if fixed, extended := judge(0), judge(time.Minute); fixed != Pass || extended != Unproven {
		t.Errorf("140 samples are %s, and %s where the stage could have been ended earlier", fixed, extended)
	}
}
