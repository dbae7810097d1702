// Package sample picks the next token from a model's logits: greedily, or by
// temperature, top-k and top-p (nucleus sampling, Holtzman et al. 2020) from a
// seed of its own, so that an answer can be repeated.
package sample

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
)

// Params say how to pick.
type Params struct {
	Temperature float64 // 0 picks the most likely token
	TopP        float64 // keep the most likely tokens that make up this much; 0 and 1 keep all
	TopK        int     // keep this many; 0 keeps all
	Seed        uint64
	// Frequency and Presence lower the logits of tokens that were written
	// already: by how often, and at all (the OpenAI API's penalties).
	Frequency, Presence float64
}

// Check says which parameter is impossible.
func (p Params) Check() error {
	switch {
	case p.Temperature < 0 || p.Temperature > 2 || math.IsNaN(p.Temperature):
		return fmt.Errorf("temperature is %v; 0 to 2 is possible", p.Temperature)
	case p.TopP < 0 || p.TopP > 1 || math.IsNaN(p.TopP):
		return fmt.Errorf("top_p is %v; 0 to 1 is possible", p.TopP)
	case p.TopK < 0:
		return fmt.Errorf("top_k is %d; 0 (all) and more is possible", p.TopK)
	case p.Frequency < -2 || p.Frequency > 2 || p.Presence < -2 || p.Presence > 2:
		return fmt.Errorf("frequency_penalty is %v and presence_penalty %v; -2 to 2 is possible", p.Frequency, p.Presence)
	}
	return nil
}

// Sampler picks the tokens of one sequence.
type Sampler struct {
	p       Params
	rng     *rand.Rand
	written map[int32]int
	order   []candidate
}

type candidate struct {
	id int32
	p  float64 // logit, then probability
}

// New starts a sequence.
func New(p Params) *Sampler {
	return &Sampler{p: p, rng: rand.New(rand.NewPCG(p.Seed, 0x9e3779b97f4a7c15)), written: map[int32]int{}}
}

// Next picks a token; logits (vocab) are not kept.
func (s *Sampler) Next(logits []float32) int32 {
	id := s.pick(logits)
	if s.p.Frequency != 0 || s.p.Presence != 0 {
		s.written[id]++
	}
	return id
}

func (s *Sampler) pick(logits []float32) int32 {
	for id, n := range s.written {
		logits[id] -= float32(float64(n)*s.p.Frequency + s.p.Presence)
	}
	if s.p.Temperature == 0 {
		return argmax(logits)
	}
	s.order = s.order[:0]
	for id, l := range logits {
		s.order = append(s.order, candidate{int32(id), float64(l) / s.p.Temperature})
	}
	if s.p.TopK > 0 || s.p.TopP > 0 && s.p.TopP < 1 {
		slices.SortFunc(s.order, func(a, b candidate) int {
			if a.p != b.p {
				return int(math.Copysign(1, b.p-a.p))
			}
			return int(a.id - b.id)
		})
	}
	if s.p.TopK > 0 {
		s.order = s.order[:min(s.p.TopK, len(s.order))]
	}
	return s.draw(s.nucleus(softmax(s.order)))
}

// softmax turns logits into probabilities.
func softmax(c []candidate) []candidate {
	top := math.Inf(-1)
	for _, x := range c {
		top = max(top, x.p)
	}
	var sum float64
	for i := range c {
		c[i].p = math.Exp(c[i].p - top)
		sum += c[i].p
	}
	for i := range c {
		c[i].p /= sum
	}
	return c
}

// nucleus keeps the fewest candidates whose probabilities reach top-p.
func (s *Sampler) nucleus(c []candidate) []candidate {
	if s.p.TopP <= 0 || s.p.TopP >= 1 {
		return c
	}
	var sum float64
	for i, x := range c {
		if sum += x.p; sum >= s.p.TopP {
			return c[:i+1]
		}
	}
	return c
}

func (s *Sampler) draw(c []candidate) int32 {
	var total float64
	for _, x := range c {
		total += x.p
	}
	at := s.rng.Float64() * total
	for _, x := range c {
		if at -= x.p; at < 0 {
			return x.id
		}
	}
	return c[len(c)-1].id
}

// argmax is the first of the largest logits.
func argmax(logits []float32) int32 {
	best := 0
	for i, l := range logits {
		if l > logits[best] {
			best = i
		}
	}
	return int32(best)
}
