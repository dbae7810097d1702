package interchange

import (
	"fmt"
	"io"
	"math"
	"time"

	"github.com/launchgate/launchgate/internal/recording"
)

// guideSummary is GuideLLM's DistributionSummary.
func guideSummary(s stats) map[string]any {
	return map[string]any{
		"mean": s.mean, "median": s.at(0.5), "mode": s.mode(), "variance": s.std * s.std, "std_dev": s.std, "min": s.min(), "max": s.max(),
		"count": s.n(), "total_sum": s.sum,
		"percentiles": map[string]float64{"p001": s.at(0.001), "p01": s.at(0.01), "p05": s.at(0.05), "p10": s.at(0.1), "p25": s.at(0.25), "p50": s.at(0.5),
			"p75": s.at(0.75), "p90": s.at(0.9), "p95": s.at(0.95), "p99": s.at(0.99), "p999": s.at(0.999)},
	}
}

// writeGuideLLM writes a report of GuideLLM with one benchmark. launchgate's load has
// a schedule of its own, which is nearest to GuideLLM's throughput strategy: requests
// that do not wait for one another.
func writeGuideLLM(w io.Writer, r run) error {
	none := describe(nil)
	// by status: GuideLLM has successful, incomplete and errored requests.
	byStatus := func(s stats) map[string]any {
		return map[string]any{"successful": guideSummary(s), "incomplete": guideSummary(none), "errored": guideSummary(none), "total": guideSummary(s)}
	}
	ms := func(s stats) stats { return scaled(s, 1e3) }
	failed := describe(r.failedLatencies())
	latency := byStatus(r.latency)
	latency["errored"] = guideSummary(failed)
	latency["total"] = guideSummary(describe(append(append([]float64{}, r.latency.sorted...), failed.sorted...)))
	counts := map[string]int{"successful": r.succeeded(), "incomplete": 0, "errored": r.failed, "total": len(r.requests)}
	tokens := func(q *recording.Request) float64 { return float64(q.OutputTokens) }
	start, end := r.epoch(r.from), r.epoch(r.to)
	lag := 0.0
	for _, q := range r.requests {
		if q.Sent > 0 {
			lag += (q.Sent - q.Due).Seconds() / float64(len(r.requests))
		}
	}
	successful, errored := []any{}, []any{}
	for i := range r.requests {
		one := r.guideRequest(&r.requests[i])
		if r.requests[i].OK() {
			successful = append(successful, one)
		} else {
			errored = append(errored, one)
		}
	}
	backend := map[string]any{"kind": "openai_http", "target": r.environment.Target.URL, "model": r.environment.Target.Model}
	profile := map[string]any{"kind": "throughput", "max_concurrency": max(len(r.requests), 1)}
	empty := func(names ...string) map[string]any {
		m := map[string]any{}
		for _, n := range names {
			m[n] = nil
		}
		return m
	}
	return writeJSON(w, map[string]any{
		"metadata": map[string]any{"version": 2, "guidellm_version": "0.8.1 (written by " + r.tool() + ")", "python_version": "none", "platform": r.environment.Host.OS + "-" + r.environment.Host.Arch},
		"config": map[string]any{
			"metadata": map[string]any{"labels": map[string]string{"launchgate.verdict": r.verdict.Verdict.String(), "launchgate.exit_code": fmt.Sprint(r.verdict.ExitCode)}},
			"spec": map[string]any{
				"backend": backend, "profile": profile,
				// GuideLLM wants to know the data set; that of launchgate is in its gate.
				"data": []any{map[string]any{"kind": "in_memory_item_list", "data": []any{}}},
			},
		},
		"benchmarks": []any{map[string]any{
			"type_": "generative_benchmark",
			"config": map[string]any{
				"id_": r.name(), "run_id": r.name(), "run_index": 0, "strategy": map[string]any{"type_": "throughput"}, "constraints": map[string]any{},
				"profile": profile, "requests": map[string]any{}, "backend": backend, "environment": map[string]any{"launchgate": r.environment.Version},
			},
			"scheduler_state": map[string]any{
				"node_id": 0, "num_processes": 1, "start_time": start, "end_time": end, "created_requests": len(r.requests), "processed_requests": len(r.requests),
				"successful_requests": r.succeeded(), "errored_requests": r.failed,
			},
			"scheduler_metrics": map[string]any{
				"start_time": start, "request_start_time": start, "measure_start_time": start, "measure_end_time": end, "request_end_time": end, "end_time": end, "requests_made": counts,
				"queued_time_avg": 0, "resolve_start_delay_avg": 0, "resolve_targeted_start_delay_avg": lag, "request_start_delay_avg": 0, "request_targeted_start_delay_avg": lag,
				"request_time_avg": r.latency.mean, "resolve_end_delay_avg": 0, "resolve_time_avg": r.latency.mean, "finalized_delay_avg": 0, "processed_delay_avg": 0,
			},
			"metrics": map[string]any{
				"request_totals": counts, "requests_per_second": byStatus(r.eachSecond(func(*recording.Request) float64 { return 1 })), "request_concurrency": byStatus(none), "request_latency": latency,
				"request_streaming_iterations_count": byStatus(none), "prompt_token_count": byStatus(r.input), "output_token_count": byStatus(r.output), "total_token_count": byStatus(r.totals()),
				"time_to_first_token_ms": byStatus(ms(r.ttft)), "time_to_first_output_token_ms": byStatus(ms(r.ttfo)),
				"time_per_output_token_ms": byStatus(ms(r.toLast())), "inter_token_latency_ms": byStatus(ms(r.tpot)),
				"time_to_last_round_trip_ms": byStatus(none), "avg_round_trip_time_ms": byStatus(none),
				"prompt_tokens_per_second": byStatus(r.eachSecond(func(q *recording.Request) float64 { return float64(q.PromptTokens) })),
				"output_tokens_per_second": byStatus(r.eachSecond(tokens)), "tokens_per_second": byStatus(r.eachSecond(func(q *recording.Request) float64 { return tokens(q) + float64(q.PromptTokens) })),
				"output_tokens_per_iteration": byStatus(none), "iter_tokens_per_iteration": byStatus(none),
				"text": empty("tokens", "words", "characters"), "image": empty("tokens", "images", "pixels", "bytes"), "video": empty("tokens", "frames", "seconds", "bytes"),
				"audio": empty("tokens", "samples", "seconds", "bytes"), "tool_call": empty("tokens", "mixed_tokens", "count"),
			},
			"requests": map[string]any{"successful": successful, "incomplete": []any{}, "errored": errored, "total": nil},
		}},
	})
}

