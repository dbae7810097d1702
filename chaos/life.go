package chaos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/launchgate/launchgate/deploy"
	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/scenarios"
)

const (
	revertGrace = 15 * time.Second // bounds the revert of a fault, also when the run was stopped
	revertEvery = 200 * time.Millisecond
)

// Player plays the faults of a run. Record is given their steps as they happen,
// from several goroutines.
type Player struct {
	Clock   recording.Clock
	Target  deploy.Target
	Journal *Journal
	Record  func(recording.Injection)
}

// Play plays the faults of a scenario at their times and returns when all are over.
// It records errors and does not return them: that a fault could not be injected is
// a fact about the run, which the judge interprets.
//
//	declared → injected → in_effect → held → reverted → gone
//	    └──────────┴───────────┴────────┴────────┴──▶ failed (Text: the step and why)
//
// Whatever was injected is reverted, also when ctx ends in between.
func (p Player) Play(ctx context.Context, scenario scenarios.Scenario, seed uint64) {
	started := time.Now()
	var lives sync.WaitGroup
	var previous chan struct{}
	for i, f := range scenario.Strikes() {
		id := fmt.Sprintf("%s/%d", scenario.Name, i)
		l := &life{
			Player: p, fault: f, seed: seed + uint64(i), started: started, ends: started.Add(scenario.Duration()),
			line: recording.Injection{ID: id, Scenario: scenario.Name, Kind: f.Kind, Target: f.Target},
			over: make(chan struct{}),
		}
		if f.After == scenarios.AfterPrevious {
			l.after = previous
		}
		previous = l.over
		lives.Go(func() {
			defer close(l.over)
			l.live(ctx)
		})
	}
	lives.Wait()
}

// life is one fault on its way through the states.
type life struct {
	Player
	fault   scenarios.Fault
	kind    Kind // once it was prepared
	seed    uint64
	started time.Time           // of the scenario
	ends    time.Time           // of its load
	struck  time.Time           // when it was seen in effect
	line    recording.Injection // what every line of this fault has in common
	after   <-chan struct{}     // closed when the fault is over that this one comes after; nil: none
	over    chan struct{}       // closed when this one is
}

func (l *life) live(ctx context.Context) {
	at := l.moment()
	due := words.Say("due %s into the scenario", at)
	if l.after != nil {
		due = words.Say("due %s after the end of the previous fault", at)
	}
	l.step(recording.FaultDeclared, sight{How: due})
	f, err := l.prepare(ctx, at)
	if err != nil {
		l.failed(words.Say("not injected"), err)
		return
	}
	l.line.Target = f.Victim()
	m := newMachine(f, l.line.ID, l.line.Kind, l.Journal)
	seen, err := m.inject(ctx)
	if err != nil {
		l.failed(words.Say("not injected"), err)
		l.revert(ctx, m)
		return
	}
	l.step(recording.FaultInjected, seen)
	good := l.waitFor(ctx, recording.FaultInEffect, m.seeInEffect) && l.hold(ctx, m)
	if l.revert(ctx, m) && good {
		l.waitFor(ctx, recording.FaultGone, m.seeGone)
	}
}

// moment is when the fault is due: the same for the same seed, where it is
// drawn.
func (l *life) moment() time.Duration {
	at := time.Duration(l.fault.At)
	if wide := time.Duration(l.fault.Latest) - at; wide > 0 {
		at += time.Duration(rand.New(rand.NewPCG(l.seed, 0)).Float64() * float64(wide)).Truncate(time.Millisecond)
	}
	return at
}

