// Package gateway is the front end of the bundled service: it sends every
// request to the ready replica with the fewest under way, tries another one if
// that fails before its first byte, and passes streams on without holding
// anything back.
//
//	client ──▶ ReverseProxy ──▶ balancer ──▶ replica-0, replica-1, …
//	                               ▲ asks each one's /ready, four times a second
package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	maxBody = 8 << 20 // bytes of a request; it is kept, so that it can be sent again

	// Headers that tell a client which replica answered, and how often the request
	// was retried.
	HeaderReplica = "X-Launchgate-Replica"
	HeaderRetries = "X-Launchgate-Retries"
)

// Replica is where a replica serves.
type Replica struct {
	Name string
	URL  *url.URL
}

// Gateway balances over replicas. Run keeps watch over them.
type Gateway struct {
	log      *slog.Logger
	balancer *balancer
	proxy    *httputil.ReverseProxy
	metrics  *metrics
	guard    *guard // nil: requests need no key
	visitors *visitors
	bodies   bodies

	bodyWithin time.Duration // for a client to send the body of a request
}

// New makes a gateway. It takes no replica for ready before Run has asked it.
func New(replicas []Replica, log *slog.Logger) *Gateway {
	g := &Gateway{log: log, balancer: newBalancer(replicas, log), bodyWithin: 30 * time.Second}
	g.metrics = newMetrics(g.balancer)
	g.balancer.metrics = g.metrics
	g.visitors = &visitors{limits: g.connectionsOf, bounds: g.connections, idleFor: strangerIdle, addresses: map[netip.Prefix]int{}, tenants: map[string]int{}}
	if planted("no-body-timeout") {
		g.bodyWithin = 24 * time.Hour
	}
	g.proxy = &httputil.ReverseProxy{
		Rewrite:       func(r *httputil.ProxyRequest) { r.SetXForwarded() }, // the balancer chooses the host
		Transport:     g.balancer,
		FlushInterval: -1, // every write at once
		ErrorHandler:  g.failed,

		ModifyResponse: g.received,
		ErrorLog:       slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	return g
}

// connections are the bounds on open connections.
func (g *Gateway) connections() Connections {
	if g.guard == nil { // without keys only the descriptors of the process are a bound
		return Connections{Address: math.MaxInt32}
	}
	return g.guard.limits().Connections
}

// connectionsOf is the number of connections that an address may have open, and the
// rate at which it may open them.
func (g *Gateway) connectionsOf(a netip.Addr) (open int, opening Limit) {
	if g.guard == nil {
		return math.MaxInt32, Limit{1e9, 1e9}
	}
	c := g.guard.limits()
	open = c.Connections.Address
	for _, n := range c.Networks {
		if n.CIDR.Contains(a) {
			if n.Connections > 0 {
				open = n.Connections
			}
			break
		}
	}
	l := g.guard.limitOf(a)
	return open, Limit{openings * l.Rate, openings * l.Burst}
}

// Secret sets the secret that authenticates the gateway to its replicas. It is
// called before Run.
func (g *Gateway) Secret(secret string) { g.balancer.secret = secret }

// Run polls the readiness of the replicas and works on the background responses of
// the ledger, until ctx ends.
func (g *Gateway) Run(ctx context.Context) {
	var running sync.WaitGroup
	running.Go(func() { g.balancer.watch(ctx) })
	if g.guard != nil {
		running.Go(func() { g.guard.keepSharing(ctx) })
		running.Go(func() { g.compute(ctx) })
		running.Go(func() { g.guard.sweep(ctx) })
	}
	running.Wait()
}

// Handler is the gateway over HTTP.
func (g *Gateway) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /health", g.open(func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, map[string]string{"status": "ok"})
	}))
	mux.HandleFunc("GET /ready", g.open(func(w http.ResponseWriter, _ *http.Request) {
		if n := g.balancer.ready(); n > 0 {
			writeJSON(w, http.StatusOK, map[string]any{"status": "ready", "replicas": n})
			return
		}
		g.fail(w, errNoneReady)
	}))
	mux.HandleFunc("/v1/", g.guarded(g.forward))
	mux.HandleFunc("POST /tokenize", g.guarded(g.forward))
	if g.guard != nil {
		mux.HandleFunc("POST /v1/responses", g.guarded(g.accept))
		mux.HandleFunc("GET /v1/responses/{id}", g.guarded(g.stored))
		mux.HandleFunc("DELETE /v1/responses/{id}", g.guarded(g.stored))
		mux.HandleFunc("POST /v1/responses/{id}/cancel", g.guarded(g.stored))
		mux.HandleFunc("GET /v1/usage/{id}", g.guarded(g.used))
		mux.HandleFunc("GET /validate", g.validate)
	} else {
		mux.HandleFunc("GET /v1/responses/{id}", g.scattered)
		mux.HandleFunc("DELETE /v1/responses/{id}", g.scattered)
		mux.HandleFunc("POST /v1/responses/{id}/cancel", g.scattered)
	}
	mux.HandleFunc("/", g.open(func(w http.ResponseWriter, r *http.Request) {
		g.fail(w, refusal{http.StatusNotFound, "not_found", fmt.Sprintf("%s is not served; /v1/…, /health and /ready are", cut(r.URL.Path, auditedPath))})
	}))
	g.openRoutes(mux)
	measured := g.metrics.measured(mux)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// This holds for a body that nobody reads too, because the server waits for
		// its end before it closes the connection.
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(g.bodyWithin)) // where it can be had
		secure(w.Header(), r.TLS != nil)
		if r.Method == http.MethodOptions && r.RequestURI == "*" { // a ServeMux would close the connection without a word
			g.fail(w, refusal{http.StatusNotFound, "not_found", "* is not served; /v1/…, /health and /ready are"})
			return
		}
		if n := sizeOf(r); n > headerLimit {
			g.fail(w, refusal{http.StatusRequestHeaderFieldsTooLarge, "headers_too_large", largeHeaders(n)})
			return
		}
		if r = g.misled(w, r); r == nil {
			return
		}
		measured.ServeHTTP(w, r)
	})
}

