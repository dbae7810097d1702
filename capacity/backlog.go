package capacity

import (
	"cmp"
	"slices"
	"time"
)

// Backlog watches how many requests are under way, and tells early that a
// service cannot keep up: in a service that does, the number settles once
// answers come as fast as questions; in one that does not, it grows with the
// time. Waiting for the end of the stage would only let it grow further.
type Backlog struct {
	looks []look
	flows time.Duration // when the first answers had come
}

type look struct {
	at        time.Duration
	due, done int
}

const (
	settleFor  = 4 * time.Second // the shortest stretch that growth is looked for in
	flowing    = 10              // answers that show that the service works at all
	minGrowth  = 16              // requests
	growthRate = 0.25            // of the requests that became due
)

// Look takes how many requests were due and how many have been answered, and
// reports whether the service is clearly over-saturated.
//
// Until answers come the number grows in any service, and while the longest
// answers are under way it grows in a good one, which then answers faster and
// faster. A service at its ceiling answers no faster in the second half of the
// stretch than in the first, and the number grows by a good part of what
// arrives in both. The stretch begins at twice the time that it took for answers
// to flow, and is at least twice as long as what came before it.
func (b *Backlog) Look(at time.Duration, due, done int) bool {
	b.looks = append(b.looks, look{at, due, done})
	if b.flows == 0 {
		if done >= flowing {
			b.flows = at
		}
		return false
	}
	from := 2 * b.flows
	if at-from < max(settleFor, 2*from) {
		return false
	}
	begin, middle := b.since(from), b.since((from+at)/2)
	arrived, answered := due-begin.due, done-begin.done
	before, after := middle.done-begin.done, done-middle.done
	grown := arrived - answered
	return float64(after) <= 1.1*float64(before) && grown > minGrowth && float64(grown) > growthRate*float64(arrived)
}

// since is the first look from a time on.
func (b *Backlog) since(at time.Duration) look {
	i, _ := slices.BinarySearchFunc(b.looks, at, func(l look, at time.Duration) int { return cmp.Compare(l.at, at) })
	return b.looks[min(i, len(b.looks)-1)]
}
