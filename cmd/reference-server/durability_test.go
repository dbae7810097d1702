package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/launchgate/launchgate/reference-server/ledger"
)

// program is one process of the built reference server.
type program struct {
	cmd   *exec.Cmd
	ended chan struct{}
}

func (p *program) kill() { _ = p.cmd.Process.Kill(); <-p.ended }

// build builds the reference server once for a test.
func build(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "reference-server")
	if out, err := exec.Command("go", "build", "-o", path, ".").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return path
}

func start(t *testing.T, path string, args ...string) *program {
	t.Helper()
	return startCommand(t, exec.Command(path, args...))
}

func startCommand(t *testing.T, cmd *exec.Cmd) *program {
	t.Helper()
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid = true
	var log bytes.Buffer
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &program{cmd: cmd, ended: make(chan struct{})}
	go func() { _ = cmd.Wait(); close(p.ended) }()
	t.Cleanup(func() {
		p.killAll()
		if t.Failed() {
			t.Logf("%s: %s", cmd.Args[0], log.String())
		}
	})
	return p
}

// freeAddress is an address on which nobody listens. Its port is below Linux's
// ephemeral range, so the kernel does not give it to others.
func freeAddress(t *testing.T) string {
	t.Helper()
	for range 100 {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 10_000+rand.IntN(22_000)))
		if err == nil {
			defer l.Close()
			return l.Addr().String()
		}
	}
	t.Fatal("no port is free")
	return ""
}

func waitFor(t *testing.T, url string) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if resp, err := http.Get(url); err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s never answered 200", url)
		}
	}
}

// acknowledged is what was acknowledged to clients, so that they rely on it.
type acknowledged struct {
	mu         sync.Mutex
	tokens     map[string]int64 // of requests whose stream was seen to its end, by id
	background map[string]bool  // responses that were accepted
	cut        int              // requests without a complete answer
}

// stream asks one question and reads the answer.
func (a *acknowledged) stream(ctx context.Context, url, key string) {
	resp, body, err := ask(ctx, url+"/v1/chat/completions", key, `{"messages":[{"role":"user","content":"Tell me a story."}],"max_tokens":24,"stream":true,"stream_options":{"include_usage":true}}`)
	a.mu.Lock()
	defer a.mu.Unlock()
	if err != nil || resp.StatusCode != http.StatusOK || !strings.HasSuffix(body, "data: [DONE]\n\n") {
		a.cut++
		return
	}
	var used int64
	for line := range strings.Lines(body) {
		var event struct {
			Usage *struct {
				Output int64 `json:"completion_tokens"`
			}
		}
		if data, is := strings.CutPrefix(line, "data: {"); is && json.Unmarshal([]byte("{"+data), &event) == nil && event.Usage != nil {
			used = event.Usage.Output
		}
	}
	a.tokens[resp.Header.Get("X-Request-Id")] = used
}

// inBackground requests one background response.
func (a *acknowledged) inBackground(ctx context.Context, url, key string) {
	resp, body, err := ask(ctx, url+"/v1/responses", key, `{"input":"Tell me a story.","max_output_tokens":16,"background":true}`)
	var o struct{ ID, Status string }
	a.mu.Lock()
	defer a.mu.Unlock()
	if err != nil || resp.StatusCode != http.StatusOK || json.Unmarshal([]byte(body), &o) != nil || o.Status != "queued" {
		a.cut++
		return
	}
	a.background[o.ID] = true
}

func ask(ctx context.Context, url, key, body string) (*http.Response, string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		return nil, "", err
	}
	req.Header.Set("Authorization", "Bearer "+key)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp, string(b), err
}

