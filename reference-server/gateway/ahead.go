package gateway

import (
	"io"
	"sync"
)

// aheadMost bounds how far the gateway reads a stream ahead of its client. The rest
// of the stream waits in the replica.
const aheadMost = 64 << 10

// reader reads a stream from its replica as it comes, even if the client is slow.
// So an answer that has been computed no longer counts as load and is billed,
// although the client has not read it.
type reader struct {
	from  *accounted
	stall func(bool) // called with whether the replica waits for the client
	done  chan struct{}

	mu     sync.Mutex
	moved  sync.Cond // data came, was taken, or the stream ended
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

// Read returns buffered data and waits if there is none.
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

// Close ends the replica's request. It returns after the usage is in the ledger.
func (r *reader) Close() error {
	r.mu.Lock()
	r.closed = true
	r.moved.Broadcast()
	r.mu.Unlock()
	err := r.from.body.Close()
	<-r.done
	return err
}
