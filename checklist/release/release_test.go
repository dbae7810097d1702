package release

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hiddeco/sshsig"
	"golang.org/x/crypto/ssh"

	"github.com/launchgate/launchgate/checklist"
	"github.com/launchgate/launchgate/internal/words"
)

var now = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

// The checklist that launchgate brings parses, and without evidence no item is done.
func TestNothingIsDoneByItself(t *testing.T) {
	c, err := Parse("release.yaml", t.TempDir(), checklist.GoLive)
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Items) != 8 {
		t.Errorf("%d items, the guide has eight", len(c.Items))
	}
	r := c.Hold(now, nil)
	if r.State != Open {
		t.Errorf("without evidence the list is %v", r.State)
	}
	for _, item := range r.Items {
		for _, check := range item.Checks {
			if check.State != Open || check.Why.IsZero() {
				t.Errorf("%s/%s is %v: %s", item.ID, check.ID, check.State, check.Why)
			}
		}
	}
}

// one checks a list with one check.
func one(t *testing.T, dir, check string, runs ...Run) CheckResult {
	t.Helper()
	c, err := Parse("list.yaml", dir, []byte("name: n\nsigners: signers\nitems:\n  - id: i\n    name: I\n    checks:\n      - {id: c, name: C, "+check+"}\n"))
	if err != nil {
		t.Fatal(err)
	}
	r := c.Hold(now, runs)
	if r.State != r.Items[0].State || r.State != r.Items[0].Checks[0].State {
		t.Errorf("the list is %v, its item %v, its check %v", r.State, r.Items[0].State, r.Items[0].Checks[0].State)
	}
	return r.Items[0].Checks[0]
}

func judged(name string, at time.Time, outcome checklist.Outcome, findings ...checklist.Finding) Run {
	return Run{name, at, checklist.Verdict{Verdict: outcome, Objectives: findings}}
}

func finding(source string, outcome checklist.Outcome) checklist.Finding {
	return checklist.Finding{Source: source, Verdict: outcome, Why: words.Say("because")}
}

func TestRunsAsEvidence(t *testing.T) {
	hour := now.Add(-time.Hour)
	pass := judged("runs/a", hour, checklist.Pass, finding("rto(pod-kill) < 5s", checklist.Pass), finding("p95(ttft) in x <= 1s", checklist.Pass))
	for _, tt := range []struct {
		name, check string
		runs        []Run
		state       State
		says        string
	}{
		{"no run", "promise: ttft", nil, Open, "no run has an objective about ttft"},
		{"kept", "promise: ttft", []Run{pass}, Done, "p95(ttft) in x <= 1s in runs/a"},
		{"of one fault", "promise: rto(pod-kill)", []Run{pass}, Done, ""},
		{"of another fault", "promise: rto(node-loss)", []Run{pass}, Open, "no run"},
		{"of any fault", "promise: rto", []Run{pass}, Done, ""},
		{"the newest counts", "promise: ttft", []Run{pass, judged("runs/b", now, checklist.Fail, finding("p50(ttft) <= 1ms", checklist.Fail))}, Failed, "runs/b"},
		{"an older one does not", "promise: ttft", []Run{judged("runs/b", hour.Add(-time.Hour), checklist.Fail, finding("p50(ttft) <= 1ms", checklist.Fail)), pass}, Done, "runs/a"},
		{"one about something else does not", "promise: ttft", []Run{pass, judged("runs/b", now, checklist.Fail, finding("error_rate <= 1%", checklist.Fail))}, Done, "runs/a"},
		{"all of its objectives count", "promise: ttft", []Run{judged("runs/a", now, checklist.Fail, finding("p50(ttft) <= 1s", checklist.Pass), finding("p99(ttft) <= 1ms", checklist.Fail))}, Failed, "p99(ttft)"},
		{"unproven is open", "promise: ttft", []Run{judged("runs/a", now, checklist.Unproven, finding("p50(ttft) <= 1s", checklist.Unproven))}, Open, "because"},
		{"invalid is open", "promise: ttft", []Run{judged("runs/a", now, checklist.Invalid, finding("p50(ttft) <= 1s", checklist.Pass))}, Open, "proves nothing"},
		{"a failed run keeps other promises", "promise: ttft", []Run{judged("runs/a", now, checklist.Fail, finding("p50(ttft) <= 1s", checklist.Pass))}, Done, ""},
		{"too old", "promise: ttft, within: 30m", []Run{pass}, Open, "may be at most 30m0s old"},
		{"young enough", "promise: ttft, within: 2h", []Run{pass}, Done, ""},
		{"from tomorrow's tomorrow", "promise: ttft", []Run{judged("runs/a", now.Add(48*time.Hour), checklist.Pass, finding("p50(ttft) <= 1s", checklist.Pass))}, Open, "in the future"},
	} {
		got := one(t, t.TempDir(), tt.check, tt.runs...)
		if got.State != tt.state || !strings.Contains(got.Why.String(), tt.says) {
			t.Errorf("%s: %v: %s", tt.name, got.State, got.Why)
		}
	}
}

