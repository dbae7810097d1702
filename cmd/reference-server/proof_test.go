package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/launchgate/launchgate/reference-server/ledger"
)

// Every part of the deployment is killed, hangs, becomes slow and is cut off,
// under streaming load. No acknowledged data is lost, no token is foreign or
// repeated, every failure is reported in bounded time, and everything recovers
// by itself.
func TestEveryPartFails(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped with -short: it takes a minute")
	}
	if _, err := os.Stat("/proc/self/stat"); err != nil {
		t.Skip("skipped: processes are stopped and gone on with as on Linux")
	}
	t.Run("PostgreSQL", func(t *testing.T) {
		h := newHall(t)
		h.postgres()
		h.serve(2)
		h.open("a")
		h.open("b")
		h.prometheus()
		h.load()
		for _, name := range []string{"gateway a", "replica 0", "ledger", "standby", "prometheus"} {
			h.fails(name)
		}
		h.settle()
	})
	t.Run("SQLite", func(t *testing.T) {
		h := newHall(t)
		h.books = filepath.Join(h.dir, "ledger.db")
		h.serve(1)
		h.open("a")
		second := h.replicate()
		h.load()
		h.fails("second place")
		h.settle()
		h.restored(second)
	})
}

// hall is a deployment of real parts.
type hall struct {
	t         *testing.T
	path, dir string
	books     string // the ledger's address, through its link if it has one
	direct    string // the ledger's own address
	key       string
	parts     map[string]*part
	frontEnds []string
	replicas  []string
	want      [4]string // the answers to the clients' questions
	stop      func()

	mu      sync.Mutex
	acked   acknowledged
	whole   int
	refused map[string]int // by status; a broken stream has the code of its error, or none
	longest time.Duration
}

// part is a process, and the network in front of it.
type part struct {
	run  func() *exec.Cmd
	now  *program
	link *link
	cut  func(bool) // cuts it off if it has no link
	back func() bool
}

func newHall(t *testing.T) *hall {
	return &hall{t: t, path: build(t), dir: t.TempDir(), parts: map[string]*part{}, refused: map[string]int{}, acked: acknowledged{tokens: map[string]int64{}, background: map[string]bool{}}}
}

func (h *hall) begin(name string, p *part) *part {
	h.t.Helper()
	p.now = startCommand(h.t, p.run())
	h.parts[name] = p
	return p
}

func (h *hall) program(args ...string) func() *exec.Cmd {
	return func() *exec.Cmd { return exec.Command(h.path, args...) }
}

func (h *hall) serve(n int) {
	for i := range n {
		at := freeAddress(h.t)
		p := h.begin(fmt.Sprintf("replica %d", i), &part{link: newLink(h.t, at), back: healthy("http://" + at + "/ready"),
			run: h.program("serve", "--addr", at, "--metrics-addr", "127.0.0.1:0", "--grpc-addr", "", "--threads", "1", "--device", "cpu", "--device-file", filepath.Join(h.dir, "device.json"))})
		h.replicas = append(h.replicas, "--replica", fmt.Sprintf("replica-%d=http://%s", i, p.link.at()))
	}
}

// open opens a gateway.
func (h *hall) open(name string) {
	h.t.Helper()
	limits := filepath.Join(h.dir, "gateway.yaml")
	if err := os.WriteFile(limits, []byte("network: {rate: 10000, burst: 10000}\nkey: {rate: 10000, burst: 10000}\ndegrade: {queue: 0}\n"), 0o600); err != nil {
		h.t.Fatal(err)
	}
	if h.key == "" {
		out, err := exec.Command(h.path, "ledger", "add-key", "--ledger", h.books, "--id", "k", "--tenant", "acme").Output()
		if err != nil {
			h.t.Fatal(err)
		}
		h.key = strings.TrimSpace(string(out))
	}
	at, metrics := freeAddress(h.t), freeAddress(h.t)
	p := h.begin("gateway "+name, &part{link: newLink(h.t, at), back: healthy("http://" + at + "/ready"),
		run: h.program(append([]string{"gateway", "--addr", at, "--metrics-addr", metrics, "--ledger", h.books, "--config", limits, "--audit-log", filepath.Join(h.dir, "audit.log")}, h.replicas...)...)})
	h.frontEnds = append(h.frontEnds, "http://"+p.link.at())
	h.parts["metrics "+name] = &part{link: newLink(h.t, metrics)}
	waitFor(h.t, "http://"+at+"/ready")
}

