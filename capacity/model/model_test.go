package model

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"github.com/launchgate/launchgate/scenarios"
)

// poisson draws arrivals at a rate, with lengths between bounds.
func poisson(rng *rand.Rand, from, seconds, rate float64, prompt, output [2]int) (all []Ask) {
	length := func(of [2]int) int { return of[0] + rng.IntN(of[1]-of[0]+1) }
	for at := from + rng.ExpFloat64()/rate; at < from+seconds; at += rng.ExpFloat64() / rate {
		all = append(all, Ask{Due: at, Prompt: length(prompt), Output: length(output)})
	}
	return all
}

// recorded is what an engine shows at some rates, one stage after the other.
func recorded(e Engine, replicas int, seed uint64, seconds float64, prompt, output [2]int, rates ...float64) (stages []Recorded) {
	rng := rand.New(rand.NewPCG(seed, 5))
	var all []Ask
	for i, rate := range rates {
		all = append(all, poisson(rng, float64(i)*seconds, seconds, rate, prompt, output)...)
	}
	requests := rows(all, e.Serve(all, replicas, rng))
	for i, rate := range rates {
		st := Recorded{Run: "run", Stage: fmt.Sprintf("load/%v", rate), Seconds: seconds, start: float64(i) * seconds}
		for _, r := range requests {
			if at := r.Due.Seconds(); at >= st.start && at < st.start+seconds {
				st.Requests = append(st.Requests, r)
			}
		}
		stages = append(stages, st)
	}
	return stages
}

func exponential() (spread []float64) {
	sum := 0.0
	for i := range 400 {
		v := -math.Log(1 - (float64(i)+0.5)/400)
		spread = append(spread, v)
		sum += v / 400
	}
	for i := range spread {
		spread[i] /= sum
	}
	return spread
}

var (
	fixed  = [2]int{6, 6}
	queue  = Engine{Kind: Slots, Limit: 8, Overhead: 0.002, PerToken: 0.25 / 6, Visible: 5. / 6, Spread: exponential()}
	engine = Engine{Kind: Batch, Limit: 16, Overhead: 0.004, PerPrompt: 0.0002, Step: 0.006, PerSequence: 0.0015, PerContext: 1e-6, Budget: 256}
	short  = [2]int{32, 256}
	longer = [2]int{16, 64}
)

func loadOf(seconds float64, prompt, output [2]int, rates ...float64) Load {
	l := Load{Draw: func(seed uint64) (all []Ask) {
		rng := rand.New(rand.NewPCG(seed, 99))
		for i, rate := range rates {
			all = append(all, poisson(rng, float64(i)*seconds, seconds, rate, prompt, output)...)
		}
		return all
	}}
	for i, rate := range rates {
		l.Stages = append(l.Stages, Span{Name: fmt.Sprint(rate), From: float64(i) * seconds, Seconds: seconds})
	}
	return l
}

// The bands of a model that was calibrated at some rates hold what the service shows at
// others, and the model knows which kind of engine it is.
func TestForecastsHold(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped with -short: the race detector takes ten times as long")
	}
	for _, tt := range []struct {
		name           string
		engine         Engine
		prompt, output [2]int
		calibrated     []float64
		asked          []float64
	}{
		{"M/M/8", queue, fixed, fixed, []float64{8, 16, 26, 29}, []float64{12, 20, 24}},
		{"continuous batching", engine, short, longer, []float64{2, 5, 9, 14}, []float64{3, 7}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m, err := Calibrate(recorded(tt.engine, 1, 1, 30, tt.prompt, tt.output, tt.calibrated...), Service{Replicas: 1}, scenarios.Scenario{})
			if err != nil {
				t.Fatal(err)
			}
			if m.Engine.Kind != tt.engine.Kind || m.Engine.Limit != tt.engine.Limit {
				t.Errorf("found an engine of kind %s with %d at once, expected %s with %d", m.Engine.Kind, m.Engine.Limit, tt.engine.Kind, tt.engine.Limit)
			}
			t.Logf("%+v miss %.3g; %+v; errors %v", short3(m.Engine), m.Other.ChosenFor, m.Other, m.Errors)
			forecasts, err := m.Forecast(loadOf(30, tt.prompt, tt.output, tt.asked...), 1)
			if err != nil {
				t.Fatal(err)
			}
			held, of := 0, 0
			for seed := range uint64(3) {
				for i, st := range recorded(tt.engine, 1, 100+seed, 30, tt.prompt, tt.output, tt.asked...) {
					if forecasts[i].Refused != "" {
						t.Fatalf("%s: %s", st.Stage, forecasts[i].Refused)
					}
					for name, v := range measure(st.Requests, st.start, st.Seconds, nil) {
						b := forecasts[i].Measures[name]
						of++
						if v >= b.Low && v <= b.High {
							held++
						}
						if seed == 0 {
							t.Logf("%s %s: measured %.4g, forecast %.4g (%.4g to %.4g)", st.Stage, name, v, b.Best, b.Low, b.High)
						}
					}
				}
			}
			if float64(held) < 0.9*float64(of) {
				t.Errorf("%d of %d measures lie in their bands, expected nine in ten", held, of)
			}
		})
	}
}

