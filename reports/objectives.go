package reports

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/launchgate/launchgate/checklist"
	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/scenarios"
)

// Objective is a finding with how near it came to its limit.
type Objective struct {
	checklist.Finding
	Declared scenarios.Objective // zero where the gate no longer has it
	// Margin is the share of the limit (of a share that must be reached: of what
	// it leaves) that was left over, negative where it was missed; nil where nothing was measured or the limit is zero.
	Margin *float64
	Bar    Bar
}

// Bar places an objective on a track from 0 to 1 with its limit at barLimit.
type Bar struct {
	Value *float64 // nil: nothing was measured
	Bound *float64 // how far the value may be off, with 99 % confidence
	Over  bool     // the value lies beyond the end of the track
	Floor bool     // the value must reach the limit instead of staying below
}

// barLimit leaves room on the track for values half as large again.
const barLimit = 2.0 / 3

var severity = map[checklist.Outcome]int{checklist.Fail: 0, checklist.Invalid: 1, checklist.Unproven: 2, checklist.Pass: 3}

// objectives puts what decided the verdict first: failed, invalid, unproven,
// passed, and within each the order of the gate.
func objectives(gate scenarios.Gate, v checklist.Verdict) []Objective {
	var rows []Objective
	for _, f := range v.Objectives {
		row := Objective{Finding: f}
		if i := slices.IndexFunc(gate.Objectives, func(o scenarios.Objective) bool { return o.Source == f.Source }); i >= 0 {
			row.Declared = gate.Objectives[i]
		}
		row.place()
		rows = append(rows, row)
	}
	slices.SortStableFunc(rows, func(a, b Objective) int {
		return cmp.Compare(severity[a.Verdict], severity[b.Verdict])
	})
	return rows
}

func (o *Objective) place() {
	o.Bar.Floor = o.Declared.Op == ">=" || o.Declared.Op == ">"
	if o.Value == nil || math.IsNaN(*o.Value) {
		return
	}
	o.Bar.Value, o.Bar.Over = along(*o.Value, o.Threshold)
	if o.Bound != nil {
		o.Bar.Bound, _ = along(*o.Bound, o.Threshold)
	}
	if o.Threshold == 0 {
		return
	}
	margin := (o.Threshold - *o.Value) / math.Abs(o.Threshold)
	if o.Bar.Floor {
		margin = -margin
	}
	if o.Bar.Floor && o.Unit == scenarios.UnitRatio && o.Declared.Than == (scenarios.Than{}) && margin > 0 {
		// An attainment of at least 90 % allows 10 % to be missed. The margin is the
		// share of those 10 % that is left: at 100 % all of it.
		margin = (*o.Value - o.Threshold) / (1 - o.Threshold)
	}
	if o.Declared.Op == "==" {
		margin = -math.Abs(margin)
	}
	o.Margin = &margin
}

// along is where a value lies on a track whose limit lies at barLimit.
func along(value, limit float64) (*float64, bool) {
	at := value / limit * barLimit
	if limit == 0 {
		at = barLimit
		if value > 0 {
			at = 1
		}
	}
	clipped := min(max(at, 0), 1)
	return &clipped, at > 1
}

func samples(l Language, n int64) string {
	if n == 1 {
		return l.say("objective.sample")
	}
	return l.say("objective.samples", count(n))
}

// margin says how near an objective came, in words.
func margin(l Language, o Objective) string {
	switch {
	case o.Margin == nil && o.Value != nil && o.Verdict == checklist.Fail:
		return l.say("objective.missed", value(math.Abs(*o.Value-o.Threshold), o.Unit))
	case o.Margin == nil && o.Value != nil && *o.Value == o.Threshold, o.Margin != nil && *o.Margin == 0:
		return l.say("objective.exact")
	case o.Margin == nil:
		return ""
	case *o.Margin <= -1 && !o.Bar.Floor:
		return l.say("objective.times", digits(1-*o.Margin))
	case *o.Margin < 0:
		return l.say("objective.missed", percent(-*o.Margin))
	}
	return l.say("objective.spare", percent(*o.Margin))
}

// Measured is the value of an objective with its unit, if it has one.
func Measured(l Language, f checklist.Finding) string {
	if f.Value == nil {
		return l.say("objective.unmeasured")
	}
	return l.Word(value(*f.Value, f.Unit))
}

