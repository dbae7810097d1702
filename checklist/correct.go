package checklist

import (
	"cmp"
	"maps"
	"slices"

	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/scenarios"
)

// This file judges whether a service is correct and stays stable, not whether it is
// fast.

// timed is a value with its time.
type timed struct{ at, value float64 }

// leastThird is how many values a third of the time must have for its median to
// be compared.
const leastThird = 20

// leastMemory is how often the memory of a process must have been seen in a third
// of the time.
const leastMemory = 3

// third is what was seen in a third of a stretch of time.
type third struct {
	values  []float64 // sorted
	batches [][]timed // by time
}

// thirds are the first and the last third of a stretch of time.
func thirds(values []timed, from, to float64) (first, last third) {
	length := (to - from) / 3
	for begin, t := range map[float64]*third{from: &first, to - length: &last} {
		t.batches = make([][]timed, mostBatches)
		for _, v := range values {
			if v.at < begin || v.at > begin+length || t == &first && v.at == begin+length {
				continue
			}
			at := min(int(mostBatches*(v.at-begin)/length), mostBatches-1)
			t.batches[at] = append(t.batches[at], v)
			t.values = append(t.values, v.value)
		}
		slices.Sort(t.values)
	}
	return first, last
}

// above is how many values of each batch are above the median of the third. The
// trend over the third is subtracted first: it is what drift measures, and does not
// make requests of one moment alike.
func (t third) above() []hits {
	slope := t.slope()
	level := func(v timed) float64 { return nanosecond(v.value - slope*v.at) }
	var levelled []float64
	for _, b := range t.batches {
		for _, v := range b {
			levelled = append(levelled, level(v))
		}
	}
	slices.Sort(levelled)
	middle := nearestRank(levelled, 0.5)
	cut := make([]hits, len(t.batches))
	for i, b := range t.batches {
		for _, v := range b {
			if level(v) > middle {
				cut[i].count++
			}
		}
		cut[i].of = float64(len(b))
	}
	return cut
}

// slope is the trend of the values: the median of the slopes between the medians of
// each two batches (Theil 1950, Sen 1968), which is robust against outliers.
func (t third) slope() float64 {
	var middles []timed
	for _, b := range t.batches {
		if len(b) == 0 {
			continue
		}
		middles = append(middles, timed{
			middle(b, func(t timed) float64 { return t.at }),
			middle(b, func(t timed) float64 { return t.value }),
		})
	}
	var slopes []float64
	for i, a := range middles {
		for _, b := range middles[:i] {
			if a.at != b.at {
				slopes = append(slopes, (a.value-b.value)/(a.at-b.at))
			}
		}
	}
	if len(slopes) == 0 {
		return 0
	}
	slices.Sort(slopes)
	return nearestRank(slopes, 0.5)
}

