package checklist

import (
	"strings"
	"testing"
	"time"

	"github.com/launchgate/launchgate/internal/recording"
)

// The finding of a fault that is injected once says so. If a fault is injected several
// times, the worst one counts, with the lower bound of the share that meets the
// objective. If one of them was never seen in effect, the run is invalid.
func TestAFaultThatRepeats(t *testing.T) {
	struck := func(w *world, times int, drop func(i int, state string) bool) {
		once := w.injections
		for i := 1; i < times; i++ {
			for _, in := range once {
				in.ID = "steady/" + string(rune('0'+i))
				in.At += time.Duration(i) * 4 * time.Second
				if !drop(i, in.State) {
					w.injections = append(w.injections, in)
				}
			}
		}
		w.gate.Scenarios[0].Faults[0].Repeat = times
	}
	for _, tt := range []struct {
		name, promise string
		times         int
		spoil         func(w *world)
		drop          func(i int, state string) bool
		want          Outcome
		samples       int64
		says          string
	}{
		{"once", "rto(pod-kill) < 1s", 1, nil, nil, Pass, 1, "(seen once)"},
		{"three times", "rto(pod-kill) < 1s", 3, nil, nil, Pass, 3, "(the worst of 3; with 99 % confidence, at least 21.5 % of such faults meet it)"},
		{"what was under way is lost of one", "lost(pod-kill) == 0", 3, func(w *world) {
			for _, r := range w.loads() {
				if r.Due < injectedAt+8*time.Second && r.End > injectedAt+8*time.Second {
					breakOff(r)
				}
			}
		}, nil, Fail, 3, "(the worst of 3)"},
		{"one did not strike", "rto(pod-kill) < 1s", 3, nil, func(i int, state string) bool { return i == 2 && state != recording.FaultDeclared }, Invalid, 0, "was never seen in effect"},
	} {
		w := healthy(t, tt.promise).withFault()
		if tt.spoil != nil {
			tt.spoil(w)
		}
		if tt.drop == nil {
			tt.drop = func(int, string) bool { return false }
		}
		struck(w, tt.times, tt.drop)
		v := w.judge(t)
		f := v.Objectives[0]
		if f.Verdict != tt.want || f.Samples != tt.samples || !strings.Contains(f.Why.String(), tt.says) {
			t.Errorf("%s: %s of %d: %s; want %s of %d, saying %q", tt.name, f.Verdict, f.Samples, f.Why, tt.want, tt.samples, tt.says)
		}
		if len(v.Faults) != tt.times {
			t.Errorf("%s: %d faults are told, want %d", tt.name, len(v.Faults), tt.times)
		}
	}
}
