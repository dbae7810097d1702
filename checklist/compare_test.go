package checklist

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/launchgate/launchgate/internal/recording"
)

// noisy are blocks of 100 requests of a service. Its latencies are spread like those of
// real services, the machine is slower in some blocks than in others, and p95 is slower
// by a factor.
func noisy(rng *rand.Rand, moods []float64, p95 float64) []Block {
	var blocks []Block
	for _, mood := range moods {
		s := &samples{due: 100}
		for range 100 {
			slow := mood * math.Exp(0.05*rng.NormFloat64())
			z := rng.NormFloat64()
			t := 0.2 * slow * math.Exp(0.4*z)
			if z > 1.2 { // the slowest
				t *= p95
			}
			s.values[ttft].add(t)
			s.values[tpot].add(0.02 * slow * math.Exp(0.2*rng.NormFloat64()))
			s.values[latency].add(2 * slow * math.Exp(0.3*rng.NormFloat64()))
			if rng.Float64() < 0.004 {
				s.errors++
			}
		}
		blocks = append(blocks, s.block())
	}
	return blocks
}

// moods are the speeds of a machine, which change slowly.
func moods(rng *rand.Rand, n int) (all []float64) {
	m := 0.0
	for range n {
		m = 0.8*m + 0.06*rng.NormFloat64()
		all = append(all, math.Exp(m))
	}
	return all
}

// comparisons compares pairs of services n times. It counts how often a difference is
// found in p95(ttft), and in any metric.
func comparisons(n, blocks int, p95 float64) (found, any int) {
	for seed := range uint64(n) {
		rng := rand.New(rand.NewPCG(seed, uint64(p95*1000)))
		m := moods(rng, blocks)
		c := Compare(noisy(rng, m, 1), noisy(rng, m, p95), true)
		if c.Change == Regression || c.Change == Improvement {
			any++
		}
		if slices.ContainsFunc(c.Differences, func(d Difference) bool { return d.Metric == "p95(ttft)" && d.Change == Regression }) {
			found++
		}
	}
	return found, any
}

// Two samples of the same service are hardly ever found to differ. A service that is 10
// % slower at p95 is nearly always found to differ.
func TestComparisonsAreRight(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped with -short: the race detector takes ten times as long")
	}
	const n = 200
	if _, alarms := comparisons(n, 60, 1); alarms > n/100 {
		t.Errorf("%d of %d comparisons of a service with itself find a difference", alarms, n)
	}
	if found, _ := comparisons(n, 60, 1.1); found < n*95/100 {
		t.Errorf("%d of %d regressions of p95 by 10 %% are found", found, n)
	}
}

// BenchmarkComparisons measures the share of false alarms and of regressions found, by
// the number of blocks.
func BenchmarkComparisons(b *testing.B) {
	for _, blocks := range []int{20, 40, 60, 100} {
		b.Run(fmt.Sprint(blocks), func(b *testing.B) {
			const n = 1000
			for b.Loop() {
				_, alarms := comparisons(n, blocks, 1)
				found, _ := comparisons(n, blocks, 1.1)
				b.ReportMetric(float64(alarms)/n*100, "false-alarms-%")
				b.ReportMetric(float64(found)/n*100, "found-%")
			}
		})
	}
}

func TestCompare(t *testing.T) {
	blocks := func(n int, p95, errors float64) (all []Block) {
		rng := rand.New(rand.NewPCG(uint64(n), 7))
		for range n {
			jitter := math.Exp(0.02 * rng.NormFloat64())
			all = append(all, Block{map[string]float64{"p95(ttft)": p95 * jitter, "error_rate": errors}})
		}
		return all
	}
	errorsAlone := slices.Repeat([]Block{{map[string]float64{"error_rate": 0}}}, 12)
	for _, tt := range []struct {
		says       string
		base, head []Block
		paired     bool
		want       Change
	}{
		{"the same", blocks(12, 1, 0), blocks(13, 1, 0), false, Same},
		{"slower", blocks(12, 1, 0), blocks(13, 1.2, 0), false, Regression},
		{"quicker", blocks(12, 1, 0), blocks(12, 0.8, 0), true, Improvement},
		{"more errors", blocks(12, 1, 0), blocks(12, 1, 0.02), true, Regression},
		{"quicker, with more errors", blocks(12, 1, 0), blocks(12, 0.5, 0.05), true, Regression},
		{"slower by what does not matter", blocks(12, 1, 0), blocks(13, 1.03, 0), false, Same},
		{"too few", blocks(5, 1, 0), blocks(12, 1, 0), false, Undecided},
		{"not as many of both", blocks(12, 1, 0), blocks(13, 1, 0), true, Undecided},
		{"nothing but errors", errorsAlone, errorsAlone, true, Undecided},
		{"nothing in common", blocks(12, 1, 0), make([]Block, 12), false, Undecided},
	} {
		if c := Compare(tt.base, tt.head, tt.paired); c.Change != tt.want || c.Why.IsZero() {
			t.Errorf("%s: %+v, want %s", tt.says, c, tt.want)
		}
	}
}

// A run is cut into blocks by when requests were due, whatever their result.
func TestBlocksOfARun(t *testing.T) {
	w := healthy(t, "p95(ttft) <= 1s")
	for i := range w.requests[:20] { // one second without successful answers
		w.requests[i].Error = recording.ErrorTimeout
	}
	w.observe(stageTo+ms, recording.ObsReadBack, "steady", 0) // a run that wrote records is compared like others
	blocks, err := Blocks(w.gate, recording.InMemory(w.requests, nil, w.observations), 10)
	if err != nil || len(blocks) != 10 {
		t.Fatalf("%d blocks, %v", len(blocks), err)
	}
	if m := blocks[0].Metrics; m["error_rate"] != 1 || m["p95(ttft)"] != 0 {
		t.Errorf("%v", m)
	}
	if m := blocks[9].Metrics; m["error_rate"] != 0 || math.Abs(m["p95(ttft)"]-0.1) > 1e-9 {
		t.Errorf("%v", m)
	}
}
