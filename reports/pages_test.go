package reports

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/launchgate/launchgate/capacity"
	"github.com/launchgate/launchgate/capacity/model"
	"github.com/launchgate/launchgate/checklist"
	"github.com/launchgate/launchgate/internal/words"
)

// aPlan is a plan with every part, with a long command and with bands of which some are
// wider than their chart.
func aPlan() Plan {
	months := model.Band{Best: 7, Low: 3, High: 12}
	p := Plan{
		Gate: "my-gate", Scenario: "steady", Objectives: []string{"p95(ttft) <= 500ms"}, Model: "model.json", Runs: []string{"runs/" + strings.Repeat("a-folder-with-a-long-name-", 8)},
		At: time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC), Rate: 40, Growth: 0.08, Survive: "node-loss", RunsOut: &Dates{},
		Size: model.Size{Replicas: 4, Lost: 1, Needed: model.Counts{Best: 4, Low: 3, High: 4}, Months: &months, Capacity: model.Band{Best: 70, Low: 60, High: 90}},
		GPUs: &model.Counts{Best: 4, Low: 3, High: 4},
		Cost: &PlanCost{Instance: "gpu-large", PerMonth: model.Band{Best: 12345, Low: 9876, High: 12345}, PerMillion: model.Band{Best: 0.4, Low: 0.3, High: 0.5},
			Options: []PlanOption{{"reserved", 9000, 0.27}, {"spot", 5000, 0.59}}},
		Fit:         []model.HeldOut{{Stage: "steady/slow", Rate: 5, Measured: model.Measured{model.TTFT50: 0.1}, Forecast: model.Measured{model.TTFT50: 0.11}}},
		Warnings:    []words.Kept{{Sentence: words.Say("the prices have no date, so nobody knows how old they are")}},
		Assumptions: []words.Kept{{Sentence: words.Say("the model knows no failures: error rates are not forecast")}},
	}
	for i := range 6 {
		f := float64(i + 1)
		p.Curve = append(p.Curve, PlanPoint{Rate: 10 * f, TTFT: model.Band{Best: 0.1 * f * f, Low: 0.05 * f, High: 0.9 * f}, TPOT: model.Band{Best: 0.01 * f, Low: 0.005 * f, High: 0.09 * f}})
	}
	return p
}

func aCapacity() Capacity {
	f := func(v float64) *float64 { return &v }
	return Capacity{
		Gate: "quick", Scenario: "steady", Target: "http://127.0.0.1:8000", Objectives: []string{"p95(ttft) in steady <= 1s"}, Seed: 1,
		At: time.Date(2026, 11, 23, 18, 0, 0, 0, time.UTC), Version: "test", Command: []string{"launchgate", "capacity"},
		Result: capacity.Result{Low: 90, High: 98.9, Found: true, Why: words.Say("the interval is no wider than 10 % and its lower end held 2 times"), Points: []capacity.Point{
			{Rate: 45, Outcome: capacity.Holds, Why: words.Say("1 objective, proven"), GoodputPerSecond: f(44.6), TokensPerSecond: f(2100), TTFTP50: f(0.012), TTFTP95: f(0.024), TPOTP50: f(0.003), TPOTP95: f(0.006), Dir: "try-01-45"},
			{Rate: 90, Outcome: capacity.Holds, Why: words.Say("1 objective, proven"), GoodputPerSecond: f(88), TokensPerSecond: f(4100), TTFTP50: f(0.022), TTFTP95: f(0.4), TPOTP50: f(0.009), TPOTP95: f(0.013), Dir: "try-02-90"},
			{Rate: 180, Outcome: capacity.Saturated, Why: words.Say("requests piled up faster than they were answered"), Dir: "try-03-180"},
			{Rate: 98.9, Outcome: capacity.Misses, Why: words.Say("p95(ttft) in steady <= 1s: it is 1.2 s, and must be <= 1 s"), GoodputPerSecond: f(80), TTFTP50: f(0.5), TTFTP95: f(1.2), Dir: "try-04-98_9"},
			{Rate: 90, Outcome: capacity.Holds, Why: words.Say("1 objective, proven"), GoodputPerSecond: f(89), Dir: "try-05-90"},
		}},
	}
}

func aComparison() Comparison {
	return Comparison{
		Gate: "quick", Base: "http://127.0.0.1:8000", Head: "http://127.0.0.1:8001", How: words.Say("Blocks of 5s at 20/s."),
		At: time.Date(2026, 11, 23, 18, 0, 0, 0, time.UTC), Version: "test", Command: []string{"launchgate", "run", "--baseline", "http://127.0.0.1:8000"},
		Comparison: checklist.Comparison{Change: checklist.Regression, Why: words.Say("p95(ttft) +12.0 % (+6.0 to +18.4)"), Blocks: [2]int{60, 60}, Paired: true, Differences: []checklist.Difference{
			{Metric: "p95(ttft)", Unit: "s", Base: 0.2, Head: 0.224, Effect: 0.12, Low: 0.06, High: 0.184, P: 1e-6, Change: checklist.Regression},
			{Metric: "p50(tpot)", Unit: "s", Base: 0.02, Head: 0.0202, Effect: 0.01, Low: -0.02, High: 0.04, P: 0.4, Change: checklist.Same},
			{Metric: "error_rate", Unit: "ratio", Base: 0, Head: 0, P: 1, Change: checklist.Same},
		}},
	}
}

