package security

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// fake is a small OpenAI-compatible service behind TLS, with keys of two tenants,
// limits, usage, background responses and an audit log. Each flaw that is switched on
// is one of the catalogue.
type fake struct {
	flaws     map[string]bool
	log       string
	ca        string // PEM file
	url       string
	canary    string // in its system prompt
	secure    bool
	mu        sync.Mutex
	buckets   map[string]*bucket
	usage     map[string][2]any // tenant, tokens
	responses map[string]*kept
	cached    map[string]bool
	said      []string
	open      int            // open streams
	loads     map[string]int // long answers under way, by tenant
	reply     time.Duration  // of the scan; 0: as usual
	panics    int
	ejected   time.Time
	engine    sync.Mutex
	next      int
}

type bucket struct {
	tokens float64
	at     time.Time
}

type kept struct{ tenant, input, status string }

const (
	keyOne, keyOther       = "lg-one-a8f3k2m9q7w1", "lg-two-z6x4c8v2b5n3"
	keyExpired, keyRevoked = "lg-old-h2j5k8l1p4o7", "lg-rev-y3u6i9t2r5e8"
)

func startFake(t *testing.T, flaws ...string) *fake {
	t.Helper()
	f := &fake{flaws: map[string]bool{}, buckets: map[string]*bucket{}, usage: map[string][2]any{}, responses: map[string]*kept{}, cached: map[string]bool{}, loads: map[string]int{}, canary: "xylophonist"}
	for _, name := range flaws {
		f.flaws[name] = true
	}
	dir := t.TempDir()
	f.log = filepath.Join(dir, "audit.log")
	f.write(`{"started":true}`)
	f.write(`{"ready":true}`)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: f, ReadHeaderTimeout: time.Second, ReadTimeout: 2 * time.Second, IdleTimeout: 2 * time.Second, ErrorLog: log.New(io.Discard, "", 0), MaxHeaderBytes: 1 << 17}
	if f.flaws["no-header-timeout"] || f.flaws["no-connection-limit"] {
		server.ReadHeaderTimeout, server.ReadTimeout, server.IdleTimeout = 0, 0, 0
	}
	if f.flaws["closes-idle"] { // no flaw: it is for no-connection-limit
		server.ReadHeaderTimeout, server.IdleTimeout = 18*time.Second, 18*time.Second
	}
	if f.flaws["no-body-timeout"] {
		server.ReadTimeout = 0
	}
	server.TLSConfig = f.certificate(t, dir)
	limited := &limitedListener{Listener: listener, perAddress: 64, all: 300, open: map[string]int{}}
	if f.flaws["no-connection-limit"] {
		limited.perAddress = 1 << 20
	}
	limited.free = sync.NewCond(&limited.mu)
	f.url, f.secure = "https://"+listener.Addr().String(), true
	go func() { _ = server.ServeTLS(limited, "", "") }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
		defer cancel()
		_ = server.Shutdown(ctx)
		server.Close()
	})
	return f
}

// certificate makes an authority and a certificate.
func (f *fake) certificate(t *testing.T, dir string) *tls.Config {
	t.Helper()
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	caCert := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "CA of a test"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(1000 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign, SubjectKeyId: []byte{1, 2, 3}}
	caDER, err := x509.CreateCertificate(rand.Reader, caCert, caCert, &caKey.PublicKey, caKey)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	leaf := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "fake"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(900 * time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, AuthorityKeyId: []byte{1, 2, 3}}
	if f.flaws["other-name"] {
		leaf.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 9)}
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, caCert, &key.PublicKey, caKey)
	if err != nil {
		t.Fatal(err)
	}
	f.ca = filepath.Join(dir, "ca.pem")
	if err := os.WriteFile(f.ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: caDER}), 0o644); err != nil {
		t.Fatal(err)
	}
	c := &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, MinVersion: tls.VersionTLS12,
		CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256}}
	if f.flaws["tls10"] {
		c.MinVersion, c.CipherSuites = tls.VersionTLS10, append(c.CipherSuites, tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA)
	}
	if f.flaws["weak-cipher"] {
		c.CipherSuites = append(c.CipherSuites, tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA)
	}
	return c
}

