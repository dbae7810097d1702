package security

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/launchgate/launchgate/internal/recording"
)

const (
	othersEvery   = 300 * time.Millisecond
	othersTimeout = 8 * time.Second
	// Before the scan, the other client sends quietSamples requests, or fewer, down to
	// fewestQuiet, if they take longer than quietWithin.
	quietSamples = 40
	fewestQuiet  = 6
	quietWithin  = 3 * time.Second
)

// others is another client, which repeats a small request during the checks, from an
// address of its own, and with the key of the other tenant if there is one.
type others struct {
	cancel context.CancelFunc
	ended  chan struct{}
	quiet  time.Duration // median before the scan
	calm   time.Duration // 95th percentile before the scan

	mu      sync.Mutex
	samples []sample
}

type sample struct {
	began time.Time
	took  time.Duration
	ok    bool
}

func watchOthers(ctx context.Context, s *session) *others {
	ctx, cancel := context.WithCancel(ctx)
	o := &others{cancel: cancel, ended: make(chan struct{})}
	if len(s.routes) == 0 {
		close(o.ended)
		return o
	}
	t := newTrial(s, Check{Name: "others", Cap: Cap{Requests: 1 << 40, Bytes: 1 << 50}})
	from := ""
	if len(s.sources) > 0 {
		from = "127.66.250.1"
	}
	r := s.routes[0]
	for _, k := range s.routes {
		if k.path == "/v1/chat/completions" {
			r = k
		}
	}
	ask := request{method: r.method, path: r.path, body: r.body, key: orElse(s.target.OtherKey, s.target.Key), from: from, within: othersTimeout}
	one := func() {
		began := time.Now()
		a := t.once(ctx, ask)
		if ctx.Err() != nil {
			return
		}
		o.mu.Lock()
		o.samples = append(o.samples, sample{began, time.Since(began), r.means(a)})
		o.mu.Unlock()
	}
	for i, until := 0, time.Now().Add(quietWithin); i < fewestQuiet || i < quietSamples && time.Now().Before(until); i++ {
		one()
	}
	o.quiet, o.calm = median(o.samples), recording.P95(times(o.samples))
	go func() {
		defer close(o.ended)
		for ctx.Err() == nil {
			one()
			sleep(ctx, othersEvery)
		}
	}()
	return o
}

func (o *others) stop() { o.cancel(); <-o.ended }

// mark is a position in the samples; see since.
func (o *others) mark() int {
	if o == nil {
		return 0
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.samples)
}

// since sums up how the other client was served since a mark; nil if it sent nothing.
func (o *others) since(mark int) *recording.Others {
	if o == nil {
		return nil
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	of := o.samples[mark:]
	if len(of) == 0 {
		return nil
	}
	summary := &recording.Others{Asked: len(of), Median: median(of), Quiet: o.quiet, QuietP95: o.calm, Took: times(of)}
	for _, s := range of {
		if !s.ok {
			summary.Failed++
		}
		summary.Longest = max(summary.Longest, s.took)
	}
	return summary
}

// times are those of the answered requests.
func times(of []sample) (took []time.Duration) {
	for _, s := range of {
		if s.ok {
			took = append(took, s.took)
		}
	}
	return took
}

// median is the median time of the answered requests; 0 if there are none.
func median(of []sample) time.Duration {
	took := times(of)
	if len(took) == 0 {
		return 0
	}
	slices.Sort(took)
	return took[len(took)/2]
}
