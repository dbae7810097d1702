package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// tries is the number of replicas that a request is sent to before the gateway
// gives up.
const tries = 2

// replica is what the balancer knows of a replica.
type replica struct {
	Replica
	line     *line
	ready    bool
	inFlight int    // requests
	work     int    // answers being computed, without those that only wait for a slow client
	served   uint64 // breaks ties, so that an idle service is used evenly
	outages  int    // how often it was taken out
	outAt    time.Time
	tally    tally
	took     []float64   // seconds of the last answers, the oldest first
	failures []time.Time // recent ones, the oldest first
	ejected  time.Time   // until when
	doubts   []time.Time // times of failures that the requests themselves may have caused
	asked    bool        // the gateway's own test request, which decides whose fault they were, is under way
}

// tally counts the requests of a replica since the gateway started. A request
// counts when its answer has ended. Requests whose client went away do not count,
// nor do those that only query, such as GET /v1/models.
type tally struct {
	Answered int `json:"answered"` // answers that ended, errors included
	Failed   int `json:"failed"`   // not answered, broken off, or answered with an error other than 429
	// Median duration in seconds of the last answers that did not fail, at most 64,
	// since the replica became ready.
	Median float64 `json:"median"`
	Timed  int     `json:"timed"` // number of answers in the median
}

const lastAnswers = 64

// serves reports whether requests are sent to the replica.
func (r *replica) serves(now time.Time) bool { return r.ready && !now.Before(r.ejected) }

// maxFailures failures within failWithin eject a replica for failWithin, even if
// its /ready succeeds: some replicas are ready and answer nothing.
const (
	maxFailures = 3
	failWithin  = 30 * time.Second
)

// balancer is an http.RoundTripper that sends each request to the replica with the
// fewest under way.
type balancer struct {
	log      *slog.Logger
	metrics  *metrics
	asking   *http.Transport // readiness; connections of its own, so that it is not queued behind requests
	ejectFor time.Duration
	waitFor  time.Duration // how long to wait for a replica that sends nothing
	secret   string        // authenticates the gateway to the replicas; empty: they do not ask for it

	mu       sync.Mutex
	replicas []*replica
}

func newBalancer(replicas []Replica, log *slog.Logger) *balancer {
	plain := transportOver(false)
	b := &balancer{log: log, asking: transportOver(false), ejectFor: failWithin, waitFor: replicaLimit}
	for _, r := range replicas {
		b.replicas = append(b.replicas, &replica{Replica: r, line: &line{plain: plain, open: meetings}})
	}
	return b
}

// RoundTrip sends the request to a replica, and to another one if the first fails
// before it answers. A request whose answer has begun is never retried, because the
// client already has a part of the answer.
func (b *balancer) RoundTrip(r *http.Request) (*http.Response, error) {
	sent, _ := r.Context().Value(bodyKey{}).(*payload)
	work := workOf(r.Context())
	var tried, failed []*replica
	var last error = errNoneReady
	for len(tried) < tries {
		rep := b.acquire(tried, work)
		if rep == nil {
			break
		}
		tried = append(tried, rep)
		if c, ok := r.Context().Value(callKey{}).(*call); ok {
			c.on = rep
		}
		began := time.Now()
		try := newAttempt(r.Context(), b.waitFor)
		resp, err := b.send(r.WithContext(try.ctx), sent, rep)
		err = try.why(err)
		try.idle.Stop() // each part of the answer has its own time
		again := err != nil && r.Context().Err() == nil || err == nil && resp.StatusCode == http.StatusServiceUnavailable && len(tried) < tries && b.others(tried)
		if !again {
			if err != nil { // the client is gone
				try.end()
				b.release(rep, work)
				return nil, err
			}
			for _, other := range failed { // they failed at a request that this one could answer
				b.failed(other)
			}
			sent.done()
			fault := resp.Header.Get(headerFault) == "request"
			resp.Header.Set(HeaderReplica, rep.Name)
			resp.Header.Set(HeaderRetries, retriesHeader(len(tried)-1))
			resp.Body = &passing{body: resp.Body, try: try, rep: rep, b: b, ctx: r.Context(), began: began, weight: work, work: r.Method == http.MethodPost && !fault, failed: resp.StatusCode >= 400 && resp.StatusCode != http.StatusTooManyRequests, stream: isStream(resp)}
			return resp, nil
		}
		try.end()
		b.release(rep, work)
		if err != nil {
			b.suspect(rep, err)
			failed = append(failed, rep)
			last = fmt.Errorf("%s: %w", rep.Name, err)
		} else {
			resp.Body.Close()
			last = refusal{http.StatusServiceUnavailable, "replica_busy", rep.Name + " takes no requests"}
		}
		b.metrics.retried.WithLabelValues(rep.Name).Inc()
	}
	for _, rep := range failed { // no replica answered, so the request itself may be the cause
		b.doubt(rep)
	}
	return nil, last
}