// prepare waits for the fault's time, and finds its victim.
func (l *life) prepare(ctx context.Context, at time.Duration) (fault, error) {
	kind, err := kindOf(l.fault.Kind)
	if err != nil {
		return nil, err
	}
	l.kind = kind
	from := l.started
	if l.after != nil {
		select {
		case <-l.after:
			from = time.Now()
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if err := sleep(ctx, time.Until(from.Add(at))); err != nil {
		return nil, err
	}
	if err := l.Target.Lacks(kind.ask.capability, l.fault); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Duration(l.fault.Within))
	defer cancel()
	var victim deploy.Victim
	if kind.Replica || kind.Device && l.fault.Target != "" {
		if victim, err = chooseVictim(ctx, l.Target, l.fault, l.seed); err != nil {
			return nil, err
		}
	}
	return kind.ask.prepare(ctx, l.Target, victim, l.fault)
}

// hold keeps the fault in effect for the time that the gate gives, and checks at the
// end that it still is. A node that is lost for good is held until the load ends. A
// fault that is over at once, such as a kill, is not held.
func (l *life) hold(ctx context.Context, m *machine) bool {
	until := l.struck.Add(time.Duration(l.fault.For))
	if l.fault.For == 0 && l.kind.UntilLoadEnds {
		until = l.ends
	} else if l.fault.For == 0 {
		return true
	}
	if err := sleep(ctx, time.Until(until)); err != nil {
		l.failed(words.Say("not held to the end"), err)
		return false
	}
	return l.waitFor(ctx, recording.FaultHeld, func(ctx context.Context) (sight, error) {
		seen, err := m.hold(ctx)
		seen.At, seen.How = time.Time{}, words.Say("held for %s and still in effect: %s", time.Since(l.struck).Round(time.Millisecond), seen.How)
		return seen, err
	})
}

// revert undoes the fault, also when the run was stopped meanwhile, and tries again
// if that fails. After a failed injection it records nothing, unless it fails too.
func (l *life) revert(ctx context.Context, m *machine) bool {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), revertGrace)
	defer cancel()
	half := m.state == recording.FaultDeclared
	for m.dirty {
		seen, err := m.revert(ctx)
		if err == nil && !half {
			l.step(recording.FaultReverted, seen)
		}
		if err != nil && (!m.dirty || sleep(ctx, revertEvery) != nil) {
			l.failed(words.Say("not reverted"), err)
			return false
		}
	}
	return true
}

// waitFor waits until the next state is seen, at most for the fault's within.
func (l *life) waitFor(ctx context.Context, state string, see func(context.Context) (sight, error)) bool {
	within := time.Duration(l.fault.Within)
	limited, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	seen, err := see(limited)
	if err != nil {
		if errors.Is(err, context.DeadlineExceeded) {
			err = words.Errorf("not within %s: %s", within, err)
		}
		l.failed(neverSeen(state), err)
		return false
	}
	if seen.At.IsZero() {
		seen.At = time.Now()
	}
	if state == recording.FaultInEffect {
		l.struck = seen.At
	}
	l.step(state, seen)
	return true
}

// neverSeen names the step that failed when a state was never seen.
func neverSeen(state string) words.Sentence {
	switch state {
	case recording.FaultInEffect:
		return words.Say("never seen in effect")
	case recording.FaultHeld:
		return words.Say("did not stay in effect to the end")
	}
	return words.Say("never seen gone")
}

func (l *life) failed(step words.Sentence, err error) {
	if errors.Is(err, context.Canceled) {
		err = words.Errorf("the run was stopped")
	}
	line := l.line
	line.Text = words.Say("%s: %s", step, err)
	var lack deploy.Lack
	if errors.As(err, &lack) {
		line.Unsupported, line.Text = true, unsupported(lack)
	}
	l.record(line, recording.FaultFailed, time.Time{})
}

func (l *life) step(state string, seen sight) {
	line := l.line
	line.Text = seen.How
	l.record(line, state, seen.At)
}

// record records a step that was seen at a time; the zero time is now.
func (l *life) record(line recording.Injection, state string, at time.Time) {
	line.State, line.At = state, l.Clock.Now()
	if !at.IsZero() {
		line.At = l.Clock.At(at)
	}
	l.Record(line)
}

func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
