package scenarios

import (
	"slices"

	"github.com/launchgate/launchgate/internal/words"
)

// What a threshold is measured in.
const (
	UnitSeconds         = "s"
	UnitRatio           = "ratio"
	UnitPerSecond       = "per_second"
	UnitTokensPerSecond = "tokens_per_second"
	UnitUSD             = "usd"
	UnitCount           = "count"
)

// Metric is a number an objective can promise something about. Everything that
// depends on which metric it is, is a field of its row; how it is measured is in
// checklist/measures.go, by its name.
type Metric struct {
	Name    string
	Unit    string
	Example string       // an objective over it
	Means   words.Phrase // what is measured, in a sentence
	// Distribution: the metric has a value for every request, and the objective
	// names a statistic of them, as in p95(ttft).
	Distribution bool
	// PerChunk: it has a value for every chunk of an answer, not one for a request.
	PerChunk bool
	// Grows: the ratio is of a change, and can be above 100 %.
	Grows bool
	// MoreIsBetter: a service is better when the metric is higher.
	MoreIsBetter bool
	// Optional: a sound service may lack what it is measured by, and an objective
	// can end in "where supported".
	Optional bool
	// Arg is what stands in the brackets of any other metric; empty for none.
	Arg Arg
	// Of are the latencies that the brackets may name, where Arg is one.
	Of []string
	// Scope is how far "in" may narrow the metric.
	Scope Scope
	// Needs is what the gate has to have for it to be measured.
	Needs Need
	// Bound is how its confidence bound is computed.
	Bound Bound
	// Tokens: it counts tokens, so the service has to report how many there were.
	Tokens bool
	// Errors: failed requests make it worse.
	Errors bool
	OfGPUs bool // its argument is a fault that strikes one GPU
	// Speed: it says how fast the service is, so a stage whose backlog still grows
	// proves nothing of it.
	Speed bool
	// OpenLoop: it is measured against a rate of arrivals, which a stage with users
	// does not have.
	OpenLoop bool
	// ByGroup: it compares groups of requests, such as those with long prompts.
	ByGroup bool
	// Cause is where a report looks for the reason of a missed limit.
	Cause Cause
}

// Need is what of a gate a metric is measured by, beside its load.
type Need string

// What a metric can need.
const (
	NeedsNothing    Need = ""
	NeedsCanaries   Need = "canary in the scenario"
	NeedsRecords    Need = "durability in the scenario"
	NeedsPrice      Need = "cost in the gate"
	NeedsLengths    Need = "ignore_eos in the workload"
	NeedsTwins      Need = "twins in the scenario"
	NeedsMarks      Need = "marks in the workload"
	NeedsHealth     Need = "a health check of the service"
	NeedsMonitoring Need = "monitoring of target.local"
	NeedsScan       Need = "scan in the gate"
)

// Bound is how the confidence bound of a metric is computed.
type Bound string

// How a metric can be bounded. Another bound is one more line here, and the
// function in checklist that computes it.
const (
	// BoundRank is of a percentile: the ranks between which it lies (binomial). A
	// mean, min or max has none.
	BoundRank Bound = "order statistics"
	// BoundShare is of a share of requests (Clopper and Pearson).
	BoundShare Bound = "Clopper-Pearson"
	// BoundRate is of an amount per second: the time is cut into batches.
	BoundRate Bound = "batch means"
	// BoundMedians is of the ratio of two medians: from the ranks of each.
	BoundMedians Bound = "order statistics of both medians"
	// BoundWrites is of lost writes: a shorter loss than the last write before the
	// fault is old could not have been seen.
	BoundWrites Bound = "age of the newest write"
	// BoundTest is of a comparison of groups: one differs when chance would make it
	// so less often than the confidence leaves.
	BoundTest Bound = "Fisher's exact test"
	// Unbounded metrics are judged by what was seen.
	Unbounded Bound = "none"
)

// Cause is where a report looks for the reason of a missed limit.
type Cause int

