package model

import (
	"cmp"
	"math"
	"math/rand/v2"
	"slices"
)

// fitted are the parameters of an engine of kind Batch that the fit changes, as
// logarithms: overhead, prompt, step, sequence, context, budget.
type fitted [6]float64

func (e Engine) fitted() fitted {
	return fitted{math.Log(e.Overhead), math.Log(e.PerPrompt), math.Log(e.Step), math.Log(e.PerSequence), math.Log(e.PerContext), math.Log(e.Budget)}
}

func (e Engine) with(f fitted) Engine {
	e.Overhead, e.PerPrompt, e.Step, e.PerSequence, e.PerContext, e.Budget = math.Exp(f[0]), math.Exp(f[1]), math.Exp(f[2]), math.Exp(f[3]), math.Exp(f[4]), math.Exp(f[5])
	return e
}

// target is what a fit has to explain: what each stage showed.
type target struct {
	group  [][]Recorded // stages that followed one another in a run
	asks   [][]Ask
	wants  [][][]float64 // of each stage, logarithms of quantiles of TTFT and TPOT
	leave  string        // the stage that is held out
	alone  string        // the only stage that is judged; empty: all
	copies int           // replicas
}

var fitQuantiles = []float64{0.1, 0.25, 0.5, 0.75, 0.95}

func targetOf(groups [][]Recorded, replicas int) target {
	t := target{group: groups, copies: replicas}
	for _, g := range groups {
		t.asks = append(t.asks, asks(g))
		var wants [][]float64
		for _, st := range g {
			var ttft, tpot []float64
			for i := range st.Requests {
				r := &st.Requests[i]
				if v, ok := r.TTFT(); ok {
					ttft = append(ttft, v.Seconds())
				}
				if v, ok := r.TPOT(); ok {
					tpot = append(tpot, v.Seconds())
				}
			}
			wants = append(wants, logQuantiles(ttft, tpot))
		}
		t.wants = append(t.wants, wants)
	}
	return t
}

func logQuantiles(ttft, tpot []float64) (logs []float64) {
	for _, values := range [][]float64{ttft, tpot} {
		slices.Sort(values)
		for _, q := range fitQuantiles {
			logs = append(logs, math.Log(max(quantile(values, q), 1e-6)))
		}
	}
	return logs
}

// miss is how badly an engine explains the stages: the mean of the relative errors of
// quantiles. A large error counts in proportion and not by its square, so that one stage
// past the limit does not decide everything.
func (t target) miss(e Engine) float64 {
	sum, n := 0.0, 0.0
	rng := rand.New(rand.NewPCG(1, 2))
	for i, g := range t.group {
		answers := e.Serve(t.asks[i], t.copies, rng)
		at := 0
		for j, st := range g {
			of := answers[at : at+len(st.Requests)]
			sent := t.asks[i][at : at+len(st.Requests)]
			at += len(st.Requests)
			if st.key() == t.leave || t.alone != "" && st.key() != t.alone {
				continue
			}
			var ttft, tpot []float64
			for k, a := range of {
				ttft = append(ttft, a.First-sent[k].Due)
				if sent[k].Output > 1 && a.Last > a.First {
					tpot = append(tpot, (a.Last-a.First)/float64(sent[k].Output-1))
				}
			}
			for k, got := range logQuantiles(ttft, tpot) {
				if want := t.wants[i][j][k]; !math.IsNaN(want) && !math.IsNaN(got) {
					const knee = 0.1
					sum += knee * (math.Sqrt(1+math.Pow((got-want)/knee, 2)) - 1)
					n++
				}
			}
		}
	}
	return sum / max(n, 1)
}

func (r Recorded) key() string { return r.Run + " " + r.Stage }

// fitBatch looks for the costs of a step, from a start that lies within an order of
// magnitude: what the quietest stage shows.
func (t target) fitBatch(limit int, from *Engine, looks int) Engine {
	begin := Engine{Kind: Batch, Limit: limit}
	if from != nil {
		begin = *from
	} else {
		begin = t.start(begin)
	}
	cost := func(f fitted) float64 {
		within, by := f.inside()
		return t.miss(begin.with(within)) + by
	}
	best := simplex(cost, begin.fitted(), 0.4, looks)
	best, _ = simplex(cost, best, 0.15, looks).inside()
	return begin.with(best)
}

