package gateway

import (
	"io"
	"sync"
)

// aheadMost is how much of a stream is read from its replica before its client
// takes it. What is not taken past that waits in the replica.
const aheadMost = 64 << 10

// reader reads a stream from its replica as it comes, whether or not its client
// takes it: an answer that is computed is no load any more, and is billed, when
// nobody reads it.
type reader struct {
	from  *accounted
	stall func(bool) // tells that the replica waits for the client, or does no more
	done  chan struct{}

	mu     sync.Mutex
	moved  sync.Cond // something came, was taken, or has ended
	buf    []byte
	err    error // after what is in buf
	closed bool
}

// ahead reads an answer of which body is the balancer's.
func ahead(a *accounted, body io.ReadCloser) *reader {
	r := &reader{from: a, stall: func(bool) {}, done: make(chan struct{})}
	r.moved.L = &r.mu
	if p, ok := body.(*passing); ok {
		r.stall = p.stall
	}
	go r.run() // ends with the answer, or with Close
	return r
}

func (r *reader) run() {
	defer close(r.done)
	part := make([]byte, 16<<10)
	for {
		n, err := r.from.Read(part)
		r.mu.Lock()
		r.buf = append(r.buf, part[:n]...)
		r.moved.Signal()
		if err != nil || r.closed {
			r.mu.Unlock()
			_ = r.from.Close() // it has ended
			r.mu.Lock()
			r.err = err
			r.moved.Signal()
			r.mu.Unlock()
			return
		}
		if len(r.buf) >= aheadMost {
			r.stall(true)
			for len(r.buf) >= aheadMost && !r.closed {
				r.moved.Wait()
			}
			r.stall(false)
		}
		r.mu.Unlock()
	}
}

// Read gives what has come.
func (r *reader) Read(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for len(r.buf) == 0 && r.err == nil {
		r.moved.Wait()
	}
	n := copy(p, r.buf)
	full := len(r.buf) >= aheadMost
	if rest := copy(r.buf, r.buf[n:]); rest < len(r.buf) {
		r.buf = r.buf[:rest]
	}
	if full {
		r.moved.Signal()
	}
	if len(r.buf) == 0 && r.err != nil && n == 0 {
		return 0, r.err
	}
	return n, nil
}

// Close ends the replica's request. It returns once what was used is written
// down.
func (r *reader) Close() error {
	r.mu.Lock()
	r.closed = true
	r.moved.Broadcast()
	r.mu.Unlock()
	err := r.from.body.Close()
	<-r.done
	return err
}
