package gateway

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/launchgate/launchgate/reference-server/ledger"
)

// house is a guarded gateway over a ledger.
type house struct {
	t      *testing.T
	books  *ledger.Ledger
	audit  *lockedBuffer
	g      *Gateway
	url    string
	secret string
	stop   func()
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}
func (l *lockedBuffer) String() string { l.mu.Lock(); defer l.mu.Unlock(); return l.b.String() }

func openBooks(t *testing.T) *ledger.Ledger {
	t.Helper()
	books, err := ledger.Open(t.Context(), filepath.Join(t.TempDir(), "ledger.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { books.Close() })
	return books
}

func (h *house) key(k ledger.Key) string {
	h.t.Helper()
	secret := ledger.NewSecret()
	if err := h.books.AddKey(h.t.Context(), k, secret); err != nil {
		h.t.Fatal(err)
	}
	return secret
}

func newHouse(t *testing.T, c Config, books *ledger.Ledger, backends ...*backend) *house {
	t.Helper()
	var replicas []Replica
	for i, b := range backends {
		u, _ := url.Parse(b.URL)
		replicas = append(replicas, Replica{fmt.Sprintf("replica-%d", i), u})
	}
	h := &house{t: t, books: books, audit: &lockedBuffer{}, g: New(replicas, slog.New(slog.NewTextHandler(io.Discard, nil)))}
	h.g.Guard(fmt.Sprintf("%p", h), c, books, h.audit)
	h.secret = h.key(ledger.Key{ID: fmt.Sprintf("%s-%p", t.Name(), h), Tenant: "acme", Class: "standard", Scopes: []string{"inference"}})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { h.g.Run(ctx); close(done) }()
	srv := httptest.NewServer(h.g.Handler())
	h.url = srv.URL
	h.stop = sync.OnceFunc(func() { cancel(); srv.CloseClientConnections(); srv.Close(); <-done })
	t.Cleanup(h.stop)
	waitReady(t, h.g, len(backends))
	return h
}

func generous() Config {
	c := DefaultConfig()
	c.Network, c.Key = Limit{1e6, 1e6}, Limit{1e6, 1e6}
	return c
}

// ask returns an empty answer where there is none; it may be called from any
// goroutine.
func (h *house) ask(method, path, secret, body string) (*http.Response, string) {
	h.t.Helper()
	req, err := http.NewRequest(method, h.url+path, strings.NewReader(body))
	if err != nil {
		h.t.Error(err)
		return &http.Response{}, ""
	}
	if secret != "" {
		req.Header.Set("Authorization", "Bearer "+secret)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		h.t.Error(err)
		return &http.Response{}, ""
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		h.t.Error(err)
	}
	return resp, string(b)
}

func codeOf(body string) string {
	var e struct{ Error struct{ Code string } }
	_ = json.Unmarshal([]byte(body), &e)
	return e.Error.Code
}

func TestKeys(t *testing.T) {
	h := newHouse(t, generous(), openBooks(t), newBackend(t, ok))
	revoked := h.key(ledger.Key{ID: "revoked", Scopes: []string{"inference"}})
	if err := h.books.RevokeKey(t.Context(), "revoked"); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, secret string
		status       int
		code         string
	}{
		{"good", h.secret, 200, ""},
		{"none", "", 401, "missing_api_key"},
		{"unknown", ledger.NewSecret(), 401, "invalid_api_key"},
		{"revoked", revoked, 401, "invalid_api_key"},
		{"expired", h.key(ledger.Key{ID: "expired", Scopes: []string{"inference"}, Expires: time.Now().Add(-time.Second)}), 401, "invalid_api_key"},
		{"another scope", h.key(ledger.Key{ID: "scope", Scopes: []string{"admin"}}), 403, "missing_scope"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			resp, body := h.ask("POST", "/v1/chat/completions", tt.secret, "the prompt")
			if resp.StatusCode != tt.status || codeOf(body) != tt.code || resp.Header.Get("X-Request-Id") == "" || resp.Header.Get("X-Content-Type-Options") != "nosniff" {
				t.Errorf("%s %s %v", resp.Status, body, resp.Header)
			}
			want := tt.status
			if want == 200 {
				want = 204
			}
			if resp, body := h.ask("GET", "/validate", tt.secret, ""); resp.StatusCode != want {
				t.Errorf("/validate: %s %s", resp.Status, body)
			}
			log := h.audit.String()
			if !strings.Contains(log, resp.Header.Get("X-Request-Id")) || strings.Contains(log, "the prompt") || tt.secret != "" && strings.Contains(log, tt.secret) {
				t.Errorf("audit log: %s", log)
			}
		})
	}
}

