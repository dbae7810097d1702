package checklist

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/aclements/go-moremath/stats"
	"golang.org/x/perf/benchmath"

	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/scenarios"
)

// Block is an interval of load and what was measured in it: the unit of a
// comparison. Requests of one block are correlated, because they shared the state
// of the machine; thousands of them are not thousands of independent samples.
type Block struct {
	Metrics map[string]float64 `json:"metrics"` // by the names of compared
}

// compared are the metrics of a block. For each of them less is better.
var compared = []struct {
	name, unit string
	latency    int
	quantile   float64 // of the latency
	share      bool    // it is the error rate, compared by its difference and not by its ratio
}{
	{name: "p50(ttft)", unit: scenarios.UnitSeconds, latency: ttft, quantile: 0.50},
	{name: "p95(ttft)", unit: scenarios.UnitSeconds, latency: ttft, quantile: 0.95},
	{name: "p50(tpot)", unit: scenarios.UnitSeconds, latency: tpot, quantile: 0.50},
	{name: "p95(tpot)", unit: scenarios.UnitSeconds, latency: tpot, quantile: 0.95},
	{name: "p95(latency)", unit: scenarios.UnitSeconds, latency: latency, quantile: 0.95},
	{name: scenarios.ErrorRate, unit: scenarios.UnitRatio, share: true},
}

// Bounds of a comparison. docs/compare.md documents them.
const (
	// leastEffect is the change of a ratio that matters, and leastShare of a share.
	leastEffect = 0.05
	leastShare  = 0.005
	// falseAlarms is how often a comparison of a service with itself may find a
	// difference in any metric.
	falseAlarms = 0.002
	// leastBlocks is the fewest blocks that a difference can be derived from.
	leastBlocks = 6
)

// Change of a metric from base to head.
type Change string

// What can be said of a metric.
const (
	Regression  Change = "regression"
	Improvement Change = "improvement"
	Same        Change = "same"      // no change that matters
	Undecided   Change = "undecided" // one that matters is neither shown nor ruled out
)

// Difference is what was found of one metric. Effect, Low and High are a change
// relative to base, or for a share the difference itself; Low to High holds the
// true one with a confidence of 1 − 0.2 % ÷ the number of metrics.
type Difference struct {
	Metric string `json:"metric"`
	Unit   string `json:"unit"`
	// Base and Head are what Effect is the change of: the geometric means of the
	// blocks, of a share the means.
	Base   float64 `json:"base"`
	Head   float64 `json:"head"`
	Effect float64 `json:"effect"`
	Low    float64 `json:"low"`
	High   float64 `json:"high"`
	P      float64 `json:"p"` // of Mann and Whitney's test, which assumes nothing of the distribution
	Change Change  `json:"change"`
}

// Comparison of a service with another, or with itself before.
type Comparison struct {
	Change      Change         `json:"change"` // a regression of any metric is one of all
	Why         words.Sentence `json:"why"`
	Blocks      [2]int         `json:"blocks"` // of base and head
	Paired      bool           `json:"paired"` // block i of both was measured at nearly the same time
	Differences []Difference   `json:"differences"`
}

// Compare decides for each metric whether head is worse than base, better, or the
// same. Paired blocks are compared with each other, so that a slow period of the
// machine affects both.
func Compare(base, head []Block, paired bool) Comparison {
	c := Comparison{Change: Same, Blocks: [2]int{len(base), len(head)}, Paired: paired}
	if min(len(base), len(head)) < leastBlocks || paired && len(base) != len(head) {
		c.Change = Undecided
		c.Why = words.Say("%d and %d blocks were measured, and a difference needs at least %d of each", len(base), len(head), leastBlocks)
		return c
	}
	alpha := falseAlarms / float64(len(compared))
	for _, m := range compared {
		a, b := valuesOf(base, m.name), valuesOf(head, m.name)
		if len(a) < leastBlocks || len(b) < leastBlocks || paired && len(a) != len(b) {
			continue // not every service streams
		}
		c.Differences = append(c.Differences, difference(m.name, m.unit, m.share, a, b, paired, alpha))
	}
	c.decide()
	return c
}

func valuesOf(blocks []Block, name string) (values []float64) {
	for _, b := range blocks {
		if v, ok := b.Metrics[name]; ok {
			values = append(values, v)
		}
	}
	return values
}

// difference compares the values of one metric: on a logarithmic scale, on
// which a change by a factor is a shift, or as they are for shares.
func difference(name, unit string, share bool, base, head []float64, paired bool, alpha float64) Difference {
	scale, value, back, least := math.Log, math.Exp, math.Expm1, leastEffect
	if share {
		same := func(v float64) float64 { return v }
		scale, value, back, least = same, same, same, leastShare
	}
	a, b := mapped(base, scale), mapped(head, scale)
	var shift, wide float64
	if paired {
		d := make([]float64, len(a))
		for i := range d {
			d[i] = b[i] - a[i]
		}
		shift = stats.Mean(d)
		wide = stats.StdDev(d) / math.Sqrt(float64(len(d))) * tQuantile(1-alpha/2, float64(len(d)-1))
	} else {
		shift = stats.Mean(b) - stats.Mean(a)
		va, vb := stats.Variance(a)/float64(len(a)), stats.Variance(b)/float64(len(b))
		// Welch and Satterthwaite's degrees of freedom.
		freedom := (va + vb) * (va + vb) / (va*va/float64(len(a)-1) + vb*vb/float64(len(b)-1))
		if va+vb > 0 {
			wide = math.Sqrt(va+vb) * tQuantile(1-alpha/2, freedom)
		}
	}
	d := Difference{
		Metric: name, Unit: unit, Base: value(stats.Mean(a)), Head: value(stats.Mean(b)),
		Effect: back(shift), Low: back(shift - wide), High: back(shift + wide),
		P: benchmath.AssumeNothing.Compare(benchmath.NewSample(base, &benchmath.DefaultThresholds), benchmath.NewSample(head, &benchmath.DefaultThresholds)).P,
	}
	switch {
	case d.Low > 0 && d.Effect >= least:
		d.Change = Regression
	case d.High < 0 && -d.Effect >= least:
		d.Change = Improvement
	case d.High < 2*least && d.Low > -2*least:
		d.Change = Same
	default:
		d.Change = Undecided
	}
	return d
}

