package gateway

import (
	"bytes"
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
	"time"
)

// tries is how many replicas a request is sent to before the gateway gives up.
const tries = 2

// replica is what the balancer knows of a replica.
type replica struct {
	Replica
	line     *line
	ready    bool
	inFlight int
	served   uint64 // breaks ties, so that an idle service is used evenly
	outages  int    // how often it was taken out
	outAt    time.Time
	tally    tally
	took     []float64   // by the last answers, the oldest first
	failures []time.Time // of the last while, the oldest first
	ejected  time.Time   // until when
}

// tally is how a replica did since the gateway began. A request counts when its
// answer has ended; one whose client went away does not, nor does one that only
// asks what there is.
type tally struct {
	Answered int `json:"answered"` // to their ends, errors too
	Failed   int `json:"failed"`   // not answered, broken off, or answered with an error other than 429
	// Median of how long the last answers took that did not fail, in seconds;
	// since it became ready, and over 64 at most.
	Median float64 `json:"median"`
	Timed  int     `json:"timed"` // how many the median is of
}

const lastAnswers = 64

// serves reports whether requests are sent to the replica.
func (r *replica) serves(now time.Time) bool { return r.ready && !now.Before(r.ejected) }

// A replica that fails so often within a while is ejected for as long, whatever
// it says of its readiness: some are ready and answer nothing.
const (
	maxFailures = 3
	failWithin  = 30 * time.Second
)

