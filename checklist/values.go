package checklist

import (
	"math"
	"slices"
)

// exactly is how many values are kept exactly. With more values, percentiles are exact
// only to a fifth of a percent.
const exactly = 1 << 18

// values are durations of requests, in seconds: kept exactly if there are few, and
// counted in buckets if there are many, so that the memory is bounded.
type values struct {
	kept    []float64
	sorted  bool
	counted *histogram // all of them, if there are too many to keep
}

func (v *values) add(x float64) {
	if v.counted != nil {
		v.counted.add(x)
		return
	}
	v.kept, v.sorted = append(v.kept, x), false
	if len(v.kept) > exactly {
		v.count()
	}
}

// count replaces the kept values by a histogram.
func (v *values) count() {
	v.counted = &histogram{}
	for _, x := range v.kept {
		v.counted.add(x)
	}
	v.kept = nil
}

func (v *values) merge(o *values) {
	if v.counted == nil && o.counted == nil && len(v.kept)+len(o.kept) <= exactly {
		v.kept, v.sorted = append(v.kept, o.kept...), false
		return
	}
	if v.counted == nil {
		v.count()
	}
	if o.counted != nil {
		v.counted.merge(o.counted)
	}
	for _, x := range o.kept {
		v.counted.add(x)
	}
}

func (v *values) n() int64 {
	if v.counted != nil {
		return v.counted.n
	}
	return int64(len(v.kept))
}

// at is the value of a rank, counted from 0.
func (v *values) at(rank int64) float64 {
	if v.counted != nil {
		return v.counted.at(rank)
	}
	if !v.sorted {
		slices.Sort(v.kept)
		v.sorted = true
	}
	return v.kept[rank]
}

// quantile is the smallest value that is not below the share q of all values.
func (v *values) quantile(q float64) float64 { return v.at(rank(v.n(), q)) }

func (v *values) max() float64 { return v.at(v.n() - 1) }

func (v *values) mean() float64 {
	if v.counted != nil {
		return v.counted.mean()
	}
	v.at(0) // sort, so that the sum does not depend on the order of arrival
	return mean(v.kept)
}

func (v *values) quantiles() *Quantiles {
	n := v.n()
	if n == 0 {
		return nil
	}
	return &Quantiles{n, v.quantile(0.5), v.quantile(0.9), v.quantile(0.95), v.quantile(0.99), v.max()}
}

// histogram counts values in buckets 0.2 % wide, for gaps between chunks and for other
// values that are too many to keep. It returns the upper edge of a bucket, so never
// less than the measured value.
type histogram struct {
	buckets   []int64
	n         int64
	sum       float64
	low, high float64
}

const (
	bucketBase  = 1.002
	bucketFirst = 1e-7 // seconds
)

var logBase = math.Log(bucketBase)

func (h *histogram) add(v float64) { h.addN(v, 1) }

func (h *histogram) addN(v float64, n int64) {
	if n == 0 {
		return
	}
	b := 0
	if v > bucketFirst {
		b = int(math.Ceil(math.Log(v/bucketFirst) / logBase))
	}
	for len(h.buckets) <= b {
		h.buckets = append(h.buckets, 0)
	}
	h.buckets[b] += n
	if h.n == 0 || v < h.low {
		h.low = v
	}
	h.high = max(h.high, v)
	h.n += n
	h.sum += v * float64(n)
}

func (h *histogram) merge(o *histogram) {
	for len(h.buckets) < len(o.buckets) {
		h.buckets = append(h.buckets, 0)
	}
	for i, c := range o.buckets {
		h.buckets[i] += c
	}
	if h.n == 0 || o.n > 0 && o.low < h.low {
		h.low = o.low
	}
	h.high = max(h.high, o.high)
	h.n += o.n
	h.sum += o.sum
}

// at is the value of a rank.
func (h *histogram) at(rank int64) float64 {
	for i, c := range h.buckets {
		if rank -= c; rank < 0 {
			return min(max(bucketFirst*math.Pow(bucketBase, float64(i)), h.low), h.high)
		}
	}
	return h.high
}

func (h *histogram) mean() float64 { return nanosecond(h.sum / float64(h.n)) }
