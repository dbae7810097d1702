package checklist

import (
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/scenarios"
)

// faultLife is the life of one fault, from the recording.
type faultLife struct {
	Fault
	lasts       time.Duration            // how long it should be held
	at          map[string]time.Duration // by state
	failed      words.Sentence           // why a step was not taken
	unsupported bool                     // the target cannot have this fault
	met         []lifetime               // load requests that were under way when the fault was injected, or due later
	recovered   time.Duration            // end of the first of the consecutive good probes
	probed      int                      // probes due after the fault was in effect, until the recovery
	bad         int                      // of these, probes without a full answer in time
	lastBad     time.Duration            // end of the last bad one
	cut         int                      // probes that failed, of those under way when it was injected or due before it was seen in effect
	later       int                      // probes that failed between the recovery and the fault's end
	kept        durable                  // the records that were acknowledged before it was gone
	lostProbes  bool                     // probes are missing from the recording
	broken      bool                     // an objective about it failed
}

// faultLives lists every fault the gate declares, with what happened to it.
func faultLives(gate scenarios.Gate, rec *recording.Recording) []*faultLife {
	var lives []*faultLife
	byID := map[string]*faultLife{}
	for _, s := range gate.Scenarios {
		for i, f := range s.Strikes() {
			l := &faultLife{
				Fault: Fault{ID: fmt.Sprintf("%s/%d", s.Name, i), Scenario: s.Name, Kind: f.Kind, Target: f.Target},
				lasts: time.Duration(f.For), at: map[string]time.Duration{},
			}
			lives, byID[l.ID] = append(lives, l), l
		}
	}
	for _, in := range rec.Injections {
		if l := byID[in.ID]; l != nil {
			l.step(in)
		}
	}
	for _, l := range lives {
		l.DeclaredAt, l.InjectedAt = l.seconds(recording.FaultDeclared), l.seconds(recording.FaultInjected)
		l.InEffectAt, l.HeldAt = l.seconds(recording.FaultInEffect), l.seconds(recording.FaultHeld)
		l.RevertedAt, l.GoneAt = l.seconds(recording.FaultReverted), l.seconds(recording.FaultGone)
		l.detect(rec)
	}
	return lives
}

func (l *faultLife) step(in recording.Injection) {
	if in.Target != "" {
		l.Target = in.Target
	}
	if in.State == recording.FaultFailed {
		l.unsupported, l.failed = in.Unsupported, in.Reason()
		return
	}
	l.at[in.State] = in.At
}

func (l *faultLife) has(state string) bool {
	_, ok := l.at[state]
	return ok
}

func (l *faultLife) seconds(state string) *float64 {
	if !l.has(state) {
		return nil
	}
	return new(l.at[state].Seconds())
}

// struck reports whether the time at which the fault struck is known: it was injected,
// and later seen in effect.
func (l *faultLife) struck() bool {
	return l.has(recording.FaultInjected) && l.has(recording.FaultInEffect)
}

// detect finds when the service itself noticed the fault: when it no longer routed to
// the target. If that was before the harness saw the fault in effect, the detection
// time is 0. After the fault was gone, a change has another cause.
func (l *faultLife) detect(rec *recording.Recording) {
	if !l.struck() {
		return
	}
	for _, o := range rec.Observations {
		if l.has(recording.FaultGone) && o.At > l.at[recording.FaultGone] {
			continue
		}
		if o.Name == recording.ObsReplicaReady && o.Subject == l.Target && o.Value == 0 && o.At >= l.at[recording.FaultInjected] {
			l.DetectionSeconds = new(max(0, (o.At - l.at[recording.FaultInEffect]).Seconds()))
			return
		}
	}
}

// request takes a load request that ended after the fault was injected. The fault
// strikes between being injected and being seen in effect, so requests that it may have
// cut are counted from the injection.
func (l *faultLife) request(r *recording.Request) {
	if !l.struck() || r.Scenario != l.Scenario || r.End > 0 && r.End < l.at[recording.FaultInjected] {
		return
	}
	waited, ok := r.Waited()
	if r.End > 0 || r.Due >= l.at[recording.FaultInjected] {
		m := lifetime{due: r.Due, ok: ok, retried: r.Retries > 0, replica: r.Replica, class: r.Class}
		if ok {
			m.response = waited.Seconds()
		}
		l.met = append(l.met, m)
	}
	if !ok && r.Sent > 0 && r.Sent <= l.at[recording.FaultInEffect] {
		l.LostRequests++
	}
}