// postgres starts a primary and a synchronous standby.
func (h *hall) postgres() {
	t := h.t
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	if len(found) == 0 {
		t.Skip("skipped: PostgreSQL is not installed: apt-get install postgresql")
	}
	bin := filepath.Dir(slices.Max(found))
	dir, err := os.MkdirTemp("", "launchgate-pg-") // a folder that the user postgres can open
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	var as *syscall.Credential
	if os.Geteuid() == 0 {
		u, err := user.Lookup("postgres")
		if err != nil {
			t.Skip("skipped: the tests run as root, PostgreSQL refuses to, and there is no user postgres")
		}
		uid, _ := strconv.Atoi(u.Uid)
		gid, _ := strconv.Atoi(u.Gid)
		as = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
		if err := os.Chown(dir, uid, gid); err != nil {
			t.Fatal(err)
		}
	}
	command := func(name string, args ...string) *exec.Cmd {
		cmd := exec.Command(filepath.Join(bin, name), args...)
		cmd.Dir, cmd.SysProcAttr = dir, &syscall.SysProcAttr{Credential: as}
		return cmd
	}
	must := func(name string, args ...string) {
		t.Helper()
		if out, err := command(name, args...).CombinedOutput(); err != nil {
			t.Fatalf("%s %v: %v\n%s", name, args, err, out)
		}
	}
	server := func(name, at, conninfo string) *part {
		_, port, _ := net.SplitHostPort(at)
		return &part{
			run: func() *exec.Cmd {
				return command("postgres", "-D", filepath.Join(dir, name), "-p", port, "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="+dir, "-c", "shared_buffers=16MB",
					"-c", "max_wal_senders=4", "-c", "synchronous_standby_names=*", "-c", "wal_retrieve_retry_interval=200ms", "-c", "primary_conninfo="+conninfo)
			},
			back: func() bool { return command("pg_isready", "-q", "-h", "127.0.0.1", "-p", port).Run() == nil },
		}
	}
	at, behind := freeAddress(t), freeAddress(t)
	must("initdb", "-D", "primary", "-U", "ledger", "-A", "trust", "--no-sync")
	primary := h.begin("ledger", server("primary", at, ""))
	primary.link = newLink(t, at)
	eventually(t, "the primary is ready", primary.back)
	host, port, _ := net.SplitHostPort(at)
	must("pg_basebackup", "-h", host, "-p", port, "-U", "ledger", "-D", "standby", "-R", "--no-sync")
	feed := newLink(t, at) // from the primary to the standby
	host, port, _ = net.SplitHostPort(feed.at())
	standby := h.begin("standby", server("standby", behind, fmt.Sprintf("host=%s port=%s user=ledger", host, port)))
	standby.link = feed
	eventually(t, "the standby is ready", standby.back)
	h.books = fmt.Sprintf("postgres://ledger@%s/postgres?sslmode=disable", primary.link.at())
	h.direct = fmt.Sprintf("postgres://ledger@%s/postgres?sslmode=disable", at)
}

// prometheus starts a Prometheus that scrapes a gateway through a link.
func (h *hall) prometheus() {
	program, err := exec.LookPath("prometheus")
	if err != nil {
		return // its faults are skipped
	}
	config, at, link := filepath.Join(h.dir, "prometheus.yml"), freeAddress(h.t), h.parts["metrics a"].link
	text := fmt.Sprintf("global: {scrape_interval: 200ms, scrape_timeout: 200ms}\nscrape_configs:\n  - job_name: gateway\n    static_configs: [{targets: ['%s']}]\n", link.at())
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		h.t.Fatal(err)
	}
	up := func() bool {
		resp, err := http.Get("http://" + at + "/api/v1/query?query=" + url.QueryEscape(`up{job="gateway"} == 1`))
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		return err == nil && strings.Contains(string(b), `"value"`)
	}
	h.begin("prometheus", &part{link: link, back: up, run: func() *exec.Cmd {
		return exec.Command(program, "--config.file="+config, "--storage.tsdb.path="+filepath.Join(h.dir, "tsdb"), "--web.listen-address="+at, "--log.level=error")
	}})
	eventually(h.t, "Prometheus scrapes", up)
}

