package checklist

import (
	"math"
	"net/http"
	"slices"
	"time"

	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/scenarios"
)

// records are the writes of a scenario and what its final read found. A write is lost
// if it was acknowledged and is not in the final read. Without a final read nothing
// is known.
type records struct {
	readBack bool
	due      int64 // writes, as the final read says
	written  int64 // writes that are in the recording
	asked    int64 // of them, those for a background response
	refused  int64 // of these, those that a service without them answers so
	refusal  words.Sentence
	acked    []record         // in the order they were
	read     map[int64]string // what is wrong with a record, by its write
	why      map[int64]words.Sentence
}

// record is a write that was acknowledged.
type record struct {
	seq int64
	at  time.Duration // of the acknowledgement
	id  string
}

// durable counts the results of the final read.
type durable struct {
	acked                       int64
	lost, duplicated, truncated int64
	unknown                     int64          // could not be read
	example                     words.Sentence // what is wrong with the first broken record
	oldest, newest              *time.Duration // when the oldest broken record, and the newest of all, was acknowledged
}

func (d durable) broken() int64 { return d.lost + d.duplicated + d.truncated }

func (e *evidence) recordsOf(scenario string) *records {
	r := e.records[scenario]
	if r == nil {
		r = &records{read: map[int64]string{}, why: map[int64]words.Sentence{}}
		e.records[scenario] = r
	}
	return r
}

// write adds a write.
func (r *records) write(w *recording.Request) {
	r.written++
	if w.Class == "" {
		r.asked++
	}
	switch {
	case w.OK() && w.End > 0 && w.Record != "":
		r.acked = append(r.acked, record{w.Seq, w.End, w.Record})
	case w.Class == "" && (w.Error == recording.ErrorProtocol || slices.Contains(hasNoSuchThing, int(w.Status))):
		r.refused++
		r.refusal = w.Why()
	}
}

// hasNoSuchThing are the errors by which a service refuses an API that it lacks.
var hasNoSuchThing = []int{http.StatusBadRequest, http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusUnprocessableEntity, http.StatusNotImplemented}

// unsupported reports whether the service has no background responses: it accepted
// none, and refused each with one of hasNoSuchThing.
func (r *records) unsupported() bool {
	return r.readBack && r.written >= r.due && r.refused > 0 && r.refused == r.asked
}

// until is the state of the records that were acknowledged before a time. Of several
// with one id, all but the first are duplicates.
func (r *records) until(end time.Duration) (d durable) {
	seen := map[string]bool{}
	for _, a := range r.acked {
		if a.at > end {
			break
		}
		d.acked++
		d.newest = new(a.at)
		found, read := r.read[a.seq]
		twice := seen[a.id]
		seen[a.id] = true
		switch {
		case twice: // one of the two has to find the other in its place
			d.duplicated++
		case found == recording.ErrorGone:
			d.lost++
		case found == recording.ErrorTruncated:
			d.truncated++
		case !read || found != "":
			d.unknown++
			continue
		default:
			continue
		}
		if d.example.IsZero() {
			d.example = r.why[a.seq]
		}
		if d.oldest == nil {
			d.oldest = new(a.at)
		}
	}
	return d
}

// summary is what was found, in words.
func (d durable) summary() words.Sentence {
	if d.broken() == 0 {
		return words.Count(d.acked, "1 record was acknowledged and read back", "%d records were acknowledged and read back")
	}
	return words.Say("%d acknowledged records: %d lost, %d duplicated, %d truncated", d.acked, d.lost, d.duplicated, d.truncated)
}

// doubt is the reason why the records prove nothing.
func (r *records) doubt(d durable) words.Sentence {
	switch {
	case r.unsupported():
		return words.Say("the service has no background responses (%s), so it has nothing to lose; remove durability from the gate, or end the objective with where supported", r.refusal)
	case !r.readBack:
		return words.Say("not all records were read back, so the loss is unknown, not zero")
	case r.written < r.due:
		return words.Say("%d of %d writes are missing from the recording, and they may be among the lost ones; run the gate again", r.due-r.written, r.due)
	case d.acked == 0:
		return words.Say("no write was acknowledged, so nothing could be lost; find out why the service accepts no writes")
	case d.unknown > 0:
		return words.Say("%d of %d acknowledged records could not be read or were incomplete at the end, so it is unknown whether they are lost; give the final read more time (within), or find out why the service does not answer", d.unknown, d.acked)
	}
	return words.Sentence{}
}

