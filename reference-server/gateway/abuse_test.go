package gateway

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/launchgate/launchgate/reference-server/ledger"
)

// storyteller is a replica that streams n words, one at a time, and ends where
// its client leaves. It reads a request as encoding/json does: names in any case.
func storyteller(n int, every time.Duration) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		lower := strings.ToLower(string(body))
		if !strings.Contains(lower, `"stream":true`) {
			fmt.Fprintf(w, `{"model":"m","status":"completed","usage":{"prompt_tokens":3,"completion_tokens":%d}}`, n)
			return
		}
		w.Header().Set("Content-Type", "text/event-stream")
		w.Header().Set(headerPrompt, "11")
		for i := range n {
			if _, err := fmt.Fprintf(w, "data: {\"choices\":[{\"delta\":{\"content\":\"w%d \"}}],\"usage\":null}\n\n", i); err != nil || r.Context().Err() != nil {
				return
			}
			w.(http.Flusher).Flush()
			if every > 0 {
				time.Sleep(every)
			}
		}
		if strings.Contains(lower, `"include_usage":true`) {
			fmt.Fprintf(w, "data: {\"model\":\"m\",\"choices\":[],\"usage\":{\"prompt_tokens\":11,\"completion_tokens\":%d}}\n\n", n)
		}
		fmt.Fprint(w, "data: [DONE]\n\n")
	}
}

// billed waits for the record of a request.
func (h *house) billed(id string) (ledger.Usage, error) {
	h.t.Helper()
	var u ledger.Usage
	var err error
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if u, err = h.books.UsageOf(h.t.Context(), id); err == nil {
			return u, nil
		}
	}
	return u, err
}

// What is asked for is billed in every spelling that is answered, and the others
// are refused.
func TestUsageIsKeptInEverySpelling(t *testing.T) {
	h := newHouse(t, generous(), openBooks(t), newBackend(t, storyteller(5, 0)))
	for _, body := range []string{
		`{"stream":true}`, `{"Stream":true}`, `{"STREAM":true}`, `{"ſtream":true}`, `{"\u0073tream":true}`, `{"stream":false,"stream":true}`, `{"stream":false,"Stream":true}`,
		`{"stream":true,"stream_options":{"include_usage":true,"INCLUDE_USAGE":false}}`, `{"stream":true,"stream_options":{"include_usage":true},"STREAM_OPTIONS":{}}`,
		`{"stream":true,"stream_options":{"include_usage":false}}`, `{"stream":true,"stream_options":[]}`, `{"stream":true} x`, " \n{\"stream\":true}", "\xef\xbb\xbf{\"stream\":true}",
	} {
		resp, got := h.ask("POST", "/v1/chat/completions", h.secret, body)
		if resp.StatusCode == 400 {
			if h.backendSaw(t) {
				t.Errorf("%q is refused, and the replica was asked", body)
			}
			continue
		}
		if u, err := h.billed(resp.Header.Get("X-Request-Id")); err != nil || u.Output != 5 {
			t.Errorf("%q: %s %.80q is billed %+v %v", body, resp.Status, got, u, err)
		}
	}
	for _, body := range []string{`{"Background":true,"input":"q"}`, `{"background":true,"background":false}`} {
		if resp, got := h.ask("POST", "/v1/responses", h.secret, body); resp.StatusCode != 400 {
			t.Errorf("%s: %s %s", body, resp.Status, got)
		}
	}
}

// backendSaw reports whether a request is under way at a replica.
func (h *house) backendSaw(*testing.T) bool { return h.g.balancer.load() > 0 }

// A stream that is left before its end is billed what was computed of it.
func TestLeavingIsBilled(t *testing.T) {
	h := newHouse(t, generous(), openBooks(t), newBackend(t, storyteller(100_000, time.Millisecond)))
	req, _ := http.NewRequest("POST", h.url+"/v1/chat/completions", strings.NewReader(`{"stream":true}`))
	req.Header.Set("Authorization", "Bearer "+h.secret)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(resp.Body)
	seen := int64(0)
	for seen < 50 && lines.Scan() {
		if strings.HasPrefix(lines.Text(), "data: ") {
			seen++
		}
	}
	resp.Body.Close()
	u, err := h.billed(resp.Header.Get("X-Request-Id"))
	if err != nil || u.Output < seen || u.Prompt != 11 {
		t.Errorf("%d parts were read, %+v is billed (%v)", seen, u, err)
	}
	waitIdle(t, h.g) // and the replica goes on for nobody
}