func TestFilesAsEvidence(t *testing.T) {
	sarif := func(results string) string {
		return `{"version":"2.1.0","runs":[{"tool":{"driver":{"name":"scanner","rules":[{"id":"r7","properties":{"security-severity":"7.5"}},{"id":"rerr","defaultConfiguration":{"level":"error"}}]}},"invocations":[{"executionSuccessful":true,"endTimeUtc":"2026-11-20T10:00:00Z"}],"results":[` + results + `]}]}`
	}
	for _, tt := range []struct {
		name, check, content string
		state                State
		says                 string
	}{
		{"tests pass", "tests: f", `<testsuites><testsuite timestamp="2026-11-23T10:00:00"><testcase name="a"/><testcase name="b"><skipped/></testcase></testsuite></testsuites>`, Done, "1 tests passed, 1 were skipped"},
		{"a test fails", "tests: f", `<testsuite><testcase name="a"/><testcase name="b"><failure message="x">y</failure></testcase></testsuite>`, Failed, "1 tests failed, the first: b"},
		{"a test has an error", "tests: f", `<testsuite><testcase name="a"><system-out/><error/></testcase></testsuite>`, Failed, "a"},
		{"none ran", "tests: f", `<testsuite tests="3"><testcase name="b"><skipped/></testcase></testsuite>`, Open, "no test in it ran (1 were skipped)"},
		{"no test at all", "tests: f", `<testsuites/>`, Open, "no test in it ran"},
		{"empty", "tests: f", ``, Open, "no test in it ran"},
		{"not XML", "tests: f", `{"tests": 3}`, Open, "no test in it ran"},
		{"cut short", "tests: f", `<testsuite><testcase name="a"/><testc`, Open, "not a JUnit file"},
		{"too old", "tests: f, within: 1d", `<testsuite timestamp="2026-11-20T10:00:00"><testcase name="a"/></testsuite>`, Open, "its date is 2026-11-20"},

		{"nothing found", "scan: f", sarif(``), Done, "no finding of severity high or worse, 0 below"},
		{"low ones", "scan: f", sarif(`{"ruleId":"x","level":"warning"}`), Done, "1 below"},
		{"high by its rule", "scan: f", sarif(`{"ruleId":"r7","level":"warning"}`), Failed, "the first: r7"},
		{"high by its rule's index", "scan: f", sarif(`{"ruleIndex":0,"ruleId":"r7/1"}`), Failed, "r7/1"},
		{"high by itself", "scan: f", sarif(`{"ruleId":"x","properties":{"security-severity":9.1}}`), Failed, "x"},
		{"low by itself", "scan: f", sarif(`{"ruleId":"r7","level":"error","properties":{"security-severity":"3.0"}}`), Done, ""},
		{"an error", "scan: f", sarif(`{"ruleId":"x","level":"error"}`), Failed, ""},
		{"an error by its rule", "scan: f", sarif(`{"ruleId":"rerr"}`), Failed, ""},
		{"suppressed", "scan: f", sarif(`{"ruleId":"r7","suppressions":[{"kind":"external"}]}`), Done, ""},
		{"passed", "scan: f", sarif(`{"ruleId":"r7","kind":"pass"}`), Done, ""},
		{"failed itself", "scan: f", `{"runs":[{"tool":{"driver":{"name":"s"}},"invocations":[{"executionSuccessful":false}]}]}`, Open, "the scan by s did not succeed"},
		{"no run", "scan: f", `{"runs":[]}`, Open, "no scan"},
		{"not JSON", "scan: f", `<x/>`, Open, "not a SARIF file"},
		{"old", "scan: f, within: 2d", sarif(``), Open, "its date is 2026-11-20"},

		{"reviewed", "document: f, within: 90d", "# Runbook\n\nReviewed: 2026-11-01\n", Done, "reviewed on 2026-11-01"},
		{"reviewed in bold", "document: f, within: 90d", "**Last reviewed:** 2026-11-02 by Jane\n", Done, "2026-11-02"},
		{"reviewed long ago", "document: f, within: 90d", "Reviewed: 2026-01-01\n", Open, "may be at most 90d old"},
		{"reviewed often", "document: f, within: 90d", "Reviewed: 2026-01-01\nReviewed: 2026-11-01\n", Done, "2026-11-01"},
		{"to be reviewed", "document: f, within: 90d", "Reviewed: 2027-01-01\n", Open, "in the future"},
		{"never reviewed", "document: f", "It is reviewed every week.\n", Open, "no line"},
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "f"), []byte(tt.content), 0o600); err != nil {
			t.Fatal(err)
		}
		got := one(t, dir, tt.check)
		if got.State != tt.state || !strings.Contains(got.Why.String(), tt.says) {
			t.Errorf("%s: %v: %s", tt.name, got.State, got.Why)
		}
	}
	if got := one(t, t.TempDir(), "scan: nowhere"); got.State != Open || got.Why.String() != "nowhere does not exist" {
		t.Errorf("without the file: %v: %s", got.State, got.Why)
	}
}