// headerFault is the header by which a replica says that the request itself caused
// the failure, so that any other replica would fail too.
const headerFault = "X-Launchgate-Fault"

// workOf is the number of answers that a request asks for.
func workOf(ctx context.Context) int {
	if c, ok := ctx.Value(callKey{}).(*call); ok {
		return max(1, c.work)
	}
	return 1
}

func isStream(r *http.Response) bool {
	return strings.HasPrefix(r.Header.Get("Content-Type"), "text/event-stream")
}

func (b *balancer) send(r *http.Request, sent *payload, rep *replica) (*http.Response, error) {
	out := r.Clone(r.Context())
	out.URL.Scheme, out.URL.Host, out.Host = rep.URL.Scheme, rep.URL.Host, rep.URL.Host
	if out.Body, out.ContentLength, out.GetBody = http.NoBody, 0, nil; sent != nil && len(sent.body) > 0 {
		out.Body, out.ContentLength = sent.reader(), int64(len(sent.body))
		out.GetBody = func() (io.ReadCloser, error) { return sent.reader(), nil } // over another connection
	}
	b.introduce(out.Header, r.Context())
	return rep.line.RoundTrip(out)
}

// Headers by which a replica knows its gateway, and for whom a request is.
const (
	headerSecret  = "X-Launchgate-Secret"
	headerTenant  = "X-Launchgate-Tenant"
	headerClass   = "X-Launchgate-Class"
	headerRequest = "X-Launchgate-Request"
)

func (b *balancer) introduce(h http.Header, ctx context.Context) {
	if b.secret != "" {
		h.Set(headerSecret, b.secret)
	}
	if c, ok := ctx.Value(callKey{}).(*call); ok {
		h.Set(headerTenant, c.key.Tenant)
		h.Set(headerClass, c.class)
		h.Set(headerRequest, c.id)
	}
}

// acquire takes the serving replica with the fewest requests under way. If all
// ready replicas are ejected, it takes one of them, because a replica that may fail
// is better than none.
func (b *balancer) acquire(not []*replica, work int) *replica {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	better := func(r, best *replica) bool {
		switch {
		case best == nil:
			return true
		case r.serves(now) != best.serves(now):
			return r.serves(now)
		}
		return r.work < best.work || r.work == best.work && r.served < best.served
	}
	var best *replica
	for _, r := range b.replicas {
		if planted("eject-on-client-error") && !r.serves(now) {
			continue
		}
		if r.ready && !contains(not, r) && better(r, best) {
			best = r
		}
	}
	if best != nil {
		best.inFlight++
		best.work += work
		best.served++
	}
	return best
}

func contains(list []*replica, r *replica) bool {
	for _, x := range list {
		if x == r {
			return true
		}
	}
	return false
}

// others reports whether there is a ready replica that was not tried yet.
func (b *balancer) others(tried []*replica) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, r := range b.replicas {
		if r.ready && !contains(tried, r) {
			return true
		}
	}
	return false
}

// count records an answer that has ended.
func (b *balancer) count(r *replica, failed bool, took time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	r.tally.Answered++
	if failed {
		r.tally.Failed++
	} else {
		if len(r.took) == lastAnswers {
			r.took = r.took[1:]
		}
		r.took = append(r.took, took.Seconds())
	}
}

func (b *balancer) release(r *replica, work int) {
	b.mu.Lock()
	r.inFlight--
	r.work -= work
	b.mu.Unlock()
}

// suspect takes a replica that refuses connections out of the balancing at once.
// watch puts it back when it is ready again.
func (b *balancer) suspect(r *replica, err error) {
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "dial" {
		b.setReady(r, false, err)
	}
}

// failed counts a failure of a replica at a request that another replica answered,
// so the replica is to blame.
func (b *balancer) failed(r *replica) {
	b.mu.Lock()
	r.tally.Answered++
	r.tally.Failed++
	b.blame(r, 1)
}

