package scenarios

import "testing"

// The allowance of a run's key is computed from the peak, which must include
// every request of the gate.
func TestPeak(t *testing.T) {
	const head = "name: g\ntarget: {local: {}}\nobjectives: [error_rate <= 5%]\nscenarios:\n"
	for _, tt := range []struct {
		scenarios string
		perSecond float64
		underWay  int
	}{
		{"  - {name: a, stages: [{name: m, for: 1s, rate: 4/s}, {name: n, for: 1s, rate: 90/m}]}\n", 4, 120},
		{"  - {name: a, stages: [{name: m, for: 1s, rate: 2/s, to: 20/s}], workload: {timeout: 5s}}\n", 20, 100},
		{"  - {name: a, stages: [{name: m, for: 1s, rate: 4/s}], probe: {every: 100ms}, canary: {every: 500ms}}\n", 16, 480},
		{"  - {name: a, stages: [{name: m, for: 1s, rate: 4/s}], durability: {every: 200ms}}\n", 9, 270},
		{"  - {name: a, stages: [{name: m, for: 1s, rate: 4/s}]}\n  - {name: b, stages: [{name: m, for: 1s, rate: 6/s}]}\n", 6, 180},
		{"  - {name: a, stages: [{name: m, for: 1s, users: 7}], workload: {timeout: 1s}}\n", maxRate, maxRate + 7},
	} {
		g, err := Parse("g.yaml", []byte(head+tt.scenarios))
		if err != nil {
			t.Fatal(err)
		}
		if perSecond, underWay := g.Peak(); perSecond != tt.perSecond || underWay != tt.underWay {
			t.Errorf("%s: %v/s and %d under way, want %v and %d", tt.scenarios, perSecond, underWay, tt.perSecond, tt.underWay)
		}
	}
}
