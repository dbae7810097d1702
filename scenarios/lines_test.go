package scenarios

import "testing"

func TestLinesOfAGate(t *testing.T) {
	const gate = `name: g
target: {endpoint: {url: "http://127.0.0.1:1"}}
profiles:
  - mlperf-llama-3.1-8b-server in s
scenarios:
  - name: s
    stages: [{name: m, for: 1m, rate: 1/s}]
    faults:
      - kind: pod-kill
        at: 1s
        repeat: 3
      - {kind: pod-hang, at: 2s}
objectives:
  - p95(ttft) in s <= 1s
  # a comment
  - "error_rate <= 1%"
scan: {}
`
	l := LinesOf([]byte(gate))
	for source, want := range map[string]int{
		"p95(ttft) in s <= 1s": 14, "error_rate <= 1%": 16, "p99(ttft) in s <= 2s": 4, "p50(ttft) <= 1s": 0,
	} {
		if got := l.Objective(source); got != want {
			t.Errorf("%s is on line %d, want %d", source, got, want)
		}
	}
	for id, want := range map[string]int{"s/0": 9, "s/2": 9, "s/3": 12, "s/4": 0, "": 0} {
		if got := l.Fault(id); got != want {
			t.Errorf("the fault %s is on line %d, want %d", id, got, want)
		}
	}
	if got := l.Scan(); got != 17 {
		t.Errorf("the scan is on line %d, want 17", got)
	}
	if broken := LinesOf([]byte("a: [")); broken.Objective("x") != 0 {
		t.Error("a file that is no gate has lines")
	}
}