// probe counts a failed probe that the fault may have cut: one that was due before the
// fault was seen in effect. It failed, but it cannot show when users were served again.
func (l *faultLife) probe(r *recording.Request, p probe) {
	if !l.struck() || r.Scenario != l.Scenario || p.cancelled || p.answered {
		return
	}
	if injected := l.at[recording.FaultInjected]; r.Due < l.at[recording.FaultInEffect] && (r.Due > injected || r.UnderWay(injected)) {
		l.cut++
	}
}

// recover finds out when users were served again: the end of the first of so many
// consecutive probes that were answered in full and in time. Probes are taken in the
// order in which they were due. If as many consecutive probes fail later, before the
// fault is gone, users were not served again yet, because some faults break the service
// a while after they strike.
func (l *faultLife) recover(e *evidence) {
	s := e.scenario(l.Scenario)
	if !l.struck() || s == nil || s.Probe == nil {
		return
	}
	probes := e.probes[l.Scenario]
	from := slices.IndexFunc(probes, func(p probe) bool { return p.due >= l.at[recording.FaultInEffect] })
	for from >= 0 {
		first, after := l.served(probes, from, *s.Probe)
		if l.recovered = first; l.lostProbes || after < 0 {
			l.recovered = 0
			return
		}
		from = l.failsAgain(probes, after, *s.Probe)
	}
	if l.recovered > 0 {
		l.RecoveredAt, l.RTOSeconds = new(l.recovered.Seconds()), new((l.recovered - l.at[recording.FaultInEffect]).Seconds())
	}
}

// served looks from a probe on for the required number of consecutive answered probes.
// It returns the end of the first of them and the index after the last; -1 if there are
// none.
func (l *faultLife) served(probes []probe, from int, s scenarios.Probe) (first time.Duration, after int) {
	row := 0
	for i, p := range probes[from:] {
		l.lostProbes = l.lostProbes || p.seq != seqAfter(probes, from+i)
		switch {
		case p.cancelled:
			continue
		case p.answered:
			if row++; row == 1 {
				first = p.end
			}
		default:
			row = 0
			l.bad++
			l.lastBad = p.end
		}
		l.probed++
		if row == s.Consecutive {
			return first, from + i + 1
		}
	}
	return 0, -1
}

// failsAgain is the index of the first of as many consecutive probes that failed or are
// missing before the fault was gone; -1 if there are none. Shorter series are counted
// in later.
func (l *faultLife) failsAgain(probes []probe, from int, s scenarios.Probe) int {
	row, failed, begin := 0, 0, -1 // failed: the probes of the series that failed, without the missing ones
	l.later = 0
	for i := from; i < len(probes); i++ {
		p := probes[i]
		if row == 0 {
			begin = i
			if l.has(recording.FaultGone) && p.due > l.at[recording.FaultGone] {
				break
			}
		}
		row += int(p.seq - seqAfter(probes, i))
		if row < s.Consecutive && !p.cancelled {
			if p.answered {
				row, failed = 0, 0
				continue
			}
			row++
			failed++
			l.later++
		}
		if row >= s.Consecutive {
			l.bad += l.later - failed // the series is looked at again
			return begin
		}
	}
	return -1
}

// seqAfter is the expected sequence number of a probe, after the one before it.
func seqAfter(probes []probe, i int) int64 {
	if i == 0 {
		return 0
	}
	return probes[i-1].seq + 1
}

// leastDuring is the shortest time for which a fault counts. Without it, a service that
// recovers more quickly would have a higher error rate, from fewer requests.
const leastDuring = 10 * time.Second

// errorsDuring counts the load requests that met the fault, and how many of them
// failed: those under way when it was injected, and those due until users were served
// again, the fault was seen gone and leastDuring had passed.
func (l *faultLife) errorsDuring() (failed, all int64) {
	end := l.until()
	for _, r := range l.met {
		if r.due > end {
			continue
		}
		all++
		if !r.ok {
			failed++
		}
	}
	return failed, all
}

// until is when the fault no longer counts. A fault that was not seen gone counts to
// the end.
func (l *faultLife) until() time.Duration {
	if !l.has(recording.FaultGone) {
		return math.MaxInt64
	}
	return max(l.recovered, l.at[recording.FaultGone], l.at[recording.FaultInjected]+leastDuring)
}

