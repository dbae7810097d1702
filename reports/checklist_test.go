package reports

import (
	"strings"
	"testing"
	"time"

	"github.com/launchgate/launchgate/checklist/release"
	"github.com/launchgate/launchgate/internal/words"
)

// Every form shows a checklist beside the recording, including its open items.
// Text of its files is escaped.
func TestChecklistIsReported(t *testing.T) {
	run := judged(t, "pass")
	dir := t.TempDir()
	kept := release.Result{Name: "go-live", At: time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC), State: release.Open, Items: []release.ItemResult{
		{ID: "runbook", Name: words.Kept{Sentence: words.Verbatim("Runbook")}, State: release.Done, Checks: []release.CheckResult{{ID: "current", Name: words.Kept{Sentence: words.Verbatim("It is current")}, State: release.Done, Why: words.Kept{Sentence: words.Say("reviewed on %s", "2026-11-01")}}}},
		{ID: "emergency", Name: words.Kept{Sentence: words.Verbatim("Emergency <b>plan</b>")}, State: release.Failed, Checks: []release.CheckResult{
			{ID: "drill", Name: words.Kept{Sentence: words.Verbatim("It was played")}, State: release.Open, Why: words.Kept{Sentence: words.Verbatim("<script>alert(1)</script>")}},
			{ID: "node", Name: words.Kept{Sentence: words.Verbatim("The loss of a node")}, State: release.Failed, Why: words.Kept{Sentence: words.Verbatim("too slow")}},
		}},
	}}
	if err := KeepChecklist(dir, kept); err != nil {
		t.Fatal(err)
	}
	r, err := WriteAll(dir, run.gate, run.rec, run.verdict, English)
	if err != nil {
		t.Fatal(err)
	}
	if r.Checklist == nil {
		t.Fatal("the checklist beside the recording was not found")
	}
	page, summary := write(t, HTML, r), write(t, Markdown, r)
	for _, want := range []string{"Go-live checklist", "reviewed on 2026-11-01", "Emergency &lt;b&gt;plan&lt;/b&gt;", "&lt;script&gt;alert(1)", "too slow", "2026-11-24"} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	for _, want := range []string{"✅ Runbook", "❌ Emergency", "❔ It was played", "❌ The loss of a node: too slow"} {
		if !strings.Contains(summary, want) {
			t.Errorf("the summary lacks %q:\n%s", want, summary)
		}
	}
	if strings.Contains(page, "<script>alert(1)") || strings.Contains(summary, "<script>alert(1)") {
		t.Error("what a file says became code")
	}
	r.Language = Chinese
	if page := write(t, HTML, r); !strings.Contains(page, "审阅于 2026-11-01") {
		t.Error("what was kept of the checklist is not worded in Chinese")
	}
	var text strings.Builder
	if err := ChecklistText(&text, kept, English, false); err != nil || !strings.Contains(text.String(), "Failed  The loss of a node") {
		t.Errorf("%v: %s", err, text.String())
	}
}