func mapped(values []float64, f func(float64) float64) []float64 {
	out := make([]float64, len(values))
	for i, v := range values {
		out[i] = f(v)
	}
	return out
}

// tQuantile is where Student's distribution reaches q.
func tQuantile(q, freedom float64) float64 {
	t := stats.TDist{V: freedom}
	low, high := 0.0, 1e6
	for range 200 {
		if middle := (low + high) / 2; t.CDF(middle) < q {
			low = middle
		} else {
			high = middle
		}
	}
	return high
}

// decide derives the result from that of each metric.
func (c *Comparison) decide() {
	by := map[Change]words.Sentence{}
	for _, d := range c.Differences {
		said := words.Say("%s %s", d.Metric, d.change())
		if before, has := by[d.Change]; has {
			said = words.Say("%s, %s", before, said)
		}
		by[d.Change] = said
	}
	for _, change := range []Change{Regression, Undecided, Improvement} {
		if why, has := by[change]; has {
			c.Change, c.Why = change, why
			if change == Undecided {
				c.Why = words.Say("more blocks would decide %s", why)
			}
			return
		}
	}
	switch {
	case len(c.Differences) == 0:
		c.Change, c.Why = Undecided, words.Say("no metric was measured in enough blocks of both")
	case !slices.ContainsFunc(c.Differences, func(d Difference) bool { return d.Unit == scenarios.UnitSeconds }):
		// Every answer has a latency, so there were too few answers. "The same", from
		// the error rate alone, would take missing evidence for a success.
		c.Change, c.Why = Undecided, words.Say("no latency could be compared: percentiles of a block need at least %d answers; use longer blocks or a higher rate", leastInBlock)
	default:
		c.Why = words.Say("no metric changed by a relevant amount")
	}
}

// change writes an effect with its interval.
func (d Difference) change() words.Sentence {
	if d.Unit == scenarios.UnitRatio {
		return words.Say("%+.2g points (%+.2g to %+.2g)", d.Effect*100, d.Low*100, d.High*100)
	}
	return words.Say("%+.1f %% (%+.1f to %+.1f)", d.Effect*100, d.Low*100, d.High*100)
}

// Blocks cuts the load of a run into stretches of equal time, perStage of each
// open-loop stage that no fault was injected beside. Requests belong to the
// block in which they were due.
func Blocks(gate scenarios.Gate, rec *recording.Recording, perStage int) ([]Block, error) {
	gate = gate.Resolved()
	e := evidenceOf(gate, rec)
	type cut struct {
		stageID
		n int
	}
	blocks := map[cut]*samples{}
	for r, err := range rec.Requests {
		if err != nil {
			return nil, fmt.Errorf("the recording cannot be read: %w", err)
		}
		s := e.scenario(r.Scenario)
		at, played := e.played[stageID{r.Scenario, r.Stage, "", ""}]
		if r.Kind != recording.KindLoad || s == nil || len(s.Faults) > 0 || !played || r.Seq >= closedLoop {
			continue
		}
		key := cut{stageID{r.Scenario, r.Stage, "", ""}, min(int(time.Duration(perStage)*(r.Due-at.from)/(at.to-at.from)), perStage-1)}
		b := blocks[key]
		if b == nil {
			b = &samples{}
			blocks[key] = b
		}
		b.due++
		if !r.OK() {
			b.errors++
			continue
		}
		for i, v := range latenciesOf(&r, false) {
			if !math.IsNaN(v) {
				b.values[i].add(v)
			}
		}
	}
	keys := make([]cut, 0, len(blocks))
	for k := range blocks {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b cut) int {
		return cmp.Or(cmp.Compare(a.scenario, b.scenario), cmp.Compare(a.stage, b.stage), cmp.Compare(a.n, b.n))
	})
	var all []Block
	for _, k := range keys {
		all = append(all, blocks[k].block())
	}
	return all, nil
}

// closedLoop is the lowest sequence number of a closed-loop user's request.
const closedLoop = 1 << 40

// leastInBlock is the fewest values for a percentile of a block.
const leastInBlock = 10

func (s *samples) block() Block {
	b := Block{Metrics: map[string]float64{scenarios.ErrorRate: float64(s.errors) / float64(s.due)}}
	for _, m := range compared {
		if m.share {
			continue
		}
		v := &s.values[m.latency]
		if v.n() < leastInBlock {
			continue
		}
		if q := v.quantile(m.quantile); q > 0 {
			b.Metrics[m.name] = q
		}
	}
	return b
}
