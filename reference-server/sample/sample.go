// Package sample picks the next token from a model's logits: greedily, or by
// temperature, top-k, top-p (nucleus sampling, Holtzman et al. 2020) and min-p
// (Nguyen et al. 2024). Each request has its own seed, so that an answer can be
// repeated in any batch.
package sample

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
)

// Params say how to pick.
type Params struct {
	Temperature float64 // 0 picks the most likely token
	TopP        float64 // keep the most likely tokens whose probabilities reach this sum; 0 and 1 keep all
	TopK        int     // keep this many; 0 keeps all
	MinP        float64 // keep tokens with at least this share of the highest probability; 0 keeps all
	Seed        uint64
	// Repetition lowers the logits of tokens that are in the prompt or the
	// answer: it divides positive ones and multiplies negative ones (Keskar et
	// al. 2019). 0 and 1 change nothing.
	Repetition float64
	// Frequency lowers the logits of tokens in the answer by how often they
	// occur, and Presence if they occur at all (the OpenAI API's penalties).
	Frequency, Presence float64
	// Logprobs asks for the log-probability of every token. Top asks for those
	// of so many most likely alternatives to it.
	Logprobs bool
	Top      int
	// Constraint, if set, says which tokens may come next.
	Constraint Constraint
}

// Constraint says which tokens may come next in an answer that must have a
// certain format. It gets the tokens of one sequence in order.
type Constraint interface {
	Allows(id int32) bool
	Mask() []uint64 // one bit for each token; set if it may come next
	Accept(id int32)
}

// ErrStuck is returned if no token may come next.
var ErrStuck = errors.New("no token of this model goes on with the form that the answer must have")

// Chance is a token with the logarithm of its probability, before temperature,
// filters and penalties.
type Chance struct {
	ID      int32
	Logprob float64
}

// Picked is the next token.
type Picked struct {
	ID      int32
	Logprob float64  // when Params.Logprobs asks for it
	Top     []Chance // the most likely tokens, in descending order
}

// Check returns an error for a parameter that is out of range.
func (p Params) Check() error {
	switch {
	case p.Temperature < 0 || p.Temperature > 2 || math.IsNaN(p.Temperature):
		return fmt.Errorf("temperature is %v; 0 to 2 is possible", p.Temperature)
	case p.TopP < 0 || p.TopP > 1 || math.IsNaN(p.TopP):
		return fmt.Errorf("top_p is %v; 0 to 1 is possible", p.TopP)
	case p.TopK < 0:
		return fmt.Errorf("top_k is %d; 0 (all) and more is possible", p.TopK)
	case p.MinP < 0 || p.MinP > 1 || math.IsNaN(p.MinP):
		return fmt.Errorf("min_p is %v; 0 to 1 is possible", p.MinP)
	case p.Repetition < 0 || p.Repetition > 10 || math.IsNaN(p.Repetition):
		return fmt.Errorf("repetition_penalty is %v; above 0 to 10 is possible", p.Repetition)
	case p.Frequency < -2 || p.Frequency > 2 || p.Presence < -2 || p.Presence > 2:
		return fmt.Errorf("frequency_penalty is %v and presence_penalty %v; -2 to 2 is possible", p.Frequency, p.Presence)
	}
	return nil
}

// Sampler picks the tokens of one sequence.
type Sampler struct {
	p       Params
	rng     *rand.Rand
	written map[int32]int  // how often each token was written
	seen    map[int32]bool // in the answer or the prompt; only for Repetition
	order   []candidate
}

type candidate struct {
	id int32
	p  float64 // logit, then probability
}

// New starts a sequence after a prompt.
func New(p Params, prompt []int32) *Sampler {
	s := &Sampler{p: p, rng: rand.New(rand.NewPCG(p.Seed, 0x9e3779b97f4a7c15)), written: map[int32]int{}}
	if s.repeats() {
		s.seen = make(map[int32]bool, len(prompt))
		for _, id := range prompt {
			s.seen[id] = true
		}
	}
	return s
}

func (s *Sampler) repeats() bool { return s.p.Repetition != 0 && s.p.Repetition != 1 }

