package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"html"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/launchgate/launchgate/checklist"
	"github.com/launchgate/launchgate/deploy"
	"github.com/launchgate/launchgate/deploy/monitoring"
	"github.com/launchgate/launchgate/internal/recording"
)

// The service stays up after the command that started it and its terminal are
// gone. It demands its key over TLS. down leaves nothing of it.
func TestUpAndDown(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "up")
	gate := filepath.Join(t.TempDir(), "gate.yaml")
	if err := os.WriteFile(gate, []byte(guardedGate), 0o644); err != nil {
		t.Fatal(err)
	}
	if code, out := launch(t, "down", "--dir", dir); code != checklist.ExitCouldNotRun || !strings.Contains(out, "nothing is up in "+dir) {
		t.Errorf("down of nothing: %d %s", code, out)
	}
	up := command(t, "up", "--dir", dir, gate)
	up.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // as a terminal does
	out, err := up.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Cleanup(func() { launch(t, "down", "--dir", dir) })
	s, err := deploy.FindStanding(dir)
	if err != nil {
		t.Fatal(err)
	}
	// The terminal sends SIGHUP to its process group.
	_ = syscall.Kill(-up.Process.Pid, syscall.SIGHUP)
	for _, want := range []string{s.URL, s.CA, s.KeyFile, "replica-1", "launchgate down"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("up does not tell %q:\n%s", want, out)
		}
	}
	key := strings.TrimSpace(string(readFile(t, s.KeyFile)))
	if strings.Contains(string(out), key) {
		t.Error("up prints the key itself, which terminals and logs of CI keep")
	}
	if status := askModels(t, s, key); status != http.StatusOK {
		t.Errorf("with the key: %d", status)
	}
	if status := askModels(t, s, ""); status != http.StatusUnauthorized {
		t.Errorf("without the key: %d", status)
	}
	metricsAreThere(t, s)
	onlyLoopback(t, dir)
	ledgerComesBack(t, dir)
	if code, again := launch(t, "up", "--dir", dir, gate); code != 0 || !strings.Contains(again, s.URL) {
		t.Errorf("up again: %d %s", code, again)
	}
	if code, other := launch(t, "up", "--dir", dir, "quick"); code != checklist.ExitCouldNotRun || !strings.Contains(other, "is up already, and is not what quick describes") {
		t.Errorf("up of something else: %d %s", code, other)
	}
	if code, out := launch(t, "down", "--dir", dir); code != 0 || !strings.Contains(out, s.URL+" is down") {
		t.Errorf("down: %d %s", code, out)
	}
	nothingRuns(t, dir)
	if _, err := os.Stat(s.KeyFile); err == nil {
		t.Error("down leaves the key behind")
	}
}

// onlyLoopback checks every socket on which a process of the deployment
// listens.
func onlyLoopback(t *testing.T, dir string) {
	t.Helper()
	if _, err := os.Stat("/proc/net/tcp"); err != nil {
		t.Log("skipped: there is no /proc/net/tcp to see who listens where")
		return
	}
	whose := map[string]string{}
	for _, w := range writersOf(dir) {
		sockets, _ := filepath.Glob("/proc/" + strings.Split(w, "/")[2] + "/fd/*")
		for _, fd := range sockets {
			if to, err := os.Readlink(fd); err == nil && strings.HasPrefix(to, "socket:[") {
				whose[strings.Trim(to, "socket:[]")] = w
			}
		}
	}
	const listens = "0A"
	loopback := regexp.MustCompile(`^(0100007F|0{24}01000000):`)
	seen := 0
	for _, family := range []string{"tcp", "tcp6"} {
		for line := range strings.Lines(string(readFile(t, "/proc/net/"+family))) {
			f := strings.Fields(line) // number, local address, remote address, state, …, inode
			if len(f) < 10 || f[3] != listens || whose[f[9]] == "" {
				continue
			}
			seen++
			if !loopback.MatchString(f[1]) {
				t.Errorf("%s listens on %s, which others can reach", whose[f[9]], f[1])
			}
		}
	}
	if seen < 6 { // two of each replica, two of the gateway
		t.Errorf("only %d listening sockets were found", seen)
	}
}