// inside are the nearest parameters within their bounds, and by how much the others lie
// outside. A cost that is too small to be told apart is no better than none, so the
// smallest are bounded; a budget beyond any step is as good as no budget.
func (f fitted) inside() (within fitted, by float64) {
	for i, v := range f {
		low, high := math.Log(1e-9), math.Log(10.0)
		switch i {
		case 2: // a simulation of shorter steps takes long, and no engine has them
			low = math.Log(leastStep)
		case 5:
			low, high = math.Log(16.0), math.Log(1<<17)
		}
		within[i] = min(max(v, low), high)
		by += math.Abs(v - within[i])
	}
	return within, by
}

const leastStep = 1e-4

func (t target) start(e Engine) Engine {
	var quiet *Recorded
	for _, g := range t.group {
		for i := range g {
			if g[i].key() != t.leave && (quiet == nil || g[i].rate() < quiet.rate()) {
				quiet = &g[i]
			}
		}
	}
	var ttft, tpot, prompt []float64
	for i := range quiet.Requests {
		r := &quiet.Requests[i]
		if v, ok := r.TTFT(); ok {
			ttft = append(ttft, v.Seconds())
			prompt = append(prompt, float64(computed(r)))
		}
		if v, ok := r.TPOT(); ok {
			tpot = append(tpot, v.Seconds())
		}
	}
	intercept, slope := line(prompt, ttft)
	middle, least := quantile(ascending(ttft), 0.5), 0.0
	if len(tpot) > 0 {
		least = quantile(ascending(tpot), 0.25)
	}
	long := quantile(ascending(prompt), 0.5)
	if !(slope > 0) {
		slope = middle / 4 / long
	}
	e.PerPrompt = slope
	e.Step = max(0.6*least, leastStep)
	e.PerSequence = max(0.3*least, 1e-6)
	e.PerContext = max(0.05*least/max(long, 1), 1e-9)
	e.Overhead = min(max(intercept-e.Step, 0.1*middle), middle)
	e.Budget = 512
	return e
}

// line is the straight line of least squares.
func line(x, y []float64) (intercept, slope float64) {
	var mx, my, xx, xy float64
	for i := range x {
		mx += x[i] / float64(len(x))
		my += y[i] / float64(len(x))
	}
	for i := range x {
		xx += (x[i] - mx) * (x[i] - mx)
		xy += (x[i] - mx) * (y[i] - my)
	}
	if xx < 1e-6*float64(len(x)) {
		return my, 0
	}
	return my - xy/xx*mx, xy / xx
}

// simplex is the method of Nelder and Mead.
func simplex(cost func(fitted) float64, from fitted, size float64, looks int) fitted {
	type corner struct {
		at fitted
		is float64
	}
	corners := []corner{{from, cost(from)}}
	for i := range from {
		at := from
		at[i] += size * (1 + 0.1*float64(i))
		corners = append(corners, corner{at, cost(at)})
	}
	n := float64(len(from))
	for used := len(corners); used < looks; {
		slices.SortFunc(corners, func(a, b corner) int { return cmp.Compare(a.is, b.is) })
		last := len(corners) - 1
		if corners[last].is-corners[0].is < 1e-6 {
			break
		}
		var middle fitted
		for _, c := range corners[:last] {
			for i, v := range c.at {
				middle[i] += v / n
			}
		}
		to := func(by float64) corner {
			var at fitted
			for i := range at {
				at[i] = middle[i] + by*(corners[last].at[i]-middle[i])
			}
			used++
			return corner{at, cost(at)}
		}
		switch mirrored := to(-1); {
		case mirrored.is < corners[0].is:
			if farther := to(-2); farther.is < mirrored.is {
				mirrored = farther
			}
			corners[last] = mirrored
		case mirrored.is < corners[last-1].is:
			corners[last] = mirrored
		default:
			by := 0.5
			if mirrored.is < corners[last].is {
				by = -0.5
			}
			if inner := to(by); inner.is < min(mirrored.is, corners[last].is) {
				corners[last] = inner
				continue
			}
			for i := range corners[1:] {
				c := &corners[i+1]
				for j := range c.at {
					c.at[j] = corners[0].at[j] + 0.5*(c.at[j]-corners[0].at[j])
				}
				c.is = cost(c.at)
				used++
			}
		}
	}
	slices.SortFunc(corners, func(a, b corner) int { return cmp.Compare(a.is, b.is) })
	return corners[0].at
}

