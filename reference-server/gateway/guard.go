package gateway

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/launchgate/launchgate/reference-server/ledger"
)

// guard decides who may pass, and writes down who did. A request goes through
//
//	address limit → key → scope → key limit → shedding → tenant budget
//
// and the address comes first, so that guessing keys is slow.
type guard struct {
	config  atomic.Pointer[Config]
	ledger  *ledger.Ledger
	metrics *metrics
	log     *slog.Logger
	addrs   buckets
	keys    buckets
	cache   *cache

	auditing sync.Mutex
	audit    io.Writer

	mu      sync.Mutex
	tenants map[string]*tenant // that have something under way, or just had

	// What is shared with the other gateways of the ledger: see shares.go.
	name        string
	gateways    atomic.Int64 // that live, this one too
	sharing     sync.Mutex   // held while the sheet is written; locked before mu
	shareFailed time.Time    // guarded by sharing
}

// call is a request that was let in.
type call struct {
	id        string
	key       ledger.Key
	shortened int       // max_tokens that it was cut to; 0: as asked
	hideUsage bool      // the client did not ask for the usage that the ledger needs
	cacheAs   *cacheKey // its answer may be given to whoever asks the same; nil: it may not
}

type callKey struct{}

// Guard asks every caller for an API key of the ledger and holds it to the
// limits; audit gets one JSON line per request and is only appended to. Limits
// are held by all gateways of the ledger together, each of which has a name of
// its own. It is called before Handler and Run.
func (g *Gateway) Guard(name string, c Config, l *ledger.Ledger, audit io.Writer) {
	g.guard = &guard{
		name: name, cache: newCache(), ledger: l, metrics: g.metrics, log: g.log, audit: audit, tenants: map[string]*tenant{},
		addrs: buckets{byName: map[string]*bucket{}}, keys: buckets{byName: map[string]*bucket{}},
	}
	g.guard.config.Store(&c)
	g.proxy.ModifyResponse = g.guard.account
}

// Reconfigure holds callers to other limits from now on. What is under way goes
// on, tokens that were used stay so, and every bucket of requests begins anew.
func (g *Gateway) Reconfigure(c Config) {
	g.guard.config.Store(&c)
	g.guard.addrs.empty()
	g.guard.keys.empty()
}

func (g *guard) limits() *Config { return g.config.Load() }

// bucket is the limiter of one address or key.
type bucket struct {
	*rate.Limiter
	used time.Time
}

// buckets are kept only while they say more than a fresh one would, so that a
// scan from many addresses does not fill the memory.
type buckets struct {
	mu     sync.Mutex
	byName map[string]*bucket
}

const bucketsKept = 10_000

// take takes one request out of a bucket; it returns how long to wait, 0 for
// none.
func (b *buckets) take(name string, l Limit, now time.Time) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	limiter, ok := b.byName[name]
	if !ok {
		if len(b.byName) >= bucketsKept {
			b.sweep(now)
		}
		limiter = &bucket{Limiter: rate.NewLimiter(rate.Limit(l.Rate), l.Burst)}
		b.byName[name] = limiter
	}
	limiter.used = now
	if limiter.Limit() != rate.Limit(l.Rate) { // another gateway came or went
		limiter.SetLimitAt(now, rate.Limit(l.Rate))
		limiter.SetBurstAt(now, l.Burst)
	}
	r := limiter.ReserveN(now, 1)
	wait := r.DelayFrom(now)
	if wait > 0 {
		r.CancelAt(now)
	}
	return wait
}

func (b *buckets) empty() {
	b.mu.Lock()
	defer b.mu.Unlock()
	clear(b.byName)
}

// sweep forgets full buckets, and the longest unused one if all say something.
func (b *buckets) sweep(now time.Time) {
	oldest, at := "", now
	for name, x := range b.byName {
		if x.TokensAt(now) >= float64(x.Burst()) {
			delete(b.byName, name)
		} else if !x.used.After(at) {
			oldest, at = name, x.used
		}
	}
	if len(b.byName) >= bucketsKept {
		delete(b.byName, oldest)
	}
}

// denial is a refusal with the time after which to try again.
type denial struct {
	refusal
	after time.Duration
}

func deny(status int, code, text string, after time.Duration) *denial {
	return &denial{refusal{status, code, text}, after}
}

// ledgerWithin is how long a request waits for a ledger that hangs.
const ledgerWithin = 3 * time.Second

func noLedger(text string) *denial {
	return deny(http.StatusServiceUnavailable, "ledger_unavailable", text, time.Second)
}

