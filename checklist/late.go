package checklist

import (
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/scenarios"
)

// A service can be fast overall and slow for some requests: for long prompts, under
// concurrency, for one key, on new connections. late_for_some looks for such groups.
//
// The requests are divided into groups by everything that is known of them, one
// attribute after the other: the values of the factors that the gate varies, classes,
// replicas, lengths, the number of concurrent requests, the place on the connection, how
// long the service or the connection was idle, the time within a minute. Each group is
// compared with all other requests. A request is late if it takes longer than the median
// of the others, by more than the limit and what explains it. A group is late if a larger
// share of it is late than chance makes of the share of the others (Fisher's exact test,
// with Bonferroni's correction for the number of groups). Nothing is assumed about the
// distribution of latencies, and a few extreme values change nothing.
//
// Two things explain a longer wait in every sound service. A prompt that is n times as
// long, or n times as many concurrent requests, may take n times as long. If the
// latency grows faster than that among the shorter prompts and the smaller crowds, that
// growth is allowed too. On a busy machine latencies also spread in proportion: a request
// of n times the work is late only if it takes longer than n times what one in ten of the
// others exceeds.

const (
	// mostLate is how many requests of a scenario are examined: the first ones.
	mostLate = 1 << 16
	// leastLate is how many requests a comparison needs, and leastGroup how many a
	// group and the rest need each.
	leastLate, leastGroup = 100, 20
	// leastMore is how much larger the share of late requests must be in a group than
	// among the others.
	leastMore = 0.01
	// mostPlaces is how many places on a connection are examined one by one, and phases
	// is how many parts a period of time is divided into.
	mostPlaces, phases = 8, 10
)

// periods are checked for a part in which requests are late, because of cron jobs,
// scrapes or garbage collections.
var periods = []time.Duration{5 * time.Second, 10 * time.Second, 20 * time.Second, 30 * time.Second, time.Minute}

// idleTimes are how long a service, or a connection, was idle before the requests that
// are compared with the others: the first answer after a rest can be slow, because a
// processor, a process or a connection has to be woken up.
var idleTimes = []time.Duration{300 * time.Millisecond, time.Second, 3 * time.Second, 10 * time.Second}

// lateRow is the part of a request that late_for_some needs.
type lateRow struct {
	due, sent, end          time.Duration
	class, variant, replica string
	stage, met              string
	prompt                  float64 // tokens, or bytes if the service reports no tokens
	answer, place, number   int32
	crowd                   float64 // other requests under way when it was sent
	quiet                   float64 // seconds since the answer before ended, if no other was under way
	rest                    float64 // seconds since the answer before on its connection ended
	values                  latencies
	bytes                   int32
	ok                      bool
}

// wantsLate are the scenarios whose requests are kept for late_for_some.
func wantsLate(gate scenarios.Gate) map[string]bool {
	want := map[string]bool{}
	for _, o := range gate.Objectives {
		if m, _ := scenarios.MetricOf(o.Metric); !m.ByGroup {
			continue
		}
		for _, name := range scenariosOf(gate, o) {
			want[name] = true
		}
	}
	return want
}

// keepLate keeps a request if an objective of late_for_some needs it.
func (e *evidence) keepLate(r *recording.Request, met string) {
	if !e.wantLate[r.Scenario] || len(e.late[r.Scenario]) >= mostLate || r.Sent <= 0 {
		return
	}
	row := lateRow{due: r.Due, sent: r.Sent, end: r.End, class: r.Class, variant: r.Variant, replica: r.Replica, stage: r.Stage, met: met,
		prompt: float64(r.PromptTokens), answer: r.OutputTokens, place: r.OnConnection, number: r.Connection, bytes: r.PromptBytes, ok: r.OK()}
	if r.AskedTokens > 0 {
		row.answer = r.AskedTokens
	}
	if row.ok {
		row.values = latenciesOf(r, e.growth)
	}
	e.late[r.Scenario] = append(e.late[r.Scenario], row)
}

// lateGroup is a group of requests that is compared with the other requests.
type lateGroup struct {
	who words.Sentence
	// in reports whether a request is in the group; of reports whether it is compared
	// at all, nil: each is.
	in, of func(*lateRow) bool
	// scale explains a longer wait: how many times as much work the request is, at
	// least 1; nil: nothing explains it.
	scale   func(*lateRow) float64
	explain words.Phrase
	// cell is set if the requests of the group come in bursts. It names the burst of a
	// request; each burst counts as one observation.
	cell func(*lateRow) int64
	// named groups are asked for by the gate, so a group that is too small leaves the
	// objective unproven.
	named bool
	// value is what a threshold divides by, for a group with a threshold.
	value func(*lateRow) float64
	say   func(threshold float64) words.Sentence
	above bool
	limit float64
}

