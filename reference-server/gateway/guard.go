package gateway

import (
	"container/list"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
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

// guard decides which requests may pass, and logs them. A request goes through
//
//	address limit → key → scope → key limit → shedding → tenant budget
//
// The limit of the address comes first, so that guessing keys is slow.
type guard struct {
	config  atomic.Pointer[Config]
	ledger  *ledger.Ledger
	metrics *metrics
	log     *slog.Logger
	addrs   buckets // of requests that need a key, by address
	open    buckets // of those that need none
	proxied buckets // of keys that a trusted proxy shows, by the address of its client
	keys    buckets
	cache   *cache
	usedOf  func(*call) (tokens, error) // tokens that the replica has computed for a request whose client left

	auditing sync.Mutex
	audit    io.Writer
	unsaid   [][]byte // audit lines that could not be written yet; they are written first

	mu      sync.Mutex
	tenants map[string]*tenant // those with requests under way, or that had some recently

	// Shared with the other gateways of the ledger: see shares.go.
	name        string
	gateways    atomic.Int64 // live gateways, with this one
	sharing     sync.Mutex   // held while the sheet is written; locked before mu
	shareFailed time.Time    // guarded by sharing
}

// call is a request that was let in.
type call struct {
	id        string
	key       ledger.Key
	shortened int       // max_tokens that it was cut to; 0: as asked
	hideUsage bool      // the client did not ask for the usage that the ledger needs
	cacheAs   *cacheKey // the cache may keep its answer under this key; nil: it may not
	size      int64     // bytes of its body
	work      int       // number of answers that it asks for; 0: one
	model     string    // that it asks
	class     string    // of its key, as replicas know it
	unbilled  bool      // by a flaw
	held      *held     // bytes of its body
	on        *replica  // the replica that it was sent to last; nil: none
	leave     func()    // counts out what was counted in besides the request itself
}

type callKey struct{}

// Guard makes the gateway ask every caller for an API key of the ledger and apply
// the limits. audit gets one JSON line per request and is only appended to. All
// gateways of the ledger apply the limits together, and each has a name of its own.
// Guard is called before Handler and Run.
func (g *Gateway) Guard(name string, c Config, l *ledger.Ledger, audit io.Writer) {
	g.guard = &guard{
		name: name, cache: newCache(), ledger: l, metrics: g.metrics, log: g.log, audit: audit, tenants: map[string]*tenant{},
	}
	g.guard.usedOf = g.usedOf
	g.guard.config.Store(&c)
}

// Reconfigure replaces the limits. Requests under way go on and used tokens still
// count, but the buckets of requests start full again.
func (g *Gateway) Reconfigure(c Config) {
	g.guard.config.Store(&c)
	for _, b := range []*buckets{&g.guard.addrs, &g.guard.open, &g.guard.proxied, &g.guard.keys} {
		b.empty()
	}
}

func (g *guard) limits() *Config { return g.config.Load() }

// bucket is the limiter of one address or key.
type bucket struct {
	*rate.Limiter
	name string
}

// buckets has the buckets of the most recently used addresses or keys only, so that
// a scan from many addresses does not fill the memory.
type buckets struct {
	mu     sync.Mutex
	byName map[string]*list.Element
	order  list.List // of *bucket, the last used first
}

const bucketsKept = 10_000

// take takes n requests out of a bucket and returns how long to wait first, 0 if
// not at all. An n above the burst counts as the burst, because a bucket never
// holds more.
func (b *buckets) take(name string, l Limit, n int, now time.Time) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	var limiter *bucket
	if e, ok := b.byName[name]; ok {
		b.order.MoveToFront(e)
		limiter = e.Value.(*bucket)
	} else {
		if b.byName == nil {
			b.byName = map[string]*list.Element{}
		}
		if len(b.byName) >= bucketsKept {
			last := b.order.Back()
			delete(b.byName, b.order.Remove(last).(*bucket).name)
		}
		limiter = &bucket{rate.NewLimiter(rate.Limit(l.Rate), l.Burst), name}
		b.byName[name] = b.order.PushFront(limiter)
	}
	if limiter.Limit() != rate.Limit(l.Rate) { // the number of gateways has changed
		limiter.SetLimitAt(now, rate.Limit(l.Rate))
		limiter.SetBurstAt(now, l.Burst)
	}
	r := limiter.ReserveN(now, min(n, l.Burst))
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
	b.order.Init()
}

