package interchange

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
)

// inferencePerfSummary has the percentiles of all requests.
const inferencePerfSummary = "summary_lifecycle_metrics.json"

// readInferencePerf reads per_request_lifecycle_metrics.json of inference-perf. It says
// when a request was sent, but not when it was due, nor of which stage it is.
func readInferencePerf(b []byte) (Imported, error) {
	var requests []struct {
		Start   number `json:"start_time"`
		End     number `json:"end_time"`
		Request string `json:"request"`
		Info    *struct {
			Request struct {
				Text struct {
					Tokens number `json:"input_tokens"`
				} `json:"text"`
			} `json:"request_metrics"`
			Response *struct {
				Tokens number `json:"output_tokens"` // as inference-perf counted them
				Usage  struct {
					Tokens number `json:"completion_tokens"`
				} `json:"server_usage"`
				Times []float64 `json:"output_token_times"` // a token has the time of its chunk
			} `json:"response_metrics"`
		} `json:"info"`
		Error *struct {
			Type    string `json:"error_type"`
			Message string `json:"error_msg"`
		} `json:"error"`
	}
	if err := json.Unmarshal(b, &requests); err != nil {
		return Imported{}, err
	}
	if err := tooMany(len(requests)); err != nil {
		return Imported{}, err
	}
	events := make([]event, len(requests))
	own := make([]int64, len(requests)) // tokens as inference-perf counted them
	model := ""
	for i, q := range requests {
		if !q.Start.is || !q.End.is || q.End.value < q.Start.value {
			return Imported{}, fmt.Errorf("request %d: found start_time %g and end_time %g, expected two times, the second not before the first; is it per_request_lifecycle_metrics.json of inference-perf?", i+1, q.Start.value, q.End.value)
		}
		e := event{due: unknown, sent: q.Start.value, first: unknown, last: q.End.value, end: q.End.value}
		switch {
		case q.Error != nil:
			e.failed, e.why = true, q.Error.Type+": "+q.Error.Message
			if code, is := strings.CutPrefix(q.Error.Type, "HTTP Error "); is {
				e.status, _ = strconv.Atoi(code) // 0: no number
			}
		case q.Info == nil:
			return Imported{}, fmt.Errorf("request %d has no info, which has its tokens and their times; let inference-perf write it (report.request_lifecycle.per_request_fields.info)", i+1)
		case q.Info.Response == nil:
			e.failed, e.why = true, "the file has no response"
		default:
			r := q.Info.Response
			e.prompt, e.output, own[i] = int64(q.Info.Request.Text.Tokens.value), int64(r.Usage.Tokens.or(r.Tokens.value)), int64(r.Tokens.value)
			e.fromChunks = !r.Usage.Tokens.is
			if n := len(r.Times); n > 0 {
				e.first, e.last = r.Times[0], r.Times[n-1]
				for j := 1; j < n; j++ {
					if gap := r.Times[j] - r.Times[j-1]; gap > 0 {
						e.gaps = append(e.gaps, gap)
					}
				}
				e.several = n > 1
			}
		}
		if model == "" {
			var body struct {
				Model string `json:"model"`
			}
			if json.Unmarshal([]byte(q.Request), &body) == nil { // it may be left out
				model = body.Model
			}
		}
		events[i] = e
	}
	counts := make([]event, len(events)) // imported sorts them
	copy(counts, events)
	in, err := imported(toolInferencePerf, events)
	if err != nil {
		return in, err
	}
	in.Model = model
	in.beside = func(in *Imported, path string) error {
		target, err := besideConfig[struct {
			Server struct {
				URL string `yaml:"base_url"`
			} `yaml:"server"`
		}](path)
		if err != nil {
			return err
		}
		in.Target = target.Server.URL
		summary, err := readBeside[inferencePerfStated](path, inferencePerfSummary)
		if err != nil || summary == nil {
			return err
		}
		// It was told to count tokens itself, or to take those of the server; its files
		// do not say which.
		in.Checks = summary.checks(counts)
		if !agree(in.Checks) {
			for i := range counts {
				counts[i].output, counts[i].fromChunks = own[i], true
			}
			if byTool := summary.checks(counts); agree(byTool) {
				in.Checks = byTool
				again, err := imported(toolInferencePerf, counts)
				if err != nil {
					return err
				}
				in.Requests = again.Requests
			}
		}
		return nil
	}
	return in, nil
}

// inferencePerfStated is what the summary of inference-perf states.
type inferencePerfStated struct {
	Successes struct {
		Latency map[string]map[string]number `json:"latency"`
	} `json:"successes"`
}

// checks compares the requests with it. inference-perf takes TTFT and TPOT of the answers
// with two tokens or more.
func (s inferencePerfStated) checks(events []event) (all []Check) {
	var ttft, tpot, latency []float64
	for _, e := range events {
		if e.failed {
			continue
		}
		latency = append(latency, e.end-e.sent)
		if !e.several {
			continue
		}
		ttft = append(ttft, e.first-e.sent)
		if e.output > 1 {
			tpot = append(tpot, (e.last-e.first)/float64(e.output-1))
		}
	}
	for _, d := range []struct {
		name, key string
		own       stats
	}{{"TTFT", "time_to_first_token", describe(ttft)}, {"TPOT", "time_per_output_token", describe(tpot)}, {"the request latency", "request_latency", describe(latency)}} {
		for _, p := range statedPercentiles {
			key := p.key
			if key == "p50" {
				key = "median"
			}
			if stated := s.Successes.Latency[d.key][key]; stated.is && stated.value > 0 {
				all = append(all, Check{p.key + " of " + d.name, stated.value, d.own.at(p.q)})
			}
		}
	}
	return all
}

// agree reports whether all percentiles are close enough.
func agree(checks []Check) bool {
	for _, c := range checks {
		if !(c.Off() <= agreement) {
			return false
		}
	}
	return true
}
