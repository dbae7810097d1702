package checklist

import (
	"math"

	"github.com/launchgate/launchgate/scenarios"
)

// confidence that a percentile, a share or a rate is not worse than its bound,
// where the gate does not say another.
const confidence = scenarios.DefaultConfidence

// sureAfter is the confidence for each look at a stage that is looked at several
// times and may end each time, so that all looks together have the confidence that
// the gate asks for (Bonferroni's correction).
func sureAfter(sure float64, looks int) float64 { return 1 - (1-sure)/float64(looks) }

// allowed is the most overruns among n samples that prove, with 99 %
// confidence, that no more than the share q of all requests would overrun. It
// is −1 when even none would not prove it.
//
// This is the early stopping of MLPerf LoadGen: with k the largest number for
// which P(X ≤ k) ≤ 1 %, X binomial with n and q, the sample at the limit counts
// as an overrun itself, so that k−1 may lie above it. Hence p90 needs 64
// samples, p95 130, p99 662 and p99.9 6,636.
func allowed(n int64, q float64) int64 { return allowedAt(confidence, n, q) }

// allowedAt is allowed with another confidence.
func allowedAt(sure float64, n int64, q float64) int64 {
	if q <= 0 || q >= 1 || n < 1 {
		return -1
	}
	limit := math.Log(1 - sure)
	odds := math.Log(q) - math.Log1p(-q)
	term := float64(n) * math.Log1p(-q) // log P(X = 0)
	k := int64(-1)
	if far := int64(float64(n)*q - 12*math.Sqrt(float64(n)*q*(1-q))); far > 0 {
		// All that lies twelve standard deviations below the mean adds nothing.
		k, term = far-1, logBinomial(far, n, q)
	}
	sum := term
	for sum <= limit && k < n {
		k++
		term += math.Log(float64(n-k)) - math.Log(float64(k+1)) + odds
		sum = logAdd(sum, term)
	}
	return max(k-1, -1)
}

// logAdd is log(eᵃ + eᵇ).
func logAdd(a, b float64) float64 {
	if a < b {
		a, b = b, a
	}
	if math.IsInf(b, -1) {
		return a
	}
	return a + math.Log1p(math.Exp(b-a))
}

// SamplesFor is the fewest samples with which a percentile can be proven.
func SamplesFor(quantile float64) int64 { return samplesFor(confidence, quantile) }

func samplesFor(sure, quantile float64) int64 {
	return search(func(n int64) bool { return allowedAt(sure, n, 1-quantile) >= 0 })
}

// neededFor is how many samples would prove the percentile if the share of
// overruns stays the same; 0 if it is so close to the limit that no reasonable
// number would.
func neededFor(sure, quantile, overruns float64) int64 {
	if overruns > 0.95*(1-quantile) {
		return 0
	}
	return search(func(n int64) bool {
		t := allowedAt(sure, n, 1-quantile)
		return t >= 0 && float64(t) >= overruns*float64(n)
	})
}

// search is the smallest n for which ok holds, by doubling and halving; ok
// holds for all larger ones, or nearly so.
func search(ok func(int64) bool) int64 {
	high := int64(1)
	for !ok(high) {
		if high > 1<<26 {
			return 0
		}
		high *= 2
	}
	low := high / 2
	for high-low > 1 {
		if mid := (low + high) / 2; ok(mid) {
			high = mid
		} else {
			low = mid
		}
	}
	return high
}

// percentileBounds are the bounds of a percentile of n sorted values. They are order
// statistics, so nothing is assumed about the distribution. A bound is nil if there
// are too few samples for it. alike is the design effect: how many of the values
// count as one independent value.
func percentileBounds(sure float64, n int64, quantile, alike float64, at func(int64) float64) (upper, lower *float64) {
	witnesses := int64(float64(n)/alike + 1e-9)
	rank := func(allowed int64) int64 { return min(int64(float64(allowed)*alike), n-1) }
	if t := allowedAt(sure, witnesses, 1-quantile); t >= 0 {
		upper = new(at(n - 1 - rank(t)))
	}
	if t := allowedAt(sure, witnesses, quantile); t >= 0 {
		lower = new(at(rank(t)))
	}
	return upper, lower
}

// shareBoundsOf are the bounds of a share, from k of n requests. alike is the design
// effect: how many of the requests count as one independent request.
func shareBoundsOf(sure float64, k, n int64, alike float64) (low, high float64) {
	if alike <= 1 {
		return rateBoundsAt(sure, k, n)
	}
	return shareBounds(sure, k, n, max(1, float64(n)/alike))
}

// sharesFor is the fewest requests, all of them good, that prove a share of at most
// q.
func sharesFor(sure, q float64) int64 {
	if q <= 0 || q >= 1 {
		return 1
	}
	return int64(math.Ceil(math.Log(1-sure)/math.Log1p(-q) - 1e-9))
}

// sharesNeeded is how many requests would prove that a share is at most q if it
// stays the same; 0 if it is so close to q that no reasonable number would.
func sharesNeeded(sure, share, q float64) int64 {
	if q <= 0 || share > 0.95*q {
		return 0
	}
	return search(func(n int64) bool {
		_, high := rateBoundsAt(sure, int64(math.Ceil(share*float64(n)-1e-9)), n)
		return high <= q
	})
}

// rateBounds are the one-sided 99 % bounds of a rate of which k of n were seen.
func rateBounds(k, n int64) (low, high float64) { return rateBoundsAt(confidence, k, n) }

// rateBoundsAt is rateBounds with another confidence (Clopper and Pearson 1934).
func rateBoundsAt(sure float64, k, n int64) (low, high float64) {
	low, high = 0, 1
	if k > 0 {
		low = bisect(func(q float64) bool { return tail(k, n, q) > 1-sure })
	}
	if k < n {
		high = bisect(func(q float64) bool { return 1-tail(k+1, n, q) < 1-sure })
	}
	return low, high
}

// tail is P(X ≥ k) for X binomial with n and q.
func tail(k, n int64, q float64) float64 {
	switch {
	case k <= 0 || q >= 1:
		return 1
	case q <= 0:
		return 0
	}
	// The shorter side is summed, in logarithms from its largest term outwards.
	odds := math.Log(q) - math.Log1p(-q)
	if float64(k) > q*float64(n) {
		term := logBinomial(k, n, q)
		sum := term
		for i := k; i < n && term > sum-40; i++ {
			term += math.Log(float64(n-i)) - math.Log(float64(i+1)) + odds
			sum = logAdd(sum, term)
		}
		return math.Exp(sum)
	}
	term := logBinomial(k-1, n, q)
	sum := term
	for i := k - 1; i > 0 && term > sum-40; i-- {
		term += math.Log(float64(i)) - math.Log(float64(n-i+1)) - odds
		sum = logAdd(sum, term)
	}
	return 1 - math.Exp(sum)
}

// logBinomial is log P(X = i) for X binomial with n and q.
func logBinomial(i, n int64, q float64) float64 {
	all, _ := math.Lgamma(float64(n + 1))
	hits, _ := math.Lgamma(float64(i + 1))
	rest, _ := math.Lgamma(float64(n - i + 1))
	return all - hits - rest + float64(i)*math.Log(q) + float64(n-i)*math.Log1p(-q)
}

// bisect is where above turns from false to true in [0, 1].
func bisect(above func(float64) bool) float64 {
	low, high := 0.0, 1.0
	for range 60 {
		if mid := (low + high) / 2; above(mid) {
			high = mid
		} else {
			low = mid
		}
	}
	return (low + high) / 2
}