// denial is a refusal with the time after which the client may retry.
type denial struct {
	refusal
	after time.Duration
}

func deny(status int, code, text string, after time.Duration) *denial {
	return &denial{refusal{status, code, text}, after}
}

// ledgerWithin bounds how long a request waits for the ledger.
const ledgerWithin = 3 * time.Second

func noLedger(text string) *denial {
	return deny(http.StatusServiceUnavailable, "ledger_unavailable", text, time.Second)
}

// authenticate finds the key of a request, and refuses one that is not valid.
func (g *guard) authenticate(r *http.Request) (ledger.Key, *denial) {
	scheme, secret, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") || secret == "" { // RFC 9110: a scheme is in any case
		return ledger.Key{}, deny(http.StatusUnauthorized, "missing_api_key", "no API key was given: send Authorization: Bearer KEY", 0)
	}
	ctx, cancel := context.WithTimeout(r.Context(), ledgerWithin)
	defer cancel()
	key, err := g.ledger.KeyOf(ctx, secret)
	if planted("accept-any-key") && err != nil {
		key, err = ledger.Key{ID: "any", Tenant: "any", Class: "standard", Scopes: []string{"inference"}}, nil
	}
	if planted("accept-prefix") {
		key, err = g.prefixed(secret, key, err)
	}
	switch {
	case errors.Is(err, ledger.ErrNotFound), err == nil && key.Revoked, err == nil && !key.Expires.IsZero() && time.Now().After(key.Expires):
		text := "the API key is unknown, revoked or expired"
		if planted("echo-key") {
			text += ": " + secret
		}
		return ledger.Key{}, deny(http.StatusUnauthorized, "invalid_api_key", text, 0)
	case err != nil:
		g.log.Error("the ledger did not answer", "why", err)
		return ledger.Key{}, noLedger("API keys cannot be checked now")
	case !key.Allows("inference"):
		return key, deny(http.StatusForbidden, "missing_scope", "the API key lacks the scope inference", 0)
	}
	return key, nil
}

// address is the client address of a request.
func address(r *http.Request) netip.Addr {
	if planted("trust-x-forwarded-for") {
		if a := forwardedFor(r); a.IsValid() {
			return a
		}
	}
	return remoteAddr(r.RemoteAddr)
}

