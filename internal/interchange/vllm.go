package interchange

import (
	"io"
	"time"
)

// writeVLLM writes a result of vllm bench serve.
func writeVLLM(w io.Writer, r run) error {
	inputs, outputs := make([]int32, 0, len(r.requests)), make([]int32, 0, len(r.requests))
	ttfts, latencies, starts := []float64{}, []float64{}, []float64{}
	itls, texts, errors := [][]float64{}, []string{}, []string{}
	for i := range r.requests {
		q := &r.requests[i]
		gaps := []float64{}
		q.EachGap(func(gap, _ time.Duration) { gaps = append(gaps, gap.Seconds()) })
		first, streamed := q.ServiceTTFT()
		if !streamed {
			first = 0 // as vLLM writes it for an answer that came as a whole
		}
		whole, ok := q.ServiceLatency()
		if !ok {
			first, whole = 0, 0
			outputs = append(outputs, 0)
		} else {
			outputs = append(outputs, q.OutputTokens)
		}
		inputs, ttfts, latencies, starts = append(inputs, q.PromptTokens), append(ttfts, first.Seconds()), append(latencies, whole.Seconds()), append(starts, q.Sent.Seconds())
		itls, texts, errors = append(itls, gaps), append(texts, ""), append(errors, q.FailureText().String())
	}
	result := map[string]any{
		"date": r.environment.StartedAt.UTC().Format("20060102-150405"), "backend": "launchgate", "endpoint_type": "openai-chat", "label": r.tool(),
		"model_id": r.environment.Target.Model, "tokenizer_id": r.environment.Target.Model, "num_prompts": len(r.requests),
		"request_rate": float64(len(r.requests)) / r.seconds(), "burstiness": 1.0, "max_concurrency": nil,
		"duration": r.seconds(), "completed": r.succeeded(), "failed": r.failed,
		"total_input_tokens": int64(r.input.sum), "total_output_tokens": int64(r.output.sum),
		"request_throughput": float64(r.succeeded()) / r.seconds(), "request_goodput": nil,
		"output_throughput": r.output.sum / r.seconds(), "total_token_throughput": (r.input.sum + r.output.sum) / r.seconds(),
		"input_lens": inputs, "output_lens": outputs, "ttfts": ttfts, "itls": itls, "latencies": latencies, "start_times": starts,
		"generated_texts": texts, "errors": errors,
	}
	for name, s := range map[string]stats{"ttft": r.ttft, "tpot": r.tpot, "itl": r.icl, "e2el": r.latency} {
		for key, v := range map[string]float64{"mean": s.mean, "median": s.at(0.5), "std": s.std, "p90": s.at(0.9), "p95": s.at(0.95), "p99": s.at(0.99)} {
			result[key+"_"+name+"_ms"] = v * 1e3
		}
	}
	return writeJSON(w, result)
}
