package scenarios

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const givenGate = `name: g
seed: 1
target:
  local:
    replicas: ${REPLICAS:-2}
    ready_timeout: "${WAIT:-30s}"
scenarios:
- name: steady
  description: at $${RATE}
  stages:
  - name: main
    for: 5s
    rate: ${RATE}
objectives:
  - error_rate <= ${ERRORS:-5%}
`

func environmentOf(values map[string]string) func(string) (string, bool) {
	return func(name string) (string, bool) { v, ok := values[name]; return v, ok }
}

// Variables come from --set, then from the environment, then from their default; and
// --set reaches any key by its path, whether the gate has it or not.
func TestVariablesAndSettings(t *testing.T) {
	gate, err := ReadGiven("in", strings.NewReader(givenGate), Given{
		Set:         map[string]string{"RATE": "4/s", "scenarios.steady.stages.main.for": "9s", "scenarios[0].workload.max_tokens": "7", "target.local.gateway.plain": "true", "labels.team": "core"},
		Environment: environmentOf(map[string]string{"RATE": "99/s", "ERRORS": "2%"}),
	})
	if err != nil {
		t.Fatal(err)
	}
	s := gate.Scenarios[0]
	if gate.Target.Local.Replicas != 2 || gate.Target.Local.ReadyTimeout.String() != "30s" || s.Stages[0].Rate != 4 || s.Stages[0].For.String() != "9s" ||
		s.Description != "at ${RATE}" || gate.Objectives[0].Source != "error_rate <= 2%" || !gate.Target.Local.Gateway.Plain || s.Workload.MaxTokens.String() != "7" || gate.Labels["team"] != "core" {
		t.Errorf("read as %+v", gate)
	}
	if _, err := Parse("in", []byte(strings.Replace(givenGate, "${RATE}\n", "4/s\n", 1))); err == nil || !strings.Contains(err.Error(), "${REPLICAS:-2}") {
		t.Errorf("a gate of a run folder has variables replaced: %v", err)
	}
}

// What cannot be completed is told with its place, and a key is never taken.
func TestVariablesThatAreRefused(t *testing.T) {
	for _, row := range []struct {
		name, from, to string
		set            map[string]string
		want           string
	}{
		{"not set", "", "", nil, "in:13:11: scenarios[0].stages[0].rate: found ${RATE}, which is not set"},
		{"a key's name", "name: g", "name: ${OPENAI_API_KEY}", map[string]string{"RATE": "1/s"}, "in:1:7: name: found ${OPENAI_API_KEY}, which by its name holds a key"},
		{"a key on the command line", "", "", map[string]string{"RATE": "1/s", "API_KEY": "sk"}, "--set API_KEY: found a value for a key"},
		{"the variable of a key", "  local:\n    replicas: ${REPLICAS:-2}\n    ready_timeout: \"${WAIT:-30s}\"\n", "  endpoint:\n    url: http://127.0.0.1:1\n    api_key_env: ${WHICH}\n", map[string]string{"RATE": "1/s"}, "in:6:18: target.endpoint.api_key_env: found a variable in place of the name of one"},
		{"a misspelled setting", "", "", map[string]string{"RATE": "1/s", "RATTE": "2/s"}, "--set RATTE: in has neither ${RATTE} nor a key of this path; did you mean RATE?"},
		{"a wrong value", "", "", map[string]string{"RATE": "1/s", "scenarios.steady.stages.main.for": "9"}, `scenarios[0].stages[0].for: found "9" without a unit`},
		{"a value of a variable", "", "", map[string]string{"RATE": "1"}, "in:13:11: scenarios[0].stages[0].rate"},
	} {
		_, err := ReadGiven("in", strings.NewReader(strings.Replace(givenGate, row.from, row.to, 1)), Given{Set: row.set})
		if err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: %v, want %s", row.name, err, row.want)
		}
	}
}

// An included file gives what the gate does not say, and its problems stand in it.
func TestIncludes(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	write("shared/target.yaml", "target:\n  endpoint:\n    url: http://127.0.0.1:1\n    ca_file: ca.pem\nobjectives: [error_rate <= 5%]\nseed: 3\n")
	own := write("gate.yaml", "include: shared/target.yaml\nname: g\ntarget: {endpoint: {model: m}}\nscenarios: [{name: s, stages: [{name: m, for: 5s, rate: 2/s}]}]\nobjectives: [p95(ttft) <= 1s]\n")
	gate, err := LoadGiven(own, Given{})
	if err != nil {
		t.Fatal(err)
	}
	e := gate.Target.Endpoint
	if e.URL != "http://127.0.0.1:1" || e.Model != "m" || e.CAFile != filepath.Join(dir, "shared", "ca.pem") || gate.Seed != 3 || len(gate.Objectives) != 2 || gate.Include != nil {
		t.Errorf("read as %+v with %+v", gate, e)
	}
	bad := write("shared/bad.yaml", "seed: 1\nobjectives:\n  - p95(ttft) <= 5\n")
	for _, row := range []struct{ include, want string }{
		{"shared/bad.yaml", bad + ":3:"},
		{"[shared/none.yaml]", own + ":1:11: include[0]: found an include that cannot be read"},
		{"gate.yaml", "which includes this file"},
	} {
		write("gate.yaml", "include: "+row.include+"\nname: g\ntarget: {endpoint: {url: 'http://127.0.0.1:1'}}\nscenarios: [{name: s, stages: [{name: m, for: 5s, rate: 2/s}]}]\n")
		if _, err := LoadGiven(own, Given{}); err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: %v, want %s", row.include, err, row.want)
		}
	}
}

// A matrix has each combination once, and --set narrows it.
func TestMatrix(t *testing.T) {
	const matrix = "matrix:\n  MODEL: [a, b]\n  RATE: [1/s, 2/s, 4/s]\n"
	src := matrix + strings.Replace(givenGate, "name: g", "name: g-${MODEL}", 1)
	gate, err := ReadGiven("in", strings.NewReader(src), Given{})
	if err != nil {
		t.Fatal(err)
	}
	if all := gate.Combinations(); len(all) != 6 || all[0]["MODEL"] != "a" || all[0]["RATE"] != "1/s" || all[5]["MODEL"] != "b" || all[5]["RATE"] != "4/s" {
		t.Errorf("combinations %v", all)
	}
	gate, err = ReadGiven("in", strings.NewReader(src), Given{Set: map[string]string{"MODEL": "b", "RATE": "2/s"}})
	if err != nil || len(gate.Combinations()) != 0 || gate.Name != "g-b" || gate.Scenarios[0].Stages[0].Rate != 2 {
		t.Errorf("narrowed to %+v, %v", gate, err)
	}
	if _, err := ReadGiven("in", strings.NewReader("matrix: {OTHER: [1]}\n"+givenGate), Given{Set: map[string]string{"RATE": "1/s"}}); err == nil || !strings.Contains(err.Error(), "in:1:17: matrix.OTHER: found an axis that nothing in the gate uses") {
		t.Errorf("an unused axis: %v", err)
	}
}
