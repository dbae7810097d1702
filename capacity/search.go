// Package capacity finds the highest rate at which a service meets its objectives. It
// sends nothing: the caller gives it a function that tries a rate (see
// capacity/measure). The package decides which rate to try next, and what the verdict
// on a try means.
//
// First the rate doubles until an objective is missed. Then the interval between the
// highest rate that held and the lowest that missed is halved repeatedly. At last the
// highest rate that held is tried again with other seeds, because near the limit a
// single try holds or misses by chance.
package capacity

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/launchgate/launchgate/internal/words"
)

// Outcome of a try.
type Outcome string

// The outcomes of a try.
const (
	Holds     Outcome = "holds"
	Misses    Outcome = "misses"    // an objective did not hold
	Saturated Outcome = "saturated" // requests piled up so clearly that the try was ended early
	Limited   Outcome = "limited"   // the client, not the service, was the bottleneck
)

// Said words the outcome.
func (o Outcome) Said() words.Sentence {
	switch o {
	case Holds:
		return words.Say("holds")
	case Misses:
		return words.Say("misses")
	case Saturated:
		return words.Say("saturated")
	}
	return words.Say("limited")
}

// Point is one try of a rate, and what it measured. A nil value was not measured.
type Point struct {
	Rate    float64        `json:"rate_per_second"`
	Outcome Outcome        `json:"outcome"`
	Why     words.Sentence `json:"why"`
	Seconds float64        `json:"seconds"` // duration of the load
	// GoodputPerSecond are requests that met every limit.
	GoodputPerSecond *float64 `json:"goodput_per_second"`
	TokensPerSecond  *float64 `json:"output_tokens_per_second"`
	TTFTP50          *float64 `json:"ttft_p50_seconds"`
	TTFTP95          *float64 `json:"ttft_p95_seconds"`
	TPOTP50          *float64 `json:"tpot_p50_seconds"`
	TPOTP95          *float64 `json:"tpot_p95_seconds"`
	Dir              string   `json:"dir"` // folder of its recording, beside the result
}

// Search says which rates to search, and how precisely.
type Search struct {
	From, To  float64 // requests a second
	Precision float64 // the search ends when the interval is narrower than this share of the rate
	Confirm   int     // how many more times the result has to hold
}

// Result is the result of a search. Low is the highest rate that held each time, with
// no miss at or below it. High is the lowest rate above it that missed, 0 if none did.
type Result struct {
	Low    float64        `json:"low_per_second"`
	High   float64        `json:"high_per_second"`
	Why    words.Sentence `json:"why"` // why the search ended
	Found  bool           `json:"found"`
	Points []Point        `json:"points"` // in the order they were tried
}

// maxTries bounds a search whose outcomes vary from try to try.
const maxTries = 40

// Find searches. try plays a rate for the n-th time. An error of try, or the end of
// ctx, ends the search; Find returns the result so far with the error.
func (s Search) Find(ctx context.Context, try func(ctx context.Context, rate float64, n int) (Point, error)) (Result, error) {
	var r Result
	for rate := s.From; rate > 0 && len(r.Points) < maxTries; rate = s.next(&r) {
		if err := ctx.Err(); err != nil {
			r.Why = words.Say("the search was stopped")
			return r, err
		}
		again := 0
		for _, p := range r.Points {
			if p.Rate == rate {
				again++
			}
		}
		p, err := try(ctx, rate, again)
		if err != nil {
			r.Why = words.Say("the search was stopped")
			return r, err
		}
		p.Rate = rate
		r.Points = append(r.Points, p)
		r.Low, r.High = bounds(r.Points)
	}
	if r.Why.IsZero() {
		r.Why = words.Say("after %d tries, the results of the service still changed from try to try", len(r.Points))
	}
	r.Found = r.Low > 0
	return r, nil
}

// bounds are the highest rate that held every time, with no miss below it, and the
// lowest rate that missed.
func bounds(points []Point) (low, high float64) {
	for _, p := range points {
		if p.Outcome != Holds && (high == 0 || p.Rate < high) {
			high = p.Rate
		}
	}
	for _, p := range points {
		if p.Outcome == Holds && (high == 0 || p.Rate < high) {
			low = max(low, p.Rate)
		}
	}
	return low, high
}

// next is the rate to try, 0 at the end of the search.
func (s Search) next(r *Result) float64 {
	last := r.Points[len(r.Points)-1]
	low, high := r.Low, r.High
	switch {
	case last.Outcome == Limited && last.Rate <= high:
		r.Why = words.Say("at %s the client was the bottleneck, so the service can take at least %s; its limit is unknown", perSecond(last.Rate), perSecond(low))
		if low == 0 {
			r.Why = words.Say("at %s the client was the bottleneck, so nothing is known about the service", perSecond(last.Rate))
		}
		return 0
	case low == 0 && high <= s.From/64:
		r.Why = words.Say("even at %s an objective did not hold: %s", perSecond(high), last.Why)
		return 0
	case low == 0:
		return round(high / 2)
	case high == 0 && low >= s.To:
		if !s.confirmed(r) {
			return low
		}
		r.Why = words.Say("the highest requested rate, %s, still held", perSecond(low))
		return 0
	case high == 0:
		return round(min(2*low, s.To))
	case high/low-1 > s.Precision:
		if middle := round(math.Sqrt(low * high)); middle > low && middle < high {
			return middle
		}
	}
	if !s.confirmed(r) {
		return low
	}
	r.Why = words.Say("the interval is no wider than %.3g %% and its lower end held %d times", s.Precision*100, 1+s.Confirm)
	return 0
}

// confirmed reports whether the lower end held often enough.
func (s Search) confirmed(r *Result) bool {
	held := 0
	for _, p := range r.Points {
		if p.Rate == r.Low && p.Outcome == Holds {
			held++
		}
	}
	return held > s.Confirm
}

// round keeps three digits, so that a rate is easy to say and to type.
func round(rate float64) float64 {
	scale := math.Pow(10, 2-math.Floor(math.Log10(rate)))
	return math.Round(rate*scale) / scale
}

func perSecond(rate float64) string { return fmt.Sprintf("%.3g/s", rate) }

// Curve are the points sorted by rate. Several points at one rate are all kept.
func (r Result) Curve() []Point {
	points := slices.Clone(r.Points)
	slices.SortStableFunc(points, func(a, b Point) int {
		return int(min(max((a.Rate-b.Rate)*1e6, -1), 1))
	})
	return points
}

// Check validates a search.
func (s Search) Check() error {
	switch {
	case !(s.From > 0) || !(s.To >= s.From):
		return fmt.Errorf("found a search from %v/s to %v/s, expected it to begin above 0 and end no lower", s.From, s.To)
	case !(s.Precision >= 0.005 && s.Precision <= 1):
		return fmt.Errorf("found a precision of %v %%, expected from 0.5 %% to 100 %%", s.Precision*100)
	case s.Confirm < 0:
		return errors.New("found a negative number of confirmations")
	}
	return nil
}
