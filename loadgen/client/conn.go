package client

import (
	"context"
	"net"
	"sync/atomic"
	"time"
)

// epoch is the origin of arrival times, because connections outlive the clock of a
// request.
var epoch = time.Now()

// conn is a connection that knows when the newest byte read from it reached this
// machine. On Linux the kernel gives that time, so that no delay of a scheduler (Go's
// or the system's) is in it. Elsewhere it is the time after the read. Like most
// net.Conns, it has one reader at a time.
type conn struct {
	*net.TCPConn
	receiver receiver
	arrived  atomic.Int64 // since epoch
	open     *atomic.Int64
	closed   atomic.Bool
	dialled  time.Duration // duration of the connect: about a round trip
	number   int32         // it is the n-th connection of the client
	requests atomic.Int32  // requests sent on it
}

// dial connects, and counts the connection as open until it is closed.
func (c *Client) dial(ctx context.Context, network, address string) (net.Conn, error) {
	dialer := net.Dialer{Timeout: connectTimeout}
	if c.cfg.From != "" {
		dialer.LocalAddr = &net.TCPAddr{IP: net.ParseIP(c.cfg.From)}
	}
	if c.cfg.Via != "" {
		address = c.cfg.Via
	}
	began := time.Now()
	dialled, err := dialer.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	tcp, ok := dialled.(*net.TCPConn)
	if !ok {
		return dialled, nil
	}
	cn := &conn{TCPConn: tcp, open: &c.open, dialled: time.Since(began), number: c.opened.Add(1)}
	cn.receiver.stamp(tcp)
	c.open.Add(1)
	return cn, nil
}

// Read reads, and records when the last of the bytes arrived.
func (c *conn) Read(b []byte) (int, error) {
	n, arrived, err := c.receiver.read(c.TCPConn, b)
	if n > 0 {
		c.arrived.Store(int64(arrived))
	}
	return n, err
}

// Close closes the connection, once.
func (c *conn) Close() error {
	if c.closed.CompareAndSwap(false, true) {
		c.open.Add(-1)
	}
	return c.TCPConn.Close()
}

// under is the conn below TLS, or nil.
func under(c net.Conn) *conn {
	if wrapped, ok := c.(interface{ NetConn() net.Conn }); ok {
		c = wrapped.NetConn()
	}
	ours, _ := c.(*conn)
	return ours
}

// Connections is how many connections are open.
func (c *Client) Connections() int { return int(c.open.Load()) }

// Stale is how many kept connections turned out to be closed by the service when a
// request was sent on them.
func (c *Client) Stale() int64 { return c.stale.Load() }

// AfterEnd is how many connections stayed open after the answer on them had ended, and
// how many answers sent more data after their end.
func (c *Client) AfterEnd() (left, more int64) { return c.left.Load(), c.after.Load() }
