package main

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/launchgate/launchgate/checklist"
	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/scenarios"
)

// bin is a folder with both programs, built once for all tests.
var bin = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "launchgate-bin-")
	if err != nil {
		return "", err
	}
	out, err := exec.Command("go", "build", "-o", dir+string(filepath.Separator), "../launchgate", "../reference-server").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return dir, nil
})

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "serve" { // see release_test.go
		serveVersion(os.Args[2:])
		return
	}
	code := m.Run()
	if dir, err := bin(); err == nil {
		os.RemoveAll(dir)
	}
	os.Exit(code)
}

// command is the built launchgate with arguments.
func command(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	dir, err := bin()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	t.Cleanup(cancel)
	return exec.CommandContext(ctx, filepath.Join(dir, "launchgate"), args...)
}

// launch runs launchgate and returns its exit code and everything it printed.
func launch(t *testing.T, args ...string) (int, string) {
	t.Helper()
	cmd := command(t, args...)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("launchgate %v: %v", args, err)
	}
	return cmd.ProcessState.ExitCode(), string(out)
}

// TestGate plays a whole gate against the bundled service with the built
// programs, and checks the run folder.
func TestGate(t *testing.T) {
	dir, code := playGate(t)
	if code != checklist.ExitPass {
		t.Fatalf("exit code %d, want %d", code, checklist.ExitPass)
	}
	for _, name := range []string{"gate.yaml", "environment.json", "injections.jsonl", "observations.jsonl", "verdict.json", "report.html", "junit.xml", "summary.md",
		"logs/gateway.log", "logs/replica-0.log", "logs/replica-1.log"} {
		if st, err := os.Stat(filepath.Join(dir, name)); err != nil || st.Size() == 0 {
			t.Errorf("the run folder lacks %s (%v)", name, err)
		}
	}
	v := readVerdict(t, dir)
	if v.Verdict != checklist.Pass || v.ExitCode != code {
		t.Errorf("verdict.json says %v (%d), the exit code %d", v.Verdict, v.ExitCode, code)
	}
	if !v.Client.Valid {
		t.Errorf("the client was not valid: %s", v.Client.Why)
	}
	checkRequests(t, dir)
	checkKill(t, v)
	checkGinkgoAgrees(t, dir, v)
	checkJudgeRepeats(t, dir)
	nothingRuns(t, dir)

	t.Run("a second run into the same folder is refused", func(t *testing.T) {
		before := readFile(t, filepath.Join(dir, "verdict.json"))
		code, out := launch(t, "run", "--out", dir, "testdata/short.yaml")
		if code != checklist.ExitCouldNotRun || !strings.Contains(out, dir) {
			t.Errorf("exit code %d, output %q", code, out)
		}
		if !bytes.Equal(before, readFile(t, filepath.Join(dir, "verdict.json"))) {
			t.Error("the first run's verdict was touched")
		}
	})
}

// playGate plays the short gate. If launchgate reports that the machine is too
// busy to measure, it plays the gate again, and skips the test after the last
// try.
func playGate(t *testing.T) (dir string, code int) {
	t.Helper()
	for attempt := range 3 {
		dir = filepath.Join(t.TempDir(), fmt.Sprintf("run%d", attempt))
		code, out := launch(t, "run", "--out", dir, "testdata/short.yaml")
		t.Log(out)
		if code != checklist.ExitInvalid || readVerdict(t, dir).Client.Valid {
			return dir, code
		}
	}
	t.Skipf("skipped: this machine is too busy to measure on: %s", readVerdict(t, dir).Client.Why)
	return dir, code
}

// checkRequests asserts that real tokens were streamed: many chunks, spread
// over time, counted by the server.
func checkRequests(t *testing.T, dir string) {
	t.Helper()
	rec, err := recording.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if !rec.Complete || len(rec.Warnings) > 0 {
		t.Errorf("complete %v, warnings %v", rec.Complete, rec.Warnings)
	}
	counts := map[string]int{}
	replicas := map[string]int{}
	for r, err := range rec.Requests {
		if err != nil {
			t.Fatal(err)
		}
		counts[r.Kind]++
		if r.Kind != recording.KindLoad || !r.OK() {
			continue
		}
		replicas[r.Replica]++
		if r.TokensFrom != "usage" || r.OutputTokens < 1 || len(r.Chunks) < 1 || r.FirstToken < r.Sent || r.LastToken < r.FirstToken || r.End < r.LastToken {
			t.Errorf("request %s/%d makes no sense: %+v", r.Scenario, r.Seq, r)
		}
	}
	if counts[recording.KindLoad] < 60 || counts[recording.KindProbe] < 50 || counts[recording.KindWarmup] == 0 {
		t.Errorf("requests by kind: %v", counts)
	}
	if replicas["replica-0"] == 0 || replicas["replica-1"] == 0 {
		t.Errorf("answers by replica: %v, want both", replicas)
	}
}

