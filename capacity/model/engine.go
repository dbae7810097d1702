// Package model is a model of an inference service: a simulation of how its replicas
// batch and queue requests, with costs that are fitted to recordings of the very
// service. It forecasts what the service would show under another load.
//
// Everything here is a pure function of recordings, loads and seeds.
package model

import (
	"container/heap"
	"math"
	"math/rand/v2"
	"slices"
)

// Kinds of engines.
const (
	// Batch: all running sequences of a replica advance together, a token each step,
	// and prompts are computed in the same steps (continuous batching).
	Batch = "batch"
	// Slots: each request has a slot of its own, for a time that does not depend on
	// the others (an M/M/c queue is one).
	Slots = "slots"
)

// Engine is how a replica serves. Times are in seconds.
type Engine struct {
	Kind string `json:"kind"`
	// Limit is how many requests a replica serves at once; 0 if none was ever seen to
	// wait for its turn.
	Limit int `json:"limit,omitempty"`
	// Overhead is the time of an answer that does not depend on the load: the network,
	// the gateway, the tokenizer.
	Overhead float64 `json:"overhead_s"`
	// PerPrompt is the cost of a token of a prompt.
	PerPrompt float64 `json:"prompt_token_s"`

	// Of kind Batch: a step takes Step, and more for each running sequence, for each
	// token that these have in their contexts, and for each token of prompts. A step has
	// at most Budget tokens.
	Step        float64 `json:"step_s,omitempty"`
	PerSequence float64 `json:"sequence_s,omitempty"`
	PerContext  float64 `json:"context_token_s,omitempty"`
	Budget      float64 `json:"budget_tokens,omitempty"`

	// Of kind Slots: an answer takes PerToken for each of its tokens, times a factor of
	// mean 1 that is drawn from Spread (its quantiles, ascending). Visible is the part of
	// that time after which the last token comes.
	PerToken float64   `json:"output_token_s,omitempty"`
	Visible  float64   `json:"visible_ratio,omitempty"`
	Spread   []float64 `json:"spread,omitempty"`
}

// Ask is a request of a load.
type Ask struct {
	Due    float64 // seconds
	Prompt int     // tokens that are computed: without those from a cache
	Output int     // tokens
}

// Answer is when a request was served.
type Answer struct {
	First, Last, End float64
	Together         int // requests that its replica served at the moment of its first token, with it
}

// Serve simulates replicas behind a gateway that sends each request to the replica with
// the fewest requests under way. Asks are in the order of their times.
func (e Engine) Serve(asks []Ask, replicas int, rng *rand.Rand) []Answer {
	answers := make([]Answer, len(asks))
	all := make([]replica, replicas)
	for i := range all {
		if e.Kind == Slots {
			all[i] = &slots{engine: e, asks: asks, answers: answers, rng: rng}
		} else {
			all[i] = &batch{engine: e, asks: asks, answers: answers}
		}
	}
	for i, a := range asks {
		best, fewest := 0, math.MaxInt
		for j := range all {
			at := (i + j) % replicas // equals take turns
			all[at].until(a.Due)
			if n := all[at].underWay(a.Due); n < fewest {
				best, fewest = at, n
			}
		}
		all[best].take(i)
	}
	for _, r := range all {
		r.until(math.Inf(1))
	}
	for i := range answers {
		a := &answers[i]
		a.First, a.Last, a.End = a.First+e.Overhead, a.Last+e.Overhead, a.End+e.Overhead
	}
	return answers
}

type replica interface {
	until(at float64)        // simulates until a moment
	underWay(at float64) int // how many requests have not ended by then
	take(i int)
}

// slots serves requests one by one, each in a slot.
type slots struct {
	engine  Engine
	asks    []Ask
	answers []Answer
	rng     *rand.Rand
	free    times // when each slot is free
	ends    times // of requests under way
}

func (s *slots) until(at float64) {
	for len(s.ends) > 0 && s.ends[0] <= at {
		heap.Pop(&s.ends)
	}
}

func (s *slots) underWay(float64) int { return len(s.ends) }