// lostWrites decides how many acknowledged records are broken, in all of the
// scenarios that write some.
func (f *Finding) lostWrites(o scenarios.Objective, e *evidence) {
	var all durable
	var doubts []words.Sentence
	writers := 0
	waived := o.WhereSupported
	for _, s := range e.gate.Scenarios {
		if s.Durability == nil || o.Scenario != "" && o.Scenario != s.Name {
			continue
		}
		writers++
		r := e.recordsOf(s.Name)
		d := r.until(math.MaxInt64)
		all.acked += d.acked
		all.lost, all.duplicated, all.truncated = all.lost+d.lost, all.duplicated+d.duplicated, all.truncated+d.truncated
		if all.example.IsZero() {
			all.example = d.example
		}
		waived = waived && r.unsupported()
		if why := r.doubt(d); !why.IsZero() {
			doubts = append(doubts, why)
		}
	}
	if writers == 0 {
		f.Why = words.Say("no scenario writes records; add durability: {} to one")
		return
	}
	f.Samples = all.acked
	worst := Finding{Unit: f.Unit}
	worst.decide(float64(all.broken()), o)
	if len(doubts) > 0 && worst.Verdict == Pass {
		f.Why, f.Waived = doubts[0], waived
		return
	}
	f.Value, f.Verdict, f.Why = worst.Value, worst.Verdict, words.Say("%s: %s", all.summary(), worst.Why)
	if !all.example.IsZero() {
		f.Why = words.Say("%s; for example, %s", f.Why, all.example)
	}
}

// keep finds the records that the fault lost, of those acknowledged before it was
// gone. If several faults could have lost a record, it counts for each of them.
func (l *faultLife) keep(e *evidence) {
	r := e.records[l.Scenario]
	if r == nil || !l.struck() || !l.has(recording.FaultGone) {
		return
	}
	l.kept = r.until(l.at[recording.FaultGone])
	if !r.doubt(l.kept).IsZero() {
		return
	}
	if l.kept.oldest != nil {
		l.RPOSeconds = new(l.before(*l.kept.oldest))
	} else if r.until(l.at[recording.FaultInjected]).acked > 0 {
		l.RPOSeconds = new(float64(0))
	}
}

// before is how long before the fault a moment was, in seconds; none after it.
func (l *faultLife) before(at time.Duration) float64 {
	return max(0, (l.at[recording.FaultInjected] - at).Seconds())
}

// recoveryPoint decides an RPO. A loss that is shorter than the age of the newest
// record at the fault cannot be seen: if the last write was an hour ago, nothing is
// known about the last minute.
func (f *Finding) recoveryPoint(o scenarios.Objective, l *faultLife, e *evidence) {
	r := e.records[l.Scenario]
	if s := e.scenario(l.Scenario); r == nil || s == nil || s.Durability == nil {
		f.Samples, f.Why = 0, words.Say("no scenario writes records; add durability: {} to one")
		return
	}
	f.Samples = l.kept.acked
	if l.kept.oldest != nil {
		f.decide(l.before(*l.kept.oldest), o)
		f.Why = words.Say("%s: %s", l.kept.summary(), f.Why)
		if f.Verdict == Fail {
			return
		}
	}
	atRisk := r.until(l.at[recording.FaultInjected])
	why := r.doubt(l.kept)
	switch {
	case !l.has(recording.FaultGone):
		why = words.Say("the fault was not seen gone, so its final loss is unknown")
	case !why.IsZero():
	case atRisk.acked == 0:
		why = words.Say("no record had been acknowledged when the fault took effect, so there was nothing to lose; inject it later, or write more often")
	default:
		f.Bound = new(l.before(*atRisk.newest))
		if f.Value != nil {
			f.Bound = new(max(*f.Bound, *f.Value))
		}
		if !Holds(*f.Bound, o) {
			why = words.Say("the newest record was %s old when the fault took effect, so a shorter loss cannot be measured; write more often (every)", show(*f.Bound, o.Unit))
		}
	}
	if !why.IsZero() {
		f.Verdict, f.Value, f.Why = Unproven, nil, why
		return
	}
	if l.kept.oldest == nil {
		f.decide(0, o)
		f.Why = words.Say("%s: %s", l.kept.summary(), f.Why)
	}
}
