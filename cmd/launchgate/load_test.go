package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/launchgate/launchgate/checklist"
	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/reports"
	"github.com/launchgate/launchgate/scenarios"
)

// single is a server of known capacity: it answers one request at a time and
// takes each for every one.
func single(t *testing.T, each time.Duration) string {
	var mu sync.Mutex
	var free time.Time
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		if r.URL.Path == "/v1/models" {
			fmt.Fprint(w, `{"data":[{"id":"m"}]}`)
			return
		}
		mu.Lock()
		now := time.Now()
		if free.Before(now) {
			free = now
		}
		free = free.Add(each)
		wait := free.Sub(now)
		mu.Unlock()
		select {
		case <-time.After(wait):
		case <-r.Context().Done():
			return
		}
		w.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprint(w, "data: {\"choices\":[{\"delta\":{\"content\":\"a\"},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n")
	}))
	t.Cleanup(srv.Close)
	return srv.URL
}

func writeGate(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "gate.yaml")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// The search finds the capacity of a service whose capacity is known. The
// interval contains it, and the page shows the curve.
func TestCapacity(t *testing.T) {
	const capacity = 200.0
	dir := filepath.Join(t.TempDir(), "capacity")
	gate := writeGate(t, `
name: one-server
seed: 1
target: {endpoint: {url: "`+single(t, time.Second/200)+`"}}
warmup: {requests: 2}
scenarios:
  - name: s
    stages: [{name: m, for: 5s, rate: 1/s, arrivals: constant}]
objectives: [p95(ttft) in s <= 250ms, errors in s == 0]
`)
	code, out := launch(t, "capacity", "--from", "50/s", "--to", "2000/s", "--for", "60s", "--out", dir, gate)
	t.Log(out)
	var r reports.Capacity
	if err := json.Unmarshal(readFile(t, filepath.Join(dir, "capacity.json")), &r); err != nil {
		t.Fatal(err)
	}
	for _, p := range r.Points {
		if p.Outcome == "limited" {
			t.Skipf("the machine was too busy to measure on: %s", p.Why)
		}
	}
	if code != checklist.ExitPass || r.Low < 0.8*capacity || r.Low > 1.02*capacity || r.High < 0.98*capacity || r.High > 1.35*r.Low {
		t.Errorf("exit code %d, between %v and %v, want about %v", code, r.Low, r.High, capacity)
	}
	page := string(readFile(t, filepath.Join(dir, "capacity.html")))
	for _, want := range []string{"How much load can it take?", "<svg", "p95(ttft) in s", "error_rate", r.Points[0].Dir + "/report.html"} {
		if !strings.Contains(page, want) {
			t.Errorf("capacity.html lacks %s", want)
		}
	}
	if code, _ := launch(t, "report", filepath.Join(dir, r.Points[0].Dir)); code != checklist.ExitPass {
		t.Error("a try is not a run that can be reported")
	}
}

// A try leaves out what does not apply to it: keys that only other scenarios
// use, and objectives about these scenarios, about faults, or about records.
func TestReadyGatesCanBeTried(t *testing.T) {
	for _, gate := range scenarios.Gates() {
		for _, s := range gate.Scenarios {
			one, err := capacityFlags{scenario: s.Name, from: 1}.tried().Of(gate)
			if err != nil && !strings.Contains(err.Error(), "so it has no rate") && !strings.Contains(err.Error(), "so every rate would do") {
				t.Errorf("%s of %s: %v", s.Name, gate.Name, err)
			}
			if err != nil {
				continue
			}
			for _, o := range one.Objectives {
				if o.Than != (scenarios.Than{}) || strings.HasPrefix(o.Source, "refused_rate") && strings.Contains(o.Source, ">=") {
					t.Errorf("%s of %s: %s is no limit of a rate", s.Name, gate.Name, o.Source)
				}
			}
		}
	}
}

func TestCapacityCannotRun(t *testing.T) {
	for _, tt := range []struct {
		args []string
		says string
	}{
		{[]string{"--from", "0/s"}, "expected it to begin above 0"},
		{[]string{"--precision", "0.1"}, "expected from 0.5 %"},
		{[]string{"--scenario", "nope"}, "no scenario nope; known: "},
		{[]string{"--profile", "nope"}, "is no profile"},
		{[]string{"--from", "many"}, "expected a rate"},
		{[]string{"--target", "http://127.0.0.1:1"}, "is the service running there?"},
	} {
		code, out := launch(t, append([]string{"capacity", "--out", filepath.Join(t.TempDir(), "c")}, tt.args...)...)
		if code != checklist.ExitCouldNotRun || !strings.Contains(out, tt.says) {
			t.Errorf("%v: exit code %d, %s", tt.args, code, out)
		}
	}
}