// limitedListener limits the open connections of an address, and those of all
// addresses, as a limit of file descriptors does. It accepts no more than these.
type limitedListener struct {
	net.Listener
	perAddress, all int
	mu              sync.Mutex
	free            *sync.Cond
	open            map[string]int
	n               int
}

func (l *limitedListener) Accept() (net.Conn, error) {
	for {
		l.mu.Lock()
		for l.n >= l.all {
			l.free.Wait()
		}
		l.mu.Unlock()
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		host, _, _ := net.SplitHostPort(c.RemoteAddr().String())
		l.mu.Lock()
		full := l.open[host] >= l.perAddress
		if !full {
			l.open[host]++
			l.n++
		}
		l.mu.Unlock()
		if full {
			c.Close()
			continue
		}
		return &countedConn{Conn: c, l: l, host: host}, nil
	}
}

type countedConn struct {
	net.Conn
	l    *limitedListener
	host string
	once sync.Once
}

func (c *countedConn) Close() error {
	c.once.Do(func() {
		c.l.mu.Lock()
		c.l.open[c.host]--
		c.l.n--
		c.l.free.Broadcast()
		c.l.mu.Unlock()
	})
	return c.Conn.Close()
}

func (f *fake) write(line string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	file, err := os.OpenFile(f.log, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err == nil {
		fmt.Fprintln(file, line)
		file.Close()
	}
}

func (f *fake) tenant(key string) string {
	switch {
	case key == keyOne:
		return "one"
	case key == keyOther:
		return "other"
	case f.flaws["ignore-expiry"] && (key == keyExpired || key == keyRevoked), f.flaws["accept-any-key"] && key != "":
		return "one"
	case f.flaws["accept-prefix"] && len(key) >= 8 && strings.HasPrefix(keyOne, key):
		return "one"
	}
	return ""
}

// allowed takes a token from a bucket of 60 requests, filled at 60 a second.
func (f *fake) allowed(who string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	b := f.buckets[who]
	now := time.Now()
	if b == nil {
		b = &bucket{60, now}
		f.buckets[who] = b
	}
	b.tokens = min(60, b.tokens+60*now.Sub(b.at).Seconds())
	b.at = now
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	if !f.flaws["no-nosniff"] {
		h.Set("X-Content-Type-Options", "nosniff")
	}
	if f.secure && !f.flaws["no-hsts"] {
		h.Set("Strict-Transport-Security", "max-age=1")
	}
	if f.flaws["cors-reflect"] && r.Header.Get("Origin") != "" {
		h.Set("Access-Control-Allow-Origin", r.Header.Get("Origin"))
		h.Set("Access-Control-Allow-Credentials", "true")
	}
	host, _, _ := net.SplitHostPort(r.RemoteAddr)
	if x := r.Header.Get("X-Forwarded-For"); x != "" && f.flaws["trust-x-forwarded-for"] {
		host = x
	}
	key, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	tenant := f.tenant(key)
	entry, _ := json.Marshal(map[string]any{"path": r.URL.Path, "agent": r.UserAgent(), "tenant": tenant})
	if f.flaws["raw-audit-line"] {
		entry = fmt.Appendf(nil, `{"path":%q}`, "x")
		f.write("GET " + r.URL.Path)
	}
	f.write(string(entry))
	guessing := tenant == "" && f.flaws["unlimited-guesses"]
	if !f.flaws["no-limit"] && !guessing && !f.allowed(host) {
		h.Set("Retry-After", "1")
		http.Error(w, `{"error":"too many requests"}`, http.StatusTooManyRequests)
		return
	}
	f.mu.Lock()
	ejected := time.Now().Before(f.ejected)
	shed := f.flaws["shed-by-open-streams"] && f.open > 100
	f.mu.Unlock()
	if ejected || shed {
		http.Error(w, `{"error":"no replica"}`, http.StatusServiceUnavailable)
		return
	}
	path := r.URL.Path
	if f.flaws["auth-double-slash"] && strings.HasPrefix(path, "//") {
		tenant, path = "one", path[1:]
	}
	if f.flaws["skip-auth"] || f.flaws["auth-options"] && r.Method == "OPTIONS" {
		tenant = "one"
	}
	if f.strangers(w, r, path) {
		return
	}
	if tenant == "" {
		text := `{"error":"a key is needed"}`
		if f.flaws["echo-key"] {
			text = `{"error":"the key ` + key + ` is wrong"}`
		}
		http.Error(w, text, http.StatusUnauthorized)
		return
	}
	f.serve(w, r, path, tenant)
}

// strangers serves the routes that need no key.
func (f *fake) strangers(w http.ResponseWriter, r *http.Request, path string) bool {
	switch {
	case path == "/health":
		fmt.Fprint(w, "ok")
	case path == "/metrics" && f.flaws["metrics-on-gateway"]:
		fmt.Fprint(w, "# TYPE requests counter\nrequests 1\n")
	case path == "/debug/pprof/" && f.flaws["pprof"]:
		fmt.Fprint(w, "<p>Types of profiles available: goroutine</p>")
	case path == "/sleep" && f.flaws["vllm-admin"] && r.Method != "POST":
		w.Header().Set("Allow", "POST")
		w.WriteHeader(http.StatusMethodNotAllowed)
	case path == "/invocations" && f.flaws["invocations"]:
		f.chat(w, r, "one")
	default:
		return false
	}
	return true
}

func (f *fake) serve(w http.ResponseWriter, r *http.Request, path, tenant string) {
	id, isResponse := strings.CutPrefix(path, "/v1/responses/")
	record, isUsage := strings.CutPrefix(path, "/v1/usage/")
	switch {
	case path == "/v1/models" && (r.Method == "GET" || r.Method == "OPTIONS"):
		fmt.Fprint(w, `{"object":"list","data":[{"id":"fake"}]}`)
	case path == "/v1/chat/completions" && r.Method == "POST":
		if f.shed(tenant) {
			http.Error(w, `{"error":"overloaded"}`, http.StatusServiceUnavailable)
			return
		}
		f.chat(w, r, tenant)
	case path == "/v1/responses" && r.Method == "POST":
		f.respond(w, r, tenant)
	case isResponse:
		f.mu.Lock()
		defer f.mu.Unlock()
		id, cancels := strings.CutSuffix(id, "/cancel")
		o := f.responses[id]
		if o == nil || o.tenant != tenant && !f.flaws["responses-without-tenant"] {
			http.Error(w, `{"error":"no such response"}`, http.StatusNotFound)
			return
		}
		if r.Method == "DELETE" {
			delete(f.responses, id)
		}
		if cancels {
			o.status = "cancelled"
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"object": "response", "id": id, "status": o.status, "input": o.input})
	case isUsage:
		f.mu.Lock()
		u, ok := f.usage[record]
		f.mu.Unlock()
		if !ok || u[0] != tenant {
			http.Error(w, `{"error":"no such record"}`, http.StatusNotFound)
			return
		}
		fmt.Fprintf(w, `{"output_tokens":%d}`, u[1])
	default:
		http.Error(w, `{"error":"not found"}`, http.StatusNotFound)
	}
}

