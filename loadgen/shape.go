package loadgen

import (
	"math"
	"math/rand/v2"
	"time"

	"github.com/launchgate/launchgate/scenarios"
)

// arrivals are the times at which a stage's requests become due.
//
// Let Λ(t) be the mean number of requests due by t: the integral of the rate. Constant
// arrivals are the times at which Λ passes 0, 1, 2, …. For a Poisson process Λ passes
// the sums of exponential gaps of mean 1 instead, and for a gamma process those of
// gamma gaps of mean 1.
func arrivals(s scenarios.Stage, rng *rand.Rand) []time.Duration {
	gap := gapOf(s, rng)
	var due []time.Duration
	count := 0.0
	if s.Arrivals != scenarios.ArrivalsEven {
		count = gap()
	}
	before := 0.0 // Λ at the beginning of the segment
	for _, seg := range segmentsOf(s) {
		total := seg.count(seg.length)
		for ; count < before+total; count += gap() {
			at := time.Duration((seg.start + seg.reach(count-before)) * float64(time.Second))
			due = append(due, min(at, time.Duration(s.For)-1))
		}
		before += total
	}
	return due
}

// gapOf draws the gaps between arrivals, of mean 1.
func gapOf(s scenarios.Stage, rng *rand.Rand) func() float64 {
	switch s.Arrivals {
	case scenarios.ArrivalsPoisson:
		return rng.ExpFloat64
	case scenarios.ArrivalsGamma:
		return func() float64 { return gamma(rng, s.Burstiness) / s.Burstiness }
	}
	return func() float64 { return 1 }
}

// gamma draws from the gamma distribution of a shape and scale 1, by Marsaglia
// and Tsang, "A simple method for generating gamma variables" (2000).
func gamma(rng *rand.Rand, shape float64) float64 {
	if shape < 1 {
		return gamma(rng, shape+1) * math.Pow(1-rng.Float64(), 1/shape)
	}
	d := shape - 1.0/3
	c := 1 / math.Sqrt(9*d)
	for {
		x := rng.NormFloat64()
		v := 1 + c*x
		if v <= 0 {
			continue
		}
		v = v * v * v
		if math.Log(1-rng.Float64()) < 0.5*x*x+d-d*v+d*math.Log(v) {
			return d * v
		}
	}
}

// segment is a part of a stage in which the rate changes linearly from one value to
// another or, if wave is set, in sine waves of that period between the two, beginning
// at the first. The last wave may be incomplete. Times are in seconds.
type segment struct {
	start, length float64
	from, to      float64
	wave          float64
}

func segmentsOf(s scenarios.Stage) []segment {
	length, from := time.Duration(s.For).Seconds(), float64(s.Rate)
	if s.To == nil {
		return []segment{{0, length, from, from, 0}}
	}
	to := float64(*s.To)
	switch s.Shape {
	case scenarios.ShapeSteps:
		var steps []segment
		each := length / float64(s.Steps)
		for i := range s.Steps {
			rate := from + (to-from)*float64(i)/float64(s.Steps-1)
			steps = append(steps, segment{float64(i) * each, each, rate, rate, 0})
		}
		return steps
	case scenarios.ShapeSpike:
		peak := time.Duration(s.Peak).Seconds()
		side := (length - peak) / 2
		return []segment{{0, side, from, from, 0}, {side, peak, to, to, 0}, {side + peak, side, from, from, 0}}
	case scenarios.ShapeSine:
		return []segment{{0, length, from, to, time.Duration(s.Period).Seconds()}}
	}
	return []segment{{0, length, from, to, 0}}
}

// count is Λ of the segment alone.
func (s segment) count(t float64) float64 {
	if s.wave > 0 {
		turn := 2 * math.Pi / s.wave
		return (s.from+s.to)/2*t - (s.to-s.from)/2*math.Sin(turn*t)/turn
	}
	return s.from*t + (s.to-s.from)/(2*s.length)*t*t
}

// reach is when count is reached. For a straight line it is the solution of count =
// from·t + (to−from)/(2·length)·t², in the form without cancellation.
func (s segment) reach(count float64) float64 {
	if s.wave > 0 {
		low, high := 0.0, s.length
		for range 60 { // halves 1000 hours to below a nanosecond
			if middle := (low + high) / 2; s.count(middle) < count {
				low = middle
			} else {
				high = middle
			}
		}
		return high
	}
	slope := (s.to - s.from) / s.length
	root := math.Sqrt(max(0, s.from*s.from+2*slope*count))
	if s.from+root == 0 {
		return 0
	}
	return 2 * count / (s.from + root)
}
