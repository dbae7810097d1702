package interchange

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
)

// mlperfSummary has the percentiles of all samples.
const mlperfSummary = "performance/result_summary.json"

// readMLPerf reads events.jsonl of MLPerf Endpoints. Its samples are issued when their
// turn comes, so it says no due times, and its texts are not counted in tokens: the
// requests have none, because a chunk may have many.
func readMLPerf(b []byte) (Imported, error) {
	var events []event
	place := map[string]int{} // of a sample
	var base int64
	tracked := true
	if bytes.Contains(b, []byte(`"session.start_performance_tracking"`)) {
		tracked = false // before it is warm-up
	}
	lines := json.NewDecoder(bytes.NewReader(b))
	for n := 1; ; n++ {
		var r struct {
			Type   string          `json:"event_type"`
			At     int64           `json:"timestamp_ns"`
			Sample string          `json:"sample_uuid"`
			Data   json.RawMessage `json:"data"`
		}
		if err := lines.Decode(&r); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return Imported{}, fmt.Errorf("event %d: it is not whole JSON: %w", n, err)
		}
		if r.Type == "" || r.At < 0 {
			return Imported{}, fmt.Errorf("event %d: found event_type %q at timestamp_ns %d, expected an event of MLPerf Endpoints", n, r.Type, r.At)
		}
		if n == 1 {
			base = r.At // small numbers keep their nanoseconds as floats
		}
		at := float64(r.At-base) / 1e9
		switch r.Type {
		case "session.start_performance_tracking":
			tracked = true
			continue
		case "session.stop_performance_tracking":
			tracked = false
			continue
		}
		i, known := place[r.Sample]
		switch {
		case r.Sample == "":
		case r.Type == "sample.issued":
			if known { // sent again
				events[i].sent = at
				continue
			}
			place[r.Sample] = len(events)
			events = append(events, event{due: unknown, sent: at, first: unknown, last: unknown, end: unknown, warmup: !tracked, fromChunks: true})
			if err := tooMany(len(events)); err != nil {
				return Imported{}, err
			}
		case !known:
			return Imported{}, fmt.Errorf("event %d: found %s of a sample that was not issued before", n, r.Type)
		case r.Type == "sample.recv_first":
			events[i].first = at
		case r.Type == "sample.complete":
			events[i].last, events[i].end = at, at
		case len(r.Type) > 6 && r.Type[:6] == "error.":
			events[i].failed, events[i].why = true, mlperfError(r.Data)
			_, _ = fmt.Sscanf(events[i].why, "HTTP %d", &events[i].status) // 0: no status
		}
	}
	var ttft, latency []float64
	for i := range events {
		e := &events[i]
		if math.IsNaN(e.end) {
			e.failed, e.end = true, e.sent
			if e.why == "" {
				e.why = "incomplete: it had not ended when the benchmark did"
			}
		} else if !e.warmup {
			latency = append(latency, e.end-e.sent)
		}
		if !math.IsNaN(e.first) && !e.warmup {
			ttft = append(ttft, e.first-e.sent)
		}
	}
	in, err := imported(toolMLPerf, events)
	if err != nil {
		return in, err
	}
	in.beside = func(in *Imported, path string) error {
		config, err := besideConfig[struct {
			Model struct {
				Name string `yaml:"name"`
			} `yaml:"model_params"`
			Endpoint struct {
				URLs []string `yaml:"endpoints"`
			} `yaml:"endpoint_config"`
		}](path)
		if err != nil {
			return err
		}
		in.Model = config.Model.Name
		if len(config.Endpoint.URLs) == 1 {
			in.Target = config.Endpoint.URLs[0]
		}
		type distribution struct {
			Percentiles map[string]number `json:"percentiles"`
		}
		summary, err := readBeside[struct {
			TTFT    distribution `json:"ttft"`
			Latency distribution `json:"latency"`
		}](path, mlperfSummary)
		if err != nil || summary == nil {
			return err
		}
		for _, d := range []struct {
			name   string
			own    stats
			stated distribution
		}{{"TTFT", describe(ttft), summary.TTFT}, {"the request latency", describe(latency), summary.Latency}} {
			for _, p := range statedPercentiles {
				stated, is := d.stated.Percentiles[p.key[1:]]
				if !is {
					stated = d.stated.Percentiles[p.key[1:]+".0"]
				}
				in.check(p.key+" of "+d.name, stated, 1e-9, d.own.below(p.q)) // as MLPerf takes it
			}
		}
		return nil
	}
	return in, nil
}

// mlperfError is the message of ["ErrorData", type, message].
func mlperfError(data json.RawMessage) string {
	var parts []string
	if err := json.Unmarshal(data, &parts); err != nil || len(parts) < 2 {
		return string(data)
	}
	return parts[len(parts)-1]
}