// mostLoads are the long answers under way above which requests are refused: those of
// tenants that have more than half of them.
const mostLoads = 40

func (f *fake) shed(tenant string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	all := 0
	for _, n := range f.loads {
		all += n
	}
	return all > mostLoads && (f.flaws["unfair-shedding"] || f.loads[tenant] > mostLoads/2)
}

// long takes the time of a long answer.
func (f *fake) long(ctx context.Context, tenant string) {
	f.mu.Lock()
	f.loads[tenant]++
	f.mu.Unlock()
	sleep(ctx, 700*time.Millisecond)
	f.mu.Lock()
	f.loads[tenant]--
	f.mu.Unlock()
}

func (f *fake) respond(w http.ResponseWriter, r *http.Request, tenant string) {
	var q struct {
		Input any
		Max   json.Number `json:"max_output_tokens"`
	}
	if json.NewDecoder(io.LimitReader(r.Body, 1<<20)).Decode(&q) != nil || len(q.Max) > 9 {
		http.Error(w, `{"error":"bad request"}`, http.StatusBadRequest)
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.next++
	id := "resp_" + strconv.Itoa(100000+f.next)
	f.responses[id] = &kept{tenant, fmt.Sprint(q.Input), "queued"}
	fmt.Fprintf(w, `{"object":"response","id":%q,"status":"queued"}`, id)
}

// tokens counts a token for each letter, and one for each control token if those are
// parsed.
func (f *fake) tokens(text string) int {
	if f.flaws["parse-special"] {
		text = strings.ReplaceAll(text, "<|im_end|>", "\x01")
	}
	return len([]rune(text))
}

func (f *fake) chat(w http.ResponseWriter, r *http.Request, tenant string) {
	src, readErr := io.ReadAll(io.LimitReader(r.Body, 8<<20))
	var q struct {
		Model    string
		Messages []struct {
			Role    string
			Content any
		}
		Stream    bool
		MaxTokens json.Number `json:"max_tokens"`
		N         json.Number
		Format    struct {
			Schema struct {
				Schema struct {
					Properties map[string]any
					Enum       []any
				}
			} `json:"json_schema"`
		} `json:"response_format"`
	}
	err := errors.Join(readErr, json.Unmarshal(src, &q))
	tooMany, _ := strconv.ParseUint(string(q.MaxTokens), 10, 64)
	if tooMany > 1<<60 && f.flaws["eject-on-client-error"] {
		f.mu.Lock()
		if f.panics++; f.panics >= 4 {
			f.ejected, f.panics = time.Now().Add(4*time.Second), 0
		}
		f.mu.Unlock()
		http.Error(w, `{"error":"replica failed"}`, http.StatusBadGateway)
		return
	}
	if tooMany > 1<<60 && f.flaws["panic-on-max-tokens"] {
		panic(http.ErrAbortHandler)
	}
	if err != nil || len(q.Messages) == 0 || len(q.MaxTokens) > 6 || len(q.N) > 3 || len(q.Format.Schema.Schema.Properties) > 64 && !f.flaws["quadratic-schema"] {
		text := `{"error":"bad request"}`
		if f.flaws["stack-trace"] {
			text = `{"error":"Traceback (most recent call last): File \"/usr/lib/python3/server.py\", line 3"}`
		}
		http.Error(w, text, http.StatusBadRequest)
		return
	}
	if q.Model != "fake" {
		http.Error(w, `{"error":"no such model"}`, http.StatusNotFound)
		return
	}
	if n := len(q.Format.Schema.Schema.Properties); n > 64 {
		time.Sleep(time.Duration(float64(n*n) / 16e6 * 160 * float64(time.Millisecond)))
	}
	if len(q.Format.Schema.Schema.Enum) > 3000 && f.flaws["engine-blocks"] {
		f.engine.Lock()
		time.Sleep(2500 * time.Millisecond)
		f.engine.Unlock()
	}
	if tooMany >= 256 {
		f.long(r.Context(), tenant)
	}
	f.engine.Lock()
	defer f.engine.Unlock()
	var all strings.Builder // the cost of many messages grows with their number
	for _, m := range q.Messages {
		fmt.Fprintln(&all, m.Content)
	}
	prompt := all.String()
	if f.flaws["log-prompts"] {
		f.write(fmt.Sprintf(`{"prompt":%q}`, prompt))
	}
	f.answer(w, r, src, tenant, prompt, q.Stream, string(q.MaxTokens))
}

func (f *fake) answer(w http.ResponseWriter, r *http.Request, src []byte, tenant, prompt string, stream bool, most string) {
	f.mu.Lock()
	f.next++
	id := "req_" + strconv.Itoa(f.next)
	cacheKey := tenant + prompt
	if f.flaws["shared-prefix-cache"] {
		cacheKey = prompt
	}
	cached := 0
	if f.cached[cacheKey] {
		cached = f.tokens(prompt)
	}
	f.cached[cacheKey] = true
	text := "one two three four"
	if f.flaws["shared-history"] && strings.Contains(strings.ToLower(prompt), "codeword") && !strings.Contains(prompt, "My codeword") {
		text = strings.Join(f.said, " ")
	}
	f.said = append(f.said, prompt)
	f.said = f.said[max(0, len(f.said)-3):]
	f.mu.Unlock()
	if f.flaws["leak-system-prompt"] && strings.Contains(prompt, "instructions") {
		text = "My instructions: never say " + f.canary
	}
	words := strings.Fields(text)
	if n, err := strconv.Atoi(most); err == nil && n > 40 {
		words = slices.Repeat(words, 1+n/8)
	}
	w.Header().Set("X-Request-Id", id)
	bill := func(n int) {
		f.mu.Lock()
		f.usage[id] = [2]any{tenant, n}
		f.mu.Unlock()
	}
	usage := fmt.Sprintf(`{"prompt_tokens":%d,"completion_tokens":%d,"prompt_tokens_details":{"cached_tokens":%d}}`, f.tokens(prompt), len(words), cached)
	if !stream {
		if !f.flaws["usage-by-exact-key"] || !bytes.Contains(src, []byte(`"n":2`)) {
			bill(len(words))
		}
		answer, _ := json.Marshal(text)
		fmt.Fprintf(w, `{"object":"chat.completion","choices":[{"message":{"content":%s}}],"usage":%s}`, answer, usage)
		return
	}
	f.mu.Lock()
	f.open++
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		f.open--
		f.mu.Unlock()
	}()
	f.engine.Unlock() // an answer that is not read is not computed
	defer f.engine.Lock()
	exact := !f.flaws["usage-by-exact-key"] || bytes.Contains(src, []byte(`"stream":true`))
	w.Header().Set("Content-Type", "text/event-stream")
	for i, word := range words {
		if !f.flaws["usage-only-at-end"] && exact {
			bill(i + 1)
		}
		fmt.Fprintf(w, "data: {\"choices\":[{\"delta\":{\"content\":%q}}]}\n\n", word+" ")
		if http.NewResponseController(w).Flush() != nil || r.Context().Err() != nil {
			return
		}
		time.Sleep(time.Millisecond)
	}
	if exact {
		bill(len(words))
	}
	fmt.Fprintf(w, "data: {\"choices\":[],\"usage\":%s}\n\ndata: [DONE]\n\n", usage)
}

