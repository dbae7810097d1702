package capacity

import (
	"math"

	"github.com/launchgate/launchgate/checklist"
)

// The fit. The odds that a request misses an objective's limit rise with the load x as
//
//	logit p(x) = logit(allowed) + steepness · ln(x / limit)
//
// near the limit, where p is the share that the objective allows. Limit and steepness
// are not known. Every pair of them is weighed by how well it explains all tries: the
// number of misses is binomial, with as many requests as are independent (Missed.Alike).
// Before the first try, every limit on the logarithmic scale is as likely as any other,
// and the steepness is about 20, within a factor of 2 either way. A try that was still
// growing had more misses later, so it only excludes limits that explain fewer.
//
// The result has no closed form and needs none: there are few tries, and the grid of
// limits and steepnesses is small.
const (
	fitLimits    = 320
	fitSteep     = 16
	steepLeast   = 2.0
	steepMost    = 400.0
	steepUsual   = 20.0
	steepSpread  = 0.6 // of its logarithm
	ceilingLooks = 6   // how many independent requests an observed ceiling counts as
	minLooks     = 0.3
	fitMostLoose = 6 // the most by which tries that disagree widen the fit
)

// fit is the probability of each limit, for one search.
type fit struct {
	x     [fitLimits]float64 // logarithms of the limit
	above [fitLimits]float64 // probability that the limit is at least as high
	steep float64            // the usual steepness at the limit, of the objective that decides
	first int                // the objective that decides the limit
}

// fitOf weighs the limits by all tries.
func fitOf(scores []checklist.Score, tries []Seen) (f fit, ok bool) {
	low, high, missed := math.Inf(1), 0.0, math.Inf(1)
	for _, s := range tries {
		if s.Load <= 0 {
			continue
		}
		low, high = min(low, s.Load), max(high, s.Load)
		if outcome, _ := Judged(scores, s); outcome != Holds {
			missed = min(missed, s.Load)
		}
	}
	if high == 0 {
		return f, false
	}
	// Where the limit is looked for: around the tries, and far above them if none of
	// them missed an objective.
	begin, end := math.Log(low/4), math.Log(16*high)
	if !math.IsInf(missed, 1) {
		begin, end = math.Log(max(low, missed/3)/2), math.Log(2*high)
	}
	for i := range f.x {
		f.x[i] = begin + (end-begin)*float64(i)/(fitLimits-1)
		f.above[i] = 1
	}
	looksPerSecond := pace(tries, missed)
	lowest := math.Inf(1)
	for j, score := range scores {
		above, median, steep := f.one(score, j, tries, looksPerSecond)
		for i := range above {
			f.above[i] *= above[i]
		}
		if median < lowest {
			lowest, f.steep, f.first = median, steep, j
		}
	}
	return f, true
}

// one is the probability of the limits of one objective.
func (f *fit) one(score checklist.Score, j int, tries []Seen, looksPerSecond float64) (above [fitLimits]float64, median, steep float64) {
	var misses []try
	any := false
	for _, s := range tries {
		if m := s.Of[j]; m.Of > 0 && s.Load > 0 && math.Log(s.Load) >= f.x[0] {
			if score.Speed {
				m.Alike = max(1, m.Of/max(perLook*looksPerSecond*(s.Lasted-s.WarmUp).Seconds(), minLooks))
			}
			misses = append(misses, try{Missed: m, x: math.Log(s.Load), growing: s.Growing})
			any = any || m.Over > 0
			if s.Growing && score.Speed && !score.Mean && m.Over/m.Of > score.Allowed && s.answered > 0 {
				misses = append(misses, try{x: math.Log(s.Served), growing: true, answered: s.answered})
			}
		}
	}
	if !any {
		// Nothing missed this limit in any try: it is not what limits the service.
		if score.Mean || !score.Speed {
			for i := range above {
				above[i] = 1
			}
			return above, math.Inf(1), steepUsual
		}
	}
	loose := 1.0
	for pass := range 2 {
		var weight [fitLimits]float64
		var bestLimit, bestSteep float64
		most := math.Inf(-1)
		logs := make([][fitLimits]float64, fitSteep)
		for k := range fitSteep {
			e := steepLeast * math.Pow(steepMost/steepLeast, float64(k)/(fitSteep-1))
			z := math.Log(e/steepUsual) / steepSpread
			for i, x := range f.x {
				l := -z * z / 2
				for _, t := range misses {
					l += t.likelihood(score, e, x) / loose
				}
				logs[k][i] = l
				if l > most {
					most, bestLimit, bestSteep = l, x, e
				}
			}
		}
		sum := 0.0
		for k := range logs {
			for i, l := range logs[k] {
				w := math.Exp(l - most)
				weight[i] += w
				sum += w
			}
		}
		rest := 0.0
		for i := fitLimits - 1; i >= 0; i-- {
			rest += weight[i] / sum
			above[i] = rest
			if rest < 0.5 {
				median = f.x[i]
			}
		}
		steep = bestSteep
		if pass == 0 {
			loose = disagreement(score, misses, bestSteep, bestLimit)
			if loose == 1 {
				break
			}
		}
	}
	return above, median, steep
}

