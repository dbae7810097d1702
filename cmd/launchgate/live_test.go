package main

import (
	"bufio"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/launchgate/launchgate/checklist"
)

// A run can be watched. Its page grows and reloads itself during the run, and
// shows the verdict at the end.
func TestLive(t *testing.T) {
	gate := writeGate(t, `
name: watched
seed: 1
target: {endpoint: {url: "`+single(t, time.Millisecond)+`"}}
warmup: {requests: 2}
scenarios:
  - name: s
    stages: [{name: open, for: 8s, rate: 20/s}]
objectives: [error_rate <= 5%]
`)
	dir := filepath.Join(t.TempDir(), "run")
	cmd := command(t, "run", "--live", "127.0.0.1:0", "--out", dir, gate)
	said, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, _ := bufio.NewReader(said).ReadString('\n')
	_, url, found := strings.Cut(strings.TrimSpace(line), "watch it on ")
	if !found {
		t.Fatalf("%q tells of no page", line)
	}
	go func() { _, _ = io.Copy(io.Discard, said) }()
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()

	underWay, last := 0, ""
	for last == "" {
		time.Sleep(500 * time.Millisecond)
		resp, err := http.Get(url)
		if err != nil {
			t.Fatalf("the page was gone before the verdict was seen, after %d looks: %v", underWay, err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		again := resp.Header.Get("Refresh") != ""
		if strings.Contains(string(body), "s/open") && strings.Contains(string(body), "Under way: ") && again {
			underWay++
		}
		if !again {
			last = string(body)
		}
	}
	if underWay < 2 {
		t.Errorf("the page was seen filling %d times", underWay)
	}
	select {
	case <-ended:
	case <-time.After(30 * time.Second):
		t.Fatal("the run goes on after the verdict was seen")
	}
	if report := string(readFile(t, filepath.Join(dir, "report.html"))); report != last {
		t.Error("the last page is not the report")
	}
	if v := readVerdict(t, dir); cmd.ProcessState.ExitCode() != v.ExitCode {
		t.Errorf("exit code %d, verdict %v", cmd.ProcessState.ExitCode(), v.Verdict)
	}
	nothingRuns(t, dir)
}

func TestLiveWhereItCannot(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	code, out := launch(t, "run", "--live", "127.0.0.1:99999", "--out", dir, "testdata/short.yaml")
	if code != checklist.ExitCouldNotRun || !strings.Contains(out, "expected a free HOST:PORT") {
		t.Errorf("exit code %d, output %q", code, out)
	}
}