// aMatrix has a run of each exit code.
func aMatrix() Matrix {
	m := Matrix{Gate: "matrix", Axes: []string{"MODEL", "QUANTIZATION"}, At: time.Date(2026, 11, 23, 18, 0, 0, 0, time.UTC), Version: "test"}
	for i, code := range worst {
		run := MatrixRun{Settings: map[string]string{"MODEL": "a-model-with-a-long-name-" + strings.Repeat("x", 10*i), "QUANTIZATION": "int8"}, Folder: fmt.Sprintf("%02d-run", i+1), ExitCode: code}
		run.Verdict = checklist.Verdict{Verdict: outcomes[code], ExitCode: code, Objectives: []checklist.Finding{
			{Source: "p95(ttft) in steady <= 500ms", Verdict: outcomes[code], Value: new(0.1 * float64(i+1)), Unit: "s", Threshold: 0.5}}}
		if code == checklist.ExitCouldNotRun {
			run.Verdict, run.Error = checklist.Verdict{}, "open 05-run/gate.yaml: no such file or directory"
		}
		m.Runs = append(m.Runs, run)
	}
	return m
}

// The heading of a matrix is of the same run as its exit code, also where a run could
// not be made or was interrupted.
func TestAMatrixIsAsBadAsItsWorstRun(t *testing.T) {
	all := aMatrix()
	for i, want := range []string{"Pass", "Unproven", "Fail", "Invalid", "Could not run", "Interrupted"} {
		m := all
		m.Runs = all.Runs[:i+1]
		var b bytes.Buffer
		if err := MatrixHTML(&b, m); err != nil {
			t.Fatal(err)
		}
		if code := m.ExitCode(); code != worst[i] {
			t.Errorf("the exit code is %d, expected %d", code, worst[i])
		}
		if !strings.Contains(b.String(), ">"+want+"</h1>") {
			t.Errorf("with exit code %d the heading is not %s", worst[i], want)
		}
		if strings.Contains(b.String(), "05-run/report.html") {
			t.Error("a run without a report has a link to one")
		}
	}
	for _, killed := range []int{-1, 137} {
		if got := (Matrix{Runs: []MatrixRun{{ExitCode: killed}}}).ExitCode(); got != checklist.ExitCouldNotRun {
			t.Errorf("a run that ended with %d gives the exit code %d", killed, got)
		}
	}
}

// The pages of a search and of a comparison equal the golden files.
func TestGoldenPages(t *testing.T) {
	for name, write := range map[string]func(*bytes.Buffer) error{
		"capacity.html": func(b *bytes.Buffer) error { return CapacityHTML(b, aCapacity()) },
		"compare.html":  func(b *bytes.Buffer) error { return CompareHTML(b, aComparison()) },
		"compare.txt":   func(b *bytes.Buffer) error { return CompareTerminal(b, aComparison(), "") },
	} {
		var b bytes.Buffer
		if err := write(&b); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join("testdata", "pages", name)
		if *update {
			if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, b.Bytes(), 0o644)); err != nil {
				t.Fatal(err)
			}
		}
		if want, err := os.ReadFile(path); err != nil || !bytes.Equal(want, b.Bytes()) {
			t.Errorf("%s is not what it was (%v); -update writes it anew", path, err)
		}
	}
}

// Text of a gate, a target or a service is escaped.
func TestPagesEscapeWhatTheyAreGiven(t *testing.T) {
	c := aCapacity()
	c.Gate, c.Target, c.Scenario, c.Why, c.Objectives, c.Command = hostile, hostile, hostile, words.Verbatim(hostile), []string{hostile}, []string{hostile}
	for i := range c.Points {
		c.Points[i].Why, c.Points[i].Dir = words.Verbatim(hostile), hostile
	}
	d := aComparison()
	d.Gate, d.Base, d.Head, d.Comparison.Why, d.How, d.Command = hostile, hostile, hostile, words.Verbatim(hostile), words.Verbatim(hostile), []string{hostile}
	for i := range d.Differences {
		d.Differences[i].Metric = hostile
	}
	var b bytes.Buffer
	if err := errors.Join(CapacityHTML(&b, c), CompareHTML(&b, d)); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(b.String(), "<script") {
		t.Error("a script got into the page")
	}
}

// A search that found nothing, and one that was stopped at once, have a page
// too.
func TestPagesOfNothing(t *testing.T) {
	for _, c := range []Capacity{{}, {Result: capacity.Result{Why: words.Say("the search was stopped")}}} {
		var b bytes.Buffer
		if err := CapacityHTML(&b, c); err != nil || !strings.Contains(b.String(), "No rate is known to hold") {
			t.Errorf("%v", err)
		}
	}
	var b bytes.Buffer
	if err := CompareHTML(&b, Comparison{Comparison: checklist.Compare(nil, nil, false)}); err != nil || !strings.Contains(b.String(), "Undecided") {
		t.Errorf("%v", err)
	}
}