func (r run) guideRequest(q *recording.Request) map[string]any {
	at := func(t time.Duration) any {
		if t <= 0 {
			return nil
		}
		return r.epoch(t)
	}
	id := fmt.Sprintf("%s-%s-%d", q.Scenario, q.Stage, q.Seq)
	status := "completed"
	var why any
	if !q.OK() {
		status, why = "errored", q.FailureText().String()
	}
	return map[string]any{
		"type_": "generative_request_stats", "request_id": id,
		"info": map[string]any{"request_id": id, "status": status, "error": why, "scheduler_start_time": r.epoch(r.from), "timings": map[string]any{
			"targeted_start": at(q.Due), "request_start": at(q.Sent), "resolve_start": at(q.Sent), "first_request_iteration": at(q.FirstByte), "first_token_iteration": at(q.FirstToken),
			"first_output_token_iteration": at(q.FirstOutput), "last_token_iteration": at(q.LastToken), "last_request_iteration": at(q.LastToken), "token_iterations": len(q.Chunks), "request_iterations": len(q.Chunks),
			"request_end": at(q.End), "resolve_end": at(q.End),
		}},
		"input_metrics":  map[string]any{"text_tokens": known(q.PromptTokens)},
		"output_metrics": map[string]any{"text_tokens": known(q.OutputTokens)},
	}
}

// known is a count that is null where it is not known.
func known(n int32) any {
	if n <= 0 {
		return nil
	}
	return n
}

func scaled(s stats, by float64) stats {
	values := make([]float64, len(s.sorted))
	for i, v := range s.sorted {
		values[i] = v * by
	}
	return describe(values)
}

func (r run) failedLatencies() (all []float64) {
	for i := range r.requests {
		if q := &r.requests[i]; !q.OK() && q.Sent > 0 && q.End >= q.Sent {
			all = append(all, (q.End - q.Sent).Seconds())
		}
	}
	return all
}

// totals are the tokens of prompt and answer.
func (r run) totals() stats {
	var all []float64
	for i := range r.requests {
		if q := &r.requests[i]; q.OK() {
			all = append(all, float64(q.PromptTokens)+float64(q.OutputTokens))
		}
	}
	return describe(all)
}

// toLast is what GuideLLM calls the time per output token: that to the last token,
// the first one and the wait for it included.
func (r run) toLast() stats {
	var all []float64
	for i := range r.requests {
		if q := &r.requests[i]; q.OK() && q.OutputTokens > 0 && q.LastToken > 0 {
			all = append(all, (q.LastToken-q.Sent).Seconds()/float64(q.OutputTokens))
		}
	}
	return describe(all)
}

// eachSecond is what ended well in each whole second of the load.
func (r run) eachSecond(of func(*recording.Request) float64) stats {
	seconds := int(math.Ceil(r.seconds()))
	if seconds > maxSeconds {
		return describe(nil)
	}
	bins := make([]float64, seconds)
	for i := range r.requests {
		if q := &r.requests[i]; q.OK() {
			bins[min(int((q.End-r.from)/time.Second), seconds-1)] += of(q)
		}
	}
	return describe(bins)
}

// maxSeconds is a year.
const maxSeconds = 366 * 24 * 3600