func askModels(t *testing.T, s deploy.Standing, key string) int {
	t.Helper()
	req, err := http.NewRequest(http.MethodGet, s.URL+"/v1/models", nil)
	if err != nil {
		t.Fatal(err)
	}
	if key != "" {
		req.Header.Set("Authorization", "Bearer "+key)
	}
	status, _ := answerOf(gatewayClient(t, s), req)
	return status
}

// gatewayClient is a client that trusts the CA of the gateway.
func gatewayClient(t *testing.T, s deploy.Standing) *http.Client {
	t.Helper()
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(readFile(t, s.CA)) {
		t.Fatal("no CA")
	}
	transport := &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{RootCAs: pool}}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 10 * time.Second}
}

// answerOf reads an answer to its end. status is 0 if there is none.
func answerOf(client *http.Client, req *http.Request) (status int, body string) {
	resp, err := client.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, string(b) + err.Error()
	}
	return resp.StatusCode, string(b)
}

// ledgerComesBack deletes the ledger of a stopped deployment and restores it
// completely: from a backup, and from the second place.
func ledgerComesBack(t *testing.T, dir string) {
	t.Helper()
	backup := filepath.Join(t.TempDir(), "backup.db")
	if code, out := launch(t, "backup", "--dir", dir, "--to", backup); code != 0 || !strings.Contains(out, "verified "+backup+": api_keys 1") {
		t.Errorf("%d %s", code, out)
	}
	if code, out := launch(t, "restore", "--dir", dir); code != checklist.ExitCouldNotRun || !strings.Contains(out, "launchgate down first") {
		t.Errorf("%d %s", code, out)
	}
	t.Cleanup(func() {
		for _, args := range [][]string{{"--from", backup}, nil} {
			if code, out := launch(t, append([]string{"restore", "--dir", dir}, args...)...); code != checklist.ExitCouldNotRun || !strings.Contains(out, "never overwrites") {
				t.Errorf("%d %s", code, out)
			}
			for _, end := range []string{"", "-wal", "-shm"} { // the files of the ledger
				if err := os.Remove(filepath.Join(dir, deploy.LedgerFile) + end); err != nil && !errors.Is(err, os.ErrNotExist) {
					t.Fatal(err)
				}
			}
			if code, out := launch(t, append([]string{"restore", "--dir", dir}, args...)...); code != 0 || !strings.Contains(out, "api_keys 1") {
				t.Errorf("%v: %d %s", args, code, out)
			}
		}
	})
}

// metricsAreThere checks that the processes export every metric of the rules
// and the dashboard. An alert on a metric with another name would never fire.
func metricsAreThere(t *testing.T, s deploy.Standing) {
	t.Helper()
	var page strings.Builder
	for _, m := range s.Metrics {
		resp, err := http.Get("http://" + m.Address + "/metrics")
		if err != nil {
			t.Fatal(err)
		}
		_, err = io.Copy(&page, resp.Body)
		resp.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
	}
	asked := regexp.MustCompile(`\b(http|ai|gateway|nvidia|inference)_[a-z_]+[a-z]\b`)
	never := []string{"gateway_refused_total", "gateway_degraded_total", // their labels appear with the first refusal
		"ai_time_to_first_token_seconds_bucket", "ai_tokens_total"} // their labels appear with the first request
	for _, file := range []string{"rules.yml", "dashboard.json"} {
		src, err := monitoring.Files.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		names := asked.FindAllString(string(src), -1)
		if len(names) < 10 {
			t.Fatalf("only %d metrics in %s", len(names), file)
		}
		for _, name := range names {
			if !strings.Contains(page.String(), "\n"+name+"{") && !strings.Contains(page.String(), "\n"+name+" ") && !slices.Contains(never, name) {
				t.Errorf("%s asks for %s, which nobody tells", file, name)
			}
		}
	}
}

