package reports

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/owenrumney/go-sarif/v3/pkg/report/v210/sarif"

	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/internal/words"
)

// scannedReport is the report of a scan with a flaw, a waived flaw, one whose
// waiver has expired, and checks that are safe, unproven and left out.
func scannedReport() Report {
	kept := func(text words.Phrase) words.Kept { return words.Kept{Sentence: words.Say(text)} }
	finding := func(fingerprint string, score float64, w *recording.Waiver) recording.ScanFinding {
		return recording.ScanFinding{Fingerprint: fingerprint, Title: kept("the service asks for no key"), Where: "GET /v1/models", Score: score,
			Vector: "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:L/I:N/A:N", Tags: []string{"OWASP API2:2023", "CWE-306"}, Waiver: w,
			Evidence: []recording.Exchange{{Sent: "GET /v1/models", Came: "200 <script>alert(1)</script>"}}, Verified: kept("twice"), Fix: kept("ask for a key")}
	}
	started := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	return Report{
		Gate: "scan", Scanned: true, Environment: recording.Environment{StartedAt: started, Version: "1.0"},
		Scan: []recording.ScanResult{
			{Check: "authentication", Outcome: recording.ScanFlaw, Worst: 9.4, At: time.Second, Findings: []recording.ScanFinding{
				finding("aaaa", 9.1, nil),
				finding("bbbb", 5.3, &recording.Waiver{Reason: "known", Owner: "jane", Expires: "2026-11-28"}),
				finding("cccc", 3.7, &recording.Waiver{Reason: "known", Owner: "jane", Expires: "2026-11-27"}),
			}},
			{Check: "tls", Outcome: recording.ScanSafe, Worst: 7.4, At: 2 * time.Second, Why: kept("all is well"), Others: &recording.Others{Asked: 3, Failed: 1}},
			{Check: "crash", Outcome: recording.ScanUnproven, LeftOut: true, Worst: 6.5, Why: kept("not allowed")},
		},
	}
}

// The output for code hosts is valid SARIF 2.1.0 and says which findings are
// waived.
func TestSARIF(t *testing.T) {
	r := scannedReport()
	var b bytes.Buffer
	if err := SARIF(&b, r); err != nil {
		t.Fatal(err)
	}
	log, err := sarif.FromBytes(b.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	if err := log.Validate(); err != nil {
		t.Errorf("it is not valid: %v\n%s", err, b.String())
	}
	run := log.Runs[0]
	if len(run.Results) != 3 || !*run.Invocations[0].ExecutionSuccessful {
		t.Errorf("it has %d results and success %v", len(run.Results), *run.Invocations[0].ExecutionSuccessful)
	}
	for i, want := range []struct {
		level      string
		suppressed int
	}{{"error", 0}, {"warning", 1}, {"note", 0}} {
		if got := run.Results[i]; got.Level != want.level || len(got.Suppressions) != want.suppressed {
			t.Errorf("result %d is of level %s with %d suppressions, want %v", i, got.Level, len(got.Suppressions), want)
		}
	}
	r.Scan[2].LeftOut = false // now the gate asks for it
	b.Reset()
	if err := SARIF(&b, r); err != nil {
		t.Fatal(err)
	}
	if log, err = sarif.FromBytes(b.Bytes()); err != nil || *log.Runs[0].Invocations[0].ExecutionSuccessful {
		t.Errorf("a scan with an unproven check succeeded (%v)", err)
	}
}

// In every form, a finding whose waiver has expired counts again. The answers
// of a target are escaped in a page.
func TestScanIsReported(t *testing.T) {
	r := scannedReport()
	var terminal, markdown strings.Builder
	terminalScan(&terminal, paint{}, r)
	markdownScan(&markdown, r)
	for _, told := range []string{terminal.String(), markdown.String()} {
		for _, want := range []string{"1 safe, 1 with flaws, 0 unproven, 1 left out", "9.1 critical", "waived by jane until 2026-11-28", "the waiver by jane expired on 2026-11-27"} {
			if !strings.Contains(told, want) {
				t.Errorf("it does not say %q:\n%s", want, told)
			}
		}
	}
	suites := junitScan(r)
	for i, c := range suites[0].Cases {
		if failed, skipped := c.Failure != nil, c.Skipped != nil; failed != (i == 0) || skipped != (i == 2) {
			t.Errorf("%s: failed %v, skipped %v", c.Name, failed, skipped)
		}
	}
	var page bytes.Buffer
	if err := HTML(&page, r); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(page.String(), "&lt;script&gt;alert(1)") || strings.Contains(page.String(), "<script>alert(1)") {
		t.Error("the page does not show what came as text")
	}
}
