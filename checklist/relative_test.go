package checklist

import (
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/launchgate/launchgate/scenarios"
)

// two is the evidence of a scenario with the classes a and b, with these times to the
// first token. Each answer has ten tokens, and ten requests of each class are due in a
// second.
func two(a, b []float64) *evidence {
	e := &evidence{
		played: map[stageID]span{{scenario: "s", stage: "main"}: {to: 20 * time.Second}},
		stages: map[stageID]*samples{}, scopes: map[stageID]*samples{}, started: map[string]bool{"s": true}, ended: map[string]bool{"s": true},
		gate: scenarios.Gate{Scenarios: []scenarios.Scenario{{Name: "s", Stages: []scenarios.Stage{{Name: "main"}}}}},
	}
	for class, values := range map[string][]float64{"a": a, "b": b} {
		s := e.stage(stageID{scenario: "s", stage: "main", class: class})
		for i, v := range values {
			s.due++
			s.values[ttft].add(v)
			second := s.second(int64(i * 20 / len(values)))
			second.due++
			second.succeeded++
			second.tokens += 10
		}
	}
	return e
}

func repeated(v float64, n int) []float64 {
	all := make([]float64, n)
	for i := range all {
		all[i] = v * (1 + 0.001*float64(i%7)) // nearly the same, but no two are equal
	}
	return all
}

func TestWhatIsComparedWithOthers(t *testing.T) {
	for _, tt := range []struct {
		objective string
		a, b      []float64
		want      Outcome
		says      string
	}{
		{"p50(ttft) of a <= 60% of that of b", repeated(1, 100), repeated(2, 100), Pass, "50.1 %"},
		{"p50(ttft) of a in s <= 60% of that of b", repeated(1, 100), repeated(1.2, 100), Fail, "must be <= 60 %"},
		{"p50(ttft) of a <= 60% of that of b", repeated(1, 5), repeated(2, 100), Unproven, "the bound of a p50 needs"},
		{"p50(ttft) of a <= 60% of that of b", repeated(1, 100), repeated(2, 5), Unproven, "and there are 5"},
		{"p95(ttft) of a <= 60% of that of b", repeated(5, 40), repeated(2, 300), Fail, "250 %"}, // even at its lower bound
		{"p95(ttft) of a <= 60% of that of b", repeated(1, 100), repeated(2, 100), Unproven, "the bound of a p95 needs"},
		{"p50(ttft) of a <= 60% of that of b", nil, repeated(2, 100), Unproven, "no successful request has a ttft"},
		{"p50(ttft) of b >= 1.5 of that of a", repeated(1, 100), repeated(2, 100), Pass, "above 200 %"},
		{"output_tokens_per_second of a >= 150% of that of b", repeated(1, 400), repeated(1, 100), Pass, "400 %"},
		{"output_tokens_per_second of a >= 500% of that of b", repeated(1, 400), repeated(1, 100), Fail, "must be >= 500 %"},
		{"output_tokens_per_second of a >= 150% of that of b", repeated(1, 400), nil, Unproven, "no request was due"},
	} {
		o, err := scenarios.ParseObjective(tt.objective)
		if err != nil {
			t.Fatal(err)
		}
		if f := two(tt.a, tt.b).judge(o); f.Verdict != tt.want || !strings.Contains(f.Why.String(), tt.says) {
			t.Errorf("%s: %s, because %q; want %s, saying %q", tt.objective, f.Verdict, f.Why, tt.want, tt.says)
		}
	}
}

// If all good answers came in one of twenty seconds, the rate could be 0, and a share
// of 0 means nothing.
func TestARatioToWhatMayBeNothing(t *testing.T) {
	e := two(repeated(1, 20), repeated(1, 20))
	for n, s := range e.stage(stageID{scenario: "s", stage: "main", class: "b"}).seconds {
		if n > 0 {
			s.succeeded, s.tokens = 0, 0
		}
	}
	o, err := scenarios.ParseObjective("output_tokens_per_second of a <= 3000% of that of b")
	if err != nil {
		t.Fatal(err)
	}
	if f := e.judge(o); f.Verdict != Unproven || !strings.Contains(f.Why.String(), "not known to be above 0") {
		t.Errorf("%s, because %q", f.Verdict, f.Why)
	}
}

// In 99 of 100 runs the bound of a ratio must be on the safe side of the true one, and
// it must be near enough to prove something.
func TestTheBoundOfARatioHolds(t *testing.T) {
	const runs = 500
	rng := rand.New(rand.NewPCG(3, 4))
	for _, stat := range []string{"p50", "p90"} {
		o, err := scenarios.ParseObjective(stat + "(ttft) of a <= 1% of that of b")
		if err != nil {
			t.Fatal(err)
		}
		missed, sum := 0, 0.0
		for range runs {
			a, b := make([]float64, 200), make([]float64, 200)
			for i := range a {
				a[i], b[i] = math.Exp(0.5*rng.NormFloat64()), 2*math.Exp(0.5*rng.NormFloat64())
			}
			f := two(a, b).judge(o)
			if *f.Bound < 0.5 { // each percentile of one is half of that of the other
				missed++
			}
			sum += *f.Bound
		}
		t.Logf("%s: below the truth in %d of %d, on average %.3f where 0.5 is true", stat, missed, runs, sum/runs)
		if missed > 5 || sum/runs > 0.9 {
			t.Errorf("%s: the bound was below the truth in %d of %d runs, and is %.3f on average where 0.5 is true", stat, missed, runs, sum/runs)
		}
	}
}

// A side without a good request says nothing about the other: its value is 0, without
// uncertainty, and would be below any share of the other.
func TestARateWithoutASuccessIsComparedWithNothing(t *testing.T) {
	all := func(e *evidence, class string, good bool) {
		for _, second := range e.stage(stageID{scenario: "s", stage: "main", class: class}).seconds {
			second.attained = second.due
			if !good {
				second.succeeded, second.attained, second.tokens = 0, 0, 0
			}
		}
	}
	for _, tt := range []struct {
		objective    string
		goodA, goodB bool
		want         Outcome
		says         string
	}{
		{"goodput of a <= 50% of that of b", false, true, Unproven, "no request met the objectives"},
		{"goodput of a >= 50% of that of b", false, true, Unproven, "no request met the objectives"},
		{"goodput of a <= 50% of that of b", true, false, Unproven, "no request met the objectives"},
		{"goodput of a <= 50% of that of b", false, false, Unproven, "no request met the objectives"},
		{"output_tokens_per_second of a <= 50% of that of b", false, true, Unproven, "no request met the objectives"},
		{"goodput of a >= 50% of that of b", true, true, Pass, "100 %"},
	} {
		o, err := scenarios.ParseObjective(tt.objective)
		if err != nil {
			t.Fatal(err)
		}
		e := two(repeated(1, 400), repeated(1, 400))
		all(e, "a", tt.goodA)
		all(e, "b", tt.goodB)
		if f := e.judge(o); f.Verdict != tt.want || !strings.Contains(f.Why.String(), tt.says) {
			t.Errorf("%s (good: %t, %t): %s, because %q; want %s, saying %q", tt.objective, tt.goodA, tt.goodB, f.Verdict, f.Why, tt.want, tt.says)
		}
	}
}
