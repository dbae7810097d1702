package ledger

import (
	"context"
	"errors"
	"sync"
)

// batches collects the records that arrive during a write and writes them
// together. SQLite has one writer, and a sync takes as long for a hundred
// records as for one. The caller that adds a record waits until its batch is
// durable.
type batches struct {
	write func([]Usage) error

	mu      sync.Mutex
	waiting *batch // the batch of the next write; nil while nobody waits
	writing bool
	closed  bool
	idle    sync.Cond // signals that no write is under way
}

// batch is written as one. All its callers get the same result.
type batch struct {
	records []Usage
	done    chan struct{}
	err     error // valid once done is closed
}

var errClosed = errors.New("the ledger is closed")

func newBatches(write func([]Usage) error) *batches {
	b := &batches{write: write}
	b.idle.L = &b.mu
	return b
}

func (b *batches) add(ctx context.Context, u Usage) error {
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return errClosed
	}
	if b.waiting == nil {
		b.waiting = &batch{done: make(chan struct{})}
	}
	own := b.waiting
	own.records = append(own.records, u)
	if !b.writing {
		b.writing = true
		go b.run() // until nobody waits
	}
	b.mu.Unlock()
	select {
	case <-own.done:
		return own.err
	case <-ctx.Done():
		return context.Cause(ctx) // the record may still be written
	}
}

func (b *batches) run() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for b.waiting != nil {
		now := b.waiting
		b.waiting = nil
		b.mu.Unlock()
		now.err = b.write(now.records)
		close(now.done)
		b.mu.Lock()
	}
	b.writing = false
	b.idle.Broadcast()
}

func (b *batches) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	for b.writing {
		b.idle.Wait()
	}
}