// fitSlots reads the model off the recording: how long slots were taken, and how long
// requests that found a free slot waited for their first token.
func (t target) fitSlots(limit int) (Engine, bool) {
	e := Engine{Kind: Slots, Limit: limit}
	var took, tokens, factor, visible float64
	var factors, prompt, wait []float64
	for i, g := range t.group {
		at := 0
		together := concurrency(t.asks[i], g)
		for _, st := range g {
			for k := range st.Requests {
				r := &st.Requests[k]
				n := together[at]
				at++
				if st.key() == t.leave || !r.OK() {
					continue
				}
				span := (r.End - r.FirstToken).Seconds()
				took += span
				tokens += float64(r.OutputTokens)
				visible += (r.LastToken - r.FirstToken).Seconds()
				factors = append(factors, span/float64(max(1, r.OutputTokens)))
				if v, ok := r.TTFT(); ok && (limit == 0 || n < limit*t.copies) {
					wait = append(wait, v.Seconds())
					prompt = append(prompt, float64(computed(r)))
				}
			}
		}
	}
	if took <= 0 || tokens == 0 || len(wait) < leastRequests/2 {
		return e, false
	}
	e.PerToken, e.Visible = took/tokens, visible/took
	slices.Sort(factors)
	for _, f := range factors {
		factor += f / float64(len(factors))
	}
	const kept = 400
	for i := range kept {
		e.Spread = append(e.Spread, math.Round(quantile(factors, (float64(i)+0.5)/kept)/factor*1e4)/1e4)
	}
	intercept, slope := line(prompt, wait)
	middle := quantile(ascending(wait), 0.5)
	if slope*quantile(ascending(prompt), 0.5) > 0.05*middle && intercept > 0 {
		e.PerPrompt, e.Overhead = slope, intercept
	} else {
		e.Overhead = middle
	}
	return e, true
}

// concurrency is how many requests were being answered when each was due: those with a
// first token and no end.
func concurrency(sent []Ask, g []Recorded) []int {
	type event struct {
		at float64
		by int
	}
	var events []event
	for _, st := range g {
		for i := range st.Requests {
			if r := &st.Requests[i]; r.OK() {
				events = append(events, event{r.FirstToken.Seconds(), 1}, event{r.End.Seconds(), -1})
			}
		}
	}
	slices.SortFunc(events, func(a, b event) int { return cmp.Compare(a.at, b.at) })
	counts := make([]int, len(sent))
	now, k := 0, 0
	for i, a := range sent {
		for k < len(events) && events[k].at <= a.Due {
			now += events[k].by
			k++
		}
		counts[i] = now
	}
	return counts
}

// seenLimit is how many requests the service answers at once: the number at which it
// stays while others wait for their first token. It is 0 if it never stayed at one, and
// most is the highest number that was seen for some time.
func seenLimit(groups [][]Recorded, replicas int) (limit, most int) {
	level := map[int]float64{}   // seconds with so many under way
	waiting := map[int]float64{} // of them, with others waiting
	for _, g := range groups {
		type event struct {
			at               float64
			running, waiting int
		}
		var events []event
		for _, st := range g {
			for i := range st.Requests {
				r := &st.Requests[i]
				if !r.OK() {
					continue
				}
				events = append(events, event{r.Due.Seconds(), 0, 1}, event{r.FirstToken.Seconds(), 1, -1}, event{r.End.Seconds(), -1, 0})
			}
		}
		slices.SortFunc(events, func(a, b event) int { return cmp.Compare(a.at, b.at) })
		running, wait := 0, 0
		for i, e := range events {
			if i > 0 {
				took := e.at - events[i-1].at
				level[running] += took
				if wait > 0 {
					waiting[running] += took
				}
			}
			running += e.running
			wait += e.waiting
		}
	}
	above := 0.0
	var levels []int
	total := 0.0
	for n, s := range level {
		levels = append(levels, n)
		total += s
	}
	slices.SortFunc(levels, func(a, b int) int { return b - a })
	for _, n := range levels {
		above += level[n]
		if most == 0 && above > 0.002*total {
			most = n
		}
	}
	// A limit is where the number stays: longer than just below it, with others waiting.
	// One that computes its prompt has no token yet, so the number is often one less.
	top, below := level[most]+level[most-1], level[most-2]+level[most-3]
	if top > 0.01*total && waiting[most]+waiting[most-1] > 0.5*top && top > 1.5*below {
		limit = int(math.Round(float64(most) / float64(replicas)))
	}
	return limit, most
}
