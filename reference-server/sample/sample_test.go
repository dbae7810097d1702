package sample

import (
	"math"
	"testing"
)

// draws counts how often each token is drawn.
func draws(p Params, logits []float32, n int) []float64 {
	s := New(p)
	share := make([]float64, len(logits))
	for range n {
		share[s.Next(append([]float32(nil), logits...))] += 1 / float64(n)
	}
	return share
}

// The shares of 100,000 draws are those that softmax gives, at a temperature
// and within what top-k and top-p keep.
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
	if id := New(Params{}).Next([]float32{1, 3, 3, 2}); id != 1 {
		t.Errorf("%d", id)
	}
}

func TestPenaltiesLowerWhatWasWritten(t *testing.T) {
	s := New(Params{Presence: 1.5})
	if a, b := s.Next([]float32{2, 1}), s.Next([]float32{2, 1}); a != 0 || b != 1 {
		t.Errorf("%d, then %d", a, b)
	}
}

func TestCheck(t *testing.T) {
	for _, p := range []Params{{Temperature: -1}, {Temperature: 3}, {Temperature: math.NaN()}, {TopP: 1.5}, {TopP: -1}, {TopK: -1}, {Frequency: 3}, {Presence: -3}} {
		if p.Check() == nil {
			t.Errorf("%+v was taken", p)
		}
	}
	if err := (Params{Temperature: 2, TopP: 1, TopK: 50}).Check(); err != nil {
		t.Error(err)
	}
}
