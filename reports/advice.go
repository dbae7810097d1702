package reports

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/launchgate/launchgate/checklist"
	"github.com/launchgate/launchgate/checklist/release"
	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/scenarios"
)

const mostAdvice = 4

// next is what to do next, derived from what was measured: the worst moment, the
// most frequent error, what is missing for a decision.
func next(r Report) []words.Sentence {
	var notes []words.Sentence
	if r.Verdict.Incomplete {
		again := words.Say("next.rerun")
		if r.Interrupted != nil && r.Interrupted.NotBegun {
			again = words.Say("next.remove")
		}
		notes = append(notes, again)
	}
	if !r.Verdict.Client.Valid && !r.Verdict.Client.Why.IsZero() {
		notes = append(notes, words.Say("next.client", r.Verdict.Client.Why))
	}
	for _, o := range r.Objectives {
		switch o.Verdict {
		case checklist.Fail:
			notes = append(notes, r.afterFailure(o))
		case checklist.Unproven, checklist.Invalid:
			if !r.Verdict.Incomplete && !o.Waived { // running it to its end comes first
				notes = append(notes, words.Say("next.unproven", o.Source, o.Why))
			}
		}
	}
	for _, f := range r.Verdict.Faults {
		covered := slices.ContainsFunc(r.Objectives, func(o Objective) bool {
			return o.Declared.Arg == f.Kind && (o.Scenario == "" || o.Scenario == f.Scenario) && o.Verdict != checklist.Pass && !o.Waived
		})
		if f.Verdict != checklist.Pass && !covered && !r.Verdict.Incomplete {
			notes = append(notes, words.Say("next.fault", faultName(f), f.Why))
		}
	}
	if r.Verdict.Verdict == checklist.Pass {
		notes = append(notes, r.beforeLaunch()...)
		if len(notes) == 0 {
			notes = append(notes, words.Say("next.launch"))
		} else {
			notes = append(notes, words.Say("next.launch.then"))
		}
		if o, ok := narrowest(r.Objectives); ok && *o.Margin < 0.5 {
			notes = append(notes, words.Say("next.narrowest", o.Source, percent(*o.Margin)))
		}
	}
	notes = distinct(notes)
	if more := len(notes) - mostAdvice; more > 1 {
		notes = append(notes[:mostAdvice], words.Say("next.more", count(int64(more))))
	}
	return notes
}

// fewRequests is the number of requests below which the report advises to send more:
// fewer do not prove a p95 with 99 % confidence.
const fewRequests = 130

// beforeLaunch is what is still open of a run that passed.
func (r Report) beforeLaunch() []words.Sentence {
	var open []words.Sentence
	if c := r.Checklist; c != nil && c.State != release.Done {
		var names []string
		for _, item := range c.Items {
			if item.State != release.Done {
				names = append(names, r.Language.Word(item.Name.Sentence))
			}
		}
		n := len(names)
		if n > namedItems {
			names = append(names[:namedItems], "…")
		}
		open = append(open, words.Say("next.checklist", count(int64(n)), count(int64(len(c.Items))), r.Language.join("text.list", names)))
	}
	switch {
	case r.Requests == 0 && len(r.Scan) > 0 && len(r.Stages) == 0: // there was no load to have more of
		open = append(open, words.Say("next.scanned"))
	case r.Requests < fewRequests:
		open = append(open, words.Say("next.few", count(r.Requests), count(fewRequests), percent(couldFail(r.Requests))))
	}
	return open
}

const namedItems = 4

// couldFail is the 99 % upper bound of the share that fails if none of n requests
// failed.
func couldFail(n int64) float64 { return 1 - math.Pow(0.01, 1/max(float64(n), 1)) }

// distinct leaves out repeated notes and repeated reasons: if a fault was not
// injected, all its objectives are unproven for the same reason.
func distinct(notes []words.Sentence) []words.Sentence {
	var kept []words.Sentence
	var said []words.Sentence
	for _, n := range notes {
		reason := n
		if unproven, ok := n.Args, n.Phrase == "next.unproven"; ok {
			reason = unproven[1].(words.Sentence)
		}
		if !slices.ContainsFunc(said, func(s words.Sentence) bool { return s.Same(reason) }) {
			said = append(said, reason)
			kept = append(kept, n)
		}
	}
	return kept
}

func (r Report) afterFailure(o Objective) words.Sentence {
	switch m, _ := scenarios.MetricOf(o.Declared.Metric); m.Cause {
	case scenarios.CauseFirstToken:
		return r.worstMoment(o, "ttft")
	case scenarios.CauseTokens:
		return r.worstMoment(o, "icl")
	case scenarios.CauseErrors:
		return r.commonError(o)
	case scenarios.CauseRecovery:
		return r.recovery(o)
	}
	return words.Say("next.failed", o.Source, o.Why)
}