func checkKill(t *testing.T, v checklist.Verdict) {
	t.Helper()
	if len(v.Faults) != 1 {
		t.Fatalf("%d faults, want 1", len(v.Faults))
	}
	f := v.Faults[0]
	if f.InjectedAt == nil || f.InEffectAt == nil || f.GoneAt == nil || f.RTOSeconds == nil {
		t.Fatalf("the kill was not lived to its end: %+v", f)
	}
	if *f.InEffectAt < *f.InjectedAt || *f.GoneAt < *f.InEffectAt {
		t.Errorf("injected %v, in effect %v, gone %v", *f.InjectedAt, *f.InEffectAt, *f.GoneAt)
	}
}

// checkGinkgoAgrees compares Ginkgo's result of every spec with the verdict.
func checkGinkgoAgrees(t *testing.T, dir string, v checklist.Verdict) {
	t.Helper()
	var junit struct {
		Cases []struct {
			Name    string    `xml:"name,attr"`
			Failure *struct{} `xml:"failure"`
		} `xml:"testsuite>testcase"`
	}
	if err := xml.Unmarshal(readFile(t, filepath.Join(dir, "logs", "ginkgo.xml")), &junit); err != nil {
		t.Fatal(err)
	}
	for _, o := range v.Objectives {
		found := false
		for _, c := range junit.Cases {
			if strings.HasSuffix(c.Name, o.Source) {
				found = true
				if passed := c.Failure == nil; passed != (o.Verdict == checklist.Pass) {
					t.Errorf("%s: Ginkgo says passed %v, the verdict %v", o.Source, passed, o.Verdict)
				}
			}
		}
		if !found {
			t.Errorf("Ginkgo has no spec for %s", o.Source)
		}
	}
}

// checkJudgeRepeats asserts that judging the folder offline changes nothing.
func checkJudgeRepeats(t *testing.T, dir string) {
	t.Helper()
	names := []string{"verdict.json", "report.html", "junit.xml", "summary.md"}
	before := map[string][]byte{}
	for _, n := range names {
		before[n] = readFile(t, filepath.Join(dir, n))
	}
	if code, out := launch(t, "judge", dir); code != checklist.ExitPass {
		t.Errorf("judge: exit code %d\n%s", code, out)
	}
	for _, n := range names {
		if !bytes.Equal(before[n], readFile(t, filepath.Join(dir, n))) {
			t.Errorf("%s changed when the folder was judged again", n)
		}
	}
}

// nothingRuns asserts that no process of a run is left. Their standard output
// is a log file of the folder.
func nothingRuns(t *testing.T, dir string) {
	t.Helper()
	for _, w := range writersOf(dir) {
		t.Error("still running: " + w)
	}
}

// writersOf returns the processes whose output goes to a file below dir.
func writersOf(dir string) (all []string) {
	procs, _ := filepath.Glob("/proc/[0-9]*/fd/1")
	for _, p := range procs {
		if to, err := os.Readlink(p); err == nil && strings.HasPrefix(to, dir) {
			all = append(all, p+" writes "+to)
		}
	}
	return all
}

