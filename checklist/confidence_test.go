package checklist

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// The numbers of MLPerf's inference policies for 99 % confidence.
func TestSamplesThatAPercentileNeeds(t *testing.T) {
	for _, tt := range []struct {
		quantile float64
		n        int64
	}{{0.90, 64}, {0.95, 130}, {0.99, 662}, {0.999, 6636}} {
		if got := SamplesFor(tt.quantile); got != tt.n {
			t.Errorf("p%g needs %d samples, want %d", tt.quantile*100, got, tt.n)
		}
		if got := allowed(tt.n, 1-tt.quantile); got != 0 {
			t.Errorf("of %d samples %d may be above the limit of p%g, want 0", tt.n, got, tt.quantile*100)
		}
		if got := allowed(tt.n-1, 1-tt.quantile); got != -1 {
			t.Errorf("%d samples prove p%g, want one more to be needed", tt.n-1, tt.quantile*100)
		}
	}
}

// choose is the binomial coefficient by Pascal's triangle, which the product
// does not use.
func choose(n, k int64) float64 {
	row := []float64{1}
	for range n {
		next := make([]float64, len(row)+1)
		for i, v := range row {
			next[i] += v
			next[i+1] += v
		}
		row = next
	}
	return row[k]
}

func atMost(k, n int64, q float64) (p float64) {
	for i := int64(0); i <= k; i++ {
		p += choose(n, i) * math.Pow(q, float64(i)) * math.Pow(1-q, float64(n-i))
	}
	return p
}

func TestAllowedOverrunsAgreeWithTheBinomialSum(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped with -short: the race detector takes ten times as long")
	}
	for _, q := range []float64{0.5, 0.25, 0.1, 0.05} {
		for n := int64(1); n <= 200; n += 7 {
			want := int64(-1)
			for k := int64(0); k < n && atMost(k, n, q) <= 0.01; k++ {
				want = k - 1
			}
			if got := allowed(n, q); got != want {
				t.Errorf("allowed(%d, %g) is %d, want %d", n, q, got, want)
			}
		}
	}
}

func TestRateBoundsAgreeWithTheBinomialSum(t *testing.T) {
	for _, n := range []int64{1, 5, 20, 100} {
		for k := int64(0); k <= n; k += max(1, n/7) {
			low, high := rateBounds(k, n)
			if k == 0 && low != 0 || k > 0 && math.Abs(1-atMost(k-1, n, low)-0.01) > 1e-6 {
				t.Errorf("%d of %d: the lower bound is %g", k, n, low)
			}
			if k == n && high != 1 || k < n && math.Abs(atMost(k, n, high)-0.01) > 1e-6 {
				t.Errorf("%d of %d: the upper bound is %g", k, n, high)
			}
		}
	}
}

// The bound of a percentile must hold in 99 of 100 experiments, whatever the
// distribution: here a heavy tail.
func TestPercentileBoundsCoverTheTruth(t *testing.T) {
	draw := rand.New(rand.NewPCG(1, 2))
	const experiments, n, quantile = 2000, 200, 0.95
	truth := math.Pow(1-quantile, -1/1.5) // of a Pareto distribution with shape 1.5
	missed := 0
	values := make([]float64, n)
	for range experiments {
		for i := range values {
			values[i] = math.Pow(1-draw.Float64(), -1/1.5)
		}
		slices.Sort(values)
		upper, _ := percentileBounds(confidence, n, quantile, 1, func(i int64) float64 { return values[i] })
		if *upper < truth {
			missed++
		}
	}
	if rate := float64(missed) / experiments; rate > 0.01+3*math.Sqrt(0.01*0.99/experiments) {
		t.Errorf("the 99 %% bound was below the true percentile in %.2f %% of the experiments", rate*100)
	}
}

func TestRateBoundsOfManyRequests(t *testing.T) {
	// Ten million requests must neither overflow nor take long.
	low, high := rateBounds(50_000, 10_000_000)
	if low > 0.005 || high < 0.005 || high-low > 0.0002 {
		t.Errorf("bounds of 0.5 %% are %g and %g", low, high)
	}
}
