package interchange

import (
	"encoding/json"
	"fmt"
	"math"
	"time"
)

func tooMany(n int) error {
	if n > maxRequests {
		return fmt.Errorf("found more than %d requests", maxRequests)
	}
	return nil
}

// readVLLM reads a result of vllm bench serve --save-detailed. It has no due times: a
// request waits for its turn within the client, unseen.
func readVLLM(b []byte) (Imported, error) {
	var f struct {
		Date       string      `json:"date"`
		Model      string      `json:"model_id"`
		Inputs     []int64     `json:"input_lens"`
		Outputs    []int64     `json:"output_lens"`
		TTFTs      []float64   `json:"ttfts"`
		ITLs       [][]float64 `json:"itls"`
		Latencies  []float64   `json:"latencies"`
		Starts     []float64   `json:"start_times"`
		Errors     []string    `json:"errors"`
		Duration   float64     `json:"duration"`
		P99TTFT    number      `json:"p99_ttft_ms"`
		MedianTTFT number      `json:"median_ttft_ms"`
		P99TPOT    number      `json:"p99_tpot_ms"`
		P99E2EL    number      `json:"p99_e2el_ms"`
	}
	if err := json.Unmarshal(b, &f); err != nil {
		return Imported{}, err
	}
	n := len(f.TTFTs)
	if err := tooMany(n); err != nil {
		return Imported{}, err
	}
	if len(f.Outputs) != n || len(f.Errors) != n || len(f.ITLs) != n && len(f.Latencies) != n {
		return Imported{}, fmt.Errorf("found %d ttfts, %d output_lens, %d errors and %d itls, expected as many of each", n, len(f.Outputs), len(f.Errors), len(f.ITLs))
	}
	if len(f.Starts) != n {
		return Imported{}, fmt.Errorf("found %d start_times for %d requests: this version of vllm bench does not say when a request was sent; use a newer one", len(f.Starts), n)
	}
	events := make([]event, n)
	for i := range events {
		e := event{due: unknown, sent: f.Starts[i], first: f.Starts[i] + f.TTFTs[i], output: f.Outputs[i], failed: f.Errors[i] != "" || f.Outputs[i] == 0, why: f.Errors[i]}
		if i < len(f.Inputs) {
			e.prompt = f.Inputs[i]
		}
		took := f.TTFTs[i]
		if i < len(f.ITLs) {
			e.gaps = f.ITLs[i]
			for _, g := range e.gaps {
				took += g
			}
		}
		e.last, e.end = e.sent+took, e.sent+took
		if i < len(f.Latencies) {
			e.end = e.sent + f.Latencies[i]
			if i >= len(f.ITLs) {
				e.last = e.end
			}
		}
		events[i] = e
	}
	in, err := imported(toolVLLM, events)
	if err != nil {
		return in, err
	}
	in.Model = f.Model
	if at, err := time.Parse("20060102-150405", f.Date); err == nil && in.Start.IsZero() {
		in.Start = at
	}
	ttft, tpot, latency := service(in.Requests)
	in.check("p99 of TTFT", f.P99TTFT, ttft.at(0.99))
	in.check("median of TTFT", f.MedianTTFT, ttft.at(0.5))
	in.check("p99 of TPOT", f.P99TPOT, tpot.at(0.99))
	in.check("p99 of E2EL", f.P99E2EL, latency.at(0.99))
	return in, nil
}

// check notes a percentile that a file states in milliseconds.
func (in *Imported) check(name string, ms number, own float64) {
	if ms.is && ms.value > 0 {
		in.Checks = append(in.Checks, Check{name, ms.value / 1e3, own})
	}
}