func newKey(t *testing.T) (ssh.Signer, string) {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ssh.NewPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	return signer, strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key)))
}

func TestStatements(t *testing.T) {
	jane, janesKey := newKey(t)
	_, johnsKey := newKey(t)
	const said = "check: i/c\nwho: jane@example.com\nsays: We did it.\nexpires: 2026-12-01\n"
	for _, tt := range []struct {
		name, says, signers, namespace, changed string
		state                                   State
		why                                     string
	}{
		{"signed", said, "jane@example.com " + janesKey, Namespace, "", Done, "jane@example.com, until 2026-12-01: We did it."},
		{"by a pattern", said, "# the team\n\n*@example.com,root " + janesKey, Namespace, "", Done, ""},
		{"with options", said, `jane@example.com namespaces="file,launchgate",valid-before="20270101" ` + janesKey, Namespace, "", Done, ""},
		{"somebody else's key", said, "jane@example.com " + johnsKey, Namespace, "", Open, "not by a key of jane@example.com"},
		{"a key of somebody else", said, "john@example.com " + janesKey, Namespace, "", Open, "has no key"},
		{"not her", said, "!jane@example.com,*@example.com " + janesKey, Namespace, "", Open, "has no key"},
		{"another purpose", said, "jane@example.com " + janesKey, "git", "", Open, "not by a key"},
		{"a key for another purpose", said, `jane@example.com namespaces="git" ` + janesKey, Namespace, "", Open, "has no key"},
		{"a key that has expired", said, `jane@example.com valid-before="20261101" ` + janesKey, Namespace, "", Open, "has no key"},
		{"a key for later", said, `jane@example.com valid-after="20261201Z" ` + janesKey, Namespace, "", Open, "has no key"},
		{"an option that is not understood", said, `jane@example.com cert-authority ` + janesKey, Namespace, "", Open, "cert-authority"},
		{"no keys", said, "", Namespace, "", Open, "has no key"},
		{"a broken list", said, "jane@example.com nonsense", Namespace, "", Open, "line 1: found no key"},
		{"changed afterwards", said, "jane@example.com " + janesKey, Namespace, strings.Replace(said, "2026-12-01", "2036-12-01", 1), Open, "changed after it was signed"},
		{"expired", strings.Replace(said, "2026-12-01", "2026-11-23", 1), "jane@example.com " + janesKey, Namespace, "", Open, "expired on 2026-11-23"},
		{"the last day", strings.Replace(said, "2026-12-01", "2026-11-24", 1), "jane@example.com " + janesKey, Namespace, "", Done, ""},
		{"of another check", strings.Replace(said, "i/c", "i/d", 1), "jane@example.com " + janesKey, Namespace, "", Open, `is about "i/d", expected "i/c"`},
		{"says nothing", strings.Replace(said, "We did it.", `" "`, 1), "jane@example.com " + janesKey, Namespace, "", Open, "does not give both who and says"},
		{"no day", strings.Replace(said, "2026-12-01", "never", 1), "jane@example.com " + janesKey, Namespace, "", Open, "expected a day"},
		{"not signed", said, "jane@example.com " + janesKey, "", "", Open, "it is not signed; ssh-keygen -Y sign -n launchgate"},
	} {
		dir := t.TempDir()
		write := func(name, content string) {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		write("s.yaml", tt.says)
		write("signers", tt.signers)
		if tt.namespace != "" {
			sig, err := sshsig.Sign(bytes.NewReader([]byte(tt.says)), jane, sshsig.HashSHA512, tt.namespace)
			if err != nil {
				t.Fatal(err)
			}
			write("s.yaml.sig", string(sshsig.Armor(sig)))
		}
		if tt.changed != "" {
			write("s.yaml", tt.changed)
		}
		got := one(t, dir, "statement: s.yaml")
		if got.State != tt.state || !strings.Contains(got.Why.String(), tt.why) {
			t.Errorf("%s: %v: %s", tt.name, got.State, got.Why)
		}
	}
	if got := one(t, t.TempDir(), "statement: s.yaml"); got.State != Open || !strings.Contains(got.Why.String(), "nobody has signed") {
		t.Errorf("without a statement: %v: %s", got.State, got.Why)
	}
}

// A statement signed by OpenSSH's ssh-keygen is accepted.
func TestStatementSignedByOpenSSH(t *testing.T) {
	if _, err := exec.LookPath("ssh-keygen"); err != nil {
		t.Skip("skipped: there is no ssh-keygen on this machine")
	}
	dir := t.TempDir()
	for _, kind := range []string{"ed25519", "ecdsa", "rsa"} {
		key := filepath.Join(dir, kind)
		run := func(args ...string) {
			if out, err := exec.Command("ssh-keygen", args...).CombinedOutput(); err != nil {
				t.Fatalf("ssh-keygen %v: %v\n%s", args, err, out)
			}
		}
		run("-q", "-t", kind, "-N", "", "-f", key)
		statement := filepath.Join(dir, "s.yaml")
		os.Remove(statement + ".sig")
		if err := os.WriteFile(statement, []byte("check: i/c\nwho: jane\nsays: yes\nexpires: 2027-01-01\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		run("-Y", "sign", "-n", Namespace, "-f", key, statement)
		public, err := os.ReadFile(key + ".pub")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "signers"), append([]byte("jane "), public...), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := one(t, dir, "statement: s.yaml"); got.State != Done {
			t.Errorf("%s: %v: %s", kind, got.State, got.Why)
		}
	}
}

func TestBadChecklists(t *testing.T) {
	for _, tt := range []struct{ src, want string }{
		{"", "items: found none"},
		{"items:\n  - id: a\n    nmae: x\n", "l.yaml:3: "},
		{"items:\n  - {id: a, name: A}\n", "found no checks"},
		{"items:\n  - {id: A b, checks: []}\n", `items[0].id: found "A b"`},
		{"items:\n  - {id: a, checks: [{id: c}]}\n", "a/c: found 0 kinds of evidence"},
		{"items:\n  - {id: a, checks: [{id: c, scan: x, tests: y}]}\n", "a/c: found 2 kinds of evidence"},
		{"items:\n  - {id: a, checks: [{id: c, scan: x}, {id: c, scan: y}]}\n", `items[0].checks[1].id: found "c"`},
		{"items:\n  - {id: a, checks: [{id: c, statement: x}]}\n", "signers names no file"},
		{"signers: s\nitems:\n  - {id: a, checks: [{id: c, statement: x, within: 3d}]}\n", "leave within out"},
		{"items:\n  - {id: a, checks: [{id: c, promise: p95(ttft)}]}\n", `found "p95(ttft)", expected a metric`},
		{"items:\n  - {id: a, checks: [{id: c, promise: nonsense}]}\n", `there is no metric "nonsense"`},
		{"items:\n  - {id: a, checks: [{id: c, promise: ttft(x)}]}\n", "ttft takes nothing in brackets"},
		{"items:\n  - {id: a, checks: [{id: c, promise: ttft <= 1s}]}\n", "expected a metric such as ttft"},
		{"items:\n  - {id: a, checks: [{id: c, scan: x, within: soon}]}\n", "expected an age such as 7d"},
		{"items: [", "l.yaml"},
	} {
		_, err := Parse("l.yaml", "", []byte(tt.src))
		if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.HasPrefix(err.Error(), "l.yaml:") {
			t.Errorf("%q: %v, want %q", tt.src, err, tt.want)
		}
	}
}

func TestResultIsReadAsWritten(t *testing.T) {
	c, err := Parse("release.yaml", t.TempDir(), checklist.GoLive)
	if err != nil {
		t.Fatal(err)
	}
	r := c.Hold(now, nil)
	b, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	var read Result
	if err := json.Unmarshal(b, &read); err != nil {
		t.Fatal(err)
	}
	again, err := json.Marshal(read)
	if err != nil || !bytes.Equal(b, again) {
		t.Errorf("%v: written\n%s\nread and written\n%s", err, b, again)
	}
}

// FuzzEvidence gives the readers of evidence arbitrary files. A check may be done only
// if the file really has the evidence.
func FuzzEvidence(f *testing.F) {
	for _, s := range []string{`<testsuite><testcase name="a"/></testsuite>`, `{"runs":[{"results":[{"ruleIndex":-1}]}]}`, "Reviewed: 2026-11-01", "a b c", "* namespaces=\"x\" ssh-ed25519 AAAA", "items: [{id: a, checks: [{id: c, scan: x}]}]"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		if got := junit(content); got.state == Done && !bytes.Contains(content, []byte("testcase")) {
			t.Errorf("done by %q", content)
		}
		if got := sarif(content); got.state == Done && !bytes.Contains(bytes.ToLower(content), []byte("runs")) && !bytes.Contains(content, []byte(`\u`)) {
			t.Errorf("done by %q", content)
		}
		document(content)
		_, _ = parseSigners(content)
		if c, err := Parse("l.yaml", "", content); err == nil && len(c.Items) == 0 {
			t.Errorf("a list without items by %q", content)
		}
	})
}