// lateness is the result for a group.
type lateness struct {
	lateGroup
	n, others       int64   // requests
	late, otherLate int64   // of these, the late ones
	p               float64 // the probability that chance explains the difference
	median          float64 // how much longer the median of the group is
	extra, off      float64 // how much longer the late requests take (or all, if most are late), and the error of that
	few             bool    // too few requests in the group, or outside it
}

// more is how much larger the share of late requests is in the group.
func (l *lateness) more() float64 {
	return float64(l.late)/float64(l.n) - float64(l.otherLate)/float64(l.others)
}

// lateFor decides whether a service is late for some group.
func (f *Finding) lateFor(o scenarios.Objective, e *evidence) {
	of, _ := latencyOf(o.Arg)
	var worst *lateness
	compared := 0
	for _, name := range scenariosOf(e.gate, o) {
		rows, bytes := e.lateRows(name, o, of)
		f.Samples += int64(len(rows))
		if len(rows) < leastLate {
			f.Why = words.Say("%s has %s, and %d are the least that groups are compared by; a longer stage would have more",
				name, words.Count(int64(len(rows)), "1 complete answer with a value", "%d complete answers with a value"), leastLate)
			f.Value = nil
			return
		}
		found := comparison{rows: rows, bytes: bytes, of: of, limit: o.Threshold, start: e.rec.Environment.StartedAt}.compare()
		tests := len(found)
		for _, l := range found {
			if l.few {
				tests--
			}
		}
		alpha := (1 - f.sure) / float64(max(tests, 1))
		for i := range found {
			l := &found[i]
			if l.few {
				if l.named && l.n < leastGroup && f.Why.IsZero() {
					f.Why = words.Say("the %s of %s cannot be compared: they are %d of %d, and %d are needed; a longer stage, or other weights, would have more",
						o.Arg, l.who, l.n, l.n+l.others, leastGroup)
				}
				continue
			}
			compared++
			failed := l.p <= alpha && l.more() >= leastMore
			switch {
			case worst == nil,
				failed && (worst.p > alpha || l.more() > worst.more()),
				!failed && worst.p > alpha && l.median > worst.median:
				if !failed {
					l.p = 1
				}
				worst = l
			}
		}
		if worst != nil && worst.p <= alpha {
			f.failLate(o, worst)
			return
		}
	}
	if !f.Why.IsZero() || worst == nil {
		if f.Why.IsZero() {
			f.Why = words.Say("the requests cannot be divided: all are alike")
		}
		return
	}
	f.decide(max(worst.median, 0), o)
	if f.Verdict == Fail {
		f.Verdict = Unproven
		f.Why = words.Say("the %s of %s seems to be %s longer than that of the others, and must be %s; %d of %d are too few to be sure, and a longer stage would have more",
			o.Arg, worst.who, show(worst.median, o.Unit), must(o), worst.n, worst.n+worst.others)
		return
	}
	f.Why = words.Say("none of %d groups is late by more than %s; the median of the latest, %s, is %s longer than that of the others",
		compared, show(o.Threshold, o.Unit), worst.who, show(max(worst.median, 0), o.Unit))
}

// failLate says for which group the service is late.
func (f *Finding) failLate(o scenarios.Objective, l *lateness) {
	f.decide(l.extra, o)
	f.Verdict = Fail
	beyond := words.Phrase("the %s of %s is %s (± %s) longer than that of the others: %d of %d are late by more than %s, and %d of the %d others")
	if l.explain != "" {
		beyond = l.explain
	}
	f.Why = words.Say(beyond, o.Arg, l.who, show(l.extra, o.Unit), show(l.off, o.Unit), l.late, l.n, show(o.Threshold, o.Unit), l.otherLate, l.others)
}

