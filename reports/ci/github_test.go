package ci

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/launchgate/launchgate/checklist"
	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/reports"
	"github.com/launchgate/launchgate/scenarios"
)

// report is that of a recorded run, and the path of its gate.
func report(t *testing.T, name string) (reports.Report, string) {
	t.Helper()
	dir := filepath.Join("..", "..", "checklist", "testdata", "runs", name)
	path := filepath.Join(dir, recording.GateFile)
	gate, err := scenarios.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	rec, err := recording.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	v, err := checklist.Judge(gate, rec)
	if err != nil {
		t.Fatal(err)
	}
	r, err := reports.Build(gate, rec, v)
	if err != nil {
		t.Fatal(err)
	}
	return r, path
}

func step(t *testing.T, workspace string) (GitHub, *bytes.Buffer) {
	t.Helper()
	var commands bytes.Buffer
	dir := t.TempDir()
	env := map[string]string{"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": filepath.Join(dir, "summary"), "GITHUB_OUTPUT": filepath.Join(dir, "output"), "GITHUB_WORKSPACE": workspace}
	g, is := InGitHub(func(k string) string { return env[k] }, &commands)
	if !is {
		t.Fatal("the step is not seen")
	}
	return g, &commands
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// outputs reads the file of outputs as GitHub's runner does.
func outputs(t *testing.T, text string) map[string]string {
	t.Helper()
	found := map[string]string{}
	for lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n"); len(lines) > 0; {
		name, end, ok := strings.Cut(lines[0], "<<")
		if !ok {
			t.Fatalf("the line %q is no output", lines[0])
		}
		var value []string
		for lines = lines[1:]; lines[0] != end; lines = lines[1:] {
			value = append(value, lines[0])
		}
		lines = lines[1:]
		found[name] = strings.Join(value, "\n")
	}
	return found
}

func TestEveryRunIsReportedToGitHub(t *testing.T) {
	root, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"pass", "fail", "unproven", "invalid", "interrupted"} {
		t.Run(name, func(t *testing.T) {
			r, gate := report(t, name)
			g, commands := step(t, root)
			if err := os.WriteFile(g.Summary, []byte("# before\n"), 0o644); err != nil {
				t.Fatal(err)
			}
			if err := g.Judged(r, "runs/x", gate, r.Verdict.ExitCode); err != nil {
				t.Fatal(err)
			}
			got := outputs(t, read(t, g.Output))
			if got["verdict"] != r.Verdict.Verdict.String() || !strings.HasSuffix(got["report"], filepath.Join("runs", "x", "report.html")) || !filepath.IsAbs(got["run"]) {
				t.Errorf("outputs %v", got)
			}
			if summary := read(t, g.Summary); !strings.HasPrefix(summary, "# before\n") || !strings.Contains(strings.ToLower(summary), r.Verdict.Verdict.String()) {
				t.Errorf("the summary is %q", summary)
			}
			told := commands.String()
			if r.Verdict.Verdict == checklist.Pass {
				if told != "" {
					t.Errorf("a pass is annotated: %s", told)
				}
				return
			}
			level := "::error "
			if r.Verdict.Verdict == checklist.Unproven {
				level = "::warning "
			}
			if !strings.Contains(told, level+"file=checklist/testdata/runs/"+name+"/gate.yaml,line=") {
				t.Errorf("no line of the gate is annotated with %s:\n%s", level, told)
			}
			gateLines := strings.Split(read(t, gate), "\n")
			for _, o := range r.Objectives {
				if o.Verdict == checklist.Pass {
					continue
				}
				m := regexp.MustCompile(`line=(\d+),title=[^:]*` + regexp.QuoteMeta(property(o.Source)) + "::").FindStringSubmatch(told)
				if m == nil {
					t.Errorf("%s is not annotated:\n%s", o.Source, told)
				} else if n := atoi(m[1]); !strings.Contains(gateLines[n-1], o.Source) {
					t.Errorf("%s is annotated on line %d, which is %q", o.Source, n, gateLines[n-1])
				}
			}
		})
	}
}

func atoi(s string) (n int) {
	for _, d := range s {
		n = 10*n + int(d-'0')
	}
	return n
}

func TestAnnotationsAreEscapedAndFew(t *testing.T) {
	g, commands := step(t, "")
	r := reports.Report{Verdict: checklist.Verdict{Client: checklist.Client{Valid: true}}}
	for range 14 {
		r.Objectives = append(r.Objectives, reports.Objective{Finding: checklist.Finding{Source: "p95(ttft) of a,b <= 1s: 50%\n::error::forged", Verdict: checklist.Fail, Why: words.Verbatim("100% of\n::error::these")}})
	}
	if err := g.Judged(r, "runs/x", "", 1); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(commands.String(), "\n"), "\n")
	const want = "::error title=launchgate%3A fail%3A p95(ttft) of a%2Cb <= 1s%3A 50%25%0A%3A%3Aerror%3A%3Aforged::100%25 of%0A::error::these"
	if len(lines) != 10 || lines[0] != want {
		t.Errorf("%d lines, the first\n%s\nwant\n%s", len(lines), lines[0], want)
	}
}

func TestAnInvalidGateIsAnnotatedOnItsLines(t *testing.T) {
	path := filepath.Join(t.TempDir(), "gate.yaml")
	if err := os.WriteFile(path, []byte("name: g\ntarget: {endpoint: {url: \"http://127.0.0.1:1\"}}\nscenarios: [{name: s, stages: [{name: m, for: 1m, rate: 1/s}]}]\nobjectives:\n  - p95(tttf) <= 1s\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	_, invalid := scenarios.Load(path)
	g, commands := step(t, filepath.Dir(path))
	if err := g.Failed(invalid, path, 4); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(commands.String(), "::error file=gate.yaml,line=5,col=") {
		t.Errorf("annotated is %s", commands)
	}
	if got := outputs(t, read(t, g.Output)); got["verdict"] != "could-not-run" || got["exit-code"] != "4" {
		t.Errorf("outputs %v", got)
	}

	g, commands = step(t, "")
	if err := g.Failed(errors.New("a port is taken\n```\nwith a fence"), "", 4); err != nil {
		t.Fatal(err)
	}
	if told := commands.String(); told != "::error title=launchgate could not run::a port is taken%0A```%0Awith a fence\n" {
		t.Errorf("annotated is %s", told)
	}
	if summary := read(t, g.Summary); !strings.Contains(summary, "````text") {
		t.Errorf("the summary's fence can be left: %s", summary)
	}
}

func TestALongSummaryIsCut(t *testing.T) {
	g, _ := step(t, "")
	if err := g.summarize(strings.Repeat("a line\n", 1<<18)); err != nil {
		t.Fatal(err)
	}
	if text := read(t, g.Summary); len(text) > maxSummary || !strings.Contains(text, "summary.md") {
		t.Errorf("%d bytes", len(text))
	}
}