func TestRateLimits(t *testing.T) {
	network, key := generous(), generous()
	network.Network = Limit{0.5, 3}
	key.Key = Limit{0.5, 3}
	for name, c := range map[string]Config{"of an address": network, "of a key": key} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t, c, openBooks(t), newBackend(t, ok))
			for i := range 5 {
				resp, body := h.ask("POST", "/v1/chat/completions", h.secret, "{}")
				if i < 3 && resp.StatusCode != 200 {
					t.Errorf("request %d: %s", i, resp.Status)
				}
				if i >= 3 && (resp.StatusCode != 429 || codeOf(body) != "rate_limit_exceeded" || resp.Header.Get("Retry-After") != "2") {
					t.Errorf("request %d: %s %s Retry-After %q", i, resp.Status, body, resp.Header.Get("Retry-After"))
				}
			}
		})
	}
}

// A client that sends its body drop by drop is told so when its time is up, and
// holds no connection.
func TestSlowBody(t *testing.T) {
	h := newHouse(t, generous(), openBooks(t), newBackend(t, ok))
	h.g.bodyWithin = 300 * time.Millisecond
	c, err := net.Dial("tcp", strings.TrimPrefix(h.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprintf(c, "POST /v1/chat/completions HTTP/1.1\r\nHost: frontEnd\r\nAuthorization: Bearer %s\r\nContent-Length: 1000\r\n\r\n", h.secret)
	var dripping sync.WaitGroup
	dripping.Go(func() {
		for { // until the connection is closed
			if _, err := c.Write([]byte(" ")); err != nil {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
	})
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	answer, err := io.ReadAll(c)
	if !strings.Contains(string(answer), " 408 ") || !strings.Contains(string(answer), "too_slow") || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%q %v", answer, err)
	}
	c.Close()
	dripping.Wait()
}

// answering is a replica that tells its usage, in both ways.
func answering(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	if strings.Contains(string(body), `"stream":true`) {
		w.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprint(w, "data: {\"choices\":[{\"delta\":{\"content\":\"hi\"}}],\"usage\":null}\n\n")
		if strings.Contains(string(body), `"include_usage":true`) {
			fmt.Fprint(w, "data: {\"model\":\"m\",\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":7}}\n\n")
		}
		fmt.Fprint(w, "data: [DONE]\n\n")
		return
	}
	fmt.Fprintf(w, `{"model":"m","id":"own","status":"completed","usage":{"prompt_tokens":3,"completion_tokens":7},"asked":%q}`, body)
}

func TestUsageIsKept(t *testing.T) {
	h := newHouse(t, generous(), openBooks(t), newBackend(t, answering))
	others := ledger.Usage{Request: "req_of_another", Tenant: "another", Key: "k", Model: "m", Prompt: 1, Output: 1, At: time.Now()}
	if err := h.books.AddUsage(t.Context(), others); err != nil {
		t.Fatal(err)
	}
	for _, request := range []string{others.Request, "req_of_nobody"} { // what others used is nobody's business
		if resp, body := h.ask("GET", "/v1/usage/"+request, h.secret, ""); resp.StatusCode != 404 || !strings.Contains(body, "usage_not_found") {
			t.Errorf("%s: %s %s", request, resp.Status, body)
		}
	}
	for name, tt := range map[string]struct {
		body  string
		usage bool // the client sees it
	}{
		"whole":                    {`{}`, true},
		"stream":                   {`{"stream":true}`, false},
		"stream that asks for it":  {`{"stream":true,"stream_options":{"include_usage":true}}`, true},
		"stream that asks not":     {`{"stream":true,"stream_options":{"include_usage":false}}`, false},
		"stream with null options": {`{"stream":true,"stream_options":null}`, false},
	} {
		t.Run(name, func(t *testing.T) {
			resp, body := h.ask("POST", "/v1/chat/completions", h.secret, tt.body)
			if resp.StatusCode != 200 || strings.Contains(body, "prompt_tokens") != tt.usage {
				t.Errorf("%s %s", resp.Status, body)
			}
			u, err := h.books.UsageOf(t.Context(), resp.Header.Get("X-Request-Id"))
			if err != nil || u.Prompt != 3 || u.Output != 7 || u.Tenant != "acme" {
				t.Errorf("%+v %v", u, err)
			}
			if resp, body := h.ask("GET", "/v1/usage/"+u.Request, h.secret, ""); resp.StatusCode != 200 || !strings.Contains(body, `"completion_tokens":7`) {
				t.Errorf("%s %s", resp.Status, body)
			}
		})
	}
}

// An answer whose usage cannot be kept does not look as if it had ended.
func TestNoEndWithoutARecord(t *testing.T) {
	broken, err := ledger.Open(t.Context(), filepath.Join(t.TempDir(), "broken.db"))
	if err != nil {
		t.Fatal(err)
	}
	broken.Close()
	a := &accounted{body: io.NopCloser(strings.NewReader("data: {\"choices\":[],\"usage\":{\"prompt_tokens\":1}}\n\ndata: [DONE]\n\n")), g: &guard{ledger: broken, log: slog.New(slog.NewTextHandler(io.Discard, nil))}, c: &call{}, buf: make([]byte, 100)}
	got, err := io.ReadAll(a)
	if err == nil || strings.Contains(string(got), "[DONE]") || !strings.Contains(string(got), "usage_not_kept") {
		t.Errorf("%q %v", got, err)
	}
}

func TestBudgets(t *testing.T) {
	held := make(chan struct{})
	c := generous()
	c.Tenant = Budget{Concurrency: 1}
	c.Tenants = map[string]Plan{"tokens": {Budget: Budget{TokensPerMinute: 10}}}
	h := newHouse(t, c, openBooks(t), newBackend(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/held" {
			<-held
		}
		answering(w, r)
	}))
	var waiting sync.WaitGroup
	waiting.Go(func() { h.ask("POST", "/v1/held", h.secret, "{}") })
	for h.g.balancer.load() == 0 {
		time.Sleep(time.Millisecond)
	}
	if resp, body := h.ask("POST", "/v1/chat/completions", h.secret, "{}"); resp.StatusCode != 429 || codeOf(body) != "concurrency_exceeded" {
		t.Errorf("%s %s", resp.Status, body)
	}
	close(held)
	waiting.Wait()
	if resp, body := h.ask("POST", "/v1/chat/completions", h.secret, "{}"); resp.StatusCode != 200 {
		t.Errorf("%s %s", resp.Status, body)
	}
	secret := h.key(ledger.Key{ID: "tokens", Tenant: "tokens", Scopes: []string{"inference"}})
	if resp, body := h.ask("POST", "/v1/chat/completions", secret, "{}"); resp.StatusCode != 200 {
		t.Errorf("%s %s", resp.Status, body)
	}
	if resp, body := h.ask("POST", "/v1/chat/completions", secret, "{}"); resp.StatusCode != 429 || codeOf(body) != "tokens_exceeded" || resp.Header.Get("Retry-After") == "" {
		t.Errorf("%s %s", resp.Status, body)
	}
}

