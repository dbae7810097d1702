package capacity

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/launchgate/launchgate/checklist"
	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/scenarios"
)

// scored is an objective of which a service misses a share at a rate; nothing is sent.
func scored(t *testing.T) []checklist.Score {
	o, err := scenarios.ParseObjective("p95(ttft) <= 1s")
	if err != nil {
		t.Fatal(err)
	}
	return checklist.Scores(scenarios.Gate{Objectives: []scenarios.Objective{o}})
}

// service misses its limit by the odds that rise with a power of the rate.
func service(scores []checklist.Score, capacity, steep float64) func(context.Context, float64, time.Duration, int) (Point, error) {
	return func(_ context.Context, rate float64, lasts time.Duration, n int) (Point, error) {
		rng := rand.New(rand.NewPCG(uint64(n), 3))
		requests := math.Round(rate * lasts.Seconds())
		p := 1 / (1 + 19*math.Pow(rate/capacity, -steep))
		over := 0.0
		for range int(min(requests, 20_000)) {
			if rng.Float64() < p {
				over++
			}
		}
		over *= requests / max(min(requests, 20_000), 1)
		seen := Seen{Load: rate, Lasted: lasts, Answer: 100 * time.Millisecond, Served: rate, looks: max(requests, 1), Of: []Missed{{Over: over, Of: max(requests, 1), Alike: 1}}}
		point := Point{Rate: rate, Seconds: lasts.Seconds(), Seen: seen}
		point.Outcome, point.Why = Judged(scores, seen)
		return point, nil
	}
}

func TestFindsTheCapacity(t *testing.T) {
	scores := scored(t)
	for _, capacity := range []float64{0.3, 1, 7.3, 41, 900, 7345} {
		s := Search{From: 4, To: 100_000, Scores: scores, For: 9 * time.Minute}
		r, err := s.Find(context.Background(), service(scores, capacity, 20))
		if err != nil || !r.Found {
			t.Fatalf("%v: %+v, %v", capacity, r, err)
		}
		if r.Low > 1.02*capacity || r.High < 0.98*capacity || r.High/r.Low > 1.5 {
			t.Errorf("%v: from %v to %v", capacity, r.Low, r.High)
		}
		if n := len(r.Points); n > 30 {
			t.Errorf("%v: %d tries", capacity, n)
		}
	}
}

func TestEnds(t *testing.T) {
	scores := scored(t)
	missing := func(share float64, outcome Outcome) func(context.Context, float64, time.Duration, int) (Point, error) {
		return func(_ context.Context, rate float64, lasts time.Duration, _ int) (Point, error) {
			n := max(rate*lasts.Seconds(), 1)
			return Point{Rate: rate, Seconds: lasts.Seconds(), Outcome: outcome, Why: words.Say("reason"),
				Seen: Seen{Load: rate, Lasted: lasts, looks: n, Of: []Missed{{Over: share * n, Of: n, Alike: 1}}}}, nil
		}
	}
	limitedAbove := func(ctx context.Context, rate float64, lasts time.Duration, n int) (Point, error) {
		if rate > 100 {
			return Point{Rate: rate, Seconds: lasts.Seconds(), Outcome: Limited}, nil
		}
		return missing(0, Holds)(ctx, rate, lasts, n)
	}
	for _, tt := range []struct {
		says      string
		try       func(context.Context, float64, time.Duration, int) (Point, error)
		low, high float64 // bounds of the lower end
		found     bool
		why       string
	}{
		{"nothing holds", missing(1, Misses), 0, 0.2, false, "even at 0.0625/s"},
		{"everything holds", missing(0, Holds), 900, 1000, true, "the highest requested rate"},
		{"the client gives up first", limitedAbove, 40, 64, true, "can take at least"},
		{"the client gives up at once", missing(0, Limited), 0, 0, false, "nothing is known"},
	} {
		r, err := Search{From: 4, To: 1000, Scores: scores, For: 9 * time.Minute}.Find(context.Background(), tt.try)
		if err != nil || r.Low < tt.low || r.Low > tt.high || r.Found != tt.found || tt.found && r.High != 0 || !strings.Contains(r.Why.String(), tt.why) {
			t.Errorf("%s: %+v, %v", tt.says, r, err)
		}
	}
}

// What is known is kept when the target dies.
func TestAnErrorKeepsWhatIsKnown(t *testing.T) {
	scores := scored(t)
	broken := errors.New("the service is gone")
	played := service(scores, 500, 20)
	r, err := Search{From: 4, To: 1000, Scores: scores, For: 9 * time.Minute}.Find(context.Background(), func(ctx context.Context, rate float64, lasts time.Duration, n int) (Point, error) {
		if n == 3 {
			return Point{}, broken
		}
		return played(ctx, rate, lasts, n)
	})
	if !errors.Is(err, broken) || !r.Found || r.Low < 8 || r.Low > 16 || r.High != 0 || len(r.Points) != 3 {
		t.Errorf("%+v, %v", r, err)
	}
}

// A service that keeps up is never called saturated, however long its answers take. A
// service that does not keep up is soon called saturated.
func TestBacklog(t *testing.T) {
	for _, tt := range []struct {
		says      string
		rate      float64 // a second
		serves    float64 // at most so many a second
		shortest  time.Duration
		longest   time.Duration
		saturated bool
	}{
		{"quick answers", 50, 500, 50 * time.Millisecond, 100 * time.Millisecond, false},
		{"answers from one to twenty seconds", 50, 500, time.Second, 20 * time.Second, false},
		{"answers of ten seconds", 20, 500, 10 * time.Second, 11 * time.Second, false},
		{"twice what it can", 50, 25, 50 * time.Millisecond, 100 * time.Millisecond, true},
		{"half as much again", 30, 20, time.Second, 2 * time.Second, true},
	} {
		rng := rand.New(rand.NewPCG(1, 2))
		var b Backlog
		var ends []time.Duration
		due, done, free := 0, 0, time.Duration(0)
		for at, next := time.Duration(0), time.Duration(0); at < 60*time.Second; at += 200 * time.Millisecond {
			for ; next < at; next += time.Duration(rng.ExpFloat64() / tt.rate * float64(time.Second)) {
				due++
				free = max(free, next) + time.Duration(float64(time.Second)/tt.serves)
				ends = append(ends, free+tt.shortest+time.Duration(rng.Float64()*float64(tt.longest-tt.shortest)))
			}
			done = 0
			for _, e := range ends {
				if e <= at {
					done++
				}
			}
			if b.Look(at, due, done) {
				if !tt.saturated {
					t.Errorf("%s: called saturated after %s with %d due and %d done", tt.says, at, due, done)
				} else if at > 15*time.Second {
					t.Errorf("%s: noticed after %s", tt.says, at)
				}
				due = -1
				break
			}
		}
		if tt.saturated && due >= 0 {
			t.Errorf("%s: never noticed", tt.says)
		}
	}
}
