//go:build !linux

package loadgen

import (
	"context"
	"time"
)

// alarm wakes a goroutine after a time, as well as Go's timers can.
type alarm struct{ ctx context.Context }

func newAlarm(ctx context.Context) (*alarm, error) { return &alarm{ctx}, nil }

func (*alarm) close() {}

// wait waits for d, or until the context ends.
func (a *alarm) wait(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-a.ctx.Done():
	case <-timer.C:
	}
}
