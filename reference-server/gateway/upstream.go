package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"time"
)

const (
	connectLimit = 5 * time.Second
	replicaLimit = 300 * time.Second // without a byte from a replica that is asked, or taken by it

	// A connection that many streams share, and on which nothing comes, is
	// asked whether it leads anywhere: a replica that hangs, or whose network is
	// gone in silence, would otherwise keep all of them waiting for 300 s. One
	// that computes has time enough to answer a ping.
	pingAfter = 15 * time.Second
	pingLimit = 15 * time.Second

	// What a slow client does not take waits in its replica, and not here. The
	// window of the connection is Go's, 1 GiB, more than all of its streams'
	// together: one that is not read holds up no other.
	streamWindow = 256 << 10

	meetings = 3 // how often a replica may leave the question open
)

// transportOver speaks HTTP/2 over one connection for many requests, or
// HTTP/1.1 with one for each that is under way. Over TLS that is negotiated.
func transportOver(h2 bool) *http.Transport {
	t := &http.Transport{
		DialContext: (&net.Dialer{Timeout: connectLimit}).DialContext, MaxIdleConnsPerHost: 512, IdleConnTimeout: 90 * time.Second,
		DisableCompression: true, Protocols: &http.Protocols{},
		HTTP2: &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pingLimit, WriteByteTimeout: replicaLimit, MaxReceiveBufferPerStream: streamWindow},
	}
	t.Protocols.SetHTTP2(true)
	t.Protocols.SetHTTP1(!h2)
	t.Protocols.SetUnencryptedHTTP2(h2)
	return t
}

// line is how requests reach a replica: over HTTP/2 where it is known to speak
// it, else over HTTP/1.1, which all do.
type line struct {
	plain *http.Transport // of all replicas

	mu   sync.Mutex
	h2   *http.Transport // nil: it does not speak it, or that is not known
	open int             // meetings that are left until the question is settled
}

// RoundTrip sends a request. Where HTTP/2 failed, the next ones go over HTTP/1.1
// until the replica is met again: it may be another one by now.
func (l *line) RoundTrip(r *http.Request) (*http.Response, error) {
	l.mu.Lock()
	h2 := l.h2
	l.mu.Unlock()
	if h2 == nil {
		return l.plain.RoundTrip(r)
	}
	resp, err := h2.RoundTrip(r)
	if err != nil && r.Context().Err() == nil {
		l.mu.Lock()
		if l.h2 == h2 {
			l.h2, l.open = nil, meetings
		}
		l.mu.Unlock()
		h2.CloseIdleConnections()
	}
	return resp, err
}

// lost has the replica be met again when it is back. What it spoke is
// remembered until then.
func (l *line) lost() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open = meetings
}

// meet finds out whether a replica that is ready speaks HTTP/2, by asking over
// it once more whether it is ready: the first bytes of HTTP/2 are no request of
// HTTP/1.1, so that whoever does not know it refuses them, and has done
// nothing. Only a replica that says nothing at all is asked again, next time.
//
// A replica that was away is met over a new connection: the old one may lead
// nowhere. What is under way on it ends there.
func (l *line) meet(ctx context.Context, ready string) {
	l.mu.Lock()
	open := l.open
	l.mu.Unlock()
	if open == 0 {
		return
	}
	h2 := transportOver(true)
	_, err := look(ctx, h2, ready)
	if err != nil {
		h2.CloseIdleConnections()
		h2 = nil
	}
	open--
	if !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, os.ErrDeadlineExceeded) {
		open = 0
	}
	l.mu.Lock()
	old := l.h2
	l.h2, l.open = h2, open
	l.mu.Unlock()
	if old != nil {
		old.CloseIdleConnections()
	}
}

// speaks is the version of HTTP in which requests are sent.
func (l *line) speaks() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.h2 != nil {
		return "HTTP/2.0"
	}
	return "HTTP/1.1"
}

// look asks a replica whether it is ready, and reports its status.
func look(ctx context.Context, over http.RoundTripper, ready string) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, watchTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, ready, nil)
	if err != nil {
		return 0, err
	}
	resp, err := over.RoundTrip(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, io.LimitReader(resp.Body, 1<<16))
	return resp.StatusCode, err
}

// attempt is a request to a replica. It is given up when nothing of it moves
// for too long; that a client is slow is not the replica's doing.
type attempt struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	idle   *time.Timer
	limit  time.Duration
}

func newAttempt(ctx context.Context, limit time.Duration) *attempt {
	a := &attempt{limit: limit}
	a.ctx, a.cancel = context.WithCancelCause(ctx)
	a.idle = time.AfterFunc(limit, func() { a.cancel(fmt.Errorf("nothing came from it for %s", limit)) })
	return a
}

// read reads a part of the answer.
func (a *attempt) read(from io.Reader, p []byte) (int, error) {
	a.idle.Reset(a.limit)
	n, err := from.Read(p)
	a.idle.Stop()
	return n, a.why(err)
}

// why is an error with the reason for which the request was given up.
func (a *attempt) why(err error) error {
	if err != nil && a.ctx.Err() != nil && !errors.Is(err, io.EOF) {
		return context.Cause(a.ctx)
	}
	return err
}

func (a *attempt) end() {
	a.idle.Stop()
	a.cancel(nil)
}
