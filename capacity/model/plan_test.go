package model

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/scenarios"
)

// demandOf is a steady load whose p95 of TTFT has to stay within a limit.
func demandOf(rate, limit float64, lost int) Demand {
	good := func(r *recording.Request) bool { v, ok := r.TTFT(); return ok && v.Seconds() <= limit }
	return Demand{Rate: rate, Lost: lost, Growth: 0.08, Good: good,
		Draw: func(rate, seconds float64, seed uint64) []Ask {
			return poisson(rand.New(rand.NewPCG(seed, 31)), 0, seconds, rate, fixed, fixed)
		},
		Holds: func(all []recording.Request) bool {
			late := 0
			for i := range all {
				if !good(&all[i]) {
					late++
				}
			}
			return float64(late) <= 0.05*float64(len(all))
		}}
}

// An M/M/8 queue with services of 0.25 s holds a p95 of 250 ms up to 24.08/s by Erlang's
// formula. What the plan says is checked against the engine itself.
func TestSize(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped with -short: the race detector takes ten times as long")
	}
	m, err := Calibrate(recorded(queue, 1, 1, 30, fixed, fixed, 8, 16, 24, 29), Service{Replicas: 1}, scenarios.Scenario{})
	if err != nil {
		t.Fatal(err)
	}
	d := demandOf(60, 0.25, 1)
	s, err := m.Size(d)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v", s)
	asked := d.spell(d.Rate)
	truth := Model{Engine: queue, Range: m.Range}
	exact, _, _ := truth.views(asked.asks)
	needed := 0
	for n := 1; needed == 0; n++ {
		if ok, _ := truth.holds(exact, d, n, asked); ok {
			needed = n + d.Lost
		}
	}
	if s.Needed.Low > needed || s.Needed.High < needed || s.Needed.High-s.Needed.Low > 1 {
		t.Errorf("found from %d to %d replicas, expected an interval with %d", s.Needed.Low, s.Needed.High, needed)
	}
	if s.Replicas != s.Needed.High || s.Headroom.Low > s.Headroom.Best || s.Months == nil || s.Months.Low > s.Months.High {
		t.Errorf("the parts of the plan disagree: %+v", s)
	}
	best, _, _ := m.views(asked.asks)
	one, _ := m.most(best, d, 1, 20)
	if one < 0.9*24.08 || one > 1.1*24.08 {
		t.Errorf("found a capacity of %.3g/s for one replica, expected 24.08/s within 10 %%", one)
	}
	if _, err := m.Size(demandOf(60, 0.0001, 0)); err == nil {
		t.Error("found a size for a limit that no replica holds, expected an error")
	}
}

// Without a limit that was reached, a plan stays within what the recordings cover.
func TestSizeStaysWithinTheRecordings(t *testing.T) {
	m, err := Calibrate(recorded(queue, 1, 1, 20, fixed, fixed, 2, 4, 6), Service{Replicas: 1}, scenarios.Scenario{})
	if err != nil {
		t.Fatal(err)
	}
	s, err := m.Size(demandOf(30, 0.25, 0))
	if err != nil {
		t.Fatal(err)
	}
	if !s.Bounded || s.Capacity.Best > 2*m.Range.Rate*float64(s.Replicas) {
		t.Errorf("found %+v, expected a plan that is bounded by the recordings up to %.3g/s", s, m.Range.Rate)
	}
	if !slices.Contains([]int{3, 4, 5, 6, 7, 8}, s.Replicas) {
		t.Errorf("found %d replicas, expected about five", s.Replicas)
	}
}