// Where a reason can be found.
const (
	CauseUnknown    Cause = iota
	CauseFirstToken       // the moment at which the time to first token was worst
	CauseTokens           // the moment at which the gaps between chunks were worst
	CauseErrors           // the most frequent error
	CauseRecovery         // the steps of the fault's recovery
)

// Arg is the kind of argument that a metric takes.
type Arg string

const (
	NoArg    Arg = ""
	FaultArg Arg = "fault kind"
	Severity Arg = "severity"
	Latency  Arg = "latency"
	AlertArg Arg = "name of an alert"
)

// Scope is how far the samples of a metric can be narrowed.
type Scope int

const (
	WholeRun Scope = iota // it is a property of the whole run
	ByScenario
	ByStage
)

// Severities of a security finding, the worst first.
var Severities = []string{"critical", "high", "medium", "low"}

// Latencies that a drift can be of, and Waits that somebody can be late by.
var (
	Latencies = []string{"ttft", "tpot", "latency"}
	Waits     = []string{"ttft", "tpot", "max_icl", "icl_growth", "end_delay"}
)

var metrics = []Metric{
	{Name: "ttft", Unit: UnitSeconds, Distribution: true, Scope: ByStage, Example: "p95(ttft) in burst <= 2s",
		Bound: BoundRank, Speed: true, Cause: CauseFirstToken,
		Means: "time to first token, from when the request was due to the first fragment that a reader sees (blanks and characters without width do not count)"},
	{Name: "ttfo", Unit: UnitSeconds, Distribution: true, Scope: ByStage, Example: "p95(ttfo) <= 3s",
		Bound: BoundRank, Speed: true, Cause: CauseFirstToken,
		Means: "time to first output, like ttft, but reasoning does not count"},
	{Name: "tpot", Tokens: true, Unit: UnitSeconds, Distribution: true, Scope: ByStage, Example: "p99(tpot) in steady/main <= 50ms",
		Bound: BoundRank, Speed: true, Cause: CauseTokens,
		Means: "time per output token of a request, from its first to its last token, divided by the tokens after the first chunk; an answer of one token has none"},
	{Name: "icl", Unit: UnitSeconds, Distribution: true, Scope: ByStage, Example: "p99(icl) <= 200ms",
		Bound: BoundRank, Speed: true, PerChunk: true, Cause: CauseTokens,
		Means: "inter-chunk latency, the gaps between content chunks, each of which may carry several tokens"},
	{Name: "max_icl", Unit: UnitSeconds, Distribution: true, Scope: ByStage, Example: "p99(max_icl) <= 1s",
		Bound: BoundRank, Speed: true, Cause: CauseTokens,
		Means: "the longest gap between two content chunks of an answer, one value for each answer"},
	{Name: "icl_growth", Unit: UnitSeconds, Distribution: true, Scope: ByStage, Example: "p50(icl_growth) <= 10ms",
		Bound: BoundRank, Speed: true, Cause: CauseTokens,
		Means: "how much the gaps between chunks grow within an answer: the median of its last third less that of its first third, for answers of at least 13 chunks"},
	{Name: "end_delay", Unit: UnitSeconds, Distribution: true, Scope: ByStage, Example: "p95(end_delay) <= 500ms",
		Bound: BoundRank, Speed: true,
		Means: "from the last fragment that a reader sees to the end of the answer"},
	{Name: "latency", Unit: UnitSeconds, Distribution: true, Scope: ByStage, Example: "p95(latency) <= 10s",
		Bound: BoundRank, Speed: true,
		Means: "from when the request was due to the end of its answer"},
	{Name: "service_ttft", Unit: UnitSeconds, Distribution: true, Scope: ByStage, Example: "p95(service_ttft) <= 2s",
		Bound: BoundRank, Speed: true, Cause: CauseFirstToken,
		Means: "like ttft, but from when the request was sent"},
	{Name: "service_latency", Unit: UnitSeconds, Distribution: true, Scope: ByStage, Example: "mean(service_latency) <= 5s",
		Bound: BoundRank, Speed: true,
		Means: "like latency, but from when the request was sent"},
	{Name: "error_rate", Errors: true, Unit: UnitRatio, Scope: ByStage, Example: "error_rate <= 5%",
		Bound: BoundShare, Cause: CauseErrors,
		Means: "the share of due requests that failed, including those never sent"},
	{Name: "errors", Errors: true, Unit: UnitCount, Scope: ByStage, Example: "errors in steady == 0",
		Bound: Unbounded, Cause: CauseErrors,
		Means: "the number of requests that failed, including those never sent"},
	{Name: "refused_rate", Unit: UnitRatio, Scope: ByStage, Example: "refused_rate of batch in overload >= 20%",
		Bound: BoundShare,
		Means: "the share of due requests that were refused with 429 or 503 and a Retry-After"},
	{Name: "broken_rate", Unit: UnitRatio, Scope: ByStage, Example: "broken_rate in overload <= 1%",
		Bound: BoundShare,
		Means: "the share of due requests that failed, not counting refusals with 429 or 503 and a Retry-After"},
	{Name: "goodput", Errors: true, Unit: UnitPerSecond, Scope: ByStage, Example: "goodput in steady >= 4/s",
		Bound: BoundRate, MoreIsBetter: true, Speed: true, OpenLoop: true,
		Means: "requests per second that met every latency objective; a failed one met none"},
	{Name: "attainment", Errors: true, Unit: UnitRatio, Scope: ByStage, Example: "attainment in steady >= 90%",
		Bound: BoundShare, MoreIsBetter: true, Speed: true, Cause: CauseErrors,
		Means: "the share of due requests that met every latency objective"},
	{Name: "output_tokens_per_second", Tokens: true, Unit: UnitTokensPerSecond, Scope: ByStage, Example: "output_tokens_per_second >= 100",
		Bound: BoundRate, MoreIsBetter: true, Speed: true,
		Means: "output tokens of complete answers per second"},
	{Name: "achieved_rate", Unit: UnitPerSecond, Scope: ByStage, Example: "achieved_rate in burst >= 14/s",
		Bound: Unbounded, MoreIsBetter: true, OpenLoop: true,
		Means: "requests per second that the client actually sent"},
	{Name: "drift", Unit: UnitRatio, Grows: true, Arg: Latency, Of: Latencies, Scope: ByStage, Example: "drift(ttft) in steady <= 50%",
		Bound: BoundMedians,
		Means: "how much the median of a latency rose from the first third of the time to the last third"},
	{Name: "late_for_some", ByGroup: true, Unit: UnitSeconds, Arg: Latency, Of: Waits, Scope: ByStage, Example: "late_for_some(ttft) in mixed <= 250ms",
		Bound: BoundTest,
		Means: "how much longer some group of requests waits than the others, beyond what the length of its prompts and the requests under way explain: by factor, length, crowd, connection, replica or time; a test of the groups, without a confidence bound on what it does not find"},
	{Name: "wrong_length", Needs: NeedsLengths, Tokens: true, Unit: UnitRatio, Scope: ByStage, Example: "wrong_length in steady <= 1%",
		Bound: BoundShare,
		Means: "the share of complete answers whose number of tokens is not the number asked for, where ignore_eos asks for all of them"},
	{Name: "cache_hit_rate", Unit: UnitRatio, Optional: true, Scope: ByStage, Example: "cache_hit_rate of shared in prefixes >= 50%",
		Bound: Unbounded, MoreIsBetter: true,
		Means: "the share of prompt tokens that the service reports as cached (usage, cached_tokens), over the answers that report it"},
	{Name: "changed_answers", Needs: NeedsCanaries, Unit: UnitRatio, Scope: ByScenario, Example: "changed_answers in steady <= 1%",
		Bound: BoundShare,
		Means: "the share of canaries whose answer differs from the most frequent answer to the same question"},
	{Name: "miscounted_tokens", Needs: NeedsCanaries, Unit: UnitRatio, Optional: true, Scope: ByScenario, Example: "miscounted_tokens in steady <= 1%",
		Bound: BoundShare,
		Means: "the share of canaries whose usage differs from the tokenizer's count by more than 10 % and by more than one token"},
	{Name: "foreign_answers", Needs: NeedsMarks, Unit: UnitCount, Scope: ByScenario, Example: "foreign_answers in steady == 0",
		Bound: Unbounded,
		Means: "the number of answers that belong to another request: they carry its mark, or hold its text where the service answers otherwise when asked again alone"},
	{Name: "repeated_answers", Needs: NeedsMarks, Unit: UnitRatio, Optional: true, Scope: ByScenario, Example: "repeated_answers in steady <= 1%",
		Bound: BoundShare,
		Means: "the share of answers that are, word for word, also the answer to another question, over answers of some length"},
	{Name: "disagreeing_twins", Needs: NeedsTwins, Unit: UnitCount, Optional: true, Scope: ByScenario, Example: "disagreeing_twins in steady == 0",
		Bound: Unbounded,
		Means: "the number of pairs of ways to ask the same question at temperature 0 whose answers or token counts differ, though each way agrees with itself"},
	{Name: "false_ends", Unit: UnitRatio, Scope: ByStage, Example: "false_ends in steady <= 1%",
		Bound: BoundShare,
		Means: "the share of complete answers that end otherwise than they say: for length below max_tokens, with more tokens than max_tokens, or with clearly less text than their count"},
	{Name: "answer_count_error", Needs: NeedsTwins, Tokens: true, Unit: UnitRatio, Grows: true, Optional: true, Scope: ByScenario, Example: "answer_count_error in steady <= 3%",
		Bound: Unbounded,
		Means: "how far the output tokens of the usage are from those of the same texts, counted by the tokenizer, or else by the service's count of the same texts as prompts"},
	{Name: "prompt_count_error", Needs: NeedsTwins, Unit: UnitRatio, Grows: true, Optional: true, Scope: ByScenario, Example: "prompt_count_error in steady <= 3%",
		Bound: Unbounded,
		Means: "how far the prompt tokens of the usage are from those of the tokenizer, and from twice as many for a text that is twice as long"},
	{Name: "false_health", Needs: NeedsHealth, Unit: UnitSeconds, Optional: true, Scope: ByScenario, Example: "false_health in steady <= 3s",
		Bound: Unbounded,
		Means: "for how long the service's health check said the opposite of what users saw: healthy while nearly all requests failed, or unhealthy while all succeeded"},
	{Name: "memory_growth", Unit: UnitRatio, Grows: true, Optional: true, Scope: ByScenario, Example: "memory_growth in steady <= 20%",
		Bound: Unbounded,
		Means: "how much the memory of the process that grew most rose from the first third of the time to the last third"},
	{Name: "lost_writes", Needs: NeedsRecords, Unit: UnitCount, Optional: true, Scope: ByScenario, Example: "lost_writes in steady == 0",
		Bound: Unbounded,
		Means: "the number of background responses that were acknowledged and then lost, duplicated or truncated"},
	{Name: "replicas_ready", Unit: UnitCount, Optional: true, Scope: ByScenario, Example: "replicas_ready in steady >= 3",
		Bound: Unbounded, MoreIsBetter: true,
		Means: "the lowest number of replicas that the gateway would route to"},
	{Name: "rto", Unit: UnitSeconds, Arg: FaultArg, Scope: ByScenario, Example: "rto(pod-kill) < 5m",
		Bound: Unbounded, Cause: CauseRecovery,
		Means: "recovery time, from when the fault is seen in effect to the end of the first of the consecutive probes that are answered again"},
	{Name: "rpo", Needs: NeedsRecords, Unit: UnitSeconds, Arg: FaultArg, Scope: ByScenario, Example: "rpo(node-loss) < 1m",
		Bound: BoundWrites,
		Means: "recovery point: how long before the fault the oldest lost write had been acknowledged; unknown without a final read"},
	{Name: "lost", Unit: UnitCount, Arg: FaultArg, Scope: ByScenario, Example: "lost(pod-kill) == 0",
		Bound: Unbounded, Cause: CauseErrors,
		Means: "the number of failed requests among those in flight when the fault took effect"},
	{Name: "errors_during", Errors: true, Unit: UnitRatio, Arg: FaultArg, Scope: ByScenario, Example: "errors_during(pod-kill) <= 2%",
		Bound: BoundShare, Cause: CauseErrors,
		Means: "the error rate from the injection until users are served again and the fault is gone, over at least ten seconds"},
	{Name: "noticed_elsewhere", Unit: UnitRatio, Optional: true, Arg: FaultArg, OfGPUs: true, Scope: ByScenario, Example: "noticed_elsewhere(gpu-oom) <= 5%",
		Bound: BoundShare, Cause: CauseErrors,
		Means: "the share of requests during a fault of one GPU that replicas on other GPUs answered later than 99 % of the requests outside faults were, or that failed there; a failure without a replica's name counts too"},
	{Name: "detection", Unit: UnitSeconds, Arg: FaultArg, Scope: ByScenario, Example: "detection(pod-kill) < 10s",
		Bound: Unbounded, Cause: CauseRecovery,
		Means: "from when the fault is seen in effect to when the service stops sending requests to the victim"},
	{Name: "alert", Unit: UnitSeconds, Arg: AlertArg, Scope: ByScenario, Example: "alert(ReplicaDown) in node-loss within 1m",
		Bound: Unbounded, Needs: NeedsMonitoring,
		Means: "from when the first fault is seen in effect (without a fault, from the start of the scenario) to when this alert fires"},
	{Name: "alerts", Unit: UnitCount, Scope: ByScenario, Example: "alerts in loss <= 1",
		Bound: Unbounded, Needs: NeedsMonitoring,
		Means: "the number of different alerts that fired"},
	{Name: "cost_per_million_output_tokens", Needs: NeedsPrice, Tokens: true, Unit: UnitUSD, Scope: ByScenario, Example: "cost_per_million_output_tokens <= $2.50",
		Bound: Unbounded,
		Means: "dollars per million output tokens of answers that met the objectives"},
	{Name: "security", Unit: UnitCount, Arg: Severity, Scope: WholeRun, Example: "security(high) == 0",
		Bound: Unbounded, Needs: NeedsScan,
		Means: "the number of security findings of this severity or worse"},
}