// A client that leaves before its answer begins is billed what the replica says
// that it computed until then, and its prompt where the replica says nothing;
// what a replica never got is not billed.
func TestLeavingBeforeTheAnswerIsBilled(t *testing.T) {
	for name, tt := range map[string]struct {
		path, tells    string
		status         int
		prompt, output int64 // 0, 0: nothing is billed
	}{
		"whole":            {"/v1/chat/completions", `{"id":%q,"object":"usage","usage":{"prompt_tokens":12,"completion_tokens":7}}`, 200, 12, 7},
		"response":         {"/v1/responses", `{"id":%q,"object":"usage","usage":{"prompt_tokens":12,"completion_tokens":0}}`, 200, 12, 0},
		"another server":   {"/v1/chat/completions", `{"detail":"Not Found %s"}`, 404, 10, 0},
		"another request":  {"/v1/chat/completions", `{"id":"other than %s","object":"usage","usage":{"prompt_tokens":12,"completion_tokens":7}}`, 200, 10, 0},
		"nothing computed": {"/v1/chat/completions", `{"id":%q,"object":"usage","usage":{"prompt_tokens":0,"completion_tokens":0}}`, 200, 0, 0},
		"never got it":     {"/v1/chat/completions", `{"error":{"code":"usage_not_found","message":"%s"}}`, 404, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			got, asked := make(chan string, 1), make(chan struct{}, 1)
			h := newHouse(t, generous(), openBooks(t), newBackend(t, func(w http.ResponseWriter, r *http.Request) {
				if id, ok := strings.CutPrefix(r.URL.Path, "/usage/"); ok {
					w.WriteHeader(tt.status)
					fmt.Fprintf(w, tt.tells, id)
					asked <- struct{}{}
					return
				}
				_, _ = io.Copy(io.Discard, r.Body)
				got <- r.Header.Get(headerRequest)
				<-r.Context().Done()
			}))
			ctx, cancel := context.WithCancel(t.Context())
			go func() {
				req, _ := http.NewRequestWithContext(ctx, "POST", h.url+tt.path, strings.NewReader(`{"input":"a question of 40 bytes or so"}`))
				req.Header.Set("Authorization", "Bearer "+h.secret)
				if resp, err := http.DefaultClient.Do(req); err == nil {
					resp.Body.Close()
				}
			}()
			id := <-got
			cancel()
			<-asked
			if tt.prompt+tt.output == 0 {
				waitIdle(t, h.g)
				if u, err := h.books.UsageOf(t.Context(), id); !errors.Is(err, ledger.ErrNotFound) {
					t.Errorf("%+v is billed (%v), want nothing", u, err)
				}
				return
			}
			if u, err := h.billed(id); err != nil || u.Prompt != tt.prompt || u.Output != tt.output {
				t.Errorf("%+v is billed (%v), want %d and %d", u, err, tt.prompt, tt.output)
			}
		})
	}
}

// Some servers tell the usage with every part: the last counts, not the first.
func TestUsageWithEveryPart(t *testing.T) {
	h := newHouse(t, generous(), openBooks(t), newBackend(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for i := range 5 {
			fmt.Fprintf(w, "data: {\"choices\":[{\"delta\":{\"content\":\"x\"}}],\"usage\":{\"prompt_tokens\":2,\"completion_tokens\":%d}}\r\n\r\n", i+1)
		}
		fmt.Fprint(w, "data: [DONE]\r\n\r\n")
	}))
	resp, _ := h.ask("POST", "/v1/chat/completions", h.secret, `{"stream":true,"stream_options":{"continuous_usage_stats":true,"include_usage":true}}`)
	if u, err := h.billed(resp.Header.Get("X-Request-Id")); err != nil || u.Output != 5 || u.Prompt != 2 {
		t.Errorf("%+v %v", u, err)
	}
}

