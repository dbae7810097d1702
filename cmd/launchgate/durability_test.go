package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/launchgate/launchgate/checklist"
)

const durabilityGate = `name: durable
target: {local: {replicas: 2, gateway: {%[1]s}}}
scenarios:
  - name: kept
    workload: {max_tokens: 4}
    stages: [{name: main, for: 8s, rate: 2/s}]
    faults: [{kind: %[2]s, at: 4s, within: 40s}]
    durability: {every: 100ms, timeout: 10s, usage: %[3]t}
objectives:
  - rpo(%[2]s) < 10ms
  - rpo(%[2]s) < 1m
  - lost_writes in kept == 0
`

// Without a ledger, acknowledged data is in a replica and lost with it. With
// one, no acknowledged data is lost when a replica or the gateway dies. When
// the ledger's disk is lost, so is the data that the second place does not have
// yet, or all of it without one.
func TestWhatWasAcknowledged(t *testing.T) {
	for _, tt := range []struct {
		name, frontEnd, fault string
		lost                  bool
		most                  float64 // the largest RPO in seconds
	}{
		{"without a ledger it dies with its replica", "plain: true", "pod-kill", true, 60},
		{"with one it outlives a replica", "", "pod-kill", false, 0},
		{"with one it outlives the gateway", "", "gateway-kill", false, 0},
		{"its disk takes all", "unreplicated: true", "ledger-loss", true, 60},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "run")
			gate := filepath.Join(t.TempDir(), "gate.yaml")
			if err := os.WriteFile(gate, fmt.Appendf(nil, durabilityGate, tt.frontEnd, tt.fault, !strings.Contains(tt.frontEnd, "plain")), 0o600); err != nil {
				t.Fatal(err)
			}
			_, out := launch(t, "run", "--out", dir, gate)
			// The client's timing does not matter here, so an invalid client is
			// no problem.
			v := readVerdict(t, dir)
			exact, soon, lost := v.Objectives[0], v.Objectives[1], v.Objectives[2]
			if v.Faults[0].RPOSeconds == nil || lost.Samples < 20 {
				t.Fatalf("%d records, RPO %v\n%s", lost.Samples, v.Faults[0].RPOSeconds, out)
			}
			rpo := *v.Faults[0].RPOSeconds
			if !tt.lost {
				// The newest record is older than 10 ms, so an RPO of 10 ms
				// cannot be decided.
				if rpo != 0 || soon.Verdict != checklist.Pass || lost.Verdict != checklist.Pass || exact.Verdict == checklist.Fail {
					t.Errorf("RPO %v s: %s, %s\n%s", rpo, soon.Why, lost.Why, out)
				}
				return
			}
			if rpo <= 0 || rpo > tt.most || exact.Verdict != checklist.Fail || soon.Verdict != checklist.Pass || lost.Verdict != checklist.Fail || *lost.Value < 1 {
				t.Errorf("RPO %v s: %s, %s, %s\n%s", rpo, exact.Why, soon.Why, lost.Why, out)
			}
		})
	}
}

// With a lost disk only the data is lost that the second place does not have
// yet, also if the whole node is lost.
func TestLostDiskIsRestored(t *testing.T) {
	dir, gate := filepath.Join(t.TempDir(), "run"), filepath.Join(t.TempDir(), "gate.yaml")
	text := strings.Replace(fmt.Sprintf(durabilityGate, "", "node-loss", true), "at: 4s", "target: replica-0, disk: lost, for: 1s, at: 4s", 1)
	if err := os.WriteFile(gate, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	_, out := launch(t, "run", "--out", dir, gate)
	f := readVerdict(t, dir).Faults[0]
	// The ledger is copied every fifth of a second, and less often on a busy
	// machine.
	if f.Verdict == checklist.Invalid || f.RPOSeconds == nil || *f.RPOSeconds > 2 || f.RTOSeconds == nil || *f.RTOSeconds < 1 {
		t.Errorf("%+v\n%s", f, out)
	}
	observed := string(readFile(t, filepath.Join(dir, "observations.jsonl")))
	if !strings.Contains(observed, "the ledger was restored from its second place (restored and verified") {
		t.Errorf("it was not restored\n%s", out)
	}
}
