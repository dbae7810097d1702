package loadgen

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/scenarios"
)

// A stage is extended, with the due times drawn before, as long as an objective is
// undecided and its budget lasts. Requests after the end do not count as missed.
func TestExtend(t *testing.T) {
	for yes, want := range map[int]time.Duration{0: time.Second, 1: 1500 * time.Millisecond, 2: 2 * time.Second, 99: 3 * time.Second} {
		t.Run(fmt.Sprint(want), func(t *testing.T) {
			t.Parallel()
			s := load(100, time.Second)
			s.Stages[0].Extend = scenarios.Duration(2 * time.Second)
			plan := planOf(s, 3)
			var r recorder
			clock := recording.NewClock()
			start, asked := clock.Now(), 0
			d := Driver{Clock: clock, Client: service(t, 50*time.Millisecond), Share: Whole, Sink: r.sink, Observe: r.observe,
				Undecided: func() bool { asked++; return asked <= yes }}
			if err := d.Drive(t.Context(), s.Name, plan, start); err != nil {
				t.Fatal(err)
			}
			due := plan.before(want)
			if len(r.rows) != due {
				t.Errorf("%d requests are recorded, %d come due in %s", len(r.rows), due, want)
			}
			slices.SortFunc(r.rows, func(a, b recording.Request) int { return int(a.Seq - b.Seq) })
			for i, row := range r.rows {
				if row.Seq != int64(i) || !row.OK() || row.Due != start+plan.Due(i) {
					t.Fatalf("request %d: %+v", i, row)
				}
			}
			ended := slices.IndexFunc(r.seen, func(o recording.Observation) bool { return o.Name == recording.ObsStageEnded })
			if ended < 0 || r.seen[ended].At != start+want || r.seen[ended].Value != float64(due) {
				t.Errorf("the stage's end is told as %+v, want %d requests by %s", r.seen, due, start+want)
			}
			if looks := min(yes+1, Looks); asked != looks {
				t.Errorf("asked %d times, want %d", asked, looks)
			}
		})
	}
}

// The requests of a stage are the same whether or not it may be extended, and a stage
// is extended only if the gate says so.
func TestExtendKeepsTheBeginning(t *testing.T) {
	s := load(100, time.Second)
	short := planOf(s, 3)
	s.Stages[0].Extend = scenarios.Duration(2 * time.Second)
	long := planOf(s, 3)
	if short.Requests() != long.Requests() || short.Duration() != long.Duration() {
		t.Errorf("%d requests in %s, and %d in %s where it may be extended", short.Requests(), short.Duration(), long.Requests(), long.Duration())
	}
	for i := range short.Requests() {
		if short.Due(i) != long.Due(i) {
			t.Fatalf("request %d is due at %s, and at %s where the stage may be extended", i, short.Due(i), long.Due(i))
		}
	}
	var r recorder
	clock := recording.NewClock()
	if err := drivePlan(t.Context(), clock, s, 3, service(t, 0), &r); err != nil {
		t.Fatal(err)
	}
	if len(r.rows) != short.Requests() {
		t.Errorf("%d requests were sent, want %d", len(r.rows), short.Requests())
	}
}