// Answers that nobody reads are no load, and are billed.
func TestUnreadAnswersAreNoLoad(t *testing.T) {
	c := generous()
	c.Degrade.Queue = 2
	h := newHouse(t, c, openBooks(t), newBackend(t, storyteller(20, 0)))
	const streams = 30
	first := h.key(ledger.Key{ID: "first", Tenant: "first", Class: "interactive", Scopes: []string{"inference"}}) // never refused
	var ids []string
	for range streams {
		conn, err := net.Dial("tcp", strings.TrimPrefix(h.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_ = conn.(*net.TCPConn).SetReadBuffer(1 << 10)
		body := `{"stream":true}`
		fmt.Fprintf(conn, "POST /v1/chat/completions HTTP/1.1\r\nHost: frontEnd\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n%s", first, len(body), body)
		head := bufio.NewReaderSize(conn, 16)
		for {
			line, err := head.ReadString('\n')
			if err != nil {
				t.Fatal(err)
			}
			if id, ok := strings.CutPrefix(line, "X-Request-Id: "); ok {
				ids = append(ids, strings.TrimSpace(id))
				break
			}
		}
	}
	for deadline := time.Now().Add(10 * time.Second); h.g.balancer.load() > 0; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("load is %v, though the replica computes nothing", h.g.balancer.load())
		}
	}
	low := h.key(ledger.Key{ID: "low", Tenant: "low", Class: "batch", Scopes: []string{"inference"}})
	if resp, body := h.ask("POST", "/v1/chat/completions", low, "{}"); resp.StatusCode != 200 || resp.Header.Get("X-Launchgate-Degraded") != "" {
		t.Errorf("another tenant, of the least class: %s %s %v", resp.Status, body, resp.Header)
	}
	for _, id := range ids {
		if u, err := h.billed(id); err != nil || u.Output != 20 {
			t.Errorf("%+v %v", u, err)
		}
	}
}

// A long answer that is not read waits in its replica, and is no load either.
func TestStalledStreamsAreNoLoad(t *testing.T) {
	p := &passing{b: &balancer{}, rep: &replica{work: 3, inFlight: 1}, weight: 3}
	for _, step := range []struct {
		waits bool
		work  int
	}{{true, 0}, {true, 0}, {false, 3}, {true, 0}} {
		if p.stall(step.waits); p.rep.work != step.work {
			t.Errorf("%+v: work is %d", step, p.rep.work)
		}
	}
}

// Nothing that a client does takes a replica out: what the replica fails at, and
// all others too, is the request's fault.
func TestClientsCannotEject(t *testing.T) {
	poison := func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		switch {
		case strings.Contains(string(body), "poison"):
			panic(http.ErrAbortHandler)
		case strings.Contains(string(body), "later"):
			w.Header().Set("Content-Type", "text/event-stream")
			fmt.Fprint(w, "data: {\"choices\":[{\"delta\":{\"content\":\"x\"}}]}\n\n")
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}
		answering(w, r)
	}
	overBoth(t, func(t *testing.T, newBackend func(*testing.T, http.HandlerFunc) *backend) {
		backends := []*backend{newBackend(t, poison), newBackend(t, poison), newBackend(t, poison)}
		h := newHouse(t, generous(), openBooks(t), backends...)
		other := h.key(ledger.Key{ID: "other", Tenant: "other", Class: "standard", Scopes: []string{"inference"}})
		for i := range 12 {
			h.ask("POST", "/v1/chat/completions", h.secret, `{"a":"poison"}`)
			req, _ := http.NewRequest("POST", h.url+"/v1/chat/completions", strings.NewReader(`{"a":"later","stream":true}`))
			req.Header.Set("Authorization", "Bearer "+h.secret)
			if resp, err := http.DefaultClient.Do(req); err == nil {
				_, _ = io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
			}
			h.ask("POST", "/v1/chat/completions", h.secret, `{"max_tokens":9223372036854775807}`)
			req, _ = http.NewRequest("GET", h.url+"/v1/models", nil)
			req.Header.Set("Authorization", "Bearer "+h.secret)
			req.Header.Set("Connection", "Upgrade")
			req.Header.Set("Upgrade", "foo")
			if resp, err := http.DefaultClient.Do(req); err != nil || resp.StatusCode != 200 {
				t.Errorf("%+v %v", resp, err)
			} else {
				resp.Body.Close()
			}
			if resp, body := h.ask("POST", "/v1/chat/completions", other, "{}"); resp.StatusCode != 200 {
				t.Errorf("after %d rounds another tenant gets %s %s", i, resp.Status, body)
			}
		}
		time.Sleep(200 * time.Millisecond)
		for _, r := range h.g.balancer.status().Replicas {
			if !r.Ready || r.Outages != 0 {
				t.Errorf("%+v", r)
			}
		}
	})
}