// lateRows are the requests in an objective's scope that have its latency.
func (e *evidence) lateRows(scenario string, o scenarios.Objective, of int) (rows []lateRow, bytes bool) {
	all := e.late[scenario]
	sent, ended := make([]time.Duration, 0, len(all)), make([]time.Duration, 0, len(all))
	tokens := true
	for _, r := range all {
		sent = append(sent, r.sent)
		if r.end > 0 {
			ended = append(ended, r.end)
		}
		tokens = tokens && (r.prompt > 0 || !r.ok)
	}
	slices.Sort(sent)
	slices.Sort(ended)
	rests := restsOf(all)
	scope := scopeOf(o)
	scope.scenario = scenario
	for i, r := range all {
		if v := r.values[of]; !r.ok || math.IsNaN(v) || !scope.covers(stageID{scenario, r.stage, r.class, r.met}) {
			continue
		}
		before := sort.Search(len(sent), func(i int) bool { return sent[i] >= r.sent })
		gone := sort.Search(len(ended), func(i int) bool { return ended[i] > r.sent })
		r.crowd = float64(max(before-gone, 0))
		if r.crowd == 0 && gone > 0 {
			r.quiet = (r.sent - ended[gone-1]).Seconds()
		}
		r.rest = rests[i]
		if !tokens {
			r.prompt = float64(r.bytes)
		}
		rows = append(rows, r)
	}
	slices.SortFunc(rows, func(a, b lateRow) int {
		return cmp.Or(cmp.Compare(a.due, b.due), strings.Compare(a.variant, b.variant))
	})
	return rows, !tokens
}

// restsOf is, for each request, for how long its connection had been idle, in seconds; 0
// if that is not known.
func restsOf(all []lateRow) []float64 {
	order := make([]int, len(all))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(i, j int) int { return cmp.Compare(all[i].sent, all[j].sent) })
	rests := make([]float64, len(all))
	type last struct {
		place int32
		ended time.Duration
	}
	seen := map[int32]last{} // by connection
	for _, i := range order {
		r := &all[i]
		before := seen[r.number]
		if before.ended > 0 && r.place == before.place+1 { // else it carried something else between the two
			rests[i] = max(0, (r.sent - before.ended).Seconds())
		}
		seen[r.number] = last{r.place, max(before.ended, r.end)}
	}
	return rests
}

// comparison compares groups of requests by one latency.
type comparison struct {
	rows  []lateRow
	bytes bool // whether lengths of prompts are in bytes
	of    int
	limit float64   // seconds
	start time.Time // of the run's clock
	// raw are the values of the rows in seconds, and plain are they without the time that
	// lengths and concurrency explain, so that groups are distinguished more sharply.
	raw, plain []float64
	// These are the rows in the order of a value.
	byPlain, byRaw, byPrompt, byCrowd []int
}

// order is the rows in the order of a value.
func (c comparison) order(of func(i int) float64) []int {
	at := make([]int, len(c.rows))
	for i := range at {
		at[i] = i
	}
	slices.SortStableFunc(at, func(i, j int) int { return cmp.Compare(of(i), of(j)) })
	return at
}

// among is the row with a quantile of those outside a group.
func among(order []int, inside []int8, others int64, q float64) int {
	left := rank(others, q)
	for _, i := range order {
		if inside[i] == 0 {
			if left == 0 {
				return i
			}
			left--
		}
	}
	return order[len(order)-1]
}

func (c comparison) compare() (found []lateness) {
	c.raw = make([]float64, len(c.rows))
	for i := range c.rows {
		c.raw[i] = c.rows[i].values[c.of]
	}
	c.plain = slices.Clone(c.raw)
	for _, by := range []func(*lateRow) float64{prompt, crowd} {
		slope := c.slope(c.plain, by, nil)
		middle := c.median(by)
		for i := range c.rows {
			c.plain[i] -= slope * (by(&c.rows[i]) - middle)
		}
	}
	c.byPlain = c.order(func(i int) float64 { return c.plain[i] })
	c.byRaw = c.order(func(i int) float64 { return c.raw[i] })
	c.byPrompt = c.order(func(i int) float64 { return prompt(&c.rows[i]) })
	c.byCrowd = c.order(func(i int) float64 { return crowd(&c.rows[i]) })
	for _, g := range c.groups() {
		found = append(found, c.group(g))
	}
	return found
}

func prompt(r *lateRow) float64 { return r.prompt }
func crowd(r *lateRow) float64  { return r.crowd + 1 } // including the request itself
func answer(r *lateRow) float64 { return float64(r.answer) }
func place(r *lateRow) float64  { return float64(r.place) }
func number(r *lateRow) float64 { return float64(r.number) }

