package capacity

import (
	"context"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/launchgate/launchgate/checklist"
	"github.com/launchgate/launchgate/internal/recording"
)

// How long a search takes is forecast within 20 %, from the times of 16 answers. Here a
// search takes the load of its tries, the time until the last answers of each, and a
// second for each to prepare and to judge it. As in a real search, a try ends early when
// requests pile up, and then its answers are not waited for.
func TestTakes(t *testing.T) {
	for _, q := range []ruler{rulers[0], rulers[2], rulers[4], rulers[6], rulers[9]} {
		mean, longest := 0.0, 0.0
		rng := rand.New(rand.NewPCG(3, 5))
		for range 16 {
			took := q.mean * q.draw(rng)
			mean, longest = mean+took/16, max(longest, took)
		}
		s := q.search(t)
		s.Answer, s.For = seconds(mean), 0
		load, whole := s.Takes(s.Answer, seconds(longest))
		s.For = load
		gate := q.gate(t)
		scores, good := checklist.Scores(gate), checklist.Good(gate)
		var took time.Duration
		_, err := s.Find(context.Background(), func(_ context.Context, rate float64, lasts time.Duration, n int) (Point, error) {
			rows := q.try(rand.New(rand.NewPCG(7, uint64(n))), rate, lasts.Seconds())
			elapsed := lasts
			if early := saturatedAt(rows, lasts); early > 0 {
				elapsed = early
			}
			last := time.Second + elapsed
			for _, r := range rows {
				last = max(last, r.End)
			}
			took += betweenTries + elapsed
			if elapsed == lasts {
				took += last - time.Second - lasts
			}
			seen := Observe(scores, good, time.Second, time.Second+elapsed, func(yield func(*recording.Request) bool) {
				for i := range rows {
					if !yield(&rows[i]) {
						return
					}
				}
			})
			p := Point{Rate: rate, Seconds: elapsed.Seconds(), Seen: seen}
			if p.Outcome, p.Why = Judged(scores, seen); elapsed < lasts {
				p.Seen.Growing, p.Outcome = true, Saturated
			}
			return p, nil
		})
		if err != nil {
			t.Fatal(err)
		}
		off := math.Abs(whole.Seconds()/took.Seconds() - 1)
		t.Logf("%s: forecast %s, took %s, %.1f %% off", q.name, whole.Round(time.Second), took.Round(time.Second), 100*off)
		if off > 0.2 {
			t.Errorf("%s: a search was forecast to take %s and took %s, expected at most 20 %% off", q.name, whole, took)
		}
	}
}

func seconds(v float64) time.Duration { return time.Duration(v * float64(time.Second)) }

// saturatedAt is when a try ends early because its requests pile up; 0 if it does not.
func saturatedAt(rows []recording.Request, lasts time.Duration) time.Duration {
	var backlog Backlog
	for at := 250 * time.Millisecond; at < lasts; at += 250 * time.Millisecond {
		due, done := 0, 0
		for i := range rows {
			if rows[i].Due-time.Second > at {
				break
			}
			due++
			if rows[i].End-time.Second <= at {
				done++
			}
		}
		if backlog.Look(at, due, done) {
			return at
		}
	}
	return 0
}