func TestInterrupt(t *testing.T) {
	tests := []struct {
		name    string
		until   string // the observation to wait for
		signals []os.Signal
	}{
		{"while the service starts", recording.ObsProcessStarted, []os.Signal{os.Interrupt}},
		{"under load", recording.ObsStageStarted, []os.Signal{os.Interrupt}},
		// The kernel may merge two signals of one kind.
		{"signalled twice at once, as timeout(1) does", recording.ObsStageStarted, []os.Signal{os.Interrupt, syscall.SIGTERM}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "run")
			cmd := command(t, "run", "--out", dir, "testdata/short.yaml")
			var out bytes.Buffer
			cmd.Stdout, cmd.Stderr = &out, &out
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			waitForLine(t, filepath.Join(dir, "observations.jsonl"), tt.until)
			for _, s := range tt.signals {
				if err := cmd.Process.Signal(s); err != nil {
					t.Fatal(err)
				}
			}
			asked := time.Now()
			_ = cmd.Wait()
			if took := time.Since(asked); took > 15*time.Second {
				t.Errorf("stopping took %s", took)
			}
			if code := cmd.ProcessState.ExitCode(); code != checklist.ExitInterrupted {
				t.Errorf("exit code %d, want %d\n%s", code, checklist.ExitInterrupted, out.String())
			}
			if v := readVerdict(t, dir); !v.Incomplete || v.Verdict == checklist.Pass || v.ExitCode != checklist.ExitInterrupted {
				t.Errorf("verdict %v (%d), incomplete %v", v.Verdict, v.ExitCode, v.Incomplete)
			}
			if html := readFile(t, filepath.Join(dir, "report.html")); !bytes.Contains(bytes.ToLower(html), []byte("incomplete")) {
				t.Error("the report does not say that it is incomplete")
			}
			nothingRuns(t, dir)
		})
	}
}

// When the harness is killed, its service ends too, and its recording can still
// be reported.
func TestKilledHarnessLeavesNothing(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	cmd := command(t, "run", "--out", dir, "testdata/short.yaml")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	waitForLine(t, filepath.Join(dir, "observations.jsonl"), recording.ObsStageStarted)
	time.Sleep(time.Second)
	if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	time.Sleep(200 * time.Millisecond) // the kernel kills the children a little later
	nothingRuns(t, dir)
	if code, out := launch(t, "report", dir); code != 0 {
		t.Fatalf("report: exit code %d\n%s", code, out)
	}
	if v := readVerdict(t, dir); !v.Incomplete || v.Verdict == checklist.Pass {
		t.Errorf("verdict %v, incomplete %v", v.Verdict, v.Incomplete)
	}
}

func waitForLine(t *testing.T, file, text string) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if b, err := os.ReadFile(file); err == nil && bytes.Contains(b, []byte(text)) {
			return
		}
	}
	t.Fatalf("%s never held %q", file, text)
}

// TestCouldNotRun makes the mistakes of a user. Each gives exit code 4 and an
// error that says what was found, and leaves no process.
func TestCouldNotRun(t *testing.T) {
	gate := func(text string) string {
		path := filepath.Join(t.TempDir(), "gate.yaml")
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	local := func(with string) string {
		return gate("name: g\ntarget:\n  local: {replicas: 1, ready_timeout: 10s" + with + "}\nscenarios:\n  - name: s\n    stages: [{name: m, for: 1s, rate: 1/s}]\nobjectives: [error_rate <= 5%]\n")
	}
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	cut := filepath.Join(t.TempDir(), "cut.gguf")
	if err := os.WriteFile(cut, defaultModel(t)[:100_000], 0o644); err != nil {
		t.Fatal(err)
	}
	notModel := filepath.Join(t.TempDir(), "not.gguf")
	if err := os.WriteFile(notModel, []byte("this is not a model"), 0o644); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name string
		args []string
		says string
	}{
		{"a gate that is not YAML", []string{gate("name: [unclosed")}, "gate.yaml:1"},
		{"an unknown key", []string{gate("name: g\nreplica: 3\n")}, "gate.yaml:2"},
		{"a gate that is not there", []string{"nowhere.yaml"}, "nowhere.yaml"},
		{"a ready gate that is not one", []string{"quik"}, "one of "},
		{"pairs of nothing", []string{"--pairs", "8", "testdata/short.yaml"}, "--baseline"},
		{"a port that is taken", []string{local(fmt.Sprintf(", port: %d", taken.Addr().(*net.TCPAddr).Port))}, "is taken"},
		{"a model that is cut short", []string{local(", model: " + cut)}, "cut.gguf"},
		{"a model that is not one", []string{local(", model: " + notModel)}, "not.gguf"},
		{"a model that is not there", []string{local(", model: nowhere.gguf")}, "nowhere.gguf"},
		{"an --out that is a file", []string{"--out", file, "testdata/short.yaml"}, file},
		{"an --out below a file", []string{"--out", filepath.Join(file, "run"), "testdata/short.yaml"}, file},
		{"a flag that is not one", []string{"--targte", "x"}, "--targte"},
		{"a key for nobody", []string{"--api-key-env", "KEY", "testdata/short.yaml"}, "--target"},
		{"a focus that matches nothing", []string{"--focus", "nothing-like-it", "testdata/short.yaml"}, "nothing-like-it"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			args := append([]string{"run"}, tt.args...)
			dir := filepath.Join(t.TempDir(), "run")
			if tt.args[0] != "--out" {
				args = append(args, "--out", dir)
			}
			code, out := launch(t, args...)
			if code != checklist.ExitCouldNotRun || !strings.Contains(out, tt.says) {
				t.Errorf("exit code %d, want %d; output, which should name %q:\n%s", code, checklist.ExitCouldNotRun, tt.says, out)
			}
			t.Log(out)
			nothingRuns(t, dir)
		})
	}
}

