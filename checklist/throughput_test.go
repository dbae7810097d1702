package checklist

import (
	"math/rand/v2"
	"testing"

	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/scenarios"
)

// The bound of a goodput has to be below the true rate in 99 of 100 runs, and
// nearly as many of a service whose bad requests come five at a time, which to
// count them alone would take for far more witnesses than they are.
func TestTheBoundOfARateHolds(t *testing.T) {
	const runs = 400
	draw := rand.New(rand.NewPCG(1, 2))
	for _, clustered := range []bool{false, true} {
		above, alone := 0, 0 // by what the share alone would say
		for range runs {
			w := healthy(t, "goodput >= 1/s")
			bad := false
			for i, r := range w.loads() {
				if !clustered || i%5 == 0 {
					bad = draw.IntN(10) == 0
				}
				if bad {
					breakOff(r)
				}
			}
			good := int64(0)
			for _, r := range w.loads() {
				if r.OK() {
					good++
				}
			}
			if low, _ := rateBounds(good, 200); low > 0.9 {
				alone++
			}
			if b := w.judge(t).Objectives[0].Bound; b == nil || *b > 9 {
				above++
			}
		}
		most := runs * 2 / 100
		if clustered {
			most = runs * 9 / 100 // of 20 seconds in which it was bad four times
		}
		t.Logf("clustered %v: the bound was above the truth in %d of %d, and that of the share alone in %d", clustered, above, runs, alone)
		if above > most {
			t.Errorf("clustered %v: the bound was above the truth in %d of %d runs, want at most %d", clustered, above, runs, most)
		}
	}
}

func TestAShortRateIsUnproven(t *testing.T) {
	w := healthy(t, "goodput in steady >= 1/s")
	for i := range w.observations {
		if w.observations[i].Name == recording.ObsStageEnded {
			w.observations[i].At = stageFrom + 4_000*ms
		}
	}
	w.gate.Scenarios[0].Stages[0].For = scenarios.Duration(4_000 * ms)
	if f := w.judge(t).Objectives[0]; f.Verdict != Unproven {
		t.Errorf("four seconds of load: %v, %s", f.Verdict, f.Why)
	}
}
