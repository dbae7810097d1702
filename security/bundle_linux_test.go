package security

import (
	"bufio"
	"cmp"
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/scenarios"
)

// flawOfBundle is a flaw in the whole service: a replica behind a gateway with TLS, keys
// and a ledger. The zero value is the service without one.
type flawOfBundle struct {
	flaw, check string
	class       string // of the first tenant's key; empty: standard, as the other's
	files       int    // limit of the gateway's descriptors; 0: no limit
	replica     bool
	slow        bool // it takes a minute, and runs only if LAUNCHGATE_FLAWS=all
}

// flawsOfBundle are the flaws that a reference server built with the tag flaws can
// plant, each with the check that has to find it.
var flawsOfBundle = []flawOfBundle{
	{flaw: "skip-auth-for=/v1/models", check: "authentication"}, {flaw: "skip-auth-for=double-slash", check: "authentication"}, {flaw: "skip-auth-for=OPTIONS", check: "authentication"},
	{flaw: "accept-any-key", check: "key-validation"}, {flaw: "accept-prefix", check: "key-validation"},
	{flaw: "responses-without-tenant", check: "tenant-objects"},
	{flaw: "no-limit", check: "rate-limit"}, {flaw: "unlimited-validate", check: "rate-limit"},
	{flaw: "trust-x-forwarded-for", check: "forwarded-headers"},
	{flaw: "usage-by-exact-key", check: "billing"}, {flaw: "usage-only-at-end", check: "billing"},
	{flaw: "shared-prefix-cache", check: "prefix-cache"},
	{flaw: "parse-special", check: "chat-template"},
	{flaw: "tls10", check: "tls"}, {flaw: "weak-cipher", check: "tls"}, {flaw: "expired", check: "tls"}, {flaw: "no-aki", check: "tls"}, {flaw: "no-hsts", check: "tls"},
	{flaw: "echo-key", check: "leaks"}, {flaw: "log-prompts", check: "leaks"}, {flaw: "stack-trace", check: "leaks"},
	{flaw: "metrics-on-gateway", check: "open-doors"}, {flaw: "pprof", check: "open-doors"},
	{flaw: "cors-reflect", check: "headers-and-cors"}, {flaw: "no-security-headers", check: "headers-and-cors"},
	{flaw: "raw-audit-line", check: "log-injection"},
	{flaw: "quadratic-schema", check: "costly-requests", slow: true}, {flaw: "quadratic-tokens", check: "costly-requests", slow: true}, // engine-blocks is tested in the test service, because this one is too fast to show it
	{flaw: "panic-on-max-tokens,no-secret-check", check: "crash", replica: true}, {flaw: "eject-on-client-error", check: "crash", slow: true},
	{flaw: "no-header-timeout", check: "slow-connections", slow: true}, {flaw: "no-body-timeout", check: "slow-connections", slow: true},
	{flaw: "shed-by-open-streams", check: "unread-streams", class: "interactive"}, // within a class shedding is fair, so it shows only to a lower one
	{flaw: "unfair-shedding", check: "load-shedding", slow: true},
	{flaw: "no-connection-limit,no-header-timeout", check: "connection-exhaustion", files: 300, slow: true},
	{flaw: "no-secret-check", check: "authentication", replica: true},
}

// flawed builds the reference server with its flaws, once for all tests.
var flawed = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "flawed-")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "reference-server")
	if out, err := exec.Command("go", "build", "-tags", "flaws", "-o", path, "../cmd/reference-server").CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return path, nil
})

func TestMain(m *testing.M) {
	flag.Parse()
	// Most scans of the tests wait for connections to be closed and for limits, each on
	// a service of its own, so more run at once than there are processors.
	if err := flag.Set("test.parallel", "8"); err != nil {
		panic(err)
	}
	status := m.Run()
	if removeFlawed {
		if path, err := flawed(); err == nil {
			os.RemoveAll(filepath.Dir(path))
		}
	}
	os.Exit(status)
}

var removeFlawed bool // set when it was built

const bundleSecret = "0123456789abcdef0123456789abcdef"

// bundle is the bundled service, with the data that a scan needs.
type bundle struct {
	target Target
	direct string // address of the replica
	dir    string
	logs   []string
}

// startBundle starts a replica and a gateway, with a flaw or without one.
func startBundle(t *testing.T, f flawOfBundle) *bundle {
	t.Helper()
	return startWith(t, f, "--dev-tls", "DIR/tls")
}

