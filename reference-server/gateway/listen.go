package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"
)

const (
	handshakeWithin = 10 * time.Second // and the headers of a request the same

	// idleLimit is longer than clients keep an idle connection. If the server
	// closed first, a client could send a request at that moment and lose it.
	idleLimit   = 2 * time.Minute
	headerLimit = 64 << 10

	// Of HTTP/2: net/http does not say how large the headers were, so the gateway
	// checks them itself and leaves only far larger ones to net/http.
	h2HeaderLimit = 4 * headerLimit
	h2Streams     = 256     // at once, of a connection
	h2Window      = 1 << 20 // bytes of all bodies that wait to be read, of a connection
)

// Listener serves a port: it accepts connections within their bounds, does the
// handshakes, and hands them to a server of net/http for either version.
//
//	accept ─▶ visitors ─▶ handshake ─▶ HTTP/2   ─▶ Handler
//	                               └─▶ HTTP/1.1 ─▶ Handler
type Listener struct {
	at       net.Listener
	tls      *tls.Config // nil: in clear
	visitors *visitors
	h1, h2   *http.Server
	to1, to2 *handover
	log      *slog.Logger
	ctx      context.Context // of handshakes
	stop     context.CancelFunc
	running  sync.WaitGroup
}

// Listen serves the gateway over TLS where there is a certificate, and in clear
// otherwise.
func (g *Gateway) Listen(addr string, certificate *tls.Config) (*Listener, error) {
	return open(addr, g.Handler(), certificate, g.visitors, g.log)
}

// Listen serves any handler through a Listener of its own: connections are as many as
// the descriptors allow, those that were idle for longest give way to new ones,
// and every answer has the security headers, net/http's own too.
func Listen(addr string, h http.Handler, certificate *tls.Config, log *slog.Logger) (*Listener, error) {
	unlimited := func(netip.Addr) (int, Limit) { return math.MaxInt32, Limit{1e9, 1e9} }
	all := func() Connections { return Connections{Address: math.MaxInt32} }
	v := &visitors{limits: unlimited, bounds: all, addresses: map[netip.Prefix]int{}, tenants: map[string]int{}}
	secured := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		secure(w.Header(), r.TLS != nil)
		if n := sizeOf(r); n > headerLimit {
			writeJSON(w, http.StatusRequestHeaderFieldsTooLarge, errorBody("invalid_request_error", "headers_too_large", largeHeaders(n)))
			return
		}
		h.ServeHTTP(w, r)
	})
	return open(addr, secured, certificate, v, log)
}

func open(addr string, h http.Handler, certificate *tls.Config, v *visitors, log *slog.Logger) (*Listener, error) {
	at, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("cannot listen on %s: %w", addr, err)
	}
	d := &Listener{at: at, tls: certificate, log: log, visitors: v}
	d.ctx, d.stop = context.WithCancel(context.Background())
	handler := d.seen(h)
	quiet := slog.NewLogLogger(log.Handler(), slog.LevelDebug) // errors of clients
	server := func() *http.Server {
		s := &http.Server{Handler: handler, ErrorLog: quiet, ReadHeaderTimeout: handshakeWithin, IdleTimeout: idleLimit, MaxHeaderBytes: headerLimit,
			DisableGeneralOptionsHandler: true, Protocols: &http.Protocols{}, ConnContext: connContext,
			HTTP2: &http.HTTP2Config{MaxConcurrentStreams: h2Streams, MaxReceiveBufferPerConnection: h2Window, WriteByteTimeout: sendLimit}}
		if planted("no-header-timeout") {
			s.ReadHeaderTimeout, s.IdleTimeout = 0, 0
		}
		return s
	}
	d.h1, d.to1 = server(), newHandover(at.Addr())
	d.h1.Protocols.SetHTTP1(true)
	d.h1.Protocols.SetUnencryptedHTTP2(certificate == nil)
	d.h2, d.to2 = server(), newHandover(at.Addr())
	d.h2.Protocols.SetUnencryptedHTTP2(true) // net/http sees clear text, because the handshake is done
	d.h2.MaxHeaderBytes = h2HeaderLimit
	if certificate == nil {
		d.h1.MaxHeaderBytes = h2HeaderLimit
	}
	for s, l := range map[*http.Server]*handover{d.h1: d.to1, d.h2: d.to2} {
		d.running.Go(func() { _ = s.Serve(l) }) // ends with Close or Shutdown
	}
	d.running.Go(d.accept)
	return d, nil
}

