package loadgen

import (
	"maps"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/launchgate/launchgate/loadgen/prompt"
	"github.com/launchgate/launchgate/loadgen/trace"
	"github.com/launchgate/launchgate/scenarios"
)

func scenario(stages ...scenarios.Stage) scenarios.Scenario {
	g := scenarios.Gate{Scenarios: []scenarios.Scenario{{Name: "s", Stages: stages}}}
	return g.Resolved().Scenarios[0]
}

func seconds(s float64) scenarios.Duration { return scenarios.Duration(s * float64(time.Second)) }

// planOf is the plan of a scenario that names no files.
func planOf(s scenarios.Scenario, seed uint64) *Plan {
	m, err := prompt.Gather(scenarios.Gate{Scenarios: []scenarios.Scenario{s}})
	if err != nil {
		panic(err)
	}
	return NewPlan(s, seed, m)
}

func offsets(p *Plan) (at []float64) {
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
		got := offsets(planOf(scenario(tt.stage), 1))
		if !slices.EqualFunc(got, tt.want, func(a, b float64) bool { return math.Abs(a-b) < 1e-6 }) {
			t.Errorf("%s: %v, want %v", tt.says, got, tt.want)
		}
	}
}

// A ramp down is a ramp up in reverse, and both have the mean of their rates.
func TestRamps(t *testing.T) {
	low, high := scenarios.Rate(10), scenarios.Rate(100)
	up := planOf(scenario(scenarios.Stage{Name: "m", For: seconds(10), Rate: low, To: &high, Arrivals: scenarios.ArrivalsEven}), 1)
	down := planOf(scenario(scenarios.Stage{Name: "m", For: seconds(10), Rate: high, To: &low, Arrivals: scenarios.ArrivalsEven}), 1)
	if up.Requests() != 550 || down.Requests() != 550 {
		t.Fatalf("%d and %d requests, want 550", up.Requests(), down.Requests())
	}
	count := func(p *Plan, from, to float64) (n int) {
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

// The arrivals are a Poisson process: the variance of the number in a window is its
// mean, and the gaps are exponentially distributed (Kolmogorov-Smirnov test at the 0.1
// % level).
func TestPoissonArrivals(t *testing.T) {
	p := planOf(scenario(scenarios.Stage{Name: "m", For: seconds(2000), Rate: 10, Arrivals: scenarios.ArrivalsPoisson}), 42)
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

// texts are the questions of a plan, without the salt.
func texts(p *Plan) (all []string) {
	for n := range p.Requests() {
		text := p.Question(n).Prompt.Messages[0].Content
		all = append(all, text[:strings.LastIndex(text, " (")])
	}
	return all
}

// The other shapes, as the number of requests due in each second.
func TestShapes(t *testing.T) {
	rate := func(r scenarios.Rate) *scenarios.Rate { return &r }
	for _, tt := range []struct {
		says  string
		stage scenarios.Stage
		want  []int // in each second
	}{
		{"three steps of two seconds", scenarios.Stage{For: seconds(6), Rate: 10, To: rate(30), Shape: "steps", Steps: 3}, []int{10, 10, 20, 20, 30, 30}},
		{"steps down", scenarios.Stage{For: seconds(2), Rate: 30, To: rate(10), Shape: "steps", Steps: 2}, []int{30, 10}},
		{"a spike of a second in five", scenarios.Stage{For: seconds(5), Rate: 10, To: rate(90), Shape: "spike", Peak: seconds(1)}, []int{10, 10, 90, 10, 10}},
		{"a wave of four seconds", scenarios.Stage{For: seconds(4), Rate: 100, To: rate(300), Shape: "sine", Period: seconds(4)}, []int{136, 264, 264, 136}},
		{"a wave and a half", scenarios.Stage{For: seconds(6), Rate: 100, To: rate(300), Shape: "sine", Period: seconds(4)}, []int{136, 264, 264, 136, 136, 264}},
	} {
		tt.stage.Name, tt.stage.Arrivals = "m", scenarios.ArrivalsEven
		got := make([]int, len(tt.want))
		for _, at := range offsets(planOf(scenario(tt.stage), 1)) {
			got[int(at+1e-6)]++
		}
		if !slices.EqualFunc(got, tt.want, func(a, b int) bool { return a-b <= 1 && b-a <= 1 }) {
			t.Errorf("%s: %v, want %v", tt.says, got, tt.want)
		}
	}
}

// Gamma gaps keep the rate, and their coefficient of variation is 1/√burstiness, by the
// definition of burstiness.
func TestGammaArrivals(t *testing.T) {
	for _, burstiness := range []float64{0.1, 0.5, 1, 4} {
		p := planOf(scenario(scenarios.Stage{Name: "m", For: seconds(4000), Rate: 10, Burstiness: burstiness}), 42)
		at := offsets(p)
		want := 1 / math.Sqrt(burstiness)
		if n := float64(len(at)); math.Abs(n-40000) > 4*want*math.Sqrt(40000) {
			t.Errorf("burstiness %v: %v requests, want about 40000", burstiness, n)
		}
		var mean, square float64
		for i := 1; i < len(at); i++ {
			gap := at[i] - at[i-1]
			mean, square = mean+gap, square+gap*gap
		}
		n := float64(len(at) - 1)
		mean /= n
		if got := math.Sqrt(square/n-mean*mean) / mean; math.Abs(got/want-1) > 0.06 {
			t.Errorf("burstiness %v: the gaps vary by %.3f of their mean, want %.3f", burstiness, got, want)
		}
	}
}

// Classes get their shares, whatever the stage.
func TestClasses(t *testing.T) {
	s := scenario(scenarios.Stage{Name: "m", For: seconds(1000), Rate: 10, Arrivals: scenarios.ArrivalsEven})
	s.Classes = []scenarios.Class{{Name: "gold", Weight: 1}, {Name: "free", Weight: 3, Workload: scenarios.Workload{API: "completions", MaxTokens: scenarios.Fixed(5)}}}
	s = scenarios.Gate{Scenarios: []scenarios.Scenario{s}}.Resolved().Scenarios[0]
	p := planOf(s, 9)
	count := map[string]int{}
	for n := range p.Requests() {
		q := p.Question(n)
		count[q.Class]++
		if (q.Class == "free") != (q.Prompt.API == "completions" && q.Prompt.MaxTokens == 5) {
			t.Fatalf("%+v", q)
		}
	}
	if n := count["gold"]; n < 2300 || n > 2700 || n+count["free"] != 10000 {
		t.Errorf("%v", count)
	}
}

// The shares of several processes together are the plan, with each request once.
func TestShares(t *testing.T) {
	s := scenario(scenarios.Stage{Name: "a", For: seconds(7), Rate: 3, Arrivals: scenarios.ArrivalsEven}, scenarios.Stage{Name: "b", For: seconds(5), Rate: 5, Arrivals: scenarios.ArrivalsEven})
	p := planOf(s, 7)
	for _, of := range []int{1, 2, 3, 50} {
		seen, stages := map[int]int{}, map[string]int{}
		for w := range of {
			share := Share{w, of}
			d := drive{plan: p, share: share}
			for hit := range share.requests(p) {
				seen[d.request(hit)]++
			}
			for _, st := range p.Stages {
				stages[st.Name] += share.within(st)
			}
		}
		if len(seen) != p.Requests() || stages["a"] != 21 || stages["b"] != 25 {
			t.Errorf("%d processes play %d of %d requests, %v by stage", of, len(seen), p.Requests(), stages)
		}
	}
}

func TestPlansRepeatFromTheirSeed(t *testing.T) {
	s := scenario(scenarios.Stage{Name: "a", For: seconds(5), Rate: 20, Arrivals: scenarios.ArrivalsPoisson}, scenarios.Stage{Name: "b", For: seconds(5), Rate: 5, Arrivals: scenarios.ArrivalsPoisson})
	one, same, other := planOf(s, 7), planOf(s, 7), planOf(s, 8)
	if !slices.Equal(offsets(one), offsets(same)) || !slices.Equal(texts(one), texts(same)) {
		t.Error("the same seed gave two plans")
	}
	if slices.Equal(offsets(one), offsets(other)) || slices.Equal(texts(one), texts(other)) {
		t.Error("two seeds gave the same plan")
	}
	if !slices.IsSorted(offsets(one)) || one.Duration() != 10*time.Second || one.Stages[1].Start != 5*time.Second {
		t.Errorf("%+v", one.Stages)
	}
	for n := range one.Requests() {
		if in := one.Due(n) >= 5*time.Second; in != (one.Stage(n).Name == "b") {
			t.Fatalf("request %d, due %s, is of stage %s", n, one.Due(n), one.Stage(n).Name)
		}
	}
	// Another rate in the second stage leaves the first as it was.
	s.Stages[1].Rate = 50
	if changed := planOf(s, 7); !slices.Equal(offsets(changed)[:one.Stages[0].Requests], offsets(one)[:one.Stages[0].Requests]) {
		t.Error("a change of one stage changed another")
	}
}

// A key that was issued for the run takes precedence over the environment. A missing
// key is reported by the name of its variable.
func TestKeysFor(t *testing.T) {
	gate := scenarios.Gate{Scenarios: []scenarios.Scenario{{Name: "s", Classes: []scenarios.Class{
		{Name: "gold", Workload: scenarios.Workload{APIKeyEnv: "LAUNCHGATE_TEST_GOLD"}},
		{Name: "tin", Workload: scenarios.Workload{APIKeyEnv: "LAUNCHGATE_TEST_TIN"}},
	}}}}
	e := scenarios.Endpoint{URL: "http://127.0.0.1:1", APIKeyEnv: "LAUNCHGATE_TEST_OWN"}
	t.Setenv("LAUNCHGATE_TEST_GOLD", "from the environment")
	t.Setenv("LAUNCHGATE_TEST_TIN", "from the environment too")
	keys := KeysFor(gate, e, map[string]string{"LAUNCHGATE_TEST_GOLD": "issued", "LAUNCHGATE_TEST_UNUSED": "not asked for"})
	want := map[string]string{"LAUNCHGATE_TEST_GOLD": "issued", "LAUNCHGATE_TEST_TIN": "from the environment too"}
	if !maps.Equal(keys, want) {
		t.Errorf("found %v, expected %v", keys, want)
	}
	if _, err := Connect(e, "", keys); err == nil || !strings.Contains(err.Error(), "LAUNCHGATE_TEST_OWN") {
		t.Error(err)
	}
}

// A stage that outlasts its trace sends nothing in the rest, and the plan says so.
func TestIdleAfterTrace(t *testing.T) {
	for _, tt := range []struct {
		lasts, ends time.Duration
		idle        bool
	}{{20 * time.Second, 2 * time.Second, true}, {20 * time.Second, 19 * time.Second, false}, {2 * time.Second, 1500 * time.Millisecond, false}} {
		p := &Plan{Stages: []PlannedStage{{Name: "main", Duration: tt.lasts, Requests: 2, replay: make([]trace.Request, 2)}}, due: []time.Duration{0, tt.ends}}
		if got := p.Idle(); (len(got) == 1) != tt.idle {
			t.Errorf("a trace of %s in a stage of %s: %v", tt.ends, tt.lasts, got)
		}
	}
}
