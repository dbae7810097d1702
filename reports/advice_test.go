package reports

import (
	"strings"
	"testing"
	"time"

	"github.com/launchgate/launchgate/checklist"
	"github.com/launchgate/launchgate/checklist/release"
	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/scenarios"
)

// "Launch" comes first only if no item of the checklist is open and there are
// enough requests.
func TestLaunchStandsOnlyWhereNothingIsOpen(t *testing.T) {
	r := judged(t, "pass").report(t)
	list := &release.Result{State: release.Open, Items: []release.ItemResult{{Name: words.Kept{Sentence: words.Verbatim("Runbook")}, State: release.Open}, {Name: words.Kept{Sentence: words.Verbatim("Drill")}, State: release.Failed}, {Name: words.Kept{Sentence: words.Verbatim("Backup")}, State: release.Done}}}
	done := &release.Result{State: release.Done, Items: []release.ItemResult{{Name: words.Kept{Sentence: words.Verbatim("Runbook")}, State: release.Done}}}
	for _, tt := range []struct {
		name     string
		list     *release.Result
		requests int64
		want     []words.Phrase
		says     string
	}{
		{"nothing is open", nil, r.Requests, []words.Phrase{"next.launch"}, "Launch."},
		{"the checklist is done", done, r.Requests, []words.Phrase{"next.launch"}, "Launch."},
		{"the checklist is open", list, r.Requests, []words.Phrase{"next.checklist", "next.launch.then"}, "2 of its 3 items are not done (Runbook, Drill)"},
		{"few requests", nil, 25, []words.Phrase{"next.few", "next.launch.then"}, "up to 16.8 %"},
		{"both", list, 129, []words.Phrase{"next.checklist", "next.few", "next.launch.then"}, "is based on 129"},
	} {
		told := r
		told.Checklist, told.Requests = tt.list, tt.requests
		var got []words.Phrase
		var text strings.Builder
		for _, n := range next(told) {
			if n.Phrase != "next.narrowest" {
				got = append(got, n.Phrase)
			}
			text.WriteString(English.Word(n) + "\n")
		}
		if len(got) != len(tt.want) || !strings.Contains(text.String(), tt.says) {
			t.Errorf("%s: it is told %v, want %v and %q:\n%s", tt.name, got, tt.want, tt.says, text.String())
			continue
		}
		for i := range got {
			if got[i] != tt.want[i] {
				t.Errorf("%s: it is told %v, want %v", tt.name, got, tt.want)
			}
		}
	}
}

// A run that is only a scan has no load, so the advice is not to send more
// requests.
func TestScanAloneIsAdvisedToSendLoad(t *testing.T) {
	r := judged(t, "pass").report(t)
	r.Requests, r.Stages, r.Objectives, r.Scan = 0, nil, nil, []recording.ScanResult{{Check: "tls", Outcome: recording.ScanSafe}}
	var text string
	for _, n := range next(r) {
		text += English.Word(n) + "\n"
	}
	if !strings.HasPrefix(text, "Send load too") || !strings.Contains(text, "Then launch") || strings.Contains(text, " 0 ") {
		t.Errorf("it is told:\n%s", text)
	}
}

// A fault that was never in effect was not survived.
func TestOnlyFaultsThatStruckAreSurvived(t *testing.T) {
	at := 3.0
	struck := checklist.Fault{InEffectAt: &at, Verdict: checklist.Pass}
	for want, faults := range map[string][]checklist.Fault{
		"2 of 2 survived":                      {struck, struck},
		"1 of 1 survived; 1 never took effect": {struck, {Verdict: checklist.Invalid}},
		"none of 2 took effect":                {{}, {Verdict: checklist.Unproven}},
		"0 of 1 survived; 2 never took effect": {{InEffectAt: &at, Verdict: checklist.Fail}, {}, {}},
	} {
		if got := survivedText(English, faults); got != want {
			t.Errorf("of %d faults it is told %q, want %q", len(faults), got, want)
		}
	}
}

