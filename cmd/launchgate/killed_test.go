package main

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/launchgate/launchgate/scenarios"
)

// faultsOfAllKinds are faults as a gate writes them, one of each kind that can
// be played on this machine.
var faultsOfAllKinds = map[string]string{
	"pod-kill":           "target: replica-0",
	"pod-hang":           "target: replica-0, for: 20s",
	"pod-slow":           "target: replica-0, for: 20s, cores: 0.05",
	"gateway-kill":       "",
	"node-loss":          "target: replica-0, for: 20s",
	"node-drain":         "target: replica-0, for: 20s, notice: 5s",
	"spot-preemption":    "target: replica-0, for: 20s, notice: 5s",
	"network-delay":      "target: replica-0, for: 20s, delay: 100ms",
	"network-loss":       "target: replica-0, for: 20s, loss: 20%",
	"network-bandwidth":  "target: replica-0, for: 20s, bandwidth: 64KiB",
	"node-partition":     "target: replica-0, for: 20s",
	"cpu-stress":         "for: 20s, cores: 0.5",
	"gpu-oom":            "for: 20s, memory: 1MiB",
	"gpu-throttle":       "for: 20s, power: 50%",
	"memory-pressure":    "target: replica-0, for: 20s, memory: 512KiB",
	"kv-exhaustion":      "target: replica-0, for: 20s",
	"disk-full":          "for: 20s",
	"certificate-expiry": "for: 20s",
	"ledger-loss":        "for: 20s",
	"clock-skew":         "target: replica-0, for: 20s, skew: -90s",
	"bad-release":        "release: erroring",
}

// TestHarnessKilledDuringFaults kills the harness with SIGKILL at random times
// during faults of every kind. Ten seconds later nothing may be left. It does
// so a few times, or LAUNCHGATE_KILLS times if that is set.
func TestHarnessKilledDuringFaults(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped with -short: it takes half a minute")
	}
	if _, err := os.Stat("/proc/self/stat"); err != nil {
		t.Skip("skipped: what is left is looked for in /proc, and there is none here")
	}
	for _, kind := range scenarios.FaultKinds {
		if _, known := faultsOfAllKinds[kind]; !known {
			t.Errorf("the kind %s is not among those that are played here", kind)
		}
	}
	kills := (len(scenarios.FaultKinds) + 2) / 3 // every kind once
	if n, err := strconv.Atoi(os.Getenv("LAUNCHGATE_KILLS")); err == nil {
		kills = n
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	dice := rand.New(rand.NewPCG(seed, 0))
	for n := range kills {
		t.Run(strconv.Itoa(n), func(t *testing.T) { killDuringFaults(t, dice, n) })
	}
}