// TestTargets points launchgate at existing services that do not work. Each is
// an error in one sentence, before any load.
func TestTargets(t *testing.T) {
	refuses, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	refuses.Close()
	stream := func(lines ...string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, "/models") {
				fmt.Fprint(w, `{"object":"list","data":[{"id":"m","object":"model"}]}`)
				return
			}
			w.Header().Set("Content-Type", "text/event-stream")
			for _, l := range lines {
				fmt.Fprintf(w, "data: %s\n\n", l)
			}
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}
	}
	tests := []struct {
		name    string
		handler http.HandlerFunc // nil: nobody listens
		says    string
	}{
		{"refuses", nil, "refused"},
		{"answers HTML", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			fmt.Fprint(w, "<html><body>It works!</body></html>")
		}, "HTML"},
		{"answers 401", func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, `{"error":{"message":"no key"}}`, http.StatusUnauthorized)
		}, "401"},
		{"closes in the middle of the stream", stream(`{"choices":[{"delta":{"content":"Hel"}}]}`), "ended early"},
		{"hangs", func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body) // otherwise the server does not notice that the client is gone
			<-r.Context().Done()
		}, "no answer within"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			url := "http://" + refuses.Addr().String()
			if tt.handler != nil {
				srv := httptest.NewServer(tt.handler)
				defer srv.Close()
				url = srv.URL
			}
			code, out := launch(t, "run", "--target", url, "--model", "m", "--out", filepath.Join(t.TempDir(), "run"), "testdata/short.yaml")
			if code != checklist.ExitCouldNotRun || !strings.Contains(out, tt.says) {
				t.Errorf("exit code %d, want %d; output, which should say %q:\n%s", code, checklist.ExitCouldNotRun, tt.says, out)
			}
			t.Log(out)
		})
	}
}

func TestDryRunDoesNothing(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	code, out := launch(t, "run", "--dry-run", "--out", dir, "testdata/short.yaml")
	if code != 0 || !strings.Contains(out, "pod-kill") || !strings.Contains(out, "rto(pod-kill) < 30s") {
		t.Errorf("exit code %d:\n%s", code, out)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a dry run made %s", dir)
	}
}

