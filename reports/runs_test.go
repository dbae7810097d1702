package reports

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"flag"
	"html"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/launchgate/launchgate/checklist"
	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/scenarios"
)

var update = flag.Bool("update", false, "write the golden reports anew")

// runs are runs in the testdata of package checklist, one of each kind.
var runs = []string{"pass", "fail", "unproven", "invalid", "interrupted"}

type judgedRun struct {
	gate    scenarios.Gate
	rec     *recording.Recording
	verdict checklist.Verdict
}

func judged(t *testing.T, name string) judgedRun {
	t.Helper()
	return judgedIn(t, filepath.Join("..", "checklist", "testdata", "runs", name))
}

func judgedIn(t testing.TB, dir string) judgedRun {
	t.Helper()
	gate, err := scenarios.Load(filepath.Join(dir, recording.GateFile))
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
	return judgedRun{gate, rec, v}
}

// inCodes is a run as this launchgate would have recorded it, with sentences as
// phrases with arguments. The runs in testdata have format 1, which has only
// English texts.
func inCodes(t *testing.T, j judgedRun) judgedRun {
	t.Helper()
	for i, in := range j.rec.Injections {
		said, known := codes[in.Reason().String()]
		if !known {
			t.Fatalf("%q has no code", in.Reason())
		}
		if in.Unsupported {
			said = recording.Unsupported(said)
		}
		j.rec.Injections[i].Text = said
	}
	for i, o := range j.rec.Observations {
		if said, known := codes[o.Text.String()]; known {
			j.rec.Observations[i].Text = said
		}
	}
	v, err := checklist.Judge(j.gate, j.rec)
	if err != nil {
		t.Fatal(err)
	}
	j.verdict = v
	return j
}

// codes are the texts of the runs in testdata.
var codes = func() map[string]words.Sentence {
	byText := map[string]words.Sentence{}
	for _, s := range []words.Sentence{
		words.Say("due %s into the scenario", "1s"), words.Say("due %s into the scenario", "6s"),
		words.Say("SIGKILL sent to pid %d with %d streams in flight", 4711, 2),
		words.Say("pid %d is gone (%s)", 4711, words.Say("signal: %s", "killed")),
		words.Say("nothing to undo: the supervisor restarts %s", "the replica"),
		words.Say("the gateway routes to %s again, now pid %d", "replica-1", 4802),
		words.Say("%s (%s)", words.Say("GET /ready does not say how many replicas are ready"), "404 Not Found"),
	} {
		byText[s.String()] = s
	}
	// Sentences that were reworded since.
	byText["launchgate did not deploy this target, so it has no process of it to kill; use target.local, or break it by other means"] =
		words.Say("launchgate did not deploy this target, so %s; use target.local, or break it by other means", words.Say("it cannot %s", words.Say("kill a replica")))
	return byText
}()

