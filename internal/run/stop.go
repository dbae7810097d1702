package run

import (
	"context"
	"sync"
	"time"

	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/scenarios"
)

var errOver = words.Errorf("not played: the run could no longer pass")

// unlessFailed plays a part of the run, unless an earlier part was missed and the gate
// ends then.
func (c *conductor) unlessFailed(play func() error) error {
	if c.over {
		return errOver
	}
	return play()
}

// endIfFailed ends the run after a scenario if the gate says so and something was missed.
func (c *conductor) endIfFailed(ctx context.Context, s scenarios.Scenario) error {
	last := c.Gate.Scenarios[len(c.Gate.Scenarios)-1].Name == s.Name && c.Gate.Scan == nil
	if c.Gate.Stop == nil || !c.Gate.Stop.WhenFailed || c.Missed == nil || ctx.Err() != nil || last {
		return nil
	}
	missed, err := c.Missed(c.Dir)
	if err != nil || missed.IsZero() {
		return err
	}
	c.over = true
	c.observe(recording.Observation{At: c.clock.Now(), Name: recording.ObsEndedEarly, Subject: s.Name, Text: missed})
	c.say("the run can no longer pass, so the rest is not played (stop.when_failed): %s", missed)
	return nil
}

// budget counts the load requests of a sliding window, and reports once when too many
// of them failed.
type budget struct {
	stop scenarios.Stop

	mu     sync.Mutex
	counts []second // of the window, the oldest first
	burnt  bool
}

// second counts the requests that ended in one second of the run.
type second struct {
	at          int64
	all, failed int
}

func newBudget(stop *scenarios.Stop) *budget {
	if stop == nil || stop.Errors == 0 {
		return nil
	}
	return &budget{stop: *stop}
}

// spend counts a request that has ended. It returns an error once, when the budget is
// exhausted.
func (b *budget) spend(r *recording.Request) error {
	if b == nil || r.Kind != recording.KindLoad || r.Error == recording.ErrorCancelled {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.burnt {
		return nil
	}
	now := int64(max(r.End, r.Sent, r.Due) / time.Second)
	b.count(now, !r.OK())
	newest := b.counts[len(b.counts)-1].at
	all, failed := 0, 0
	for i := len(b.counts) - 1; i >= 0 && b.counts[i].at > newest-int64(time.Duration(b.stop.Within)/time.Second); i-- {
		all, failed = all+b.counts[i].all, failed+b.counts[i].failed
	}
	if all < b.stop.Requests || float64(failed) <= float64(b.stop.Errors)*float64(all) {
		return nil
	}
	b.burnt = true
	return words.Errorf("the run was stopped because it did more harm than permitted: %d of the %d requests that ended within %s failed, and at most %v may fail (stop.errors)",
		failed, all, time.Duration(b.stop.Within), b.stop.Errors)
}

// count adds a request to its second. Requests end nearly in order; one of an older
// second is added to the newest.
func (b *budget) count(at int64, failed bool) {
	if n := len(b.counts); n == 0 || at > b.counts[n-1].at {
		b.counts = append(b.counts, second{at: at})
		if most := int(time.Duration(b.stop.Within)/time.Second) + 1; len(b.counts) > most {
			b.counts = b.counts[1:]
		}
	}
	last := &b.counts[len(b.counts)-1]
	last.all++
	if failed {
		last.failed++
	}
}