// A drill uses the rules of production with windows sixty times shorter. No
// alert fires without a fault, and the right one fires when a replica is lost.
func TestAlertDrill(t *testing.T) {
	if _, err := exec.LookPath("prometheus"); err != nil {
		t.Skip("skipped: prometheus is not on the PATH")
	}
	dir, gate := filepath.Join(t.TempDir(), "run"), filepath.Join(t.TempDir(), "gate.yaml")
	if err := os.WriteFile(gate, []byte(`name: drill
target: {local: {replicas: 2, monitoring: {shorten: 60}}}
warmup: {requests: 2}
scenarios:
  - name: quiet
    workload: {max_tokens: 4}
    stages: [{name: main, for: 3s, rate: 4/s}]
  - name: loss
    workload: {max_tokens: 4}
    stages: [{name: main, for: 14s, rate: 4/s}]
    faults: [{kind: node-loss, target: replica-0, at: 0s, for: 8s}]
objectives:
  - alerts in quiet == 0
  - alert(ReplicaDown) in loss <= 10s
  - alerts in loss <= 1
`), 0o644); err != nil {
		t.Fatal(err)
	}
	_, out := launch(t, "run", "--out", dir, gate)
	for _, o := range readVerdict(t, dir).Objectives {
		if o.Verdict != checklist.Pass {
			t.Errorf("%s: %s: %s\n%s", o.Source, o.Verdict, o.Why, out)
		}
	}
	nothingRuns(t, dir)
}

// When the keeper is killed, its processes end too, and up starts a new
// deployment.
func TestUpAfterItsKeeperWasKilled(t *testing.T) {
	if _, err := os.Stat("/proc/self/stat"); err != nil {
		t.Skip("skipped: only Linux ends processes with the one that started them")
	}
	dir := filepath.Join(t.TempDir(), "up")
	t.Cleanup(func() { launch(t, "down", "--dir", dir) })
	for range 2 {
		if code, out := launch(t, "up", "--dir", dir); code != 0 {
			t.Fatalf("%d %s", code, out)
		}
		s, err := deploy.FindStanding(dir)
		if err != nil {
			t.Fatal(err)
		}
		if err := syscall.Kill(s.Keeper.PID, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(30 * time.Second); s.Keeper.Alive() && time.Now().Before(deadline); {
			time.Sleep(10 * time.Millisecond)
		}
		if _, err := deploy.FindStanding(dir); !errors.Is(err, deploy.ErrNotStanding) {
			t.Errorf("a killed keeper still keeps: %v", err)
		}
	}
	// The kernel ends them shortly after the keeper. A process that is ending
	// does not show up at every check.
	gone := 0
	for deadline := time.Now().Add(30 * time.Second); gone < 10 && time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if gone++; len(writersOf(dir)) > 0 {
			gone = 0
		}
	}
	nothingRuns(t, dir)
}

// Ctrl-C while it starts leaves nothing.
func TestUpInterrupted(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "up")
	up := command(t, "up", "--dir", dir)
	if err := up.Start(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if _, err := os.Stat(filepath.Join(dir, "logs/keeper.log")); err == nil {
			break
		}
	}
	_ = up.Process.Signal(os.Interrupt)
	_ = up.Wait() // the exit code is checked below
	if code := up.ProcessState.ExitCode(); code != checklist.ExitInterrupted {
		t.Errorf("exit code %d, want %d", code, checklist.ExitInterrupted)
	}
	nothingRuns(t, dir)
	if _, err := deploy.FindStanding(dir); !errors.Is(err, deploy.ErrNotStanding) {
		t.Errorf("something is up: %v", err)
	}
}