// forwardedFor is the address that the last proxy before this gateway has seen.
func forwardedFor(r *http.Request) netip.Addr {
	all := r.Header.Values("X-Forwarded-For")
	if len(all) == 0 {
		return netip.Addr{}
	}
	list := strings.Split(all[len(all)-1], ",")
	a, _ := netip.ParseAddr(strings.TrimSpace(list[len(list)-1]))
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

// openFor multiplies the limit of an address for requests that need no key. They
// cost next to nothing, and probes send several a second.
const openFor = 10

// limited takes a request out of the bucket of its address. The limit is multiplied
// by times.
func (g *guard) limited(of *buckets, a netip.Addr, times int, now time.Time) *denial {
	l := g.limitOf(a).part(g.gateways.Load())
	wait := of.take(network(a).String(), Limit{float64(times) * l.Rate, times * l.Burst}, 1, now)
	if wait == 0 || planted("no-limit") {
		return nil
	}
	return deny(http.StatusTooManyRequests, "rate_limit_exceeded", fmt.Sprintf("too many requests from %s", a), wait)
}

// admit lets a request in, or returns the reason why not. leave must be called when
// an admitted request ends.
func (g *guard) admit(r *http.Request, load float64) (c *call, leave func(), d *denial) {
	now := time.Now()
	a := address(r)
	c = &call{id: "req_" + strings.ToLower(rand.Text())}
	if d := g.limited(&g.addrs, a, 1, now); d != nil {
		return c, nil, d
	}
	if c.key, d = g.authenticate(r); d != nil {
		return c, nil, d
	}
	config := g.limits()
	limit, budget := config.keyLimit(c.key.Tenant), config.budgetOf(c.key.Tenant)
	if wait := g.keys.take(c.key.ID, limit.part(g.gateways.Load()), 1, now); wait > 0 && !planted("no-limit") {
		return c, nil, deny(http.StatusTooManyRequests, "rate_limit_exceeded", "too many requests with this API key", wait)
	}
	if d := g.audits(); d != nil {
		return c, nil, d
	}
	if d := g.shed(c, load); d != nil {
		return c, nil, d
	}
	leave, d = g.enter(r.Context(), c.key.Tenant, budget, 1, 0)
	if d == nil {
		g.mu.Lock()
		g.tenantOf(c.key.Tenant).place = slices.Index(config.Classes, c.key.Class)
		g.mu.Unlock()
	}
	return c, leave, d
}

// A request without a bound on its answer is expected to use that many tokens,
// until its usage is known.
const expectedTokens = 256

// A bound on answers and on tokens of one, above which their product would
// overflow. Replicas refuse far fewer.
const mostExpected = 1 << 24

// weigh counts a request for several answers as several requests, for the limit of
// its key, the concurrency of its tenant and the budget of tokens.
func (g *guard) weigh(ctx context.Context, c *call, q *question) *denial {
	if q == nil {
		return nil
	}
	config := g.limits()
	b := config.budgetOf(c.key.Tenant)
	most := q.most
	if most == 0 {
		most = expectedTokens
	}
	if b.Concurrency > 0 && c.work > b.Concurrency {
		return deny(http.StatusTooManyRequests, "concurrency_exceeded", fmt.Sprintf("the request asks for %d answers at once, and the tenant may have %d under way: ask for fewer", c.work, b.Concurrency), 0)
	}
	if c.work > 1 {
		limit := config.keyLimit(c.key.Tenant).part(g.gateways.Load())
		if wait := g.keys.take(c.key.ID, limit, c.work-1, time.Now()); wait > 0 && !planted("no-limit") {
			return deny(http.StatusTooManyRequests, "rate_limit_exceeded", fmt.Sprintf("too many answers are asked for with this API key: each of the %d of this request counts", c.work), wait)
		}
	}
	var d *denial
	c.leave, d = g.enter(ctx, c.key.Tenant, b, c.work-1, int64(min(c.work, mostExpected))*int64(min(max(most, 1), mostExpected)))
	return d
}

// enter counts n requests of a tenant as under way, with the tokens that they may
// use.
func (g *guard) enter(ctx context.Context, name string, b Budget, n int, tokens int64) (leave func(), d *denial) {
	g.mu.Lock()
	defer g.mu.Unlock()
	t := g.tenantOf(name)
	if n > 0 && b != (Budget{}) && !t.room(b, n, time.Now()) {
		t.waiting += n
		g.mu.Unlock()
		err := g.grow(ctx, t, b, n)
		g.mu.Lock()
		t.waiting -= n
		if err != nil {
			g.log.Error("the ledger did not answer", "why", err)
			return nil, noLedger("the tenant's budget cannot be checked now")
		}
	}
	now := time.Now()
	if n > 0 && b.Concurrency > 0 && t.inFlight+n > t.slots {
		t.refused = now
		return nil, deny(http.StatusTooManyRequests, "concurrency_exceeded", fmt.Sprintf("the tenant has as many requests under way as it may have, %d over all gateways", b.Concurrency), time.Second)
	}
	if used := counted(t.used, b, now.Sub(t.usedAt)) + float64(t.expected); b.TokensPerMinute > 0 && used > float64(b.TokensPerMinute)-1 {
		wait := time.Duration((used - float64(b.TokensPerMinute) + 1) / float64(b.TokensPerMinute) * float64(time.Minute))
		return nil, deny(http.StatusTooManyRequests, "tokens_exceeded", fmt.Sprintf("the tenant has used its %d tokens per minute", b.TokensPerMinute), wait)
	}
	t.inFlight += n
	t.expected += tokens
	t.most = max(t.most, t.inFlight)
	return func() { g.mu.Lock(); t.inFlight -= n; t.expected -= tokens; g.mu.Unlock() }, nil
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

// spend takes used tokens out of a tenant's budget, which may become negative.
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

// shed refuses or shortens a request if the load is too high, the least important
// class first. load is the number of requests under way per ready replica.
func (g *guard) shed(c *call, load float64) *denial {
	config := g.limits()
	mark := float64(config.Degrade.Queue)
	if mark == 0 {
		return nil
	}
	place := max(0, slices.Index(config.Classes, c.key.Class)) // an unknown class is the least
	if place < len(config.Classes)-1 && load > mark*float64(place+1) && (planted("unfair-shedding") || !g.hasLittle(c.key.Tenant, place, load, mark*float64(place+1))) {
		g.metrics.degraded.WithLabelValues("shed").Inc()
		return deny(http.StatusServiceUnavailable, "overloaded", fmt.Sprintf("the service is overloaded, and requests of class %s are refused first", config.Classes[place]), 2*time.Second)
	}
	// A class that allows it is shortened before it is refused.
	if config.Degrade.MaxTokens > 0 && load > mark*float64(place+1)/2 && slices.Contains(config.Degrade.Shorten, c.key.Class) {
		c.shortened = config.Degrade.MaxTokens
	}
	return nil
}

// hasLittle reports whether a tenant has less under way than an even share of most,
// the load at which its class is refused, while the load is not that of higher classes:
// one tenant alone must not have all others of its class refused. The replicas' queue
// is fair over tenants, so what is let in does not wait for all of the load.
func (g *guard) hasLittle(name string, place int, load, most float64) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	all, higher, tenants := 0, 0, 0
	for _, t := range g.tenants {
		if t.inFlight == 0 {
			continue
		}
		tenants++
		all += t.inFlight
		if t.place > place {
			higher += t.inFlight
		}
	}
	if all == 0 {
		return false // the load is not that of tenants
	}
	own := 0
	if t := g.tenants[name]; t != nil {
		own = t.inFlight
	}
	if own == 0 {
		tenants++
	}
	each := load / float64(all)
	return each*float64(higher) <= most && each*float64(own) < most/float64(tenants)
}

// Bounds of the texts of a request in an audit line.
const (
	auditedPath   = 512
	auditedMethod = 32
)

// record appends a line to the audit log: who, what, when and how it ended, but
// neither prompt nor key.
func (g *guard) record(r *http.Request, c *call, status int, began time.Time) {
	line, err := json.Marshal(map[string]any{
		"at": began.UTC().Format(time.RFC3339Nano), "request": c.id, "tenant": c.key.Tenant, "key": c.key.ID, "client": address(r).String(),
		"method": cut(r.Method, auditedMethod), "path": cut(r.URL.Path, auditedPath), "status": status, "ms": time.Since(began).Milliseconds(),
	})
	if planted("raw-audit-line") {
		line, err = fmt.Appendf(nil, "%s %s %s %s %d", began.UTC().Format(time.RFC3339Nano), c.id, r.Method, r.URL.Path, status), nil
	}
	if err == nil {
		err = g.say(append(line, '\n'))
	}
	if err != nil {
		g.metrics.unaudited.Inc()
		g.log.Error("the audit log is not written", "why", err, "unless", g.limits().Audit.Unwritable)
	}
}

// unsaidMost bounds the lines that wait for an audit log that cannot be written:
// those of the requests that were under way when that began.
const unsaidMost = 4096

// say writes a line, after the lines that could not be written before.
func (g *guard) say(line []byte) error {
	g.auditing.Lock()
	defer g.auditing.Unlock()
	for i, waiting := range append(g.unsaid, line) {
		if _, err := g.audit.Write(waiting); err != nil { // one write, so that two gateways may share a file
			g.unsaid = append(g.unsaid[:0:0], g.unsaid[min(i, len(g.unsaid)):]...)
			if len(g.unsaid) < unsaidMost {
				g.unsaid = append(g.unsaid, line)
			}
			return err
		}
	}
	g.unsaid = nil
	return nil
}

// audits reports whether the audit log can be written, by trying to write the lines
// that wait for it.
func (g *guard) audits() *denial {
	if g.limits().Audit.Unwritable == "serve" {
		return nil
	}
	g.auditing.Lock()
	defer g.auditing.Unlock()
	for len(g.unsaid) > 0 {
		if _, err := g.audit.Write(g.unsaid[0]); err != nil {
			return deny(http.StatusServiceUnavailable, "audit_unavailable", "requests cannot be written down now, so none is served", 2*time.Second)
		}
		g.unsaid = g.unsaid[1:]
	}
	return nil
}

// sweepEvery is how often expired rows are removed.
const sweepEvery = time.Minute

// sweep removes expired rows until ctx ends.
func (g *guard) sweep(ctx context.Context) {
	for pause(ctx, sweepEvery); ctx.Err() == nil; pause(ctx, sweepEvery) {
		keep, now := g.limits().Keep, time.Now()
		before := func(d time.Duration) time.Time {
			if d == 0 {
				return time.Time{}
			}
			return now.Add(-d)
		}
		if _, err := g.ledger.Sweep(ctx, before(keep.Responses), before(keep.Usage)); err != nil && ctx.Err() == nil {
			g.log.Error("what is over is not removed from the ledger", "why", err)
			continue
		}
		if err := g.ledger.Scrub(ctx); err != nil && ctx.Err() == nil {
			g.log.Warn("what was deleted stays in the ledger's log", "why", err)
		}
	}
}

// cut shortens a text to that many bytes, and marks it if it was longer.
func cut(s string, most int) string {
	if len(s) <= most {
		return s
	}
	return fmt.Sprintf("%s… (%d bytes)", strings.ToValidUTF8(s[:most], ""), len(s))
}

// Headers of every answer.
func secure(h http.Header, tls bool) {
	if planted("no-security-headers") {
		return
	}
	securityHeaders(h, tls)
}

func securityHeaders(h http.Header, tls bool) {
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
	h.Set("Cache-Control", "no-store")
	if tls && !planted("no-hsts") {
		h.Set("Strict-Transport-Security", "max-age=31536000; includeSubDomains")
	}
}

// guarded puts the guard in front of a handler.
func (g *Gateway) guarded(next http.HandlerFunc) http.HandlerFunc {
	if g.guard == nil {
		return func(w http.ResponseWriter, r *http.Request) {
			if v := visitorOf(r.Context()); v != nil {
				v.know("") // everybody may pass
			}
			scrub(r.Header)
			next(w, r)
		}
	}
	return func(w http.ResponseWriter, r *http.Request) {
		began := time.Now()
		c, leave, d := g.guard.admit(r, g.balancer.load())
		if d != nil && g.withoutKey(r) {
			c.key, d, leave = ledger.Key{ID: "none", Tenant: "none", Class: "standard"}, nil, func() {}
		}
		seen := &statusWriter{ResponseWriter: w, status: http.StatusOK}
		defer func() { g.guard.record(r, c, seen.status, began) }() // also when the proxy cuts a broken stream
		seen.Header().Set("X-Request-Id", c.id)
		if d != nil {
			g.metrics.refused.WithLabelValues(d.code).Inc()
			g.deny(seen, d)
			return
		}
		defer func() {
			leave()
			c.held.release()
			if c.leave != nil {
				c.leave()
			}
		}()
		if v := visitorOf(r.Context()); v != nil && !v.know(c.key.Tenant) {
			seen.Header().Set("Connection", "close")
			g.metrics.refused.WithLabelValues(tooManyConnections.code).Inc()
			g.deny(seen, tooManyConnections)
			return
		}
		if c.shortened > 0 {
			g.metrics.degraded.WithLabelValues("shortened").Inc()
			seen.Header().Set("X-Launchgate-Degraded", "max_tokens="+strconv.Itoa(c.shortened))
		}
		c.class = g.guard.limits().classOf(c.key)
		scrub(r.Header)
		r.Header.Del("Authorization") // replicas do not need it
		next(patient{seen}, r.WithContext(context.WithValue(r.Context(), callKey{}, c)))
	}
}

// scrub removes client headers that are for the gateway only, and those that only
// the gateway may send to a replica.
func scrub(h http.Header) {
	for _, list := range h.Values("Connection") {
		for name := range strings.SplitSeq(list, ",") {
			h.Del(strings.TrimSpace(name))
		}
	}
	for name := range h {
		if strings.HasPrefix(name, "X-Launchgate-") {
			delete(h, name)
		}
	}
	for _, name := range []string{"Connection", "Proxy-Connection", "Keep-Alive", "Te", "Trailer", "Transfer-Encoding", "Upgrade", "Proxy-Authorization", "Cookie", "Expect"} {
		h.Del(name)
	}
}

var tooManyConnections = deny(http.StatusTooManyRequests, "too_many_connections", "the tenant has too many connections open: close those that are not used", time.Second)

// open serves paths that need no key, within the limit of the address.
func (g *Gateway) open(next http.HandlerFunc) http.HandlerFunc {
	if g.guard == nil {
		return next
	}
	return func(w http.ResponseWriter, r *http.Request) {
		if d := g.guard.limited(&g.guard.open, address(r), openFor, time.Now()); d != nil {
			g.metrics.refused.WithLabelValues(d.code).Inc()
			g.deny(w, d)
			return
		}
		next(w, r)
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

// validate serves a proxy's auth_request: 204 for a key that may be used. The limit
// of the client's address applies. A proxy that the configuration names gives that
// address in X-Forwarded-For.
func (g *Gateway) validate(w http.ResponseWriter, r *http.Request) {
	began, client, times := time.Now(), address(r), 1
	if forwarded := forwardedFor(r); forwarded.IsValid() && g.guard.limits().isProxy(client) {
		client, times = forwarded, openFor // the proxy has limits of its own, which come first
	}
	c := &call{id: "req_" + strings.ToLower(rand.Text())}
	var d *denial
	if !planted("unlimited-validate") {
		d = g.guard.limited(&g.guard.proxied, client, times, began)
	}
	if d == nil {
		c.key, d = g.guard.authenticate(r)
	}
	seen := &statusWriter{ResponseWriter: w, status: http.StatusOK}
	defer func() { g.guard.record(r, c, seen.status, began) }()
	seen.Header().Set("X-Request-Id", c.id)
	if d != nil {
		g.metrics.refused.WithLabelValues(d.code).Inc()
		seen.Header().Set("X-Launchgate-Refusal", d.code) // nginx sees headers only
		g.deny(seen, d)
		return
	}
	if v := visitorOf(r.Context()); v != nil {
		v.know("")
	}
	seen.Header().Set("X-Launchgate-Tenant", c.key.Tenant)
	seen.Header().Set("X-Launchgate-Class", g.guard.limits().classOf(c.key))
	seen.WriteHeader(http.StatusNoContent)
}

// patient gives a client sendLimit for each part of an answer, not for the whole
// answer: streams are long, but one that is not read must not stay open for ever.
type patient struct{ http.ResponseWriter }

const sendLimit = 60 * time.Second // to take a part of an answer

func (p patient) Write(b []byte) (int, error) {
	_ = http.NewResponseController(p.ResponseWriter).SetWriteDeadline(time.Now().Add(sendLimit)) // where it can be had
	return p.ResponseWriter.Write(b)
}

func (p patient) Unwrap() http.ResponseWriter { return p.ResponseWriter }