// balancer is an http.RoundTripper over replicas: least connections.
type balancer struct {
	log      *slog.Logger
	metrics  *metrics
	asking   *http.Transport // readiness; connections of its own, so that it is not queued behind requests
	ejectFor time.Duration
	waitFor  time.Duration // for a replica that sends nothing

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

// RoundTrip sends the request to a replica, and to another one if the first
// fails before it answers. What was begun to be answered is never tried again:
// the client has a part of it already.
func (b *balancer) RoundTrip(r *http.Request) (*http.Response, error) {
	body, _ := r.Context().Value(bodyKey{}).([]byte)
	var tried []*replica
	var last error = errNoneReady
	for len(tried) < tries {
		rep := b.acquire(tried)
		if rep == nil {
			break
		}
		tried = append(tried, rep)
		began := time.Now()
		try := newAttempt(r.Context(), b.waitFor)
		resp, err := b.send(r.WithContext(try.ctx), body, rep)
		err = try.why(err)
		try.idle.Stop() // each part of the answer has its own time
		again := err != nil && r.Context().Err() == nil || err == nil && resp.StatusCode == http.StatusServiceUnavailable && len(tried) < tries && b.others(tried)
		if !again {
			if err != nil { // the client is gone
				try.end()
				b.release(rep)
				return nil, err
			}
			resp.Header.Set(HeaderReplica, rep.Name)
			resp.Header.Set(HeaderRetries, retriesHeader(len(tried)-1))
			resp.Body = &passing{body: resp.Body, try: try, rep: rep, b: b, ctx: r.Context(), began: began, work: r.Method == http.MethodPost, failed: resp.StatusCode >= 400 && resp.StatusCode != http.StatusTooManyRequests, stream: isStream(resp)}
			return resp, nil
		}
		try.end()
		b.release(rep)
		if err != nil {
			b.suspect(rep, err)
			b.failed(rep)
			last = fmt.Errorf("%s: %w", rep.Name, err)
		} else {
			resp.Body.Close()
			last = refusal{http.StatusServiceUnavailable, "replica_busy", rep.Name + " takes no requests"}
		}
		b.metrics.retried.WithLabelValues(rep.Name).Inc()
	}
	return nil, last
}

func isStream(r *http.Response) bool {
	return strings.HasPrefix(r.Header.Get("Content-Type"), "text/event-stream")
}

func (b *balancer) send(r *http.Request, body []byte, rep *replica) (*http.Response, error) {
	out := r.Clone(r.Context())
	out.URL.Scheme, out.URL.Host, out.Host = rep.URL.Scheme, rep.URL.Host, rep.URL.Host
	out.Body = io.NopCloser(bytes.NewReader(body))
	out.ContentLength = int64(len(body))
	return rep.line.RoundTrip(out)
}

// acquire takes the serving replica with the fewest requests under way. Where
// all that are ready are ejected, one that may fail is better than none.
func (b *balancer) acquire(not []*replica) *replica {
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
		return r.inFlight < best.inFlight || r.inFlight == best.inFlight && r.served < best.served
	}
	var best *replica
	for _, r := range b.replicas {
		if r.ready && !contains(not, r) && better(r, best) {
			best = r
		}
	}
	if best != nil {
		best.inFlight++
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

// others reports whether a replica is ready that was not tried.
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

// count takes note of an answer that came to its end.
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

func (b *balancer) release(r *replica) {
	b.mu.Lock()
	r.inFlight--
	b.mu.Unlock()
}

// suspect takes a replica that refuses connections out at once; the watch puts
// it back when it is ready again.
func (b *balancer) suspect(r *replica, err error) {
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "dial" {
		b.setReady(r, false, err)
	}
}

// failed counts a failure of a replica that was sent a request: it did not
// answer, or broke off in the middle.
func (b *balancer) failed(r *replica) {
	b.mu.Lock()
	now := time.Now()
	r.tally.Answered++
	r.tally.Failed++
	r.failures = append(slices.DeleteFunc(r.failures, func(t time.Time) bool { return now.Sub(t) > failWithin }), now)
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

func (b *balancer) setReady(r *replica, ready bool, why error) {
	b.mu.Lock()
	changed := r.ready != ready
	r.ready = ready
	if changed && ready { // what failed before it went away says nothing of it now
		r.failures, r.ejected, r.took = nil, time.Time{}, nil
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

// load is how many requests are under way per ready replica.
func (b *balancer) load() float64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	ready, underWay := 0, 0
	now := time.Now()
	for _, r := range b.replicas {
		if r.serves(now) {
			ready++
			underWay += r.inFlight
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

// status is what /status tells.
type status struct {
	Replicas []replicaStatus `json:"replicas"`
}

type replicaStatus struct {
	Name     string `json:"name"`
	URL      string `json:"url"`
	Ready    bool   `json:"ready"`
	InFlight int    `json:"in_flight"`
	HTTP     string `json:"http"` // what requests are sent in
	// How often the replica was taken out, and when last: an outage may be
	// shorter than the time between two looks at this.
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
	work   bool // it is more than a question about what there is
	failed bool // the answer is an error
	ended  bool // the client has all of it
	stream bool
	broken error
	tail   []byte // of the error event
	once   sync.Once
}

func (p *passing) Read(buf []byte) (int, error) {
	if p.broken == nil {
		n, err := p.try.read(p.body, buf)
		if err == nil || errors.Is(err, io.EOF) {
			p.ended = p.ended || err != nil
			return n, err
		}
		p.broken = err
		if p.ctx.Err() == nil { // the client is still there, so it is not its doing
			p.b.failed(p.rep)
		}
		p.b.metrics.broken.WithLabelValues(p.rep.Name).Inc()
		if p.stream {
			p.tail = errorEvent(p.rep.Name, err)
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

func errorEvent(name string, err error) []byte {
	data, _ := json.Marshal(errorBody("server_error", "replica_failed", fmt.Sprintf("%s failed in the middle of its answer: %v", name, err)))
	// A blank line first: the stream may have broken inside an event.
	return fmt.Appendf(nil, "\n\ndata: %s\n\n", data)
}

// Close ends the replica's request.
func (p *passing) Close() error {
	p.once.Do(func() {
		if p.ended && p.work {
			p.b.count(p.rep, p.failed, time.Since(p.began))
		}
		p.b.release(p.rep)
		p.try.end()
	})
	return p.body.Close()
}