func (j judgedRun) report(t testing.TB) Report {
	t.Helper()
	r, err := Build(j.gate, j.rec, j.verdict)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func write(t *testing.T, form func(io.Writer, Report) error, r Report) string {
	t.Helper()
	var b strings.Builder
	if err := form(&b, r); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func terminal(w io.Writer, r Report) error { return Terminal(w, r, "runs/x", false) }

// assetsOf are the parts of a page that are the same for every run. They are
// left out of the golden files, and so is what changes with them.
var assetsOf = regexp.MustCompile(`(?s)<style>.*?</style>|<script>.*?</script>|(?:'|&#39;)sha256-.*?(?:'|&#39;)`)

// The reports of each run are golden files, so that people read the difference
// when they change.
func TestGoldenReports(t *testing.T) {
	for _, name := range append(runs, "fail-zh") {
		run, language, _ := strings.Cut(name, "-")
		j := judged(t, run)
		if Language(language) == Chinese {
			j = inCodes(t, j)
		}
		r := j.report(t)
		r.Language = Language(language)
		told := map[string]string{JUnitFile: write(t, JUnit, r), MarkdownFile: write(t, Markdown, r), "terminal.txt": write(t, terminal, r)}
		if run == "fail" || run == "interrupted" { // the pages with the most on them
			told[HTMLFile] = assetsOf.ReplaceAllString(write(t, HTML, r), "<!-- left out -->")
		}
		for file, got := range told {
			golden := filepath.Join("testdata", name, file)
			if *update {
				if err := os.MkdirAll(filepath.Dir(golden), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				at := 0
				for at < min(len(got), len(want)) && got[at] == want[at] {
					at++
				}
				t.Errorf("%s is not what it was (-update writes it anew); from byte %d it is\n%.300s\nand was\n%.300s", golden, at, got[at:], want[at:])
			}
		}
	}
}

// The same folder gives the same bytes, whatever the maps' order.
func TestReportsAreReproducible(t *testing.T) {
	for _, name := range runs {
		first := write(t, HTML, judged(t, name).report(t))
		for range 3 {
			if write(t, HTML, judged(t, name).report(t)) != first {
				t.Fatalf("%s: told twice, the same run has two reports", name)
			}
		}
	}
}

// verdict.json, the exit code, JUnit, Markdown, HTML and the terminal agree
// about the run and about every objective.
func TestAllFormsAgree(t *testing.T) {
	for _, name := range runs {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			j := judged(t, name)
			r, err := WriteAll(dir, j.gate, j.rec, j.verdict, English)
			if err != nil {
				t.Fatal(err)
			}
			var v checklist.Verdict
			if err := json.Unmarshal(read(t, dir, VerdictFile), &v); err != nil {
				t.Fatal(err)
			}
			says := map[string]map[string]string{
				"JUnit":    junitSays(t, read(t, dir, JUnitFile)),
				"Markdown": saysByLine(string(read(t, dir, MarkdownFile)), regexp.MustCompile("(?m)^\\| \\S+ (\\w+) \\| `+ ?(.*?) ?`+ \\|")),
				"HTML":     saysByLine(string(read(t, dir, HTMLFile)), regexp.MustCompile(`(?s)<li class="objective" data-outcome="(\w+)">.*?<code>(.*?)</code>`)),
				"terminal": saysByLine(write(t, terminal, r), regexp.MustCompile(`(?m)^(Pass|Fail|Unproven|Invalid) +(.*? (?:<=|>=|<|>|==) \S+)`)),
			}
			for form, said := range says {
				if len(said) < len(v.Objectives) {
					t.Errorf("%s speaks of %d objectives, want %d: %v", form, len(said), len(v.Objectives), said)
				}
				for _, f := range v.Objectives {
					if said[f.Source] != f.Verdict.String() {
						t.Errorf("%s says of %s that it is %q, verdict.json %q", form, f.Source, said[f.Source], f.Verdict)
					}
				}
			}
			// The number and its bound, which verdict.json has in full.
			for form, told := range map[string]map[string]string{
				"JUnit":    junitTells(t, read(t, dir, JUnitFile)),
				"Markdown": tellsByLine(string(read(t, dir, MarkdownFile)), regexp.MustCompile("(?m)^\\| \\S+ \\w+ \\| `+ ?(.*?) ?`+ \\|(.*)$")),
				"HTML":     tellsByLine(string(read(t, dir, HTMLFile)), regexp.MustCompile(`(?s)<li class="objective".*?<code>(.*?)</code>.*?<div class="got">(.*?)</div>`)),
				"terminal": tellsByLine(write(t, terminal, r), regexp.MustCompile(`(?m)^(?:Pass|Fail|Unproven|Invalid) +(.*? (?:<=|>=|<|>|==) \S+) (.*)$`)),
			} {
				for _, f := range v.Objectives {
					if f.Value != nil && !strings.Contains(told[f.Source], English.Word(value(*f.Value, f.Unit))) {
						t.Errorf("%s tells of %s %q, and verdict.json that it is %v", form, f.Source, told[f.Source], *f.Value)
					}
					if has := strings.ContainsAny(told[f.Source], "≤≥"); has != (f.Bound != nil) ||
						has && !strings.Contains(told[f.Source], English.Word(value(*f.Bound, f.Unit))) {
						t.Errorf("%s tells of %s %q, and verdict.json has the bound %v", form, f.Source, told[f.Source], f.Bound)
					}
				}
			}
			if got := says["JUnit"]["verdict"]; got != v.Verdict.String() {
				t.Errorf("JUnit's verdict is %q, verdict.json's %q", got, v.Verdict)
			}
			if green := !slices.ContainsFunc(slices.Collect(values(says["JUnit"])), func(s string) bool { return s != "pass" }); green != (v.ExitCode == 0) {
				t.Errorf("JUnit is green: %v, and the exit code %d", green, v.ExitCode)
			}
			title := strings.ToUpper(v.Verdict.String())
			if !strings.Contains(write(t, terminal, r), title) || !strings.Contains(string(read(t, dir, HTMLFile)), `<body data-outcome="`+v.Verdict.String()) ||
				!strings.Contains(strings.ToUpper(strings.SplitN(string(read(t, dir, MarkdownFile)), "\n", 2)[0]), title) {
				t.Errorf("not every form says that the run is %s", title)
			}
		})
	}
}

func values(m map[string]string) func(func(string) bool) {
	return func(yield func(string) bool) {
		for _, v := range m {
			if !yield(v) {
				return
			}
		}
	}
}

func read(t *testing.T, dir, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// junitSays reads JUnit as a CI system does: a case without a problem is green.
func junitSays(t *testing.T, src []byte) map[string]string {
	t.Helper()
	var suites junitSuites
	if err := xml.Unmarshal(src, &suites); err != nil {
		t.Fatal(err)
	}
	said := map[string]string{}
	tests, failures, errs := 0, 0, 0
	for _, s := range suites.Suites {
		for _, c := range s.Cases {
			tests++
			switch {
			case c.Failure != nil:
				failures++
				said[c.Name] = c.Failure.Type
			case c.Error != nil:
				errs++
				said[c.Name] = c.Error.Type
			default:
				said[c.Name] = "pass"
			}
		}
	}
	if suites.Tests != tests || suites.Failures != failures || suites.Errors != errs {
		t.Errorf("JUnit counts %d, %d and %d, and holds %d tests, %d failures and %d errors", suites.Tests, suites.Failures, suites.Errors, tests, failures, errs)
	}
	return said
}

func saysByLine(text string, line *regexp.Regexp) map[string]string {
	said := map[string]string{}
	for _, m := range line.FindAllStringSubmatch(text, -1) {
		said[html.UnescapeString(m[2])] = strings.ToLower(m[1])
	}
	return said
}

// tellsByLine is the text of each objective in a form, besides its verdict.
func tellsByLine(text string, line *regexp.Regexp) map[string]string {
	told := map[string]string{}
	for _, m := range line.FindAllStringSubmatch(text, -1) {
		told[html.UnescapeString(m[1])] = html.UnescapeString(m[2])
	}
	return told
}

func junitTells(t *testing.T, src []byte) map[string]string {
	t.Helper()
	var suites junitSuites
	if err := xml.Unmarshal(src, &suites); err != nil {
		t.Fatal(err)
	}
	told := map[string]string{}
	for _, s := range suites.Suites {
		for _, c := range s.Cases {
			told[c.Name] = c.Output
			for _, problem := range []*junitProblem{c.Failure, c.Error, c.Skipped} {
				if problem != nil {
					told[c.Name] += problem.Text
				}
			}
		}
	}
	return told
}

// hostile is text that does harm in one of the forms unless it is escaped.
const hostile = `</script><script>alert(1)</script>"'><img src=x onerror=alert(1)> &amp; ]]> {{.}} | ` + "`" + ` [x](javascript:alert(1)) <!-- ${1} ` + "\x1b[31m\u202e\x00\n# heading"

// hostileRun has it wherever text comes from outside: the service's errors and
// names, and a verdict made by hand.
func hostileRun() judgedRun {
	at := 3 * time.Second
	failed := recording.Request{Kind: recording.KindLoad, Scenario: hostile, Stage: hostile, Due: at, Sent: at + 1, End: at + time.Second,
		Replica: hostile, FinishReason: hostile, Error: hostile, ErrorText: hostile, Status: 200}
	ok := failed
	ok.Error, ok.FirstToken, ok.LastToken, ok.Chunks, ok.OutputTokens = "", at+2, at+9, []time.Duration{at + 2, at + 9}, 2
	rec := recording.InMemory([]recording.Request{failed, ok},
		[]recording.Injection{{At: at, ID: hostile, Scenario: hostile, Kind: hostile, Target: hostile, State: recording.FaultInjected, Text: words.Verbatim(hostile)}},
		[]recording.Observation{
			{At: 2 * time.Second, Name: recording.ObsScenarioStarted, Subject: hostile}, {At: 2 * time.Second, Name: recording.ObsStageStarted, Subject: hostile + "/" + hostile},
			{At: at, Name: recording.ObsMemory, Subject: hostile, Value: 1}, {At: 5 * time.Second, Name: recording.ObsInterrupted, Text: words.Verbatim(hostile)},
		})
	rec.Warnings = []words.Sentence{words.Verbatim(hostile)}
	rec.Environment = recording.Environment{Version: hostile, Command: []string{hostile}, Files: map[string]string{hostile: hostile},
		Host: recording.Host{CPU: hostile, OS: hostile}, Target: recording.Target{Kind: "endpoint", URL: "javascript:alert(1)" + hostile, Model: hostile}}
	gate := scenarios.Gate{Name: hostile, Description: hostile, Scenarios: []scenarios.Scenario{{Name: hostile, Stages: []scenarios.Stage{{Name: hostile}}}}}
	injected := at.Seconds()
	return judgedRun{gate, rec, checklist.Verdict{
		Verdict: checklist.Fail, ExitCode: 1, Why: []words.Sentence{words.Verbatim(hostile), words.Verbatim(hostile)}, Incomplete: true,
		Objectives: []checklist.Finding{{Source: hostile, Scenario: hostile, Verdict: checklist.Fail, Unit: hostile, Why: words.Verbatim(hostile)}},
		Faults:     []checklist.Fault{{ID: hostile, Scenario: hostile, Kind: hostile, Target: hostile, InjectedAt: &injected, Why: words.Verbatim(hostile)}},
		Reasons:    []checklist.Reason{{Said: words.Verbatim(hostile)}, {Said: words.Verbatim(hostile)}},
		Client:     checklist.Client{Why: words.Verbatim(hostile)},
		Scenarios:  []checklist.Scenario{{Name: hostile}},
	}}
}

func TestHostileTextDoesNoHarm(t *testing.T) {
	r := hostileRun().report(t)
	page := assetsOf.ReplaceAllString(write(t, HTML, r), "")
	for _, tag := range []string{"<img", "<script>alert", "onerror=alert(1)>", `href="javascript`} {
		if strings.Contains(page, tag) {
			t.Errorf("the page holds %s: %q", tag, page[strings.Index(page, tag)-80:][:160])
		}
	}
	said := write(t, terminal, r)
	for _, c := range []string{"\x1b", "\u202e", "\x00"} {
		if strings.Contains(said, c) {
			t.Errorf("the terminal is sent %q", c)
		}
	}
	markdown := write(t, Markdown, r)
	for _, harm := range []string{"\n# heading", "\x1b", "\u202e"} {
		if strings.Contains(markdown, harm) {
			t.Errorf("the summary holds %q", harm)
		}
	}
	for _, line := range strings.Split(markdown, "\n") {
		if outside := strings.ReplaceAll(line, markdownCode(words.Harmless(hostile)), ""); regexp.MustCompile(`(^|[^\\])(<script|<img|\]\(javascript)`).MatchString(outside) {
			t.Errorf("the summary holds markup that is not escaped: %s", line)
		}
	}
	if said := junitSays(t, []byte(write(t, JUnit, r))); len(said) == 0 {
		t.Error("JUnit holds no case")
	}
	for form, as := range map[string]func(io.Writer, Report) error{"HTML": HTML, "Markdown": Markdown, "JUnit": JUnit, "SARIF": SARIF} {
		said := assetsOf.ReplaceAllString(write(t, as, r), "")
		for _, c := range []string{"\x1b", "\u202e", "\x00", "&#x1b", "&#27", "&#x1B", "&#0"} {
			if at := strings.Index(said, c); at >= 0 {
				t.Errorf("%s holds %q: %q", form, c, said[max(at-40, 0):min(at+40, len(said))])
			}
		}
	}
}

// A report is replaced as a whole or not at all.
func TestAReportThatCannotBeWrittenLeavesTheOldOne(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, HTMLFile)
	if err := os.WriteFile(path, []byte("old"), 0o644); err != nil {
		t.Fatal(err)
	}
	broken := func(w io.Writer) error {
		w.Write([]byte("new, and half"))
		return io.ErrShortWrite
	}
	if err := Replace(path, broken); err != io.ErrShortWrite {
		t.Errorf("the error is %v", err)
	}
	if got := read(t, dir, HTMLFile); !bytes.Equal(got, []byte("old")) {
		t.Errorf("the file holds %q", got)
	}
	if left, _ := os.ReadDir(dir); len(left) != 1 {
		t.Errorf("%d files are left, want 1", len(left))
	}
}

func TestARunWithoutARequestIsReported(t *testing.T) {
	j := judged(t, "interrupted")
	j.rec = recording.InMemory(nil, nil, nil)
	v, err := checklist.Judge(j.gate, j.rec)
	if err != nil {
		t.Fatal(err)
	}
	r := judgedRun{j.gate, j.rec, v}.report(t)
	if page := write(t, HTML, r); !strings.Contains(page, English.say("timeline.none")) || v.Verdict == checklist.Pass {
		t.Error("an empty run is not told as one")
	}
}

func TestNumbersAreWrittenForPeople(t *testing.T) {
	for want, got := range map[string]string{
		"0 s": English.Word(seconds(0)), "299 µs": English.Word(seconds(0.000299)), "145 ms": English.Word(seconds(0.1452)), "3.01 s": English.Word(seconds(3.013)), "1 min 40 s": English.Word(seconds(100)), "5 min": English.Word(seconds(300)), "1 h 1 min": English.Word(seconds(3661)),
		"−2 s": English.Word(seconds(-2)), "4.72 %": English.Word(percent(0.0472)), "1,234,567": count(1234567), "16 GiB": bytesOf(16 << 30), "1:05": clock(65), "0:27.4": clock(27.4), "$2.50": English.Word(value(2.5, "usd")),
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// An answer that was not streamed has no first token and so no TPOT, and its
// first token is not taken for the start of the run.
func TestWholeAnswersHaveNoTimePerToken(t *testing.T) {
	var l latencies
	l.request(&recording.Request{Due: 1, Sent: 1, LastToken: time.Hour, End: time.Hour, OutputTokens: 9})
	if l.tpot.n != 0 || l.latency.n != 1 {
		t.Errorf("%d times per token, %d latencies", l.tpot.n, l.latency.n)
	}
}

// A waived objective does not make a run fail. JUnit has it as skipped, with
// the reason.
func TestWhatIsWaivedIsSkipped(t *testing.T) {
	j := judged(t, "pass")
	f := &j.verdict.Objectives[0]
	f.Verdict, f.Value, f.Waived, f.Why = checklist.Unproven, nil, true, words.Verbatim("the service has none")
	r, err := WriteAll(t.TempDir(), j.gate, j.rec, j.verdict, English)
	if err != nil {
		t.Fatal(err)
	}
	var suites junitSuites
	if err := xml.Unmarshal([]byte(write(t, JUnit, r)), &suites); err != nil {
		t.Fatal(err)
	}
	if suites.Errors != 0 || suites.Failures != 0 || suites.Skipped != 1 {
		t.Errorf("%d errors, %d failures, %d skipped", suites.Errors, suites.Failures, suites.Skipped)
	}
	for _, s := range suites.Suites {
		for _, c := range s.Cases {
			if (c.Name == f.Source) != (c.Skipped != nil) || c.Skipped != nil && c.Skipped.Message != "the service has none" {
				t.Errorf("%s: %+v", c.Name, c.Skipped)
			}
		}
	}
	if text := write(t, terminal, r); strings.Contains(text, "1. "+f.Source) {
		t.Errorf("it is told to do something about what is waived:\n%s", text)
	}
}
