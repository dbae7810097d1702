// Package interchange takes the numbers of a run along to other tools: Export writes a
// run in their formats.
package interchange

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/launchgate/launchgate/checklist"
	"github.com/launchgate/launchgate/internal/recording"
)

// maxRequests is how many requests of a run are held at once.
const maxRequests = 2_000_000

// Format is a format that a run can be written in.
type Format struct {
	Name, Means string
	write       func(w io.Writer, r run) error
}

// Formats are those of Export.
func Formats() []Format {
	return []Format{
		{"llm-d", "benchmark report 0.2.1 of llm-d-benchmark (JSON)", writeLLMD},
		{"k6", "summary of k6, as GitLab's load_performance reads it; objectives are checks", writeK6},
		{"openmetrics", "verdict, objectives, latencies and faults as OpenMetrics text", writeOpenMetrics},
		{"vllm", "result of vllm bench serve, with every request", writeVLLM},
		{"aiperf", "profile_export_aiperf.json of AIPerf", writeAIPerf},
		{"guidellm", "report of GuideLLM, version 2, with every request", writeGuideLLM},
	}
}

// FormatNames lists them for people.
func FormatNames() string {
	var names []string
	for _, f := range Formats() {
		names = append(names, f.Name)
	}
	return strings.Join(names, ", ")
}

// Export writes a judged run, or the load of one scenario of it.
func Export(w io.Writer, format string, rec *recording.Recording, v checklist.Verdict, scenario string) error {
	for _, f := range Formats() {
		if f.Name == format {
			r, err := gather(rec, v, scenario)
			if err != nil {
				return err
			}
			return f.write(w, r)
		}
	}
	return fmt.Errorf("found the format %q, expected one of %s", format, FormatNames())
}

// run is a run as other tools see one: its load. Their clocks start when a request
// is sent, so the latencies are launchgate's service latencies.
type run struct {
	verdict     checklist.Verdict
	environment recording.Environment
	scenario    string // empty: all
	requests    []recording.Request
	failed      int
	from, to    time.Duration // from the first request sent to the last end

	ttft, ttfo, tpot, icl, latency stats // in seconds
	perToken                       stats // latency / output tokens
	input, output                  stats // tokens
}

func gather(rec *recording.Recording, v checklist.Verdict, scenario string) (run, error) {
	r := run{verdict: v, environment: rec.Environment, scenario: scenario}
	known := scenario == ""
	for _, s := range v.Scenarios {
		known = known || s.Name == scenario
	}
	if !known {
		return r, fmt.Errorf("found no scenario %q in the run", scenario)
	}
	var ttft, ttfo, tpot, icl, latency, perToken, input, output []float64
	add := func(to *[]float64, d time.Duration, ok bool) {
		if ok {
			*to = append(*to, d.Seconds())
		}
	}
	for q, err := range rec.Requests {
		if err != nil {
			return r, err
		}
		if q.Kind != recording.KindLoad || scenario != "" && q.Scenario != scenario {
			continue
		}
		if len(r.requests) == maxRequests {
			return r, fmt.Errorf("found more than %d requests, and an export holds all of them: choose one scenario", maxRequests)
		}
		r.requests = append(r.requests, q)
		if q.Sent > 0 && (r.from == 0 || q.Sent < r.from) {
			r.from = q.Sent
		}
		r.to = max(r.to, q.End)
		if !q.OK() {
			r.failed++
			continue
		}
		first, ok := q.ServiceTTFT()
		add(&ttft, first, ok)
		add(&ttfo, q.FirstOutput-q.Sent, q.FirstOutput > 0)
		perOutput, ok := q.TPOT()
		add(&tpot, perOutput, ok)
		whole, ok := q.ServiceLatency()
		add(&latency, whole, ok)
		q.EachGap(func(gap, _ time.Duration) { icl = append(icl, gap.Seconds()) })
		if q.OutputTokens > 0 {
			output = append(output, float64(q.OutputTokens))
			perToken = append(perToken, whole.Seconds()/float64(q.OutputTokens))
		}
		if q.PromptTokens > 0 {
			input = append(input, float64(q.PromptTokens))
		}
	}
	r.ttft, r.ttfo, r.tpot, r.icl, r.latency, r.perToken = describe(ttft), describe(ttfo), describe(tpot), describe(icl), describe(latency), describe(perToken)
	r.input, r.output = describe(input), describe(output)
	if len(r.requests) == 0 {
		return r, fmt.Errorf("the run has no requests of load%s, so there is nothing to export", ofScenario(scenario))
	}
	return r, nil
}

func ofScenario(name string) string {
	if name == "" {
		return ""
	}
	return " in " + name
}

// seconds is how long the load lasted; at least a nanosecond, so that it divides.
func (r run) seconds() float64 { return max(r.to-r.from, 1).Seconds() }

func (r run) succeeded() int { return len(r.requests) - r.failed }

// wall is the wall time of a moment on the run's clock.
func (r run) wall(at time.Duration) time.Time { return r.environment.StartedAt.Add(at).UTC() }

// epoch is the same in seconds since 1970, as Python's time.time() has it.
func (r run) epoch(at time.Duration) float64 { return float64(r.wall(at).UnixNano()) / 1e9 }

// name of the run for formats that want one: the same for the same recording.
func (r run) name() string {
	return strings.TrimSuffix("launchgate-"+r.environment.StartedAt.UTC().Format("20060102T150405Z")+"-"+r.scenario, "-")
}

// tool is what made the file.
func (r run) tool() string { return strings.TrimSpace("launchgate " + r.environment.Version) }

func writeJSON(w io.Writer, v any) error {
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false)
	return encoder.Encode(v)
}
