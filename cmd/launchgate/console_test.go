package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/launchgate/launchgate/checklist"
	"github.com/launchgate/launchgate/internal/run"
	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/reports"
)

const unreachable = `name: nobody
target: {endpoint: {url: "http://127.0.0.1:1", ready_timeout: 100ms}}
scenarios: [{name: s, stages: [{name: m, for: 5s, rate: 2/s}]}]
objectives: [error_rate <= 5%]
`

// A run that could not begin leaves a folder that says why in every form, and judging
// it again says the same.
func TestARunThatCouldNotBeginSaysWhy(t *testing.T) {
	dir := t.TempDir()
	gate, to := filepath.Join(dir, "gate.yaml"), filepath.Join(dir, "run")
	if err := os.WriteFile(gate, []byte(unreachable), 0o600); err != nil {
		t.Fatal(err)
	}
	code, out := launch(t, "run", "--out", to, gate)
	if code != checklist.ExitCouldNotRun || !strings.Contains(out, "connection refused") {
		t.Fatalf("exit code %d: %s", code, out)
	}
	for _, again := range []string{"", "judge", "report"} {
		if again != "" {
			if code, out := launch(t, again, to); again == "judge" && code != checklist.ExitCouldNotRun {
				t.Errorf("judged again, exit code %d: %s", code, out)
			}
		}
		for _, name := range []string{"report.html", "summary.md", "junit.xml", "verdict.json"} {
			if text := string(readFile(t, filepath.Join(to, name))); !strings.Contains(text, "connection refused") || strings.Contains(text, "disk was full") {
				t.Errorf("%s after %q does not say why there was no run:\n%.500s", name, again, text)
			}
		}
	}
}

// A line of progress is narrower than the terminal, in either language.
func TestProgressFitsTheTerminal(t *testing.T) {
	live := run.Live{Scenario: "a-scenario-with-a-long-name", Elapsed: 3671 * time.Second, Total: 7200 * time.Second, Done: 123456, Planned: 654321, Errors: 12345,
		Left: 3 * time.Hour, Fault: words.Say("network-bandwidth: in effect")}
	for _, lang := range []reports.Language{reports.English, "zh"} {
		for _, width := range []int{40, 80} {
			line := newScreen(&bytes.Buffer{}, lang, &console{}).liveLine(live, width)
			if cut := reports.Cut(line, width-1); cut != line {
				t.Errorf("%s, %d columns: %q is wider", lang, width, line)
			}
		}
	}
}

// Where there is no terminal, progress comes seldom, and says how long it still takes.
func TestProgressWithoutATerminal(t *testing.T) {
	var out bytes.Buffer
	s := newScreen(&out, reports.English, &console{})
	live := run.Progress{Live: &run.Live{Scenario: "steady", Elapsed: 10 * time.Second, Total: 24 * time.Second, Done: 80, Planned: 192, Left: 74 * time.Second}}
	for range 50 {
		s.tell(live)
	}
	if out.Len() > 0 {
		t.Errorf("told at once: %s", out.String())
	}
	s.last = time.Now().Add(-beat)
	s.tell(live)
	s.tell(live)
	if want := "steady: 10 of 24 s, 80/192 answered, 0 errors, about 1m14s left\n"; out.String() != want {
		t.Errorf("told %q, want %q", out.String(), want)
	}
	out.Reset()
	s = newScreen(&out, reports.English, &console{quiet: true})
	s.last = time.Now().Add(-beat)
	s.tell(live)
	s.say("a remark")
	if out.Len() > 0 {
		t.Errorf("told although quiet: %s", out.String())
	}
}

// What is misspelled is answered with what was probably meant.
func TestDidYouMean(t *testing.T) {
	for _, row := range []struct {
		args []string
		want string
	}{
		{[]string{"run", "quik"}, "did you mean quick?"},
		{[]string{"list", "gate"}, "did you mean gates?"},
		{[]string{"list", "faults", "podkill"}, "did you mean pod-kill?"},
		{[]string{"list", "objectives", "tftt"}, "did you mean ttft?"},
		{[]string{"list", "gates", "--show", "standart"}, "did you mean standard?"},
		{[]string{"run", "--target", "localhost", "quick"}, "--target: found \"localhost\", expected a URL"},
	} {
		if code, out := launch(t, row.args...); code != checklist.ExitCouldNotRun || !strings.Contains(out, row.want) {
			t.Errorf("%v: exit code %d, %s; want %s", row.args, code, out, row.want)
		}
	}
}

// ./gate.yaml is played where no gate is named.
func TestOwnGateByDefault(t *testing.T) {
	t.Chdir(t.TempDir())
	if code, out := launch(t, "run", "--dry-run"); code != 0 || !strings.Contains(out, "quick: ") {
		t.Errorf("without gate.yaml: exit code %d, %s", code, out)
	}
	if err := os.WriteFile("gate.yaml", []byte(unreachable), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, out := launch(t, "run", "--dry-run"); code != 0 || !strings.Contains(out, "nobody\n") {
		t.Errorf("with gate.yaml: exit code %d, %s", code, out)
	}
}

// A shell offers gates, run folders, faults and checks.
func TestCompletion(t *testing.T) {
	command(t) // builds the programs, which is not possible in another folder
	t.Chdir(t.TempDir())
	for _, name := range []string{"gate.yaml", "notes.txt", "runs/20260101-000000-quick/environment.json", "runs/other/file"} {
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, row := range []struct {
		args []string
		has  string
	}{
		{[]string{"run", ""}, "standard"}, {[]string{"run", "ga"}, "gate.yaml"}, {[]string{"judge", ""}, "runs/20260101-000000-quick"},
		{[]string{"compare", "a", "runs/"}, "runs/20260101-000000-quick"}, {[]string{"list", "faults", ""}, "node-loss"}, {[]string{"scan", "--only", ""}, "tls"},
		{[]string{"list", ""}, "objectives"}, {[]string{"run", "--focus", ""}, "burst"},
	} {
		_, out := launch(t, append([]string{"__complete"}, row.args...)...)
		var offered []string
		for line := range strings.Lines(out) {
			name, _, _ := strings.Cut(strings.TrimSpace(line), "\t")
			offered = append(offered, name)
		}
		if !slices.Contains(offered, row.has) || slices.Contains(offered, "notes.txt") || slices.Contains(offered, "runs/other") {
			t.Errorf("%v offers %v, want %s among it", row.args, offered, row.has)
		}
	}
}

// Each command has a manual page, and what --json prints is JSON.
func TestManualAndJSON(t *testing.T) {
	dir := t.TempDir()
	if code, out := launch(t, "man", dir); code != 0 {
		t.Fatalf("man: exit code %d, %s", code, out)
	}
	page := string(readFile(t, filepath.Join(dir, "launchgate-run.1")))
	for _, want := range []string{".TH", "SYNOPSIS", `\-\-dry\-run`, "Exit codes"} {
		if !strings.Contains(page, want) && !strings.Contains(page, strings.ReplaceAll(want, `\-`, "-")) {
			t.Errorf("the page of run lacks %s:\n%.2000s", want, page)
		}
	}
	for _, args := range [][]string{{"version", "--json"}, {"list", "--json"}, {"list", "gates", "--json"}} {
		_, out := launch(t, args...)
		var v map[string]any
		if err := json.Unmarshal([]byte(out), &v); err != nil || len(v) == 0 {
			t.Errorf("%v: %v in %.200s", args, err, out)
		}
	}
}