// OfRequests reports whether the metric is of requests by themselves, so that
// it can be taken of any of them. A rate is not: it is of a stretch of time.
func (m Metric) OfRequests() bool {
	return m.Distribution || m.Scope == ByStage && m.Arg == NoArg && (m.Unit == UnitRatio || m.Unit == UnitCount)
}

// AsksFor reports whether an objective of the gate is about such a metric.
func (g Gate) AsksFor(such func(Metric) bool) bool {
	return slices.ContainsFunc(g.Objectives, func(o Objective) bool {
		m, known := MetricOf(o.Metric)
		return known && such(m)
	})
}

// AsksForHealth reports whether an objective is about the service's health check.
func (g Gate) AsksForHealth() bool {
	return g.AsksFor(func(m Metric) bool { return m.Needs == NeedsHealth })
}

// Metrics are all the metrics an objective can be about.
func Metrics() []Metric { return append([]Metric(nil), metrics...) }

// MetricOf is the metric of a name, if there is one.
func MetricOf(name string) (Metric, bool) {
	for _, m := range metrics {
		if m.Name == name {
			return m, true
		}
	}
	return Metric{}, false
}

// ErrorRate is the name of the metric that code adds an objective about.
const ErrorRate = "error_rate"

// NoFindings is the objective that a scan finds no flaw of a severity or worse.
func NoFindings(severity string) Objective {
	o := Objective{Metric: "security", Arg: severity, Op: "==", Unit: UnitCount}
	o.Source = o.String()
	return o
}

func metricNames(with func(Metric) bool) []string {
	var names []string
	for _, m := range metrics {
		if with(m) {
			names = append(names, m.Name)
		}
	}
	return names
}
