package security

import (
	"math"

	"github.com/aclements/go-moremath/stats"
)

// fisher is the p-value of Fisher's exact test: the probability that chance gives the
// first group a or more hits, for a hits of n in it and b of m in the second.
func fisher(a, n, b, m int) float64 {
	total, hits := n+m, a+b
	p := 0.0
	for k := a; k <= min(n, hits); k++ {
		if hits-k <= m {
			p += math.Exp(choose(n, k) + choose(m, hits-k) - choose(total, hits))
		}
	}
	return min(p, 1)
}

// choose is the logarithm of the binomial coefficient n over k.
func choose(n, k int) float64 {
	lg := func(x int) float64 { v, _ := math.Lgamma(float64(x) + 1); return v }
	return lg(n) - lg(k) - lg(n-k)
}

// less is the p-value of the hypothesis that the first group is not below the second
// (Mann-Whitney); 1 if it cannot be computed.
func less(first, second []float64) float64 {
	r, err := stats.MannWhitneyUTest(first, second, stats.LocationLess)
	if err != nil {
		return 1
	}
	return r.P
}

// atMost is the 95 % upper bound of a share of which n tries showed no case.
func atMost(n int) float64 { return 1 - math.Pow(0.05, 1/float64(n)) }

// between is the 95 % confidence interval of a share of k in n (Clopper and Pearson).
func between(k, n int) (low, high float64) {
	cdf := func(k int, p float64) float64 { // P(X <= k)
		sum := 0.0
		for i := 0; i <= k; i++ {
			sum += math.Exp(choose(n, i) + float64(i)*math.Log(p) + float64(n-i)*math.Log1p(-p))
		}
		return sum
	}
	bisect := func(above func(p float64) bool) float64 {
		low, high := 1e-12, 1-1e-12
		for range 100 {
			if mid := (low + high) / 2; above(mid) {
				high = mid
			} else {
				low = mid
			}
		}
		return low
	}
	low, high = 0, 1
	if k > 0 {
		low = bisect(func(p float64) bool { return 1-cdf(k-1, p) > 0.025 })
	}
	if k < n {
		high = bisect(func(p float64) bool { return cdf(k, p) < 0.025 })
	}
	return low, high
}