// middle is the median of what of says of each; of an even number the mean of the
// two in the middle.
func middle(all []timed, of func(timed) float64) float64 {
	var sorted []float64
	for _, t := range all {
		sorted = append(sorted, of(t))
	}
	slices.Sort(sorted)
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// growth compares the medians of two thirds: last ÷ first − 1. It is false when
// either has fewer values than the least.
func growth(first, last third, least int) (ratio float64, ok bool) {
	if min(len(first.values), len(last.values)) < least {
		return 0, false
	}
	before := nearestRank(first.values, 0.5)
	return nearestRank(last.values, 0.5)/before - 1, before > 0
}

// rise is how much a latency rose in a stage, with its bounds.
type rise struct {
	ratio     float64
	high, low *float64
	alike     float64
	n         int64
}

// riseOf is the rise from the first third to the last. Its bounds are the ratios of
// the farther bounds of both medians. Each has half of the error probability
// (Bonferroni).
func riseOf(first, last third, ratio, sure float64) rise {
	each := 1 - (1-sure)/2
	alike := alikeIn(each, [][]hits{first.above(), last.above()})
	bounds := func(t third) (upper, lower *float64) {
		return percentileBounds(each, int64(len(t.values)), 0.5, alike, func(i int64) float64 { return t.values[i] })
	}
	firstHigh, firstLow := bounds(first)
	lastHigh, lastLow := bounds(last)
	r := rise{ratio: max(ratio, 0), high: over(lastHigh, firstLow), low: over(lastLow, firstHigh), alike: alike, n: int64(len(first.values) + len(last.values))}
	for _, bound := range []*float64{r.high, r.low} {
		if bound != nil {
			*bound = max(*bound-1, 0)
		}
	}
	return r
}

// drift decides how much a latency rose in a scope. Each stage is compared with
// itself, because another load has another latency; the stage with the greatest
// rise counts. It is proven if the bound of every stage is within the limit too.
func (f *Finding) drift(o scenarios.Objective, e *evidence) {
	of, ok := latencyOf(o.Arg)
	if !ok {
		f.Why = words.Say("this version does not know how to measure %s", o.Arg)
		return
	}
	where := scopeOf(o)
	where.class = ""
	var worst, widest *rise
	stages := slices.SortedFunc(maps.Keys(e.played), func(a, b stageID) int { return cmp.Compare(e.played[a].from, e.played[b].from) })
	stages = slices.DeleteFunc(stages, func(id stageID) bool { return !where.covers(id) })
	for _, id := range stages {
		var values []timed
		for stage, s := range e.stages {
			if stage.scenario == id.scenario && stage.stage == id.stage && (o.Class == "" || o.Class == stage.class) {
				values = append(values, s.timeline[of]...)
			}
		}
		played := e.played[id]
		first, last := thirds(values, played.from.Seconds(), played.to.Seconds())
		ratio, ok := growth(first, last, leastThird)
		if !ok {
			f.Samples = 0
			f.Why = words.Say("%s/%s has %d answers in a third of its time, and comparing medians needs at least %d; make the stage longer", id.scenario, id.stage, min(len(first.values), len(last.values)), leastThird)
			return
		}
		f.Samples += int64(len(values))
		r := riseOf(first, last, ratio, f.sure)
		if worst == nil || r.ratio > worst.ratio {
			worst = &r
		}
		if widest == nil || widest.high != nil && (r.high == nil || *r.high > *widest.high) {
			widest = &r
		}
	}
	if worst == nil {
		f.Why = words.Say("no stage was played to its end")
		return
	}
	f.decide(worst.ratio, o)
	if o.Op == "==" {
		return
	}
	bound := widest.high
	if atLeast(o) {
		bound = worst.low
	}
	f.Bound = bound
	switch {
	case f.Verdict != Pass:
	case bound == nil:
		f.Why = words.Say("%s; there are too few independent answers for a confidence bound; make the stage longer", f.Why)
	default:
		f.bounded(worst.ratio, *bound, o)
	}
	f.resemblance(worst.n, worst.alike)
}

// wrongLength decides how many answers had another length than was asked for.
func (f *Finding) wrongLength(o scenarios.Objective, s *samples) {
	if s.exact == 0 {
		f.Why = words.Say("no complete answer was requested with a fixed number of tokens (ignore_eos)")
		return
	}
	f.share(s.wrongLength, s.exact, s.alike(f.sure, func(p *part) (int64, int64) { return p.wrongLength, p.exact }), o)
}

// cacheHits decides the share of prompt tokens that the service reports as cached.
func (f *Finding) cacheHits(o scenarios.Objective, s *samples) {
	f.Samples = s.cacheReported
	switch {
	case s.cacheReported == 0 && s.due > s.errors:
		f.Waived, f.Why = o.WhereSupported, words.Say("no answer reports in its usage how many tokens of the prompt were cached (cached_tokens)")
	case s.prompt == 0:
		f.Why = words.Say("no successful answer reports how many tokens its prompt had")
	default:
		f.decide(float64(s.cached)/float64(s.prompt), o)
		f.Why = words.Say("%d of %d tokens: %s", s.cached, s.prompt, f.Why)
	}
}

// canary is an answer to one of the questions that are asked again and again.
type canary struct {
	question       string
	hash           int64
	usage, counted int32
	fromUsage      bool
}

// canaryOf keeps what a canary's answer says.
func canaryOf(r *recording.Request) canary {
	return canary{r.Class, r.AnswerHash, r.OutputTokens, r.AnswerTokens, r.TokensFrom == "usage"}
}

// canariesOf are the canaries that an objective is about.
func (e *evidence) canariesOf(o scenarios.Objective) (all []canary) {
	for _, s := range e.gate.Scenarios {
		if o.Scenario == "" || o.Scenario == s.Name {
			all = append(all, e.canaries[s.Name]...)
		}
	}
	return all
}

// changed decides how many answers differ from the most frequent answer to the same
// question. A question that was answered only once does not count.
func (f *Finding) changed(o scenarios.Objective, all []canary) {
	counts := map[string]map[int64]int64{}
	for _, c := range all {
		if counts[c.question] == nil {
			counts[c.question] = map[int64]int64{}
		}
		counts[c.question][c.hash]++
	}
	var changed, compared int64
	for _, byHash := range counts {
		var sum, most int64
		for _, n := range byHash {
			sum, most = sum+n, max(most, n)
		}
		if sum > 1 {
			compared, changed = compared+sum, changed+sum-most
		}
	}
	if compared == 0 {
		f.Why = words.Say("no question was answered twice, so there is nothing to compare")
		return
	}
	f.share(changed, compared, 1, o)
}

// miscounted decides how many answers had another number of tokens than the
// service said.
func (f *Finding) miscounted(o scenarios.Objective, e *evidence) {
	all := e.canariesOf(o)
	var off, compared int64
	for _, c := range all {
		if c.counted == 0 {
			continue
		}
		compared++
		difference := max(c.usage-c.counted, c.counted-c.usage)
		if !c.fromUsage || difference > 1 && float64(difference) > 0.1*float64(c.counted) {
			off++
		}
	}
	failed, tellsWhy := e.said(recording.ObsTokenizerFailed, o.Scenario)
	if compared > 0 {
		f.share(off, compared, 1, o)
		if tellsWhy {
			f.Why = words.Say("%s (%s: %s)", f.Why, words.Count(int64(failed.Value), "1 answer could not be counted", "%d answers could not be counted"), failed.Text)
		}
		return
	}
	absent, has := e.said(recording.ObsTokenizerAbsent, o.Scenario)
	switch {
	case tellsWhy: // it has one, and is to be held to it
		f.Why = words.Say("no answer could be counted: %s", failed.Text)
	case has:
		f.Waived, f.Why = o.WhereSupported, words.Say("%s, so its counts cannot be checked", absent.Text)
	case len(all) == 0:
		f.Why = words.Say("no canary was answered, so there is nothing to count")
	default:
		f.Why = words.Say("no answer was counted: the recording contains no result of the service's /tokenize")
	}
}

// said is the first observation of a name in a scenario or, without a scenario, in
// the run.
func (e *evidence) said(name, scenario string) (recording.Observation, bool) {
	for _, o := range e.rec.Observations {
		if o.Name == name && (scenario == "" || scenario == o.Subject) {
			return o, true
		}
	}
	return recording.Observation{}, false
}

// replicasReady decides how few replicas the gateway would route to.
func (f *Finding) replicasReady(o scenarios.Objective, e *evidence) {
	from, to, ok := e.playedTime(o.Scenario)
	if !ok {
		f.Why = words.Say("no scenario was played to its end")
		return
	}
	var fewest *float64
	for _, seen := range e.rec.Observations {
		at := seen.At.Seconds()
		if seen.Name != recording.ObsReplicasReady || at > to {
			continue
		}
		// The number is recorded only when it changes, so the last one before the
		// scenario still holds when the scenario begins.
		if fewest == nil || at < from || seen.Value < *fewest {
			fewest = new(seen.Value)
		}
	}
	if reason := e.replicasUnknown(); fewest == nil && !reason.IsZero() {
		f.Waived, f.Why = o.WhereSupported, words.Say("the service does not report how many of its replicas are ready: %s", reason)
		return
	}
	if fewest == nil {
		f.Why = words.Say("the number of ready replicas is unknown, because launchgate did not deploy the service")
		return
	}
	f.Samples = 1
	f.decide(*fewest, o)
}

// memoryGrowth decides how much the process that grew most has grown.
func (f *Finding) memoryGrowth(o scenarios.Objective, e *evidence) {
	from, to, ok := e.playedTime(o.Scenario)
	if !ok {
		f.Why = words.Say("no scenario was played to its end")
		return
	}
	byProcess := map[string][]timed{}
	for _, seen := range e.rec.Observations {
		if at := seen.At.Seconds(); seen.Name == recording.ObsMemory && from <= at && at <= to {
			byProcess[seen.Subject] = append(byProcess[seen.Subject], timed{at, seen.Value})
		}
	}
	var most *float64
	for _, values := range byProcess {
		first, last := thirds(values, from, to)
		if ratio, ok := growth(first, last, leastMemory); ok && (most == nil || ratio > *most) {
			most = &ratio
			f.Samples = int64(len(values))
		}
	}
	if most == nil {
		f.unseenMemory(o, e, len(byProcess) > 0)
		return
	}
	f.decide(max(*most, 0), o)
	f.Why = words.Say("%s; it is what was seen, and has no bound", f.Why)
}

// unseenMemory says why it is not known how much the memory of a service grew.
func (f *Finding) unseenMemory(o scenarios.Objective, e *evidence, seen bool) {
	unreported, has := e.said(recording.ObsMemoryUnreported, o.Scenario)
	unread, failed := e.said(recording.ObsMetricsUnread, o.Scenario)
	switch {
	case seen:
		f.Why = words.Say("the memory of the service was measured fewer than %d times in a third of the time; make the stage longer", leastMemory)
	case failed:
		f.Why = words.Say("the metrics of the service could not be read: %s", unread.Text)
	case has:
		f.Waived, f.Why = o.WhereSupported, words.Say("the service does not report its memory use: %s", unreported.Text)
	default:
		f.Why = words.Say("the memory of the service is unknown (if launchgate did not deploy it, its /metrics must have process_resident_memory_bytes)")
	}
}

// replicasUnknown is the answer of a service that does not report how many replicas
// are ready; zero if it was not asked or does report it.
func (e *evidence) replicasUnknown() words.Sentence {
	for _, o := range e.rec.Observations {
		if o.Name == recording.ObsReplicasUnreported {
			return o.Text
		}
	}
	return words.Sentence{}
}

// playedTime is when a scenario, or with no name the first to the last, was
// played, in seconds.
func (e *evidence) playedTime(scenario string) (from, to float64, ok bool) {
	for id, s := range e.played {
		if scenario != "" && id.scenario != scenario {
			continue
		}
		if begin := s.from.Seconds(); !ok || begin < from {
			from = begin
		}
		to, ok = max(to, s.to.Seconds()), true
	}
	return from, to, ok
}

// wantsTimeline reports whether an objective needs a latency's values in time.
func wantsTimeline(gate scenarios.Gate) (want [perRequest]bool) {
	for _, o := range gate.Objectives {
		if m, _ := scenarios.MetricOf(o.Metric); m.Arg == scenarios.Latency {
			if of, ok := latencyOf(o.Arg); ok {
				want[of] = true
			}
		}
	}
	return want
}
