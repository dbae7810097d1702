package model

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/launchgate/launchgate/internal/recording"
)

// Demand is a load that grows, and what has to hold under it.
type Demand struct {
	Rate float64 // requests a second, at the busiest time
	// Draw draws requests at a rate for some seconds.
	Draw func(rate, seconds float64, seed uint64) []Ask
	// Holds reports whether every objective holds for requests.
	Holds func([]recording.Request) bool
	// Good reports whether a request met every limit.
	Good func(*recording.Request) bool
	// Lost is how many replicas may be gone at the same time.
	Lost int
	// Growth is the share by which the rate grows each month.
	Growth float64
	// Pattern is how many requests repeat, such as those of a trace; 0 if none do.
	Pattern int
}

// Size is how many replicas a demand needs.
type Size struct {
	// Replicas hold even if the model errs as it did with stages that it did not know.
	// The most likely number, and the least that may do, are in Needed.
	Replicas int    `json:"replicas"`
	Lost     int    `json:"lost_replicas"`
	Needed   Counts `json:"needed"`
	// Capacity is the highest rate at which the objectives hold with the replicas that
	// are left after the loss, and Whole with all of them.
	Capacity Band `json:"capacity_per_second"`
	Whole    Band `json:"capacity_without_loss_per_second"`
	// Headroom is how far the rate may grow until Capacity, as a share.
	Headroom Band `json:"headroom_ratio"`
	// Months is how long that takes; nil if the demand does not grow.
	Months *Band `json:"months,omitempty"`
	// GoodTokens are output tokens a second of answers within the limits, at the rate,
	// and AtCapacity those at Capacity.
	GoodTokens Band `json:"good_tokens_per_second"`
	AtCapacity Band `json:"good_tokens_per_second_at_capacity"`
	// Bounded: a higher rate may do, but a replica would serve more requests at once
	// than in the recordings.
	Bounded bool `json:"bounded_by_recordings"`
}

// Counts is a number with its interval.
type Counts struct {
	Best int `json:"best"`
	Low  int `json:"low"`
	High int `json:"high"`
}

// view is the model as it may be: engines, and the factors by which real latencies are
// longer than simulated ones.
type view struct {
	engines     []bounded
	wait, pace  float64
	pessimistic bool // all engines have to hold, and not only one
}

// bounded is an engine, and how many requests a second a replica of it can answer.
type bounded struct {
	Engine
	most float64
}

// views are the most likely one, and the best and the worst that the errors of the model
// allow, for requests such as some.
func (m Model) views(like []Ask) (best, low, high view) {
	t := student(len(m.HeldOut) - 1)
	wait := math.Exp(t * m.Errors[TTFT95])
	pace := math.Exp(t * m.Errors[TPOT95])
	var all []bounded
	for _, e := range m.engines() {
		all = append(all, bounded{e, e.mostOf(like)})
	}
	return view{engines: all[:1], wait: 1, pace: 1}, view{engines: all, wait: wait, pace: pace, pessimistic: true}, view{engines: all, wait: 1 / wait, pace: 1 / pace}
}

// Month is a twelfth of a year.
const Month = time.Duration(365.25 * 24 / 12 * float64(time.Hour))

const (
	planRequests = 3000    // of a simulation, so that a p99 is known well
	planSeconds  = 60      // at the least
	mostPlanned  = 500     // replicas
	mostRate     = 100_000 // requests/s
	mostUsed     = 0.97    // of what replicas can answer
)

// Seconds is how long a rate is simulated. Without the first third a pattern that repeats
// is still counted as a whole.
func (d Demand) Seconds(rate float64) float64 {
	return max(planSeconds, planRequests/rate, 1.5*float64(d.Pattern)/rate)
}

// spell is a rate in the long run.
type spell struct {
	rate, seconds float64
	asks          []Ask
}

func (d Demand) spell(rate float64) spell {
	seconds := d.Seconds(rate)
	return spell{rate, seconds, d.Draw(rate, seconds, 1)}
}

// counted is the part of a spell that counts: the first third is left out, because the
// service begins empty.
func (s spell) counted() Span { return Span{From: s.seconds / 3, Seconds: s.seconds * 2 / 3} }

// answered are the requests that count, with latencies as a view has them.
func (s spell) answered(v view, answers []Answer) (counted []recording.Request) {
	all := rows(s.asks, answers)
	stretch(all, v.wait, v.pace)
	for _, r := range all {
		if r.Due.Seconds() >= s.counted().From {
			counted = append(counted, r)
		}
	}
	return counted
}

// holds simulates a spell on some replicas.
func (m Model) holds(v view, d Demand, replicas int, s spell) (ok, beyond bool) {
	for _, e := range v.engines {
		answers := e.Serve(s.asks, replicas, rand.New(rand.NewPCG(8, 9)))
		if m.beyond(Forecast{Together: togetherIn(s.asks, answers, s.counted())}) != "" {
			if beyond = true; v.pessimistic {
				return false, true
			}
			continue
		}
		// Above what the replicas can answer the queue grows without end, and a simulation
		// that ends before a limit is reached proves nothing.
		held := s.rate <= mostUsed*float64(replicas)*e.most && d.Holds(s.answered(v, answers))
		if held == !v.pessimistic {
			return !v.pessimistic, beyond
		}
	}
	return v.pessimistic, beyond
}

