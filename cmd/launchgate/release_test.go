package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/launchgate/launchgate/checklist"
	"github.com/launchgate/launchgate/deploy"
)

// serveVersion is a replica whose model file says how it behaves: good, slow
// (three times as slow), or errors. Anything else cannot be loaded. The gateway
// in front of it is the real one.
func serveVersion(args []string) {
	value := func(flag string) string { return args[slices.Index(args, flag)+1] }
	_, path, named := strings.Cut(value("--model"), "=")
	if !named {
		path = value("--model")
	}
	text, err := os.ReadFile(path)
	behaviour := strings.TrimSpace(strings.TrimPrefix(string(text), "GGUF")) // a deployment looks for these four bytes
	if err != nil || !slices.Contains([]string{"good", "good too", "slow", "errors"}, behaviour) {
		fmt.Fprintf(os.Stderr, "model file %s: %q is no model\n", path, behaviour)
		os.Exit(1)
	}
	takes := 30 * time.Millisecond
	if behaviour == "slow" {
		takes *= 3
	}
	var asked atomic.Int64
	mux := http.NewServeMux()
	mux.HandleFunc("/ready", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("/v1/models", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `{"object":"list","data":[{"id":"m","object":"model"}]}`)
	})
	mux.HandleFunc("/v1/chat/completions", func(w http.ResponseWriter, _ *http.Request) {
		if behaviour == "errors" && asked.Add(1)%2 == 0 {
			http.Error(w, `{"error":{"message":"the model does not do","type":"server_error"}}`, http.StatusInternalServerError)
			return
		}
		time.Sleep(takes)
		w.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprintf(w, "data: {\"model\":\"m\",\"choices\":[{\"delta\":{\"content\":%q},\"finish_reason\":\"stop\"}]}\n\ndata: {\"model\":\"m\",\"choices\":[],\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":1}}\n\ndata: [DONE]\n\n", behaviour)
	})
	server := &http.Server{Addr: value("--addr"), Handler: mux}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	drained := make(chan struct{})
	go func() { <-ctx.Done(); _ = server.Shutdown(context.Background()); close(drained) }()
	_ = server.ListenAndServe()
	<-drained
}