// The gateway is killed with SIGKILL again and again under load. Acknowledged
// data is kept: the exact usage of every stream whose end a client saw, and
// every accepted background response, which another gateway computes. Other
// data may be missing, and nothing is there twice.
func TestNothingAcknowledgedIsLost(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped with -short: it takes ten seconds")
	}
	path, dir := build(t), t.TempDir()
	replica, frontEnd := freeAddress(t), freeAddress(t)
	books, limits := filepath.Join(dir, "ledger.db"), filepath.Join(dir, "gateway.yaml")
	if err := os.WriteFile(limits, []byte("network: {rate: 10000, burst: 10000}\nkey: {rate: 10000, burst: 10000}\ndegrade: {queue: 0}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(path, "ledger", "add-key", "--ledger", books, "--id", "k", "--tenant", "acme").Output()
	if err != nil {
		t.Fatal(err)
	}
	key, url := strings.TrimSpace(string(out)), "http://"+frontEnd
	start(t, path, "serve", "--addr", replica, "--metrics-addr", "127.0.0.1:0", "--grpc-addr", "", "--device", "cpu", "--device-file", filepath.Join(dir, "device.json"))
	gateway := func() *program {
		return start(t, path, "gateway", "--addr", frontEnd, "--metrics-addr", "127.0.0.1:0", "--ledger", books, "--config", limits, "--audit-log", filepath.Join(dir, "audit.log"), "--replica", "replica-0=http://"+replica)
	}
	running := gateway()
	waitFor(t, url+"/ready")

	ctx, stop := context.WithCancel(t.Context())
	acked := &acknowledged{tokens: map[string]int64{}, background: map[string]bool{}}
	var clients sync.WaitGroup
	for i := range 6 {
		clients.Go(func() {
			for ctx.Err() == nil {
				if i == 0 {
					acked.inBackground(ctx, url, key)
					time.Sleep(30 * time.Millisecond)
				} else {
					acked.stream(ctx, url, key)
				}
			}
		})
	}
	const kills = 4
	for range kills {
		time.Sleep(time.Duration(700+rand.IntN(600)) * time.Millisecond)
		running.kill()
		running = gateway()
		waitFor(t, url+"/ready")
	}
	time.Sleep(500 * time.Millisecond)
	stop()
	clients.Wait()
	if len(acked.tokens) < 20 || len(acked.background) < 5 || acked.cut == 0 {
		t.Fatalf("%d streams and %d background responses were acknowledged and %d requests cut: too few to prove anything", len(acked.tokens), len(acked.background), acked.cut)
	}

	l, err := ledger.Open(t.Context(), books)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	lost := 0
	for id, tokens := range acked.tokens {
		if u, err := l.UsageOf(t.Context(), id); err != nil || u.Output != tokens || tokens == 0 || u.Tenant != "acme" {
			lost++
			t.Errorf("request %s: the client saw %d tokens, the ledger has %+v (%v)", id, tokens, u, err)
		}
	}
	for id := range acked.background {
		for deadline := time.Now().Add(60 * time.Second); ; time.Sleep(50 * time.Millisecond) {
			r, err := l.ResponseOf(t.Context(), id, "acme")
			if errors.Is(err, ledger.ErrNotFound) || time.Now().After(deadline) {
				lost++
				t.Errorf("background response %s: %s (%v)", id, r.Status, err)
				break
			}
			if r.Status == "completed" || r.Status == "incomplete" {
				if u, err := l.UsageOf(t.Context(), id); err != nil || u.Output == 0 {
					t.Errorf("background response %s: usage %+v (%v)", id, u, err)
				}
				break
			}
		}
	}
	t.Logf("%d kills: %d streams and %d background responses acknowledged, %d requests cut, %d acknowledged ones lost", kills, len(acked.tokens), len(acked.background), acked.cut, lost)
}

// The gateway and its disk are lost under load. The ledger is restored from its
// second place. The missing records are not older than the replication lag.
func TestTheDiskIsLost(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped with -short: it takes five seconds")
	}
	path, dir, second := build(t), t.TempDir(), filepath.Join(t.TempDir(), "second-place")
	replica, frontEnd := freeAddress(t), freeAddress(t)
	books := filepath.Join(dir, "ledger.db")
	out, err := exec.Command(path, "ledger", "add-key", "--ledger", books, "--id", "k", "--tenant", "acme").Output()
	if err != nil {
		t.Fatal(err)
	}
	key, url := strings.TrimSpace(string(out)), "http://"+frontEnd
	limits := filepath.Join(dir, "gateway.yaml")
	if err := os.WriteFile(limits, []byte("network: {rate: 10000, burst: 10000}\nkey: {rate: 10000, burst: 10000}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	replicator := start(t, path, "ledger", "replicate", "--ledger", books, "--to", second)
	start(t, path, "serve", "--addr", replica, "--metrics-addr", "127.0.0.1:0", "--grpc-addr", "", "--device", "cpu", "--device-file", filepath.Join(dir, "device.json"))
	gateway := start(t, path, "gateway", "--addr", frontEnd, "--metrics-addr", "127.0.0.1:0", "--ledger", books, "--config", limits, "--audit-log", filepath.Join(dir, "audit.log"), "--replica", "replica-0=http://"+replica)
	waitFor(t, url+"/ready")

	type write struct {
		id string
		at time.Time
	}
	var mu sync.Mutex
	var writes []write
	ctx, stop := context.WithCancel(t.Context())
	var clients sync.WaitGroup
	for range 4 {
		clients.Go(func() {
			for ctx.Err() == nil {
				resp, body, err := ask(ctx, url+"/v1/chat/completions", key, `{"messages":[{"role":"user","content":"Hi."}],"max_tokens":4,"stream":true}`)
				if err == nil && resp.StatusCode == http.StatusOK && strings.HasSuffix(body, "data: [DONE]\n\n") {
					mu.Lock()
					writes = append(writes, write{resp.Header.Get("X-Request-Id"), time.Now()})
					mu.Unlock()
				}
			}
		})
	}
	time.Sleep(3 * time.Second)
	lost := time.Now()
	replicator.kill()
	gateway.kill()
	for _, end := range []string{"", "-wal", "-shm"} {
		if err := os.Remove(books + end); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
	}
	if err := os.RemoveAll(filepath.Join(dir, ".ledger.db-litestream")); err != nil {
		t.Fatal(err)
	}
	stop()
	clients.Wait()

	if out, err := exec.Command(path, "ledger", "restore", "--ledger", books, "--replica", second).CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	l, err := ledger.Open(t.Context(), books)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := l.KeyOf(t.Context(), key); err != nil {
		t.Errorf("the key is lost: %v", err)
	}
	missing, oldest := 0, time.Duration(0)
	for _, w := range writes {
		if _, err := l.UsageOf(t.Context(), w.id); err != nil {
			missing++
			oldest = max(oldest, lost.Sub(w.at))
		}
	}
	t.Logf("%d records acknowledged, %d lost with the disk, the oldest %s before it was", len(writes), missing, oldest.Round(time.Millisecond))
	if len(writes) < 50 || missing > len(writes)/2 || oldest > 10*time.Second { // far above the usual values, for a busy machine
		t.Errorf("of %d records %d are lost, the oldest %s old", len(writes), missing, oldest)
	}
}