// Workers share a load, and there is one verdict on it. If a worker is killed,
// the verdict is Invalid.
func TestWorkers(t *testing.T) {
	gate := writeGate(t, `
name: shared
seed: 1
target: {endpoint: {url: "`+single(t, time.Millisecond)+`"}}
warmup: {requests: 2}
scenarios:
  - name: s
    stages:
      - {name: open, for: 4s, rate: 40/s}
      - {name: users, for: 2s, users: 4}
objectives: [error_rate <= 5%]
`)
	t.Run("all stay", func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "run")
		code, out := launch(t, "run", "--workers", "2", "--out", dir, gate)
		v := readVerdict(t, dir)
		if code == checklist.ExitInvalid && !v.Client.Valid && !strings.Contains(v.Client.Why.String(), "worker") {
			t.Skipf("the machine was too busy to measure on: %s", v.Client.Why)
		}
		if code != checklist.ExitPass {
			t.Fatalf("exit code %d: %s", code, out)
		}
		rec, err := recording.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		seen := map[int64]bool{}
		for r, err := range rec.Requests {
			if err != nil {
				t.Fatal(err)
			}
			if r.Kind == recording.KindLoad {
				if seen[r.Seq] {
					t.Errorf("request %d is there twice", r.Seq)
				}
				seen[r.Seq] = true
			}
		}
		if len(seen) < 150 {
			t.Errorf("%d requests", len(seen))
		}
		nothingRuns(t, dir)
	})
	t.Run("one is killed", func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "run")
		cmd := command(t, "run", "--workers", "2", "--out", dir, gate)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		waitForLine(t, filepath.Join(dir, "observations.jsonl"), recording.ObsStageStarted)
		kids := children(t, cmd.Process.Pid, "worker")
		if len(kids) != 2 {
			t.Fatalf("%d workers run", len(kids))
		}
		if err := syscall.Kill(kids[0], syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait() // the verdict is checked below
		v := readVerdict(t, dir)
		if v.Verdict != checklist.Invalid || !strings.Contains(v.Client.Why.String(), "was lost") {
			t.Errorf("%v: %v", v.Verdict, v.Why)
		}
	})
}