// startWith starts them with more arguments for the gateway. DIR in them stands for the
// folder of the bundle.
func startWith(t *testing.T, f flawOfBundle, how ...string) *bundle {
	t.Helper()
	removeFlawed = true
	server, err := flawed()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	ledger, audit := filepath.Join(dir, "ledger.db"), filepath.Join(dir, "audit.log")
	key := func(args ...string) string {
		out, err := exec.Command(server, append([]string{"ledger", "--ledger", ledger, "add-key"}, args...)...).Output()
		if err != nil {
			t.Fatalf("ledger add-key %v: %v", args, err)
		}
		return strings.TrimSpace(string(out))
	}
	b := &bundle{logs: []string{audit, filepath.Join(dir, "gateway.log"), filepath.Join(dir, "replica.log")}}
	b.target = Target{Key: key("--tenant", "one", "--class", cmp.Or(f.class, "standard")), OtherKey: key("--tenant", "two", "--class", "standard"), ExpiredKey: key("--tenant", "one", "--valid", "1ns", "--id", "old"), RevokedKey: key("--tenant", "one", "--id", "gone"), Logs: b.logs}
	if out, err := exec.Command(server, "ledger", "--ledger", ledger, "revoke-key", "--id", "gone").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	env := append(os.Environ(), "GATEWAY_SECRET="+bundleSecret, "LAUNCHGATE_FLAW="+f.flaw)
	b.direct = "http://" + start(t, exec.Command(server, "serve", "--addr", "127.0.0.1:0", "--metrics-addr", "127.0.0.1:0", "--grpc-addr", "", "--device", "cpu", "--device-file", filepath.Join(dir, "device.json"), "--threads", "1"), env, b.logs[2], regexp.MustCompile(`api=http://(\S+)`))
	config := filepath.Join(dir, "gateway.yaml")
	if err := os.WriteFile(config, []byte("proxies: [127.0.0.1/32]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	gateway := exec.Command(server, append([]string{"gateway", "--addr", "127.0.0.1:0", "--metrics-addr", "127.0.0.1:0", "--replica", "replica-0=" + b.direct, "--ledger", ledger, "--audit-log", audit}, how...)...)
	for i, arg := range gateway.Args {
		gateway.Args[i] = strings.ReplaceAll(arg, "DIR", dir)
	}
	if f.files > 0 {
		gateway = exec.Command("sh", append([]string{"-c", `ulimit -n "$0" && exec "$@"`, strconv.Itoa(f.files)}, gateway.Args...)...)
	}
	scheme := "http://"
	if slices.Contains(how, "--dev-tls") {
		scheme, b.target.CAFile = "https://", filepath.Join(dir, "tls", "ca.pem")
	}
	b.target.URL, b.dir = scheme+start(t, gateway, env, b.logs[1], regexp.MustCompile(`msg=listening address=(\S+)`)), dir
	return b
}

// start starts a program and returns the address that it writes to its log.
func start(t *testing.T, cmd *exec.Cmd, env []string, log string, at *regexp.Regexp) string {
	t.Helper()
	cmd.Env = env
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // its own process group, because nginx has workers
	pipe, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	file, err := os.Create(log)
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	found, ended := make(chan string, 1), make(chan struct{})
	go func() {
		defer close(ended)
		defer file.Close()
		lines := bufio.NewReader(pipe)
		for {
			line, err := lines.ReadString('\n')
			_, _ = io.WriteString(file, line)
			if m := at.FindStringSubmatch(line); m != nil {
				select {
				case found <- m[1]:
				default:
				}
			}
			if err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL); <-ended; _ = cmd.Wait() })
	select {
	case where := <-found:
		return where
	case <-ended:
		b, _ := os.ReadFile(log)
		t.Fatalf("%v ended: %s", cmd.Args, b)
	case <-time.After(time.Minute):
		t.Fatalf("%v does not say where it listens", cmd.Args)
	}
	return ""
}

// scan runs checks on the bundle.
func (b *bundle) scan(t *testing.T, only ...string) map[string]recording.ScanResult {
	t.Helper()
	results := map[string]recording.ScanResult{}
	err := Run(t.Context(), Options{
		Scan:   scenarios.Scan{Only: only, AllowDisruptive: true, Logs: b.logs, ExpiredKeyEnv: "X", OtherKeyEnv: "Y"},
		Target: b.target, Clock: recording.NewClock(), Seed: uint64(time.Now().UnixNano()), patience: longPatience, Tell: func(string) {},
		Record: func(r recording.ScanResult) { results[r.Check] = r },
	})
	if err != nil {
		t.Fatal(err)
	}
	return results
}

// waitReady waits until the gateway serves.
func (b *bundle) waitReady(t *testing.T) {
	t.Helper()
	s, err := newSession(Options{Target: b.target, Tell: func(string) {}})
	if err != nil {
		t.Fatal(err)
	}
	s.tlsConfig.InsecureSkipVerify = true // its certificate may be the flaw
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		tr := newTrial(s, Check{Cap: Cap{Requests: 10, Bytes: 1 << 20}})
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		a := tr.once(ctx, request{method: "GET", path: "/ready"})
		cancel()
		if a.ok() {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the bundle is not ready: %s", a)
		}
	}
}

