package security

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/launchgate/launchgate/internal/recording"
)

const (
	maxBody      = 1 << 20 // most bytes kept of an answer's body
	dialTimeout  = 5 * time.Second
	replyTimeout = 20 * time.Second
	longestPause = 200 * time.Millisecond // between the requests of a paced check
)

var errCap = errors.New("the check reached its limit of requests or bytes")

// request is a request as it is sent: its first line and headers are not normalized.
type request struct {
	method  string
	path    string
	version string   // HTTP/1.1 where empty
	headers []string // lines, such as "Name: value"
	body    string
	key     string // sent as Authorization: Bearer
	from    string // source address on this machine; empty: the next one of the session
	bare    bool   // send only these headers, not even Host
	close   bool   // ask for the connection to be closed
	within  time.Duration
}

// answer is the response to a request.
type answer struct {
	status int
	header http.Header
	body   []byte
	took   time.Duration
	err    error
}

// refused reports whether the answer says that a key is missing or wrong.
func (a answer) refused() bool { return a.status == 401 || a.status == 403 }

// limited reports whether the answer says that there were too many requests.
func (a answer) limited() bool { return a.status == 429 || a.status == 503 }

// retryAfter is how long to wait before the request is sent again: as the answer says, up
// to three seconds, or otherwise if it names no time.
func (a answer) retryAfter(otherwise time.Duration) time.Duration {
	if s, err := strconv.Atoi(a.header.Get("Retry-After")); err == nil && s > 0 {
		return min(time.Duration(s)*time.Second, 3*time.Second)
	}
	return otherwise
}

func (a answer) ok() bool { return a.err == nil && a.status >= 200 && a.status < 300 }

// String describes the answer for a person.
func (a answer) String() string {
	if a.err != nil {
		return a.err.Error()
	}
	var headers []string
	for _, name := range []string{"Content-Type", "Location", "Retry-After", "Allow", "Server", "Access-Control-Allow-Origin", "Access-Control-Allow-Credentials"} {
		if v := a.header.Get(name); v != "" {
			headers = append(headers, name+": "+v)
		}
	}
	return clip(strings.TrimSpace(fmt.Sprintf("%d %s\n%s\n\n%s", a.status, http.StatusText(a.status), strings.Join(headers, "\n"), a.body)), 700)
}

// shown describes a request for a person.
func (r request) shown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s %s", r.method, r.path, orElse(r.version, "HTTP/1.1"))
	if r.key != "" {
		b.WriteString("\nAuthorization: Bearer " + r.key)
	}
	for _, h := range r.headers {
		b.WriteString("\n" + printable(h))
	}
	if r.body != "" {
		b.WriteString("\n\n" + printable(r.body))
	}
	return clip(b.String(), 700)
}

// printable escapes control characters as Go does.
func printable(s string) string {
	q := strconv.Quote(s)
	return strings.ReplaceAll(q[1:len(q)-1], `\"`, `"`)
}

func orElse(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

// exchange is a request and its answer, as evidence.
func exchange(r request, a answer) recording.Exchange {
	return recording.Exchange{Sent: r.shown(), Came: a.String()}
}

// line is a connection to the target.
type line struct {
	net.Conn
	t  *trial
	in *bufio.Reader
}

// Read and Write count the bytes.
func (l *line) Read(p []byte) (int, error) {
	n, err := l.Conn.Read(p)
	if !l.t.moved(n) {
		return n, errCap
	}
	return n, err
}

func (l *line) Write(p []byte) (int, error) {
	n, err := l.Conn.Write(p)
	if !l.t.moved(n) {
		return n, errCap
	}
	return n, err
}

// tcp opens a plain connection to the target.
func (t *trial) tcp(ctx context.Context, from string) (net.Conn, error) {
	d := net.Dialer{Timeout: dialTimeout}
	if from != "" {
		d.LocalAddr = &net.TCPAddr{IP: net.ParseIP(from)}
	}
	return d.DialContext(ctx, "tcp", t.address)
}

// dial opens a connection like an ordinary client, with TLS if the target has it;
// protocols are offered by ALPN.
func (t *trial) dial(ctx context.Context, from string, protocols ...string) (*line, error) {
	if !t.spend() {
		return nil, errCap
	}
	conn, err := t.tcp(ctx, from)
	if err != nil {
		return nil, err
	}
	if t.secure {
		c := t.tlsConfig.Clone()
		c.NextProtos = protocols
		secured := tls.Client(conn, c)
		shake, cancel := context.WithTimeout(ctx, dialTimeout)
		defer cancel()
		if err := secured.HandshakeContext(shake); err != nil {
			conn.Close()
			return nil, err
		}
		conn = secured
	}
	l := &line{Conn: conn, t: t}
	l.in = bufio.NewReader(l)
	return l, nil
}

// wire is the request as the bytes to send.
func (t *trial) wire(r request) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %s %s\r\n", r.method, r.path, orElse(r.version, "HTTP/1.1"))
	if !r.bare {
		fmt.Fprintf(&b, "Host: %s\r\nUser-Agent: %s\r\nX-Launchgate-Scan: %s\r\nAccept: */*\r\n", t.host, t.agent, t.id)
		for name, value := range t.target.Headers {
			fmt.Fprintf(&b, "%s: %s\r\n", name, value)
		}
		if r.key != "" {
			fmt.Fprintf(&b, "Authorization: Bearer %s\r\n", r.key)
		}
		if r.body != "" && !hasHeader(r.headers, "Content-Type") {
			b.WriteString("Content-Type: application/json\r\n")
		}
		framed := hasHeader(r.headers, "Content-Length") || hasHeader(r.headers, "Transfer-Encoding")
		if !framed && (r.body != "" || r.method == "POST" || r.method == "PUT" || r.method == "PATCH") {
			fmt.Fprintf(&b, "Content-Length: %d\r\n", len(r.body))
		}
		if r.close {
			b.WriteString("Connection: close\r\n")
		}
	}
	for _, h := range r.headers {
		b.WriteString(h + "\r\n")
	}
	b.WriteString("\r\n")
	b.WriteString(r.body)
	return b.Bytes()
}