// A deployment that cannot start gives the reason and leaves nothing.
func TestUpThatCannot(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	limits := filepath.Join(t.TempDir(), "limits.yaml")
	if err := os.WriteFile(limits, []byte("network: {rate: -1}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct{ local, says string }{
		"port":   {fmt.Sprintf("{replicas: 1, port: %d}", taken.Addr().(*net.TCPAddr).Port), "is taken"},
		"limits": {fmt.Sprintf("{replicas: 1, ready_timeout: 2s, gateway: {config: %s}}", limits), "network: found rate -1"},
	} {
		t.Run(name, func(t *testing.T) {
			dir, gate := filepath.Join(t.TempDir(), "up"), filepath.Join(t.TempDir(), "gate.yaml")
			text := strings.Replace(guardedGate, "{replicas: 2}", tt.local, 1)
			if err := os.WriteFile(gate, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
			if code, out := launch(t, "up", "--dir", dir, gate); code != checklist.ExitCouldNotRun || !strings.Contains(out, tt.says) {
				t.Errorf("%d %s", code, out)
			}
			nothingRuns(t, dir)
		})
	}
}

const guardedGate = `name: guarded
target: {local: {replicas: 2}}
warmup: {requests: 2}
scenarios:
  - name: front
    workload: {max_tokens: 8}
    classes:
      - name: own
      - {name: bulk, workload: {api_key_env: BULK_KEY}}
    stages: [{name: main, for: 4s, rate: 30/s}]
    faults: [{kind: gateway-kill, at: 2s}]
objectives:
  - rto(gateway-kill) < 10s
`

const callersGate = `name: callers
target:
  local:
    replicas: 1
    models: {exact: {quantization: none}, quick: {}}
    monitoring: {disabled: true}
    gateway: {keys: {FLOOD_KEY: {limited: true, class: batch}, USER_KEY: {limited: true}}}
warmup: {requests: 2}
scenarios:
  - name: front
    workload: {max_tokens: 4, model: quick}
    classes:
      - {name: flood, weight: 9, workload: {api_key_env: FLOOD_KEY, connection: {from: 127.0.0.2}}}
      - {name: user, weight: 1, workload: {api_key_env: USER_KEY, model: exact, connection: {from: 127.0.0.3, new: true}}}
    stages: [{name: main, for: 10s, rate: 50/s, arrivals: constant}]
objectives:
  - refused_rate of flood in front >= 40%
  - broken_rate in front <= 1%
  - error_rate of user in front <= 10%
  - p50(tpot) of flood in front <= 1000% of that of user
`

// A flooding caller is held to the guide's limits, by its address and by its
// key. Another caller is served at the same time, by another model of the same
// replica.
func TestCallersAreDistinguished(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("not every address in 127.0.0.0/8 is this host's here")
	}
	dir, gate := filepath.Join(t.TempDir(), "run"), writeGate(t, callersGate)
	code, out := launch(t, "run", "--out", dir, gate)
	v := readVerdict(t, dir)
	for _, f := range v.Objectives {
		if (f.Verdict == checklist.Fail || f.Value == nil) && v.Client.Valid { // a busy machine may leave it unproven, but not without any answer
			t.Errorf("%s: %s (exit code %d)\n%s", f.Source, f.Why, code, out)
		}
	}
	rec, err := recording.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if allowance := rec.Environment.Target.Allowance; !strings.HasSuffix(allowance.String(), "and also FLOOD_KEY, USER_KEY") {
		t.Errorf("the allowance is reported as %q", allowance)
	}
	audit := string(readFile(t, filepath.Join(dir, "logs/gateway/audit.log")))
	for _, caller := range []string{`"client":"127.0.0.2"`, `"client":"127.0.0.3"`, `"tenant":"flood_key"`, `"tenant":"user_key"`} {
		if !strings.Contains(audit, caller) {
			t.Errorf("the audit log knows nothing of %s", caller)
		}
	}
	if log := string(readFile(t, filepath.Join(dir, "logs/replica-0.log"))); !strings.Contains(log, "model=exact") || !strings.Contains(log, "quantization=none") || !strings.Contains(log, "model=quick") {
		t.Errorf("the replica did not load both models:\n%s", log)
	}
}

// aKey matches an API key.
var aKey = regexp.MustCompile(`lg-[A-Za-z0-9_-]{43}`)

// A run through the whole gateway uses its own keys, may exceed the limits of
// its address, and survives the death of the gateway. No file of the run has a
// key.
func TestRunBehindTheWholeGateway(t *testing.T) {
	dir, gate := filepath.Join(t.TempDir(), "run"), filepath.Join(t.TempDir(), "gate.yaml")
	if err := os.WriteFile(gate, []byte(guardedGate), 0o644); err != nil {
		t.Fatal(err)
	}
	code, out := launch(t, "run", "--out", dir, gate)
	if code != checklist.ExitPass && readVerdict(t, dir).Client.Valid {
		t.Errorf("exit code %d\n%s", code, out)
	}
	rec, err := recording.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	target := rec.Environment.Target
	if !strings.HasPrefix(target.URL, "https://") || target.Protocol.String() != "HTTP/2 over TLS 1.3" || !strings.Contains(target.Allowance.String(), "127.0.0.1 and the run's own keys may send 80 requests/s") {
		t.Errorf("%+v", target)
	}
	if _, err := exec.LookPath("prometheus"); err == nil != strings.HasPrefix(target.Watched.String(), "Prometheus at http://127.0.0.1:") {
		t.Errorf("watched: %q, and prometheus is on the PATH: %v", target.Watched, err)
	}
	report := html.UnescapeString(string(readFile(t, filepath.Join(dir, "report.html"))))
	for _, fact := range []string{target.Protocol.String(), target.Allowance.String(), target.Watched.String()} {
		if !strings.Contains(report, fact) {
			t.Errorf("the report does not tell: %s", fact)
		}
	}
	good, refused := 0, 0
	for r, err := range rec.Requests {
		if err != nil {
			t.Fatal(err)
		}
		if r.OK() {
			good++
		}
		if r.Status == http.StatusUnauthorized || r.Status == http.StatusTooManyRequests {
			refused++
		}
	}
	if good < 80 || refused > 0 {
		t.Errorf("%d requests were answered, %d refused", good, refused)
	}
	audit := string(readFile(t, filepath.Join(dir, "logs/gateway/audit.log")))
	for _, tenant := range []string{`"tenant":"launchgate"`, `"tenant":"bulk_key"`} {
		if !strings.Contains(audit, tenant) {
			t.Errorf("the audit log knows nothing of %s", tenant)
		}
	}
	err = filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() && aKey.Match(readFile(t, path)) {
			t.Errorf("%s holds a key", path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "logs/gateway/tls/key.pem")); err == nil {
		t.Error("the certificate's key is left behind")
	}
	nothingRuns(t, dir)
}

// What is asked of a cluster is asked with --kubernetes, of a gate that is for one, and
// where one is there.
func TestUpOnAClusterIsRefused(t *testing.T) {
	t.Setenv("KUBECONFIG", filepath.Join(t.TempDir(), "none"))
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	dir := t.TempDir()
	for _, tt := range []struct {
		args []string
		says string
	}{
		{[]string{"--namespace", "x"}, "found --namespace without --kubernetes"},
		{[]string{"--kubernetes", "quick"}, "has no target.kubernetes"},
		{[]string{"--kubernetes", "--namespace", "No"}, "target.kubernetes.namespace"},
		{[]string{"--kubernetes"}, "there is no cluster"},
		{[]string{"kubernetes"}, "there is no cluster"},
		{[]string{"--kubernetes", "--context", "nope"}, `no context is named "nope"`},
	} {
		code, out := launch(t, append([]string{"up", "--dir", dir}, tt.args...)...)
		if code != checklist.ExitCouldNotRun || !strings.Contains(out, tt.says) {
			t.Errorf("up %v: %d, %s; it should say %q", tt.args, code, out, tt.says)
		}
	}
	if code, out := launch(t, "down", "--dir", dir); code != checklist.ExitCouldNotRun || !strings.Contains(out, "nothing is up") {
		t.Errorf("down: %d, %s", code, out)
	}
}