// Workers on a cluster are asked for by name, and where they cannot be is an error before
// anything is started.
func TestWorkersOfACluster(t *testing.T) {
	kubeconfig := filepath.Join(t.TempDir(), "config")
	if err := os.WriteFile(kubeconfig, []byte("apiVersion: v1\nkind: Config\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("KUBECONFIG", kubeconfig)
	url := single(t, time.Millisecond)
	for _, tt := range []struct {
		args []string
		says string
	}{
		{[]string{"run", "--workers", "many"}, "expected a number of workers, or kubernetes:NUMBER"},
		{[]string{"run", "--workers", "65"}, "found 65 workers, expected from 0 to 64"},
		{[]string{"run", "--workers", "kubernetes:0"}, "found 0 workers on a cluster, expected from 1 to 256"},
		{[]string{"run", "--workers", "kubernetes:2", "quick"}, "found --workers kubernetes:N and target.local"},
		{[]string{"run", "--workers", "kubernetes:2", "--target", url, "quick"}, "give --workers-namespace"},
		{[]string{"run", "--workers", "2", "--workers-image", "x", "--target", url, "quick"}, "give --workers kubernetes:N too"},
		{[]string{"run", "--workers", "kubernetes:2", "--workers-namespace", "load", "--target", url, "quick"}, "pods of a cluster do not reach it"},
		{[]string{"capacity", "--workers", "kubernetes:2", "--target", url, "quick"}, "capacity takes workers of this machine only"},
	} {
		code, out := launch(t, append(tt.args, "--out", filepath.Join(t.TempDir(), "run"))...)
		if code != checklist.ExitCouldNotRun || !strings.Contains(out, tt.says) {
			t.Errorf("%v: exit code %d, %s; it should say %q", tt.args, code, out, tt.says)
		}
	}
}

// children returns the child processes of parent that were started with an
// argument.
func children(t *testing.T, parent int, word string) (pids []int) {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		stat, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		var pid, ppid int
		var name, state string
		if _, err := fmt.Sscan(string(stat), &pid, &name, &state, &ppid); err != nil || ppid != parent {
			continue
		}
		line, _ := os.ReadFile(filepath.Join(filepath.Dir(file), "cmdline"))
		if strings.Contains(string(line), "\x00"+word+"\x00") {
			pids = append(pids, pid)
		}
	}
	return pids
}

// A comparison finds a service that is slower than its baseline, both in turns
// and from two recorded runs. A service compared with itself is not slower.
func TestCompareServices(t *testing.T) {
	quick, slow := single(t, 4*time.Millisecond), single(t, 24*time.Millisecond)
	gate := func(url string) string {
		return writeGate(t, `
name: compared
seed: 1
target: {endpoint: {url: "`+url+`"}}
warmup: {requests: 2}
scenarios:
  - name: s
    stages: [{name: m, for: 6s, rate: 30/s, arrivals: constant}]
objectives: [p50(ttft) in s <= 1s, error_rate <= 5%]
`)
	}
	for _, tt := range []struct {
		base, head string
		code       int
	}{{quick, slow, checklist.ExitFail}, {slow, quick, checklist.ExitPass}} {
		dir := filepath.Join(t.TempDir(), "compare")
		code, out := launch(t, "run", "--baseline", tt.base, "--pairs", "8", "--block", "1s", "--out", dir, gate(tt.head))
		if strings.Contains(out, "is left out") {
			t.Skipf("the machine was too busy to measure on: %s", out)
		}
		if code != tt.code {
			t.Errorf("exit code %d, want %d: %s", code, tt.code, out)
		}
		if page := string(readFile(t, filepath.Join(dir, "compare.html"))); !strings.Contains(page, "p50(ttft)") || !strings.Contains(page, "<svg") {
			t.Error("compare.html shows no metric")
		}
	}
	runs := [2]string{filepath.Join(t.TempDir(), "quick"), filepath.Join(t.TempDir(), "slow")}
	for i, url := range []string{quick, slow} {
		if code, out := launch(t, "run", "--out", runs[i], gate(url)); code == checklist.ExitInvalid || code == checklist.ExitCouldNotRun {
			t.Skipf("exit code %d: %s", code, out)
		}
	}
	if code, out := launch(t, "compare", runs[0], runs[1]); code != checklist.ExitFail || !strings.Contains(out, "regression") {
		t.Errorf("exit code %d: %s", code, out)
	}
	if code, out := launch(t, "compare", runs[0], t.TempDir()); code != checklist.ExitCouldNotRun || !strings.Contains(out, "environment.json") {
		t.Errorf("exit code %d: %s", code, out)
	}
}

// A stage that is too short to decide an objective is extended until it can,
// and no longer.
func TestAStageIsExtended(t *testing.T) {
	gate := writeGate(t, `
name: longer
seed: 1
target: {endpoint: {url: "`+single(t, time.Millisecond)+`"}}
warmup: {requests: 2}
scenarios:
  - name: s
    stages: [{name: m, for: 3s, rate: 40/s, extend: 20s}]
objectives: [p95(latency) <= 2s]
`)
	dir := filepath.Join(t.TempDir(), "run")
	code, out := launch(t, "run", "--out", dir, gate)
	v := readVerdict(t, dir)
	if code == checklist.ExitInvalid && !v.Client.Valid {
		t.Skipf("the machine was too busy to measure on: %s", v.Client.Why)
	}
	if code != checklist.ExitPass || !strings.Contains(out, "s is extended") {
		t.Fatalf("exit code %d: %s", code, out)
	}
	// 120 requests in three seconds, and 200 in each step of five; one is enough.
	if n := v.Objectives[0].Samples; n < 270 || n > 380 {
		t.Errorf("%d samples, about 320 are due in eight seconds", n)
	}
	if code, out := launch(t, "run", "--workers", "2", gate); code != checklist.ExitCouldNotRun || !strings.Contains(out, "extend") {
		t.Errorf("with workers: exit code %d, %s", code, out)
	}
}
