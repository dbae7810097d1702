package recording

import (
	"fmt"
	"strings"
	"testing"

	"github.com/launchgate/launchgate/internal/words"
)

// A recording made elsewhere may contain anything. Everything read from it is safe to
// show: no escape sequences, no NUL, no change of the direction of writing.
func TestWhatIsReadIsHarmless(t *testing.T) {
	const evil = "a\x1b[2J\x00\u202eb\x9b31m"
	dir := t.TempDir() + "/run"
	w, err := Create(dir)
	if err != nil {
		t.Fatal(err)
	}
	said := words.Say(words.Phrase("found %s "+evil), evil)
	if err := w.Environment(Environment{Version: evil, Command: []string{evil}, Host: Host{CPU: evil}, Target: Target{Kind: evil, URL: evil, Model: evil, Protocol: words.Kept{Sentence: said}}}); err != nil {
		t.Fatal(err)
	}
	r := Request{Kind: evil, Scenario: evil, Stage: evil, Class: evil, Due: 1, Sent: 1, End: 2, FinishReason: evil, TokensFrom: evil, Record: evil, Replica: evil}
	r.Fail(evil, said)
	if err := w.Gate([]byte("name: g\n")); err != nil {
		t.Fatal(err)
	}
	w.Request(r)
	r.Fail(evil, words.Verbatim(evil))
	w.Request(r)
	w.Inject(Injection{At: 1, ID: evil, Scenario: evil, Kind: evil, Target: evil, State: evil, Text: said})
	w.Observe(Observation{At: 1, Name: evil, Subject: evil, Text: said})
	w.Scan(ScanResult{Check: evil, Outcome: evil, Why: words.Kept{Sentence: said}, Findings: []ScanFinding{{
		Fingerprint: evil, Title: words.Kept{Sentence: said}, Where: evil, Vector: evil, Tags: []string{evil}, Evidence: []Exchange{{evil, evil}}, Waiver: &Waiver{evil, evil, evil},
	}}})
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	rec, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	all := fmt.Sprintf("%+v %+v %+v %+v", rec.Environment, rec.Injections, rec.Observations, rec.Scan[0])
	for _, f := range rec.Scan[0].Findings {
		all += fmt.Sprintf("%+v %+v", f, *f.Waiver)
	}
	for r, err := range rec.Requests {
		if err != nil {
			t.Fatal(err)
		}
		all += fmt.Sprintf("%+v %s", r, r.Why())
	}
	if strings.ContainsAny(all, "\x1b\x00\u202e\u009b") || !strings.Contains(all, `a\x1b[2J\x00\u202eb`) {
		t.Errorf("it reads\n%q", all)
	}
}
