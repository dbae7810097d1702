package ledger

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"
)

// The next write takes all records that arrived during the last one, each once.
// Every caller gets the result of its own batch.
func TestBatches(t *testing.T) {
	broken := errors.New("the disk is full")
	var writes [][]Usage
	begun, goOn := make(chan struct{}), make(chan error)
	b := newBatches(func(records []Usage) error {
		writes = append(writes, records)
		begun <- struct{}{}
		return <-goOn
	})
	var adding sync.WaitGroup
	ends := make([]error, 11)
	add := func(i int) {
		adding.Go(func() { ends[i] = b.add(t.Context(), Usage{Request: fmt.Sprint(i)}) })
	}
	add(0)
	<-begun
	for i := 1; i <= 10; i++ {
		add(i)
	}
	for waiting := 0; waiting < 10; time.Sleep(time.Millisecond) {
		b.mu.Lock()
		if b.waiting != nil {
			waiting = len(b.waiting.records)
		}
		b.mu.Unlock()
	}
	goOn <- nil
	<-begun
	goOn <- broken
	adding.Wait()
	b.close()
	if len(writes) != 2 || len(writes[0]) != 1 || len(writes[1]) != 10 {
		t.Fatalf("%d writes: %v", len(writes), writes)
	}
	for i, err := range ends {
		if i == 0 && err != nil || i > 0 && !errors.Is(err, broken) {
			t.Errorf("record %d ended with %v", i, err)
		}
	}
	if err := b.add(t.Context(), Usage{}); !errors.Is(err, errClosed) {
		t.Errorf("after the end: %v", err)
	}
}

// A caller that stops waiting does not delay the others.
func TestBatchesWithoutPatience(t *testing.T) {
	goOn := make(chan struct{})
	b := newBatches(func([]Usage) error { <-goOn; return nil })
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := b.add(ctx, Usage{}); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	close(goOn)
	if err := b.add(t.Context(), Usage{}); err != nil {
		t.Error(err)
	}
	b.close()
}
