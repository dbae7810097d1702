package reports

import (
	"fmt"
	"io"
	"net/url"
	"strings"
	"time"

	"github.com/owenrumney/go-sarif/v3/pkg/report/v210/sarif"

	"github.com/launchgate/launchgate/internal/recording"
)

// SARIF writes the findings of the security scan, for code hosts and checklists. A
// rule is a check. What is unproven is no result, which a code host would show as a
// finding, but a notification; and a scan with checks that the gate asks for and
// that are unproven did not succeed.
func SARIF(w io.Writer, r Report) error {
	run := sarif.NewRunWithInformationURI("launchgate", "https://github.com/launchgate/launchgate")
	if r.Environment.Version != "" {
		run.Tool.Driver.WithSemanticVersion(r.Environment.Version)
	}
	successful := r.Scanned
	end := r.Environment.StartedAt
	invocation := sarif.NewInvocation().WithStartTimeUtc(utc(r.Environment.StartedAt))
	for _, c := range r.Scan {
		rule := run.AddRule(c.Check)
		rule.WithShortDescription(sarif.NewMultiformatMessageString().WithText("The check " + c.Check + " of launchgate scan"))
		rule.WithHelp(sarif.NewMultiformatMessageString().WithText("docs/scan.md#" + c.Check))
		rule.WithProperties(sarif.NewPropertyBag().Add("security-severity", score(c.Worst)).WithTags([]string{"security"}))
		if at := r.Environment.StartedAt.Add(c.At); at.After(end) {
			end = at
		}
		if c.Outcome == recording.ScanUnproven {
			level := sarif.LevelNote
			if !c.LeftOut {
				level, successful = sarif.LevelWarning, false
			}
			text := c.Check + ": " + c.Why.String()
			invocation.AddToolExecutionNotification(sarif.NewNotification().WithLevel(level).WithMessage(sarif.NewMessage().WithText(text)))
		}
		for _, f := range c.Findings {
			run.AddResult(sarifResult(c.Check, f, r.Environment.StartedAt))
		}
	}
	invocation.WithExecutionSuccessful(successful).WithEndTimeUtc(utc(end))
	run.AddInvocation(invocation)
	report := sarif.NewReport()
	report.AddRun(run)
	return report.PrettyWrite(w)
}

func sarifResult(check string, f recording.ScanFinding, started time.Time) *sarif.Result {
	var text strings.Builder
	fmt.Fprintf(&text, "%s (%s).\nVerified: %s.\nTo do: %s.\n", f.Title, f.Where, f.Verified, f.Fix)
	for _, e := range f.Evidence {
		fmt.Fprintf(&text, "\nSent:\n%s\n\nCame:\n%s\n", e.Sent, e.Came)
	}
	level := sarif.LevelNote
	switch {
	case f.Score >= 7:
		level = sarif.LevelError
	case f.Score >= 4:
		level = sarif.LevelWarning
	}
	// A code host wants a file: of a route it is one that stands for the service.
	place := "service/" + strings.TrimLeft(strings.ReplaceAll(f.Where, " ", "/"), "/")
	result := sarif.NewRuleResult(check).WithLevel(level).WithKind("fail").WithMessage(sarif.NewMessage().WithText(text.String())).
		WithPartialFingerprints(map[string]string{"launchgate/v1": f.Fingerprint}).
		AddLocation(sarif.NewLocationWithPhysicalLocation(sarif.NewPhysicalLocation().WithArtifactLocation(sarif.NewArtifactLocation().WithURI((&url.URL{Path: place}).EscapedPath()))))
	result.WithProperties(sarif.NewPropertyBag().Add("security-severity", score(f.Score)).Add("cvss", f.Vector).WithTags(f.Tags))
	if f.Waiver.Holds(started) {
		result.AddSuppression(sarif.NewSuppression().WithKind("external").WithStatus("accepted").
			WithJustification(fmt.Sprintf("%s (%s, until %s)", f.Waiver.Reason, f.Waiver.Owner, f.Waiver.Expires)))
	}
	return result
}

func score(v float64) string { return fmt.Sprintf("%.1f", v) }

func utc(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }
