package checklist

import (
	"time"

	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/scenarios"
)

// served counts how users were served in one second.
type served struct{ ok, failed int64 }

// serve adds what a request says about the health of the service. A refused request
// does not count as a failure.
func (e *evidence) serve(r *recording.Request) {
	if !e.wantsHealth || r.End == 0 {
		return
	}
	bySecond := e.served[r.Scenario]
	if bySecond == nil {
		bySecond = map[int64]*served{}
		e.served[r.Scenario] = bySecond
	}
	at := int64(r.End / time.Second)
	if bySecond[at] == nil {
		bySecond[at] = &served{}
	}
	switch r.Failure() {
	case "":
		bySecond[at].ok++
	case recording.ErrorLimited, recording.ErrorShed, recording.ErrorNotSent, recording.ErrorCancelled:
	default:
		bySecond[at].failed++
	}
}

// leastServed is how many requests there must be around a health check to contradict
// it.
const leastServed = 3

// falseHealth decides how long the health check said the opposite of what users saw.
func (f *Finding) falseHealth(o scenarios.Objective, e *evidence) {
	var wrong, compared int64
	var total float64
	var example words.Sentence
	var seen []recording.Observation
	for _, obs := range e.rec.Observations {
		if obs.Name == recording.ObsHealth {
			seen = append(seen, obs)
		}
	}
	if len(seen) == 0 {
		f.Waived, f.Why = o.WhereSupported, words.Say("the service has no health check at the usual addresses (/health, /healthz, /livez, /v2/health/ready)")
		return
	}
	for _, name := range scenariosOf(e.gate, o) {
		from, to, ok := e.playedTime(name)
		if !ok {
			continue
		}
		for i, obs := range seen {
			at := obs.At.Seconds()
			if at < from || at > to {
				continue
			}
			var about served
			for second := int64(at) - 1; second <= int64(at)+1; second++ {
				if s := e.served[name][second]; s != nil {
					about.ok, about.failed = about.ok+s.ok, about.failed+s.failed
				}
			}
			if about.ok+about.failed < leastServed {
				continue
			}
			compared++
			well := obs.Value == 1
			if !(well && about.failed >= 9*about.ok || !well && about.failed == 0) {
				continue
			}
			lasts := 1.0
			if i+1 < len(seen) {
				lasts = min(lasts*2, seen[i+1].At.Seconds()-at)
			}
			wrong, total = wrong+1, total+lasts
			if example.IsZero() {
				example = words.Say("at %s it said %s, and of the requests that ended about then %d failed and %d succeeded", show(at, scenarios.UnitSeconds), obs.Text, about.failed, about.ok)
			}
		}
	}
	if compared == 0 {
		f.Why = words.Say("too few requests ended about the times of the %d health checks to be compared with them", len(seen))
		return
	}
	f.Samples = compared
	f.decide(total, o)
	if wrong > 0 {
		f.Why = words.Say("%s: %s", example, f.Why)
	}
}
