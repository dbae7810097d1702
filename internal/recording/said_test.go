package recording

import (
	"bytes"
	"encoding/json"
	"testing"
	"time"

	"github.com/launchgate/launchgate/internal/words"
)

// A line holds its sentence in English and as a phrase with arguments. A text of others
// is a text alone, as all texts are in format 1.
func TestLinesHoldTheirSentences(t *testing.T) {
	german := words.Language{"pid %d is gone (%s)": "Prozess %[1]d ist weg (%[2]s)", "unsupported: %s": "geht nicht: %s", "it has no disk": "ohne Platte"}
	for _, tt := range []struct {
		name, line     string
		value          Injection
		reason, german string
	}{
		{"a phrase", `{"at_ns":5,"id":"a/0","scenario":"a","kind":"pod-kill","state":"in_effect","text":"pid 7 is gone (signal: killed)","phrase":"pid %d is gone (%s)","args":[{"int":7},{"text":"signal: killed"}]}`,
			Injection{At: 5, ID: "a/0", Scenario: "a", Kind: "pod-kill", State: FaultInEffect, Text: words.Say("pid %d is gone (%s)", 7, "signal: killed")},
			"pid 7 is gone (signal: killed)", "Prozess 7 ist weg (signal: killed)"},
		{"what others said", `{"at_ns":5,"id":"a/0","scenario":"a","kind":"pod-kill","state":"failed","text":"pid 7 is gone (it has no disk)"}`,
			Injection{At: 5, ID: "a/0", Scenario: "a", Kind: "pod-kill", State: FaultFailed, Text: words.Verbatim("pid 7 is gone (it has no disk)")},
			"pid 7 is gone (it has no disk)", "pid 7 is gone (it has no disk)"},
		{"unsupported", `{"at_ns":5,"id":"a/0","scenario":"a","kind":"disk-full","state":"failed","unsupported":true,"text":"unsupported: it has no disk","phrase":"unsupported: %s","args":[{"said":{"text":"it has no disk","phrase":"it has no disk"}}]}`,
			Injection{At: 5, ID: "a/0", Scenario: "a", Kind: "disk-full", State: FaultFailed, Unsupported: true, Text: Unsupported(words.Say("it has no disk"))},
			"it has no disk", "geht nicht: ohne Platte"},
	} {
		written, err := json.Marshal(tt.value)
		if err != nil || string(written) != tt.line {
			t.Errorf("%s is written as\n%s, %v, want\n%s", tt.name, written, err, tt.line)
		}
		var read Injection
		if err := json.Unmarshal([]byte(tt.line), &read); err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
		if read.At != 5*time.Nanosecond || read.State != tt.value.State || read.Unsupported != tt.value.Unsupported || read.Text.In(german) != tt.german || read.Reason().String() != tt.reason {
			t.Errorf("%s is read as %+v", tt.name, read)
		}
	}
	var old Injection
	if err := json.Unmarshal([]byte(`{"at_ns":5,"id":"a/0","scenario":"a","kind":"disk-full","state":"failed","text":"unsupported: there is no such thing"}`), &old); err != nil ||
		!old.Unsupported || old.Reason().String() != "there is no such thing" || old.Text.String() != "unsupported: there is no such thing" {
		t.Errorf("format 1 is read as %+v, %v", old, err)
	}
	o := Observation{At: 5, Name: ObsInterrupted, Text: words.Say("pid %d is gone (%s)", 7, "killed")}
	var read Observation
	if b, err := json.Marshal(o); err != nil || json.Unmarshal(b, &read) != nil || read.Text.In(german) != "Prozess 7 ist weg (killed)" || !bytes.Contains(b, []byte(`"text":"pid 7 is gone (killed)"`)) {
		t.Errorf("an observation is written as %s, %v", b, err)
	}
	for _, line := range []string{`{"at_ns":5,"nobody":1}`, `{"at_ns":"x"}`, `{"args":[{"int":"x"}]}`} {
		if json.Unmarshal([]byte(line), &read) == nil || json.Unmarshal([]byte(line), &old) == nil {
			t.Errorf("%s is read", line)
		}
	}
}