// try is what one try says of one objective.
type try struct {
	Missed
	x       float64
	growing bool
	// answered is of a ceiling: the answers of an over-saturated try, whose rate is x.
	answered float64
}

// At the most that a service answers, the curve is at about two thirds: so it is for
// M/M/c queues from 8 to 256 servers and a p95 of the wait, for which it is three and a
// half times as far in logit as the limit is below the ceiling, within a tenth. That
// tells the steepness where few tries do. It counts as ceilingLooks requests, and less
// where the ceiling itself is known badly.
const ceilingShare = 0.65

func (t try) ceiling(score checklist.Score, steep, limit float64) float64 {
	logit := math.Log(score.Allowed/(1-score.Allowed)) + steep*(t.x-limit)
	looks := ceilingLooks / (1 + steep*steep/t.answered)
	best := ceilingShare*math.Log(ceilingShare) + (1-ceilingShare)*math.Log(1-ceilingShare)
	return looks * (-ceilingShare*softplus(-logit) - (1-ceilingShare)*softplus(logit) - best)
}

// likelihood is the logarithm of how likely the misses of a try are.
func (t try) likelihood(score checklist.Score, steep, limit float64) float64 {
	if t.answered > 0 {
		return t.ceiling(score, steep, limit)
	}
	far := steep * (t.x - limit)
	if score.Mean {
		z := (t.Mean - far/meanSteeper) / t.Error
		if t.growing && z < 0 {
			z = 0
		}
		return -z * z / 2
	}
	n := t.Of / t.Alike
	k := t.Over / t.Alike
	logit := math.Log(score.Allowed/(1-score.Allowed)) + far
	if t.growing {
		// More would have missed later.
		seen := math.Log((k + 0.01) / (n - k + 0.01))
		logit = min(logit, max(seen, math.Log(score.Allowed/(1-score.Allowed))))
	}
	return -k*softplus(-logit) - (n-k)*softplus(logit)
}

// meanSteeper is how many times as steep as a mean the odds of a share are.
const meanSteeper = 4

func softplus(v float64) float64 {
	if v > 30 {
		return v
	}
	return math.Log1p(math.Exp(v))
}

// disagreement is how much more the tries differ from the best fit than chance explains
// (Pearson's X² for each degree of freedom).
func disagreement(score checklist.Score, misses []try, steep, limit float64) float64 {
	sum, degrees := 0.0, -2.0
	for _, t := range misses {
		if t.answered > 0 {
			continue
		}
		far := steep * (t.x - limit)
		if score.Mean {
			z := (t.Mean - far/meanSteeper) / t.Error
			if !t.growing {
				sum, degrees = sum+z*z, degrees+1
			}
			continue
		}
		n, k := t.Of/t.Alike, t.Over/t.Alike
		p := 1 / (1 + math.Exp(-math.Log(score.Allowed/(1-score.Allowed))-far))
		if expected := n * p * (1 - p); expected > 0.5 && !t.growing {
			sum, degrees = sum+(k-n*p)*(k-n*p)/expected, degrees+1
		}
	}
	if degrees < 1 {
		return 1
	}
	return min(max(sum/degrees, 1), fitMostLoose)
}

// at is the limit that is exceeded with a probability.
func (f *fit) at(probability float64) float64 {
	for i := 1; i < fitLimits; i++ {
		if a, b := f.above[i-1], f.above[i]; b <= probability {
			part := 0.0
			if a > b {
				part = (a - probability) / (a - b)
			}
			return math.Exp(f.x[i-1] + part*(f.x[i]-f.x[i-1]))
		}
	}
	return math.Exp(f.x[fitLimits-1])
}

// exceeds is the probability that the limit is above a load.
func (f *fit) exceeds(load float64) float64 {
	x := math.Log(load)
	if x <= f.x[0] {
		return f.above[0]
	}
	if x >= f.x[fitLimits-1] {
		return f.above[fitLimits-1]
	}
	at := (x - f.x[0]) / (f.x[1] - f.x[0])
	i := min(int(at), fitLimits-2)
	return f.above[i] + (at-float64(i))*(f.above[i+1]-f.above[i])
}

// pace is how many independent looks a second there are, close to the limit. It is the
// same for all tries: a try that was lucky has fewer requests under way, and they change
// faster, so by its own pace it would count for more than one that had bad luck.
func pace(tries []Seen, missed float64) float64 {
	var correlated, seconds, longest float64
	for _, s := range tries {
		longest = max(longest, s.Lasted.Seconds())
	}
	for _, s := range tries {
		if t := (s.Lasted - s.WarmUp).Seconds(); s.looks > 0 && s.Lasted.Seconds() > longest/2 && (math.IsInf(missed, 1) || s.Load > missed*0.8) {
			correlated += t * t / s.looks
			seconds += t
		}
	}
	if correlated == 0 {
		return 1
	}
	return seconds / correlated
}