// blame ejects a replica that fails too often. Its caller has locked b.mu, and it
// is unlocked afterwards.
func (b *balancer) blame(r *replica, times int) {
	now := time.Now()
	r.failures = ofLately(r.failures, now)
	for range min(times, maxFailures) {
		r.failures = append(r.failures, now)
	}
	out := len(r.failures) >= maxFailures
	if out {
		r.failures = nil
		r.ejected = now.Add(b.ejectFor)
		r.outages++
		r.outAt = now
	}
	b.mu.Unlock()
	if out {
		b.log.Warn("replica is ejected", "replica", r.Name, "failures", maxFailures, "for", b.ejectFor)
	}
}

// doubt counts a failure that the request itself may have caused, because no other
// replica answered it either. Before such failures eject a replica, the gateway
// sends it a harmless request of its own, and ejects it only if that fails too.
// Otherwise a client could get all replicas ejected with a request that makes them
// fail.
func (b *balancer) doubt(r *replica) {
	b.mu.Lock()
	defer b.mu.Unlock()
	r.tally.Answered++
	r.tally.Failed++
	now := time.Now()
	r.failures = ofLately(r.failures, now)
	r.doubts = append(ofLately(r.doubts, now), now)
	if r.asked || len(r.failures)+len(r.doubts) < maxFailures {
		return
	}
	r.asked = true
	go func() { // ends within questionLimit
		err := b.question(r)
		b.mu.Lock()
		times := len(r.doubts)
		r.doubts, r.asked = nil, false
		if err == nil {
			b.mu.Unlock()
			return
		}
		b.log.Warn("a replica fails at a harmless question too", "replica", r.Name, "failures", times, "why", err)
		b.blame(r, times)
	}()
}

// ofLately are the failures within the window, which still count.
func ofLately(failures []time.Time, now time.Time) []time.Time {
	return slices.DeleteFunc(failures, func(t time.Time) bool { return now.Sub(t) > failWithin })
}

// questionLimit is how long a replica may take for the harmless question.
const questionLimit = 10 * time.Second

// question asks a replica for one token. Any answer counts as success unless it is
// a failure of the replica.
func (b *balancer) question(r *replica) error {
	ctx, cancel := context.WithTimeout(context.Background(), questionLimit)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://replica/v1/completions", nil)
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set(headerTenant, "launchgate")
	req.Header.Set(headerClass, "3")
	resp, err := b.send(req, &payload{body: []byte(`{"prompt":"hi","max_tokens":1}`)}, r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, io.LimitReader(resp.Body, 1<<20)); err != nil {
		return err
	}
	if resp.StatusCode >= 500 && resp.StatusCode != http.StatusServiceUnavailable {
		return fmt.Errorf("it answers %s", resp.Status)
	}
	return nil
}

func (b *balancer) setReady(r *replica, ready bool, why error) {
	b.mu.Lock()
	changed := r.ready != ready
	r.ready = ready
	if changed && ready { // failures before it went away do not count any more
		r.failures, r.doubts, r.ejected, r.took = nil, nil, time.Time{}, nil
	}
	if changed && !ready {
		r.outages++
		r.outAt = time.Now()
	}
	b.mu.Unlock()
	if changed && ready {
		b.log.Info("replica is ready", "replica", r.Name, "over", r.line.speaks())
	} else if changed {
		r.line.lost()
		b.log.Warn("replica is not ready", "replica", r.Name, "why", why)
	}
}

// watch asks every replica whether it is ready until ctx ends.
func (b *balancer) watch(ctx context.Context) {
	var asking sync.WaitGroup
	for _, r := range b.replicas {
		asking.Go(func() {
			for ctx.Err() == nil {
				err := b.ask(ctx, r)
				if ctx.Err() == nil {
					b.setReady(r, err == nil, err)
				}
				select {
				case <-ctx.Done():
				case <-time.After(watchEvery):
				}
			}
		})
	}
	asking.Wait()
}

func (b *balancer) ask(ctx context.Context, r *replica) error {
	ready := r.URL.JoinPath("ready").String()
	status, err := look(ctx, b.asking, ready)
	if err != nil {
		return err
	}
	if status != http.StatusOK {
		return fmt.Errorf("/ready answers %d", status)
	}
	r.line.meet(ctx, ready)
	return nil
}

