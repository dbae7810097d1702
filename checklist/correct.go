package checklist

import (
	"slices"

	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/scenarios"
)

// What is judged here is whether a service is right and stays so, not whether
// it is quick.

// timed is a value with its time.
type timed struct{ at, value float64 }

// leastThird is how many values a third of the time must have for its median to
// be compared.
const leastThird = 20

// growth compares the medians of the last and the first third of a stretch of
// time: last ÷ first − 1. It is false when either has too few values, and then
// says how many.
func growth(values []timed, from, to float64, least int) (ratio float64, fewest int, ok bool) {
	var first, last []float64
	for _, v := range values {
		switch {
		case v.at < from+(to-from)/3:
			first = append(first, v.value)
		case v.at >= to-(to-from)/3:
			last = append(last, v.value)
		}
	}
	if fewest = min(len(first), len(last)); fewest < least {
		return 0, fewest, false
	}
	slices.Sort(first)
	slices.Sort(last)
	before := nearestRank(first, 0.5)
	return nearestRank(last, 0.5)/before - 1, fewest, before > 0
}

// drift decides how a latency changed in a scope.
func (f *Finding) drift(o scenarios.Objective, e *evidence) {
	of := slices.Index(latencyNames[:], o.Arg)
	var ratio *float64
	where := scopeOf(o)
	where.class = ""
	for id, played := range e.played { // each stage by itself: another load has another latency
		if !where.covers(id) {
			continue
		}
		var values []timed
		for stage, s := range e.stages {
			if stage.scenario == id.scenario && stage.stage == id.stage && (o.Class == "" || o.Class == stage.class) {
				values = append(values, s.timeline[of]...)
			}
		}
		grown, fewest, ok := growth(values, played.from.Seconds(), played.to.Seconds(), leastThird)
		if !ok {
			f.Why = words.Say("%s/%s has %d answers in a third of its time, and %d are the least that a median is compared by; a longer stage would have more", id.scenario, id.stage, fewest, leastThird)
			f.Value = nil
			return
		}
		f.Samples += int64(len(values))
		if ratio == nil || grown > *ratio {
			ratio = &grown
		}
	}
	if ratio == nil {
		f.Why = words.Say("no stage was played to its end")
		return
	}
	f.decide(max(*ratio, 0), o)
}

// wrongLength decides how many answers had another length than was asked for.
func (f *Finding) wrongLength(o scenarios.Objective, s *samples) {
	if s.exact == 0 {
		f.Why = words.Say("no complete answer was to have a given number of tokens (ignore_eos)")
		return
	}
	f.share(s.wrongLength, s.exact, s.alike(f.sure, func(p *part) (int64, int64) { return p.wrongLength, p.exact }), o)
}

// cacheHits decides how much of the prompts a cache had, by what the service says.
func (f *Finding) cacheHits(o scenarios.Objective, s *samples) {
	f.Samples = s.told
	switch {
	case s.told == 0 && s.due > s.errors:
		f.Waived, f.Why = o.WhereSupported, words.Say("no answer says in its usage how many tokens of the prompt a cache had (cached_tokens)")
	case s.prompt == 0:
		f.Why = words.Say("no request that succeeded says how many tokens its prompt had")
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

// changed decides how many answers were not what most to the same question
// were. A question that was answered once has nothing to compare with.
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
func (f *Finding) miscounted(o scenarios.Objective, all []canary) {
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
	if compared == 0 {
		f.Why = words.Say("the service has no /tokenize, so its counts cannot be checked")
		return
	}
	f.share(off, compared, 1, o)
}

// observed decides the objectives about what was seen beside the requests.
func (f *Finding) observed(o scenarios.Objective, e *evidence) {
	from, to, ok := e.playedTime(o.Scenario)
	if !ok {
		f.Why = words.Say("no scenario was played to its end")
		return
	}
	bySubject := map[string][]timed{}
	name := map[string]string{"memory_growth": recording.ObsMemory, "replicas_ready": recording.ObsReplicasReady}[o.Metric]
	var fewest *float64
	for _, seen := range e.rec.Observations {
		if at := seen.At.Seconds(); seen.Name == name && at <= to {
			if at >= from {
				bySubject[seen.Subject] = append(bySubject[seen.Subject], timed{at, seen.Value})
			}
			// What is told only when it changes still holds when the scenario begins.
			if fewest == nil || at < from || seen.Value < *fewest {
				fewest = new(seen.Value)
			}
		}
	}
	if o.Metric == "replicas_ready" {
		if untold := e.untold(); fewest == nil && !untold.IsZero() {
			f.Waived, f.Why = o.WhereSupported, words.Say("the service does not say how many of its replicas are ready: %s", untold)
			return
		}
		if fewest == nil {
			f.Why = words.Say("nobody could be asked how many replicas are ready: launchgate did not deploy the service")
			return
		}
		f.Samples = 1
		f.decide(*fewest, o)
		return
	}
	var most *float64
	for _, values := range bySubject {
		if ratio, _, ok := growth(values, from, to, 3); ok && (most == nil || ratio > *most) {
			most = &ratio
			f.Samples = int64(len(values))
		}
	}
	if most == nil {
		f.Why = words.Say("the memory of the service was not seen often enough: it was not deployed by launchgate and has no process_resident_memory_bytes on its /metrics, or the scenario was too short")
		return
	}
	f.decide(max(*most, 0), o)
}

// untold is what a service answered that does not say how many replicas are
// ready; it says nothing where it was not asked, or said.
func (e *evidence) untold() words.Sentence {
	for _, o := range e.rec.Observations {
		if o.Name == recording.ObsReplicasUntold {
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
		if o.Metric == "drift" {
			want[slices.Index(latencyNames[:], o.Arg)] = true
		}
	}
	return want
}