// A replica that answers nothing is taken out, also where there is no other.
func TestAloneReplicaIsEjected(t *testing.T) {
	h := newHouse(t, generous(), openBooks(t), newBackend(t, die))
	for range maxFailures {
		h.ask("POST", "/v1/chat/completions", h.secret, "{}")
	}
	for deadline := time.Now().Add(5 * time.Second); h.g.balancer.status().Replicas[0].Ready; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%+v", h.g.balancer.status())
		}
	}
}

// Each answer that a request asks for counts as a request.
func TestAnswersCount(t *testing.T) {
	c := generous()
	c.Key = Limit{0.01, 20}
	h := newHouse(t, c, openBooks(t), newBackend(t, answering))
	if resp, body := h.ask("POST", "/v1/chat/completions", h.secret, `{"n":16}`); resp.StatusCode != 200 {
		t.Fatalf("%s %s", resp.Status, body)
	}
	if resp, body := h.ask("POST", "/v1/chat/completions", h.secret, `{"n":16}`); resp.StatusCode != 429 || codeOf(body) != "rate_limit_exceeded" {
		t.Errorf("the limit of a key: %s %s", resp.Status, body)
	}
	c = generous()
	c.Tenant = Budget{Concurrency: 20}
	held := make(chan struct{})
	var begun atomic.Int64
	h = newHouse(t, c, openBooks(t), newBackend(t, func(w http.ResponseWriter, r *http.Request) {
		begun.Add(1)
		<-held
		answering(w, r)
	}))
	var waiting sync.WaitGroup
	waiting.Go(func() { h.ask("POST", "/v1/chat/completions", h.secret, `{"n":16}`) })
	for begun.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	if got := h.g.balancer.load(); got != 16 {
		t.Errorf("load is %v, want 16", got)
	}
	for body, want := range map[string]string{`{"n":16}`: "concurrency_exceeded", `{"n":21}`: "concurrency_exceeded"} {
		if resp, got := h.ask("POST", "/v1/chat/completions", h.secret, body); resp.StatusCode != 429 || codeOf(got) != want {
			t.Errorf("%s: %s %s", body, resp.Status, got)
		}
	}
	close(held)
	waiting.Wait()

	c = generous()
	c.Tenant = Budget{TokensPerMinute: 1000}
	again := make(chan struct{})
	begun.Store(0)
	h = newHouse(t, c, openBooks(t), newBackend(t, func(w http.ResponseWriter, r *http.Request) {
		begun.Add(1)
		<-again
		answering(w, r)
	}))
	waiting.Go(func() { h.ask("POST", "/v1/chat/completions", h.secret, `{"n":10,"max_tokens":200}`) })
	for begun.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	if resp, got := h.ask("POST", "/v1/chat/completions", h.secret, `{}`); resp.StatusCode != 429 || codeOf(got) != "tokens_exceeded" {
		t.Errorf("beside what may use the whole budget: %s %s", resp.Status, got)
	}
	close(again)
	waiting.Wait()
}

// Neither errors nor headers tell a tenant of the inside; a key of that scope
// is told.
func TestInternalsAreNotExposed(t *testing.T) {
	b := newBackend(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Launchgate-Backend", "cpu avx2")
		w.Header().Set("Cache-Control", "no-cache")
		if r.URL.Path == "/v1/broken" {
			panic(http.ErrAbortHandler)
		}
		answering(w, r)
	})
	h := newHouse(t, generous(), openBooks(t), b)
	inside := h.key(ledger.Key{ID: "inside", Tenant: "ops", Class: "standard", Scopes: []string{"inference", "inside"}})
	for _, path := range []string{"/v1/chat/completions", "/v1/broken"} {
		resp, body := h.ask("POST", path, h.secret, "{}")
		if said := fmt.Sprint(resp.Header, body); strings.Contains(said, "replica-0") || strings.Contains(said, "127.0.0.1") || strings.Contains(said, "avx2") || strings.Contains(said, "EOF") {
			t.Errorf("%s: %s", path, said)
		}
		if got := resp.Header.Values("Cache-Control"); len(got) != 1 || got[0] != "no-store" {
			t.Errorf("%s: Cache-Control %q", path, got)
		}
	}
	if resp, _ := h.ask("POST", "/v1/chat/completions", inside, "{}"); resp.Header.Get(HeaderReplica) != "replica-0" || resp.Header.Get(HeaderRetries) != "0" {
		t.Errorf("%v", resp.Header)
	}
	if _, body := h.ask("POST", "/v1/broken", inside, "{}"); !strings.Contains(body, "replica-0") {
		t.Errorf("%s", body)
	}
}