// groups are all groups into which the requests are divided.
func (c comparison) groups() (groups []lateGroup) {
	groups = append(groups, c.values()...)
	groups = append(groups, c.above(prompt, "the %s of %s is %s (± %s) longer than their length explains: %d of %d are late by more than %s, and %d of the %d others",
		func(t float64) words.Sentence {
			if c.bytes {
				return words.Say("prompts of more than %s bytes", whole(t))
			}
			return words.Say("prompts of more than %s tokens", whole(t))
		}, prompt, nil)...)
	groups = append(groups, c.below(prompt, func(t float64) words.Sentence {
		if c.bytes {
			return words.Say("prompts of at most %s bytes", whole(t))
		}
		return words.Say("prompts of at most %s tokens", whole(t))
	}, nil)...)
	if c.of != maxICL { // with more tokens the longest gap is longer
		groups = append(groups, c.above(answer, "", func(t float64) words.Sentence { return words.Say("answers of more than %s tokens", whole(t)) }, nil, nil)...)
		groups = append(groups, c.below(answer, func(t float64) words.Sentence { return words.Say("answers of at most %s tokens", whole(t)) }, nil)...)
	}
	groups = append(groups, c.above(crowd, "the %s of %s is %s (± %s) longer than the crowd explains: %d of %d are late by more than %s, and %d of the %d others",
		func(t float64) words.Sentence {
			return words.Say("requests that come while %s or more others are under way", whole(t))
		}, crowd, second)...)
	alone := func(r *lateRow) bool { return r.crowd == 0 }
	groups = append(groups, lateGroup{who: words.Say("requests that come while no other is under way"), in: alone, cell: second})
	for _, t := range idleTimes {
		groups = append(groups, lateGroup{who: words.Say("requests that come after %s or more without any other", t.String()), in: func(r *lateRow) bool { return r.quiet >= t.Seconds() }})
		groups = append(groups, lateGroup{who: words.Say("requests on a connection that was idle for %s or more", t.String()), in: func(r *lateRow) bool { return r.rest >= t.Seconds() },
			of: func(r *lateRow) bool { return r.place > 1 }})
	}
	fresh := func(r *lateRow) bool { return r.place == 1 }
	known := func(r *lateRow) bool { return r.place > 0 }
	groups = append(groups, lateGroup{who: words.Say("requests on new connections"), in: fresh, of: known})
	for n := int32(2); n <= mostPlaces; n++ {
		groups = append(groups, lateGroup{who: words.Say("the requests that are number %d on their connection", n), in: func(r *lateRow) bool { return r.place == n }, of: known})
	}
	for n := int32(2); n <= mostPlaces; n++ {
		groups = append(groups, lateGroup{who: words.Say("the requests whose number on their connection is a multiple of %d", n), in: func(r *lateRow) bool { return r.place%n == 0 }, of: known})
	}
	groups = append(groups, c.above(place, "", func(t float64) words.Sentence {
		return words.Say("requests after the first %s on their connection", whole(t))
	}, nil, second)...)
	groups = append(groups, c.above(number, "", func(t float64) words.Sentence {
		return words.Say("requests on connections after the first %s", whole(t))
	}, nil, second)...)
	return append(groups, c.times()...)
}

// whole formats a threshold.
func whole(t float64) string { return fmt.Sprint(int64(math.Floor(t))) }

// second is the second in which a request was due.
func second(r *lateRow) int64 { return int64(r.due / time.Second) }

// values are the groups by name: of factors, classes, replicas.
func (c comparison) values() (groups []lateGroup) {
	seen := map[string]bool{}
	add := func(named bool, who words.Sentence, in func(*lateRow) bool) {
		if key := who.String(); !seen[key] {
			seen[key] = true
			groups = append(groups, lateGroup{who: who, in: in, named: named})
		}
	}
	variants := map[string]bool{}
	for i := range c.rows {
		variants[c.rows[i].variant] = true
	}
	for i := range c.rows {
		r := &c.rows[i]
		if r.class != "" {
			add(false, words.Say("requests of class %s", r.class), func(o *lateRow) bool { return o.class == r.class })
		}
		if r.replica != "" {
			add(false, words.Say("requests that %s answered", r.replica), func(o *lateRow) bool { return o.replica == r.replica })
		}
		if variants[r.variant] {
			delete(variants, r.variant)
			for value := range strings.FieldsSeq(r.variant) {
				of := map[string]bool{} // by variant: whether it has the value
				add(true, words.Say("requests with %s", value), func(o *lateRow) bool {
					is, known := of[o.variant]
					if !known {
						is = slices.Contains(strings.Fields(o.variant), value)
						of[o.variant] = is
					}
					return is
				})
			}
		}
	}
	slices.SortFunc(groups, func(a, b lateGroup) int { return strings.Compare(a.who.String(), b.who.String()) })
	return groups
}

