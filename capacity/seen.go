package capacity

import (
	"iter"
	"math"
	"slices"
	"time"

	"github.com/launchgate/launchgate/checklist"
	"github.com/launchgate/launchgate/internal/recording"
)

// Seen is what a try showed: the load that was really drawn, and for each objective how
// many requests missed its limit.
type Seen struct {
	Load     float64       // requests a second that were due after the warm-up
	Lasted   time.Duration // of the load, with the warm-up
	WarmUp   time.Duration // left out at its beginning
	Answer   time.Duration // mean time of an answer from its sending
	Served   float64       // answers a second in the second half
	Good     float64       // requests a second that met every limit, of those due after the warm-up
	Tokens   float64       // output tokens a second, of answers that ended after the warm-up and before the end
	Growing  bool          // more requests arrived in the second half than were answered
	Of       []Missed      // in the order of the scores
	answered float64       // requests in the second half
	looks    float64       // independent looks at the number under way
}

// Missed is how often an objective's limit was missed. Requests that wait in one queue
// resemble one another, so that Alike of them count as one.
type Missed struct {
	Over, Of float64
	Alike    float64
	// Mean and Error are of an objective about a mean: the logarithm of the mean in
	// shares of the limit, and its standard error.
	Mean, Error float64
}

// The warm-up that is left out of a try: three mean answers, because a try begins with
// an empty service, and a tenth of the try at the least, and a third at the most.
const (
	warmAnswers = 3
	warmLeast   = 0.1
	warmMost    = 1. / 3
)

// row is what is kept of a request, in seconds from the beginning of the load.
type row struct {
	due, end float64
	over, of []float64
	good     bool
	tokens   float64
}

// Observe sums up the requests of the load between two moments of the run's clock.
func Observe(scores []checklist.Score, good func(*recording.Request) bool, from, to time.Duration, requests iter.Seq[*recording.Request]) Seen {
	lasted := to - from
	s := Seen{Lasted: lasted, Of: make([]Missed, len(scores))}
	var rows []row
	var answers, sum float64
	for r := range requests {
		if r.Kind != recording.KindLoad || r.Due < from || r.Due >= to {
			continue
		}
		at := row{due: (r.Due - from).Seconds(), end: (r.End - from).Seconds()}
		if r.End == 0 {
			at.end = math.Inf(1)
		}
		both := make([]float64, 2*len(scores))
		at.over, at.of = both[:len(scores)], both[len(scores):]
		for i, score := range scores {
			at.over[i], at.of[i] = score.Of(r)
			if r.Error == recording.ErrorCancelled {
				// The try was ended early. Only what had waited too long by then counts.
				at.over[i], at.of[i] = 0, 0
				if o := score.Objective; o.Metric == "ttft" || o.Metric == "latency" {
					if waited := r.End - r.Due; r.FirstToken == 0 || o.Metric == "latency" {
						if !checklist.Holds(waited.Seconds(), o) {
							at.over[i], at.of[i] = 1, 1
						}
					}
				}
			}
		}
		at.good = good(r)
		if d, ok := r.ServiceLatency(); ok {
			at.tokens = float64(r.VisibleTokens())
			answers++
			sum += d.Seconds()
		}
		rows = append(rows, at)
	}
	if answers > 0 {
		s.Answer = time.Duration(sum / answers * float64(time.Second))
	}
	total := lasted.Seconds()
	warm := min(max(warmAnswers*s.Answer.Seconds(), warmLeast*total), warmMost*total)
	s.WarmUp = time.Duration(warm * float64(time.Second))
	var arrived, answered, due float64
	for _, r := range rows {
		if r.due >= warm {
			due++
			if r.good {
				s.Good++
			}
		}
		if r.end >= warm && r.end <= total {
			s.Tokens += r.tokens
		}
		if r.due > total/2 {
			arrived++
		}
		if r.end > total/2 && r.end <= total {
			answered++
		}
	}
	s.Load, s.Good, s.Tokens = due/(total-warm), s.Good/(total-warm), s.Tokens/(total-warm)
	s.answered = answered
	s.Served = answered / (total / 2)
	s.looks = lookouts(rows, warm, total)
	for i, score := range scores {
		s.Of[i] = missed(score, rows, i, warm, total)
	}
	s.Growing = s.grows(scores, arrived, answered)
	return s
}

// grows reports whether more requests arrived in the second half than were answered,
// by more than chance makes of a stable queue. A short try has not yet seen its longer
// answers, so the growth counts if an objective was missed too, or if it is large.
func (s Seen) grows(scores []checklist.Score, arrived, answered float64) bool {
	more, chance := arrived-answered, math.Sqrt(arrived+answered)
	if outcome, _ := Judged(scores, s); outcome == Misses {
		return more > 2*chance
	}
	return more > 4*chance && more > growthRate*arrived
}

// missed sums up one objective over the requests after the warm-up.
func missed(score checklist.Score, rows []row, i int, warm, total float64) Missed {
	const parts = 20
	var cut [parts]struct{ over, of, squares float64 }
	m := Missed{Alike: 1}
	for _, r := range rows {
		if r.due < warm || r.of[i] == 0 {
			continue
		}
		b := &cut[min(int(parts*(r.due-warm)/(total-warm)), parts-1)]
		b.over += r.over[i]
		b.of += r.of[i]
		m.Over += r.over[i]
		m.Of += r.of[i]
	}
	if m.Of == 0 {
		return m
	}
	mean := m.Over / m.Of
	variance := 0.0 // of the sum of over, from batches of several sizes
	for _, size := range []int{1, 2, 4} {
		n, sum := parts/size, 0.0
		for b := range n {
			off := 0.0
			for _, c := range cut[b*size : (b+1)*size] {
				off += c.over - mean*c.of
			}
			sum += off * off * float64(n) / float64(n-1)
		}
		variance = max(variance, sum)
	}
	if score.Mean {
		if mean > 0 {
			m.Mean, m.Error = math.Log(mean), max(math.Sqrt(variance)/m.Of/mean, 0.01)
		}
		return m
	}
	if alone := m.Of * mean * (1 - mean); alone > 0 {
		m.Alike = max(1, variance/alone)
	}
	return m
}

// perLook is how many requests that count as independent a look is worth: between 0.4
// and 0.75 close to the limit, measured on the queues of coverage_test.go.
const perLook = 0.5

// lookouts is how many independent looks at the number of requests under way a try has
// (its integrated autocorrelation time by the initial positive sequence, Geyer 1992).
func lookouts(rows []row, warm, total float64) float64 {
	const looks = 200
	var under [looks]float64
	step := (total - warm) / looks
	var due, end []float64
	for _, r := range rows {
		due = append(due, r.due)
		end = append(end, r.end)
	}
	slices.Sort(due)
	slices.Sort(end)
	mean := 0.0
	for i := range under {
		at := warm + step*(float64(i)+0.5)
		d, _ := slices.BinarySearch(due, at)
		e, _ := slices.BinarySearch(end, at)
		under[i] = float64(d - e)
		mean += under[i] / looks
	}
	var variance float64
	for i := range under {
		under[i] -= mean
		variance += under[i] * under[i]
	}
	if variance == 0 {
		return looks
	}
	time := 1.0
	for k := 1; k < looks/3; k++ {
		sum := 0.0
		for i := k; i < looks; i++ {
			sum += under[i] * under[i-k]
		}
		if sum < 0.05*variance {
			break
		}
		time += 2 * sum / variance
	}
	return looks / time
}
