package interchange

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"time"
)

// The files that AIPerf writes beside each other: a line for each request, and the
// percentiles of all.
const (
	aiperfRequests = "profile_export.jsonl"
	aiperfSummary  = "profile_export_aiperf.json"
)

// readAIPerf reads profile_export.jsonl. AIPerf notes when a request's credit was
// issued, which is late where its timer was, so it says no due times.
func readAIPerf(b []byte) (Imported, error) {
	type metric struct {
		Value json.RawMessage `json:"value"`
		Unit  string          `json:"unit"`
	}
	var events []event
	var base int64
	lines := json.NewDecoder(bytes.NewReader(b))
	for {
		var r struct {
			Metadata struct {
				Start     int64  `json:"request_start_ns"`
				End       int64  `json:"request_end_ns"`
				Phase     string `json:"benchmark_phase"`
				Cancelled bool   `json:"was_cancelled"`
			} `json:"metadata"`
			Metrics map[string]metric `json:"metrics"`
			Error   *struct {
				Code    *int   `json:"code"`
				Type    string `json:"type"`
				Message string `json:"message"`
			} `json:"error"`
		}
		if err := lines.Decode(&r); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return Imported{}, fmt.Errorf("request %d: it is not whole JSON: %w", len(events)+1, err)
		}
		if r.Metadata.Start <= 0 || r.Metadata.End < r.Metadata.Start {
			return Imported{}, fmt.Errorf("request %d: found request_start_ns %d and request_end_ns %d, expected two times after 1970, the second not before the first", len(events)+1, r.Metadata.Start, r.Metadata.End)
		}
		if len(events) == 0 {
			base = r.Metadata.Start // small numbers keep their nanoseconds as floats
		}
		value := func(name, unit string, to any) error {
			m, is := r.Metrics[name]
			if !is {
				return nil
			}
			if m.Unit != unit {
				return fmt.Errorf("request %d: found %s in %q, expected %q", len(events)+1, name, m.Unit, unit)
			}
			if err := json.Unmarshal(m.Value, to); err != nil {
				return fmt.Errorf("request %d: %s: %w", len(events)+1, name, err)
			}
			return nil
		}
		var ttft, latency, input, output, promptUsed, outputUsed number
		var gaps []float64
		if err := errors.Join(value("time_to_first_token", "ms", &ttft), value("request_latency", "ms", &latency), value("inter_chunk_latency", "ms", &gaps),
			value("input_sequence_length", "tokens", &input), value("output_sequence_length", "tokens", &output),
			value("usage_prompt_tokens", "tokens", &promptUsed), value("usage_completion_tokens", "tokens", &outputUsed)); err != nil {
			return Imported{}, err
		}
		sent := float64(r.Metadata.Start-base) / 1e9
		// AIPerf's latency per token is of the tokens that it counted itself, unless it was
		// told to take those of the server.
		e := event{due: unknown, sent: sent, first: unknown, end: float64(r.Metadata.End-base) / 1e9, warmup: r.Metadata.Phase == "warmup",
			prompt: int64(input.or(promptUsed.value)), output: int64(output.or(outputUsed.value))}
		if ttft.is {
			e.first = sent + ttft.value/1e3
		}
		if latency.is {
			e.end = sent + latency.value/1e3
		}
		e.last = e.end
		for _, g := range gaps {
			e.gaps = append(e.gaps, g/1e3)
		}
		switch {
		case r.Error != nil:
			e.failed, e.why = true, r.Error.Type+": "+r.Error.Message
			if r.Error.Code != nil {
				e.status = *r.Error.Code
			}
		case r.Metadata.Cancelled:
			e.failed, e.why = true, "cancelled by AIPerf"
		case !latency.is:
			e.failed, e.why = true, "the file has no request_latency"
		}
		events = append(events, e)
		if err := tooMany(len(events)); err != nil {
			return Imported{}, err
		}
	}
	in, err := imported(toolAIPerf, events)
	if err != nil {
		return in, err
	}
	in.beside = (*Imported).checkAIPerf
	first := slices.MinFunc(events, bySent)
	in.Start = time.Unix(0, base).Add(time.Duration((first.sent - 1) * 1e9)).UTC()
	return in, nil
}

// checkAIPerf compares the requests with the percentiles that AIPerf wrote beside them.
func (in *Imported) checkAIPerf(requests string) error {
	type distribution map[string]any
	f, err := readBeside[struct {
		Config struct {
			Models struct {
				Items []struct {
					Name string `json:"name"`
				} `json:"items"`
			} `json:"models"`
			Endpoint struct {
				URLs []string `json:"urls"`
			} `json:"endpoint"`
		} `json:"input_config"`
		TTFT    distribution `json:"time_to_first_token"`
		TPOT    distribution `json:"inter_token_latency"`
		Latency distribution `json:"request_latency"`
	}](requests, aiperfSummary)
	if err != nil || f == nil {
		return err
	}
	if c := f.Config; len(c.Models.Items) == 1 && len(c.Endpoint.URLs) == 1 {
		in.Model, in.Target = c.Models.Items[0].Name, c.Endpoint.URLs[0]
	}
	ttft, tpot, latency := service(in.Requests)
	for _, d := range []struct {
		name   string
		own    stats
		stated distribution
	}{{"TTFT", ttft, f.TTFT}, {"TPOT", tpot, f.TPOT}, {"the request latency", latency, f.Latency}} {
		if len(d.stated) > 0 && d.stated["unit"] != "ms" {
			return fmt.Errorf("%s: found %s in %q, expected \"ms\"", filepath.Join(filepath.Dir(requests), aiperfSummary), d.name, d.stated["unit"])
		}
		for _, p := range statedPercentiles {
			value, is := d.stated[p.key].(float64)
			in.check(p.key+" of "+d.name, number{value, is}, 1e-3, d.own.at(p.q))
		}
	}
	return nil
}
