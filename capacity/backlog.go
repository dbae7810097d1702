package capacity

import (
	"cmp"
	"slices"
	"time"
)

// Backlog watches the number of requests under way, to find out early that a service
// cannot keep up. If it keeps up, the number settles once answers come as fast as
// requests. If it does not, the number grows until the end of the stage.
type Backlog struct {
	looks []look
	flows time.Duration // when the first answers arrived
}

type look struct {
	at        time.Duration
	due, done int
}

const (
	settleFor  = 4 * time.Second // the shortest interval in which growth is looked for
	flowing    = 10              // answers that show that the service works at all
	minGrowth  = 16              // requests
	growthRate = 0.25            // of the requests that became due
)

// Look takes how many requests were due and how many have been answered, and reports
// whether the service is clearly over-saturated.
//
// The number under way grows in any service until the first answers come. In a sound
// service it also grows while the longest answers are under way, but then answers come
// faster and faster. A saturated service answers no faster in the second half of the
// interval than in the first, and in both halves the number grows by a good part of the
// arrivals. The interval begins at twice the time until the first answers, and is at
// least twice as long as the time before it.
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

// since is the first look at or after a time.
func (b *Backlog) since(at time.Duration) look {
	i, _ := slices.BinarySearchFunc(b.looks, at, func(l look, at time.Duration) int { return cmp.Compare(l.at, at) })
	return b.looks[min(i, len(b.looks)-1)]
}