func largeHeaders(n int) string {
	return fmt.Sprintf("the headers are of %d bytes, expected %d at the most", n, headerLimit)
}

// sizeOf is the approximate size in bytes of the request line and the headers.
func sizeOf(r *http.Request) int {
	n := len(r.Method) + len(r.RequestURI) + len(r.Host)
	for name, values := range r.Header {
		for _, v := range values {
			n += len(name) + len(v) + 4
		}
	}
	return n
}

// Metrics serves Prometheus metrics, and on /status the state of each replica.
func (g *Gateway) Metrics() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", g.metrics.handler())
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, http.StatusOK, g.balancer.status()) })
	return mux
}

// forward reads the whole body, so that a retry can send it again, and passes the
// request to the proxy.
func (g *Gateway) forward(w http.ResponseWriter, r *http.Request) {
	body, ok := g.readBody(w, r)
	if !ok {
		return
	}
	if q, ok := g.decoded(w, r, body); ok {
		g.send(w, r, body, q)
	}
}

// decoded parses a completion request and counts its work, or answers with an
// error. A gateway without keys bills nobody, so it does not parse requests.
func (g *Gateway) decoded(w http.ResponseWriter, r *http.Request, body []byte) (q *question, ok bool) {
	c, guarded := r.Context().Value(callKey{}).(*call)
	if !guarded || r.Method != http.MethodPost || !completes(r.URL.Path) {
		return nil, true
	}
	if coding := r.Header.Get("Content-Encoding"); coding != "" && coding != "identity" {
		g.fail(w, refusal{http.StatusUnsupportedMediaType, "unsupported_encoding", fmt.Sprintf("Content-Encoding: found %s, expected none", cut(coding, 40))})
		return nil, false
	}
	body = misspelled(c, body)
	q, no := decode(r.URL.Path, body)
	if no != nil {
		g.fail(w, *no)
		return nil, false
	}
	c.size, c.work = int64(len(body)), q.work()
	if q != nil {
		_ = json.Unmarshal(q.value("model"), &c.model) // the replica refuses a model that is not a string
	}
	if d := g.guard.weigh(r.Context(), c, q); d != nil {
		g.metrics.refused.WithLabelValues(d.code).Inc()
		g.deny(w, d)
		return nil, false
	}
	return q, true
}

// readBody reads the body of a request within the limits, or answers with an error.
func (g *Gateway) readBody(w http.ResponseWriter, r *http.Request) (body []byte, ok bool) {
	c, guarded := r.Context().Value(callKey{}).(*call)
	h, bounds := &held{of: &g.bodies}, Bodies{}
	if guarded {
		h.tenant, bounds, c.held = c.key.Tenant, g.guard.limits().Bodies, h
	}
	body, err := h.read(http.MaxBytesReader(w, r.Body, maxBody), r.ContentLength, bounds)
	if !guarded {
		h.release()
	}
	if errors.Is(err, errManyBytes) {
		w.Header().Set("Retry-After", "1")
		g.fail(w, tooManyBytes(bounds))
		return nil, false
	}
	var large *http.MaxBytesError
	if errors.As(err, &large) {
		g.fail(w, refusal{http.StatusRequestEntityTooLarge, "too_large", fmt.Sprintf("the body is larger than %d bytes", maxBody)})
		return nil, false
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		g.fail(w, refusal{http.StatusRequestTimeout, "too_slow", fmt.Sprintf("the body did not come within %s", g.bodyWithin)})
		return nil, false
	}
	if err != nil {
		g.fail(w, refusal{http.StatusBadRequest, "unreadable", "the body could not be read: " + err.Error()})
		return nil, false
	}
	if planted("log-prompts") {
		g.log.Info("a request", "path", r.URL.Path, "body", string(body))
	}
	// Without a deadline, because the answer may take longer and the server has to
	// notice when the client leaves.
	_ = http.NewResponseController(w).SetReadDeadline(time.Time{})
	return body, true
}

