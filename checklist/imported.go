package checklist

import (
	"slices"

	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/scenarios"
)

// fromDue are the metrics that need to know when requests were due.
var fromDue = []string{"ttft", "ttfo", "latency", "attainment", "goodput", "achieved_rate", "drift", "late_for_some", "cost_per_million_output_tokens"}

// notTold are metrics of times and headers that the files of the tools do not have, or
// not all of them.
var notTold = []string{"ttfo", "end_delay", "refused_rate", "broken_rate"}

// untold says what an objective needs that the file of an imported run does not tell.
func (e *evidence) untold(o scenarios.Objective) words.Sentence {
	if e.tool == "" {
		return words.Sentence{}
	}
	if slices.Contains(notTold, o.Metric) || slices.Contains(notTold, o.Arg) {
		return words.Say("the file of %s does not tell what %s is made of", e.tool, o.Metric)
	}
	if e.dueKnown || !slices.Contains(fromDue, o.Metric) {
		return words.Sentence{}
	}
	return words.Say("the file of %s does not say when requests were due, and %s starts there; service_ttft and service_latency start when a request was sent", e.tool, o.Metric)
}

// ofOthers warns that another tool's client was not watched.
func (e *evidence) ofOthers() []words.Sentence {
	if e.tool == "" {
		return nil
	}
	return []words.Sentence{words.Say("Warning: the run was made by %s and imported. Its file does not say whether that client was itself too slow, and it has no faults, probes or metrics of the service.", e.tool)}
}
