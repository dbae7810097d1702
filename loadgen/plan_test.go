package loadgen

import (
	"math"
	"slices"
	"testing"
	"time"

	"github.com/launchgate/launchgate/scenarios"
)

func scenario(stages ...scenarios.Stage) scenarios.Scenario {
	g := scenarios.Gate{Scenarios: []scenarios.Scenario{{Name: "s", Stages: stages}}}
	return g.Resolved().Scenarios[0]
}

func seconds(s float64) scenarios.Duration { return scenarios.Duration(s * float64(time.Second)) }

func offsets(p Plan) (at []float64) {
	for n := range p.Requests() {
		at = append(at, p.Due(n).Seconds())
	}
	return at
}

func TestConstantArrivals(t *testing.T) {
	to := scenarios.Rate(4)
	for _, tt := range []struct {
		says  string
		stage scenarios.Stage
		want  []float64
	}{
		{"two a second for two seconds", scenarios.Stage{For: seconds(2), Rate: 2}, []float64{0, 0.5, 1, 1.5}},
		{"one in ten seconds, for five", scenarios.Stage{For: seconds(5), Rate: 0.1}, []float64{0}},
		{"from none to four a second in two seconds: the n-th at √n", scenarios.Stage{For: seconds(2), Rate: 0, To: &to}, []float64{0, 1, math.Sqrt2, math.Sqrt(3)}},
	} {
		tt.stage.Name, tt.stage.Arrivals = "m", scenarios.ArrivalsEven
		got := offsets(NewPlan(scenario(tt.stage), 1))
		if !slices.EqualFunc(got, tt.want, func(a, b float64) bool { return math.Abs(a-b) < 1e-6 }) {
			t.Errorf("%s: %v, want %v", tt.says, got, tt.want)
		}
	}
}

// A ramp down is a ramp up read backwards, and both carry the mean of their
// rates.
func TestRamps(t *testing.T) {
	low, high := scenarios.Rate(10), scenarios.Rate(100)
	up := NewPlan(scenario(scenarios.Stage{Name: "m", For: seconds(10), Rate: low, To: &high, Arrivals: scenarios.ArrivalsEven}), 1)
	down := NewPlan(scenario(scenarios.Stage{Name: "m", For: seconds(10), Rate: high, To: &low, Arrivals: scenarios.ArrivalsEven}), 1)
	if up.Requests() != 550 || down.Requests() != 550 {
		t.Fatalf("%d and %d requests, want 550", up.Requests(), down.Requests())
	}
	count := func(p Plan, from, to float64) (n int) {
		for _, at := range offsets(p) {
			if at >= from && at < to {
				n++
			}
		}
		return n
	}
	if a, b := count(up, 0, 5), count(down, 5, 10); a < b-2 || a > b+2 || a > 200 {
		t.Errorf("the slow halves have %d and %d requests", a, b)
	}
}

// Poisson arrivals are what they are called: the number in a window varies as
// its mean, and gaps have the distribution of an exponential (Kolmogorov and
// Smirnov's distance, at the 0.1 % level).
func TestPoissonArrivals(t *testing.T) {
	p := NewPlan(scenario(scenarios.Stage{Name: "m", For: seconds(2000), Rate: 10, Arrivals: scenarios.ArrivalsPoisson}), 42)
	at := offsets(p)
	if n := float64(len(at)); math.Abs(n-20000) > 4*math.Sqrt(20000) {
		t.Errorf("%v requests, want about 20000", n)
	}
	var gaps []float64
	for i := 1; i < len(at); i++ {
		gaps = append(gaps, at[i]-at[i-1])
	}
	slices.Sort(gaps)
	var distance float64
	for i, g := range gaps {
		distance = max(distance, math.Abs(float64(i)/float64(len(gaps))-(1-math.Exp(-10*g))))
	}
	if limit := 1.95 / math.Sqrt(float64(len(gaps))); distance > limit {
		t.Errorf("the gaps lie %.4f from an exponential, allowed %.4f", distance, limit)
	}
	windows := make([]float64, 2000)
	for _, a := range at {
		windows[int(a)]++
	}
	var mean, variance float64
	for _, w := range windows {
		mean += w / 2000
	}
	for _, w := range windows {
		variance += (w - mean) * (w - mean) / 2000
	}
	if ratio := variance / mean; ratio < 0.85 || ratio > 1.15 {
		t.Errorf("the counts of a second vary %.2f times as much as a Poisson process's", ratio)
	}
}

func TestPlansRepeatFromTheirSeed(t *testing.T) {
	s := scenario(scenarios.Stage{Name: "a", For: seconds(5), Rate: 20, Arrivals: scenarios.ArrivalsPoisson}, scenarios.Stage{Name: "b", For: seconds(5), Rate: 5, Arrivals: scenarios.ArrivalsPoisson})
	one, same, other := NewPlan(s, 7), NewPlan(s, 7), NewPlan(s, 8)
	if !slices.Equal(offsets(one), offsets(same)) || !slices.Equal(one.prompt, same.prompt) {
		t.Error("the same seed gave two plans")
	}
	if slices.Equal(offsets(one), offsets(other)) {
		t.Error("two seeds gave the same plan")
	}
	if !slices.IsSorted(offsets(one)) || one.Duration() != 10*time.Second || one.Stages[1].Start != 5*time.Second {
		t.Errorf("%+v", one.Stages)
	}
	for n := range one.Requests() {
		if in := one.Due(n) >= 5*time.Second; in != (one.stage[n] == 1) {
			t.Fatalf("request %d, due %s, is of stage %d", n, one.Due(n), one.stage[n])
		}
	}
	// Another rate in the second stage leaves the first as it was.
	s.Stages[1].Rate = 50
	if changed := NewPlan(s, 7); !slices.Equal(offsets(changed)[:one.Stages[0].Requests], offsets(one)[:one.Stages[0].Requests]) {
		t.Error("a change of one stage changed another")
	}
}