// above are groups with a larger value than a tenth, a quarter, half, three quarters and
// nine tenths of the requests.
func (c comparison) above(by func(*lateRow) float64, explain words.Phrase, say func(float64) words.Sentence, scale func(*lateRow) float64, cell func(*lateRow) int64) (groups []lateGroup) {
	return c.divided(by, []float64{0.1, 0.25, 0.5, 0.75, 0.9}, lateGroup{explain: explain, say: say, scale: scale, cell: cell, above: true})
}

// below are groups with a value no larger than that of a tenth and a quarter of the
// requests.
func (c comparison) below(by func(*lateRow) float64, say func(float64) words.Sentence, cell func(*lateRow) int64) []lateGroup {
	return c.divided(by, []float64{0.1, 0.25}, lateGroup{say: say, cell: cell})
}

func (c comparison) divided(by func(*lateRow) float64, at []float64, g lateGroup) (groups []lateGroup) {
	have := make([]float64, 0, len(c.rows))
	for i := range c.rows {
		if v := by(&c.rows[i]); v > 0 {
			have = append(have, v)
		}
	}
	if len(have) < len(c.rows) {
		return nil // not known for all requests
	}
	slices.Sort(have)
	var before float64
	for _, q := range at {
		t := nearestRank(have, q)
		if t == before || t == have[len(have)-1] { // the others, or the group, would be empty
			continue
		}
		before = t
		groups = append(groups, g.at(by, t))
	}
	return groups
}

// at is the group for a threshold.
func (g lateGroup) at(by func(*lateRow) float64, t float64) lateGroup {
	g.who, g.value, g.limit = g.say(t), by, t
	g.in = func(r *lateRow) bool { return by(r) > t == g.above }
	return g
}

// times are groups by parts of periods of the wall clock. A part is judged by how many
// of its turns had late requests, because one burst does not make it periodic.
func (c comparison) times() (groups []lateGroup) {
	first, last := c.rows[0].due, c.rows[len(c.rows)-1].due
	for _, period := range periods {
		if last-first < 4*period {
			continue
		}
		turn := func(r *lateRow) int64 {
			return c.start.Add(r.due).UnixNano() / int64(period/phases)
		}
		for phase := range int64(phases) {
			from, to := time.Duration(phase)*period/phases, time.Duration(phase+1)*period/phases
			groups = append(groups, lateGroup{
				who:  words.Say("requests that come between %s and %s of every %s", from.String(), to.String(), period.String()),
				in:   func(r *lateRow) bool { return turn(r)%phases == phase },
				cell: turn,
			})
		}
	}
	return groups
}

// group compares a group with the others.
func (c comparison) group(g lateGroup) lateness {
	l := c.counted(g)
	if l.few || g.value == nil || l.more() < leastMore {
		return l
	}
	// The sentence names the threshold that separates the late requests best.
	have := make([]float64, len(c.rows))
	for i := range c.rows {
		have[i] = g.value(&c.rows[i])
	}
	slices.Sort(have)
	best := l
	for q := 0.05; q < 0.96; q += 0.05 {
		t := nearestRank(have, q)
		if finer := c.counted(g.at(g.value, t)); !finer.few && finer.p <= best.p && finer.more() > best.more() {
			best = finer
			best.p = l.p
		}
	}
	return best
}

