package sample

import (
	"math"
	"testing"
)

// draws counts how often each token is drawn.
func draws(p Params, logits []float32, n int) []float64 {
	s := New(p, nil)
	share := make([]float64, len(logits))
	for range n {
		share[next(s, append([]float32(nil), logits...)).ID] += 1 / float64(n)
	}
	return share
}

// The shares of 100,000 draws are the probabilities of softmax, with
// temperature, top-k and top-p.
func TestDrawsFollowTheProbabilities(t *testing.T) {
	logits := []float32{float32(math.Log(0.5)), float32(math.Log(0.3)), float32(math.Log(0.15)), float32(math.Log(0.05))}
	for _, tt := range []struct {
		name string
		p    Params
		want []float64
	}{
		{"temperature 1", Params{Temperature: 1}, []float64{0.5, 0.3, 0.15, 0.05}},
		{"temperature 0.5 squares", Params{Temperature: 0.5}, []float64{0.25 / 0.365, 0.09 / 0.365, 0.0225 / 0.365, 0.0025 / 0.365}},
		{"top-k 2", Params{Temperature: 1, TopK: 2}, []float64{0.625, 0.375, 0, 0}},
		{"top-p 0.7 keeps two", Params{Temperature: 1, TopP: 0.7}, []float64{0.625, 0.375, 0, 0}},
		{"top-p below the first keeps it", Params{Temperature: 1, TopP: 0.1}, []float64{1, 0, 0, 0}},
		{"min-p 0.2 keeps what is a fifth as likely as the first", Params{Temperature: 1, MinP: 0.2}, []float64{0.5 / 0.95, 0.3 / 0.95, 0.15 / 0.95, 0}},
		{"greedy", Params{}, []float64{1, 0, 0, 0}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for i, got := range draws(tt.p, logits, 100_000) {
				if math.Abs(got-tt.want[i]) > 0.01 {
					t.Errorf("token %d: %.3f, want %.3f", i, got, tt.want[i])
				}
			}
		})
	}
}

func TestGreedyTakesTheFirstOfEquals(t *testing.T) {
	if id := next(New(Params{}, nil), []float32{1, 3, 3, 2}).ID; id != 1 {
		t.Errorf("%d", id)
	}
}

func TestPenaltiesLowerWhatWasWritten(t *testing.T) {
	s := New(Params{Presence: 1.5}, nil)
	if a, b := next(s, []float32{2, 1}).ID, next(s, []float32{2, 1}).ID; a != 0 || b != 1 {
		t.Errorf("%d, then %d", a, b)
	}
	s = New(Params{Repetition: 3}, []int32{0})
	if id := next(s, []float32{2, 1, -1}).ID; id != 1 {
		t.Errorf("the prompt's token was not penalized: %d", id)
	}
	if id := next(s, []float32{-0.1, 1, -0.2}).ID; id != 2 && id != 1 {
		t.Errorf("%d", id)
	}
}

func TestCheck(t *testing.T) {
	for _, p := range []Params{{Temperature: -1}, {Temperature: 3}, {Temperature: math.NaN()}, {TopP: 1.5}, {TopP: -1}, {TopK: -1}, {Frequency: 3}, {Presence: -3}, {MinP: 2}, {Repetition: -1}} {
		if p.Check() == nil {
			t.Errorf("%+v was taken", p)
		}
	}
	if err := (Params{Temperature: 2, TopP: 1, TopK: 50}).Check(); err != nil {
		t.Error(err)
	}
}

func TestLogprobs(t *testing.T) {
	logits := []float32{float32(math.Log(0.5)), float32(math.Log(0.1)), float32(math.Log(0.4))}
	p := next(New(Params{Logprobs: true, Top: 2, Presence: 2}, nil), logits)
	if p.ID != 0 || math.Abs(p.Logprob-math.Log(0.5)) > 1e-6 || len(p.Top) != 2 || p.Top[0].ID != 0 || p.Top[1].ID != 2 || math.Abs(p.Top[1].Logprob-math.Log(0.4)) > 1e-6 {
		t.Errorf("%+v", p)
	}
	if p := next(New(Params{Logprobs: true}, nil), []float32{0, 0}); len(p.Top) != 0 || math.Abs(p.Logprob-math.Log(0.5)) > 1e-6 {
		t.Errorf("%+v", p)
	}
}

// only allows one token and records the tokens that it got.
type only struct {
	id  int32
	got []int32
}

func (o *only) Allows(id int32) bool { return id == o.id }
func (o *only) Mask() []uint64       { return []uint64{1 << o.id} }
func (o *only) Accept(id int32)      { o.got = append(o.got, id) }

func TestConstraint(t *testing.T) {
	for _, temperature := range []float64{0, 1} {
		c := &only{id: 2}
		s := New(Params{Temperature: temperature, TopK: 1, Constraint: c}, nil)
		if id := next(s, []float32{9, 8, -50}).ID; id != 2 || len(c.got) != 1 || c.got[0] != 2 {
			t.Errorf("picked %d, accepted %v", id, c.got)
		}
	}
}

func next(s *Sampler, logits []float32) Picked {
	p, err := s.Next(logits)
	if err != nil {
		panic(err)
	}
	return p
}