// Next picks a token; it overwrites logits (vocab). With a constraint it can
// return ErrStuck.
func (s *Sampler) Next(logits []float32) (Picked, error) {
	var picked Picked
	var raw []float32
	var total float64
	if s.p.Logprobs {
		raw, total = slices.Clone(logits), logSumExp(logits)
		picked.Top = likeliest(logits, s.p.Top, total)
	}
	s.penalize(logits)
	var err error
	if picked.ID, err = s.constrained(logits); err != nil {
		return picked, err
	}
	if s.p.Logprobs {
		picked.Logprob = float64(raw[picked.ID]) - total
	}
	if s.p.Frequency != 0 || s.p.Presence != 0 {
		s.written[picked.ID]++
	}
	if s.seen != nil {
		s.seen[picked.ID] = true
	}
	return picked, nil
}

// Constrained reports whether the next token must satisfy a constraint. Finding
// one can take longer than a step.
func (s *Sampler) Constrained() bool { return s.p.Constraint != nil }

// Plain reports whether the next token depends only on the logits and on
// temperature, top-k, top-p and min-p, so that a device can pick it. at is the
// random number in [0, 1) for the draw.
func (s *Sampler) Plain() (p Params, at float64, ok bool) {
	if s.p.Logprobs || s.p.Constraint != nil || s.repeats() || s.p.Frequency != 0 || s.p.Presence != 0 {
		return s.p, 0, false
	}
	if s.p.Temperature > 0 {
		at = s.rng.Float64()
	}
	return s.p, at, true
}

// constrained picks a token that may come next. Usually the first pick is
// allowed. Only if it is not, the mask of all tokens is computed.
func (s *Sampler) constrained(logits []float32) (int32, error) {
	c := s.p.Constraint
	id := s.pick(logits)
	if c == nil {
		return id, nil
	}
	if !c.Allows(id) {
		mask, some := c.Mask(), false
		for i := range logits {
			if i/64 < len(mask) && mask[i/64]&(1<<(i%64)) != 0 {
				some = true
			} else {
				logits[i] = float32(math.Inf(-1))
			}
		}
		if !some {
			return 0, ErrStuck
		}
		id = s.pick(logits)
	}
	c.Accept(id)
	return id, nil
}

func (s *Sampler) penalize(logits []float32) {
	for id := range s.seen {
		if l := &logits[id]; *l > 0 {
			*l /= float32(s.p.Repetition)
		} else {
			*l *= float32(s.p.Repetition)
		}
	}
	for id, n := range s.written {
		logits[id] -= float32(float64(n)*s.p.Frequency + s.p.Presence)
	}
}

func logSumExp(logits []float32) float64 {
	top := float64(slices.Max(logits))
	var sum float64
	for _, l := range logits {
		sum += math.Exp(float64(l) - top)
	}
	return top + math.Log(sum)
}

// likeliest are the n largest logits as log-probabilities.
func likeliest(logits []float32, n int, total float64) []Chance {
	var top []Chance
	for id, l := range logits {
		c := Chance{int32(id), float64(l) - total}
		if len(top) == n && (n == 0 || c.Logprob <= top[n-1].Logprob) {
			continue
		}
		at, _ := slices.BinarySearchFunc(top, c, func(a, b Chance) int {
			if a.Logprob >= b.Logprob {
				return -1
			}
			return 1
		})
		top = slices.Insert(top, at, c)[:min(len(top)+1, n)]
	}
	return top
}

func (s *Sampler) pick(logits []float32) int32 {
	if s.p.Temperature == 0 {
		return argmax(logits)
	}
	s.order = s.order[:0]
	for id, l := range logits {
		s.order = append(s.order, candidate{int32(id), float64(l) / s.p.Temperature})
	}
	if s.p.TopK > 0 || s.p.MinP > 0 || s.p.TopP > 0 && s.p.TopP < 1 {
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
	return s.draw(s.nucleus(s.likelyEnough(softmax(s.order))))
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

// likelyEnough keeps the tokens with at least min-p times the probability of
// the first.
func (s *Sampler) likelyEnough(c []candidate) []candidate {
	n := len(c)
	for s.p.MinP > 0 && n > 1 && c[n-1].p < s.p.MinP*c[0].p {
		n--
	}
	return c[:n]
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