// A replica learns for whom it works from its gateway only.
func TestReplicasAreIntroduced(t *testing.T) {
	saw := make(chan http.Header, 10)
	h := newHouse(t, generous(), openBooks(t), newBackend(t, func(w http.ResponseWriter, r *http.Request) { saw <- r.Header; answering(w, r) }))
	h.g.Secret("a secret of many letters")
	req, _ := http.NewRequest("POST", h.url+"/v1/chat/completions", strings.NewReader("{}"))
	for name, value := range map[string]string{"Authorization": "Bearer " + h.secret, "X-Launchgate-Tenant": "another", "X-Launchgate-Class": "3", "X-Launchgate-Secret": "guess", "X-Launchgate-Weight": "100", "Cookie": "a=b", "Connection": "X-Odd", "X-Odd": "1", "Upgrade": "h2c"} {
		req.Header.Set(name, value)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	got := <-saw
	for name, want := range map[string]string{headerTenant: "acme", headerClass: "2", headerSecret: "a secret of many letters", headerRequest: resp.Header.Get("X-Request-Id"), "X-Launchgate-Weight": "", "Cookie": "", "X-Odd": "", "Upgrade": "", "Authorization": ""} {
		if values := got.Values(name); strings.Join(values, "|") != want {
			t.Errorf("%s is %q, want %q", name, values, want)
		}
	}
}

// What is held of bodies has bounds, whatever letters they have, and is let go of
// when an answer begins.
func TestBodiesAreBounded(t *testing.T) {
	c := generous()
	c.Bodies = Bodies{Tenant: 5, All: 9}
	held, begun := make(chan struct{}), make(chan struct{}, 10)
	h := newHouse(t, c, openBooks(t), newBackend(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		if r.URL.Path == "/v1/held" {
			begun <- struct{}{}
			<-held
		}
		answering(w, r)
	}))
	other := h.key(ledger.Key{ID: "other", Tenant: "other", Class: "standard", Scopes: []string{"inference"}})
	big := `{"input":"` + strings.Repeat("<", 2<<20) + `"}`
	var waiting sync.WaitGroup
	waiting.Go(func() { h.ask("POST", "/v1/held", h.secret, big) })
	<-begun
	if resp, body := h.ask("POST", "/v1/chat/completions", h.secret, big); resp.StatusCode != 429 || codeOf(body) != "too_many_bytes" || resp.Header.Get("Retry-After") == "" {
		t.Errorf("the second of the tenant: %s %.200s", resp.Status, body)
	}
	if resp, body := h.ask("POST", "/v1/chat/completions", other, big); resp.StatusCode != 200 {
		t.Errorf("another tenant's: %s %.200s", resp.Status, body)
	}
	close(held)
	waiting.Wait()
	for range 5 { // what is over is not counted
		if resp, body := h.ask("POST", "/v1/chat/completions", h.secret, big); resp.StatusCode != 200 {
			t.Errorf("%s %.200s", resp.Status, body)
		}
	}
	h.g.bodies.mu.Lock()
	defer h.g.bodies.mu.Unlock()
	if h.g.bodies.all != 0 || len(h.g.bodies.tenants) != 0 {
		t.Errorf("%+v", h.g.bodies.tenants)
	}
}

// A body as large as may be is taken in every form, also where it is rewritten.
func TestLargeBodiesOfAnyLetters(t *testing.T) {
	h := newHouse(t, generous(), openBooks(t), newBackend(t, func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		fmt.Fprintf(w, `{"took":%d}`, n)
	}))
	body := `{"stream":true,"input":"` + strings.Repeat("<>&", (maxBody-100)/3) + `"}`
	if resp, got := h.ask("POST", "/v1/chat/completions", h.secret, body); resp.StatusCode != 200 || !strings.Contains(got, fmt.Sprint(len(body)+len(`,"stream_options":{"include_usage":true}`))) {
		t.Errorf("%s %.200s", resp.Status, got)
	}
}