// What the recordings do not cover is refused, with the reason.
func TestBeyondWhatWasCalibrated(t *testing.T) {
	m, err := Calibrate(recorded(engine, 1, 1, 20, short, longer, 2, 3, 4), Service{Replicas: 1}, scenarios.Scenario{})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name           string
		prompt, output [2]int
		rate           float64
		replicas       int
		want           string
	}{
		{"within", short, longer, 3, 1, ""},
		{"many replicas", short, longer, 12, 4, ""},
		{"too fast", short, longer, 12, 1, "at once"},
		{"long prompts", [2]int{1000, 2000}, longer, 3, 1, "prompts have from"},
		{"long answers", short, [2]int{200, 300}, 3, 1, "answers have from"},
	} {
		f, err := m.Forecast(loadOf(20, tt.prompt, tt.output, tt.rate), tt.replicas)
		if err != nil {
			t.Fatal(err)
		}
		if why := f[0].Refused; (why == "") != (tt.want == "") || !strings.Contains(why, tt.want) {
			t.Errorf("%s: found %q, expected %q", tt.name, why, tt.want)
		}
	}
}

func TestTooFewStages(t *testing.T) {
	if _, err := Calibrate(recorded(engine, 1, 1, 20, short, longer, 2, 4), Service{Replicas: 1}, scenarios.Scenario{}); err == nil {
		t.Error("found no error, expected two stages to be too few")
	}
}

// A model survives its file, and what is no model is refused.
func TestModelFile(t *testing.T) {
	m, err := Calibrate(recorded(queue, 1, 1, 20, fixed, fixed, 8, 16, 29), Service{Replicas: 1}, scenarios.Scenario{Name: "load"})
	if err != nil {
		t.Fatal(err)
	}
	src, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	again, err := Parse("m.json", bytes.NewReader(src))
	if err != nil {
		t.Fatal(err)
	}
	if again.Engine.Limit != m.Engine.Limit || !reflect.DeepEqual(again.HeldOut, m.HeldOut) {
		t.Error("the file holds another model")
	}
	for _, tt := range []struct{ name, from, to, want string }{
		{"another format", `"format":1`, `"format":9`, "found format 9"},
		{"another kind", `"kind":"slots"`, `"kind":"magic"`, `kind "magic"`},
		{"a cost below zero", `"overhead_s":`, `"overhead_s":-`, "found a cost of"},
		{"no JSON", `{"format"`, `"format"`, "expected a model"},
	} {
		if _, err := Parse("m.json", strings.NewReader(strings.Replace(string(src), tt.from, tt.to, 1))); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: found %v, expected an error with %q", tt.name, err, tt.want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"format":1,"service":{"replicas":1},"engine":{"kind":"batch"}}`))
	f.Fuzz(func(t *testing.T, src []byte) {
		if m, err := Parse("m.json", bytes.NewReader(src)); err == nil && m.check() != nil {
			t.Error("a model that was read is not one")
		}
	})
}

// A request alone takes what the costs say, and with a limit the others wait.
func TestServe(t *testing.T) {
	e := Engine{Kind: Batch, Limit: 1, Overhead: 0.5, PerPrompt: 0.01, Step: 0.1, PerSequence: 0.05, Budget: 1000}
	got := e.Serve([]Ask{{Due: 1, Prompt: 10, Output: 3}, {Due: 1, Prompt: 10, Output: 1}}, 1, nil)
	// A step for the prompt (0.1 + 10 × 0.01) and two for tokens (0.15 each).
	for i, want := range []Answer{{First: 1.7, Last: 2, End: 2}, {First: 2.2, Last: 2.2, End: 2.2}} {
		if g := got[i]; math.Abs(g.First-want.First)+math.Abs(g.Last-want.Last)+math.Abs(g.End-want.End) > 1e-9 {
			t.Errorf("request %d: found %+v, expected %+v", i, g, want)
		}
	}
	if got := e.Serve([]Ask{{Due: 1, Prompt: 10, Output: 3}, {Due: 1, Prompt: 10, Output: 1}}, 2, nil); math.Abs(got[1].First-1.7) > 1e-9 {
		t.Errorf("found the first token at %v, expected two replicas to serve both at once", got[1].First)
	}
}

// The limit is found where requests stay at a number with others waiting.
func TestSeenLimit(t *testing.T) {
	for _, tt := range []struct {
		rates []float64
		want  int
	}{{[]float64{8, 16, 29}, 8}, {[]float64{2, 4, 6}, 0}} {
		if got, _ := seenLimit(grouped(recorded(queue, 1, 3, 60, fixed, fixed, tt.rates...)), 1); got != tt.want {
			t.Errorf("rates %v: found a limit of %d, expected %d", tt.rates, got, tt.want)
		}
	}
}

func short3(e Engine) Engine { e.Spread = nil; return e }
