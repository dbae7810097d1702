package checklist

import (
	"math"
	"time"

	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/scenarios"
)

// Score says how single requests count for an objective. It is how a search knows how
// far a load was from its limit, and not only whether the objective held.
type Score struct {
	Objective scenarios.Objective
	// Allowed is the share of the counted requests (or gaps) that may miss the limit.
	Allowed float64
	// Speed: waiting requests make it worse, so that requests of one moment resemble
	// one another.
	Speed bool
	// Mean: of returns a value in shares of the limit, whose mean has to be at most 1.
	Mean bool
	// Of says how many of how many chances of a request missed the limit.
	Of func(*recording.Request) (over, of float64)
}

// Most is the largest mean score with which the objective holds.
func (s Score) Most() float64 {
	if s.Mean {
		return 1
	}
	return s.Allowed
}

// never stands for a share of none: an objective such as max(ttft) <= 2s or error_rate
// <= 0% holds for a load if fewer than one request in a thousand misses it. No number of
// requests could show that none ever does.
const never = 0.001

// Scores are the scores of the objectives of a gate with one scenario and one stage;
// objectives that no single request can miss have none.
func Scores(gate scenarios.Gate) []Score {
	limits := requestLimits(gate)
	var scores []Score
	for _, o := range gate.Objectives {
		if s, ok := scoreOf(o, limits); ok {
			m, _ := scenarios.MetricOf(o.Metric)
			s.Objective, s.Speed = o, m.Speed
			scores = append(scores, s)
		}
	}
	return scores
}

func scoreOf(o scenarios.Objective, limits []scenarios.Objective) (Score, bool) {
	m, _ := scenarios.MetricOf(o.Metric)
	mine := func(r *recording.Request) bool { return o.Class == "" || o.Class == r.Class }
	of, latency := latencyOf(o.Metric)
	value := func(r *recording.Request) (float64, bool) {
		v := latencyIn(r, of)
		return v, !math.IsNaN(v) && mine(r)
	}
	share := func(allowed float64, counts, misses func(*recording.Request) bool) (Score, bool) {
		return Score{Allowed: max(allowed, never), Of: func(r *recording.Request) (float64, float64) {
			if !mine(r) || !counts(r) {
				return 0, 0
			}
			if misses(r) {
				return 1, 1
			}
			return 0, 1
		}}, true
	}
	due := func(*recording.Request) bool { return true }
	switch {
	case latency && (o.Quantile > 0 || o.Stat == "max"):
		counts := func(r *recording.Request) bool { _, ok := value(r); return ok }
		allowed := 1 - o.Quantile
		if o.Stat == "max" {
			allowed = 0
		}
		return share(allowed, counts, func(r *recording.Request) bool { v, _ := value(r); return !Holds(v, o) })
	case latency && o.Stat == "mean" && o.Threshold > 0:
		return Score{Mean: true, Of: func(r *recording.Request) (float64, float64) {
			if v, ok := value(r); ok {
				return v / o.Threshold, 1
			}
			return 0, 0
		}}, true
	case m.PerChunk:
		return Score{Allowed: max(1-o.Quantile, never), Of: func(r *recording.Request) (over, of float64) {
			if !mine(r) {
				return 0, 0
			}
			count := func(gap time.Duration) {
				if !Holds(gap.Seconds(), o) {
					over++
				}
			}
			if len(r.Chunks) == 0 && r.MaxGap > 0 && r.OK() {
				count(r.MaxGap)
				return over, max(1, float64(r.OutputTokens-1))
			}
			r.EachGap(func(gap, _ time.Duration) {
				of++
				count(gap)
			})
			return over, of
		}}, o.Quantile > 0 || o.Stat == "max"
	case o.Metric == scenarios.ErrorRate:
		return share(o.Threshold, due, func(r *recording.Request) bool { return !r.OK() })
	case o.Metric == "refused_rate":
		return share(o.Threshold, due, (*recording.Request).RefusedInOrder)
	case o.Metric == "broken_rate":
		return share(o.Threshold, due, func(r *recording.Request) bool { return !r.OK() && !r.RefusedInOrder() })
	case o.Metric == "attainment":
		return share(1-o.Threshold, due, func(r *recording.Request) bool { return !attained(r, limits) })
	case o.Metric == "wrong_length":
		return share(o.Threshold, func(r *recording.Request) bool { return r.OK() && r.AskedTokens > 0 }, func(r *recording.Request) bool { return r.OutputTokens != r.AskedTokens })
	}
	return Score{}, false
}

// Good returns a function that reports whether a request succeeded within every limit of
// a gate with one scenario and one stage.
func Good(gate scenarios.Gate) func(*recording.Request) bool {
	limits := requestLimits(gate)
	return func(r *recording.Request) bool { return attained(r, limits) }
}

// attained reports whether a request of the only stage succeeded within every limit.
func attained(r *recording.Request, limits []scenarios.Objective) bool {
	if !r.OK() {
		return false
	}
	for _, o := range limits {
		if (o.Class == "" || o.Class == r.Class) && !meets(r, o, func(latency int) float64 { return latencyIn(r, latency) }) {
			return false
		}
	}
	return true
}