// authenticate finds the key of a request that may be used.
func (g *guard) authenticate(r *http.Request) (ledger.Key, *denial) {
	secret, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok || secret == "" {
		return ledger.Key{}, deny(http.StatusUnauthorized, "missing_api_key", "no API key was given: send Authorization: Bearer KEY", 0)
	}
	ctx, cancel := context.WithTimeout(r.Context(), ledgerWithin)
	defer cancel()
	key, err := g.ledger.KeyOf(ctx, secret)
	switch {
	case errors.Is(err, ledger.ErrNotFound), err == nil && key.Revoked, err == nil && !key.Expires.IsZero() && time.Now().After(key.Expires):
		return ledger.Key{}, deny(http.StatusUnauthorized, "invalid_api_key", "the API key is unknown, revoked or expired", 0)
	case err != nil:
		g.log.Error("the ledger did not answer", "why", err)
		return ledger.Key{}, noLedger("API keys cannot be checked now")
	case !key.Allows("inference"):
		return key, deny(http.StatusForbidden, "missing_scope", "the API key lacks the scope inference", 0)
	}
	return key, nil
}

// address is where a request comes from.
func address(r *http.Request) netip.Addr {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	a, _ := netip.ParseAddr(host)
	return a.Unmap()
}

func (g *guard) limitOf(a netip.Addr) Limit {
	for _, n := range g.limits().Networks {
		if n.CIDR.Contains(a) {
			return n.Limit
		}
	}
	return g.limits().Network
}

// admit lets a request in, or says why not. leave must be called when an
// admitted request ends.
func (g *guard) admit(r *http.Request, load float64) (c *call, leave func(), d *denial) {
	now := time.Now()
	a := address(r)
	c = &call{id: "req_" + strings.ToLower(rand.Text())}
	if wait := g.addrs.take(a.String(), g.limitOf(a).part(g.gateways.Load()), now); wait > 0 {
		return c, nil, deny(http.StatusTooManyRequests, "rate_limit_exceeded", fmt.Sprintf("too many requests from %s", a), wait)
	}
	if c.key, d = g.authenticate(r); d != nil {
		return c, nil, d
	}
	config := g.limits()
	limit, budget := config.Key, config.budgetOf(c.key.Tenant)
	if plan := config.Tenants[c.key.Tenant]; plan.Key != nil {
		limit = *plan.Key
	}
	if wait := g.keys.take(c.key.ID, limit.part(g.gateways.Load()), now); wait > 0 {
		return c, nil, deny(http.StatusTooManyRequests, "rate_limit_exceeded", "too many requests with this API key", wait)
	}
	if d := g.shed(c, load); d != nil {
		return c, nil, d
	}
	leave, d = g.enter(r.Context(), c.key.Tenant, budget)
	return c, leave, d
}

// enter counts a request of a tenant in.
func (g *guard) enter(ctx context.Context, name string, b Budget) (leave func(), d *denial) {
	g.mu.Lock()
	defer g.mu.Unlock()
	t := g.tenantOf(name)
	if b != (Budget{}) && !t.room(b, time.Now()) {
		t.waiting++
		g.mu.Unlock()
		err := g.grow(ctx, t, b)
		g.mu.Lock()
		t.waiting--
		if err != nil {
			g.log.Error("the ledger did not answer", "why", err)
			return nil, noLedger("the tenant's budget cannot be checked now")
		}
	}
	now := time.Now()
	if b.Concurrency > 0 && t.inFlight >= t.slots {
		t.refused = now
		return nil, deny(http.StatusTooManyRequests, "concurrency_exceeded", fmt.Sprintf("the tenant has as many requests under way as it may have, %d over all gateways", b.Concurrency), time.Second)
	}
	if used := counted(t.used, b, now.Sub(t.usedAt)); b.TokensPerMinute > 0 && used > float64(b.TokensPerMinute)-1 {
		wait := time.Duration((used - float64(b.TokensPerMinute) + 1) / float64(b.TokensPerMinute) * float64(time.Minute))
		return nil, deny(http.StatusTooManyRequests, "tokens_exceeded", fmt.Sprintf("the tenant has used its %d tokens per minute", b.TokensPerMinute), wait)
	}
	t.inFlight++
	t.most = max(t.most, t.inFlight)
	return func() { g.mu.Lock(); t.inFlight--; g.mu.Unlock() }, nil
}

// tenantOf finds a tenant. Its caller holds g.mu.
func (g *guard) tenantOf(name string) *tenant {
	t := g.tenants[name]
	if t == nil {
		t = &tenant{}
		g.tenants[name] = t
	}
	return t
}