// longPatience is longer than the bundle keeps a slow connection: it allows 30 seconds
// for a body.
const longPatience = 40 * time.Second

// Each flaw of the bundled service is found by the right check. Without
// LAUNCHGATE_FLAWS=all, one flaw of each check is played: all of them take ten minutes.
func TestFlawedBundleIsFound(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes minutes")
	}
	t.Parallel()
	only := os.Getenv("LAUNCHGATE_FLAWS") // comma-separated flaws to test
	played := map[string]bool{}
	places := make(chan struct{}, 3) // bundles at the same time: each computes a little and waits a lot
	for _, f := range flawsOfBundle {
		switch {
		case only == "" && (f.slow || played[f.check]), only != "" && only != "all" && !slices.Contains(strings.Split(only, ";"), f.flaw):
			continue
		}
		played[f.check] = true
		t.Run(f.flaw, func(t *testing.T) {
			t.Parallel()
			places <- struct{}{}
			defer func() { <-places }()
			began := time.Now()
			b := startBundle(t, f)
			b.waitReady(t)
			if f.replica {
				b.target.URL, b.target.CAFile = b.direct, ""
			}
			r := b.scan(t, f.check)[f.check]
			if r.Outcome != recording.ScanFlaw {
				t.Errorf("%s ended as %s: %s", f.check, r.Outcome, r.Why)
			}
			for _, found := range r.Findings {
				t.Logf("%s: %s (%.1f)", time.Since(began).Round(time.Millisecond), found.Title, found.Score)
			}
		})
	}
}

// No check finds a flaw in the bundled service as it is, in any of LAUNCHGATE_ROUNDS
// rounds.
func TestBundleIsSafe(t *testing.T) {
	if testing.Short() {
		t.Skip("the checks that may harm take minutes")
	}
	var quick, all []string
	for _, c := range Checks {
		if c.offline || c.Name == "system-prompt" { // the bundle has no system prompt
			continue
		}
		all = append(all, c.Name)
		if !c.Disruptive {
			quick = append(quick, c.Name)
		}
	}
	if rounds, _ := strconv.Atoi(os.Getenv("LAUNCHGATE_ROUNDS")); rounds > 0 {
		made := quick
		if os.Getenv("LAUNCHGATE_DISRUPTIVE") != "" {
			made = all
		}
		for i := range rounds {
			t.Run(strconv.Itoa(i), func(t *testing.T) { bundleIsSafe(t, made) })
		}
		return
	}
	// The check of slow connections waits half a minute, so it has a bundle of its own.
	const waits = "slow-connections"
	t.Run(waits, func(t *testing.T) {
		t.Parallel()
		bundleIsSafe(t, []string{waits})
	})
	t.Run("all others", func(t *testing.T) {
		t.Parallel()
		bundleIsSafe(t, slices.DeleteFunc(all, func(name string) bool { return name == waits }))
	})
}

// bundleIsSafe scans a bundle without a flaw and expects every check to say so.
func bundleIsSafe(t *testing.T, made []string) {
	b := startBundle(t, flawOfBundle{})
	b.waitReady(t)
	began := time.Now()
	results := b.scan(t, made...)
	took := time.Since(began)
	var ran []recording.ScanResult
	for _, name := range made {
		r := results[name]
		if r.Outcome != recording.ScanSafe {
			t.Errorf("%s ended as %s: %s\n%+v", name, r.Outcome, r.Why, r.Findings)
		}
		t.Logf("%s: %.1f s; %s", name, (r.At - r.Began).Seconds(), othersLine(r.Others))
		ran = append(ran, r)
	}
	t.Logf("%d checks in %s; %s", len(made), took.Round(time.Millisecond), othersLine(recording.OthersOf(ran)))
}

