package interchange

import (
	"fmt"
	"io"
	"time"
)

// statistics of llm-d's benchmark report.
func llmdStatistics(s stats, units string) map[string]any {
	if s.n() == 0 {
		return nil
	}
	return map[string]any{
		"units": units, "mean": s.mean, "mode": nil, "stddev": s.std, "min": s.min(), "max": s.max(),
		"p0p1": s.at(0.001), "p1": s.at(0.01), "p5": s.at(0.05), "p10": s.at(0.1), "p25": s.at(0.25), "p50": s.at(0.5),
		"p75": s.at(0.75), "p90": s.at(0.9), "p95": s.at(0.95), "p99": s.at(0.99), "p99p9": s.at(0.999),
	}
}

// writeLLMD writes a benchmark report 0.2.1. Its scenario would describe a stack that
// launchgate does not know, so it is left out, as the schema allows.
func writeLLMD(w io.Writer, r run) error {
	present := func(m map[string]any) map[string]any {
		for k, v := range m {
			if inner, is := v.(map[string]any); is && inner == nil {
				delete(m, k)
			}
		}
		return m
	}
	rate := func(v float64, units string) map[string]any { return map[string]any{"units": units, "mean": v} }
	description := fmt.Sprintf("%s: %s", r.tool(), r.verdict.Verdict)
	if len(r.verdict.Why) > 0 {
		description += ": " + r.verdict.Why[0].String()
	}
	return writeJSON(w, map[string]any{
		"version": "0.2.1",
		"run": map[string]any{
			"uid": r.name(), "description": description, "keywords": []string{"launchgate", r.verdict.Verdict.String()},
			"time": map[string]any{
				"start": r.wall(r.from).Format(time.RFC3339Nano), "end": r.wall(r.to).Format(time.RFC3339Nano), "duration": fmt.Sprintf("PT%gS", r.seconds()),
			},
		},
		"results": map[string]any{"request_performance": map[string]any{"aggregate": map[string]any{
			"requests": present(map[string]any{
				"total": len(r.requests), "failures": r.failed,
				"input_length": llmdStatistics(r.input, "count"), "output_length": llmdStatistics(r.output, "count"),
			}),
			"latency": present(map[string]any{
				"time_to_first_token":              llmdStatistics(r.ttft, "s"),
				"time_per_output_token":            llmdStatistics(r.tpot, "s/token"),
				"normalized_time_per_output_token": llmdStatistics(r.perToken, "s/token"),
				"inter_token_latency":              llmdStatistics(r.icl, "s/token"),
				"request_latency":                  llmdStatistics(r.latency, "s"),
			}),
			"throughput": map[string]any{
				"input_token_rate":  rate(r.input.sum/r.seconds(), "tokens/s"),
				"output_token_rate": rate(r.output.sum/r.seconds(), "tokens/s"),
				"total_token_rate":  rate((r.input.sum+r.output.sum)/r.seconds(), "tokens/s"),
				"request_rate":      rate(float64(r.succeeded())/r.seconds(), "queries/s"),
			},
		}}},
	})
}
