package deploy

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"sync"
	"time"
)

// Impairment is what a link does to the bytes that pass. The zero Impairment passes
// them on as they come.
type Impairment struct {
	Delay     time.Duration // added to every round trip, half of it each way
	Loss      float64       // of segments, each way; TCP sends them again, later
	Bandwidth int64         // bytes a second each way, over all connections; 0: no limit
	Silent    bool          // nothing passes, and connections stay open
	Reset     bool          // connections are broken, and new ones refused
}

// Link is the network in front of one replica: a TCP proxy in this process, so
// that it needs no privileges and cannot outlive the run.
//
//	gateway ──▶ Link ──▶ replica
//
// It works on streams and not on packets. It therefore plays a lost segment as the
// retransmission that TCP would do: the data behind it waits 200 ms the first time,
// then twice that and so on. On a silent link the kernel still accepts connections,
// but no data passes.
type Link struct {
	listener net.Listener
	node     *Node // the node in whose network it is; nil: the host's
	to       string
	running  sync.WaitGroup

	mu          sync.Mutex
	impairments map[*Impairment]struct{} // those in effect, see Begin
	impairment  Impairment               // all of it together
	changed     chan struct{}            // closed, and made anew, when the impairment changes
	conns       map[net.Conn]struct{}
	dice        *rand.Rand
	stopped     bool
	lost        int64
	passed      int64
}

const (
	segment      = 1460                   // bytes of data in a packet of Ethernet
	pieces       = 16 << 10               // bytes that are read at once
	retransmit   = 200 * time.Millisecond // Linux's least retransmission timeout
	maxRetries   = 8                      // of one segment
	queuedPieces = 256                    // on their way in one direction of a connection
)

// newLink begins to pass connections to addr on to the address to, both on a
// node.
func newLink(node *Node, addr, to string) (*Link, error) {
	listener, err := node.listen(addr)
	if err != nil {
		return nil, err
	}
	l := &Link{listener: listener, node: node, to: to, changed: make(chan struct{}), conns: map[net.Conn]struct{}{}, impairments: map[*Impairment]struct{}{}, dice: rand.New(rand.NewPCG(1, 1))}
	l.running.Go(l.accept)
	return l, nil
}

// Begin adds to the impairment, for existing connections too, until end is called.
// end may be called more than once. Several faults on a link are all in effect:
// delays add up, and the narrowest bandwidth counts.
func (l *Link) Begin(w Impairment) (end func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	front := &w
	l.impairments[front] = struct{}{}
	l.change()
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if _, there := l.impairments[front]; there {
			delete(l.impairments, front)
			l.change()
		}
	}
}

// change combines the impairments; the lock is held.
func (l *Link) change() {
	all := together(l.impairments)
	l.impairment, l.lost, l.passed = all, 0, 0
	close(l.changed)
	l.changed = make(chan struct{})
	if all.Reset {
		l.breakAll()
	}
}

// together combines several impairments.
func together(impairments map[*Impairment]struct{}) (all Impairment) {
	passes := 1.0
	for w := range impairments {
		all.Delay += w.Delay
		passes *= 1 - w.Loss
		if w.Bandwidth > 0 && (all.Bandwidth == 0 || w.Bandwidth < all.Bandwidth) {
			all.Bandwidth = w.Bandwidth
		}
		all.Silent = all.Silent || w.Silent
		all.Reset = all.Reset || w.Reset
	}
	all.Loss = 1 - passes
	return all
}

// Addr is where the link listens.
func (l *Link) Addr() string { return l.listener.Addr().String() }

// Counts are the segments that were lost, and those that passed, since the
// impairment changed.
func (l *Link) Counts() (lost, passed int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lost, l.passed
}

// stop closes everything and waits until nothing of the link runs.
func (l *Link) stop() {
	l.listener.Close()
	l.mu.Lock()
	l.stopped = true
	close(l.changed)
	l.changed = make(chan struct{})
	l.breakAll()
	l.mu.Unlock()
	l.running.Wait()
}

// breakAll resets every connection; the lock is held.
func (l *Link) breakAll() {
	for c := range l.conns {
		if tcp, ok := c.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0)
		}
		c.Close()
	}
}

func (l *Link) now() (Impairment, <-chan struct{}, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.impairment, l.changed, l.stopped
}