// What a request may use is counted in, however much it asks for: a product past
// the largest number would make room for others of its tenant.
func TestExpectedTokensDoNotOverflow(t *testing.T) {
	c := generous()
	c.Tenant = Budget{TokensPerMinute: 10}
	h := newHouse(t, c, openBooks(t), newBackend(t, answering))
	q, no := decode("/v1/completions", []byte(`{"n":2147483647,"max_tokens":2147483647,"prompt":["`+strings.Repeat(`a","`, 9)+`a"]}`))
	if no != nil || q.work() < 1<<33 {
		t.Fatalf("%+v %d", no, q.work())
	}
	call := &call{key: ledger.Key{ID: "k", Tenant: "greedy"}, work: q.work()}
	if d := h.g.guard.weigh(t.Context(), call, q); d != nil {
		t.Fatalf("%+v", d)
	}
	defer call.leave()
	if _, d := h.g.guard.enter(t.Context(), "greedy", c.Tenant, 1, 1); d == nil || d.code != "tokens_exceeded" {
		t.Errorf("beside a request that may use everything another one is let in: %+v", d)
	}
}

// Past the mark, a tenant that has less under way than its share is not refused for
// what others of its class, or of a lower one, have.
func TestOneTenantDoesNotHaveOthersShed(t *testing.T) {
	c := DefaultConfig()
	c.Degrade.Queue = 10
	for _, tt := range []struct {
		name   string
		others map[string]tenant // under way, and the place of the class
		class  string            // of the request of tenant "me"
		own    int
		load   float64
		shed   bool
	}{
		{"another has it all", map[string]tenant{"hog": {inFlight: 60, place: 1}}, "standard", 0, 60, false},
		{"the one that has it all", nil, "standard", 60, 60, true},
		{"a lower class has it all", map[string]tenant{"hog": {inFlight: 60, place: 0}}, "standard", 0, 60, false},
		{"a higher class has it all", map[string]tenant{"hog": {inFlight: 60, place: 2}}, "standard", 0, 60, true},
		{"less than its share", map[string]tenant{"hog": {inFlight: 60, place: 1}}, "standard", 9, 69, false},
		{"its share", map[string]tenant{"hog": {inFlight: 60, place: 1}}, "standard", 10, 70, true},
		{"less than its share, on three replicas", map[string]tenant{"hog": {inFlight: 60, place: 1}}, "standard", 29, 29.6, false},
		{"many others, each with its share", map[string]tenant{"a": {inFlight: 7, place: 1}, "b": {inFlight: 7, place: 1}, "c": {inFlight: 7, place: 1}}, "standard", 5, 26, true},
		{"work that is no tenant's", nil, "standard", 0, 60, true},
	} {
		g := &guard{metrics: newMetrics(&balancer{}), tenants: map[string]*tenant{}}
		g.config.Store(&c)
		for name, other := range tt.others {
			g.tenants[name] = &other
		}
		if tt.own > 0 {
			g.tenants["me"] = &tenant{inFlight: tt.own, place: 1}
		}
		if d := g.shed(&call{key: ledger.Key{Tenant: "me", Class: tt.class}}, tt.load); (d != nil) != tt.shed {
			t.Errorf("%s: %v, want shed: %v", tt.name, d, tt.shed)
		}
	}
}

