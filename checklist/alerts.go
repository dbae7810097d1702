package checklist

import (
	"slices"
	"strings"
	"time"

	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/scenarios"
)

// An alert drill asks for two things: that the right alert fires in time (alert),
// and that no other does (alerts).

// alerts decides how many different alerts fired.
func (f *Finding) alerts(o scenarios.Objective, e *evidence) {
	if _, why := e.knownAlerts(); !why.IsZero() {
		f.Why = why
		return
	}
	f.Samples = 1
	names := e.fired(e.scenarioTime(o.Scenario))
	f.decide(float64(len(names)), o)
	if len(names) > 0 {
		f.Why = words.Say("%s (%s)", f.Why, strings.Join(names, ", "))
	}
}

// alert decides how soon an alert fired.
func (f *Finding) alert(o scenarios.Objective, e *evidence) {
	known, why := e.knownAlerts()
	if !why.IsZero() {
		f.Why = why
		return
	}
	from, to := e.scenarioTime(o.Scenario)
	f.Samples = 1
	if !slices.Contains(known, o.Arg) {
		f.Samples, f.Why = 0, words.Say("no rule defines an alert named %s; the rules define %s", o.Arg, strings.Join(known, ", "))
		return
	}
	from, why = e.provoked(o.Scenario, from)
	if !why.IsZero() {
		f.Samples, f.Why = 0, why
		return
	}
	if slices.Contains(e.fired(from, from), o.Arg) {
		f.Verdict, f.Why = Fail, words.Say("%s had already fired before, so it does not show this fault", o.Arg)
		return
	}
	for _, seen := range e.rec.Observations {
		if seen.Name == recording.ObsAlert && seen.Subject == o.Arg && seen.Value == 1 && seen.At >= from && seen.At <= to {
			f.decide((seen.At - from).Seconds(), o)
			return
		}
	}
	if watched := (to - from).Seconds(); !atLeast(o) && !Holds(watched, o) {
		f.Verdict, f.Why = Fail, words.Say("%s had not fired %s later, and must be %s", o.Arg, show(watched, o.Unit), must(o))
		return
	}
	f.Samples, f.Why = 0, words.Say("%s had not fired when the scenario ended, %s later; play it for longer", o.Arg, show((to-from).Seconds(), o.Unit))
}

// Alert is an alert that fired during the run. Times are seconds on the run's
// clock.
type Alert struct {
	Name    string   `json:"name"`
	FiredAt float64  `json:"fired_at"`
	EndedAt *float64 `json:"ended_at"` // nil: it fired to the end
	// Fault is the last fault of the scenario that was seen in effect before the
	// alert fired, and AfterSeconds is the time between the two.
	Fault        string   `json:"fault"`
	AfterSeconds *float64 `json:"after_seconds"`
}

// alerts are the alerts that fired, in that order; nil if nothing monitored the
// service.
func (e *evidence) alerts() []Alert {
	if _, why := e.knownAlerts(); !why.IsZero() {
		return nil
	}
	all := []Alert{}
	for _, seen := range e.rec.Observations {
		if seen.Name != recording.ObsAlert {
			continue
		}
		if seen.Value == 1 {
			a := Alert{Name: seen.Subject, FiredAt: seen.At.Seconds()}
			if l := e.cause(seen.At); l != nil {
				a.Fault, a.AfterSeconds = l.ID, new((seen.At - l.at[recording.FaultInEffect]).Seconds())
			}
			all = append(all, a)
			continue
		}
		for i := range all {
			if all[i].Name == seen.Subject && all[i].EndedAt == nil {
				all[i].EndedAt = new(seen.At.Seconds())
			}
		}
	}
	return all
}

// cause is the fault that was last seen in effect before a time, in the scenario
// that was played at that time; nil if there is none.
func (e *evidence) cause(at time.Duration) (last *faultLife) {
	for _, l := range e.faults {
		from, to := e.scenarioTime(l.Scenario)
		if effect := l.at[recording.FaultInEffect]; l.struck() && from <= at && (at <= to || to == 0) && effect <= at &&
			(last == nil || effect >= last.at[recording.FaultInEffect]) {
			last = l
		}
	}
	return last
}

// knownAlerts are the alerts that can fire, or the reason why they are not known.
func (e *evidence) knownAlerts() (names []string, why words.Sentence) {
	for _, seen := range e.rec.Observations {
		if seen.Name != recording.ObsMonitoring {
			continue
		}
		if seen.Value == 1 && len(seen.Names) == 0 { // of a recording before Names
			return strings.Split(seen.Text.String(), ", "), words.Sentence{}
		}
		if seen.Value == 1 {
			return seen.Names, words.Sentence{}
		}
		why = words.Say("the service was not monitored: %s", seen.Text)
	}
	if why.IsZero() {
		why = words.Say("the service was not monitored: launchgate monitors only a target.local")
	}
	return nil, why
}

// scenarioTime is from when to when a scenario was played, or all of them.
func (e *evidence) scenarioTime(scenario string) (from, to time.Duration) {
	begun := false
	for _, seen := range e.rec.Observations {
		if scenario != "" && seen.Subject != scenario {
			continue
		}
		switch seen.Name {
		case recording.ObsScenarioStarted:
			if !begun {
				from, begun = seen.At, true
			}
		case recording.ObsScenarioEnded:
			to = seen.At
		}
	}
	return from, to
}

// provoked is the time from which an alert is expected: when the first fault took
// effect or, in a scenario without faults, its start.
func (e *evidence) provoked(scenario string, start time.Duration) (at time.Duration, why words.Sentence) {
	at = -1
	declared := false
	for _, l := range e.faults {
		if scenario != "" && l.Scenario != scenario {
			continue
		}
		declared = true
		if !l.struck() {
			why = l.Why
		} else if effect := l.at[recording.FaultInEffect]; at < 0 || effect < at {
			at = effect
		}
	}
	switch {
	case !declared:
		return start, words.Sentence{}
	case at >= 0:
		return at, words.Sentence{}
	}
	return start, why
}

// fired are the alerts that fired at any time between two times, in that order.
func (e *evidence) fired(from, to time.Duration) (names []string) {
	last := map[string]float64{}
	var order []string
	for _, seen := range e.rec.Observations {
		if seen.Name != recording.ObsAlert || seen.At > to {
			continue
		}
		if seen.At <= from {
			last[seen.Subject] = seen.Value
		} else if seen.Value == 1 {
			last[seen.Subject] = 1
		}
		if !slices.Contains(order, seen.Subject) {
			order = append(order, seen.Subject)
		}
	}
	for _, name := range order {
		if last[name] == 1 {
			names = append(names, name)
		}
	}
	return names
}
