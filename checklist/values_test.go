package checklist

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// Few values are exact. Many are exact to a fifth of a percent and never too small,
// whether they were added one by one or merged.
func TestValues(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 1))
	for _, n := range []int{1, 100, exactly, exactly + 1, 2 * exactly} {
		all := make([]float64, n)
		var one, left, right, merged values
		for i := range all {
			all[i] = 0.1 * math.Exp(random.NormFloat64())
			one.add(all[i])
			if i%3 == 0 {
				left.add(all[i])
			} else {
				right.add(all[i])
			}
		}
		merged.merge(&left)
		merged.merge(&right)
		slices.Sort(all)
		for _, v := range []*values{&one, &merged} {
			if v.n() != int64(n) || v.max() != all[n-1] {
				t.Errorf("%d values: %d are counted, the largest %g of %g", n, v.n(), v.max(), all[n-1])
			}
			if want := mean(all); math.Abs(v.mean()/want-1) > 1e-6 {
				t.Errorf("%d values: a mean of %g, want %g", n, v.mean(), want)
			}
			for _, q := range []float64{0.01, 0.5, 0.95, 0.999} {
				got, want := v.quantile(q), nearestRank(all, q)
				if got < want || got > want*1.0021 || n <= exactly && got != want {
					t.Errorf("%d values: p%g is %g, want %g", n, q*100, got, want)
				}
			}
		}
	}
}

// The sum may begin far below the mean, because the terms left out are too small to
// count.
func TestAllowedBeginsAnywhere(t *testing.T) {
	for _, n := range []int64{1000, 20_000, 300_000} {
		for _, q := range []float64{0.001, 0.05, 0.5, 0.95} {
			k, sum := int64(-1), math.Inf(-1)
			for i := int64(0); i <= n; i++ {
				if sum = logAdd(sum, logBinomial(i, n, q)); sum > math.Log(1-confidence) {
					break
				}
				k = i
			}
			if got, want := allowed(n, q), max(k-1, -1); got != want {
				t.Errorf("of %d requests %d may overrun %g, want %d", n, got, q, want)
			}
		}
	}
}
