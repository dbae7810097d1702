package chaos

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/scenarios"
)

// revertGrace bounds the revert of a fault when the run was already stopped.
const revertGrace = 15 * time.Second

// sight is what was seen and when; a zero time means now.
type sight struct {
	at  time.Time
	how string
}

// Play lives the faults of a scenario, each in its own time, and returns when
// every one is over. Its steps are given to record as they happen. Errors are
// not returned but recorded: a fault that could not be injected is a fact
// about the run, and the judge says what it means.
//
//	declared → injected → in_effect → reverted → gone
//	    └──────────┴───────────┴─────────┴──▶ failed (Text: the step and why)
//
// Whatever was injected is reverted, also when ctx ends in between.
func Play(ctx context.Context, clock recording.Clock, scenario scenarios.Scenario, target any, seed uint64, record func(recording.Injection)) {
	started := time.Now()
	var lives sync.WaitGroup
	for i, f := range scenario.Faults {
		l := &life{
			clock: clock, fault: f, target: target, seed: seed + uint64(i), record: record,
			line: recording.Injection{ID: fmt.Sprintf("%s/%d", scenario.Name, i), Scenario: scenario.Name, Kind: f.Kind, Target: f.Target},
		}
		lives.Go(func() { l.live(ctx, started) })
	}
	lives.Wait()
}

// life is one fault on its way through the states.
type life struct {
	clock  recording.Clock
	fault  scenarios.Fault
	target any
	seed   uint64
	record func(recording.Injection)
	line   recording.Injection // what every line of this fault has in common
}

func (l *life) live(ctx context.Context, started time.Time) {
	l.step(recording.FaultDeclared, sight{how: fmt.Sprintf("due %s into the scenario", time.Duration(l.fault.At))})
	f, err := l.prepare(ctx, started)
	if err != nil {
		l.failed("not injected", err)
		return
	}
	l.line.Target = f.Victim()
	seen, err := f.Inject(ctx)
	if err != nil {
		l.failed("not injected", err)
		return
	}
	l.step(recording.FaultInjected, seen)
	if !l.waitFor(ctx, recording.FaultInEffect, f.SeeInEffect) {
		l.revert(ctx, f)
		return
	}
	if l.revert(ctx, f) {
		l.waitFor(ctx, recording.FaultGone, f.SeeGone)
	}
}

// prepare waits for the fault's time, and finds its victim.
func (l *life) prepare(ctx context.Context, started time.Time) (fault, error) {
	kind, err := kindOf(l.fault.Kind)
	if err != nil {
		return nil, err
	}
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-time.After(time.Until(started.Add(time.Duration(l.fault.At)))):
	}
	ctx, cancel := context.WithTimeout(ctx, time.Duration(l.fault.Within))
	defer cancel()
	return kind.prepare(ctx, l.target, l.fault, l.seed)
}

// revert undoes the fault, even when the run was stopped meanwhile.
func (l *life) revert(ctx context.Context, f fault) bool {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), revertGrace)
	defer cancel()
	seen, err := f.Revert(ctx)
	if err != nil {
		l.failed("not reverted", err)
		return false
	}
	l.step(recording.FaultReverted, seen)
	return true
}

// waitFor waits until the next state is seen, as long as the fault allows.
func (l *life) waitFor(ctx context.Context, state string, see func(context.Context) (sight, error)) bool {
	within := time.Duration(l.fault.Within)
	limited, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	seen, err := see(limited)
	if err != nil {
		if errors.Is(err, context.DeadlineExceeded) {
			err = fmt.Errorf("not within %s: %w", within, err)
		}
		l.failed("never seen "+state, err)
		return false
	}
	l.step(state, seen)
	return true
}

func (l *life) failed(step string, err error) {
	if errors.Is(err, context.Canceled) {
		err = errors.New("the run was stopped")
	}
	text := step + ": " + err.Error()
	var un Unsupported
	if errors.As(err, &un) {
		text = un.Error()
	}
	l.step(recording.FaultFailed, sight{how: text})
}

func (l *life) step(state string, seen sight) {
	line := l.line
	line.State, line.Text, line.At = state, seen.how, l.clock.Now()
	if !seen.at.IsZero() {
		line.At = l.clock.At(seen.at)
	}
	l.record(line)
}