// readGuideLLM reads a report. Of several benchmarks it takes them one after the
// other, as they were played.
func readGuideLLM(b []byte) (Imported, error) {
	type request struct {
		Info struct {
			Error   *string `json:"error"`
			Status  string  `json:"status"`
			Timings struct {
				Due   number `json:"targeted_start"`
				Sent  number `json:"request_start"`
				First number `json:"first_token_iteration"`
				Last  number `json:"last_token_iteration"`
				End   number `json:"request_end"`
			} `json:"timings"`
		} `json:"info"`
		In     map[string]any `json:"input_metrics"`
		Output map[string]any `json:"output_metrics"`
	}
	type distribution struct {
		Successful struct {
			Percentiles struct {
				P50 number `json:"p50"`
				P99 number `json:"p99"`
			} `json:"percentiles"`
		} `json:"successful"`
	}
	var f struct {
		Benchmarks []struct {
			Config struct {
				Backend struct {
					Target string `json:"target"`
					Model  string `json:"model"`
				} `json:"backend"`
			} `json:"config"`
			Metrics struct {
				TTFT    distribution `json:"time_to_first_token_ms"`
				Latency distribution `json:"request_latency"`
			} `json:"metrics"`
			Requests struct {
				Successful []request `json:"successful"`
				Errored    []request `json:"errored"`
				Incomplete []request `json:"incomplete"`
			} `json:"requests"`
		} `json:"benchmarks"`
	}
	if err := json.Unmarshal(b, &f); err != nil {
		return Imported{}, err
	}
	var events []event
	for _, benchmark := range f.Benchmarks {
		for failed, requests := range [][]request{benchmark.Requests.Successful, benchmark.Requests.Errored, benchmark.Requests.Incomplete} {
			for _, q := range requests {
				t := q.Info.Timings
				if !t.Sent.is && !t.Due.is {
					continue // it was never sent
				}
				e := event{due: t.Due.or(unknown), sent: t.Sent.or(unknown), first: t.First.or(unknown), last: t.Last.or(t.End.or(unknown)), end: t.End.or(t.Last.or(unknown)),
					prompt: total(q.In), output: total(q.Output), failed: failed > 0}
				if q.Info.Error != nil {
					e.why = *q.Info.Error
				} else if failed == 2 {
					e.why = "incomplete: cancelled at the end of the benchmark"
				}
				if e.due > e.sent {
					e.due = e.sent
				}
				events = append(events, e)
				if err := tooMany(len(events)); err != nil {
					return Imported{}, err
				}
			}
		}
	}
	in, err := imported(toolGuideLLM, events)
	if err != nil {
		return in, err
	}
	in.Model, in.Target = f.Benchmarks[0].Config.Backend.Model, f.Benchmarks[0].Config.Backend.Target
	if len(f.Benchmarks) == 1 { // the percentiles of several are of each
		ttft, _, latency := service(in.Requests)
		m := f.Benchmarks[0].Metrics
		in.check("median of TTFT", m.TTFT.Successful.Percentiles.P50, guideLLM(ttft, 0.5, m.TTFT.Successful.Percentiles.P50.value/1e3))
		in.check("p99 of TTFT", m.TTFT.Successful.Percentiles.P99, guideLLM(ttft, 0.99, m.TTFT.Successful.Percentiles.P99.value/1e3))
		if p := m.Latency.Successful.Percentiles.P99; p.is && p.value > 0 {
			in.Checks = append(in.Checks, Check{"p99 of the request latency", p.value, guideLLM(latency, 0.99, p.value)})
		}
	}
	return in, nil
}

// total are the tokens of GuideLLM's usage.
func total(usage map[string]any) (n int64) {
	for _, kind := range []string{"text_tokens", "image_tokens", "video_tokens", "audio_tokens"} {
		if v, is := usage[kind].(float64); is {
			n += int64(v)
		}
	}
	return n
}

// guideLLM is the quantile as GuideLLM states it, the nearest rank, or interpolated
// as launchgate's own export has it, whichever is closer to what the file states.
func guideLLM(s stats, q, stated float64) float64 {
	if s.n() == 0 {
		return 0
	}
	rank := s.sorted[max(int(math.Ceil(q*float64(s.n())-1e-9)), 1)-1]
	if between := s.at(q); math.Abs(between-stated) < math.Abs(rank-stated) {
		return between
	}
	return rank
}