// load is the number of answers being computed per ready replica.
func (b *balancer) load() float64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	ready, underWay := 0, 0
	now := time.Now()
	for _, r := range b.replicas {
		if r.serves(now) {
			ready++
			if planted("shed-by-open-streams") {
				underWay += r.inFlight
			} else {
				underWay += r.work
			}
		}
	}
	return float64(underWay) / float64(max(1, ready))
}

func (b *balancer) ready() (n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	for _, r := range b.replicas {
		if r.serves(now) {
			n++
		}
	}
	return n
}

// status is the answer of /status.
type status struct {
	Replicas []replicaStatus `json:"replicas"`
}

type replicaStatus struct {
	Name     string `json:"name"`
	URL      string `json:"url"`
	Ready    bool   `json:"ready"`
	InFlight int    `json:"in_flight"`
	HTTP     string `json:"http"` // version of HTTP in which requests are sent
	// How often the replica was taken out, and when last. An outage can be shorter
	// than the time between two polls of /status.
	Outages int       `json:"outages"`
	OutAt   time.Time `json:"out_at,omitzero"`
	tally
}

func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)/2]
}

func (b *balancer) status() status {
	b.mu.Lock()
	defer b.mu.Unlock()
	var s status
	now := time.Now()
	for _, r := range b.replicas {
		r.tally.Median, r.tally.Timed = median(r.took), len(r.took)
		s.Replicas = append(s.Replicas, replicaStatus{r.Name, r.URL.String(), r.serves(now), r.inFlight, r.line.speaks(), r.outages, r.outAt, r.tally})
	}
	return s
}

// passing is a replica's answer on its way to the client. A stream that breaks
// gets an error event before the connection is cut, so that a client can tell
// a failure from an end.
type passing struct {
	body   io.ReadCloser
	try    *attempt
	rep    *replica
	b      *balancer
	ctx    context.Context // of the client's request
	began  time.Time
	work   bool        // it asks for a completion and not only for a query
	weight int         // answers that it asks for
	failed bool        // the answer is an error
	ended  atomic.Bool // the replica has sent all of it
	closed atomic.Bool
	waits  bool // for its client; this and left are guarded by b.mu
	left   bool // the request is no longer counted as under way
	stream bool
	broken error
	tail   []byte // of the error event
	once   sync.Once
}

func (p *passing) Read(buf []byte) (int, error) {
	if p.broken == nil {
		n, err := p.try.read(p.body, buf)
		if err == nil || errors.Is(err, io.EOF) {
			if err != nil {
				p.ended.Store(true)
			}
			return n, err
		}
		p.broken = err
		if p.ctx.Err() == nil && !p.closed.Load() { // the client is still connected
			p.b.doubt(p.rep)
		}
		p.b.metrics.broken.WithLabelValues(p.rep.Name).Inc()
		if p.stream {
			p.tail = errorEvent(p.ctx, p.rep.Name, err)
		}
		if n > 0 {
			return n, nil
		}
	}
	if len(p.tail) > 0 {
		n := copy(buf, p.tail)
		p.tail = p.tail[n:]
		return n, nil
	}
	return 0, p.broken
}

func errorEvent(ctx context.Context, name string, err error) []byte {
	text := "the replica failed in the middle of its answer"
	if c, _ := ctx.Value(callKey{}).(*call); c.seesInside() {
		text = fmt.Sprintf("%s failed in the middle of its answer: %v", name, err)
	}
	data, _ := json.Marshal(errorBody("server_error", "replica_failed", text))
	// A blank line first: the stream may have broken inside an event.
	return fmt.Appendf(nil, "\n\ndata: %s\n\n", data)
}

// stall records whether the replica waits for the client, which does not count as
// work.
func (p *passing) stall(waits bool) {
	p.b.mu.Lock()
	defer p.b.mu.Unlock()
	if p.waits == waits || p.left {
		return
	}
	if p.waits = waits; waits {
		p.rep.work -= p.weight
	} else {
		p.rep.work += p.weight
	}
}

// Close ends the replica's request.
func (p *passing) Close() error {
	p.closed.Store(true)
	p.once.Do(func() {
		if p.ended.Load() && p.work {
			p.b.count(p.rep, p.failed, time.Since(p.began))
		}
		p.b.mu.Lock()
		p.left = true
		p.rep.inFlight--
		if !p.waits {
			p.rep.work -= p.weight
		}
		p.b.mu.Unlock()
		p.try.end()
	})
	return p.body.Close()
}
