package security

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/launchgate/launchgate/internal/recording"
)

var unreadStreams = Check{
	Name:    "unread-streams",
	Asks:    "whether one client that does not read its streams causes the service to refuse others",
	Control: "the other tenant is served before the streams open and within five seconds after they close",
	Flaw:    "twice, the other tenant is refused (429 or 503) while the first one leaves 220 streams unread, and is served again afterwards",
	Planted: "test service and reference server: shed-by-open-streams", Disruptive: true,
	Needs: "a key of another tenant (other_key_env)",
	Cap:   Cap{Requests: 3000, Seconds: 120, Bytes: 32 << 20},
	worst: "CVSS:3.1/AV:N/AC:L/PR:L/UI:N/S:C/C:N/I:N/A:H",
	run:   runUnreadStreams,
}

var connectionExhaustion = Check{
	Name:    "connection-exhaustion",
	Asks:    "whether many idle connections from one address, without a key, keep others from connecting",
	Control: "another address is served before and afterwards",
	Flaw:    "twice, another address is not served (three of three requests, one after the other) while one address holds 500 connections or as many as it is allowed, and is served again afterwards. A service that refuses connections beyond a limit, or closes idle ones within that time, is safe",
	Planted: "test service and reference server: no-connection-limit", Disruptive: true,
	Cap:   Cap{Requests: 2500, Seconds: 180, Bytes: 64 << 20},
	worst: "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:N/I:N/A:H",
	run:   runConnectionExhaustion,
}

const (
	manyStreams     = 220
	manyConnections = 500
	openers         = 16 // that open connections at the same time
	// More than enoughRefusals in a row end the opening: about two of each opener.
	enoughRefusals = 2 * openers
	openWithin     = 3 * time.Second // a connection counts as refused after that
)

// unread are streams whose answers are not read.
type unread struct {
	conns  []net.Conn
	opened int
}

func (u *unread) close() {
	for _, c := range u.conns {
		c.Close()
	}
}

// leaveUnread asks for many answers and reads none of them: over HTTP/2 with a
// flow-control window of 0, or over one connection each.
func (t *trial) leaveUnread(ctx context.Context, h2 bool) *unread {
	body := t.message("Count from one to one hundred.", `"max_tokens":2,"stream":true`)
	u := &unread{}
	from := t.own()
	for ctx.Err() == nil && u.opened < manyStreams {
		if !h2 {
			l, err := t.dial(ctx, from, "http/1.1")
			if err != nil {
				break
			}
			_ = l.SetWriteDeadline(time.Now().Add(2 * time.Second))
			if _, err := l.Write(t.wire(request{method: "POST", path: "/v1/chat/completions", body: body, key: t.target.Key})); err != nil {
				l.Close()
				break
			}
			u.conns = append(u.conns, l)
			u.opened++
			continue
		}
		c, err := t.preface(ctx, t.next(), 0) // from several addresses: limits of an address are tested by another check
		if err != nil {
			break
		}
		u.conns = append(u.conns, c)
		go func() { _, _ = io.Copy(io.Discard, c) }() // frames are read, but the window is never opened
		f := http2.NewFramer(c, nil)
		_ = c.SetWriteDeadline(time.Now().Add(5 * time.Second))
		ended := false
		for i := range 20 {
			var block bytes.Buffer
			e := hpack.NewEncoder(&block)
			for _, h := range [][2]string{{":method", "POST"}, {":scheme", "https"}, {":authority", t.host}, {":path", "/v1/chat/completions"}, {"authorization", "Bearer " + t.target.Key}, {"content-type", "application/json"}, {"user-agent", t.agent}, {"x-launchgate-scan", t.id}} {
				_ = e.WriteField(hpack.HeaderField{Name: h[0], Value: h[1]}) // writing to a buffer cannot fail
			}
			id := uint32(2*i + 1)
			if !t.spend() || f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block.Bytes(), EndHeaders: true}) != nil || f.WriteData(id, true, []byte(body)) != nil {
				ended = true
				break
			}
			u.opened++
		}
		if ended && len(u.conns) > 40 {
			break
		}
		sleep(ctx, 100*time.Millisecond)
	}
	return u
}

// served sends requests of another tenant from an address of its own, one every 200 ms,
// whether or not those before are answered, and counts which are served and refused. It
// returns the last answer, or the last refusal if there is one.
func (t *trial) served(ctx context.Context, key string, n int) (ok, refused int, last answer) {
	from := t.own()
	answers := make([]answer, n)
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			r := t.small()
			r.key, r.from, r.within = key, from, t.reply
			answers[i] = t.once(ctx, r)
		})
		sleep(ctx, 200*time.Millisecond)
	}
	all.Wait()
	last = answers[n-1]
	for _, a := range answers {
		switch {
		case meansCompletion(a):
			ok++
		case a.err == nil && a.limited():
			refused++
			last = a
		}
	}
	return ok, refused, last
}

// servedAgain waits until another tenant is served, and reports whether it is. The last
// request is sent after the time, because one sent before may hang although the service
// is well again.
func (t *trial) servedAgain(ctx context.Context, key string, within time.Duration) bool {
	for until := time.Now().Add(within); ; {
		last := !time.Now().Before(until)
		if ok, _, _ := t.served(ctx, key, 1); ok == 1 {
			return true
		}
		if last || !sleep(ctx, 300*time.Millisecond) {
			return false
		}
	}
}