// replicate copies the ledger to a second place.
func (h *hall) replicate() (second string) {
	second = filepath.Join(h.dir, "second")
	away := second + ".away"
	h.begin("second place", &part{run: h.program("ledger", "replicate", "--ledger", h.books, "--to", second), back: func() bool { return true },
		cut: func(off bool) { // as if the disk were unmounted
			if off {
				_ = os.Rename(second, away)
				_ = os.WriteFile(second, nil, 0o600)
				return
			}
			_ = os.Remove(second)
			_ = os.Rename(away, second)
		}})
	eventually(h.t, "something is in the second place", func() bool { _, err := os.Stat(second); return err == nil })
	return second
}

// restored compares the second place with what was acknowledged to clients.
func (h *hall) restored(second string) {
	p := h.parts["second place"].now
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	<-p.ended
	to := filepath.Join(h.dir, "restored.db")
	if out, err := exec.Command(h.path, "ledger", "restore", "--ledger", to, "--replica", second).CombinedOutput(); err != nil {
		h.t.Fatalf("%v %s", err, out)
	}
	l, err := ledger.Open(h.t.Context(), to)
	if err != nil {
		h.t.Fatal(err)
	}
	defer l.Close()
	for id := range h.acked.tokens {
		if _, err := l.UsageOf(h.t.Context(), id); err != nil {
			h.t.Errorf("request %s is not in the second place: %v", id, err)
		}
	}
}

// load sends requests until the hall settles.
func (h *hall) load() {
	for i := range h.want {
		text, how, _ := h.question(h.frontEnds[0], i)
		if how != "" || text == "" {
			h.t.Fatalf("before anything failed: %q %s", text, how)
		}
		h.want[i] = text
	}
	ctx, cancel := context.WithCancel(context.Background())
	var asking sync.WaitGroup
	for i := range h.want {
		asking.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				h.stream(h.frontEnds[(i+n)%len(h.frontEnds)], i)
			}
		})
	}
	asking.Go(func() {
		for n := 0; ctx.Err() == nil; n++ {
			bounded, done := context.WithTimeout(context.Background(), 30*time.Second)
			h.acked.inBackground(bounded, h.frontEnds[n%len(h.frontEnds)], h.key)
			done()
			wait(ctx, 200*time.Millisecond)
		}
	})
	h.stop = sync.OnceFunc(func() { cancel(); asking.Wait() })
	h.t.Cleanup(h.stop)
}

func wait(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// question sends one request and returns the answer. how is empty if the answer
// is complete.
func (h *hall) question(frontEnd string, client int) (text, how string, ack func()) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	began := time.Now()
	resp, body, err := ask(ctx, frontEnd+"/v1/chat/completions", h.key, fmt.Sprintf(`{"messages":[{"role":"user","content":"Client %d asks about the number %d."}],"max_tokens":24,"temperature":0,"stream":true,"stream_options":{"include_usage":true}}`, client, 7*client))
	h.mu.Lock()
	h.longest = max(h.longest, time.Since(began))
	h.mu.Unlock()
	if resp == nil {
		return "", "connection: " + err.Error(), nil
	}
	var refusal struct{ Error struct{ Code string } }
	if resp.StatusCode != http.StatusOK {
		if err == nil && (json.Unmarshal([]byte(body), &refusal) != nil || refusal.Error.Code == "" || resp.Header.Get("Retry-After") == "") {
			h.t.Errorf("%s %v %s: that is no refusal to retry after", resp.Status, resp.Header, body)
		}
		return "", refusal.Error.Code, nil
	}
	done, used := false, int64(0)
	for line := range strings.Lines(body) {
		data, is := strings.CutPrefix(strings.TrimSpace(line), "data: ")
		var event struct {
			Error   *struct{ Code string }
			Choices []struct{ Delta struct{ Content string } }
			Usage   *struct {
				Output int64 `json:"completion_tokens"`
			}
		}
		switch {
		case !is:
		case data == "[DONE]":
			done = true
		case json.Unmarshal([]byte(data), &event) != nil: // the stream broke inside an event
		case event.Error != nil:
			how = "broke off: " + event.Error.Code
		case event.Usage != nil:
			used = event.Usage.Output
		case len(event.Choices) > 0:
			text += event.Choices[0].Delta.Content
		}
	}
	switch {
	case done && how == "":
		id := resp.Header.Get("X-Request-Id")
		return text, "", func() { h.acked.mu.Lock(); h.acked.tokens[id] = used; h.acked.mu.Unlock() }
	case how == "" && err == nil:
		h.t.Errorf("client %d: the stream ended in silence after %q", client, text)
		how = "silence"
	case how == "":
		how = "broke off"
	}
	return text, how, nil
}

