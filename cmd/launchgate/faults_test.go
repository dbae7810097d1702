package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/launchgate/launchgate/chaos"
	"github.com/launchgate/launchgate/checklist"
	"github.com/launchgate/launchgate/deploy/targets"
	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/scenarios"
)

// A fault that cannot be played here is reported before the run, not only at
// its end.
func TestUnableFaultsAreReportedBefore(t *testing.T) {
	gate := filepath.Join(t.TempDir(), "gate.yaml")
	text := `name: g
target: {endpoint: {url: "http://127.0.0.1:1"}}
scenarios:
  - name: s
    stages: [{name: m, for: 9s, rate: 1/s}]
    faults:
      - {kind: pod-hang, at: 1s, for: 2s}
objectives: [error_rate <= 5%]
`
	if err := os.WriteFile(gate, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	var out, errOut bytes.Buffer
	if code := launchgate(t.Context(), []string{"run", "--dry-run", gate}, &out, &errOut); code != 0 {
		t.Fatalf("exit code %d: %s", code, errOut.String())
	}
	if !strings.Contains(errOut.String(), "the gate cannot pass: pod-hang: unsupported: launchgate did not deploy this target") {
		t.Errorf("it says %q", errOut.String())
	}
	if !strings.Contains(out.String(), "pod-hang               1s in, on busiest, for 2s") {
		t.Errorf("the plan is\n%s", out.String())
	}
}

func TestListFaultsTellsOfEveryKind(t *testing.T) {
	var out bytes.Buffer
	if code := launchgate(t.Context(), []string{"list", "faults"}, &out, &out); code != 0 {
		t.Fatal(out.String())
	}
	for _, k := range chaos.Kinds {
		for _, text := range []string{k.Name, k.Does, k.Needs, k.Seen, k.Simulates, k.Example} {
			if !strings.Contains(out.String(), text) {
				t.Errorf("list faults does not say of %s: %s", k.Name, text)
			}
		}
	}
}

// recover can be called any number of times if there is nothing to do.
func TestRecoverWithNothingLeft(t *testing.T) {
	t.Setenv("XDG_STATE_HOME", t.TempDir())
	for range 3 {
		var out bytes.Buffer
		if code := launchgate(t.Context(), []string{"recover"}, &out, &out); code != 0 || out.String() != "no fault is left to undo\n" {
			t.Errorf("exit code %d: %s", code, out.String())
		}
	}
}

// The deployment itself rolls back every kind of bad version.
func TestBadReleasesAreRolledBack(t *testing.T) {
	dir, gate := filepath.Join(t.TempDir(), "run"), filepath.Join(t.TempDir(), "gate.yaml")
	text := `name: friday
target: {local: {replicas: 2}}
warmup: {requests: 2}
scenarios:
  - name: bad
    workload: {max_tokens: 8}
    stages: [{name: main, for: 18s, rate: 8/s}]
    faults:
      - {kind: bad-release, release: bad-config, at: 500ms}
      - {kind: bad-release, release: corrupt-model, after: previous, at: 500ms}
      - {kind: bad-release, release: erroring, after: previous, at: 500ms}
      - {kind: bad-release, release: slow, after: previous, at: 500ms}
objectives: [rto(bad-release) < 30s]
`
	if err := os.WriteFile(gate, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	_, out := launch(t, "run", "--out", dir, gate)
	faults := readVerdict(t, dir).Faults
	for i, says := range []string{"in force all the time", "ended before it was ready", "answers were errors", "its answers take"} {
		if f := faults[i]; f.Verdict != checklist.Pass || f.GoneAt == nil || f.RTOSeconds == nil {
			t.Errorf("%+v\n%s", f, out)
		}
		if steps := string(readFile(t, filepath.Join(dir, "injections.jsonl"))); !strings.Contains(steps, says) {
			t.Errorf("no step says %q\n%s", says, steps)
		}
	}
	for line := range strings.Lines(string(readFile(t, filepath.Join(dir, "injections.jsonl")))) {
		if _, how, is := strings.Cut(line, "rolled back on its own in "); is {
			t.Logf("rolled back in %s", how)
		}
	}
	if left := whatIsLeft(t, os.Getpid(), dir, t.TempDir()); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// On a full disk nothing is acknowledged that cannot be stored. The run's
// folder is given as a relative path through a symbolic link, although the
// kernel and the watchdog use its absolute path.
func TestDiskOfTheLedgerIsFull(t *testing.T) {
	if gate := (scenarios.Gate{Target: scenarios.Target{Local: &scenarios.Local{}}, Scenarios: []scenarios.Scenario{{Faults: []scenarios.Fault{{Kind: "disk-full"}}}}}); len(chaos.Unable(gate, targets.PlanFor(gate))) > 0 {
		t.Skipf("skipped: %s", chaos.Unable(gate, targets.PlanFor(gate)))
	}
	real, link := t.TempDir(), filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(real, link); err != nil {
		t.Fatal(err)
	}
	text := `name: full
target: {local: {replicas: 1}}
warmup: {requests: 2}
scenarios:
  - name: full
    workload: {max_tokens: 4}
    stages: [{name: main, for: 7s, rate: 4/s}]
    faults: [{kind: disk-full, at: 1s, for: 2s}]
    probe: {every: 100ms}
    durability: {every: 100ms}
objectives: [rto(disk-full) < 30s, lost_writes == 0]
`
	if err := os.WriteFile(filepath.Join(real, "gate.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := command(t, "run", "--out", "run", "gate.yaml")
	cmd.Dir = link
	out, _ := cmd.CombinedOutput()
	dir := filepath.Join(real, "run")
	v := readVerdict(t, dir)
	if lost := v.Objectives[1]; lost.Verdict != checklist.Pass {
		t.Errorf("%+v\n%s", lost, out)
	}
	if f := v.Faults[0]; f.Verdict != checklist.Pass || f.RTOSeconds == nil || *f.RTOSeconds < 1.5 {
		t.Errorf("%+v\n%s", f, out)
	}
	if _, err := os.Stat(filepath.Join(dir, "logs", "gateway", "audit.log")); err != nil {
		t.Errorf("what was on the disk is not kept: %v", err)
	}
	if left := whatIsLeft(t, os.Getpid(), dir, t.TempDir()); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// Only new connections see an expired certificate. The valid one comes back,
// and the fault leaves nothing.
func TestCertificateExpires(t *testing.T) {
	dir, gate := filepath.Join(t.TempDir(), "run"), filepath.Join(t.TempDir(), "gate.yaml")
	text := `name: midnight
target: {local: {replicas: 1}}
warmup: {requests: 2}
scenarios:
  - name: expired
    workload: {max_tokens: 4}
    stages: [{name: main, for: 7s, rate: 4/s}]
    faults: [{kind: certificate-expiry, at: 1s, for: 2s}]
objectives: [rto(certificate-expiry) < 30s]
`
	if err := os.WriteFile(gate, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	_, out := launch(t, "run", "--out", dir, gate)
	f := readVerdict(t, dir).Faults[0]
	if f.Verdict != checklist.Pass || f.RTOSeconds == nil || *f.RTOSeconds < 2 || *f.RTOSeconds > 10 || f.LostRequests > 0 {
		t.Errorf("%+v\n%s", f, out)
	}
	rec, err := recording.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	refused := 0
	for r, err := range rec.Requests {
		if err != nil {
			t.Fatal(err)
		}
		if r.Error == recording.ErrorConnect && strings.Contains(r.ErrorText, "certificate has expired") {
			refused++
		}
	}
	if refused < 5 {
		t.Errorf("%d probes were refused because of the certificate", refused)
	}
	if left := whatIsLeft(t, os.Getpid(), dir, t.TempDir()); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}
