package reports

import "fmt"

// Say fills a note's phrase. An id that is not in phrases is a mistake in this
// package; a test looks for them, and a reader sees the id.
func (n Note) Say() string {
	if n.ID == "verbatim" {
		return fmt.Sprint(n.Args...)
	}
	text, known := phrases[n.ID]
	if !known {
		return "⟨" + n.ID + "⟩"
	}
	if len(n.Args) == 0 {
		return text
	}
	args := make([]any, len(n.Args))
	for i, a := range n.Args {
		args[i] = a
		if inner, ok := a.(Note); ok {
			args[i] = inner.Say()
		}
	}
	return fmt.Sprintf(text, args...)
}

func say(id string, args ...any) string { return Note{id, args}.Say() }

// phrases are every sentence a report says of itself, in one place, so that
// HTML, Markdown, JUnit and terminal say the same. Those of the verdict are the
// checklist's.
var phrases = map[string]string{
	"outcome.pass":      "Pass",
	"outcome.fail":      "Fail",
	"outcome.unproven":  "Unproven",
	"outcome.invalid":   "Invalid",
	"outcome.under-way": "Under way",

	"sentence.pass":     "Every objective was met, with evidence.",
	"sentence.fail":     "At least one objective was missed.",
	"sentence.unproven": "There is not enough evidence to say.",
	"sentence.invalid":  "The run did not do what it was asked to, so its numbers mean nothing.",

	"also.one":  "One more objective does not hold; it is below.",
	"also.many": "%s more objectives do not hold; they are below.",

	"page.question":    "May it launch?",
	"page.skip":        "Skip to the objectives",
	"page.theme":       "Theme: %s",
	"page.theme.auto":  "automatic",
	"page.theme.light": "light",
	"page.theme.dark":  "dark",
	"page.sections":    "Sections",
	"page.footer":      "Written by launchgate %s from the recording alone: “launchgate report” in this folder writes the same bytes again.",

	"section.objectives":  "Objectives",
	"section.next":        "What to do next",
	"section.timeline":    "Timeline",
	"section.faults":      "Faults",
	"section.latency":     "Latency",
	"section.requests":    "Requests",
	"section.client":      "Client",
	"section.missing":     "Not in this report",
	"section.environment": "Environment",
	"section.definitions": "How each number is defined",

	"fact.target":        "Target",
	"fact.local":         "bundled service, %s replicas",
	"fact.model":         "Model",
	"fact.started":       "Started",
	"fact.measured":      "Measured",
	"fact.requests":      "Requests",
	"fact.errors":        "%s, %s failed",
	"fact.faults":        "Faults",
	"fact.faults.passed": "%s of %s survived",
	"fact.none":          "none",
	"fact.unknown":       "unknown",

	"sentence.under-way": "The run is under way, and this page fills while it goes on. It is judged when it ends.",
	"under-way.title":    "Under way: %s so far",

	"interrupted.title":    "Incomplete: interrupted at %s",
	"interrupted.by":       "Stopped by: %s.",
	"interrupted.cut":      "The recording ends without saying why, as after a crash.",
	"interrupted.unplayed": "Never played: %s.",
	"interrupted.rest":     "What is below was measured before that, and is not the whole run.",

	"objective.none":       "The gate has no objectives, so nothing could be proven.",
	"objective.unmeasured": "not measured",
	"objective.samples":    "%s samples",
	"objective.sample":     "1 sample",
	"objective.spare":      "%s to spare",
	"objective.missed":     "missed by %s",
	"objective.times":      "%s × the limit",
	"objective.exact":      "met exactly",
	"objective.limit":      "Limit",
	"objective.value":      "Value",
	"objective.margin":     "Margin",
	"objective.objective":  "Objective",
	"objective.outcome":    "Verdict",
	"objective.bound":      "99 %% confidence: up to %s",

	"next.rerun":          "Run it again to its end: a run that was cut short decides nothing.",
	"next.client":         "Mend the client first, because nothing measured with it can be believed: %s",
	"next.unproven":       "%s — %s",
	"next.fault":          "%s — %s",
	"next.failed":         "%s — %s",
	"next.worst":          "%s — look at %s, where %s reached %s at p95: compare streams in flight, queue and replicas ready at that moment.",
	"next.worst.fault":    "%s — look at %s, where %s reached %s at p95, during %s: compare streams in flight, queue and replicas ready at that moment.",
	"next.errors":         "%s — %s of %s failed requests: %s. Their stories are under Requests.",
	"next.errors.replica": "%s — %s of %s failed requests: %s; %s of those were answered by %s. Their stories are under Requests.",
	"next.recovery":       "%s — recovery took %s, of which %s passed before the fault was noticed: shorten the longer part.",
	"next.launch":         "Launch. Keep this folder: it is the evidence, and anyone can judge it again.",
	"next.narrowest":      "Watch %s in production: it passed with the least to spare, %s.",
	"next.more":           "%s more reasons stand beside the objectives and faults.",
	"next.reproduce":      "Run it again, in this folder",
	"next.copy":           "Copy",
	"next.copied":         "Copied",

	"terminal.report": "Report",

	"timeline.about":  "One clock for everything, from the start of the run. Each point stands for %s. Requests count where they were due, failures where they were seen; a gap in a line is time in which nothing was measured.",
	"timeline.help":   "Hover to read every series at one moment, drag to zoom, double-click to see all. With the keyboard: arrows move, + and − zoom, Escape resets.",
	"timeline.none":   "No request was due, so there is nothing to draw.",
	"timeline.chart":  "%s over time; its values are in the legend while you move.",
	"timeline.open":   "end not seen",
	"timeline.rto":    "RTO %s",
	"timeline.gap":    "no data",
	"timeline.stages": "Stages and faults",

	"panel.load":           "Load",
	"panel.load.about":     "requests per second",
	"panel.ttft":           "Time to first token",
	"panel.ttft.about":     "of requests due in that moment",
	"panel.icl":            "Inter-chunk latency",
	"panel.icl.about":      "waits between the chunks of streams",
	"panel.probe":          "Probe",
	"panel.probe.about":    "share of probes that were not answered in full",
	"panel.replicas":       "Replicas ready",
	"panel.replicas.about": "as the gateway sees them",
	"panel.streams":        "Work in progress",
	"panel.streams.about":  "requests and streams",
	"panel.kv":             "KV cache",
	"panel.kv.about":       "share in use on the fullest replica",
	"panel.memory":         "Resident memory",
	"panel.memory.about":   "of all processes watched",
	"panel.client":         "Client CPU",
	"panel.client.about":   "of one core",

	"series.offered":       "offered",
	"series.sent":          "sent",
	"series.finished":      "finished",
	"series.errors":        "failed",
	"series.p50":           "p50",
	"series.p95":           "p95",
	"series.probes_failed": "failed probes",
	"series.ready":         "replicas ready",
	"series.open":          "waited for by the client",
	"series.in_flight":     "streams in flight",
	"series.queue":         "queued",
	"series.kv_max":        "KV cache in use",
	"series.memory":        "resident memory",
	"series.client_cpu":    "client CPU",

	"mark.declared":  "declared",
	"mark.injected":  "injected",
	"mark.in_effect": "in effect",
	"mark.reverted":  "reverted",
	"mark.gone":      "gone",
	"mark.recovered": "recovered",
	"mark.failed":    "step failed",

	"fault.none":      "No fault was injected.",
	"fault.detection": "Detection",
	"fault.rto":       "RTO",
	"fault.rpo":       "RPO",
	"fault.lost":      "Requests lost",
	"fault.unseen":    "not seen",
	"fault.life":      "Life of the fault",

	"latency.about":      "Response times count from the moment a request was due, so a service that makes callers wait cannot hide it. Failed requests are not in these figures; they are errors.",
	"latency.none":       "No request succeeded, so there is no latency to show.",
	"latency.scenario":   "Scenario",
	"latency.stage":      "Stage",
	"latency.metric":     "Metric",
	"latency.samples":    "Samples",
	"latency.requests":   "Requests",
	"latency.failed":     "Failed",
	"latency.tokens":     "Output tokens",
	"latency.goodput":    "Goodput",
	"latency.max":        "max",
	"latency.closed":     "closed loop of %d users: a slow service is asked less",
	"latency.by_stage":   "By stage",
	"latency.curve":      "By percentile",
	"latency.ecdf":       "Share answered within",
	"latency.unmeasured": "—",
	"latency.sketch":     "Curves and stage figures come from buckets and are within 0.8 % of the sample they stand for.",

	"metric.ttft":    "Time to first token",
	"metric.tpot":    "Time per output token",
	"metric.icl":     "Inter-chunk latency",
	"metric.latency": "Latency to the end",

	"requests.none":        "No request was recorded.",
	"requests.failed":      "Failed",
	"requests.failed.none": "None of %s failed.",
	"requests.some":        "The first few of each kind.",
	"requests.slow_first":  "Longest to the first token",
	"requests.slow_end":    "Longest to the end",
	"requests.waited":      "waiting to be sent",
	"requests.prefill":     "to the first token",
	"requests.decode":      "decoding",
	"requests.stalled":     "longest stall",
	"requests.broke":       "failed here",
	"requests.first":       "first",
	"requests.end":         "end",

	"story.due":        "Due at %s.",
	"story.sent":       "Sent %s later.",
	"story.never_sent": "It was never sent.",
	"story.headers":    "Response headers after %s.",
	"story.first":      "First token after %s.",
	"story.no_token":   "No token came.",
	"story.chunks":     "%s chunks, the longest wait between two %s, at +%s.",
	"story.tokens":     "%s output tokens.",
	"story.end":        "Ended after %s.",
	"story.no_end":     "Its end was not recorded.",
	"story.status":     "HTTP status %s.",
	"story.finish":     "Finish reason: %s.",
	"story.replica":    "Answered by %s.",
	"story.retries":    "Retried %s times by the gateway.",
	"story.fault":      "During %s.",

	"error.connect":   "no connection",
	"error.timeout":   "given up by the client after its timeout",
	"error.status":    "HTTP status outside 2xx",
	"error.in_band":   "an error inside a 2xx stream",
	"error.truncated": "the stream broke off before its end",
	"error.protocol":  "the answer was not the protocol",
	"error.empty":     "finished without a single token",
	"error.not_sent":  "due and never sent",
	"error.cancelled": "in flight when the run was interrupted",
	"error.other":     "failed in another way",

	"section.cost":  "Cost",
	"cost.about":    "%d × %s, those kept for a failure with them, at %s an hour together; prices of %s, %s. Only answers that met every limit count, and all the time that was paid for does.",
	"cost.million":  "A million output tokens",
	"cost.request":  "A request",
	"cost.hour":     "An hour",
	"cost.options":  "Bought otherwise",
	"cost.saving":   "Saves",
	"cost.evidence": "Evidence",

	"client.valid":    "The client kept its own schedule, so what it measured is the service.",
	"client.invalid":  "The client was itself the bottleneck.",
	"client.lag":      "Send lag",
	"client.offered":  "offered",
	"client.achieved": "achieved",
	"client.gc":       "GC pause p99",
	"client.sched":    "Scheduler delay p99",
	"client.cpu":      "CPU, highest",
	"client.read":     "Read delay p99",
	"client.files":    "Descriptors",
	"client.ports":    "Ports",
	"client.bound":    "of %s",

	"missing.none":       "Nothing is known to be missing.",
	"missing.impossible": "%s requests have times that cannot be, and were left out.",
	"missing.scenario":   "No request of scenario %s was recorded.",
	"missing.chunks":     "The times of chunks were kept of %s of the requests: charts of inter-chunk latency and stories show those, and objectives are judged by the gaps of all.",
	"missing.panel":      "%s: nothing was observed, so it is not drawn.",
	"missing.hole":       "%s: no observation from %s to %s.",

	"environment.version":  "launchgate",
	"environment.seed":     "Seed",
	"environment.url":      "Address",
	"environment.host":     "Client host",
	"environment.allowed":  "Allowed",
	"environment.cores":    "%s cores",
	"environment.memory":   "Memory",
	"environment.go":       "Go",
	"environment.command":  "Command",
	"environment.files":    "SHA-256 of the recording",
	"environment.unsummed": "none: the recording was never closed",

	"define.due":             "Due",
	"define.due.text":        "When the schedule wanted the request sent. Response times start here, whether or not the client or the service was ready.",
	"define.ttft":            "TTFT",
	"define.ttft.text":       "Time to first token: the first non-empty fragment of text, reasoning or tool call, minus Due. An empty first chunk is not a token.",
	"define.tpot":            "TPOT",
	"define.tpot.text":       "Time per output token of one request: from first to last token, divided by the tokens after the first chunk. Undefined for a single token, never zero.",
	"define.icl":             "ICL",
	"define.icl.text":        "Inter-chunk latency: the raw waits between the content chunks of a stream. A chunk may carry several tokens.",
	"define.success":         "Success",
	"define.success.text":    "HTTP 2xx, no error inside the stream, a finish reason and [DONE], and at least one token. A stream that breaks in the middle is an error.",
	"define.goodput":         "Goodput",
	"define.goodput.text":    "Requests per second that met all latency objectives. Errors stay in the denominator.",
	"define.percentile":      "Percentiles",
	"define.percentile.text": "Nearest rank. A percentile needs samples before it can pass: at 99 % confidence p90 needs 64, p95 130, p99 662 and p99.9 6,636; with fewer it is unproven.",
	"define.rto":             "RTO",
	"define.rto.text":        "From the fault seen in effect to the end of the first of several consecutive complete answers, as a client sees it. Detection is a separate number.",
	"define.rpo":             "RPO",
	"define.rpo.text":        "Age of the oldest acknowledged write that was missing, duplicated or truncated after recovery. Without a final read it is unknown, not zero.",
	"define.lag":             "Send lag",
	"define.lag.text":        "Sent minus Due. It belongs to the client: past its bounds the run is invalid, whatever the service did.",
	"define.outcome":         "Verdicts",
	"define.outcome.text":    "Pass (exit code 0): met, with enough evidence. Fail (1): missed. Unproven (2): not enough evidence to say. Invalid (3): the run did not do what it was asked, so its numbers mean nothing.",
}

// definitions are the glossary, in the order it is read.
var definitions = []string{"due", "ttft", "tpot", "icl", "success", "goodput", "percentile", "rto", "rpo", "lag", "outcome"}
