package checklist

import "math"

// confidence that a percentile or rate is not worse than its bound.
const confidence = 0.99

// allowed is the most overruns among n samples that prove, with 99 %
// confidence, that no more than the share q of all requests would overrun: the
// largest t with P(X ≤ t) ≤ 1 %, X binomial with n and q. It is −1 when even
// none would not prove it. (MLPerf LoadGen's early stopping,
// https://github.com/mlcommons/inference_policies, appendix "Early stopping".)
func allowed(n int64, q float64) int64 {
	limit := math.Log(1 - confidence)
	if q <= 0 || q >= 1 || n < 1 {
		return -1
	}
	odds := math.Log(q) - math.Log1p(-q)
	term := float64(n) * math.Log1p(-q) // log P(X = 0)
	sum := term
	t := int64(-1)
	for i := int64(0); i <= n; i++ {
		if sum > limit {
			return t
		}
		t = i
		term += math.Log(float64(n-i)) - math.Log(float64(i+1)) + odds
		sum = logAdd(sum, term)
	}
	return t
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

// needed is the fewest samples with which a percentile can be proven: as in
// MLPerf, one overrun must be allowed. p90 needs 64, p95 130, p99 662.
func needed(quantile float64) int64 {
	return search(func(n int64) bool { return allowed(n, 1-quantile) >= 1 })
}

// neededFor is how many samples would prove the percentile, if the share of
// overruns stays as it is; 0 when it lies too near for any number to.
func neededFor(quantile, overruns float64) int64 {
	if overruns > 0.95*(1-quantile) {
		return 0
	}
	return search(func(n int64) bool {
		t := allowed(n, 1-quantile)
		return t >= 1 && float64(t) >= overruns*float64(n)
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

// rateBounds are the one-sided 99 % bounds of a rate of which k of n were seen
// (Clopper and Pearson 1934).
func rateBounds(k, n int64) (low, high float64) {
	low, high = 0, 1
	if k > 0 {
		low = bisect(func(q float64) bool { return tail(k, n, q) > 1-confidence })
	}
	if k < n {
		high = bisect(func(q float64) bool { return 1-tail(k+1, n, q) < 1-confidence })
	}
	return low, high
}

// tail is P(X ≥ k) for X binomial with n and q.
func tail(k, n int64, q float64) float64 {
	if k <= 0 {
		return 1
	}
	if q <= 0 {
		return 0
	}
	if q >= 1 {
		return 1
	}
	// Sum the shorter side in logarithms, from its largest term outwards.
	logPMF := func(i int64) float64 {
		a, _ := math.Lgamma(float64(n + 1))
		b, _ := math.Lgamma(float64(i + 1))
		c, _ := math.Lgamma(float64(n - i + 1))
		return a - b - c + float64(i)*math.Log(q) + float64(n-i)*math.Log1p(-q)
	}
	odds := math.Log(q) - math.Log1p(-q)
	if float64(k) > q*float64(n) {
		term := logPMF(k)
		sum := term
		for i := k; i < n && term > sum-40; i++ {
			term += math.Log(float64(n-i)) - math.Log(float64(i+1)) + odds
			sum = logAdd(sum, term)
		}
		return math.Exp(sum)
	}
	term := logPMF(k - 1)
	sum := term
	for i := k - 1; i > 0 && term > sum-40; i-- {
		term += math.Log(float64(i)) - math.Log(float64(n-i+1)) - odds
		sum = logAdd(sum, term)
	}
	return 1 - math.Exp(sum)
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
