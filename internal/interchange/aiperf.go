package interchange

import (
	"io"
	"time"
)

// writeAIPerf writes the export of AIPerf, schema 1.1.
func writeAIPerf(w io.Writer, r run) error {
	out := map[string]any{
		"schema_version": "1.1", "benchmark_id": r.name(), "was_cancelled": r.verdict.Incomplete,
		"start_time": r.wall(r.from).Format(time.RFC3339Nano), "end_time": r.wall(r.to).Format(time.RFC3339Nano),
		// AIPerf's loader keeps what it does not know.
		"launchgate": map[string]any{"version": r.environment.Version, "verdict": r.verdict.Verdict.String(), "exit_code": r.verdict.ExitCode},
	}
	distribution := func(name string, s stats, unit string, scale float64) {
		if s.n() == 0 {
			return
		}
		out[name] = map[string]any{"unit": unit, "avg": s.mean * scale, "std": s.std * scale, "min": s.min() * scale, "max": s.max() * scale,
			"p1": s.at(0.01) * scale, "p5": s.at(0.05) * scale, "p10": s.at(0.1) * scale, "p25": s.at(0.25) * scale, "p50": s.at(0.5) * scale,
			"p75": s.at(0.75) * scale, "p90": s.at(0.9) * scale, "p95": s.at(0.95) * scale, "p99": s.at(0.99) * scale, "count": s.n(), "sum": s.sum * scale}
	}
	single := func(name string, v float64, unit string) { out[name] = map[string]any{"unit": unit, "avg": v} }
	distribution("time_to_first_token", r.ttft, "ms", 1e3)
	distribution("inter_token_latency", r.tpot, "ms", 1e3)
	distribution("inter_chunk_latency", r.icl, "ms", 1e3)
	distribution("request_latency", r.latency, "ms", 1e3)
	distribution("output_sequence_length", r.output, "tokens", 1)
	distribution("input_sequence_length", r.input, "tokens", 1)
	single("request_count", float64(r.succeeded()), "requests")
	single("error_request_count", float64(r.failed), "requests")
	single("request_throughput", float64(r.succeeded())/r.seconds(), "requests/sec")
	single("output_token_throughput", r.output.sum/r.seconds(), "tokens/sec")
	single("benchmark_duration", r.seconds(), "sec")
	single("total_isl", r.input.sum, "tokens")
	single("total_osl", r.output.sum, "tokens")
	return writeJSON(w, out)
}