// mostOf is how many requests a second a replica answers when more are always waiting.
func (e Engine) mostOf(asks []Ask) float64 {
	waiting := slices.Clone(asks[:min(len(asks), planRequests)])
	for i := range waiting {
		waiting[i].Due = 0
	}
	var ends []float64
	for _, a := range e.Serve(waiting, 1, rand.New(rand.NewPCG(8, 9))) {
		ends = append(ends, a.Last)
	}
	slices.Sort(ends)
	from, to := len(ends)/5, len(ends)*4/5 // all places are taken, and still are
	if to <= from || ends[to] <= ends[from] {
		return math.Inf(1)
	}
	return float64(to-from) / (ends[to] - ends[from])
}

// most is the highest rate that holds on some replicas, to within a percent.
func (m Model) most(v view, d Demand, replicas int, guess float64) (rate float64, beyond bool) {
	low, high := 0.0, guess
	for range 20 {
		ok, b := m.holds(v, d, replicas, d.spell(high))
		if !ok {
			beyond = b
			break
		}
		low, high = high, high*1.5
	}
	for high > 1.01*low && high > guess/1000 {
		middle := (low + high) / 2
		if ok, b := m.holds(v, d, replicas, d.spell(middle)); ok {
			low = middle
		} else {
			high, beyond = middle, b
		}
	}
	return low, beyond
}

// Size finds how many replicas a demand needs.
func (m Model) Size(d Demand) (Size, error) {
	s := Size{Lost: d.Lost}
	if !(d.Rate > 0) {
		return s, errors.New("found a rate of 0, expected one above 0")
	}
	if d.Rate > mostRate {
		return s, fmt.Errorf("found a rate of %.4g/s, expected at most %d/s", d.Rate, mostRate)
	}
	asked := d.spell(d.Rate)
	if why := m.lengthsBeyond(asked.asks); why != "" {
		return s, errors.New(why)
	}
	best, low, high := m.views(asked.asks)
	needs := func(v view, from int) (int, error) {
		for n := max(from, 1); n <= mostPlanned; n++ {
			if ok, _ := m.holds(v, d, n, asked); ok {
				return n, nil
			}
		}
		return 0, fmt.Errorf("no number of replicas up to %d holds the objectives at %.4g/s: even the least loaded ones miss a limit, by what the recordings show", mostPlanned, d.Rate)
	}
	// One replica tells about how many are needed; without it, each number is tried.
	one, _ := m.most(best, d, 1, max(m.Range.Rate, d.Rate/mostPlanned))
	if one == 0 {
		return s, errors.New("the objectives hold at no rate on one replica, by what the recordings show; launchgate capacity tells more")
	}
	if d.Rate > 2*one*mostPlanned {
		return s, fmt.Errorf("one replica holds the objectives up to %.4g/s, so %.4g/s takes more than the %d replicas that a plan may have", one, d.Rate, mostPlanned)
	}
	var err error
	if s.Needed.Low, err = needs(high, int(0.2*d.Rate/one)); err != nil {
		return s, err
	}
	if s.Needed.Best, err = needs(best, s.Needed.Low); err != nil {
		return s, err
	}
	if s.Needed.High, err = needs(low, s.Needed.Best); err != nil {
		return s, fmt.Errorf("%w (the errors of the model included; a recording with more stages makes them smaller)", err)
	}
	left := s.Needed.High
	s.Needed.Low, s.Needed.Best, s.Needed.High = s.Needed.Low+d.Lost, s.Needed.Best+d.Lost, s.Needed.High+d.Lost
	s.Replicas = s.Needed.High
	capacity := func(replicas int) (b Band, beyond bool) {
		guess := one * float64(replicas)
		b.Best, beyond = m.most(best, d, replicas, guess)
		b.Low, _ = m.most(low, d, replicas, guess)
		b.High, _ = m.most(high, d, replicas, guess)
		return b, beyond
	}
	s.Capacity, s.Bounded = capacity(left)
	s.Whole = s.Capacity
	if d.Lost > 0 {
		s.Whole, _ = capacity(s.Replicas)
	}
	each := func(of func(float64) float64) Band {
		return Band{of(s.Capacity.Best), of(s.Capacity.Low), of(s.Capacity.High)}
	}
	s.Headroom = each(func(c float64) float64 { return max(0, c/d.Rate-1) })
	if d.Growth > 0 {
		months := each(func(c float64) float64 { return max(0, math.Log(c/d.Rate)/math.Log1p(d.Growth)) })
		s.Months = &months
	}
	goodTokens := func(replicas int, sp spell) (b Band) {
		b = Band{d.goodTokens(best, replicas, sp), d.goodTokens(low, replicas, sp), d.goodTokens(high, replicas, sp)}
		b.Low, b.High = min(b.Low, b.Best), max(b.High, b.Best)
		return b
	}
	s.GoodTokens = goodTokens(s.Replicas, asked)
	s.AtCapacity = goodTokens(left, d.spell(s.Capacity.Low))
	return s, nil
}

// goodTokens are the output tokens a second of answers within the limits, in a spell.
func (d Demand) goodTokens(v view, replicas int, s spell) float64 {
	tokens := 0.0
	for _, r := range s.answered(v, v.engines[0].Serve(s.asks, replicas, rand.New(rand.NewPCG(8, 9)))) {
		if d.Good(&r) {
			tokens += float64(r.OutputTokens)
		}
	}
	return tokens / s.counted().Seconds
}