// counted counts the late requests of a group and of the others.
func (c comparison) counted(g lateGroup) lateness {
	l := lateness{lateGroup: g, p: 1}
	var scales []float64 // of the others
	inside := make([]int8, len(c.rows))
	for i := range c.rows {
		r := &c.rows[i]
		switch {
		case g.of != nil && !g.of(r):
			inside[i] = -1
		case g.in(r):
			inside[i] = 1
			l.n++
		default:
			l.others++
			if g.scale != nil {
				scales = append(scales, g.scale(r))
			}
		}
	}
	if l.few = l.n < leastGroup || l.others < leastGroup; l.few {
		return l
	}
	middle := c.plain[among(c.byPlain, inside, l.others, 0.5)]
	spread := c.raw[among(c.byRaw, inside, l.others, 0.9)]
	usualPrompt := max(prompt(&c.rows[among(c.byPrompt, inside, l.others, 0.5)]), 1)
	usualCrowd := crowd(&c.rows[among(c.byCrowd, inside, l.others, 0.5)])
	// work is how many times as much a request is as the others are, at least 1.
	work := func(r *lateRow) float64 {
		return max(1, prompt(r)/usualPrompt, crowd(r)/usualCrowd)
	}
	expected := func(*lateRow) float64 { return middle }
	values := c.plain
	if g.scale != nil {
		values, middle = c.raw, c.raw[among(c.byRaw, inside, l.others, 0.5)]
		slices.Sort(scales)
		usual := nearestRank(scales, 0.5)
		slope := c.slope(c.raw, g.scale, func(i int) bool { return inside[i] == 0 })
		expected = func(r *lateRow) float64 {
			beyond := max(g.scale(r)-usual, 0)
			return middle + max(slope*beyond, middle*beyond/max(usual, 1))
		}
	}
	var extra, late []float64
	cells, lateCells := [2]map[int64]bool{{}, {}}, [2]map[int64]bool{{}, {}}
	for i := range c.rows {
		if inside[i] < 0 {
			continue
		}
		r := &c.rows[i]
		more := values[i] - expected(r)
		isLate := more > c.limit && c.raw[i] > spread*work(r)
		if g.cell != nil {
			cells[inside[i]][g.cell(r)] = true
			if isLate {
				lateCells[inside[i]][g.cell(r)] = true
			}
		}
		if inside[i] == 1 {
			extra = append(extra, more)
			if isLate {
				l.late++
				late = append(late, more)
			}
		} else if isLate {
			l.otherLate++
		}
	}
	slices.Sort(extra)
	l.extra, l.off = medianOf(extra)
	l.median = l.extra
	if 2*l.late < l.n && l.late > 0 {
		slices.Sort(late)
		l.extra, l.off = medianOf(late)
	}
	if g.cell == nil {
		l.p = fisher(l.late, l.n, l.otherLate, l.others)
	} else {
		l.p = fisher(int64(len(lateCells[1])), int64(len(cells[1])), int64(len(lateCells[0])), int64(len(cells[0])))
	}
	return l
}

// medianOf is the median of sorted values, and half of its 99 % confidence interval,
// from order statistics.
func medianOf(v []float64) (median, off float64) {
	n := float64(len(v))
	reach := int(math.Ceil(2.576 * math.Sqrt(n) / 2))
	middle := int(rank(int64(len(v)), 0.5))
	return v[middle], (v[min(middle+reach, len(v)-1)] - v[max(middle-reach, 0)]) / 2
}

func (c comparison) median(by func(*lateRow) float64) float64 {
	all := make([]float64, len(c.rows))
	for i := range c.rows {
		all[i] = by(&c.rows[i])
	}
	slices.Sort(all)
	return nearestRank(all, 0.5)
}

// slope is how much a value grows with another one, 0 at the least: the median slope
// between pairs (Theil 1950, Sen 1968), from some thousand random pairs.
func (c comparison) slope(of []float64, by func(*lateRow) float64, with func(i int) bool) float64 {
	var at []int
	for i := range c.rows {
		if with == nil || with(i) {
			at = append(at, i)
		}
	}
	if len(at) < 2 {
		return 0
	}
	rng := rand.New(rand.NewPCG(1, uint64(len(at))))
	slopes := make([]float64, 0, pairs)
	for range pairs {
		i, j := at[rng.IntN(len(at))], at[rng.IntN(len(at))]
		if x := by(&c.rows[i]) - by(&c.rows[j]); x != 0 {
			slopes = append(slopes, (of[i]-of[j])/x)
		}
	}
	if len(slopes) == 0 {
		return 0
	}
	slices.Sort(slopes)
	return max(nearestRank(slopes, 0.5), 0)
}

// pairs is how many pairs are drawn for a slope.
const pairs = 4000

// fisher is the probability that chance puts so many or more of all late requests into
// the first of two groups (Fisher's exact test, one-sided).
func fisher(late, n, otherLate, others int64) float64 {
	all, total := late+otherLate, n+others
	if late == 0 || all == 0 {
		return 1
	}
	log := func(n, k int64) float64 {
		a, _ := math.Lgamma(float64(n + 1))
		b, _ := math.Lgamma(float64(k + 1))
		c, _ := math.Lgamma(float64(n - k + 1))
		return a - b - c
	}
	whole := log(total, n)
	p := 0.0
	for k := late; k <= min(all, n); k++ {
		if n-k > total-all {
			continue
		}
		p += math.Exp(log(all, k) + log(total-all, n-k) - whole)
	}
	return min(p, 1)
}