// killDuringFaults plays three kinds at a time, which begin at different times.
// So a few kills cover all kinds.
func killDuringFaults(t *testing.T, dice *rand.Rand, n int) {
	folder, state := t.TempDir(), t.TempDir()
	var faults strings.Builder
	for i := range 3 {
		kind := scenarios.FaultKinds[(3*n+i)%len(scenarios.FaultKinds)]
		at := time.Duration(dice.IntN(1500)) * time.Millisecond
		fmt.Fprintf(&faults, "      - {%s}\n", strings.TrimSuffix(fmt.Sprintf("kind: %s, at: %s, within: 10s, %s", kind, at, faultsOfAllKinds[kind]), ", "))
	}
	gate := filepath.Join(folder, "gate.yaml")
	text := fmt.Sprintf(`name: killed
target:
  local: {replicas: 2, kv_cache: 96MiB}
warmup: {requests: 1}
scenarios:
  - name: s
    workload: {max_tokens: 32}
    stages: [{name: m, for: 30s, rate: 4/s}]
    faults:
%sobjectives: [error_rate <= 90%%]
`, faults.String())
	if err := os.WriteFile(gate, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(folder, "run")
	cmd := command(t, "run", "--out", dir, gate)
	cmd.Env = append(os.Environ(), "XDG_STATE_HOME="+state)
	log, err := os.Create(filepath.Join(folder, "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pid := cmd.Process.Pid
	if code, out := launch(t, "run", "--dry-run", gate); code != 0 {
		t.Fatalf("the gate is wrong: %s", out)
	}
	waitForLine(t, filepath.Join(dir, "injections.jsonl"), "declared")
	time.Sleep(time.Duration(dice.IntN(3500)) * time.Millisecond)
	byHand := n%3 == 2 // the watchdog is killed too, and recover must do its work
	if byHand {
		killWatchdog(t, state)
	}
	if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatalf("the harness was gone before it was killed: %v\n%s", err, readFile(t, log.Name()))
	}
	_ = cmd.Wait()
	killed := time.Now()
	t.Logf("killed with\n%s", lastStates(t, dir))
	if byHand {
		t.Logf("by hand: %s", recoverByHand(t, state))
	}
	var left []string
	for {
		if left = whatIsLeft(t, pid, dir, state); len(left) == 0 {
			t.Logf("nothing is left after %s", time.Since(killed).Round(time.Millisecond))
			break
		}
		if time.Since(killed) > 10*time.Second {
			t.Fatalf("left after ten seconds: %s", strings.Join(left, ", "))
		}
		time.Sleep(20 * time.Millisecond)
	}
	if out := recoverByHand(t, state); out != "no fault is left to undo\n" {
		t.Errorf("recover found something to do: %s", out)
	}
}

func recoverByHand(t *testing.T, state string) string {
	t.Helper()
	for deadline := time.Now().Add(9 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		cmd := command(t, "recover")
		cmd.Env = append(os.Environ(), "XDG_STATE_HOME="+state)
		out, err := cmd.CombinedOutput()
		if err == nil {
			return string(out)
		}
		if time.Now().After(deadline) { // processes that are ending keep a group busy
			t.Fatalf("recover: %v %s", err, out)
		}
	}
}

// killWatchdog kills the watchdog of the run whose journals are in state.
func killWatchdog(t *testing.T, state string) {
	t.Helper()
	for _, p := range processesOf(state) {
		command, _ := os.ReadFile(filepath.Join(p, "cmdline"))
		if pid, err := strconv.Atoi(filepath.Base(p)); err == nil && strings.Contains(string(command), watchdogName) {
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			return
		}
	}
	t.Fatal("the run has no watchdog")
}

// processesOf returns the folders in /proc of a run's processes. Each inherits
// the state folder in its environment from the harness.
func processesOf(state string) (of []string) {
	processes, _ := filepath.Glob("/proc/[0-9]*")
	for _, p := range processes {
		if environ, err := os.ReadFile(filepath.Join(p, "environ")); err == nil && strings.Contains(string(environ), "XDG_STATE_HOME="+state) {
			of = append(of, p)
		}
	}
	return of
}

// lastStates returns the last state of each fault.
func lastStates(t *testing.T, dir string) string {
	var lines []string
	for line := range strings.Lines(string(readFile(t, filepath.Join(dir, "injections.jsonl")))) {
		if !strings.Contains(line, `"declared"`) {
			lines = append(lines, "  "+strings.TrimSpace(line))
		}
	}
	return strings.Join(lines, "\n")
}

// expired reports whether a file has an expired certificate.
func expired(file string) bool {
	text, _ := os.ReadFile(file)
	block, _ := pem.Decode(text)
	if block == nil {
		return false
	}
	c, err := x509.ParseCertificate(block.Bytes)
	return err != nil || time.Now().After(c.NotAfter)
}

// networksLeft returns the network devices of a run's simulated nodes that
// still exist, by the names in its journal. Namespaces have no names; they end
// with their last process.
func networksLeft(dir string) (left []string) {
	journal, _ := os.ReadFile(filepath.Join(dir, "logs", "faults.jsonl"))
	for _, name := range regexp.MustCompile(`lgate-\w+-\d+`).FindAllString(string(journal), -1) {
		if _, err := os.Stat("/sys/class/net/" + name); err == nil {
			left = append(left, "the device "+name)
		}
	}
	return left
}

// whatIsLeft looks for everything that a run may leave: processes, control
// groups and mounts of faults, network devices, and the journal.
func whatIsLeft(t *testing.T, harness int, dir, state string) []string {
	t.Helper()
	var left []string
	for _, p := range processesOf(state) {
		command, _ := os.ReadFile(filepath.Join(p, "cmdline"))
		left = append(left, fmt.Sprintf("%s (%s)", p, strings.ReplaceAll(string(command), "\x00", " ")))
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(mounts), dir) {
		left = append(left, "a mount in "+dir)
	}
	groups := fmt.Sprintf("launchgate-fault-%d-", harness)
	_ = filepath.WalkDir("/sys/fs/cgroup", func(path string, d fs.DirEntry, err error) error {
		if err == nil && strings.HasPrefix(d.Name(), groups) {
			left = append(left, "the control group "+path)
		}
		return nil
	})
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && strings.HasPrefix(d.Name(), "launchgate-fault-") {
			left = append(left, path)
		}
		return nil
	})
	left = append(left, networksLeft(dir)...)
	if tls := filepath.Join(dir, "logs", "gateway", "tls"); expired(filepath.Join(tls, "cert.pem")) {
		left = append(left, "an expired certificate in "+tls)
	}
	journals, _ := filepath.Glob(filepath.Join(state, "launchgate", "faults", "*"))
	return append(left, journals...)
}
