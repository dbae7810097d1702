package reports

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/launchgate/launchgate/checklist"
	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/internal/words"
)

// step is one station of a fault's life.
type step struct {
	State   string
	Reached bool
	Failed  bool
	At      float64
	After   float64 // since the fault was injected
	Text    words.Sentence
}

// life lists the stations in the order a fault goes through them, reached or
// not, and a failed step where it happened.
func life(f Fault) []step {
	var steps []step
	add := func(state, recorded string, at *float64) {
		s := step{State: state, Reached: at != nil}
		if at != nil {
			s.At = *at
			if f.InjectedAt != nil && *at > *f.InjectedAt {
				s.After = *at - *f.InjectedAt
			}
		}
		for _, seen := range f.Seen {
			if seen.State == recorded {
				s.Text = seen.Text
			}
		}
		steps = append(steps, s)
	}
	add("declared", recording.FaultDeclared, f.DeclaredAt)
	add("injected", recording.FaultInjected, f.InjectedAt)
	add("in_effect", recording.FaultInEffect, f.InEffectAt)
	if f.HeldAt != nil { // what is over at once is not held
		add("held", recording.FaultHeld, f.HeldAt)
	}
	add("reverted", recording.FaultReverted, f.RevertedAt)
	add("gone", recording.FaultGone, f.GoneAt)
	add("recovered", "", f.RecoveredAt)
	// Users may be served again before the replica is back, or after it.
	slices.SortStableFunc(steps, func(a, b step) int {
		if !a.Reached || !b.Reached {
			return 0
		}
		return cmp.Compare(a.At, b.At)
	})
	for _, seen := range f.Seen {
		if seen.State == recording.FaultFailed {
			steps = append(steps, step{State: "failed", Reached: true, Failed: true, At: seen.At.Seconds(), Text: seen.Text})
		}
	}
	return steps
}

// faultLine sums a fault up: its sentence, and what was measured of it.
func faultLine(l Language, f checklist.Fault) string {
	var numbers []string
	add := func(id words.Phrase, v *float64) {
		if v != nil {
			numbers = append(numbers, l.say(id)+" "+l.Word(seconds(*v)))
		}
	}
	add("fault.detection", f.DetectionSeconds)
	add("fault.rto", f.RTOSeconds)
	add("fault.rpo", f.RPOSeconds)
	line := l.say("text.sentence", f.Why)
	if len(numbers) > 0 {
		line = l.say("text.sentences", line, l.say("text.sentence", l.join("text.list", numbers)))
	}
	return line
}

func terminalFaults(b *strings.Builder, p paint, r Report) {
	v, l := r.Verdict, r.Language
	if len(v.Faults) > 0 {
		b.WriteString("\n")
	}
	for _, f := range v.Faults {
		fmt.Fprintf(b, "%s  %s  %s\n", p.outcome(f.Verdict, pad(l.name("outcome.", f.Verdict.String()), 8)),
			p.bold(printable(faultName(f))), printable(faultLine(l, f)))
	}
}

func markdownFaults(b *strings.Builder, r Report) {
	v, l := r.Verdict, r.Language
	for _, f := range v.Faults {
		fmt.Fprintf(b, "- %s **%s** — %s\n", markdownSign[f.Verdict], markdownText(faultName(f)), markdownText(faultLine(l, f)))
	}
	if len(v.Faults) > 0 {
		b.WriteString("\n")
	}
}

func junitFaults(r Report) []junitSuite {
	l := r.Language
	suite := junitSuite{Name: "faults"}
	for _, f := range r.Verdict.Faults {
		suite.Cases = append(suite.Cases, junitResult(faultName(f), r.Gate+"."+f.Scenario, f.Verdict, l.Word(f.Why), l.Word(f.Why)))
	}
	if len(suite.Cases) == 0 {
		return nil
	}
	return []junitSuite{suite}
}

// lasted is how long a fault was in effect: until it was seen gone.
func lasted(f Fault) *float64 {
	if f.InEffectAt == nil || f.GoneAt == nil {
		return nil
	}
	v := *f.GoneAt - *f.InEffectAt
	return &v
}

// recoveryText says why an RTO differs from the time that the fault was in effect.
func recoveryText(l Language, f Fault) string {
	effect := lasted(f)
	switch {
	case effect == nil || f.RTOSeconds == nil:
		return ""
	case *f.RTOSeconds < *effect:
		return l.say("fault.sooner", seconds(*f.RTOSeconds), seconds(*effect))
	}
	return l.say("fault.later", seconds(*effect), seconds(*f.RTOSeconds))
}
