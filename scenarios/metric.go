package scenarios

// What a threshold is measured in.
const (
	UnitSeconds         = "s"
	UnitRatio           = "ratio"
	UnitPerSecond       = "per_second"
	UnitTokensPerSecond = "tokens_per_second"
	UnitUSD             = "usd"
	UnitCount           = "count"
)

// Metric is a number an objective can promise something about.
type Metric struct {
	Name    string
	Unit    string
	Example string // an objective over it
	Means   string // what is measured, in a sentence
	// Distribution: the metric has a value for every request, and the objective
	// names a statistic of them, as in p95(ttft).
	Distribution bool
	// Grows: the ratio is of a change, and can be above 100 %.
	Grows bool
	// Optional: a sound service may lack what it is measured by, and an objective
	// can end in "where supported".
	Optional bool
	// Arg is what stands in the brackets of any other metric; empty for none.
	Arg Arg
	// Scope is how far "in" may narrow the metric.
	Scope Scope
	// Needs is what the gate has to have for it to be measured.
	Needs Need
	// Tokens: it counts tokens, so it needs to be told how many there were.
	Tokens bool
	// Errors: failed requests make it worse.
	Errors bool
}

// Need is what of a gate a metric is measured by, beside its load.
type Need int

const (
	NeedsNothing  Need = iota
	NeedsCanaries      // canary in the scenario
	NeedsRecords       // durability in the scenario
	NeedsPrice         // cost in the gate
	NeedsLengths       // ignore_eos in the workload
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

// Latencies that a drift can be of.
var Latencies = []string{"ttft", "tpot", "latency"}

var metrics = []Metric{
	{Name: "ttft", Unit: UnitSeconds, Distribution: true, Scope: ByStage, Example: "p95(ttft) in burst <= 2s",
		Means: "time to first token: from the time the request was due to the first fragment that a reader sees (blanks and characters without width do not count)"},
	{Name: "ttfo", Unit: UnitSeconds, Distribution: true, Scope: ByStage, Example: "p95(ttfo) <= 3s",
		Means: "time to first output: like ttft, but reasoning does not count"},
	{Name: "tpot", Tokens: true, Unit: UnitSeconds, Distribution: true, Scope: ByStage, Example: "p99(tpot) in steady/main <= 50ms",
		Means: "time per output token of a request after its first chunk"},
	{Name: "icl", Unit: UnitSeconds, Distribution: true, Scope: ByStage, Example: "p99(icl) <= 200ms",
		Means: "inter-chunk latency: the gaps between content chunks"},
	{Name: "max_icl", Unit: UnitSeconds, Distribution: true, Scope: ByStage, Example: "p99(max_icl) <= 1s",
		Means: "the longest gap between two content chunks of an answer, one value for each answer"},
	{Name: "end_delay", Unit: UnitSeconds, Distribution: true, Scope: ByStage, Example: "p95(end_delay) <= 500ms",
		Means: "from the last fragment that a reader sees to the end of the answer"},
	{Name: "latency", Unit: UnitSeconds, Distribution: true, Scope: ByStage, Example: "p95(latency) <= 10s",
		Means: "from the time the request was due to the end of its answer"},
	{Name: "service_ttft", Unit: UnitSeconds, Distribution: true, Scope: ByStage, Example: "p95(service_ttft) <= 2s",
		Means: "like ttft, but measured from the time the request was sent"},
	{Name: "service_latency", Unit: UnitSeconds, Distribution: true, Scope: ByStage, Example: "mean(service_latency) <= 5s",
		Means: "like latency, but measured from the time the request was sent"},
	{Name: "error_rate", Errors: true, Unit: UnitRatio, Scope: ByStage, Example: "error_rate <= 5%",
		Means: "the share of due requests that failed, including those never sent"},
	{Name: "errors", Errors: true, Unit: UnitCount, Scope: ByStage, Example: "errors in steady == 0",
		Means: "the number of requests that failed, including those never sent"},
	{Name: "refused_rate", Unit: UnitRatio, Scope: ByStage, Example: "refused_rate of batch in overload >= 20%",
		Means: "the share of due requests that were refused in good order: with 429 or 503 and the time to come back (Retry-After)"},
	{Name: "broken_rate", Unit: UnitRatio, Scope: ByStage, Example: "broken_rate in overload <= 1%",
		Means: "the share of due requests that failed in any way other than being refused in good order"},
	{Name: "goodput", Errors: true, Unit: UnitPerSecond, Scope: ByStage, Example: "goodput in steady >= 4/s",
		Means: "requests per second that met every latency objective"},
	{Name: "attainment", Errors: true, Unit: UnitRatio, Scope: ByStage, Example: "attainment in steady >= 90%",
		Means: "the share of due requests that met every latency objective"},
	{Name: "output_tokens_per_second", Tokens: true, Unit: UnitTokensPerSecond, Scope: ByStage, Example: "output_tokens_per_second >= 100",
		Means: "output tokens of complete answers per second"},
	{Name: "achieved_rate", Unit: UnitPerSecond, Scope: ByStage, Example: "achieved_rate in burst >= 14/s",
		Means: "requests per second that the client actually sent"},
	{Name: "drift", Unit: UnitRatio, Grows: true, Arg: Latency, Scope: ByStage, Example: "drift(ttft) in steady <= 50%",
		Means: "how much the median of a latency rose from the first third of the time to the last third"},
	{Name: "wrong_length", Needs: NeedsLengths, Tokens: true, Unit: UnitRatio, Scope: ByStage, Example: "wrong_length in steady <= 1%",
		Means: "the share of complete answers whose number of tokens is not the number asked for, where ignore_eos asks for all of them"},
	{Name: "cache_hit_rate", Unit: UnitRatio, Optional: true, Scope: ByStage, Example: "cache_hit_rate of shared in prefixes >= 50%",
		Means: "the share of prompt tokens that the service reports as cached (usage, cached_tokens), over the answers that report it"},
	{Name: "changed_answers", Needs: NeedsCanaries, Unit: UnitRatio, Scope: ByScenario, Example: "changed_answers in steady <= 1%",
		Means: "the share of canaries whose answer differs from the most frequent answer to the same question"},
	{Name: "miscounted_tokens", Needs: NeedsCanaries, Unit: UnitRatio, Optional: true, Scope: ByScenario, Example: "miscounted_tokens in steady <= 1%",
		Means: "the share of canaries whose usage differs from the count of the service's own tokenizer by more than 10 % and by more than one token"},
	{Name: "memory_growth", Unit: UnitRatio, Grows: true, Optional: true, Scope: ByScenario, Example: "memory_growth in steady <= 20%",
		Means: "how much the memory of the process that grew most rose from the first third of the time to the last third"},
	{Name: "lost_writes", Needs: NeedsRecords, Unit: UnitCount, Optional: true, Scope: ByScenario, Example: "lost_writes in steady == 0",
		Means: "the number of background responses that were acknowledged and then lost, duplicated or truncated"},
	{Name: "replicas_ready", Unit: UnitCount, Optional: true, Scope: ByScenario, Example: "replicas_ready in steady >= 3",
		Means: "the lowest number of replicas that the gateway would route to"},
	{Name: "rto", Unit: UnitSeconds, Arg: FaultArg, Scope: ByScenario, Example: "rto(pod-kill) < 5m",
		Means: "recovery time: from when the fault is seen in effect to the end of the first of the consecutive probes that are answered again"},
	{Name: "rpo", Needs: NeedsRecords, Unit: UnitSeconds, Arg: FaultArg, Scope: ByScenario, Example: "rpo(node-loss) < 1m",
		Means: "recovery point: the age, at the time of the fault, of the oldest acknowledged write that was lost"},
	{Name: "lost", Unit: UnitCount, Arg: FaultArg, Scope: ByScenario, Example: "lost(pod-kill) == 0",
		Means: "the number of requests that were in flight when the fault struck and failed"},
	{Name: "errors_during", Errors: true, Unit: UnitRatio, Arg: FaultArg, Scope: ByScenario, Example: "errors_during(pod-kill) <= 2%",
		Means: "the error rate from the injection until users are served again and the fault is gone, over at least ten seconds"},
	{Name: "detection", Unit: UnitSeconds, Arg: FaultArg, Scope: ByScenario, Example: "detection(pod-kill) < 10s",
		Means: "from when the fault is seen in effect to when the service itself notices it"},
	{Name: "alert", Unit: UnitSeconds, Arg: AlertArg, Scope: ByScenario, Example: "alert(ReplicaDown) in node-loss within 1m",
		Means: "from when the first fault is seen in effect (without a fault, from the start of the scenario) to when this alert fires"},
	{Name: "alerts", Unit: UnitCount, Scope: ByScenario, Example: "alerts in loss <= 1",
		Means: "the number of different alerts that fired"},
	{Name: "cost_per_million_output_tokens", Needs: NeedsPrice, Tokens: true, Unit: UnitUSD, Scope: ByScenario, Example: "cost_per_million_output_tokens <= $2.50",
		Means: "dollars per million output tokens of answers that met the objectives"},
	{Name: "security", Unit: UnitCount, Arg: Severity, Scope: WholeRun, Example: "security(high) == 0",
		Means: "the number of security findings of this severity or worse"},
}

// OfRequests reports whether the metric is of requests by themselves, so that
// it can be taken of any of them. A rate is not: it is of a stretch of time.
func (m Metric) OfRequests() bool {
	return m.Distribution || m.Scope == ByStage && m.Arg == NoArg && (m.Unit == UnitRatio || m.Unit == UnitCount)
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

func metricNames(with func(Metric) bool) []string {
	var names []string
	for _, m := range metrics {
		if with(m) {
			names = append(names, m.Name)
		}
	}
	return names
}