// send passes a request to the proxy.
func (g *Gateway) send(w http.ResponseWriter, r *http.Request, body []byte, q *question) {
	if c, ok := r.Context().Value(callKey{}).(*call); ok && q != nil {
		prepare(c, r.URL.Path, q)
		if g.fromCache(w, r, c, q) {
			return
		}
		body = q.bytes()
	}
	// The balancer sends the body, as often as needed. It frees the body when a
	// replica begins to answer, because streams are long.
	r.Body, r.ContentLength, r.GetBody = http.NoBody, 0, nil
	sent := &payload{body: body}
	if c, ok := r.Context().Value(callKey{}).(*call); ok {
		sent.held = c.held
	}
	g.proxy.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), bodyKey{}, sent)))
}

// bodyKey holds the payload of a request on its way through the proxy.
type bodyKey struct{}

// payload is the whole body of a request, which is freed when a replica begins to
// answer.
type payload struct {
	body []byte
	held *held
}

// reader reads the payload once, and frees it afterwards.
func (p *payload) reader() io.ReadCloser { return &parting{rest: p.body} }

type parting struct{ rest []byte }

func (r *parting) Read(p []byte) (int, error) {
	n := copy(p, r.rest)
	if r.rest = r.rest[n:]; len(r.rest) == 0 {
		r.rest = nil
		return n, io.EOF
	}
	return n, nil
}

func (r *parting) Close() error { return nil }

// done frees the payload.
func (p *payload) done() {
	if p != nil {
		p.body = nil
		p.held.release()
	}
}

// refusal is an answer of the gateway's own.
type refusal struct {
	status int
	code   string
	text   string
}

func (r refusal) Error() string { return r.text }

var errNoneReady = refusal{http.StatusServiceUnavailable, "no_replica", "no replica is ready"}

// received bills an answer of a replica before it goes to the client and removes
// headers: those that name the replica unless the caller may see them, and those
// that the gateway sets itself.
func (g *Gateway) received(resp *http.Response) error {
	if g.guard != nil {
		if err := g.guard.account(resp); err != nil {
			return err
		}
	}
	if resp.StatusCode == http.StatusBadRequest && planted("eject-on-client-error") {
		g.balancer.accuse()
	}
	own := http.Header{}
	securityHeaders(own, true)
	for name := range own {
		resp.Header.Del(name)
	}
	c, _ := resp.Request.Context().Value(callKey{}).(*call)
	for name := range resp.Header {
		if strings.HasPrefix(name, "X-Launchgate-") && !(c.seesInside() && (name == HeaderReplica || name == HeaderRetries)) {
			delete(resp.Header, name)
		}
	}
	return nil
}

// seesInside reports whether a caller may see which replica answered, and why one
// did not. It may if the gateway needs no keys, or if its key has the scope for it.
func (c *call) seesInside() bool {
	return c == nil || c.key.Allows("inside") || c.key.Allows("admin") || planted("inside-errors")
}

// failed answers a request that no replica answered.
func (g *Gateway) failed(w http.ResponseWriter, r *http.Request, err error) {
	if r.Context().Err() != nil { // the client is gone
		g.left(r)
		return
	}
	var own refusal
	if !errors.As(err, &own) {
		own = refusal{http.StatusBadGateway, "replica_failed", "the replica failed before it answered: " + err.Error()}
	}
	c, _ := r.Context().Value(callKey{}).(*call)
	if c != nil {
		g.log.Warn("not answered", "request", c.id, "path", r.URL.Path, "status", own.status, "why", err)
	} else {
		g.log.Warn("not answered", "path", r.URL.Path, "status", own.status, "why", err)
	}
	switch {
	case c.seesInside():
	case own.code == "replica_failed":
		own.text = "the replica failed before it answered; the log of the gateway tells why, by the X-Request-Id of this answer"
	case own.code == "replica_busy":
		own.text = "no replica takes requests now"
	}
	g.fail(w, own)
}

// refusedBody bounds how long the gateway waits for the body of a refused request.
// The refusal is sent after the body or, when this time is over, at once and with
// the end of the connection.
const refusedBody = time.Second

func (g *Gateway) fail(w http.ResponseWriter, r refusal) {
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(refusedBody))
	kind := "invalid_request_error"
	switch {
	case r.status >= 500:
		kind = "server_error"
		if w.Header().Get("Retry-After") == "" {
			w.Header().Set("Retry-After", "1")
		}
	case r.status == http.StatusUnauthorized:
		kind = "authentication_error"
	case r.status == http.StatusForbidden:
		kind = "permission_error"
	case r.status == http.StatusTooManyRequests:
		kind = "rate_limit_error"
	}
	if planted("stack-trace") {
		r.text += "\n" + string(debug.Stack())
	}
	if r.status == http.StatusBadRequest && planted("eject-on-client-error") {
		g.balancer.accuse()
	}
	writeJSON(w, r.status, errorBody(kind, r.code, r.text))
}

func errorBody(kind, code, text string) map[string]any {
	return map[string]any{"error": map[string]any{"message": text, "type": kind, "param": nil, "code": code}}
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // the client may be gone
}

// retriesHeader is the header with the number of retries of a request.
func retriesHeader(n int) string { return strconv.Itoa(n) }

const (
	watchEvery   = 250 * time.Millisecond
	watchTimeout = time.Second
)
