package capacity

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/launchgate/launchgate/internal/words"
)

// service holds its objectives up to a capacity, and close to it by chance.
func service(capacity, noise float64, rng *rand.Rand) func(context.Context, float64, int) (Point, error) {
	return func(_ context.Context, rate float64, _ int) (Point, error) {
		// The chance to hold falls from 1 to 0 around the capacity.
		if rng.Float64() < 1/(1+math.Exp((rate/capacity-1)/max(noise, 1e-9))) {
			return Point{Outcome: Holds}, nil
		}
		return Point{Outcome: Misses, Why: words.Say("p95(ttft) is 3 s")}, nil
	}
}

func TestFindsTheCapacity(t *testing.T) {
	for _, capacity := range []float64{0.3, 1, 7.3, 41, 900, 12345} {
		s := Search{From: 4, To: 100_000, Precision: 0.05, Confirm: 1}
		r, err := s.Find(context.Background(), service(capacity, 0, rand.New(rand.NewPCG(1, 1))))
		if err != nil || !r.Found {
			t.Fatalf("%v: %+v, %v", capacity, r, err)
		}
		if r.Low > capacity || r.High < capacity || r.High/r.Low > 1.06 {
			t.Errorf("%v: from %v to %v", capacity, r.Low, r.High)
		}
		if n := len(r.Points); n > 24 {
			t.Errorf("%v: %d tries", capacity, n)
		}
	}
}

// Close to its capacity a service holds or misses by chance. The rate that a search
// finds holds in nearly every search, and every search ends.
func TestNoise(t *testing.T) {
	const capacity, searches = 40.0, 500
	promised, shy, tries := 0, 0, 0
	for seed := range uint64(searches) {
		s := Search{From: 4, To: 1000, Precision: 0.05, Confirm: 2}
		r, err := s.Find(context.Background(), service(capacity, 0.03, rand.New(rand.NewPCG(seed, 2))))
		if err != nil || !r.Found {
			t.Fatalf("%+v, %v", r, err)
		}
		tries += len(r.Points)
		if r.Low > capacity*1.05 {
			promised++
		}
		if r.Low < capacity*0.85 {
			shy++
		}
	}
	t.Logf("%d of %d searches promised 5 %% too much, %.1f tries each", promised, searches, float64(tries)/searches)
	if promised > searches/50 || shy > searches/50 {
		t.Errorf("of %d searches %d promised 5 %% too much, and %d were 15 %% too shy", searches, promised, shy)
	}
}

func TestEnds(t *testing.T) {
	at := func(o Outcome) func(context.Context, float64, int) (Point, error) {
		return func(context.Context, float64, int) (Point, error) {
			return Point{Outcome: o, Why: words.Say("reason")}, nil
		}
	}
	limitedAbove := func(_ context.Context, rate float64, _ int) (Point, error) {
		if rate > 100 {
			return Point{Outcome: Limited}, nil
		}
		return Point{Outcome: Holds}, nil
	}
	for _, tt := range []struct {
		says      string
		try       func(context.Context, float64, int) (Point, error)
		low, high float64
		why       string
	}{
		{"nothing holds", at(Misses), 0, 0.0625, "even at 0.0625/s"},
		{"everything holds", at(Holds), 1000, 0, "the highest requested rate"},
		{"the client gives up first", limitedAbove, 64, 128, "at least 64/s"},
		{"the client gives up at once", at(Limited), 0, 4, "nothing is known"},
	} {
		r, err := Search{From: 4, To: 1000, Precision: 0.05, Confirm: 1}.Find(context.Background(), tt.try)
		if err != nil || r.Low != tt.low || r.High != tt.high || !strings.Contains(r.Why.String(), tt.why) {
			t.Errorf("%s: %+v, %v", tt.says, r, err)
		}
	}
}

func TestAnErrorKeepsWhatIsKnown(t *testing.T) {
	broken := errors.New("the service is gone")
	n := 0
	r, err := Search{From: 4, To: 1000, Precision: 0.05}.Find(context.Background(), func(context.Context, float64, int) (Point, error) {
		if n++; n == 3 {
			return Point{}, broken
		}
		return Point{Outcome: Holds}, nil
	})
	if !errors.Is(err, broken) || r.Low != 8 || len(r.Points) != 2 {
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