// Past the mark the least important class gives way first.
func TestShedding(t *testing.T) {
	c := DefaultConfig()
	c.Degrade.Queue = 10
	g := &guard{metrics: newMetrics(&balancer{})}
	g.config.Store(&c)
	for _, tt := range []struct {
		class     string
		load      float64
		shed      bool
		shortened int
	}{
		{"batch", 5, false, 0},
		{"batch", 6, false, 64}, // a class that allows it is shortened before it is refused
		{"batch", 10, false, 64},
		{"batch", 11, true, 0},
		{"standard", 11, false, 0},
		{"standard", 21, true, 0},
		{"interactive", 1000, false, 0},
		{"unheard of", 11, true, 0},
	} {
		k := &call{key: ledger.Key{Class: tt.class}}
		if d := g.shed(k, tt.load); (d != nil) != tt.shed || k.shortened != tt.shortened {
			t.Errorf("%+v: %v, %d", tt, d, k.shortened)
		}
	}
	g.limits().Degrade.Shorten = []string{"standard"}
	k := &call{key: ledger.Key{Class: "standard"}}
	if d := g.shed(k, 11); d != nil || k.shortened != 64 {
		t.Errorf("%v %d", d, k.shortened)
	}
	for body, want := range map[string]string{
		`{"max_tokens":500}`:           `{"max_tokens":64}`,
		`{"max_tokens":5}`:             `{"max_tokens":5}`,
		`{}`:                           `{"max_tokens":64}`,
		`{"max_completion_tokens":99}`: `{"max_completion_tokens":64}`,
		`no JSON`:                      `no JSON`,
	} {
		got := body
		if q, no := decode("/v1/chat/completions", []byte(body)); no != nil {
			t.Errorf("%s is refused: %v", body, no)
		} else if q != nil {
			prepare(k, "/v1/chat/completions", q)
			got = string(q.bytes())
		}
		if got != want {
			t.Errorf("%s became %s, want %s", body, got, want)
		}
	}
}

