package checklist

import (
	"cmp"
	"slices"
	"time"

	"github.com/launchgate/launchgate/internal/recording"
)

// Blast is how far a fault reached: what became of the requests that met it, by
// the replica that answered and by the class (a tenant, where classes have keys
// of their own).
type Blast struct {
	Seconds float64 `json:"seconds"` // for which the fault counted
	// SlowerThan is the p99, of those who met no fault in the same scenario, of
	// the time to the first token (of answers that came whole, to the end); nil
	// where they are too few to tell.
	SlowerThan *float64 `json:"slower_than_seconds"`
	BlastPart
	Replicas []BlastPart `json:"replicas"`
	Classes  []BlastPart `json:"classes"`
}

// BlastPart are the requests of a replica or a class that met a fault.
type BlastPart struct {
	Name     string `json:"name,omitempty"` // empty: nobody is told to have answered
	Requests int64  `json:"requests"`
	Failed   int64  `json:"failed"`
	Slowed   *int64 `json:"slowed"` // nil: not known
	Retried  int64  `json:"retried"`
}

// leastCalm is how many requests have to have met no fault for their p99 to say
// what is slow.
const leastCalm = 100

// response is how long a successful request was waited for.
func response(r *recording.Request) float64 {
	if r.FirstToken > 0 {
		return (r.FirstToken - r.Due).Seconds()
	}
	return (r.End - r.Due).Seconds()
}

// tellBlast sums up what became of those who met the fault.
func (l *faultLife) tellBlast(calm *values) {
	if !l.struck() {
		return
	}
	b := &Blast{Replicas: []BlastPart{}, Classes: []BlastPart{}}
	if calm != nil && calm.n() >= leastCalm {
		b.SlowerThan, b.Slowed = new(calm.quantile(0.99)), new(int64)
	}
	part := func(parts *[]BlastPart, name string) *BlastPart {
		i := slices.IndexFunc(*parts, func(p BlastPart) bool { return p.Name == name })
		if i < 0 {
			i = len(*parts)
			*parts = append(*parts, BlastPart{Name: name})
			if b.Slowed != nil {
				(*parts)[i].Slowed = new(int64)
			}
		}
		return &(*parts)[i]
	}
	until, last := l.until(), l.at[recording.FaultInjected]
	for _, r := range l.met {
		if r.due > until {
			continue
		}
		last = max(last, r.due)
		for _, p := range []*BlastPart{&b.BlastPart, part(&b.Replicas, r.replica), part(&b.Classes, r.class)} {
			p.Requests++
			if !r.ok {
				p.Failed++
			}
			if r.retried {
				p.Retried++
			}
			if r.ok && p.Slowed != nil && r.response > *b.SlowerThan {
				*p.Slowed++
			}
		}
	}
	b.Seconds = (min(until, max(last, l.at[recording.FaultInEffect])) - l.at[recording.FaultInjected]).Seconds()
	byName := func(a, b BlastPart) int { return cmp.Compare(a.Name, b.Name) }
	slices.SortFunc(b.Replicas, byName)
	slices.SortFunc(b.Classes, byName)
	l.Blast = b
}

// lifetime is a load request that may have met the fault.
type lifetime struct {
	due            time.Duration
	ok, retried    bool
	replica, class string
	response       float64 // seconds, of one that succeeded
}
