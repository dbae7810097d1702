package reports

import (
	"math"
	"time"

	"github.com/launchgate/launchgate/checklist"
	"github.com/launchgate/launchgate/internal/recording"
)

// Distribution is one latency metric of one scenario, over its requests that
// succeeded (ICL: over their chunks).
type Distribution struct {
	Metric   string // ttft | tpot | icl | latency
	Scenario string
	Samples  int64
	Curve    []Point // X: log10(1/(1−p)), so that 1 is p90 and 2 is p99; Y: seconds
	ECDF     []Point // X: seconds; Y: share of the samples at or below
}

// Point of a curve.
type Point struct{ X, Y float64 }

// StageRow is what one stage of a scenario measured. Times are seconds, nil
// without samples.
type StageRow struct {
	Scenario, Stage  string
	Class            string // empty: of all
	Users            int    // of a closed loop
	Requests, Errors int64
	TTFT, ICL        StageQuantiles
}

// StageQuantiles come from sketches, and are within 0.8 %.
type StageQuantiles struct {
	Samples       int64
	P50, P95, Max *float64
}

// latencies are the sketches of one scenario or stage.
type latencies struct {
	users                    int // of a closed loop
	requests, errors         int64
	ttft, tpot, icl, latency sketch
}

func (l *latencies) request(r *recording.Request) {
	l.requests++
	if !r.OK() {
		l.errors++
		return
	}
	for _, m := range []struct {
		s  *sketch
		of func() (time.Duration, bool)
	}{{&l.ttft, r.TTFT}, {&l.tpot, r.TPOT}, {&l.latency, r.Latency}} {
		if v, ok := m.of(); ok {
			m.s.add(v)
		}
	}
	r.EachGap(func(gap, _ time.Duration) { l.icl.add(gap) })
}

func (l *latencies) distributions(scenario string) []Distribution {
	var found []Distribution
	for _, m := range []struct {
		metric string
		s      *sketch
	}{{"ttft", &l.ttft}, {"tpot", &l.tpot}, {"icl", &l.icl}, {"latency", &l.latency}} {
		if m.s.n == 0 {
			continue
		}
		found = append(found, Distribution{
			Metric: m.metric, Scenario: scenario, Samples: m.s.n,
			Curve: percentileCurve(m.s), ECDF: ecdf(m.s),
		})
	}
	return found
}

// percentileCurve stops where a percentile would be the slowest sample alone.
func percentileCurve(s *sketch) []Point {
	var curve []Point
	end := math.Log10(float64(s.n))
	const step = 0.05
	for i := 0; ; i++ {
		x := min(float64(i)*step, end)
		d, _ := s.quantile(1 - math.Pow(10, -x))
		curve = append(curve, Point{x, d.Seconds()})
		if x >= end {
			return curve
		}
	}
}

// ecdf has a point for each bucket with samples, thinned to at most a hundred.
func ecdf(s *sketch) []Point {
	points := []Point{{s.lo.Seconds(), 0}}
	least := s.n/100 + 1
	var seen, drawn int64
	for i, c := range s.counts {
		seen += c
		if c > 0 && (seen-drawn >= least || seen == s.n) {
			d := min(max(middle(i), s.lo), s.hi)
			if seen == s.n {
				d = s.hi
			}
			points = append(points, Point{d.Seconds(), float64(seen) / float64(s.n)})
			drawn = seen
		}
	}
	return points
}

func stageQuantiles(s *sketch) StageQuantiles {
	at := func(q float64) *float64 {
		d, ok := s.quantile(q)
		if !ok {
			return nil
		}
		v := d.Seconds()
		return &v
	}
	return StageQuantiles{Samples: s.n, P50: at(0.5), P95: at(0.95), Max: at(1)}
}

// metricQuantiles is a row of the latency table.
type metricQuantiles struct {
	Metric string
	Of     *checklist.Quantiles
}

func quantiles(s checklist.Scenario) []metricQuantiles {
	return []metricQuantiles{{"ttft", s.TTFT}, {"tpot", s.TPOT}, {"icl", s.ICL}, {"latency", s.Latency}}
}

// latencyPage has the charts of the latencies, and the keys to them.
type latencyPage struct {
	Charts    []Chart
	Scenarios []ChartLine
}

func latencyView(r Report) any {
	return latencyPage{charts(r.Distributions), scenarioKeys(r.Distributions)}
}
