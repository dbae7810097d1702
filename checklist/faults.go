package checklist

import (
	"fmt"
	"strings"
	"time"

	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/scenarios"
)

// faultLife is one fault as the recording tells it.
type faultLife struct {
	Fault
	at          map[string]time.Duration // by state
	failed      string                   // why a step was not taken
	unsupported bool                     // the target cannot have this fault
	recovered   time.Duration            // end of the first of the consecutive good probes; 0: never seen
	lastProbe   time.Duration            // end of the last probe that was not good, after the fault
	after       int                      // probes after the fault
	bad         int                      // of them, those that failed before the recovery
	hit         []lifetime               // load requests that lived while the fault did
}

// lifetime is a load request that may have met the fault.
type lifetime struct {
	due, end time.Duration
	begun    bool // an answer had begun when the fault struck
	ok       bool
}

// faultLives lists every fault the gate declares, with what happened to it.
func faultLives(gate scenarios.Gate, rec *recording.Recording) []*faultLife {
	var lives []*faultLife
	byID := map[string]*faultLife{}
	for _, s := range gate.Scenarios {
		for i, f := range s.Faults {
			l := &faultLife{at: map[string]time.Duration{}, Fault: Fault{ID: fmt.Sprintf("%s/%d", s.Name, i), Scenario: s.Name, Kind: f.Kind, Target: f.Target}}
			lives, byID[l.ID] = append(lives, l), l
		}
	}
	for _, in := range rec.Injections {
		l := byID[in.ID]
		if l == nil {
			continue // of a gate that was changed since
		}
		if in.Target != "" {
			l.Target = in.Target
		}
		if in.State == recording.FaultFailed {
			l.failed = in.Text
			l.unsupported = strings.HasPrefix(in.Text, "unsupported:")
			continue
		}
		l.at[in.State] = in.At
	}
	for _, l := range lives {
		l.InjectedAt, l.InEffectAt = l.seconds(recording.FaultInjected), l.seconds(recording.FaultInEffect)
		l.RevertedAt, l.GoneAt = l.seconds(recording.FaultReverted), l.seconds(recording.FaultGone)
		l.detect(rec)
	}
	return lives
}

func (l *faultLife) seconds(state string) *float64 {
	if at, ok := l.at[state]; ok {
		return new(at.Seconds())
	}
	return nil
}

// detect finds when the service itself noticed: it no longer routes to the
// victim.
func (l *faultLife) detect(rec *recording.Recording) {
	struck, ok := l.at[recording.FaultInEffect]
	if !ok {
		return
	}
	for _, o := range rec.Observations {
		if o.Name == recording.ObsReplicaReady && o.Subject == l.Target && o.Value == 0 && o.At >= l.at[recording.FaultInjected] {
			l.DetectionSeconds = new(max(0, (o.At - struck).Seconds()))
			return
		}
	}
}

// request takes note of a load request that lived when the fault struck or
// after it. It strikes between being injected and being seen in effect, so what
// it cut is counted from the injection.
func (l *faultLife) request(r *recording.Request) {
	struck, ok := l.at[recording.FaultInjected]
	if _, seen := l.at[recording.FaultInEffect]; !ok || !seen || r.Scenario != l.Scenario || r.End < struck && r.Error != recording.ErrorNotSent {
		return
	}
	begun := r.FirstByte > 0 && r.FirstByte <= struck
	l.hit = append(l.hit, lifetime{r.Due, max(r.End, r.Due), begun, r.OK()})
	if begun && !r.OK() {
		l.LostRequests++
	}
}

// recover finds out for every fault when users were served again: the end of
// the first of so many consecutive probes that were answered in full and in
// time. Probes are taken in the order they were due.
func (e *evidence) recover() {
	for _, l := range e.faults {
		struck, ok := l.at[recording.FaultInEffect]
		s := e.scenario(l.Scenario)
		if !ok || s == nil || s.Probe == nil {
			continue
		}
		var first time.Duration
		row := 0
		for _, p := range e.probes[l.Scenario] {
			if p.due < struck {
				continue
			}
			l.after++
			if !p.ok || p.end-p.due > time.Duration(s.Probe.Timeout) {
				row = 0
				l.bad++
				l.lastProbe = p.end
				continue
			}
			if row++; row == 1 {
				first = p.end
			}
			if row == s.Probe.Consecutive {
				l.recovered = first
				l.RecoveredAt, l.RTOSeconds = new(first.Seconds()), new((first - struck).Seconds())
				break
			}
		}
	}
}

// errorsDuring counts the load requests that lived between the fault and the
// recovery from it, and those of them that failed.
func (l *faultLife) errorsDuring() (failed, all int64) {
	for _, r := range l.hit {
		if r.due > l.recovered {
			continue
		}
		all++
		if !r.ok {
			failed++
		}
	}
	return failed, all
}

// judge says whether the fault was what it was meant to be.
func (l *faultLife) judge(e *evidence) {
	has := func(state string) bool { _, ok := l.at[state]; return ok }
	switch {
	case l.unsupported:
		l.Verdict, l.Why = Unproven, strings.TrimSpace(strings.TrimPrefix(l.failed, "unsupported:"))
	case !e.started[l.Scenario]:
		l.Verdict, l.Why = Unproven, fmt.Sprintf("the scenario %s was not played", l.Scenario)
	case !e.complete(l.Scenario) && !has(recording.FaultGone):
		l.Verdict, l.Why = Unproven, "the run was stopped before the fault had run its course"
	case !has(recording.FaultInEffect):
		l.Verdict, l.Why = Invalid, "the fault was never seen in effect, so nothing is known of how the service takes it: "+reason(l.failed)
	case !has(recording.FaultReverted):
		l.Verdict, l.Why = Invalid, "the fault could not be reverted: "+reason(l.failed)
	case !has(recording.FaultGone):
		l.Verdict, l.Why = Fail, "the service did not come back to what it was: "+reason(l.failed)
	case l.RTOSeconds == nil:
		l.Verdict, l.Why = Unproven, l.noRecovery()
	default:
		l.Verdict, l.Why = Pass, l.story()
	}
}

func reason(failed string) string {
	if failed == "" {
		return "the recording does not say why"
	}
	return failed
}

func (l *faultLife) noRecovery() string {
	if l.after == 0 {
		return "no probe was sent after the fault; let the scenario go on for longer"
	}
	return fmt.Sprintf("%d probes were sent after the fault, and too few in a row were answered; let the scenario go on for longer, or find out why the service does not recover", l.after)
}

func (l *faultLife) story() string {
	if l.bad == 0 {
		return fmt.Sprintf("seen in effect and gone again; no probe failed, and %d requests under way were lost", l.LostRequests)
	}
	return fmt.Sprintf("seen in effect and gone again; %d probes failed until users were served again, and %d requests under way were lost", l.bad, l.LostRequests)
}