// The chart of the probes and the fault's own line use one definition of a
// failed probe. It includes a probe that was under way when the fault took
// effect, and one that was answered too late.
func TestAProbesFailureIsShownAlike(t *testing.T) {
	gate, err := scenarios.Parse("gate.yaml", []byte(`
name: g
target: {endpoint: {url: "http://127.0.0.1:1"}}
scenarios:
  - name: kill
    stages: [{name: main, for: 20s, rate: 10/s}]
    faults: [{kind: pod-kill, target: replica-0, at: 5s}]
    probe: {every: 100ms, consecutive: 3, timeout: 1s}
objectives: [error_rate in kill <= 50%]
`))
	if err != nil {
		t.Fatal(err)
	}
	const ms = time.Millisecond
	injected, inEffect := 5*time.Second+30*ms, 5*time.Second+45*ms
	for _, tt := range []struct {
		name   string
		failed func(due time.Duration) (end time.Duration, broken bool)
		want   string
		count  float64
	}{
		{"none", func(due time.Duration) (time.Duration, bool) { return due + 20*ms, false }, "users were served throughout", 0},
		{"one under way at the kill", func(due time.Duration) (time.Duration, bool) { return due + 40*ms, due == 5*time.Second }, "1 probe failed until", 1},
		{"one answered too late", func(due time.Duration) (time.Duration, bool) {
			if due == 5200*ms {
				return due + 1500*ms, false
			}
			return due + 20*ms, false
		}, "1 probe failed until", 1},
		{"one before and two after", func(due time.Duration) (time.Duration, bool) {
			return due + 40*ms, due == 5*time.Second || due == 5100*ms || due == 5200*ms
		}, "3 probes failed until", 3},
	} {
		var requests []recording.Request
		for i := range int64(200) {
			due := time.Duration(i) * 100 * ms
			if due == 0 {
				due = 1
			}
			end, broken := tt.failed(due)
			for _, kind := range []string{recording.KindLoad, recording.KindProbe} {
				r := recording.Request{Kind: kind, Scenario: "kill", Stage: "main", Seq: i, Due: due, Sent: due + 1, FirstToken: due + 2, LastToken: end - 1, End: end, Status: 200, OutputTokens: 2, FinishReason: "stop"}
				if kind == recording.KindProbe && broken {
					r.Error = recording.ErrorTruncated
				} else if kind == recording.KindLoad {
					r.End, r.LastToken = due+20*ms, due+19*ms
				}
				requests = append(requests, r)
			}
		}
		var steps []recording.Injection
		for state, at := range map[string]time.Duration{recording.FaultDeclared: 1, recording.FaultInjected: injected, recording.FaultInEffect: inEffect, recording.FaultReverted: 6 * time.Second, recording.FaultGone: 7 * time.Second} {
			steps = append(steps, recording.Injection{At: at, ID: "kill/0", Scenario: "kill", Kind: "pod-kill", Target: "replica-0", State: state})
		}
		rec := recording.InMemory(requests, steps, []recording.Observation{
			{At: 1, Name: recording.ObsScenarioStarted, Subject: "kill"}, {At: 1, Name: recording.ObsStageStarted, Subject: "kill/main", Value: 200},
			{At: 20 * time.Second, Name: recording.ObsStageEnded, Subject: "kill/main", Value: 200}, {At: 20 * time.Second, Name: recording.ObsScenarioEnded, Subject: "kill"},
			{At: 21 * time.Second, Name: recording.ObsRunEnded},
		})
		rec.Complete = true
		v, err := checklist.Judge(gate, rec)
		if err != nil {
			t.Fatal(err)
		}
		r := judgedRun{gate, rec, v}.report(t)
		var failed float64
		for _, p := range r.Timeline.Panels {
			if p.ID != "probe" {
				continue
			}
			for _, share := range p.Series[0].Data {
				if share > 0 {
					failed += share * 10 // probes in a second
				}
			}
		}
		said := v.Faults[0].Why.String()
		if !strings.Contains(said, tt.want) || failed < tt.count-1e-6 || failed > tt.count+1e-6 {
			t.Errorf("%s: the chart shows %.3g failed probes, want %v, and the fault says %q, want %q", tt.name, failed, tt.count, said, tt.want)
		}
	}
}