// programs is a folder with launchgate and with a reference-server in which
// only the replicas are not real.
func programs(t *testing.T) string {
	t.Helper()
	built, err := bin()
	if err != nil {
		t.Fatal(err)
	}
	self, err := filepath.Abs(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.Link(filepath.Join(built, "launchgate"), filepath.Join(dir, "launchgate")); err != nil {
		t.Fatal(err)
	}
	script := fmt.Sprintf("#!/bin/sh\nif [ \"$1\" = serve ]; then exec '%s' \"$@\"; fi\nexec '%s' \"$@\"\n", self, filepath.Join(built, "reference-server"))
	if err := os.WriteFile(filepath.Join(dir, "reference-server"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// Good versions go live under load without an error. The canary detects every
// kind of bad one, and the deployment rolls it back.
func TestReleases(t *testing.T) {
	programs, dir, files := programs(t), filepath.Join(t.TempDir(), "up"), t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(files, name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	gate := file("gate.yaml", strings.Replace(guardedGate, "{replicas: 2}", "{replicas: 3, model: "+file("v1", "GGUF good")+"}", 1))
	launchgate := func(args ...string) (int, string) {
		ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
		defer cancel()
		cmd := exec.CommandContext(ctx, filepath.Join(programs, "launchgate"), append(args, "--dir", dir)...)
		out, _ := cmd.CombinedOutput() // the exit code is checked below
		return cmd.ProcessState.ExitCode(), string(out)
	}
	if code, out := launchgate("up", gate); code != 0 {
		t.Fatalf("%d %s", code, out)
	}
	t.Cleanup(func() { launchgate("down"); nothingRuns(t, dir) })
	s, err := deploy.FindStanding(dir)
	if err != nil {
		t.Fatal(err)
	}
	registered := func() string {
		out, err := exec.Command(filepath.Join(programs, "reference-server"), "ledger", "models", "--ledger", filepath.Join(dir, "logs/gateway/ledger.db")).Output()
		if err != nil {
			t.Fatal(err)
		}
		return string(out)
	}
	for _, tt := range []struct {
		version, model string
		code           int
		says           string
		errors         int64 // the most errors that users may see
		status         string
	}{
		{"v2", "good too", checklist.ExitPass, "all 3 replicas serve version v2", 0, "live"},
		{"v3", "corrupt", checklist.ExitFail, "is no model", 0, "rejected"},
		{"v4", "errors", checklist.ExitFail, "answers were errors", 30, "rejected"},
		{"v5", "slow", checklist.ExitFail, "answers take", 0, "rejected"},
		{"v6", "good", checklist.ExitPass, "all 3 replicas serve version v6", 0, "live"},
	} {
		t.Run(tt.version+" "+tt.model, func(t *testing.T) {
			stop := userLoad(t, s)
			code, out := launchgate("release", "--version", tt.version, "--model", file(tt.version, tt.model))
			answered, failed := stop()
			t.Logf("%sof %d requests of users %d failed", out, answered, failed)
			if code != tt.code || !strings.Contains(out, tt.says) {
				t.Errorf("exit code %d, want %d and %q", code, tt.code, tt.says)
			}
			if failed > tt.errors || answered < 5 || tt.model == "errors" && failed == 0 {
				t.Errorf("of %d requests of users %d failed, and at most %d may", answered, failed, tt.errors)
			}
			if models := registered(); !strings.Contains(models, tt.version+" "+tt.status+" ") || strings.Count(models, " live ") != 1 {
				t.Errorf("the registry holds\n%s", models)
			}
			if m := regexp.MustCompile(`rolled back in ([0-9.]+) s`).FindStringSubmatch(out); tt.code == checklist.ExitFail && (m == nil || seconds(m[1]) > 10) {
				t.Errorf("the roll-back took %v", m)
			}
		})
	}
	t.Run("another file, and limits", func(t *testing.T) {
		for _, tt := range []struct {
			args []string
			code int
			says string
		}{
			{[]string{"--version", "v7", "--model", file("v7", "good"), "--sha256", "abc"}, checklist.ExitFail, "is corrupt or the wrong file"},
			{[]string{"--version", "v2", "--model", file("v2", "good")}, checklist.ExitFail, "registered with another file"},
			{[]string{"--version", "v8", "--model", filepath.Join(files, "none")}, checklist.ExitFail, "no such file"},
			{[]string{"--config", file("bad.yaml", "network: {rate: ten}")}, checklist.ExitFail, "rejected before anything was changed: "},
			{[]string{"--config", file("none.yaml", "rate: [")}, checklist.ExitFail, "rejected before anything was changed: limits: "},
			{[]string{"--config", file("good.yaml", "key: {rate: 7, burst: 7}")}, checklist.ExitPass, "version 1 of the configuration is in force"},
			{nil, checklist.ExitCouldNotRun, "needs one of --model and --config"},
		} {
			if code, out := launchgate(append([]string{"release"}, tt.args...)...); code != tt.code || !strings.Contains(out, tt.says) {
				t.Errorf("%v: %d %s", tt.args, code, out)
			}
		}
		if limits := string(readFile(t, filepath.Join(dir, "logs/gateway/gateway.yaml"))); !strings.Contains(limits, "rate: 7") || strings.Contains(limits, "rate: ten") {
			t.Errorf("the limits are\n%s", limits)
		}
	})
}

func seconds(text string) float64 {
	v, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return 1e9
	}
	return v
}

// userLoad sends thirty requests a second until it is stopped.
func userLoad(t *testing.T, s deploy.Standing) (stop func() (answered, failed int64)) {
	t.Helper()
	client := gatewayClient(t, s)
	key := strings.TrimSpace(string(readFile(t, s.KeyFile)))
	ctx, cancel := context.WithCancel(context.Background())
	var asking sync.WaitGroup
	var answered, failed atomic.Int64
	asking.Go(func() {
		for tick := time.NewTicker(time.Second / 30); ctx.Err() == nil; <-tick.C {
			asking.Go(func() {
				req, err := http.NewRequest(http.MethodPost, s.URL+"/v1/chat/completions", strings.NewReader(`{"stream":true}`))
				if err != nil {
					panic(err)
				}
				req.Header.Set("Authorization", "Bearer "+key)
				status, body := answerOf(client, req)
				answered.Add(1)
				if status != http.StatusOK || !strings.HasSuffix(body, "[DONE]\n\n") {
					failed.Add(1)
					t.Logf("%d %q", status, body)
				}
			})
		}
	})
	return func() (int64, int64) { cancel(); asking.Wait(); return answered.Load(), failed.Load() }
}
