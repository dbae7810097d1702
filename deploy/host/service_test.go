package host

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/launchgate/launchgate/chaos"
	"github.com/launchgate/launchgate/deploy"
	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/scenarios"
)

// TestMain lets the test program play all programs of a run: the watchdog, the
// processes of faults, and a small service that the tests break.
func TestMain(m *testing.M) {
	roles := map[string]func([]string) error{
		"watchdog": func(args []string) error { return chaos.Watchdog(args[0], os.Stdin, Undo) },
		BurnCommand: func(args []string) error {
			cores, err := strconv.ParseFloat(args[0], 64)
			return errors.Join(err, Burn(cores, os.Stdin))
		},
		HogCommand: func(args []string) error { return Hog(args[0], args[1], os.Stdin) },
		"serve":    serveReplica,
		"gateway":  serveGateway,
		"ballast":  serveBallast,
	}
	if len(os.Args) > 1 && !strings.HasPrefix(os.Args[1], "-test.") {
		if roles[os.Args[1]] == nil {
			fmt.Fprintln(os.Stderr, "no role is called "+os.Args[1])
			os.Exit(2)
		}
		if err := roles[os.Args[1]](os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// values are the values of one flag. The other flags of a service do not matter
// here.
func values(args []string, flag string) (of []string) {
	for i := range len(args) - 1 {
		if args[i] == flag {
			of = append(of, args[i+1])
		}
	}
	return of
}

// serveReplica answers as a replica does. On request it also uses processor
// time or memory, which faults of resources need. It ends at once on SIGTERM,
// unless a request made it stubborn.
func serveReplica(args []string) error {
	addr := values(args, "--addr")[0]
	ok := func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") }
	http.HandleFunc("/health", ok)
	http.HandleFunc("/ready", ok)
	http.HandleFunc("/v1/chat/completions", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprint(w, "data: {\"choices\":[{\"delta\":{\"content\":\"a\"},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n")
	})
	http.HandleFunc("/burn", func(w http.ResponseWriter, r *http.Request) { // uses the processor for a second
		for end := time.Now().Add(time.Second); time.Now().Before(end); {
		}
		ok(w, r)
	})
	http.HandleFunc("/grow", func(w http.ResponseWriter, r *http.Request) { // grows by so many MiB
		n, _ := strconv.Atoi(r.FormValue("mib"))
		grown := make([]byte, n<<20)
		for i := 0; i < len(grown); i += 4096 {
			grown[i] = 1
		}
		ok(w, r)
		runtime.KeepAlive(grown)
	})
	serveContexts(values(args, "--metrics-addr")[0])
	return http.ListenAndServe(addr, nil)
}

// serveContexts answers completions in 300 ms. It reports that each holds a
// tenth of the KV cache meanwhile.
func serveContexts(metrics string) {
	var held atomic.Int64
	http.HandleFunc("/v1/models", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `{"data": [{"id": "m", "max_model_len": 1024}]}`)
	})
	http.HandleFunc("/v1/completions", func(w http.ResponseWriter, r *http.Request) {
		var q struct{ Prompt []int }
		if err := json.NewDecoder(r.Body).Decode(&q); err != nil || len(q.Prompt) != 512 {
			http.Error(w, "not as long as it may be", http.StatusBadRequest)
			return
		}
		held.Add(1)
		defer held.Add(-1)
		select {
		case <-r.Context().Done():
		case <-time.After(300 * time.Millisecond):
		}
	})
	metricsPage := http.NewServeMux()
	metricsPage.HandleFunc("/metrics", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, "# TYPE %s gauge\n%s{model=\"m\"} %g\n", kvMetric, kvMetric, min(1, float64(held.Load())/10))
	})
	go func() { _ = http.ListenAndServe(metrics, metricsPage) }() // it ends with the process
}

// serveGateway passes requests to the first replica and reports on /status
// which replicas are ready.
func serveGateway(args []string) error {
	addr, metrics := values(args, "--addr")[0], values(args, "--metrics-addr")[0]
	var replicas []deploy.ReplicaStatus
	for _, r := range values(args, "--replica") {
		name, at, _ := strings.Cut(r, "=")
		replicas = append(replicas, deploy.ReplicaStatus{Name: name, URL: at})
	}
	var mu sync.Mutex
	for i := range replicas {
		go func() {
			for client := (&http.Client{Timeout: 200 * time.Millisecond}); ; time.Sleep(20 * time.Millisecond) {
				resp, err := client.Get(replicas[i].URL + "/ready")
				if err == nil {
					resp.Body.Close()
				}
				mu.Lock()
				replicas[i].Ready = err == nil
				mu.Unlock()
			}
		}()
	}
	status := func(w http.ResponseWriter, _ *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		_ = json.NewEncoder(w).Encode(deploy.Status{Replicas: replicas})
	}
	failed := make(chan error)
	go func() { failed <- http.ListenAndServe(metrics, http.HandlerFunc(status)) }()
	to, err := url.Parse(replicas[0].URL)
	if err != nil {
		return err
	}
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(to) }, FlushInterval: -1}
	go func() { failed <- http.ListenAndServe(addr, proxy) }()
	return <-failed
}

