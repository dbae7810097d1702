package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Doctor says of each part whether it is here, and what a missing one costs.
func TestDoctor(t *testing.T) {
	code, out := launch(t, "doctor", "--json")
	var told struct{ Checks []examined }
	if err := json.Unmarshal([]byte(out), &told); err != nil || code != 0 {
		t.Fatalf("exit code %d, %v in %s", code, err, out)
	}
	seen := map[string]bool{}
	for _, e := range told.Checks {
		seen[e.What] = true
		if e.Found == "" || !e.Has && e.Costs == "" {
			t.Errorf("%+v does not say what was found, or what it costs", e)
		}
	}
	for _, want := range []string{"reference-server", "root", "GPU", "prometheus", "cluster", "fault network-delay"} {
		if !seen[want] {
			t.Errorf("doctor does not tell of %s", want)
		}
	}
}

// Every example is a gate whose plan can be printed.
func TestExamplesCanBePlayed(t *testing.T) {
	files, err := filepath.Glob("../../examples/*.yaml")
	if err != nil || len(files) < 10 {
		t.Fatalf("%d examples, %v", len(files), err)
	}
	for _, file := range files {
		cmd := command(t, "run", "--dry-run", file)
		cmd.Env = append(os.Environ(), "OPENAI_API_KEY=none", "AZURE_OPENAI_API_KEY=none")
		out, err := cmd.CombinedOutput()
		if err != nil || strings.Contains(string(out), "cannot be proven") {
			t.Errorf("%s: %v\n%s", file, err, out)
		}
	}
}
