package run

import (
	"sync"
	"time"

	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/scenarios"
)

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