// The plan says what is deployed, what the run's keys may do, and whether the
// deployment is monitored.
func TestThePlanTellsOfTheDeployment(t *testing.T) {
	whole := "over TLS, with keys, limits and a ledger: 127.0.0.1 and the run's own keys may send 2 requests/s (burst 120) and have "
	for _, tt := range []struct {
		name, local string
		says        []string
	}{
		{"plain, and nobody watches", "{gateway: {plain: true}, monitoring: {disabled: true}}", []string{"plain: only load balancing, without TLS\n", "not monitored: target.local has its monitoring disabled\n"}},
		{"no prometheus", "{}", []string{whole, "not monitored: there is no prometheus on the PATH of this machine, so no alert can fire\n"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			gate := filepath.Join(t.TempDir(), "gate.yaml")
			text := "name: g\ntarget: {local: " + tt.local + "}\nscenarios: [{name: s, stages: [{name: m, for: 5s, rate: 1/s}]}]\nobjectives: [error_rate <= 5%]\n"
			if err := os.WriteFile(gate, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			t.Setenv("PATH", t.TempDir()) // without any program
			var out bytes.Buffer
			if code := launchgate(t.Context(), []string{"run", "--dry-run", gate}, &out, &out); code != 0 {
				t.Fatalf("exit code %d: %s", code, out.String())
			}
			for _, want := range tt.says {
				if !strings.Contains(out.String(), want) {
					t.Errorf("the plan does not say %q:\n%s", want, out.String())
				}
			}
		})
	}
}

// Two runs that begin in the same second have a folder each.
func TestFreshFolder(t *testing.T) {
	t.Chdir(t.TempDir())
	for range 3 {
		if err := os.MkdirAll(freshFolder("quick"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if made, err := os.ReadDir("runs"); err != nil || len(made) != 3 {
		t.Errorf("found %v, %v; expected 3 folders", made, err)
	}
}

func TestNotRun(t *testing.T) {
	for _, verb := range []string{"judge", "report"} {
		dir := filepath.Join(t.TempDir(), "nowhere")
		if code, out := launch(t, verb, dir); code != checklist.ExitCouldNotRun || !strings.Contains(out, "the folder does not exist") {
			t.Errorf("%s: exit code %d: %s", verb, code, out)
		}
		if code, out := launch(t, verb, t.TempDir()); code != checklist.ExitCouldNotRun || !strings.Contains(out, "no environment.json") {
			t.Errorf("%s: exit code %d: %s", verb, code, out)
		}
	}
}

func TestUntrustedCertificate(t *testing.T) {
	srv := httptest.NewUnstartedServer(http.NotFoundHandler())
	srv.Config.ErrorLog = log.New(io.Discard, "", 0) // it would log the refused handshake
	srv.StartTLS()
	defer srv.Close()
	code, out := launch(t, "run", "--target", srv.URL, "--model", "m", "--out", filepath.Join(t.TempDir(), "run"), "testdata/short.yaml")
	if code != checklist.ExitCouldNotRun || !strings.Contains(out, "--ca-file") || strings.Contains(out, "is the service running") {
		t.Errorf("exit code %d: %s", code, out)
	}
}

func TestInit(t *testing.T) {
	path := filepath.Join(t.TempDir(), "mine.yaml")
	if code, out := launch(t, "init", path); code != 0 {
		t.Fatalf("init: %s", out)
	}
	if _, err := scenarios.Load(path); err != nil {
		t.Errorf("the starter gate does not parse: %v", err)
	}
	if code, out := launch(t, "run", "--dry-run", path); code != 0 {
		t.Errorf("the starter gate cannot be planned: %s", out)
	}
	before := readFile(t, path)
	if code, _ := launch(t, "init", path); code != checklist.ExitCouldNotRun || !bytes.Equal(before, readFile(t, path)) {
		t.Errorf("init over a gate that is there: exit code %d", code)
	}
}

func readVerdict(t *testing.T, dir string) checklist.Verdict {
	t.Helper()
	var v checklist.Verdict
	if err := json.Unmarshal(readFile(t, filepath.Join(dir, "verdict.json")), &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func readFile(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func defaultModel(t *testing.T) []byte {
	t.Helper()
	return readFile(t, "../../reference-server/models/default/default.gguf")
}

// A run that reaches a stop condition ends at once, says why, and never passes.
// A run against another host does not begin.
func TestStopConditions(t *testing.T) {
	var served atomic.Int64
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		if served.Add(1) > 100 {
			http.Error(w, "out of order", http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprint(w, "data: {\"choices\":[{\"delta\":{\"content\":\"a\"},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n")
	}))
	t.Cleanup(srv.Close)
	gate := func(host string) string {
		return writeGate(t, `
name: careful
seed: 1
target: {endpoint: {url: "`+srv.URL+`", model: m}}
stop: {errors: 30%, within: 3s, hosts: [`+host+`]}
warmup: {requests: 2}
scenarios:
  - name: s
    stages: [{name: m, for: 60s, rate: 40/s}]
objectives: [error_rate <= 1%]
`)
	}
	dir := filepath.Join(t.TempDir(), "run")
	code, out := launch(t, "run", "--out", dir, gate("127.0.0.1"))
	if n := served.Load(); n > 600 { // of 2,400
		t.Errorf("it went on for %d requests", n)
	}
	v := readVerdict(t, dir)
	if code == checklist.ExitPass || v.Verdict == checklist.Pass || !v.Incomplete || !strings.Contains(out, "it did more harm than permitted") {
		t.Errorf("exit code %d, %v: %s", code, v.Verdict, out)
	}
	if page := string(readFile(t, filepath.Join(dir, "report.html"))); !strings.Contains(page, "it did more harm than permitted") {
		t.Error("the report does not say why the run was stopped")
	}
	code, out = launch(t, "run", gate("staging.example.com"))
	if code != checklist.ExitCouldNotRun || !strings.Contains(out, "may only be played against staging.example.com") {
		t.Errorf("against another host: exit code %d: %s", code, out)
	}
}