// worstMoment points at the bin with the highest p95 in which the objective's
// scenario ran.
func (r Report) worstMoment(o Objective, panel string) words.Sentence {
	at, worst := -1, 0.0
	for _, p := range r.Timeline.Panels {
		if p.ID != panel {
			continue
		}
		for i, v := range p.Series[len(p.Series)-1].Data {
			if !math.IsNaN(v) && v > worst && r.Timeline.during(i, o.Scenario) {
				at, worst = i, v
			}
		}
	}
	if at < 0 {
		return words.Say("next.failed", o.Source, o.Why)
	}
	from := r.Timeline.Start + float64(at)*r.Timeline.Width
	args := []any{o.Source, clock(from), words.Say("panel." + words.Phrase(panel)), seconds(worst)}
	if met := r.Timeline.faultsDuring(from, from+r.Timeline.Width); len(met) > 0 {
		return words.Say("next.worst.fault", append(args, r.faultLabels(met))...)
	}
	return words.Say("next.worst", args...)
}

// during is whether a bin lies in a stage of the scenario; any bin does where
// no scenario is named or no stage was seen.
func (t Timeline) during(bin int, scenario string) bool {
	from := t.Start + float64(bin)*t.Width
	seen := false
	for _, s := range t.Stages {
		if s.Scenario != scenario {
			continue
		}
		seen = true
		if s.From < from+t.Width && from < s.To {
			return true
		}
	}
	return scenario == "" || !seen
}

func (r Report) faultLabels(ids []string) string {
	var labels []string
	for _, f := range r.Timeline.Faults {
		for _, id := range ids {
			if f.ID == id {
				labels = append(labels, f.Label)
			}
		}
	}
	return strings.Join(labels, ", ")
}

func (r Report) commonError(o Objective) words.Sentence {
	var total int64
	var most *ErrorCount
	for i, c := range r.ErrorCounts {
		if o.Scenario != "" && c.Scenario != o.Scenario {
			continue
		}
		total += c.Count
		if most == nil {
			most = &r.ErrorCounts[i]
		}
	}
	if most == nil {
		return words.Say("next.failed", o.Source, o.Why)
	}
	args := []any{o.Source, count(most.Count), count(total), errorName(most.Error)}
	if len(most.Replicas) > 0 && most.Replicas[0].Count*2 > most.Count {
		return words.Say("next.errors.replica", append(args, count(most.Replicas[0].Count), most.Replicas[0].Replica)...)
	}
	return words.Say("next.errors", args...)
}

// recovery splits the time a fault cost into what the service needed to come
// back, so that a reader knows which part to shorten.
func (r Report) recovery(o Objective) words.Sentence {
	for _, f := range r.Faults {
		if f.Kind != o.Declared.Arg || f.RTOSeconds == nil {
			continue
		}
		if f.DetectionSeconds != nil {
			return words.Say("next.recovery", o.Source, seconds(*f.RTOSeconds), seconds(*f.DetectionSeconds))
		}
	}
	return words.Say("next.failed", o.Source, o.Why)
}

// narrowest is the passed objective with the smallest share of its limit left.
func narrowest(rows []Objective) (Objective, bool) {
	var found Objective
	for _, o := range rows {
		if o.Margin != nil && o.Declared.Op != "==" && (found.Margin == nil || *o.Margin < *found.Margin) {
			found = o
		}
	}
	return found, found.Margin != nil
}

// reproduce repeats the run from its own folder, whose gate.yaml is the gate as
// it was resolved.
func reproduce(e recording.Environment) string {
	return "launchgate run gate.yaml --seed " + strconv.FormatUint(e.Seed, 10)
}

func terminalNext(b *strings.Builder, p paint, r Report) {
	fmt.Fprintf(b, "\n%s\n", p.bold(r.Language.say("section.next")))
	for i, n := range r.Next {
		fmt.Fprintf(b, "  %d. %s\n", i+1, printable(r.Language.Word(n)))
	}
}

func markdownNext(b *strings.Builder, r Report) {
	l := r.Language
	fmt.Fprintf(b, "**%s**\n\n", l.say("section.next"))
	for i, n := range r.Next {
		fmt.Fprintf(b, "%d. %s\n", i+1, markdownText(l.Word(n)))
	}
	fmt.Fprintf(b, "\n%s\n", l.say("text.named", l.say("next.reproduce"), markdownCode(r.Reproduce)))
}
