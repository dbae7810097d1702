package interchange

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
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
		Date      string      `json:"date"`
		Model     string      `json:"model_id"`
		Inputs    []int64     `json:"input_lens"`
		Outputs   []int64     `json:"output_lens"`
		TTFTs     []float64   `json:"ttfts"`
		ITLs      [][]float64 `json:"itls"`
		Latencies []float64   `json:"latencies"`
		Starts    []float64   `json:"start_times"`
		Errors    []string    `json:"errors"`
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
	var stated map[string]json.RawMessage
	if err := json.Unmarshal(b, &stated); err != nil {
		return in, err
	}
	ttft, tpot, latency := service(in.Requests)
	for _, key := range slices.Sorted(maps.Keys(stated)) {
		m := percentileKey.FindStringSubmatch(key)
		if m == nil {
			continue
		}
		var ms number
		if err := json.Unmarshal(stated[key], &ms); err != nil {
			return in, fmt.Errorf("%s: %w", key, err)
		}
		own := map[string]stats{"ttft": ttft, "tpot": tpot, "e2el": latency}[m[2]]
		q, err := strconv.ParseFloat(m[1], 64)
		if err != nil || q > 100 {
			return in, fmt.Errorf("found %s, expected a percentile of at most 100", key)
		}
		in.check(fmt.Sprintf("p%g of %s", q, strings.ToUpper(m[2])), ms, 1e-3, own.at(q/100))
	}
	return in, nil
}

// percentileKey is the name of a percentile in a result of vllm bench.
var percentileKey = regexp.MustCompile(`^p([0-9.]+)_(ttft|tpot|e2el)_ms$`)

// statedPercentiles are those that AIPerf and GuideLLM state of a latency.
var statedPercentiles = []struct {
	key string
	q   float64
}{{"p50", 0.5}, {"p90", 0.9}, {"p95", 0.95}, {"p99", 0.99}}

// check notes a percentile that a file states in a unit of so many seconds.
func (in *Imported) check(name string, stated number, unit, own float64) {
	if stated.is && stated.value > 0 {
		in.Checks = append(in.Checks, Check{name, stated.value * unit, own})
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
			Percentiles map[string]number `json:"percentiles"`
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
				TPOT    distribution `json:"inter_token_latency_ms"`
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
		ttft, tpot, latency := service(in.Requests)
		m := f.Benchmarks[0].Metrics
		for _, d := range []struct {
			name   string
			unit   float64
			own    stats
			stated distribution
		}{{"TTFT", 1e-3, ttft, m.TTFT}, {"TPOT", 1e-3, tpot, m.TPOT}, {"the request latency", 1, latency, m.Latency}} {
			for _, p := range statedPercentiles {
				stated := d.stated.Successful.Percentiles[p.key]
				in.check(p.key+" of "+d.name, stated, d.unit, guideLLM(d.own, p.q, stated.value*d.unit))
			}
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

// readBeside reads a JSON or YAML file in the folder of another; nil: there is none.
func readBeside[T any](path, name string) (*T, error) {
	beside := filepath.Join(filepath.Dir(path), name)
	b, err := os.ReadFile(beside)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	unmarshal := json.Unmarshal
	if filepath.Ext(name) == ".yaml" {
		unmarshal = yaml.Unmarshal
	}
	var v T
	if err := unmarshal(b, &v); err != nil {
		return nil, fmt.Errorf("%s: %w", beside, err)
	}
	return &v, nil
}

// besideConfig reads config.yaml in the folder of a file, empty if there is none.
func besideConfig[T any](path string) (v T, err error) {
	read, err := readBeside[T](path, "config.yaml")
	if read != nil {
		v = *read
	}
	return v, err
}
