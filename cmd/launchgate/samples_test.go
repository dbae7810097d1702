package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/launchgate/launchgate/loadgen/prompt"
	"github.com/launchgate/launchgate/scenarios"
)

// An objective that its load can never prove is reported before the run, not
// only at its end.
func TestTooFewSamplesAreReportedBefore(t *testing.T) {
	for _, tt := range []struct {
		name, stages, objective string
		want                    string // the warning; empty: nothing
	}{
		{"a p99 of 210", "{name: m, for: 21s, rate: 10/s}", "p99(ttft) in s <= 1s", "p99(ttft) in s <= 1s needs 662 samples, and the stages send about 210 requests: lengthen the stages, raise the rate, or let the last stage extend, or use p95 as the objective"},
		{"a p95 of 210", "{name: m, for: 21s, rate: 10/s}", "p95(ttft) in s <= 1s", ""},
		{"a p95 of 100", "{name: m, for: 10s, rate: 10/s}", "p95(ttft) <= 1s", "needs 130 samples, and the stages send about 100 requests: lengthen the stages, raise the rate, or let the last stage extend, or use p90 as the objective"},
		{"too little for anything", "{name: m, for: 3s, rate: 1/s}", "p50(ttft) <= 1s", "the stages send about 3 requests: lengthen the stages, raise the rate, or let the last stage extend\n"},
		{"one stage of two", "{name: m, for: 70s, rate: 10/s}, {name: n, for: 6s, rate: 10/s}", "p90(ttft) in s/n <= 1s", "needs 64 samples, and the stages send about 60"},
		{"both stages", "{name: m, for: 70s, rate: 10/s}, {name: n, for: 6s, rate: 10/s}", "p99(ttft) in s <= 1s", ""},
		{"a stage that may be extended far enough", "{name: m, for: 21s, extend: 2m, rate: 10/s}", "p99(ttft) in s <= 1s", ""},
		{"a stage that may be extended too little", "{name: m, for: 21s, extend: 9s, rate: 10/s}", "p99(ttft) in s <= 1s", "the stages send about 300"},
		{"a part of the load", "{name: m, for: 80s, rate: 10/s}", "p99(ttft) of few in s <= 1s", "the stages send about 200"},
		{"the other part", "{name: m, for: 90s, rate: 10/s}", "p99(ttft) of many in s <= 1s", ""},
		{"nobody knows how often users ask", "{name: m, for: 9s, users: 2}", "p99(ttft) in s <= 1s", ""},
		{"answers have more gaps than one", "{name: m, for: 9s, rate: 10/s}", "p99(icl) in s <= 1s", ""},
		{"a share of fifty", "{name: m, for: 5s, rate: 10/s}", "error_rate in s <= 1%", "error_rate in s <= 1% needs 459 samples, and the stages send about 50 requests: lengthen the stages, raise the rate, or let the last stage extend, or use <= 9 % as the objective"},
		{"a share of 460", "{name: m, for: 46s, rate: 10/s}", "error_rate in s <= 1%", ""},
		{"a share that few prove", "{name: m, for: 10s, rate: 10/s}", "refused_rate in s >= 20%", ""},
		{"a share from below", "{name: m, for: 10s, rate: 10/s}", "attainment in s >= 99%", "or use >= 95 % as the objective"},
		{"a share of tokens", "{name: m, for: 5s, rate: 10/s}", "cache_hit_rate in s >= 99%", ""},
		{"a p50 of few, compared", "{name: m, for: 4s, rate: 10/s}", "p50(ttft) of many in s <= 50% of that of few", "needs 12 samples, and the stages send about 10"},
		{"enough of both", "{name: m, for: 5s, rate: 10/s}", "p50(ttft) of many in s <= 50% of that of few", ""},
		{"no percentile", "{name: m, for: 9s, rate: 10/s}", "max(ttft) in s <= 1s", ""},
	} {
		gate := filepath.Join(t.TempDir(), "gate.yaml")
		text := `name: g
target: {endpoint: {url: "http://127.0.0.1:1"}}
scenarios:
  - name: s
    classes: [{name: few, weight: 1}, {name: many, weight: 3}]
    stages: [` + strings.ReplaceAll(tt.stages, "rate: ", "arrivals: constant, rate: ") + `]
objectives: ["` + tt.objective + `"]
`
		if err := os.WriteFile(gate, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		var out, errOut bytes.Buffer
		if code := launchgate(t.Context(), []string{"run", "--dry-run", gate}, &out, &errOut); code != 0 {
			t.Fatalf("%s: exit code %d: %s", tt.name, code, errOut.String())
		}
		if warning := errOut.String(); tt.want == "" && warning != "" || !strings.Contains(warning, tt.want) {
			t.Errorf("%s: it says %q, want %q", tt.name, warning, tt.want)
		}
	}
}

// The plan says which models are served, and how each class sends requests.
func TestPlanTellsHowClassesAsk(t *testing.T) {
	gate := filepath.Join(t.TempDir(), "gate.yaml")
	if err := os.WriteFile(gate, []byte(`name: g
target: {local: {models: {fast: {}, exact: {quantization: fp16}}}}
scenarios:
  - name: s
    workload: {model: exact}
    classes:
      - {name: same}
      - {name: other, workload: {model: fast, api_key_env: OTHER_KEY, connection: {from: 127.0.0.2, http: "1.1", new: true}}}
    stages: [{name: m, for: 9s, rate: 10/s}]
objectives: [error_rate in s <= 5%]
`), 0o644); err != nil {
		t.Fatal(err)
	}
	var out, errOut bytes.Buffer
	if code := launchgate(t.Context(), []string{"run", "--dry-run", gate}, &out, &errOut); code != 0 {
		t.Fatalf("exit code %d: %s", code, errOut.String())
	}
	for _, want := range []string{
		"serving exact (fp16), fast (int8)\n",
		"  class same           weight 1\n",
		"  class other          weight 1  model: fast, api_key_env: OTHER_KEY, connection: {from: 127.0.0.2, http: 1.1, new: true}\n",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in\n%s", want, out.String())
		}
	}
}

// The ready gates have enough load for all their objectives.
func TestReadyGatesHaveEnoughSamples(t *testing.T) {
	for _, gate := range scenarios.Gates() {
		material, err := prompt.Gather(gate)
		if err != nil {
			t.Fatal(err)
		}
		for _, why := range tooFew(gate, plansOf(gate, material)) {
			t.Errorf("%s: %s", gate.Name, why)
		}
	}
}
