package interchange

import (
	"math"
	"slices"
)

// stats describes values as other tools do: percentiles are interpolated linearly
// between the two nearest values, as numpy does.
type stats struct {
	sorted    []float64
	mean, std float64
	sum       float64
}

// describe takes the values over.
func describe(values []float64) stats {
	s := stats{sorted: values}
	slices.Sort(s.sorted)
	if len(values) == 0 {
		return s
	}
	for _, v := range values {
		s.sum += v
	}
	s.mean = s.sum / float64(len(values))
	squares := 0.0
	for _, v := range values {
		squares += (v - s.mean) * (v - s.mean)
	}
	s.std = math.Sqrt(squares / float64(len(values)))
	return s
}

func (s stats) n() int { return len(s.sorted) }

func (s stats) min() float64 { return s.at(0) }

func (s stats) max() float64 { return s.at(1) }

// at is a quantile; 0 without values.
func (s stats) at(q float64) float64 {
	if len(s.sorted) == 0 {
		return 0
	}
	place := q * float64(len(s.sorted)-1)
	below := int(place)
	if below+1 >= len(s.sorted) {
		return s.sorted[len(s.sorted)-1]
	}
	share := place - float64(below)
	return s.sorted[below]*(1-share) + s.sorted[below+1]*share
}

// below is the value at a quantile or, between two, the lesser; 0 without values.
func (s stats) below(q float64) float64 {
	if len(s.sorted) == 0 {
		return 0
	}
	return s.sorted[int(q*float64(len(s.sorted)-1)+1e-9)]
}

// mode is the most frequent value, the least of several.
func (s stats) mode() float64 {
	best, most := 0.0, 0
	for i := 0; i < len(s.sorted); {
		end := i
		for end < len(s.sorted) && s.sorted[end] == s.sorted[i] {
			end++
		}
		if end-i > most {
			best, most = s.sorted[i], end-i
		}
		i = end
	}
	return best
}
