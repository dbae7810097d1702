package security

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"golang.org/x/net/http2"

	"github.com/launchgate/launchgate/internal/recording"
)

var slowConnections = Check{
	Name:    "slow-connections",
	Asks:    "how long the service keeps a connection whose request never ends: before TLS, within the handshake, within the headers, within the body, within a header block of HTTP/2",
	Control: "a normal connection is served meanwhile",
	Flaw:    "all five connections of one kind are still open after 75 seconds",
	Planted: "test service and reference server: no-header-timeout, no-body-timeout", Disruptive: true,
	Cap:   Cap{Requests: 200, Seconds: 110, Bytes: 8 << 20},
	worst: "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:N/I:N/A:H",
	run:   runSlowConnections,
}

// slowPatience is how long a connection may stay open without a complete request.
const slowPatience = 75 * time.Second

const slowLines = 5

// dawdler keeps a connection open without ever sending a complete request.
type dawdler struct {
	kind  string
	tls   bool // it needs TLS
	clear bool // it needs no TLS handshake
	http2 bool
	begin func(t *trial, c net.Conn) error
	drip  func(t *trial, c net.Conn, i int) error // called every three seconds; nil: sends nothing
}

var dawdlers = []dawdler{
	{kind: "nothing at all", clear: true},
	{kind: "half a handshake", tls: true, clear: true, begin: func(_ *trial, c net.Conn) error {
		_, err := c.Write([]byte{0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3}) // beginning of a ClientHello of 512 bytes
		return err
	}, drip: func(_ *trial, c net.Conn, _ int) error { _, err := c.Write([]byte{0}); return err }},
	{kind: "nothing after the handshake", tls: true},
	{kind: "headers without an end", begin: func(t *trial, c net.Conn) error {
		_, err := fmt.Fprintf(c, "POST /v1/chat/completions HTTP/1.1\r\nHost: %s\r\nUser-Agent: %s\r\nX-Launchgate-Scan: %s\r\n", t.host, t.agent, t.id)
		return err
	}, drip: func(_ *trial, c net.Conn, i int) error { _, err := fmt.Fprintf(c, "X-%d: 1\r\n", i); return err }},
	{kind: "a body without an end", begin: func(t *trial, c net.Conn) error {
		_, err := c.Write(t.wire(request{method: "POST", path: "/v1/chat/completions", key: t.target.Key, headers: []string{"Content-Type: application/json", "Content-Length: 100000"}, body: `{"messages":[`}))
		return err
	}, drip: func(_ *trial, c net.Conn, _ int) error { _, err := io.WriteString(c, " "); return err }},
	{kind: "a body without an end and without a key", begin: func(t *trial, c net.Conn) error {
		_, err := c.Write(t.wire(request{method: "POST", path: "/v1/chat/completions", headers: []string{"Content-Type: application/json", "Content-Length: 100000"}, body: `{"messages":[`}))
		return err
	}, drip: func(_ *trial, c net.Conn, _ int) error { _, err := io.WriteString(c, " "); return err }},
	{kind: "a header block of HTTP/2 without an end", tls: true, http2: true, begin: func(_ *trial, c net.Conn) error {
		f := http2.NewFramer(c, nil)
		return f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0x82}, EndHeaders: false})
	}, drip: func(_ *trial, c net.Conn, i int) error {
		f := http2.NewFramer(c, nil)
		// A literal header field without indexing, one field at a time.
		return f.WriteContinuation(1, false, []byte{0x00, 0x02, 'x', byte('a' + i%26), 0x01, '1'})
	}},
	{kind: "nothing but pings over HTTP/2", tls: true, http2: true, drip: func(_ *trial, c net.Conn, i int) error {
		return http2.NewFramer(c, nil).WritePing(false, [8]byte{byte(i)})
	}},
}

