package scenarios

import (
	"testing"
	"time"
)

const relative = `name: relative
target: {endpoint: {url: http://127.0.0.1:8000}}
scenarios:
  - name: s
    workload: {answer: 2s, in_flight: 8}
    classes: [{name: a}, {name: b, workload: {max_tokens: 16}}, {name: c, workload: {answer: 100ms}}]
    vary: [{name: long, values: [{name: no}, {name: yes, workload: {answer: 4s}}]}]
    stages:
      - {name: from-workload, for: 10s}
      - {name: own, for: 10s, in_flight: 2, arrivals: constant}
      - {name: rate, for: 10s, rate: 5/s}
objectives: [error_rate <= 5%]
`

// What a load says relative to the speed of the service is replaced by numbers, and a
// gate that has been recorded with them is relative no more.
func TestALoadRelativeToTheSpeed(t *testing.T) {
	g, err := Parse("gate.yaml", []byte(relative))
	if err != nil {
		t.Fatal(err)
	}
	s := g.Scenarios[0]
	if !s.Sized() || s.InFlight() != 8 {
		t.Fatalf("sized %v, %d in flight at most; want 8", s.Sized(), s.InFlight())
	}
	for _, tt := range []struct {
		name   string
		speed  Speed
		answer time.Duration
		tokens []string // by class, without and with the factor
		rates  []string
	}{
		// 20 ms and 99 tokens of 20 ms make 2 s; 8 in flight, each for 2 s, are 4 a second.
		{"a laptop", Speed{20 * time.Millisecond, 20 * time.Millisecond}, 2 * time.Second, []string{"100", "200", "16", "200", "5", "200"}, []string{"4/s", "1/s", "5/s"}},
		{"a hundred times faster", Speed{200 * time.Microsecond, 200 * time.Microsecond}, 2 * time.Second, []string{"10000", "20000", "16", "20000", "500", "20000"}, []string{"4/s", "1/s", "5/s"}},
		{"a slow first token leaves one", Speed{3 * time.Second, time.Second}, 3 * time.Second, []string{"1", "2", "16", "2", "1", "2"}, []string{"2.67/s", "0.667/s", "5/s"}},
		{"no time at all", Speed{}, 0, []string{"1000000", "1000000", "16", "1000000", "1000000", "1000000"}, []string{"100000/s", "100000/s", "5/s"}},
	} {
		after := s.WithAnswers(tt.speed).WithRates(tt.answer)
		for i, part := range after.Mix() {
			if got := part.Workload.MaxTokens.String(); got != tt.tokens[i] {
				t.Errorf("%s: %s %s has %s tokens, want %s", tt.name, part.Name, part.Variant, got, tt.tokens[i])
			}
		}
		for i, st := range after.Stages {
			if st.Rate.String() != tt.rates[i] {
				t.Errorf("%s: stage %s has rate %s, want %s", tt.name, st.Name, st.Rate, tt.rates[i])
			}
		}
		if after.Sized() {
			t.Errorf("%s: it is still relative: %+v", tt.name, after)
		}
	}
	after := g
	after.Scenarios = []Scenario{s.WithAnswers(Speed{time.Millisecond, time.Millisecond}).WithRates(time.Second)}
	src, err := Marshal(after)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := Parse("gate.yaml", src); err != nil || again.Scenarios[0].Sized() {
		t.Errorf("the recorded gate: %v\n%s", err, src)
	}
	if g.Scenarios[0].Stages[0].InFlight != 8 || g.Scenarios[0].Vary[0].Values[1].Workload.Answer == 0 {
		t.Error("the gate itself has been changed")
	}
}
