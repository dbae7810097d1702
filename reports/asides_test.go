package reports

import (
	"strings"
	"testing"

	"github.com/launchgate/launchgate/checklist"
	"github.com/launchgate/launchgate/internal/words"
)

// Every form for people has the omissions and the warnings of the gate. It does
// not repeat what an objective or a fault already says.
func TestAsidesAreShownEverywhere(t *testing.T) {
	run := judged(t, "pass")
	r := run.report(t)
	f := r.Verdict.Objectives[0]
	r.Verdict.Reasons = append(r.Verdict.Reasons, checklist.Reason{Said: words.Say("%s: %s.", f.Source, f.Why), About: checklist.AboutObjective},
		checklist.Reason{Said: words.Verbatim("A warning: mind the <b>gap</b>.")})
	for name, form := range map[string]string{"terminal": write(t, terminal, r), "summary": write(t, Markdown, r), "page": write(t, HTML, r)} {
		if n := strings.Count(form, "A warning: mind the "); n != 1 {
			t.Errorf("the %s tells the warning %d times", name, n)
		}
		if name != "terminal" && strings.Contains(form, "<b>gap</b>") {
			t.Errorf("what the verdict says became code in the %s", name)
		}
	}
	if n := len(asides(English, r.Verdict)); n != 1 {
		t.Errorf("%d asides", n)
	}
}