// spend takes used tokens out of a tenant's budget, which may then owe some.
func (g *guard) spend(name string, n int64) {
	b := g.limits().budgetOf(name)
	if b.TokensPerMinute == 0 {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	t, now := g.tenantOf(name), time.Now()
	t.used, t.usedAt = counted(t.used, b, now.Sub(t.usedAt))+float64(n), now
	t.unsaid += n
}

// shed gives way past the mark: the least important class first. load is the
// requests under way per ready replica.
func (g *guard) shed(c *call, load float64) *denial {
	config := g.limits()
	mark := float64(config.Degrade.Queue)
	if mark == 0 || load <= mark {
		return nil
	}
	place := max(0, slices.Index(config.Classes, c.key.Class)) // an unknown class is the least
	if place < len(config.Classes)-1 && load > mark*float64(place+1) {
		g.metrics.degraded.WithLabelValues("shed").Inc()
		return deny(http.StatusServiceUnavailable, "overloaded", fmt.Sprintf("the service is overloaded, and requests of class %s are refused first", config.Classes[place]), 2*time.Second)
	}
	if config.Degrade.MaxTokens > 0 && slices.Contains(config.Degrade.Shorten, c.key.Class) {
		c.shortened = config.Degrade.MaxTokens
	}
	return nil
}

// record appends a line to the audit log: who, what, when and how it ended,
// and neither prompt nor key.
func (g *guard) record(r *http.Request, c *call, status int, began time.Time) {
	line, err := json.Marshal(map[string]any{
		"at": began.UTC().Format(time.RFC3339Nano), "request": c.id, "tenant": c.key.Tenant, "key": c.key.ID, "client": address(r).String(),
		"method": r.Method, "path": r.URL.Path, "status": status, "ms": time.Since(began).Milliseconds(),
	})
	if err == nil {
		g.auditing.Lock()
		_, err = g.audit.Write(append(line, '\n')) // one write, so that two gateways may share a file
		g.auditing.Unlock()
	}
	if err != nil {
		g.log.Error("the audit log is not written", "why", err)
	}
}

// Headers of every answer.
func secure(h http.Header, tls bool) {
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
	h.Set("Cache-Control", "no-store")
	if tls {
		h.Set("Strict-Transport-Security", "max-age=31536000; includeSubDomains")
	}
}

// guarded puts the guard in front of a handler.
func (g *Gateway) guarded(next http.HandlerFunc) http.HandlerFunc {
	if g.guard == nil {
		return next
	}
	return func(w http.ResponseWriter, r *http.Request) {
		began := time.Now()
		c, leave, d := g.guard.admit(r, g.balancer.load())
		seen := &statusWriter{ResponseWriter: w, status: http.StatusOK}
		defer func() { g.guard.record(r, c, seen.status, began) }() // also when the proxy cuts a broken stream
		seen.Header().Set("X-Request-Id", c.id)
		if d != nil {
			g.metrics.refused.WithLabelValues(d.code).Inc()
			g.deny(seen, d)
			return
		}
		defer leave()
		if c.shortened > 0 {
			g.metrics.degraded.WithLabelValues("shortened").Inc()
			seen.Header().Set("X-Launchgate-Degraded", "max_tokens="+strconv.Itoa(c.shortened))
		}
		r.Header.Del("Authorization") // replicas need not know it
		next(patient{seen}, r.WithContext(context.WithValue(r.Context(), callKey{}, c)))
	}
}

func (g *Gateway) deny(w http.ResponseWriter, d *denial) {
	if d.after > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(d.after.Seconds()))))
	}
	if d.status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", "Bearer")
	}
	g.fail(w, d.refusal)
}

// validate serves another door's auth_request: 204 for a key that may be used.
func (g *Gateway) validate(w http.ResponseWriter, r *http.Request) {
	key, d := g.guard.authenticate(r)
	if d != nil {
		w.Header().Set("X-Launchgate-Refusal", d.code) // nginx sees headers only
		g.deny(w, d)
		return
	}
	w.Header().Set("X-Launchgate-Tenant", key.Tenant)
	w.WriteHeader(http.StatusNoContent)
}

// patient gives a client sendLimit for each part of an answer, not for all:
// streams are long, but one that is not read must not be held for ever.
type patient struct{ http.ResponseWriter }

const sendLimit = 300 * time.Second // to take a part of an answer

func (p patient) Write(b []byte) (int, error) {
	_ = http.NewResponseController(p.ResponseWriter).SetWriteDeadline(time.Now().Add(sendLimit)) // where it can be had
	return p.ResponseWriter.Write(b)
}

func (p patient) Unwrap() http.ResponseWriter { return p.ResponseWriter }