func runUnreadStreams(ctx context.Context, t *trial) end {
	if t.target.OtherKey == "" {
		return unproven("no second key: the variable of other_key_env is empty or not named")
	}
	h2 := t.speaksHTTP2(ctx)
	var evidence recording.Exchange
	harmed, opened := 0, 0
	for range 2 {
		if ok, _, last := t.served(ctx, t.target.OtherKey, 3); ok < 3 {
			return unproven("the other tenant was not served before: %s", clip(last.String(), 200))
		}
		u := t.leaveUnread(ctx, h2)
		opened = max(opened, u.opened)
		sleep(ctx, 2*time.Second) // by then a service that ignores the limit has finished short answers
		// One after the other: a request that waits for the one before might be refused
		// for the tenant's own concurrency.
		refused, last := 0, answer{}
		for asked := 0; asked < 5 && asked-refused < 2; asked++ { // four of five must be refused
			_, r, a := t.served(ctx, t.target.OtherKey, 1)
			refused, last = refused+r, a
		}
		u.close()
		if refused < 4 {
			break
		}
		evidence = recording.Exchange{Sent: fmt.Sprintf("%d streams of the first tenant, not read; then POST /v1/chat/completions as the other one", u.opened), Came: last.String()}
		if !t.servedAgain(ctx, t.target.OtherKey, 5*time.Second) {
			return unproven("the other tenant was not served within five seconds after the streams were closed, so the cause is unknown")
		}
		harmed++
	}
	if opened < manyStreams/4 {
		return unproven("only %s unread streams could be opened", number(int64(opened)))
	}
	if harmed == 2 {
		t.found(flaw{title: say("streams that one tenant does not read cause the service to refuse others"), kind: "unread", where: "POST /v1/chat/completions", vector: t.check.worst, tags: []string{"OWASP API4:2023", "OWASP LLM10:2025", "CWE-770"},
			evidence: []recording.Exchange{evidence}, verified: say("twice, the other tenant was refused while %s streams were left unread, and was served within five seconds afterwards", number(int64(opened))),
			fix: say("count only what is being computed as load, not what waits for its client; close streams that nobody reads")})
	}
	return t.ended("the other tenant was served while %s streams of the first one were left unread", number(int64(opened)))
}

func runConnectionExhaustion(ctx context.Context, t *trial) end {
	harmed, kept := 0, 0
	var evidence recording.Exchange
	for range 2 {
		if ok, _, last := t.served(ctx, t.target.Key, 3); ok < 3 {
			return unproven("another address was not served before: %s", clip(last.String(), 200))
		}
		conns := t.hold(ctx)
		kept = max(kept, len(conns))
		// One after the other: a server that closes idle connections serves the second or
		// the third.
		ok, last := 0, answer{}
		for asked := 0; asked < 3 && ok == 0; asked++ {
			ok, _, last = t.served(ctx, t.target.Key, 1)
		}
		for _, c := range conns {
			c.Close()
		}
		if ok > 0 {
			break
		}
		evidence = recording.Exchange{Sent: fmt.Sprintf("%d idle connections of one address; then POST /v1/chat/completions from another", len(conns)), Came: last.String()}
		if !t.servedAgain(ctx, t.target.Key, 10*time.Second) {
			return unproven("another address was not served after the connections were closed either, so the cause is unknown")
		}
		harmed++
	}
	if kept == 0 && harmed == 0 {
		return unproven("no connection could be opened")
	}
	if harmed == 2 {
		t.found(flaw{title: say("idle connections of one address keep all others out"), kind: "connections", where: "the port", vector: t.check.worst, tags: []string{"OWASP API4:2023", "CWE-770", "CWE-400"},
			evidence: []recording.Exchange{evidence}, verified: say("twice, another address was not served while %s connections were held, and was served afterwards", number(int64(kept))),
			fix: say("limit the connections of one address and of all addresses to well below the number of file descriptors, and close idle ones")})
	}
	return t.ended("another address was served while one address held %s of the %s idle connections that it tried to open", number(int64(kept)), number(manyConnections))
}

// hold opens many connections from one address and keeps those that are accepted: half
// of them silent after TLS, half with HTTP/2.
func (t *trial) hold(ctx context.Context) []net.Conn {
	from := t.own()
	h2 := t.speaksHTTP2(ctx)
	var mu sync.Mutex
	var conns []net.Conn
	var next, failed atomic.Int64
	var all sync.WaitGroup
	for range openers {
		all.Go(func() {
			for ctx.Err() == nil {
				i := next.Add(1)
				if i > manyConnections {
					return
				}
				brief, cancel := context.WithTimeout(ctx, openWithin)
				var c net.Conn
				var err error
				if h2 && i%2 == 0 {
					c, err = t.preface(brief, from, 65535)
				} else {
					var l *line
					if l, err = t.dial(brief, from, "http/1.1"); err == nil {
						c = l
					}
				}
				cancel()
				if err != nil {
					if failed.Add(1) > enoughRefusals {
						return // no more connections are accepted
					}
					continue
				}
				failed.Store(0)
				mu.Lock()
				conns = append(conns, c)
				mu.Unlock()
			}
		})
	}
	all.Wait()
	// Some servers accept a connection and close it at once.
	var kept []net.Conn
	for _, c := range conns {
		_ = c.SetReadDeadline(time.Now().Add(time.Millisecond))
		if _, err := c.Read(make([]byte, 1)); err == io.EOF {
			c.Close()
			continue
		}
		kept = append(kept, c)
	}
	return kept
}
