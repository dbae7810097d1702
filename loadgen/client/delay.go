package client

import (
	"math"
	"math/bits"
	"sync/atomic"
	"time"
)

// delays is a histogram of durations to which goroutines add without waiting for each
// other. Its buckets are an eighth of a power of two wide, so that a quantile is at
// most an eighth too large.
type delays struct {
	counts [64 << 3]atomic.Uint64
}

func (h *delays) add(d time.Duration) { h.counts[bucket(max(d, 0))].Add(1) }

func bucket(d time.Duration) int {
	v := uint64(d)
	if v < 8 {
		return int(v)
	}
	exp := bits.Len64(v) - 4 // v>>exp has four bits, the highest of them set
	return exp<<3 + int(v>>exp)
}

// edge is the largest duration of a bucket.
func edge(i int) time.Duration {
	if i < 16 {
		return time.Duration(i)
	}
	exp := i>>3 - 1
	return time.Duration(uint64(i&7+9)<<exp - 1)
}

// take empties the histogram and returns a quantile of its values and their number.
func (h *delays) take(q float64) (time.Duration, int64) {
	var counts [len(h.counts)]uint64
	var total uint64
	for i := range h.counts {
		counts[i] = h.counts[i].Swap(0)
		total += counts[i]
	}
	rank, sum := uint64(math.Ceil(q*float64(total))), uint64(0)
	for i, n := range counts {
		if sum += n; n > 0 && sum >= rank {
			return edge(i), int64(total)
		}
	}
	return 0, 0
}

// ReadDelay is the p99 of the delay between arrival and parsing of the bytes read since
// the last call, and the number of reads.
func (c *Client) ReadDelay() (p99 time.Duration, reads int64) { return c.delays.take(0.99) }
