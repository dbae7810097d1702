// Package capacity finds the highest rate at which a service meets its objectives. It
// sends nothing: the caller gives it a function that tries a load (see capacity/measure). The
// package decides which load to try next and for how long, and what all tries together
// say about the limit.
//
// First the load doubles in short tries until an objective is missed. The rest of the
// time is spent in a few long tries close to the limit. What counts of a try is not
// whether the objectives held, but how many requests missed each limit, at the load that
// was really drawn. A curve is fitted to that (fit.go), and the limit is where it
// reaches the share that the objective allows. The interval tells how far chance may
// have moved it. docs/capacity-coverage.md tells how often it holds the truth.
package capacity

import (
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/launchgate/launchgate/checklist"
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

// Point is one try of a load, and what it measured. A nil value was not measured.
type Point struct {
	Rate    float64        `json:"rate_per_second"`  // as asked for
	Drawn   float64        `json:"drawn_per_second"` // requests that became due after the warm-up
	Outcome Outcome        `json:"outcome"`
	Why     words.Sentence `json:"why"`
	Seconds float64        `json:"seconds"` // duration of the load
	WarmUp  float64        `json:"warm_up_seconds"`
	// GoodputPerSecond are requests that met every limit.
	GoodputPerSecond *float64 `json:"goodput_per_second"`
	TokensPerSecond  *float64 `json:"output_tokens_per_second"`
	TTFTP50          *float64 `json:"ttft_p50_seconds"`
	TTFTP95          *float64 `json:"ttft_p95_seconds"`
	TPOTP50          *float64 `json:"tpot_p50_seconds"`
	TPOTP95          *float64 `json:"tpot_p95_seconds"`
	Dir              string   `json:"dir"` // folder of its recording, beside the result
	Seen             Seen     `json:"-"`
}

// Search says which loads to search, and for how long.
type Search struct {
	From, To float64 // requests a second
	// For is how long the load of all tries together lasts. 0: as DefaultFor says, from
	// how long the answers take.
	For time.Duration
	// Precision ends the search early, when the interval is no wider than this share of
	// the load. 0: the search takes all of its time.
	Precision float64
	Scores    []checklist.Score // see checklist.Scores
	// Answer is how long an answer takes without load, if that is known.
	Answer time.Duration
}

// Result is what is known after the tries so far. The limit is, with 90 % confidence,
// between Low and High. High is 0 if no try missed an objective.
type Result struct {
	Low    float64        `json:"low_per_second"`
	High   float64        `json:"high_per_second"`
	Best   float64        `json:"estimate_per_second"` // as likely below the limit as above it; 0 if High is
	Why    words.Sentence `json:"why"`                 // why the search ended
	Found  bool           `json:"found"`
	Points []Point        `json:"points"` // in the order they were tried
	// Limit is the objective that limits the service.
	Limit string `json:"limited_by,omitempty"`
}

const (
	sure        = 0.85 // of the fit; its interval then holds the truth in nine of ten searches (docs/capacity-coverage.md)
	longTries   = 4    // how many tries close to the limit are planned
	maxTries    = 40
	shortest    = 5 * time.Second
	longAnswers = 3   // a try lasts so many answers
	near        = 1.3 // an interval of this ratio is narrow enough for long tries
	shortTries  = 3   // how many short tries follow the first miss, at most
	// belowCeiling is how far below the most that a service answered its limit is looked
	// for.
	belowCeiling = 0.97
	exploring    = 0.3 // the share of the time for short tries, at most
	giveUp       = 64  // the lowest load that is tried is From divided by it
)

// DefaultFor is how long the load of a search lasts if answers take so long: 9 minutes
// for answers of up to 1 second, and then in proportion to the square root of the time
// of an answer. Longer answers need longer tries, but more of them are under way.
func DefaultFor(answer time.Duration) time.Duration {
	const usual, quick = 9 * time.Minute, time.Second
	if answer <= quick {
		return usual
	}
	return time.Duration(float64(usual) * math.Sqrt(answer.Seconds()/quick.Seconds())).Round(10 * time.Second)
}

// usualTries is how many tries a search usually takes, and betweenTries the time for
// preparing and judging one.
const (
	usualTries   = 14
	betweenTries = time.Second
)

// Takes is how long the load of a search takes, and the whole search. After the load of
// a try its last answers are waited for, which take about as long as the longest of a few
// answers.
func (s Search) Takes(answer, longest time.Duration) (load, whole time.Duration) {
	if load = s.For; load == 0 {
		load = DefaultFor(answer)
	}
	return load, load + usualTries*(betweenTries+longest)
}

// Play plays a load for a time, as the n-th try from 0.
type Play func(ctx context.Context, load float64, lasts time.Duration, n int) (Point, error)

// Find searches. An error of try, or the end of ctx, ends the search; Find returns the
// result so far with the error.
func (s Search) Find(ctx context.Context, try Play) (Result, error) {
	h := hunt{Search: s}
	for {
		load, lasts := h.next()
		if load == 0 {
			return h.result, nil
		}
		if err := h.play(ctx, try, load, lasts); err != nil {
			return h.result, err
		}
	}
}

// Decision is the answer to whether a service can take a rate.
type Decision string

// The answers.
const (
	Yes       Decision = "yes"
	No        Decision = "no"
	Undecided Decision = "undecided"
)

// decided is how sure the fit has to be to decide about a rate. It is asked after every
// try, so it has to be surer than that of a single look.
const decided = 0.99

// above are the rates that are tried to decide about one: that rate, and rates a little
// above it. A rate is known to hold the sooner the more is left above it.
var above = []float64{1, 1.1, 1, 1.05, 1.1}

// AtLeast decides whether the objectives hold at a rate, as soon as the tries tell. Each
// try lasts longer than the one before.
func (s Search) AtLeast(ctx context.Context, rate float64, try Play) (Decision, Result, error) {
	s.From, s.To = rate, rate*above[1]
	h := hunt{Search: s}
	for n := 0; ; n++ {
		r := &h.result
		left := h.budget() - h.spent
		lasts := min(time.Duration(math.Pow(1.6, float64(n))*float64(max(2*shortest, 2*longAnswers*h.Answer))), left).Round(time.Second)
		switch {
		case h.limited > 0:
			r.Why = words.Say("at %s the client was the bottleneck, so nothing more is known", perSecond(h.limited))
			return Undecided, *r, nil
		case lasts < shortest:
			r.Why = words.Say("the tries lasted %s in all", h.spent.Round(time.Second))
			return Undecided, *r, nil
		}
		if err := h.play(ctx, try, round(rate*above[n%len(above)]), lasts); err != nil {
			return Undecided, *r, err
		}
		if !h.fitted || n == 0 {
			continue
		}
		switch sure := h.fit.exceeds(rate); {
		case sure >= decided && h.highest >= rate*0.98:
			r.Why = words.Say("the limit is above %s with %.3g %% confidence", perSecond(rate), 100*decided)
			return Yes, *r, nil
		case sure <= 1-decided && h.missed > 0:
			r.Why = words.Say("the limit is below %s with %.3g %% confidence", perSecond(rate), 100*decided)
			return No, *r, nil
		}
	}
}

// hunt is a search that goes on.
type hunt struct {
	Search
	result  Result
	seen    []Seen // of the tries that the client did not limit
	spent   time.Duration
	fit     fit
	fitted  bool
	limited float64 // the lowest load at which the client was the bottleneck
	held    float64 // the highest load that held
	missed  float64 // the lowest load that missed
	served  float64 // the most answers a second of a try that was over-saturated
	short   int     // short tries after the first miss
	highest float64 // the highest load, as drawn, that held
	top     float64 // of these, that of a long try
	long    int     // tries close to the limit
}

// play plays a try and takes it.
func (h *hunt) play(ctx context.Context, try Play, load float64, lasts time.Duration) error {
	var p Point
	err := ctx.Err()
	if err == nil {
		p, err = try(ctx, load, lasts, len(h.result.Points))
	}
	if err != nil {
		h.result.Why = words.Say("the search was stopped")
		return err
	}
	h.take(p)
	return nil
}

// take adds a try.
func (h *hunt) take(p Point) {
	h.result.Points = append(h.result.Points, p)
	h.spent += time.Duration(p.Seconds * float64(time.Second))
	load := p.Rate
	switch p.Outcome {
	case Limited:
		if h.limited == 0 || load < h.limited {
			h.limited = load
		}
		return
	case Holds:
		h.held = max(h.held, load)
		h.highest = max(h.highest, p.Seen.Load)
		if h.long > 0 {
			h.top = max(h.top, p.Seen.Load)
		}
	default:
		if h.missed == 0 || load < h.missed {
			h.missed = load
		}
	}
	if p.Seen.Answer > 0 && (h.Answer == 0 || p.Outcome == Holds && h.missed == 0) {
		h.Answer = p.Seen.Answer
	}
	if p.Seen.Growing {
		h.served = max(h.served, p.Seen.Served)
	}
	h.seen = append(h.seen, p.Seen)
	h.conclude()
}

// conclude is what all tries say.
func (h *hunt) conclude() {
	r := &h.result
	if h.fit, h.fitted = fitOf(h.Scores, h.seen); !h.fitted {
		return
	}
	r.Low, r.High, r.Best = h.fit.at(1-(1-sure)/2), h.fit.at((1-sure)/2), h.fit.at(0.5)
	r.Limit = h.Scores[h.fit.first].Objective.Source
	// No load is promised that did not hold, in a long try if there were any.
	r.Low = min(r.Low, h.highest)
	if h.top > 0 {
		r.Low = min(r.Low, h.top)
	}
	if h.missed == 0 {
		// Nothing is known above the highest load that was tried.
		r.Low, r.High, r.Best, r.Limit = min(r.Low, h.held), 0, 0, ""
	}
	r.Low = min(r.Low, h.To)
	r.Found = r.Low > 0 && h.held > 0
}

// budget is how long the load may last.
func (h *hunt) budget() time.Duration {
	if h.For > 0 {
		return h.For
	}
	return DefaultFor(h.Answer)
}

// next is the load to try and for how long; 0 at the end of the search.
func (h *hunt) next() (float64, time.Duration) {
	r, left := &h.result, h.budget()-h.spent
	short := max(shortest, longAnswers*h.Answer)
	switch {
	case len(r.Points) == 0:
		return round(h.From), short
	case h.limited > 0 && (h.missed == 0 || h.limited < h.missed) && (h.held == 0 || 2*h.held >= h.limited):
		r.Why = words.Say("at %s the client was the bottleneck, so the service can take at least %s; its limit is unknown", perSecond(h.limited), perSecond(r.Low))
		if r.Low == 0 {
			r.Why = words.Say("at %s the client was the bottleneck, so nothing is known about the service", perSecond(h.limited))
		}
		return 0, 0
	case h.held == 0 && h.missed > 0 && h.missed <= h.From/giveUp:
		r.Why = words.Say("even at %s an objective did not hold: %s", perSecond(h.missed), r.Points[len(r.Points)-1].Why)
		return 0, 0
	case len(r.Points) >= maxTries, left < short && left < h.budget()/50:
		r.Why = words.Say("the tries lasted %s in all", h.spent.Round(time.Second))
		return 0, 0
	case h.missed == 0 && h.held >= h.To && h.fit.exceeds(h.To) > 1-(1-sure)/2:
		r.Why = words.Say("the highest requested rate, %s, still held", perSecond(h.To))
		return 0, 0
	case h.Precision > 0 && h.long >= 2 && r.High > 0 && r.High/r.Low-1 <= h.Precision:
		r.Why = words.Say("the interval is no wider than %.3g %%", h.Precision*100)
		return 0, 0
	case h.missed == 0 && h.held < h.To:
		return round(min(2*h.held, h.To)), min(short, left)
	case h.held == 0:
		return round(h.missed / 2), min(short, left)
	}
	low, high, middle := h.fit.at(0.95), h.fit.at(0.05), h.fit.at(0.5)
	if h.served > 0 && h.top < middle { // until a higher load held
		middle = max(min(middle, belowCeiling*h.served), 1.07*h.top)
	}
	if h.long == 0 && high/low > near && h.short < shortTries && h.spent < time.Duration(exploring*float64(h.budget())) {
		h.short++
		return round(min(middle, h.To)), min(short, left)
	}
	// Close to the limit: at it, where a few more requests miss than may, and where a
	// few less do.
	off := []float64{-0.03, 0.03, -0.06, 0}[h.long%longTries]
	lasts := left / time.Duration(max(longTries-h.long, 1))
	h.long++
	load := middle * (1 + off)
	return round(min(load, h.To)), lasts.Round(time.Second)
}

// round keeps three digits, so that a rate is easy to say and to type.
func round(rate float64) float64 {
	scale := math.Pow(10, 2-math.Floor(math.Log10(rate)))
	return math.Round(rate*scale) / scale
}

func perSecond(rate float64) string {
	if rate >= 1000 {
		return fmt.Sprintf("%.0f/s", rate)
	}
	return fmt.Sprintf("%.3g/s", rate)
}

// Curve are the points sorted by load. Several points at one load are all kept.
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
		return fmt.Errorf("found a search from %v to %v, expected it to begin above 0 and end no lower", s.From, s.To)
	case s.Precision != 0 && !(s.Precision >= 0.005 && s.Precision <= 1):
		return fmt.Errorf("found a precision of %v %%, expected from 0.5 %% to 100 %%", s.Precision*100)
	case s.For != 0 && s.For < 30*time.Second:
		return fmt.Errorf("found --for %s, expected at least 30s", s.For)
	}
	return nil
}
