package checklist

import (
	"slices"

	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/scenarios"
)

// fromDue are the metrics that need to know when requests were due.
var fromDue = []string{"ttft", "ttfo", "latency", "attainment", "goodput", "achieved_rate", "drift", "late_for_some", "cost_per_million_output_tokens"}

// notTold are metrics of times and headers that the files of the tools do not have, or
// not all of them.
var notTold = []string{"ttfo", "end_delay", "refused_rate", "broken_rate"}

// imported is the tool that made the run, if it was not launchgate, and whether its
// file says when requests were due.
func (e *evidence) imported() (tool string, dueKnown bool) {
	if e.rec == nil { // evidence of measures alone
		return "", true
	}
	i := slices.IndexFunc(e.rec.Observations, func(o recording.Observation) bool { return o.Name == recording.ObsImported })
	if i < 0 {
		return "", true
	}
	return e.rec.Observations[i].Subject, e.rec.Observations[i].Value == 1
}

// untold says what an objective needs that the file of an imported run does not tell.
func (e *evidence) untold(o scenarios.Objective) words.Sentence {
	tool, dueKnown := e.imported()
	if tool != "" && (slices.Contains(notTold, o.Metric) || slices.Contains(notTold, o.Arg)) {
		return words.Say("the file of %s does not tell what %s is made of", tool, o.Metric)
	}
	if tool == "" || dueKnown || !slices.Contains(fromDue, o.Metric) {
		return words.Sentence{}
	}
	return words.Say("the file of %s does not say when requests were due, and %s starts there; service_ttft and service_latency start when a request was sent", tool, o.Metric)
}

// ofOthers warns that another tool's client was not watched.
func (e *evidence) ofOthers() []words.Sentence {
	tool, _ := e.imported()
	if tool == "" {
		return nil
	}
	return []words.Sentence{words.Say("Warning: the run was made by %s and imported. Its file does not say whether that client was itself too slow, and it has no faults, probes or metrics of the service.", tool)}
}
