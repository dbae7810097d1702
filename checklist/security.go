package checklist

import (
	"slices"

	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/scenarios"
)

// security decides how many findings of a severity or worse a scan has. Findings with a
// valid waiver do not count. If a check that the gate asks for could not look, although
// it could have found such a finding, the objective is unproven.
func (f *Finding) security(o scenarios.Objective, e *evidence) {
	scan := e.rec.Scan
	ended := slices.ContainsFunc(e.rec.Observations, func(o recording.Observation) bool { return o.Name == recording.ObsScanEnded })
	if len(scan) == 0 && !ended {
		f.Why = words.Say("the recording contains no security scan, and a missing scan does not mean that there are no findings")
		return
	}
	var counted []string // the findings, the worst first
	var doubtful []recording.ScanResult
	waived := 0
	found := Found(scan)
	for _, c := range found {
		switch {
		case !atLeastAs(c.Score, o.Arg):
		case c.Waiver.Holds(e.rec.Environment.StartedAt):
			waived++
		default:
			counted = append(counted, c.Check)
		}
	}
	for _, r := range scan {
		switch {
		case r.LeftOut || !atLeastAs(r.Worst, o.Arg):
		case r.Outcome == recording.ScanUnproven:
			doubtful = append(doubtful, r)
		default:
			f.Samples++
		}
	}
	if f.Samples == 0 {
		f.Why = words.Say("no check of the scan that could find one completed")
		if len(doubtful) > 0 {
			f.Why = words.Say("%s; the first: %s, %s", f.Why, doubtful[0].Check, doubtful[0].Why.Sentence)
		}
		return
	}
	f.decide(float64(len(counted)), o)
	if len(counted) > 0 {
		f.Why = words.Say("%s; the worst: %s, %s", f.Why, counted[0], worstOf(found, o, e).Title.Sentence)
	}
	if waived > 0 {
		f.Why = words.Say("%s; %s", f.Why, words.Count(int64(waived), "1 more is waived", "%d more are waived"))
	}
	switch {
	case f.Verdict == Fail:
	case !ended:
		f.Verdict, f.Why = Unproven, words.Say("the scan did not complete")
	case len(doubtful) > 0:
		f.Verdict = Unproven
		f.Why = words.Say("%s; the first: %s, %s", words.Count(int64(len(doubtful)), "1 check that could find one is unproven", "%d checks that could find one are unproven"),
			doubtful[0].Check, doubtful[0].Why.Sentence)
	}
}

// FoundBy is a finding with the check that found it.
type FoundBy struct {
	recording.ScanFinding
	Check string
}

// Found are the findings of a scan, the worst first.
func Found(scan []recording.ScanResult) []FoundBy {
	var all []FoundBy
	for _, r := range scan {
		for _, f := range r.Findings {
			all = append(all, FoundBy{f, r.Check})
		}
	}
	slices.SortStableFunc(all, func(a, b FoundBy) int {
		switch {
		case a.Score > b.Score:
			return -1
		case a.Score < b.Score:
			return 1
		}
		return 0
	})
	return all
}

// worstOf is the worst finding that counts for an objective.
func worstOf(found []FoundBy, o scenarios.Objective, e *evidence) FoundBy {
	i := slices.IndexFunc(found, func(f FoundBy) bool {
		return atLeastAs(f.Score, o.Arg) && !f.Waiver.Holds(e.rec.Environment.StartedAt)
	})
	if i < 0 {
		return FoundBy{}
	}
	return found[i]
}

// atLeastAs reports whether a score is of a severity or worse.
func atLeastAs(score float64, severity string) bool {
	at := slices.Index(scenarios.Severities, recording.Severity(score))
	return at >= 0 && at <= slices.Index(scenarios.Severities, severity)
}
