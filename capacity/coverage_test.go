package capacity

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/launchgate/launchgate/checklist"
	"github.com/launchgate/launchgate/internal/recording"
)

var update = flag.Bool("update", false, "write the table of docs/capacity-coverage.md anew")

// played plays tries against the ruler. They are observed as real ones are.
func (q ruler) played(t testing.TB, seed uint64, spent *time.Duration) func(context.Context, float64, time.Duration, int) (Point, error) {
	gate := q.gate(t)
	scores, good := checklist.Scores(gate), checklist.Good(gate)
	return func(_ context.Context, rate float64, lasts time.Duration, n int) (Point, error) {
		*spent += lasts
		rows := q.try(rand.New(rand.NewPCG(seed, uint64(n))), rate, lasts.Seconds())
		seen := Observe(scores, good, time.Second, time.Second+lasts, func(yield func(*recording.Request) bool) {
			for i := range rows {
				if !yield(&rows[i]) {
					return
				}
			}
		})
		p := Point{Rate: rate, Seconds: lasts.Seconds(), Seen: seen}
		p.Outcome, p.Why = Judged(scores, seen)
		return p, nil
	}
}

func (q ruler) search(t testing.TB) Search {
	answer := time.Duration(q.mean * float64(time.Second))
	return Search{From: 1, To: 10_000, Scores: checklist.Scores(q.gate(t)), Answer: answer, For: DefaultFor(answer)}
}

// truth is the limit: by Erlang's formula, or else by halving with long simulations.
func (q ruler) truth(t testing.TB) float64 {
	if q.wait > 0 {
		return erlang(q.servers, q.mean, q.wait, 0.95)
	}
	low, high := 0.0, float64(q.servers*max(q.batch, 1))/q.mean
	for range 12 {
		if middle := (low + high) / 2; q.missing(t, middle, 400_000/high, 1) <= 0.05 {
			low = middle
		} else {
			high = middle
		}
	}
	return (low + high) / 2
}

var rulers = []ruler{
	{name: "A: M/M/8, service 0.25 s", servers: 8, mean: .25, draw: exponential, objective: "p95(ttft) <= 250ms", wait: .25},
	{name: "B: M/M/16, service 0.5 s", servers: 16, mean: .5, draw: exponential, objective: "p95(ttft) <= 1s", wait: 1},
	{name: "G: M/M/64, service 8 s", servers: 64, mean: 8, draw: exponential, objective: "p95(ttft) <= 1s", wait: 1},
	{name: "M/M/64, service 2 s", servers: 64, mean: 2, draw: exponential, objective: "p95(ttft) <= 1s", wait: 1},
	{name: "M/M/256, service 20 s", servers: 256, mean: 20, draw: exponential, objective: "p95(ttft) <= 1s", wait: 1},
	{name: "M/D/8, service 0.25 s", servers: 8, mean: .25, draw: always, objective: "p95(ttft) <= 250ms"},
	{name: "M/G/16, lognormal (σ = 1), service 0.5 s", servers: 16, mean: .5, draw: lognormal(1), objective: "p95(ttft) <= 1s"},
	{name: "M/M/1, service 20 ms", servers: 1, mean: .02, draw: exponential, objective: "p95(ttft) <= 200ms"},
	{name: "processor sharing of 8, work 0.25 s", servers: 8, mean: .25, draw: exponential, shared: true, objective: "p95(latency) <= 1.5s"},
	{name: "4 servers of batches of 8, service 0.5 s", servers: 4, batch: 8, mean: .5, draw: always, objective: "p95(ttft) <= 500ms"},
}

// covers is how a number of searches of a ruler ended.
type covers struct {
	ruler                        ruler
	truth                        float64
	holds, tooHigh, above, below int
	widths, minutes, tries       []float64
}