// bound is how far off the value may be, towards its limit: ≤ 150 ms.
func bound(l Language, o Objective) string {
	if o.Bound == nil {
		return ""
	}
	sign := "≤ "
	if o.Bar.Floor {
		sign = "≥ "
	}
	return sign + l.Word(value(*o.Bound, o.Unit))
}

func limit(l Language, o Objective) string {
	return strings.TrimSpace(o.Declared.Op + " " + l.Word(value(o.Threshold, o.Unit)))
}

func terminalObjectives(b *strings.Builder, p paint, r Report) {
	if len(r.Objectives) == 0 {
		return
	}
	b.WriteString("\n")
	l := r.Language
	rows := [][]string{{"", l.say("objective.objective"), l.say("objective.value"), l.say("objective.bound"), l.say("objective.limit"), l.say("objective.margin"), l.say("latency.samples")}}
	for _, o := range r.Objectives {
		rows = append(rows, []string{l.name("outcome.", o.Verdict.String()), printable(o.Source), Measured(l, o.Finding),
			bound(l, o), limit(l, o), margin(l, o), count(o.Samples)})
	}
	widths := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			widths[i] = max(widths[i], columns(cell))
		}
	}
	for i, row := range rows {
		var line strings.Builder
		for j, cell := range row {
			if j > 0 {
				line.WriteString("  ")
			}
			switch {
			case j < 2:
				cell = pad(cell, widths[j])
			default:
				cell = padLeft(cell, widths[j])
			}
			if i == 0 {
				cell = p.dim(cell)
			} else if j == 0 {
				cell = p.outcome(r.Objectives[i-1].Verdict, cell)
			}
			line.WriteString(cell)
		}
		fmt.Fprintf(b, "%s\n", strings.TrimRight(line.String(), " "))
		if i > 0 {
			if o := r.Objectives[i-1]; o.Verdict != checklist.Pass && !o.Why.IsZero() {
				fmt.Fprintf(b, "%s  %s\n", strings.Repeat(" ", widths[0]), p.dim(printable(l.Word(o.Why))))
			}
		}
	}
}

func markdownObjectives(b *strings.Builder, r Report) {
	l := r.Language
	if len(r.Objectives) == 0 {
		return
	}
	fmt.Fprintf(b, "| %s | %s | %s | %s | %s | %s | %s |\n|---|---|--:|--:|--:|--:|--:|\n",
		l.say("objective.outcome"), l.say("objective.objective"), l.say("objective.value"), l.say("objective.bound"),
		l.say("objective.limit"), l.say("objective.margin"), l.say("latency.samples"))
	for _, o := range r.Objectives {
		fmt.Fprintf(b, "| %s %s | %s | %s | %s | %s | %s | %s |\n",
			markdownSign[o.Verdict], l.name("outcome.", o.Verdict.String()), markdownCode(o.Source), Measured(l, o.Finding),
			bound(l, o), limit(l, o), margin(l, o), count(o.Samples))
	}
	b.WriteString("\n")
}

// junitObjectives are a suite for the objectives of each scenario.
func junitObjectives(r Report) []junitSuite {
	l := r.Language
	var suites []junitSuite
	for _, o := range r.Objectives {
		f, name := o.Finding, "objectives"
		if f.Scenario != "" {
			name = "objectives: " + f.Scenario
		}
		result := junitResult(f.Source, r.Gate+"."+cmp.Or(f.Scenario, "run"), f.Verdict, l.Word(f.Why), findingLine(l, o))
		if f.Waived {
			result.Skipped, result.Error = result.Error, nil
		}
		suites = append(suites, junitSuite{Name: name, Cases: []junitCase{result}})
	}
	return suites
}

func findingLine(l Language, o Objective) string {
	got := Measured(l, o.Finding)
	if o.Bound != nil {
		got = l.say("junit.bound", got, bound(l, o))
	}
	return l.say("junit.finding", got, value(o.Threshold, o.Unit), samples(l, o.Samples), o.Why)
}

// meaning says in a sentence what a metric is; empty for one that there is not.
func meaning(l Language, metric string) string {
	m, _ := scenarios.MetricOf(metric)
	return l.Word(words.Say(m.Means))
}

// term says in plain words what an objective is about.
func term(l Language, o Objective) string {
	text := meaning(l, o.Declared.Metric)
	switch {
	case text == "":
		return "" // the gate no longer has the objective
	case o.Declared.Quantile > 0:
		return l.say("term.share", percent(o.Declared.Quantile), text)
	case o.Declared.Stat != "":
		return l.say("term.stat", o.Declared.Stat, text)
	}
	return text
}
