package loadgen

import (
	"context"
	"sync/atomic"
	"time"
)

const (
	// Looks is how many times at most it is decided whether to extend a stage. More
	// looks make a chance result more likely, so the judge asks for more confidence the
	// more looks there are.
	Looks = 4
	// lookBefore is how long before the end of a stage the decision is made: judging
	// takes time, and no request may be late because of it.
	lookBefore = 2 * time.Second
)

// extension extends the last stage of a plan, step by step, as long as an objective is
// undecided. The requests of the extension are in the plan from the beginning; only the
// end of the stage is not known.
type extension struct {
	undecided func() bool
	from      time.Duration // the end of the stage if it is not extended
	step      time.Duration
	most      time.Duration
	until     atomic.Int64  // the end as far as it is known
	changed   chan struct{} // receives a value when the stage is extended
	final     chan struct{} // closed when the end is known
}

func newExtension(p *Plan, undecided func() bool) *extension {
	x := &extension{undecided: undecided, from: p.Duration(), changed: make(chan struct{}, Looks), final: make(chan struct{})}
	x.most = x.from
	if len(p.Stages) > 0 && undecided != nil {
		longer := p.Stages[len(p.Stages)-1].Extend
		x.step, x.most = longer/Looks, x.from+longer
	}
	x.until.Store(int64(x.from))
	return x
}

// end is the end of the plan as far as it is known, from the scenario's start.
func (x *extension) end() time.Duration { return time.Duration(x.until.Load()) }

// decide decides before each end whether it is the last.
func (x *extension) decide(d *drive) {
	defer close(x.final)
	for x.step > 0 && x.end()+x.step <= x.most {
		if !d.sleepUntil(d.start+x.end()-lookBefore) || !x.undecided() {
			return
		}
		x.until.Add(int64(x.step))
		x.changed <- struct{}{}
	}
}

// holds reports whether a request that is due at a time is still part of the load. It
// waits until that is known.
func (x *extension) holds(ctx context.Context, due time.Duration) bool {
	for due >= x.end() {
		select {
		case <-x.changed:
		case <-x.final:
			return due < x.end()
		case <-ctx.Done():
			return false
		}
	}
	return true
}

// ended waits until the end is known; false if ctx ends before.
func (x *extension) ended(ctx context.Context) bool {
	select {
	case <-x.final:
		return true
	case <-ctx.Done():
		return false
	}
}
