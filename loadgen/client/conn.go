package client

import (
	"context"
	"net"
	"sync/atomic"
	"time"
)

// epoch is what arrivals are counted from: connections outlive the clock of
// any one request.
var epoch = time.Now()

// conn is a connection that knows when the newest byte read from it reached
// this machine. Where the kernel says so (Linux), neither the scheduler of Go
// nor that of the operating system stands between a token and its time;
// elsewhere it is the moment after the read. Like any of net's users, it has
// one reader at a time.
type conn struct {
	*net.TCPConn
	receiver receiver
	arrived  atomic.Int64 // since epoch
	open     *atomic.Int64
	closed   atomic.Bool
	dialled  time.Duration // how long connecting took: a round trip
	number   int32         // the client's n-th
	requests atomic.Int32  // that were sent on it
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

// Read reads, and notes when the last byte of what it read had arrived.
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

// under is the connection of ours beneath TLS, or nil.
func under(c net.Conn) *conn {
	if wrapped, ok := c.(interface{ NetConn() net.Conn }); ok {
		c = wrapped.NetConn()
	}
	ours, _ := c.(*conn)
	return ours
}

// Connections is how many connections are open.
func (c *Client) Connections() int { return int(c.open.Load()) }

// Stale is how many kept connections were found to be closed by the service when
// a request was sent on them, and not by the request.
func (c *Client) Stale() int64 { return c.stale.Load() }

// AfterEnd is how many connections the service left open after the answer on
// them had ended, and how many answers it sent more after.
func (c *Client) AfterEnd() (left, more int64) { return c.left.Load(), c.after.Load() }