func runSlowConnections(ctx context.Context, t *trial) end {
	h2 := t.speaksHTTP2(ctx)
	type fate struct {
		held, opened int
		longest      time.Duration
	}
	var mu sync.Mutex
	fates := map[string]*fate{}
	var all sync.WaitGroup
	for _, d := range dawdlers {
		if d.tls && !t.secure || d.http2 && !h2 {
			continue
		}
		fates[d.kind] = &fate{}
		from := t.own()
		for range slowLines {
			all.Go(func() {
				kept, held, ok := t.dawdle(ctx, d, from)
				mu.Lock()
				defer mu.Unlock()
				f := fates[d.kind]
				if ok {
					f.opened++
				}
				if held {
					f.held++
				}
				f.longest = max(f.longest, kept)
			})
		}
	}
	served := 0
	for served < 3 {
		if meansCompletion(t.ask(ctx, t.small())) {
			served++
		} else if !sleep(ctx, time.Second) {
			break
		}
	}
	all.Wait()
	if served == 0 {
		return unproven("a normal connection was not served meanwhile")
	}
	looked := 0
	longest := time.Duration(0)
	for _, d := range dawdlers {
		f := fates[d.kind]
		if f == nil || f.opened == 0 {
			continue
		}
		looked++
		longest = max(longest, f.longest)
		if f.opened == slowLines && f.held == slowLines && ctx.Err() == nil {
			t.found(flaw{title: say("the service keeps a connection that never sends a whole request: %s", d.kind), kind: d.kind, where: d.kind, vector: t.check.worst, tags: []string{"OWASP API4:2023", "CWE-400", "CWE-772"},
				evidence: []recording.Exchange{{Sent: fmt.Sprintf("%d connections of one address, each with %s", slowLines, d.kind), Came: fmt.Sprintf("all of them open after %s", t.patience)}},
				verified: say("five of five connections were still open after %s, while a normal connection was served", t.patience.String()),
				fix:      say("set timeouts for the handshake, the headers, the body and idle connections (HTTP/2 too), and limit the connections of one address")})
		}
	}
	if looked == 0 {
		return unproven("no slow connection could be opened")
	}
	return t.ended("slow connections of %s kinds were closed, the last after %s", number(int64(looked)), longest.Round(time.Second).String())
}

// speaksHTTP2 reports whether the target supports HTTP/2 over TLS.
func (t *trial) speaksHTTP2(ctx context.Context) bool {
	if !t.secure {
		return false
	}
	l, err := t.dial(ctx, t.next(), "h2")
	if err != nil {
		return false
	}
	defer l.Close()
	return l.Conn.(*tls.Conn).ConnectionState().NegotiatedProtocol == "h2"
}

// dawdle opens one connection and keeps it as long as the service lets it.
func (t *trial) dawdle(ctx context.Context, d dawdler, from string) (kept time.Duration, held, ok bool) {
	if !t.spend() {
		return 0, false, false
	}
	var c net.Conn
	var err error
	switch {
	case d.clear:
		c, err = t.tcp(ctx, from)
	case d.http2:
		c, err = t.preface(ctx, from, 65535)
	default:
		var l *line
		if l, err = t.dial(ctx, from, "http/1.1"); err == nil {
			c = l
		}
	}
	if err != nil {
		return 0, false, false
	}
	defer c.Close()
	began := time.Now()
	stop := context.AfterFunc(ctx, func() { c.SetDeadline(time.Now()) })
	defer stop()
	closed := make(chan struct{})
	go func() { // reading notices when the peer closes the connection
		defer close(closed)
		_, _ = io.Copy(io.Discard, c)
	}()
	if d.begin != nil {
		if err := d.begin(t, c); err != nil {
			return time.Since(began), false, true
		}
	}
	end := time.After(t.patience)
	drip := time.NewTicker(3 * time.Second)
	defer drip.Stop()
	for i := 0; ; i++ {
		select {
		case <-closed:
			return time.Since(began), false, true
		case <-end:
			return time.Since(began), ctx.Err() == nil, true
		case <-drip.C:
			if d.drip != nil {
				if err := d.drip(t, c, i); err != nil {
					return time.Since(began), false, true
				}
			}
		}
	}
}

// preface opens an HTTP/2 connection with the given flow-control window for unread
// data.
func (t *trial) preface(ctx context.Context, from string, window uint32) (net.Conn, error) {
	l, err := t.dial(ctx, from, "h2")
	if err != nil {
		return nil, err
	}
	if _, err = io.WriteString(l, http2.ClientPreface); err == nil {
		err = http2.NewFramer(l, nil).WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: window}, http2.Setting{ID: http2.SettingEnablePush, Val: 0})
	}
	if err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}