// What was accepted is computed: the replica that begins it dies, and so does
// the gateway; a second gateway over the same ledger ends it with another.
func TestBackgroundResponsesOutliveTheirGateway(t *testing.T) {
	books := openBooks(t)
	first := newHouse(t, generous(), books, newBackend(t, die))
	resp, body := first.ask("POST", "/v1/responses", first.secret, `{"background":true,"input":"q","model":"m"}`)
	var o struct{ ID, Status string }
	if err := json.Unmarshal([]byte(body), &o); err != nil || resp.StatusCode != 200 || o.Status != "queued" {
		t.Fatalf("%s %s", resp.Status, body)
	}
	time.Sleep(2 * claimEvery) // it is tried, and fails
	first.stop()
	second := newHouse(t, generous(), books, newBackend(t, answering))
	for deadline := time.Now().Add(2 * leaseFor); ; time.Sleep(10 * time.Millisecond) {
		_, body = second.ask("GET", "/v1/responses/"+o.ID, first.secret, "")
		if strings.Contains(body, `"completed"`) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("never computed: %s", body)
		}
	}
	if !strings.Contains(body, o.ID) || !strings.Contains(body, `\"background\":false`) {
		t.Errorf("%s", body)
	}
	if u, err := books.UsageOf(t.Context(), o.ID); err != nil || u.Output != 7 {
		t.Errorf("%+v %v", u, err)
	}
	other := second.key(ledger.Key{ID: "other", Tenant: "other", Scopes: []string{"inference"}})
	if resp, _ := second.ask("GET", "/v1/responses/"+o.ID, other, ""); resp.StatusCode != 404 {
		t.Errorf("another tenant reads it: %s", resp.Status)
	}
}

// Other limits hold from the next request on.
func TestReconfigure(t *testing.T) {
	c := generous()
	c.Key, c.Tenant = Limit{0.01, 1}, Budget{TokensPerMinute: 10}
	h := newHouse(t, c, openBooks(t), newBackend(t, answering))
	ask := func() string {
		resp, body := h.ask("POST", "/v1/chat/completions", h.secret, "{}")
		return resp.Status + " " + codeOf(body)
	}
	if a, b := ask(), ask(); a != "200 OK " || b != "429 Too Many Requests rate_limit_exceeded" {
		t.Errorf("%s, %s", a, b)
	}
	c.Key, c.Tenant = generous().Key, Budget{TokensPerMinute: 20} // 10 of them are used
	h.g.Reconfigure(c)
	if a, b := ask(), ask(); a != "200 OK " || b != "429 Too Many Requests tokens_exceeded" {
		t.Errorf("%s, %s", a, b)
	}
	h.g.Reconfigure(generous())
	if a, b := ask(), ask(); a != "200 OK " || b != "200 OK " {
		t.Errorf("%s, %s", a, b)
	}
}

