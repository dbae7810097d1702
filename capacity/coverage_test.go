package capacity

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/launchgate/launchgate/checklist"
	"github.com/launchgate/launchgate/internal/recording"
)

// find searches a ruler once. Its tries are simulated, and observed as real ones are.
func (q ruler) find(t testing.TB, seed uint64) (Result, time.Duration) {
	gate := q.gate(t)
	scores := checklist.Scores(gate)
	s := Search{From: q.from, To: 10_000, Scores: scores, Answer: time.Duration(q.mean * 1e9)}
	var spent time.Duration
	r, err := s.Find(context.Background(), func(_ context.Context, rate float64, lasts time.Duration, n int) (Point, error) {
		spent += lasts
		rows := q.try(rand.New(rand.NewPCG(seed, uint64(n))), rate, lasts.Seconds())
		seen := Observe(scores, time.Second, time.Second+lasts, func(yield func(*recording.Request) bool) {
			for i := range rows {
				if !yield(&rows[i]) {
					return
				}
			}
		})
		p := Point{Rate: rate, Seconds: lasts.Seconds(), Seen: seen}
		p.Outcome, p.Why = Judged(scores, seen)
		return p, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return r, spent
}

var rulers = []struct {
	ruler
	limit float64 // of the wait in seconds, where Erlang's formula is the truth
	truth float64
}{
	{ruler{name: "A: M/M/8, 0.25 s", servers: 8, mean: .25, draw: exponential, objective: "p95(ttft) <= 250ms", from: 1}, .25, 0},
	{ruler{name: "B: M/M/16, 0.5 s", servers: 16, mean: .5, draw: exponential, objective: "p95(ttft) <= 1s", from: 1}, 1, 0},
	{ruler{name: "G: M/M/64, 8 s", servers: 64, mean: 8, draw: exponential, objective: "p95(ttft) <= 1s", from: 1}, 1, 0},
	{ruler{name: "M/M/64, 2 s", servers: 64, mean: 2, draw: exponential, objective: "p95(ttft) <= 1s", from: 1}, 1, 0},
	{ruler{name: "M/M/256, 20 s", servers: 256, mean: 20, draw: exponential, objective: "p95(ttft) <= 1s", from: 1}, 1, 0},
}

func BenchmarkCoverage(b *testing.B) {
	const searches = 100
	for range b.N {
		for _, q := range rulers {
			truth := erlang(q.servers, q.mean, q.limit, .95)
			covered, tooHigh, high, low := 0, 0, 0, 0
			var ratios, widths, loads, tries []float64
			for seed := range uint64(searches) {
				r, spent := q.find(b, seed)
				if r.Low <= truth && (r.High >= truth || r.High == 0) {
					covered++
				}
				if r.Low > truth {
					high++
				} else if r.High < truth {
					low++
				}
				if r.Low > 1.05*truth {
					tooHigh++
				}
				widths = append(widths, (r.High-r.Low)/r.Best)
				loads = append(loads, spent.Minutes())
				tries = append(tries, float64(len(r.Points)))
				ratios = append(ratios, r.Best/truth)
				if (r.Low > 1.05*truth || r.Low > truth && q.servers == 64) && testing.Verbose() {
					for _, p := range r.Points {
						m := p.Seen.Of[0]
						fmt.Printf("   %.3g/s drawn %.2f for %.0fs: %.3f neff %.0f grow=%v %s\n", p.Rate, p.Seen.Load, p.Seconds, m.Over/m.Of, m.Of/m.Alike, p.Seen.Growing, p.Outcome)
					}
					fmt.Printf("   -> %.2f..%.2f best %.2f steep %.0f truth %.2f %s\n", r.Low, r.High, r.Best, 0., truth, r.Why)
				}
			}
			m, sd := meanVar(ratios)
			fmt.Println("ratio", m, math.Sqrt(sd))
			for _, v := range [][]float64{widths, loads, tries} {
				slices.Sort(v)
			}
			fmt.Printf("%-20s truth %.2f: holds the truth %.1f %% (above it %d, below it %d), 5 %% too high %.1f %%, width median %.1f %% p90 %.1f %%, load median %.1f min max %.1f, tries %.0f\n", q.name, truth, 100*float64(covered)/searches, high, low, 100*float64(tooHigh)/searches,
				100*widths[searches/2], 100*widths[searches*9/10], loads[searches/2], loads[searches-1], tries[searches/2])
		}
	}
}

func meanVar(v []float64) (m, s float64) {
	for _, x := range v {
		m += x / float64(len(v))
	}
	for _, x := range v {
		s += (x - m) * (x - m) / float64(len(v)-1)
	}
	return m, s
}