func hasHeader(lines []string, name string) bool {
	for _, l := range lines {
		if n, _, ok := strings.Cut(l, ":"); ok && strings.EqualFold(strings.TrimSpace(n), name) {
			return true
		}
	}
	return false
}

// send sends a request over the connection and reads the whole answer.
func (l *line) send(ctx context.Context, r request) answer {
	within := r.within
	if within == 0 {
		within = replyTimeout
	}
	began := time.Now()
	until := began.Add(within)
	if d, ok := ctx.Deadline(); ok && d.Before(until) {
		until = d
	}
	if err := l.SetDeadline(until); err != nil {
		return answer{err: err}
	}
	stop := context.AfterFunc(ctx, func() { l.SetDeadline(time.Now()) })
	defer stop()
	_, sendErr := l.Write(l.t.wire(r)) // a request that was refused early still has an answer
	a := l.read(r.method)
	if a.err != nil && sendErr != nil {
		a.err = sendErr
	}
	a.took = time.Since(began)
	return a
}

// read reads the next final answer, and skips informational ones.
func (l *line) read(method string) answer {
	for {
		res, err := http.ReadResponse(l.in, &http.Request{Method: method})
		if err != nil {
			return answer{err: err}
		}
		if res.StatusCode >= 100 && res.StatusCode < 200 && res.StatusCode != 101 {
			continue
		}
		a := answer{status: res.StatusCode, header: res.Header}
		if res.StatusCode == 101 {
			return a
		}
		a.body, err = io.ReadAll(io.LimitReader(res.Body, maxBody))
		if len(a.body) == maxBody {
			return a // the rest is not read: the connection is not used again
		}
		if err != nil {
			a.err = fmt.Errorf("the answer broke off after %d bytes: %w", len(a.body), err)
		}
		return a
	}
}

// once sends a request over a connection of its own.
func (t *trial) once(ctx context.Context, r request) answer {
	from := r.from
	if from == "" {
		from = t.next()
	}
	l, err := t.dial(ctx, from, "http/1.1")
	if err != nil {
		return answer{err: err}
	}
	defer l.Close()
	r.close = true
	return l.send(ctx, r)
}

// ask is once with patience: if the service asks to retry later, it does.
func (t *trial) ask(ctx context.Context, r request) answer {
	var a answer
	for try := range 6 {
		if a = t.once(ctx, r); !a.limited() || a.err != nil {
			return a
		}
		wait := a.retryAfter(time.Duration(try+1) * 300 * time.Millisecond)
		select {
		case <-ctx.Done():
			return a
		case <-time.After(wait):
		}
	}
	return a
}

// paced is ask, followed by a pause as long as the answer took: the check uses the
// service at most half of the time, so that other clients are served between its
// prompts.
func (t *trial) paced(ctx context.Context, r request) answer {
	a := t.ask(ctx, r)
	sleep(ctx, min(a.took, longestPause))
	return a
}

// sleep waits, and reports whether the check may go on.
func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}