func TestConfig(t *testing.T) {
	shipped, err := ReadConfig(filepath.Join("..", "..", "deploy", "gateway.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	want := DefaultConfig()
	want.Networks, want.Tenants, want.Proxies = []NetworkLimit{}, map[string]Plan{}, []netip.Prefix{}
	if !reflect.DeepEqual(shipped, want) {
		t.Errorf("deploy/gateway.yaml says\n%+v, the defaults are\n%+v", shipped, want)
	}
	for text, problem := range map[string]string{
		"network: {rate: 1}\nunheard: 1":                      "gateway.yaml:2: unknown field",
		"network: {rate: -1}":                                 "network: found rate -1",
		"key: {rate: x}":                                      "gateway.yaml:1:",
		"networks: [{cidr: nowhere, rate: 1}]":                "gateway.yaml",
		"classes: []":                                         "classes: found none",
		"tenants: {a: {concurrency: -1}}":                     "tenants.a: found a negative",
		"networks: [{cidr: 127.0.0.2/32, rate: 1, burst: 1}]": "",
	} {
		_, err := parseConfig("gateway.yaml", []byte(text))
		if problem == "" && err != nil || problem != "" && (err == nil || !strings.Contains(err.Error(), problem)) {
			t.Errorf("%q: %v, want %q", text, err, problem)
		}
	}
}

func FuzzConfig(f *testing.F) {
	f.Add([]byte("network: {rate: 1, burst: 2}"))
	f.Add([]byte("networks: [{cidr: 127.0.0.1/32, rate: 1, burst: 1}]"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if c, err := parseConfig("x", b); err == nil && c.check() != nil {
			t.Error("read what it would not accept")
		}
	})
}

// A client of the development CA gets HTTP/2 and TLS 1.3; one of another gets
// nothing, and no key of the CA is left behind.
func TestDevTLS(t *testing.T) {
	dir := t.TempDir()
	if _, err := DevTLS(dir, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(filepath.Join(dir, "ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	c, err := DevTLS(dir, slog.New(slog.DiscardHandler)) // as a gateway that was killed does
	if err != nil {
		t.Fatal(err)
	}
	if after, err := os.ReadFile(filepath.Join(dir, "ca.pem")); err != nil || !bytes.Equal(before, after) {
		t.Errorf("another start made another CA (%v)", err)
	}
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Proto) }))
	srv.TLS = c
	srv.EnableHTTP2 = true
	srv.Config.ErrorLog = slog.NewLogLogger(slog.NewTextHandler(io.Discard, nil), slog.LevelError)
	srv.StartTLS()
	defer srv.Close()
	if _, err := http.Get(srv.URL); err == nil {
		t.Error("the system's CAs know the development one")
	}
	files, _ := os.ReadDir(dir)
	if len(files) != 4 {
		t.Errorf("%v", files)
	}
	resp, err := clientOf(t, filepath.Join(dir, "ca.pem")).Get(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if b, _ := io.ReadAll(resp.Body); string(b) != "HTTP/2.0" || resp.TLS.Version != 0x0304 {
		t.Errorf("%s, TLS %x", b, resp.TLS.Version)
	}
}

// A certificate that is swapped while it is served is the next handshake's, on
// connections of before nothing changes, and one that means nothing is not
// taken.
func TestCertificateIsReadAgain(t *testing.T) {
	dir := t.TempDir()
	config, err := DevTLS(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "served") }))
	srv.TLS = config
	srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	srv.StartTLS()
	defer srv.Close()
	file, good := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "good.pem")
	before := clientOf(t, filepath.Join(dir, "ca.pem"))
	ask := func(c *http.Client) error {
		resp, err := c.Get(srv.URL)
		if err == nil {
			_, _ = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
		}
		return err
	}
	for _, step := range []struct {
		what    string
		do      func() error
		refused x509.InvalidReason // -1: it is not
	}{
		{"as it was made", func() error { return os.Link(file, good) }, -1},
		{"expired", func() error { return os.Rename(filepath.Join(dir, "expired.pem"), file) }, x509.Expired},
		{"gone", func() error { return os.Remove(file) }, x509.Expired},
		{"broken", func() error { return os.WriteFile(file, []byte("no certificate"), 0o600) }, x509.Expired},
		{"as it was again", func() error { return os.Rename(good, file) }, -1},
	} {
		if err := step.do(); err != nil {
			t.Fatal(err)
		}
		err := ask(clientOf(t, filepath.Join(dir, "ca.pem")))
		var invalid x509.CertificateInvalidError
		if expired := errors.As(err, &invalid) && invalid.Reason == step.refused; err != nil && !expired || err == nil && step.refused >= 0 {
			t.Errorf("%s: who connects anew gets %v", step.what, err)
		}
		if err := ask(before); err != nil {
			t.Errorf("%s: who was connected before gets %v", step.what, err)
		}
	}
}

// A gateway that is started anew while its certificate has expired keeps the
// authority that its clients know.
func TestExpiredCertificateKeepsItsCA(t *testing.T) {
	dir := t.TempDir()
	log := slog.New(slog.DiscardHandler)
	if _, err := DevTLS(dir, log); err != nil {
		t.Fatal(err)
	}
	before, _ := os.ReadFile(filepath.Join(dir, "ca.pem"))
	if err := os.Rename(filepath.Join(dir, "expired.pem"), filepath.Join(dir, "cert.pem")); err != nil {
		t.Fatal(err)
	}
	if _, err := DevTLS(dir, log); err != nil {
		t.Fatal(err)
	}
	if after, err := os.ReadFile(filepath.Join(dir, "ca.pem")); err != nil || !bytes.Equal(before, after) {
		t.Errorf("there is another CA (%v)", err)
	}
}

func clientOf(t *testing.T, ca string) *http.Client {
	t.Helper()
	b, err := os.ReadFile(ca)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(b) {
		t.Fatal("ca.pem holds no certificate")
	}
	return &http.Client{Transport: &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{RootCAs: pool}}}
}
