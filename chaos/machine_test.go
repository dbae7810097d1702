package chaos

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"slices"
	"testing"

	"github.com/launchgate/launchgate/deploy"
	"github.com/launchgate/launchgate/internal/recording"
)

var errUnderneath = errors.New("it fails underneath")

// broken is a fault that records whether it is in effect, and fails on request.
// A failing injection may have taken effect or not, and likewise a failing
// revert.
type broken struct {
	strikes bool
	dice    *rand.Rand
	fail    bool
	calls   []string
	path    string // of the journal
	from    int    // where the lines of this fault begin in it
	t       *testing.T
}

func (b *broken) Victim() string      { return "replica-0" }
func (b *broken) Undo() []deploy.Undo { return nil }

func (b *broken) Inject(context.Context) (sight, error) {
	b.calls = append(b.calls, "inject")
	if !slices.Contains(b.journaled(), "s/0") {
		b.t.Error("a fault is injected that is not in the journal")
	}
	return sight{}, b.turn(true)
}

func (b *broken) Revert(context.Context) (sight, error) {
	b.calls = append(b.calls, "revert")
	return sight{}, b.turn(false)
}

func (b *broken) turn(to bool) error {
	if b.fail && b.dice.IntN(2) == 0 {
		return errUnderneath
	}
	b.strikes = to
	if b.fail {
		return errUnderneath
	}
	return nil
}

func (b *broken) SeeInEffect(context.Context) (sight, error) { return sight{}, b.see("in effect") }
func (b *broken) SeeGone(context.Context) (sight, error)     { return sight{}, b.see("gone") }

func (b *broken) see(what string) error {
	b.calls = append(b.calls, what)
	if b.fail {
		return errUnderneath
	}
	return nil
}

func (b *broken) journaled() []string {
	text, err := os.ReadFile(b.path)
	if err != nil {
		b.t.Fatal(err)
	}
	_, open := readJournal(text[b.from:])
	var ids []string
	for _, e := range open {
		ids = append(ids, e.Fault)
	}
	return ids
}

func size(t *testing.T, path string) int {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return int(info.Size())
}

// The test takes ten thousand random steps through the states of faults, legal
// and illegal ones. One in ten fails underneath. After each of them: an illegal
// step was refused and changed nothing; the state is the next one; every fault
// that may be in effect is in the journal and can be reverted.
func TestTenThousandSteps(t *testing.T) {
	j := journal(t)
	dice := rand.New(rand.NewPCG(6, 6))
	b := &broken{dice: dice, path: j.path, t: t}
	m := newMachine(b, "s/0", "pod-kill", j)
	steps := []struct {
		name  string
		do    func(context.Context) (sight, error)
		legal func() bool
		to    string
		call  string
	}{
		{"inject", func(ctx context.Context) (sight, error) { return m.inject(ctx) }, func() bool { return m.state == recording.FaultDeclared && !m.dirty }, recording.FaultInjected, "inject"},
		{"see in effect", func(ctx context.Context) (sight, error) { return m.seeInEffect(ctx) }, func() bool { return m.state == recording.FaultInjected }, recording.FaultInEffect, "in effect"},
		{"hold", func(ctx context.Context) (sight, error) { return m.hold(ctx) }, func() bool { return m.state == recording.FaultInEffect }, recording.FaultHeld, "in effect"},
		{"revert", func(ctx context.Context) (sight, error) { return m.revert(ctx) }, func() bool { return m.dirty }, recording.FaultReverted, "revert"},
		{"see gone", func(ctx context.Context) (sight, error) { return m.seeGone(ctx) }, func() bool { return m.state == recording.FaultReverted }, recording.FaultGone, "gone"},
	}
	counts := map[string]int{}
	for n := range 10_000 {
		if m.state == recording.FaultGone && dice.IntN(3) == 0 {
			m, b.from = newMachine(b, "s/0", "pod-kill", j), size(t, j.path) // the next fault
		}
		step := steps[dice.IntN(len(steps))]
		legal, before, dirty := step.legal(), m.state, m.dirty
		b.fail, b.calls = dice.IntN(10) == 0, nil
		_, err := step.do(t.Context())
		switch {
		case !legal:
			counts["illegal"]++
			if err == nil || len(b.calls) > 0 || m.state != before || m.dirty != dirty {
				t.Fatalf("step %d: %s was not legal (%s, dirty %v), and did %v: %v", n, step.name, before, dirty, b.calls, err)
			}
		case b.fail:
			counts["failed"]++
			if !errors.Is(err, errUnderneath) || m.state != before || !slices.Equal(b.calls, []string{step.call}) {
				t.Fatalf("step %d: %s failed underneath (%v), did %v and led from %s to %s", n, step.name, err, b.calls, before, m.state)
			}
		default:
			counts[step.name]++
			if err != nil || m.state != step.to || !slices.Equal(b.calls, []string{step.call}) {
				t.Fatalf("step %d: %s (%v) did %v and led from %s to %s, want %s", n, step.name, err, b.calls, before, m.state, step.to)
			}
		}
		if b.strikes && !m.dirty {
			t.Fatalf("step %d: the fault strikes, and cannot be reverted", n)
		}
		if !legal {
			continue // nothing was done
		}
		if open := b.journaled(); m.dirty != (len(open) == 1) {
			t.Fatalf("step %d: dirty is %v and the journal holds %v", n, m.dirty, open)
		}
	}
	for _, name := range []string{"illegal", "failed", "inject", "see in effect", "hold", "revert", "see gone"} {
		if counts[name] < 100 {
			t.Errorf("%s: only %d times in ten thousand steps", name, counts[name])
		}
	}
	t.Log(counts)
	for m.dirty {
		b.fail = false
		if _, err := m.revert(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}