func (s *slots) take(i int) {
	ask, e := s.asks[i], s.engine
	from := ask.Due
	if e.Limit > 0 && len(s.free) >= e.Limit {
		from = max(from, heap.Pop(&s.free).(float64))
	}
	first := from + e.PerPrompt*float64(ask.Prompt)
	took := e.PerToken * float64(ask.Output) * drawn(e.Spread, s.rng)
	together := len(s.ends) + 1
	if e.Limit > 0 {
		together = min(together, e.Limit)
	}
	s.answers[i] = Answer{First: first, Last: first + took*e.Visible, End: first + took, Together: together}
	heap.Push(&s.free, first+took)
	heap.Push(&s.ends, first+took)
}

// drawn is a value of a distribution that is given by its quantiles.
func drawn(quantiles []float64, rng *rand.Rand) float64 {
	if len(quantiles) == 0 {
		return 1
	}
	return quantiles[rng.IntN(len(quantiles))]
}

// batch serves by continuous batching.
type batch struct {
	engine  Engine
	asks    []Ask
	answers []Answer
	waiting []int
	running []sequence
	now     float64 // the step that began last ends then
	in      bool    // a step is under way
	prompts []int   // tokens of prompts in it, by the place of the sequence
}

type sequence struct {
	ask    int
	prompt int // tokens of the prompt that are not computed yet
	left   int // tokens of the answer
	length int // tokens in its context
}

func (b *batch) underWay(float64) int { return len(b.waiting) + len(b.running) }

func (b *batch) take(i int) {
	if !b.in && len(b.running) == 0 && len(b.waiting) == 0 {
		b.now = max(b.now, b.asks[i].Due)
	}
	b.waiting = append(b.waiting, i)
}

func (b *batch) until(at float64) {
	for {
		if b.in {
			if b.now > at {
				return
			}
			b.end()
		}
		if len(b.waiting)+len(b.running) == 0 || b.now >= at {
			return
		}
		b.begin()
	}
}

// begin begins a step: each sequence that decodes gets a token, and what is left of the
// budget goes to prompts, in the order in which they came.
func (b *batch) begin() {
	e := b.engine
	for len(b.waiting) > 0 && (e.Limit == 0 || len(b.running) < e.Limit) {
		i := b.waiting[0]
		b.waiting = b.waiting[1:]
		b.running = append(b.running, sequence{ask: i, prompt: max(1, b.asks[i].Prompt), left: max(1, b.asks[i].Output)})
	}
	decoding, context, prompts := 0, 0, 0
	for _, s := range b.running {
		if s.prompt == 0 {
			decoding++
			context += s.length
		}
	}
	budget := max(int(e.Budget)-decoding, 1)
	b.prompts = b.prompts[:0]
	for _, s := range b.running {
		n := min(s.prompt, budget)
		budget -= n
		prompts += n
		b.prompts = append(b.prompts, n)
	}
	b.now += e.Step + e.PerSequence*float64(decoding) + e.PerContext*float64(context) + e.PerPrompt*float64(prompts)
	b.in = true
}

func (b *batch) end() {
	b.in = false
	kept := b.running[:0]
	together := len(b.running)
	for i, s := range b.running {
		if s.prompt > 0 {
			s.prompt -= b.prompts[i]
			s.length += b.prompts[i]
			if s.prompt > 0 {
				kept = append(kept, s)
				continue
			}
			b.answers[s.ask].First, b.answers[s.ask].Together = b.now, together
		}
		s.length++
		s.left--
		if s.left == 0 {
			b.answers[s.ask].Last, b.answers[s.ask].End = b.now, b.now
			continue
		}
		kept = append(kept, s)
	}
	b.running = kept
}

// times is a heap of moments.
type times []float64

func (t times) Len() int           { return len(t) }
func (t times) Less(i, j int) bool { return t[i] < t[j] }
func (t times) Swap(i, j int)      { t[i], t[j] = t[j], t[i] }

// Push adds a moment.
func (t *times) Push(x any) { *t = append(*t, x.(float64)) }

// Pop takes the last one.
func (t *times) Pop() any {
	old := *t
	x := old[len(old)-1]
	*t = old[:len(old)-1]
	return x
}

// quantile of ascending values, by interpolation.
func quantile(sorted []float64, q float64) float64 {
	if len(sorted) == 0 {
		return math.NaN()
	}
	at := q * float64(len(sorted)-1)
	i := int(at)
	if i+1 >= len(sorted) {
		return sorted[len(sorted)-1]
	}
	return sorted[i] + (at-float64(i))*(sorted[i+1]-sorted[i])
}

func ascending(values []float64) []float64 {
	slices.Sort(values)
	return values
}