// serveBallast plays a device of 100 MiB that one process at a time can take.
// Its memory is free again when that process has ended.
func serveBallast(args []string) error {
	file := values(append(args, ""), "--device-file")[0]
	if slices.Contains(args, "--ask") {
		free, taken := "104857600", strings.Fields(string(quietly(os.ReadFile(file))))
		if len(taken) == 2 {
			pid, _ := strconv.Atoi(taken[0])
			if st, err := deploy.Stat(pid); err == nil && st.State != "Z" {
				free = taken[1]
			}
		}
		_, err := fmt.Println(free)
		return err
	}
	if _, err := os.Stdin.Read(make([]byte, 1)); err != nil {
		return nil
	}
	if err := os.WriteFile(file, fmt.Appendf(nil, "%d %s", os.Getpid(), values(args, "--leave-bytes")[0]), 0o600); err != nil {
		return err
	}
	fmt.Println("taken")
	_, err := io.Copy(io.Discard, os.Stdin)
	return err
}

func quietly(b []byte, _ error) []byte { return b }

// service deploys the small service: replicas with links behind a plain
// gateway.
func service(t *testing.T, spec scenarios.Local) *Local {
	t.Helper()
	return serviceOn(t, spec, nil)
}

// serviceOn deploys it on simulated nodes with networks of their own.
func serviceOn(t *testing.T, spec scenarios.Local, nodes []*deploy.Node) *Local {
	t.Helper()
	if err := onLinux(); err != nil {
		t.Skipf("skipped: %v", err)
	}
	self, err := filepath.Abs(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	spec.Gateway.Plain, spec.Monitoring.Disabled = true, true
	spec.ReadyTimeout = scenarios.Duration(20 * time.Second)
	l, err := deploy.StartLocal(t.Context(), spec, deploy.Allowance{}, deploy.Setup{Build: self, LogDir: t.TempDir(), OnEvent: func(deploy.Event) {}}, deploy.Ground{Links: true, Nodes: nodes})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Stop)
	if err := l.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	return &Local{Local: l, plan: localPlan{deploy.LocalPlan{Spec: spec}}}
}

// journal is a real journal with a watchdog, in folders of the test. It is
// closed at the end of the test and must be empty then.
func journal(t *testing.T) *chaos.Journal {
	t.Helper()
	t.Setenv("XDG_STATE_HOME", t.TempDir())
	j, err := chaos.OpenJournal(t.TempDir(), t.TempDir(), Undo, os.Args[0], "watchdog")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := j.Close(); err != nil {
			t.Errorf("closing the journal: %v", err)
		}
	})
	return j
}

func play(ctx context.Context, j *chaos.Journal, target deploy.Target, f scenarios.Fault) []recording.Injection {
	var lines []recording.Injection
	var mu sync.Mutex
	p := chaos.Player{Clock: recording.NewClock(), Target: target, Journal: j, Record: func(i recording.Injection) {
		mu.Lock()
		defer mu.Unlock()
		lines = append(lines, i)
	}}
	p.Play(ctx, scenarios.Scenario{Name: "s", Faults: []scenarios.Fault{f}, Stages: []scenarios.Stage{{For: scenarios.Duration(time.Second)}}}, 1)
	return lines
}

func states(lines []recording.Injection) string {
	var s []string
	for _, l := range lines {
		s = append(s, l.State)
	}
	return strings.Join(s, " ")
}

// text is the text that was recorded with a state.
func text(lines []recording.Injection, state string) string {
	for _, l := range lines {
		if l.State == state {
			return l.Text.String()
		}
	}
	return ""
}

// bare has the methods of a target that no fault calls. It lacks no capability.
type bare struct{}

func (bare) About() deploy.About                            { return deploy.About{} }
func (bare) Access() deploy.Access                          { return deploy.Access{} }
func (bare) Metrics() []deploy.Source                       { return nil }
func (bare) WaitReady(context.Context) error                { return nil }
func (bare) Stop() error                                    { return nil }
func (bare) Lacks(deploy.Capability, scenarios.Fault) error { return nil }