func (l *Link) accept() {
	var up, down lane // shared: a link has one bandwidth
	for {
		front, err := l.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			time.Sleep(10 * time.Millisecond) // out of descriptors, perhaps: it passes
			continue
		}
		l.running.Go(func() { l.connect(front, &up, &down) })
	}
}

// connect carries one connection until both of its directions have ended.
func (l *Link) connect(front net.Conn, up, down *lane) {
	if !l.keep(front) {
		return
	}
	defer l.drop(front)
	within, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	back, err := l.node.DialContext(within, "tcp", l.to)
	cancel()
	if err != nil { // the replica does not listen, so the caller is refused, as without a link
		_ = front.(*net.TCPConn).SetLinger(0)
		return
	}
	if !l.keep(back) {
		return
	}
	defer l.drop(back)
	var both sync.WaitGroup
	both.Go(func() { l.carry(back, front, up) })
	both.Go(func() { l.carry(front, back, down) })
	both.Wait()
}

// keep registers a connection, so that it can be reset. It resets the connection
// and returns false if the link is down.
func (l *Link) keep(c net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stopped || l.impairment.Reset {
		_ = c.(*net.TCPConn).SetLinger(0)
		c.Close()
		return false
	}
	l.conns[c] = struct{}{}
	return true
}

func (l *Link) drop(c net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.conns, c)
	c.Close()
}

// piece is data on its way, due to arrive at a time.
type piece struct {
	data []byte
	due  time.Time
}

// carry forwards one direction: each piece gets a time of arrival and is written
// then, in order.
func (l *Link) carry(to, from net.Conn, shared *lane) {
	onTheWay := make(chan piece, queuedPieces)
	var arriving sync.WaitGroup
	arriving.Go(func() { l.arrive(to, from, onTheWay) })
	defer arriving.Wait()
	defer close(onTheWay)
	var last time.Time
	buf := make([]byte, pieces)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			last = l.due(n, last, shared)
			onTheWay <- piece{append([]byte(nil), buf[:n]...), last}
		}
		if err != nil {
			return
		}
	}
}

// due is the arrival time of n bytes that leave now. They arrive after earlier
// bytes, and later by the bandwidth, the delay and the losses.
func (l *Link) due(n int, last time.Time, shared *lane) time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	w := l.impairment
	due := shared.after(time.Now(), n, w.Bandwidth).Add(w.Delay / 2)
	if due.Before(last) {
		due = last
	}
	for range (n + segment - 1) / segment {
		wait := retransmit
		for try := 0; try < maxRetries && w.Loss > 0 && l.dice.Float64() < w.Loss; try++ {
			l.lost++
			due = due.Add(wait)
			wait *= 2
		}
		l.passed++
	}
	return due
}

// lane has the time at which the last byte of a direction has left.
type lane struct{ free time.Time }

func (a *lane) after(now time.Time, n int, bandwidth int64) time.Time {
	if bandwidth == 0 {
		a.free = now
		return now
	}
	if a.free.Before(now) {
		a.free = now
	}
	a.free = a.free.Add(time.Duration(float64(n) / float64(bandwidth) * float64(time.Second)))
	return a.free
}

// arrive writes each piece when it is due. An end of the stream is passed on after
// everything before it.
func (l *Link) arrive(to, from net.Conn, onTheWay <-chan piece) {
	broken := false
	for p := range onTheWay {
		if broken || !l.wait(p.due) {
			broken = true // keep draining, so that the reader is not blocked
			continue
		}
		if _, err := to.Write(p.data); err != nil {
			broken = true
			from.Close()
		}
	}
	if !broken && l.wait(time.Time{}) {
		_ = to.(*net.TCPConn).CloseWrite()
	}
}

// wait returns true when data that is due may arrive, which means that the link
// is not silent. It returns false when the link was stopped.
func (l *Link) wait(due time.Time) bool {
	for {
		w, changed, stopped := l.now()
		left := time.Until(due)
		switch {
		case stopped:
			return false
		case w.Silent:
			<-changed
		case left <= 0 || w == Impairment{}:
			return true
		default:
			timer := time.NewTimer(left)
			select {
			case <-timer.C:
			case <-changed:
				timer.Stop()
			}
		}
	}
}