// othersLine says how another client was served.
func othersLine(o *recording.Others) string {
	if o == nil {
		return "another client sent nothing"
	}
	return fmt.Sprintf("of another client's %d requests %d failed, median %s (quiet %s), p95 %s (quiet %s), longest %s", o.Asked, o.Failed, o.Median.Round(time.Millisecond), o.Quiet.Round(time.Millisecond),
		o.P95().Round(time.Millisecond), o.QuietP95.Round(time.Millisecond), o.Longest.Round(time.Millisecond))
}

// No check finds a flaw in the bundle behind deploy/nginx, as it is shipped: nginx asks
// the gateway about keys, and the replicas for answers. As its page says, it bills
// nobody and stores no background responses, so the checks of these have nothing to
// test.
func TestBundleBehindNginxIsSafe(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes a minute")
	}
	t.Parallel()
	nginx, err := exec.LookPath("nginx")
	if err != nil {
		if nginx, err = exec.LookPath("/usr/sbin/nginx"); err != nil {
			t.Skip("skipped: nginx is not installed")
		}
	}
	b := startWith(t, flawOfBundle{}, "--config", "DIR/gateway.yaml")
	b.waitReady(t)
	// Another bundle makes the certificate.
	certified := startBundle(t, flawOfBundle{})
	conf, err := os.ReadFile("../deploy/nginx/nginx.conf")
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0") // a free port
	if err != nil {
		t.Fatal(err)
	}
	at := l.Addr().String()
	l.Close()
	dir := filepath.Join(b.dir, "nginx")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	tls := filepath.Join(certified.dir, "tls")
	for name, text := range map[string]string{
		"nginx.conf": string(conf), "secret.conf": fmt.Sprintf("set $replica_secret %q;\n", bundleSecret),
		"upstreams.conf": fmt.Sprintf("upstream replicas { zone replicas 64k; server %s; keepalive 64; }\nupstream keys { server %s; keepalive 16; }\n", strings.TrimPrefix(b.direct, "http://"), strings.TrimPrefix(b.target.URL, "http://")),
		"listen.conf":    fmt.Sprintf("listen %s ssl http2;\nssl_certificate %s/cert.pem;\nssl_certificate_key %s/key.pem;\nclient_body_temp_path body;\nproxy_temp_path proxy;\n", at, tls, tls),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	global := "daemon off; worker_processes 2; pid nginx.pid; error_log stderr notice;"
	if os.Getuid() == 0 {
		global += " user root;"
	}
	start(t, exec.Command(nginx, "-p", dir, "-c", filepath.Join(dir, "nginx.conf"), "-e", "stderr", "-g", global), os.Environ(), filepath.Join(dir, "error.log"), regexp.MustCompile(`(start worker process)`))
	b.target.URL, b.target.CAFile = "https://"+at, certified.target.CAFile
	b.logs = append(b.logs, filepath.Join(dir, "audit.log"), filepath.Join(dir, "error.log"))
	b.waitReady(t)
	only := os.Getenv("LAUNCHGATE_CHECKS") // comma-separated checks to run
	made := strings.FieldsFunc(only, func(r rune) bool { return r == ',' })
	for _, c := range Checks {
		if only == "" && !c.offline && !c.Disruptive && c.Name != "system-prompt" {
			made = append(made, c.Name)
		}
	}
	for name, r := range b.scan(t, made...) {
		if r.LeftOut {
			continue
		}
		t.Logf("%s: %.1f s; %s: %s", name, (r.At - r.Began).Seconds(), r.Outcome, r.Why)
		nothingThere := r.Outcome == recording.ScanUnproven && (name == "billing" || name == "tenant-objects")
		if r.Outcome != recording.ScanSafe && !nothingThere {
			t.Errorf("%s ended as %s: %s\n%+v", name, r.Outcome, r.Why, r.Findings)
		}
	}
}

// The shipped server has no flaws to plant: the binary contains neither the variable
// nor the names of the flaws.
func TestShippedServerHasNoFlaws(t *testing.T) {
	shipped := filepath.Join(t.TempDir(), "reference-server")
	if out, err := exec.Command("go", "build", "-o", shipped, "../cmd/reference-server").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	program, err := os.ReadFile(shipped)
	if err != nil {
		t.Fatal(err)
	}
	text := string(program)
	for _, word := range []string{"LAUNCHGATE_FLAW", "skip-auth-for", "usage-only-at-end", "shed-by-open-streams", "planted the flaw"} {
		if strings.Contains(text, word) {
			t.Errorf("the shipped reference server holds %q", word)
		}
	}
	if !strings.Contains(text, "overloaded") {
		t.Error("the program could not be searched")
	}
}