// disagree is a service behind a proxy that goes by Content-Length alone, and sends the
// requests of all clients over one connection: bytes beyond the length become the next
// request.
func disagree(t *testing.T, f *fake) string {
	t.Helper()
	f.secure = false
	back, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	front, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: f, ErrorLog: log.New(io.Discard, "", 0)}
	go func() { _ = server.Serve(back) }()
	t.Cleanup(func() { front.Close(); server.Close() })
	var mu sync.Mutex
	var shared net.Conn
	var in *bufio.Reader
	exchange := func(raw []byte) (*http.Response, error) {
		for range 2 {
			if shared == nil {
				c, err := net.Dial("tcp", back.Addr().String())
				if err != nil {
					return nil, err
				}
				shared, in = c, bufio.NewReader(c)
			}
			_ = shared.SetDeadline(time.Now().Add(time.Second))
			if _, err := shared.Write(raw); err == nil {
				if res, err := http.ReadResponse(in, nil); err == nil {
					body, _ := io.ReadAll(res.Body)
					res.Body = io.NopCloser(bytes.NewReader(body))
					if res.Close {
						shared.Close()
						shared = nil
					}
					return res, nil
				}
			}
			shared.Close()
			shared = nil
		}
		return nil, io.EOF
	}
	go func() {
		for {
			c, err := front.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				r := bufio.NewReader(c)
				var head bytes.Buffer
				length := 0
				for {
					line, err := r.ReadString('\n')
					if err != nil {
						return
					}
					// Connections to the back end are kept, whatever the client's
					// Connection header says.
					if name, value, ok := strings.Cut(line, ":"); ok && strings.EqualFold(name, "Content-Length") {
						length, _ = strconv.Atoi(strings.TrimSpace(value))
					} else if ok && strings.EqualFold(name, "Connection") {
						continue
					}
					head.WriteString(line)
					if strings.TrimSpace(line) == "" {
						break
					}
				}
				body := make([]byte, max(0, min(length, 1<<20)))
				if _, err := io.ReadFull(r, body); err != nil {
					return
				}
				mu.Lock()
				res, err := exchange(append(head.Bytes(), body...))
				mu.Unlock()
				if err == nil {
					res.Header.Set("Connection", "close")
					_ = res.Write(c)
				}
			}()
		}
	}()
	return "http://" + front.Addr().String()
}
