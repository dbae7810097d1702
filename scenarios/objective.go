package scenarios

// Objective is one promise, written on one line of the gate and kept as it was
// written. ParseObjective holds the grammar.
type Objective struct {
	Source string // the text of the gate, as written

	// Stat is the statistic over a distribution: p50 … p99.9, mean, min, max;
	// empty for metrics that are one number.
	Stat string
	// Quantile of Stat in (0,1) when Stat is a percentile, else 0.
	Quantile float64
	// Metric is ttft, ttfo, tpot, icl, latency, service_ttft, service_latency
	// (with Stat), or error_rate, errors, goodput, attainment,
	// output_tokens_per_second, achieved_rate, rto, rpo, lost, errors_during,
	// detection, cost_per_million_output_tokens, security (without).
	Metric string
	// Arg is the argument of a metric that takes one: the fault kind of rto,
	// rpo, lost, errors_during and detection; the severity of security.
	Arg string
	// Scenario and Stage narrow the samples; empty means the whole run.
	Scenario, Stage string
	Op              string  // <=, <, >=, >, ==
	Threshold       float64 // in Unit
	Unit            string  // s, ratio, per_second, tokens_per_second, usd, count
}
