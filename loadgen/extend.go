package loadgen

import (
	"context"
	"sync/atomic"
	"time"
)

const (
	// Looks is how often at most it is looked whether a stage has to go on. Who
	// looks more often is deceived more often, so the judge asks for more
	// confidence by as much.
	Looks = 4
	// lookBefore is how long before a stage would end it is looked: judging takes
	// its time, and no request is to be late for it.
	lookBefore = 2 * time.Second
)

// extension lets the last stage of a plan go on for a while, and for another,
// as long as there is something to be decided. What comes due then was known
// before, as all of the plan; only where it ends is not.
type extension struct {
	undecided func() bool
	from      time.Duration // when the stage ends if it is not extended
	step      time.Duration
	most      time.Duration
	until     atomic.Int64  // when it ends as far as is known
	changed   chan struct{} // gets one when it goes on
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

// end is when the plan ends, from the scenario's start, as far as is known.
func (x *extension) end() time.Duration { return time.Duration(x.until.Load()) }

// decide looks before each end whether it is to be the last.
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

// holds reports whether a request that comes due at a time is still part of the
// load, as soon as that is known.
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

// ended waits until the end is known; false when ctx ends before.
func (x *extension) ended(ctx context.Context) bool {
	select {
	case <-x.final:
		return true
	case <-ctx.Done():
		return false
	}
}
