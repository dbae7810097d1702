package checklist

import (
	"cmp"
	"math"
	"slices"
	"time"

	"github.com/launchgate/launchgate/internal/recording"
)

// Blast is the blast radius of a fault: how the requests that met it ended, by the
// replica that answered and by class. If classes have keys of their own, a class is
// a tenant.
type Blast struct {
	Seconds float64 `json:"seconds"` // for which the fault counted
	// SlowerThan is the p99 of the time to first token (to the end, for answers that
	// are not streamed) of the requests that met no fault in the same scenario; nil if
	// there are too few of them.
	SlowerThan *float64 `json:"slower_than_seconds"`
	BlastPart
	Replicas []BlastPart `json:"replicas"`
	Classes  []BlastPart `json:"classes"`
	// Steps are intervals of StepSeconds each, by when requests were due. A step is a
	// second, unless the fault counted for more than maxSteps seconds. Steps in which
	// nothing failed, was slowed or was retried are left out.
	StepSeconds int64       `json:"step_seconds"`
	Steps       []BlastStep `json:"steps"`
}

// BlastStep are the requests of a replica and a class that were due in a step.
type BlastStep struct {
	From     int64  `json:"from"` // seconds since the injection; less for those under way then
	Replica  string `json:"replica,omitempty"`
	Class    string `json:"class,omitempty"`
	Requests int64  `json:"requests"`
	Failed   int64  `json:"failed"`
	Slowed   *int64 `json:"slowed"`
	Retried  int64  `json:"retried"`
}

// maxSteps keeps the reach of a fault that lasts for hours short enough to read.
const maxSteps = 600

// BlastPart are the requests of a replica or a class that met a fault.
type BlastPart struct {
	Name     string `json:"name,omitempty"` // empty: the answering replica is not known
	Requests int64  `json:"requests"`
	Failed   int64  `json:"failed"`
	Slowed   *int64 `json:"slowed"` // nil: not known
	Retried  int64  `json:"retried"`
}

// leastCalm is the fewest requests without a fault whose p99 defines what is slow.
const leastCalm = 100

// tellBlast sums up how the requests that met the fault ended.
func (l *faultLife) tellBlast(calm *values) {
	if !l.struck() {
		return
	}
	b := &Blast{Replicas: []BlastPart{}, Classes: []BlastPart{}, StepSeconds: 1, Steps: []BlastStep{}}
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
	injected, until := l.at[recording.FaultInjected], l.until()
	last := injected
	for _, r := range l.met {
		if r.due <= until {
			last = max(last, r.due)
		}
	}
	b.Seconds = (min(until, max(last, l.at[recording.FaultInEffect])) - injected).Seconds()
	for b.Seconds > float64(maxSteps*b.StepSeconds) {
		b.StepSeconds *= 2
	}
	steps := map[BlastStep]*BlastPart{} // by their names
	for _, r := range l.met {
		if r.due > until {
			continue
		}
		step := BlastStep{From: int64(math.Floor((r.due-injected).Seconds()/float64(b.StepSeconds))) * b.StepSeconds, Replica: r.replica, Class: r.class}
		if steps[step] == nil {
			steps[step] = &BlastPart{}
			if b.Slowed != nil {
				steps[step].Slowed = new(int64)
			}
		}
		for _, p := range []*BlastPart{&b.BlastPart, part(&b.Replicas, r.replica), part(&b.Classes, r.class), steps[step]} {
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
	for step, p := range steps {
		if p.Failed > 0 || p.Retried > 0 || p.Slowed != nil && *p.Slowed > 0 {
			step.Requests, step.Failed, step.Slowed, step.Retried = p.Requests, p.Failed, p.Slowed, p.Retried
			b.Steps = append(b.Steps, step)
		}
	}
	slices.SortFunc(b.Steps, func(a, b BlastStep) int {
		return cmp.Or(cmp.Compare(a.From, b.From), cmp.Compare(a.Replica, b.Replica), cmp.Compare(a.Class, b.Class))
	})
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