// Background responses past the bounds are refused, and those that were
// acknowledged stay.
func TestBackgroundIsBounded(t *testing.T) {
	c := generous()
	c.Background.Tenant = Stored{Responses: 3, Megabytes: 1}
	b := newBackend(t, answering)
	h := newHouse(t, c, openBooks(t), b)
	b.ready.Store(false)
	waitReady(t, h.g, 0)
	ask := func(secret, input string) string {
		resp, body := h.ask("POST", "/v1/responses", secret, `{"background":true,"input":"`+input+`"}`)
		return resp.Status + " " + codeOf(body)
	}
	if got := ask(h.secret, strings.Repeat("<", 2<<20)); got != "429 Too Many Requests background_full" {
		t.Errorf("2 MiB: %s", got)
	}
	for i := range 3 {
		if got := ask(h.secret, "q"); got != "200 OK " {
			t.Errorf("%d: %s", i, got)
		}
	}
	if got := ask(h.secret, "q"); got != "429 Too Many Requests background_full" {
		t.Errorf("the fourth: %s", got)
	}
	other := h.key(ledger.Key{ID: "other", Tenant: "other", Class: "standard", Scopes: []string{"inference"}})
	if got := ask(other, "q"); got != "200 OK " {
		t.Errorf("another tenant: %s", got)
	}
	if counts, err := h.books.Count(t.Context()); err != nil || counts["responses"] != 4 {
		t.Errorf("%v %v", counts, err)
	}
}

// fullDisk is an audit log that can be made to fail.
type fullDisk struct {
	lockedBuffer
	fails atomic.Bool
}

func (f *fullDisk) Write(b []byte) (int, error) {
	if f.fails.Load() {
		return 0, errors.New("no space left on device")
	}
	return f.lockedBuffer.Write(b)
}

// While requests cannot be written down none is served, unless that is chosen;
// what was under way is written down later.
func TestAuditLogThatCannotBeWritten(t *testing.T) {
	for _, choice := range []string{"refuse", "serve"} {
		t.Run(choice, func(t *testing.T) {
			c := generous()
			c.Audit.Unwritable = choice
			h := newHouse(t, c, openBooks(t), newBackend(t, answering))
			log := &fullDisk{}
			h.g.guard.audit = log
			log.fails.Store(true)
			var codes []string
			for range 3 {
				resp, body := h.ask("POST", "/v1/chat/completions", h.secret, "{}")
				codes = append(codes, resp.Status+" "+codeOf(body))
				time.Sleep(20 * time.Millisecond) // a line is written after its answer
			}
			want := []string{"200 OK ", "503 Service Unavailable audit_unavailable", "503 Service Unavailable audit_unavailable"}
			if choice == "serve" {
				want = []string{"200 OK ", "200 OK ", "200 OK "}
			}
			if !slices.Equal(codes, want) {
				t.Errorf("%q, want %q", codes, want)
			}
			log.fails.Store(false)
			if resp, body := h.ask("POST", "/v1/chat/completions", h.secret, "{}"); resp.StatusCode != 200 {
				t.Errorf("when it can be written again: %s %s", resp.Status, body)
			}
			time.Sleep(20 * time.Millisecond)
			if n := strings.Count(log.String(), "\n"); n != 4 {
				t.Errorf("%d lines, want 4: %s", n, log.String())
			}
		})
	}
}