// stream sends a client's question and compares the answer with the expected
// one.
func (h *hall) stream(frontEnd string, client int) (whole bool) {
	text, how, ack := h.question(frontEnd, client)
	if how == "" && text == h.want[client] {
		ack()
	} else if how == "" || !strings.HasPrefix(h.want[client], text) {
		h.t.Errorf("client %d got\n%q, and should have\n%q (%s)", client, text, h.want[client], how)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if how == "" {
		h.whole++
	} else {
		code, _, _ := strings.Cut(how, ": ")
		h.refused[code]++
	}
	return how == ""
}

// fails makes a part fail in every way.
func (h *hall) fails(name string) {
	p := h.parts[name]
	if p == nil {
		h.t.Run(name, func(t *testing.T) { t.Skip("skipped: it is not installed: apt-get install prometheus") })
		return
	}
	for _, fault := range []struct {
		name     string
		do, undo func()
		hold     time.Duration
	}{
		{"is killed", func() { p.now.killAll() }, func() { p.now = startCommand(h.t, p.run()) }, 300 * time.Millisecond},
		{"hangs", func() { p.now.signalAll(syscall.SIGSTOP) }, func() { p.now.signalAll(syscall.SIGCONT) }, 700 * time.Millisecond},
		{"is slow", func() { p.slow(true) }, func() { p.slow(false) }, 700 * time.Millisecond},
		{"is cut off", func() { p.disconnect(true) }, func() { p.disconnect(false) }, 500 * time.Millisecond},
	} {
		h.t.Run(name+" "+fault.name, func(t *testing.T) {
			before := h.outcomes()
			fault.do()
			if name == "ledger" && fault.name == "hangs" { // until a request was refused because of it
				eventually(t, "a request is refused because of the ledger", func() bool {
					h.stream(h.frontEnds[0], 0)
					return h.outcomes()["ledger_unavailable"] > before["ledger_unavailable"]
				})
			}
			time.Sleep(fault.hold)
			fault.undo()
			began := time.Now()
			eventually(t, "the part is back", func() bool {
				select {
				case <-p.now.ended: // its own leftovers prevented a restart
					p.now = startCommand(h.t, p.run())
				default:
				}
				return p.back()
			})
			for _, frontEnd := range h.frontEnds {
				eventually(t, "an answer comes whole from "+frontEnd, func() bool { return h.stream(frontEnd, 0) })
			}
			after := h.outcomes()
			for how := range after {
				if after[how] -= before[how]; after[how] == 0 {
					delete(after, how)
				}
			}
			t.Logf("all answers are whole %s after its end; meanwhile %v", time.Since(began).Round(10*time.Millisecond), after)
			delete(after, "whole")
			if (name == "prometheus" || name == "second place") && len(after) > 0 {
				t.Errorf("clients noticed: %v", after)
			}
		})
	}
}

func (h *hall) outcomes() map[string]int {
	h.mu.Lock()
	defer h.mu.Unlock()
	all := map[string]int{"whole": h.whole}
	for code, n := range h.refused {
		all[code] = n
	}
	return all
}

// settle ends the load and compares the ledger with what was acknowledged to
// clients.
func (h *hall) settle() {
	h.stop()
	at := h.books
	if h.direct != "" {
		at = h.direct
	}
	l, err := ledger.Open(h.t.Context(), at)
	if err != nil {
		h.t.Fatal(err)
	}
	defer l.Close()
	if len(h.acked.tokens) < 20 || len(h.acked.background) < 5 {
		h.t.Errorf("%d streams and %d background responses were acknowledged: too few to prove anything", len(h.acked.tokens), len(h.acked.background))
	}
	for id, tokens := range h.acked.tokens {
		if u, err := l.UsageOf(h.t.Context(), id); err != nil || u.Output != tokens || tokens == 0 {
			h.t.Errorf("request %s: the client saw %d tokens, the ledger has %+v (%v)", id, tokens, u, err)
		}
	}
	for id := range h.acked.background {
		eventually(h.t, "the background response "+id+" is computed", func() bool {
			r, err := l.ResponseOf(h.t.Context(), id, "acme")
			if errors.Is(err, ledger.ErrNotFound) {
				h.t.Fatalf("the background response %s is lost", id)
			}
			return r.Status == "completed" || r.Status == "incomplete"
		})
	}
	if h.longest > 25*time.Second {
		h.t.Errorf("a request took %s to fail or to end", h.longest)
	}
	h.t.Logf("%v; %d streams and %d background responses acknowledged, none lost; the longest request took %s", h.outcomes(), len(h.acked.tokens), len(h.acked.background), h.longest.Round(10*time.Millisecond))
}

func (p *part) disconnect(off bool) {
	if p.cut != nil {
		p.cut(off)
		return
	}
	p.link.cut(off)
}

// slow delays the network in front of a part. A part without a link is stopped
// most of the time.
func (p *part) slow(on bool) {
	if p.link != nil {
		p.link.slow(on)
		return
	}
	if !on {
		return
	}
	for range 8 {
		p.now.signalAll(syscall.SIGSTOP)
		time.Sleep(70 * time.Millisecond)
		p.now.signalAll(syscall.SIGCONT)
		time.Sleep(10 * time.Millisecond)
	}
}

func healthy(at string) func() bool {
	client := &http.Client{Timeout: 2 * time.Second}
	return func() bool {
		resp, err := client.Get(at)
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	}
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(60 * time.Second); !is(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 60 s: %s", what)
		}
	}
}

