package checklist

import (
	"math"
	"slices"

	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/scenarios"
)

// Requests of one moment are correlated: they wait in the same queue and fail for
// the same reason. So n of them carry less information than n independent ones. How
// much less (the design effect) is estimated from how much the batches of a stage
// differ (batch means, as in throughput.go).

// part counts the results of the requests of one stage that were due in one of its
// batches.
type part struct {
	tally
	errors, refused    int64
	exact, wrongLength int64
	values             [perRequest]values // if an objective needs them
	icl                histogram          // if an objective needs them
}

// parts are a stage's batches in the order of time.
type parts [mostBatches]part

// partOf is the batch that a request belongs to; nil in a stage whose requests differ
// on purpose, because its rate changes or a fault is injected.
func (e *evidence) partOf(s *samples, r *recording.Request) *part {
	id := stageID{scenario: r.Scenario, stage: r.Stage}
	played, ok := e.played[id]
	if !ok || !e.even(id) {
		return nil
	}
	if s.parts == nil {
		s.parts = map[stageID]*parts{}
	}
	if s.parts[id] == nil {
		s.parts[id] = new(parts)
	}
	at := int(mostBatches * int64(r.Due-played.from) / int64(played.to-played.from))
	return &s.parts[id][min(max(at, 0), mostBatches-1)]
}

// even reports whether the load of a stage is constant and its scenario has no
// faults.
func (e *evidence) even(id stageID) bool {
	even, known := e.evens[id]
	if known {
		return even
	}
	if s := e.scenario(id.scenario); s != nil && len(s.Faults) == 0 {
		i := slices.IndexFunc(s.Stages, func(st scenarios.Stage) bool { return st.Name == id.stage })
		even = i >= 0 && s.Stages[i].To == nil && s.Stages[i].Trace == nil
	}
	e.evens[id] = even
	return even
}

func (p *parts) merge(o *parts) {
	for i := range p {
		a, b := &p[i], &o[i]
		a.due, a.succeeded, a.attained, a.tokens = a.due+b.due, a.succeeded+b.succeeded, a.attained+b.attained, a.tokens+b.tokens
		a.errors, a.refused = a.errors+b.errors, a.refused+b.refused
		a.exact, a.wrongLength = a.exact+b.exact, a.wrongLength+b.wrongLength
		for m := range a.values {
			a.values[m].merge(&b.values[m])
		}
		a.icl.merge(&b.icl)
	}
}

// wantsParts are the latencies whose values are kept by batches.
func wantsParts(gate scenarios.Gate) (want [perRequest]bool) {
	for _, o := range gate.Objectives {
		if of, ok := latencyOf(o.Metric); ok && o.Quantile > 0 {
			want[of] = true
		}
	}
	return want
}

// alike is the design effect of a scope: how many of its requests count as one
// independent request. It is 1 if the batches differ no more than those of independent
// requests do by chance. count says how many requests of a batch are hits, and out of
// how many. Batches of one, two and four times a size are examined, because bursts that
// span two batches make small batches look too similar.
func (s *samples) alike(sure float64, count func(*part) (hits, of int64)) float64 {
	var stages [][]hits
	for _, stage := range s.parts {
		cut := make([]hits, mostBatches)
		for i := range stage {
			k, n := count(&stage[i])
			cut[i] = hits{float64(k), float64(n)}
		}
		stages = append(stages, cut)
	}
	return alikeIn(sure, stages)
}

// hits is how many requests of a batch are hits, and out of how many.
type hits struct{ count, of float64 }

// alikeIn is the design effect, from the batches of several intervals of time. Each
// interval is compared with itself.
func alikeIn(sure float64, stretches [][]hits) float64 {
	worst := 1.0
	for _, size := range []int{1, 2, 4} {
		var within, alone, freedom float64
		for _, stretch := range stretches {
			n := len(stretch) / size
			cut := make([]hits, n)
			var all hits
			for i, h := range stretch[:n*size] {
				b := &cut[i/size]
				b.count, b.of = b.count+h.count, b.of+h.of
				all.count, all.of = all.count+h.count, all.of+h.of
			}
			if all.of == 0 || n < 2 {
				continue
			}
			for _, b := range cut {
				off := b.count - all.count*b.of/all.of
				within += off * off * float64(n) / float64(n-1)
			}
			alone += all.count * (all.of - all.count) / all.of
			freedom += float64(n - 1)
		}
		if alone == 0 || freedom == 0 {
			continue // all had the same result: nothing is known about bursts
		}
		ratio := within / alone
		if ratio <= chanceRatio(freedom) {
			continue
		}
		// The uncertainty of so few batches is added (Korn and Graubard 1998).
		t, normal := tQuantile(sure, freedom), tQuantile(sure, 1e6)
		worst = max(worst, ratio*(t/normal)*(t/normal))
	}
	return worst
}

// chanceRatio bounds the ratio of the variance of the batches of independent requests
// to the expected one. It is exceeded once in three hundred times (the quantile of χ²
// by Wilson and Hilferty 1931), because three sizes of batches are examined.
func chanceRatio(freedom float64) float64 {
	const z = 2.713
	root := 1 - 2/(9*freedom) + z*math.Sqrt(2/(9*freedom))
	return root * root * root
}

// likeness is the design effect of the values above a given one.
type likeness func(value, sure float64) float64

// latencyAbove is the design effect of the requests whose latency is above a value.
func (s *samples) latencyAbove(metric int) likeness {
	return func(value, sure float64) float64 {
		return s.alike(sure, func(p *part) (hits, of int64) {
			v := &p.values[metric]
			return v.above(value), v.n()
		})
	}
}

// gapsAbove is the design effect of the gaps above a value.
func (s *samples) gapsAbove(value, sure float64) float64 {
	return s.alike(sure, func(p *part) (hits, of int64) { return p.icl.above(value), p.icl.n })
}

// above is how many values are above one.
func (v *values) above(x float64) int64 {
	if v.counted != nil {
		return v.counted.above(x)
	}
	if v.n() == 0 {
		return 0
	}
	v.at(0) // sorts
	at, _ := slices.BinarySearchFunc(v.kept, x, func(have, x float64) int {
		if have <= x {
			return -1
		}
		return 1
	})
	return int64(len(v.kept) - at)
}

func (h *histogram) above(x float64) (n int64) {
	for i, c := range h.buckets {
		if c > 0 && bucketFirst*math.Pow(bucketBase, float64(i)) > x {
			n += c
		}
	}
	return n
}

func wantsGaps(gate scenarios.Gate) bool {
	return slices.ContainsFunc(gate.Objectives, func(o scenarios.Objective) bool {
		m, _ := scenarios.MetricOf(o.Metric)
		return m.PerChunk && o.Quantile > 0
	})
}
