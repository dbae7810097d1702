package run

import (
	"context"
	"strings"
	"sync"
	"time"

	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/loadgen"
	"github.com/launchgate/launchgate/loadgen/twins"
	"github.com/launchgate/launchgate/scenarios"
)

// tellEvery is the interval of progress reports.
const tellEvery = 200 * time.Millisecond

// Progress is what a person sees of the run: a line that stays, or the progress of the
// current scenario.
type Progress struct {
	Line words.Sentence
	// Detail: it is one of many such lines.
	Detail bool
	Live   *Live
}

// Live is the progress of a scenario.
type Live struct {
	Scenario       string
	Elapsed, Total time.Duration
	Due            int // load requests that are due by now, of those with a due time in the plan
	Done, Planned  int // load requests
	Errors         int
	Fault          words.Sentence // the last step of a fault, if there was one
	Left           time.Duration  // of the load of this scenario and those after it, by the plan
}

func (c *conductor) say(p words.Phrase, args ...any) {
	c.Tell(Progress{Line: words.Say(p, args...)})
}

// watched records what a scenario does and keeps count of it for Progress.
type watched struct {
	*conductor
	scenario scenarios.Scenario
	plan     *loadgen.Plan
	started  time.Time
	twins    *twins.Asker  // nil if the scenario has none
	after    time.Duration // of the load of the scenarios after this one

	mu   sync.Mutex
	live Live
}

func (w *watched) request(r recording.Request) {
	if err := w.budget.spend(&r); err != nil {
		w.harm.Store(&err)
		w.say("%s", err)
		w.abort(err)
	}
	w.rec.Request(r)
	if w.twins != nil {
		w.twins.Saw(r)
	}
	if r.Kind != recording.KindLoad {
		return
	}
	w.mu.Lock()
	w.live.Done++
	if !r.OK() {
		w.live.Errors++
	}
	w.mu.Unlock()
	if !r.OK() {
		w.Tell(Progress{Detail: true, Line: words.Say("  %s/%s: request %d failed after %.3f s: %s", r.Scenario, r.Stage, r.Seq, (r.End - r.Due).Seconds(), r.Why())})
	}
}

func (w *watched) injection(i recording.Injection) {
	w.rec.Inject(i)
	w.mu.Lock()
	w.live.Fault = words.Say("%s: %s", i.Kind, step(i.State))
	w.mu.Unlock()
	if i.State != recording.FaultDeclared {
		name := strings.TrimSpace(i.Kind + " " + i.Target) // some kinds have no named target
		w.say("  %s: %s: %s", name, step(i.State), i.Text)
	}
}

// step words a step of a fault's life.
func step(state string) words.Sentence {
	switch state {
	case recording.FaultDeclared:
		return words.Say("declared")
	case recording.FaultInjected:
		return words.Say("injected")
	case recording.FaultInEffect:
		return words.Say("in effect")
	case recording.FaultHeld:
		return words.Say("held")
	case recording.FaultReverted:
		return words.Say("reverted")
	case recording.FaultGone:
		return words.Say("gone")
	}
	return words.Say("failed")
}

// tell reports the progress of the scenario until ctx ends.
func (w *watched) tell(ctx context.Context) {
	for {
		w.mu.Lock()
		live := w.live
		w.mu.Unlock()
		live.Scenario, live.Elapsed, live.Total, live.Planned = w.scenario.Name, time.Since(w.started), w.plan.Duration(), w.plan.Requests()
		live.Due = w.plan.DueBy(live.Elapsed)
		live.Left = max(0, live.Total-live.Elapsed) + w.after
		w.Tell(Progress{Live: &live})
		select {
		case <-ctx.Done():
			return
		case <-time.After(tellEvery):
		}
	}
}

// loadAfter is how long the load of the scenarios after this one lasts, of those that are
// played.
func (c *conductor) loadAfter(s scenarios.Scenario) (left time.Duration) {
	after := false
	for _, other := range c.Gate.Scenarios {
		if after && c.Gate.Plays(other.Name, c.Focus) {
			left += other.Duration()
		}
		after = after || other.Name == s.Name
	}
	return left
}
