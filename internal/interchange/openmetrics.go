package interchange

import (
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/launchgate/launchgate/checklist"
)

var labelEscapes = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)

// writeOpenMetrics writes OpenMetrics text 1.0. What was not measured has no sample;
// what was not proven has launchgate_objective_proven 0.
func writeOpenMetrics(w io.Writer, r run) error {
	var b strings.Builder
	family := func(name, kind, help string) { fmt.Fprintf(&b, "# TYPE %s %s\n# HELP %s %s\n", name, kind, name, help) }
	sample := func(name string, v float64, labels ...string) {
		b.WriteString(name)
		for i := 0; i < len(labels); i += 2 {
			b.WriteString(map[bool]string{true: "{", false: ","}[i == 0] + labels[i] + `="` + labelEscapes.Replace(labels[i+1]) + `"`)
		}
		if len(labels) > 0 {
			b.WriteString("}")
		}
		fmt.Fprintf(&b, " %s\n", strconv.FormatFloat(v, 'g', -1, 64))
	}
	truth := func(is bool) float64 {
		if is {
			return 1
		}
		return 0
	}
	family("launchgate_verdict", "stateset", "The verdict of the run.")
	for _, o := range []checklist.Outcome{checklist.Pass, checklist.Fail, checklist.Unproven, checklist.Invalid} {
		sample("launchgate_verdict", truth(r.verdict.Verdict == o), "launchgate_verdict", o.String())
	}
	family("launchgate_exit_code", "gauge", "0 pass, 1 fail, 2 unproven, 3 invalid, 130 interrupted.")
	sample("launchgate_exit_code", float64(r.verdict.ExitCode))
	family("launchgate_objective_proven", "gauge", "1 if the objective is proven; 0 if it failed, is unproven or the run is invalid.")
	for _, f := range r.verdict.Objectives {
		if !f.Waived {
			sample("launchgate_objective_proven", truth(f.Verdict == checklist.Pass), "objective", f.Source, "outcome", f.Verdict.String())
		}
	}
	for _, of := range []struct {
		name, help string
		value      func(checklist.Finding) *float64
	}{
		{"launchgate_objective_value", "What was measured, in the unit of the objective.", func(f checklist.Finding) *float64 { return f.Value }},
		{"launchgate_objective_bound", "The confidence bound of it.", func(f checklist.Finding) *float64 { return f.Bound }},
		{"launchgate_objective_threshold", "The limit.", func(f checklist.Finding) *float64 { return &f.Threshold }},
	} {
		family(of.name, "gauge", of.help)
		for _, f := range r.verdict.Objectives {
			if v := of.value(f); v != nil {
				sample(of.name, *v, "objective", f.Source, "unit", f.Unit)
			}
		}
	}
	scenarios := r.verdict.Scenarios
	for _, of := range []struct {
		name, help string
		value      func(checklist.Scenario) *checklist.Quantiles
	}{
		{"launchgate_ttft_seconds", "Time to first token, from when the request was due.", func(s checklist.Scenario) *checklist.Quantiles { return s.TTFT }},
		{"launchgate_tpot_seconds", "Time per output token.", func(s checklist.Scenario) *checklist.Quantiles { return s.TPOT }},
		{"launchgate_icl_seconds", "Gaps between chunks.", func(s checklist.Scenario) *checklist.Quantiles { return s.ICL }},
		{"launchgate_latency_seconds", "Time to the end of the answer, from when the request was due.", func(s checklist.Scenario) *checklist.Quantiles { return s.Latency }},
	} {
		family(of.name, "summary", of.help)
		for _, s := range scenarios {
			if q := of.value(s); q != nil && r.shows(s.Name) {
				for _, at := range []struct {
					q string
					v float64
				}{{"0.5", q.P50}, {"0.9", q.P90}, {"0.95", q.P95}, {"0.99", q.P99}, {"1.0", q.Max}} {
					sample(of.name, at.v, "scenario", s.Name, "quantile", at.q)
				}
				sample(of.name+"_count", float64(q.Samples), "scenario", s.Name)
			}
		}
	}
	for _, of := range []struct {
		name, help string
		value      func(checklist.Scenario) *float64
	}{
		{"launchgate_requests", "Requests of load.", func(s checklist.Scenario) *float64 { v := float64(s.Requests); return &v }},
		{"launchgate_errors", "Requests of load that failed.", func(s checklist.Scenario) *float64 { v := float64(s.Errors); return &v }},
		{"launchgate_output_tokens_per_second", "Tokens of successful answers a second.", func(s checklist.Scenario) *float64 { return s.OutputTokensPerSecond }},
		{"launchgate_goodput_per_second", "Requests a second that met every limit.", func(s checklist.Scenario) *float64 { return s.GoodputPerSecond }},
	} {
		family(of.name, "gauge", of.help)
		for _, s := range scenarios {
			if v := of.value(s); v != nil && r.shows(s.Name) {
				sample(of.name, *v, "scenario", s.Name)
			}
		}
	}
	for _, of := range []struct {
		name, help string
		value      func(checklist.Fault) *float64
	}{
		{"launchgate_rto_seconds", "Recovery time of a fault, as clients see it.", func(f checklist.Fault) *float64 { return f.RTOSeconds }},
		{"launchgate_rpo_seconds", "Age of the oldest acknowledged write that a fault lost.", func(f checklist.Fault) *float64 { return f.RPOSeconds }},
	} {
		family(of.name, "gauge", of.help)
		for _, f := range r.verdict.Faults {
			if v := of.value(f); v != nil && r.shows(f.Scenario) {
				sample(of.name, *v, "fault", f.ID, "kind", f.Kind)
			}
		}
	}
	b.WriteString("# EOF\n")
	_, err := io.WriteString(w, b.String())
	return err
}

func (r run) shows(scenario string) bool { return r.scenario == "" || r.scenario == scenario }