// metBy reports whether a request met the fault: it was under way at the injection, or
// due before the fault no longer counted. A request without an end was under way ever
// since.
func (l *faultLife) metBy(r *recording.Request) bool {
	return l.has(recording.FaultInjected) && r.Scenario == l.Scenario &&
		(r.End == 0 || r.End >= l.at[recording.FaultInjected]) && r.Due <= l.until()
}

// judge decides whether the fault happened as specified, and whether the service
// recovered.
func (l *faultLife) judge(e *evidence) {
	switch {
	case l.unsupported:
		l.Verdict, l.Why = Unproven, words.Say("the fault was not injected: %s", l.reason())
	case !e.started[l.Scenario]:
		l.Verdict, l.Why = Unproven, words.Say("the scenario %s was not played", l.Scenario)
	case !(e.complete(l.Scenario) && e.rec.Complete) && !l.has(recording.FaultGone):
		l.Verdict, l.Why = Unproven, words.Say("the run was stopped before the fault was over")
	case !l.struck():
		l.Verdict, l.Why = Invalid, words.Say("the fault was never seen in effect, so it is unknown how the service handles it (%s); make sure that the fault can take effect, and run the gate again", l.reason())
	case !l.has(recording.FaultReverted):
		l.Verdict, l.Why = Invalid, words.Say("the fault was not reverted, so later results do not show the service alone (%s); revert it by hand before the next measurement", l.reason())
	case l.lasts > 0 && !l.has(recording.FaultHeld):
		l.Verdict, l.Why = Invalid, words.Say("the fault did not stay in effect for the requested time, so the service was not tested as the gate specifies (%s); find out what ended it, and run the gate again", l.reason())
	case !l.has(recording.FaultGone):
		l.Verdict, l.Why = Fail, words.Say("the service never returned to its state before the fault (%s); see its log", l.reason())
	case l.RTOSeconds == nil:
		l.Verdict, l.Why = Unproven, l.noRecovery(e)
	default:
		l.Verdict, l.Why = Pass, l.story()
	}
}

// promises checks the objectives about the fault: if the service recovered but misses
// one of them, the fault has not passed.
func (l *faultLife) promises(e *evidence) {
	for _, o := range e.gate.Objectives {
		if o.Arg != l.Kind || o.Scenario != "" && o.Scenario != l.Scenario || l.Verdict != Pass {
			continue
		}
		if f := e.ofFault(e.finding(o), o, measureOf(o.Metric), l); f.Verdict == Fail {
			l.Verdict, l.broken = Fail, true
			l.Why = words.Say("%s; but missed an objective (%s)", l.Why, o.Source)
		}
	}
}

func (l *faultLife) reason() words.Sentence {
	if l.failed.IsZero() {
		return words.Say("the recording does not say why")
	}
	return l.failed
}

func (l *faultLife) noRecovery(e *evidence) words.Sentence {
	if l.lostProbes {
		return words.Say("probes are missing from the recording, so it is unknown when users were served again")
	}
	if l.probed == 0 {
		return words.Say("no probe was due after the fault; let the scenario run longer after it")
	}
	return words.Say("%d probes were due after the fault, but never were %d in a row answered; let the scenario run longer, or find out why the service does not recover",
		l.probed, e.scenario(l.Scenario).Probe.Consecutive)
}

func (l *faultLife) story() words.Sentence {
	failed, all := l.errorsDuring()
	bad := l.cut + l.bad
	probes := words.Say("users were served throughout")
	switch {
	case bad > 0:
		probes = words.Count(int64(bad), "1 probe failed until users were served again", "%d probes failed until users were served again")
	case l.later > 0:
		probes = words.Count(int64(l.later), "1 probe failed before the fault was gone", "%d probes failed before the fault was gone")
	case failed > 0:
		probes = words.Say("no probe failed")
	}
	if bad > 0 && l.later > 0 {
		probes = words.Say("%s, %s", probes, words.Count(int64(l.later), "1 more failed before the fault was gone", "%d more failed before the fault was gone"))
	}
	story := words.Say("seen in effect and seen gone; %s, and %s", probes, words.Count(l.LostRequests, "1 request under way was lost", "%d requests under way were lost"))
	if failed > l.LostRequests {
		story = words.Say("%s; %d of %d affected requests failed", story, failed, all)
	}
	if l.RPOSeconds != nil {
		return words.Say("%s; %s", story, l.kept.summary())
	}
	return story
}