// The audit log is begun anew when it is full, by whoever of those that share it
// sees that first, and no line is lost or torn.
func TestAuditLogIsRotated(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	a, err := OpenAuditLog(path, 1, 3)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	line := []byte(strings.Repeat("x", 99) + "\n")
	for range 45_000 { // 4.5 MB
		if _, err := a.Write(line); err != nil {
			t.Fatal(err)
		}
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	var total int64
	for _, e := range entries {
		st, _ := e.Info()
		total += st.Size()
		if st.Size() > 1<<20 || st.Size()%100 != 0 || st.Mode().Perm() != 0o600 {
			t.Errorf("%s: %d bytes, %s", e.Name(), st.Size(), st.Mode())
		}
	}
	if len(entries) != 4 || total > 4<<20 {
		t.Errorf("%d files of %d bytes", len(entries), total)
	}
	if err := os.Remove(path); err != nil { // by whoever keeps logs
		t.Fatal(err)
	}
	a.looked = time.Time{}
	if _, err := a.Write(line); err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(path); err != nil || st.Size() != 100 {
		t.Errorf("%v %v", st, err)
	}
}

// Under the main attacks another tenant's first token comes within twice its
// quiet time, or within what a busy machine adds by itself, and nothing that was
// acknowledged is lost.
func TestOthersAreServedUnderAttack(t *testing.T) {
	c := DefaultConfig()
	c.Connections = Connections{Address: 50, Tenant: 200, All: 200}
	h := newHouse(t, c, openBooks(t), newBackend(t, storyteller(20, 0)), newBackend(t, storyteller(20, 0)))
	front, trust := frontEndOf(t, h)
	victim := h.key(ledger.Key{ID: "victim", Tenant: "victim", Class: "standard", Scopes: []string{"inference"}})
	next := atomic.Int64{}
	address := func() string { n := next.Add(1); return fmt.Sprintf("127.1.%d.%d", n/250, 1+n%250) }
	first := func() time.Duration { // to the first token, over a connection of its own
		began := time.Now()
		conn, err := from(t, front, trust, address(), "http/1.1")
		if err != nil {
			t.Errorf("the other tenant cannot connect: %v", err)
			return time.Since(began)
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
		body := `{"stream":true}`
		fmt.Fprintf(conn, "POST /v1/chat/completions HTTP/1.1\r\nHost: frontEnd\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n%s", victim, len(body), body)
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil || resp.StatusCode != 200 {
			t.Errorf("the other tenant gets %+v %v", resp, err)
			return time.Since(began)
		}
		_, _ = resp.Body.Read(make([]byte, 1))
		took := time.Since(began)
		_, _ = io.Copy(io.Discard, resp.Body)
		if _, err := h.billed(resp.Header.Get("X-Request-Id")); err != nil {
			t.Errorf("acknowledged and lost: %v", err)
		}
		return took
	}
	p95 := func() time.Duration {
		var all []time.Duration
		for range 40 {
			all = append(all, first())
			time.Sleep(2 * time.Millisecond)
		}
		slices.Sort(all)
		return all[37]
	}
	quiet := p95()
	for name, attack := range map[string]func(from string){
		"idle connections": func(at string) {
			if conn, err := from(t, front, trust, at, "h2"); err == nil {
				_, _ = io.WriteString(conn, preface+settings)
			}
			time.Sleep(100 * time.Millisecond)
		},
		"unread streams": func(at string) {
			conn, err := from(t, front, trust, at, "http/1.1")
			if err != nil {
				return
			}
			body := `{"stream":true}`
			fmt.Fprintf(conn, "POST /v1/chat/completions HTTP/1.1\r\nHost: frontEnd\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n%s", h.secret, len(body), body)
			time.Sleep(100 * time.Millisecond)
		},
		"guesses at /validate": func(at string) {
			conn, err := from(t, front, trust, at, "http/1.1")
			if err != nil {
				return
			}
			defer conn.Close()
			go func() { _, _ = io.Copy(io.Discard, conn) }() // ends with the connection
			for range 20 {
				_, _ = io.WriteString(conn, "GET /validate HTTP/1.1\r\nHost: frontEnd\r\nAuthorization: Bearer guess\r\n\r\n")
				time.Sleep(time.Millisecond)
			}
		},
		"numbers at the edge": func(at string) {
			conn, err := from(t, front, trust, at, "http/1.1")
			if err != nil {
				return
			}
			defer conn.Close()
			body := `{"max_tokens":9223372036854775807}`
			fmt.Fprintf(conn, "POST /v1/chat/completions HTTP/1.1\r\nHost: frontEnd\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\nConnection: Upgrade\r\nUpgrade: foo\r\n\r\n%s", h.secret, len(body), body)
			_, _ = conn.Read(make([]byte, 1<<10))
			time.Sleep(20 * time.Millisecond)
		},
	} {
		t.Run(name, func(t *testing.T) {
			stop := make(chan struct{})
			var attacking sync.WaitGroup
			for i := range 4 {
				at := fmt.Sprintf("127.7.7.%d", 1+i)
				attacking.Go(func() {
					for {
						select {
						case <-stop:
							return
						default:
							attack(at)
						}
					}
				})
			}
			most, got := max(2*quiet, quiet+100*time.Millisecond), p95()
			for range 2 { // who attacks has the same two cores, and so have other tests
				if got > most {
					got = min(got, p95())
				}
			}
			close(stop)
			attacking.Wait()
			if got > most && !testing.Short() { // what a short run is beside says nothing of the gateway
				t.Errorf("p95 is %s, and was %s before", got, quiet)
			}
			t.Logf("p95 of the time to the first token: %s, quiet %s", got, quiet)
		})
	}
}
