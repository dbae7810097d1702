package run

import (
	"strings"
	"testing"
	"time"

	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/scenarios"
)

// The budget is exhausted by the share of failures in the window, once. Older failures,
// too few requests, and requests that are not load do not count.
func TestBudget(t *testing.T) {
	stop := &scenarios.Stop{Errors: 0.5, Within: scenarios.Duration(10 * time.Second), Requests: 20}
	request := func(second int, failed bool) *recording.Request {
		r := &recording.Request{Kind: recording.KindLoad, Sent: time.Duration(second)*time.Second + 1, End: time.Duration(second)*time.Second + time.Millisecond}
		if failed {
			r.Error = recording.ErrorStatus
		}
		return r
	}
	for _, tt := range []struct {
		name  string
		burnt bool
		spend func(func(*recording.Request))
	}{
		{"nothing fails", false, func(spend func(*recording.Request)) {
			for i := range 1000 {
				spend(request(i/10, false))
			}
		}},
		{"just half fails", false, func(spend func(*recording.Request)) {
			for i := range 1000 {
				spend(request(i/10, i%2 == 1))
			}
		}},
		{"more than half fails", true, func(spend func(*recording.Request)) {
			for i := range 1000 {
				spend(request(i/10, i%3 != 0))
			}
		}},
		{"all of too few fail", false, func(spend func(*recording.Request)) {
			for i := range 100 {
				spend(request(i, true))
			}
		}},
		{"a bad while in a long run", true, func(spend func(*recording.Request)) {
			for i := range 1000 {
				spend(request(i/10, i > 800 && i < 860))
			}
		}},
		{"a short one", false, func(spend func(*recording.Request)) {
			for i := range 1000 {
				spend(request(i/10, i > 800 && i < 840))
			}
		}},
		{"probes fail", false, func(spend func(*recording.Request)) {
			for i := range 1000 {
				r := request(i/10, true)
				r.Kind = recording.KindProbe
				spend(r)
			}
		}},
		{"they were cancelled", false, func(spend func(*recording.Request)) {
			for i := range 1000 {
				r := request(i/10, true)
				r.Error = recording.ErrorCancelled
				spend(r)
			}
		}},
	} {
		b := newBudget(stop)
		said := 0
		tt.spend(func(r *recording.Request) {
			if err := b.spend(r); err != nil {
				said++
				if !strings.Contains(err.Error(), "at most 50% may fail") {
					t.Errorf("%s: %v", tt.name, err)
				}
			}
		})
		if want := map[bool]int{true: 1}[tt.burnt]; said != want {
			t.Errorf("%s: said %d times, want %d", tt.name, said, want)
		}
	}
	if newBudget(nil).spend(request(1, true)) != nil || newBudget(&scenarios.Stop{Hosts: []string{"a"}}).spend(request(1, true)) != nil {
		t.Error("without a budget, something is burnt")
	}
}
