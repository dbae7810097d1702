package checklist

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/scenarios"
)

// spells draw which requests are bad, in a given share of all.
var spells = map[string]func(rng *rand.Rand, share float64, n int) []bool{
	"each by itself": func(rng *rand.Rand, share float64, n int) []bool { return atATime(rng, share, n, 1) },
	"five at a time": func(rng *rand.Rand, share float64, n int) []bool { return atATime(rng, share, n, 5) },
	"for a second":   func(rng *rand.Rand, share float64, n int) []bool { return atATime(rng, share, n, 10) },
	// Bursts of random length, five on average, at random places.
	"of any length": func(rng *rand.Rand, share float64, n int) []bool {
		bad, now := make([]bool, n), rng.Float64() < share
		for i := range bad {
			bad[i] = now
			if now {
				now = rng.Float64() >= 0.2
			} else {
				now = rng.Float64() < 0.2*share/(1-share)
			}
		}
		return bad
	},
}

func atATime(rng *rand.Rand, share float64, n, many int) []bool {
	bad := make([]bool, n)
	for i := range bad {
		if i%many == 0 {
			bad[i] = rng.Float64() < share
		} else {
			bad[i] = bad[i-1]
		}
	}
	return bad
}

// In 99 of 100 runs the bound of a rate must be below the true rate, however bad
// requests are distributed, as long as the run is long enough to see some bursts. The
// bound must also be near enough to prove something. The load is 10/s, so that the
// bound of the goodput gives the share.
func TestTheBoundOfARateHolds(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped with -short: the race detector takes ten times as long")
	}
	const runs = 500
	o, err := scenarios.ParseObjective("goodput >= 1/s")
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		spells  string
		share   float64 // share of bad requests
		seconds int
		missed  int     // most runs in which the bound may be above the true rate
		atLeast float64 // least mean bound, in requests a second
	}{
		{"each by itself", 0.1, 20, 5, 8},
		{"each by itself", 0.02, 60, 5, 9.5},
		{"five at a time", 0.1, 20, 10, 6.5}, // four bursts are expected, and 3 of 200 runs have none
		{"five at a time", 0.1, 60, 5, 7.7},
		{"five at a time", 0.02, 300, 5, 9.5},
		{"for a second", 0.1, 60, 5, 7},
		{"for a second", 0.3, 60, 5, 4.7},
		{"for a second", 0.02, 300, 5, 9.3},
		{"of any length", 0.1, 120, 5, 7.9},
		{"of any length", 0.3, 120, 5, 5.8},
	} {
		rng := rand.New(rand.NewPCG(1, 2))
		missed, alone, sum := 0, 0, 0.0
		for range runs {
			s := &samples{}
			good := int64(0)
			for i, bad := range spells[tt.spells](rng, tt.share, tt.seconds*10) {
				second := s.second(int64(i / 10))
				s.due++
				second.due++
				if !bad {
					second.attained++
					good++
				}
			}
			main := stageID{scenario: "steady", stage: "main"}
			e := &evidence{
				played: map[stageID]span{main: {to: time.Duration(tt.seconds) * time.Second}},
				stages: map[stageID]*samples{main: s}, scopes: map[stageID]*samples{},
			}
			var f Finding
			f.throughput(measureOf(o.Metric).rate, o, e)
			truth := 10 * (1 - tt.share)
			sum += *f.Bound
			if *f.Bound > truth {
				missed++
			}
			if low, _ := rateBounds(good, s.due); 10*low > truth {
				alone++
			}
		}
		mean := sum / runs
		t.Logf("%3.0f %% bad, %-15s %3d s: above the truth in %2d of %d (of the share alone in %3d), on average %.3g of %g/s",
			tt.share*100, tt.spells+",", tt.seconds, missed, runs, alone, mean, 10*(1-tt.share))
		if missed > tt.missed {
			t.Errorf("%s: the bound was above the truth in %d of %d runs, want at most %d", tt.spells, missed, runs, tt.missed)
		}
		if mean < tt.atLeast {
			t.Errorf("%s: the bound is %g on average, and proves nothing; want at least %g", tt.spells, mean, tt.atLeast)
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