// signalAll signals a process and all its descendants, because those of
// PostgreSQL have sessions of their own.
func (p *program) signalAll(s syscall.Signal) (pids []int) {
	pids = []int{p.cmd.Process.Pid}
	for i := 0; i < len(pids); i++ {
		_ = syscall.Kill(pids[i], s)
		children, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pids[i], pids[i]))
		for _, child := range strings.Fields(string(children)) {
			if pid, err := strconv.Atoi(child); err == nil {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

// killAll kills the program and returns when all its processes are gone.
func (p *program) killAll() {
	select {
	case <-p.ended:
		return
	default:
	}
	pids := p.signalAll(syscall.SIGSTOP)
	for _, pid := range pids {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	<-p.ended
	for _, pid := range pids {
		for range 500 {
			stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
			if err != nil || strings.Contains(string(stat), ") Z ") {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
}

// link is a TCP network in front of an address, which can be slow or cut.
type link struct {
	l  net.Listener
	to string

	mu    sync.Mutex
	conns map[net.Conn]bool
	off   bool
	late  time.Duration // delay of each piece of data
	ends  sync.WaitGroup
}

func newLink(t *testing.T, to string) *link {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	k := &link{l: l, to: to, conns: map[net.Conn]bool{}}
	k.ends.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			k.ends.Go(func() { k.join(c) })
		}
	})
	t.Cleanup(func() { l.Close(); k.cut(true); k.ends.Wait() })
	return k
}

func (k *link) at() string { return k.l.Addr().String() }

// join forwards one connection in both directions.
func (k *link) join(in net.Conn) {
	defer in.Close()
	out, err := net.Dial("tcp", k.to)
	if err != nil {
		return
	}
	defer out.Close()
	k.mu.Lock()
	if k.off {
		k.mu.Unlock()
		return
	}
	k.conns[in], k.conns[out] = true, true
	k.mu.Unlock()
	var both sync.WaitGroup
	pass := func(to, from net.Conn) {
		defer to.Close() // ends the other direction too
		b := make([]byte, 32<<10)
		for {
			n, err := from.Read(b)
			k.mu.Lock()
			late := k.late
			k.mu.Unlock()
			time.Sleep(late)
			if _, werr := to.Write(b[:n]); err != nil || werr != nil {
				return
			}
		}
	}
	both.Go(func() { pass(out, in) })
	both.Go(func() { pass(in, out) })
	both.Wait()
	k.mu.Lock()
	delete(k.conns, in)
	delete(k.conns, out)
	k.mu.Unlock()
}

func (k *link) cut(off bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.off = off
	for c := range k.conns {
		if off {
			c.Close()
		}
	}
}

func (k *link) slow(on bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.late = map[bool]time.Duration{true: 50 * time.Millisecond}[on]
}