// Addr is where it listens.
func (d *Listener) Addr() net.Addr { return d.at.Addr() }

// accept takes connections in until the listener is closed.
func (d *Listener) accept() {
	for wait := time.Duration(0); ; {
		c, err := d.at.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // for example too many open files, until other connections close
			wait = min(max(5*time.Millisecond, 2*wait), time.Second)
			d.log.Error("no connection can be accepted", "why", err, "again in", wait)
			pause(d.ctx, wait)
			continue
		}
		wait = 0
		v, ok := d.visitors.enter(c)
		if !ok {
			if tcp, is := c.(*net.TCPConn); is {
				_ = tcp.SetLinger(0) // the kernel keeps no state of the connection
			}
			_ = c.Close()
			continue
		}
		if d.tls == nil {
			d.to1.give(&marked{Conn: v, v: v})
			continue
		}
		d.running.Go(func() { d.shake(v) })
	}
}

// shake does the handshake and hands the connection to a server.
func (d *Listener) shake(v *visitor) {
	c := tls.Server(v, d.tls)
	ctx, cancel := context.WithTimeout(d.ctx, handshakeWithin)
	if planted("no-header-timeout") {
		ctx, cancel = context.WithCancel(d.ctx)
	}
	defer cancel()
	if err := c.HandshakeContext(ctx); err != nil {
		var plain tls.RecordHeaderError
		if errors.As(err, &plain) && plain.Conn != nil && looksLikeHTTP(plain.RecordHeader[:]) {
			_ = v.SetWriteDeadline(time.Now().Add(time.Second))
			_, _ = io.WriteString(v, "HTTP/1.1 400 Bad Request\r\n"+plainHeaders+"Connection: close\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nThis port speaks TLS: use https.\n")
		}
		_ = v.Close()
		return
	}
	state := c.ConnectionState()
	v.tls = &state
	to := d.to1
	if state.NegotiatedProtocol == "h2" {
		to = d.to2
	}
	to.give(&marked{Conn: c, v: v, tls: true})
}

func looksLikeHTTP(head []byte) bool {
	for _, method := range []string{"GET /", "HEAD ", "POST ", "PUT /", "OPTIO"} {
		if string(head) == method {
			return true
		}
	}
	return false
}

// connContext puts the connection into the context of its requests.
func connContext(ctx context.Context, c net.Conn) context.Context {
	if c, ok := c.(*marked); ok {
		return context.WithValue(ctx, visitorKey{}, c.v)
	}
	return ctx
}

// seen counts the requests of a connection.
func (d *Listener) seen(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if v := visitorOf(r.Context()); v != nil {
			v.begin()
			defer v.end()
			if r.TLS == nil { // net/http sets it for its own connections only
				r.TLS = v.tls
			}
		}
		next.ServeHTTP(w, r)
	})
}

// Shutdown lets requests under way end.
func (d *Listener) Shutdown(ctx context.Context) error {
	err := d.at.Close()
	d.stop()
	ended := make(chan error, 1)
	go func() { ended <- d.h2.Shutdown(ctx) }()
	err = errors.Join(err, d.h1.Shutdown(ctx), <-ended)
	d.running.Wait()
	return err
}

// Close ends everything at once.
func (d *Listener) Close() error {
	d.stop()
	err := d.at.Close()
	if errors.Is(err, net.ErrClosed) { // after a Shutdown
		err = nil
	}
	err = errors.Join(err, d.h1.Close(), d.h2.Close())
	d.running.Wait()
	return err
}

// handover is the net.Listener of a server, to which accepted connections are
// handed.
type handover struct {
	at     net.Addr
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newHandover(at net.Addr) *handover {
	return &handover{at: at, conns: make(chan net.Conn), closed: make(chan struct{})}
}

func (h *handover) give(c net.Conn) {
	select {
	case h.conns <- c:
	case <-h.closed:
		_ = c.Close()
	}
}

func (h *handover) Accept() (net.Conn, error) {
	select {
	case c := <-h.conns:
		return c, nil
	case <-h.closed:
		return nil, net.ErrClosed
	}
}

func (h *handover) Close() error   { h.once.Do(func() { close(h.closed) }); return nil }
func (h *handover) Addr() net.Addr { return h.at }

// remoteAddr is the address of HOST:PORT; the zero one where there is none.
func remoteAddr(hostPort string) netip.Addr {
	host, _, err := net.SplitHostPort(hostPort)
	if err != nil {
		return netip.Addr{}
	}
	a, _ := netip.ParseAddr(host)
	return a.Unmap()
}