func (q ruler) covers(t testing.TB, searches int) covers {
	c := covers{ruler: q, truth: q.truth(t)}
	for seed := range uint64(searches) {
		var spent time.Duration
		r, err := q.search(t).Find(context.Background(), q.played(t, seed, &spent))
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case r.Low > c.truth:
			c.above++
		case r.High > 0 && r.High < c.truth:
			c.below++
		default:
			c.holds++
		}
		if r.Low > 1.05*c.truth {
			c.tooHigh++
		}
		width := 2.0 // no upper end
		if r.High > 0 {
			width = (r.High - r.Low) / r.Best
		}
		c.widths = append(c.widths, width)
		c.minutes = append(c.minutes, spent.Minutes())
		c.tries = append(c.tries, float64(len(r.Points)))
	}
	for _, v := range [][]float64{c.widths, c.minutes, c.tries} {
		slices.Sort(v)
	}
	return c
}

// BenchmarkCoverage searches services whose capacity is known, and reports how often the
// interval holds the truth. With -update it writes the table of the documentation.
func BenchmarkCoverage(b *testing.B) {
	const searches = 200
	var table strings.Builder
	table.WriteString("| service | objective | truth | the interval holds it | low end > 5 % too high | median width (90th) | minutes of load | tries |\n| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |\n")
	for range b.N {
		for _, q := range rulers {
			c := q.covers(b, searches)
			fmt.Fprintf(&table, "| %s | `%s` | %.4g/s | %.1f %% | %.1f %% | %.1f %% (%.1f %%) | %.1f | %.0f |\n", q.name, q.objective, c.truth,
				100*float64(c.holds)/searches, 100*float64(c.tooHigh)/searches, 100*c.widths[searches/2], 100*c.widths[searches*9/10], c.minutes[searches/2], c.tries[searches/2])
			b.ReportMetric(100*float64(c.holds)/searches, "%holds-"+strings.ReplaceAll(strings.ReplaceAll(q.name, " ", "_"), "%", ""))
		}
	}
	b.Log("\n" + table.String())
	if !*update {
		return
	}
	const page, begin, end = "../docs/capacity-coverage.md", "<!-- table begins -->\n", "<!-- table ends -->"
	text, err := os.ReadFile(page)
	if err != nil {
		b.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(text), begin)
	_, after, also := strings.Cut(rest, end)
	if !ok || !also {
		b.Fatalf("%s has no place for the table", page)
	}
	if err := os.WriteFile(page, []byte(before+begin+table.String()+end+after), 0o644); err != nil {
		b.Fatal(err)
	}
}

// A few searches of one ruler, as the benchmark does for all.
func TestTheIntervalHoldsTheTruth(t *testing.T) {
	const searches = 20
	c := rulers[0].covers(t, searches)
	if c.holds < 16 || c.tooHigh > 1 || c.minutes[searches-1] > 10 {
		t.Errorf("of %d searches %d hold the truth, and %d are 5 %% too high; the longest took %.1f minutes of load", searches, c.holds, c.tooHigh, c.minutes[searches-1])
	}
}

// Whether a rate holds is decided sooner than the limit is found, unless they are close.
func TestAtLeast(t *testing.T) {
	q := rulers[0]
	truth := q.truth(t)
	for _, tt := range []struct {
		rate float64
		want Decision
	}{{0.5, Yes}, {0.8, Yes}, {1.25, No}, {2, No}} {
		wrong, late := 0, 0
		for seed := range uint64(20) {
			var spent time.Duration
			got, _, err := q.search(t).AtLeast(context.Background(), round(tt.rate*truth), q.played(t, seed, &spent))
			if err != nil {
				t.Fatal(err)
			}
			if got != tt.want && got != Undecided {
				wrong++
			}
			if got == Undecided || spent > DefaultFor(0)*3/4 {
				late++
			}
		}
		t.Logf("%.2f of the limit: %d of 20 wrong, %d late", tt.rate, wrong, late)
		if wrong > 1 || late > 8 {
			t.Errorf("%.2f of the limit: %d of 20 decisions are wrong, %d took nearly as long as a search", tt.rate, wrong, late)
		}
	}
}
