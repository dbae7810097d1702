package chaos

import (
	"context"
	"time"

	"github.com/launchgate/launchgate/deploy"
	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/internal/words"
)

// machine takes a fault from state to state, and refuses steps out of turn.
//
//	declared ─inject─▶ injected ─see─▶ in_effect ─hold─▶ held
//	    │(failed)          └──────┬────────┴──────────────┘
//	    └──────revert─────────────┴─▶ reverted ─see─▶ gone
//
// A fault is in the journal from before its injection until it is reverted. It is
// dirty as soon as Inject begins, also if Inject fails, because a fault that was
// injected in part has to be reverted too.
type machine struct {
	fault   fault
	id      string
	kind    string
	journal deploy.Journal
	state   string
	dirty   bool
}

func newMachine(f fault, id, kind string, j deploy.Journal) *machine {
	return &machine{fault: f, id: id, kind: kind, journal: j, state: recording.FaultDeclared}
}

func (m *machine) inject(ctx context.Context) (sight, error) {
	if m.dirty {
		return sight{}, words.Errorf("inject: the fault was started and is not reverted")
	}
	if err := m.legal("inject", recording.FaultDeclared); err != nil {
		return sight{}, err
	}
	if err := m.journal.Begin(m.id, m.kind, m.fault.Victim(), m.fault.Undo()); err != nil {
		_, _ = m.fault.Revert(ctx) // what was prepared; nothing was injected
		return sight{}, err
	}
	m.dirty = true
	began := time.Now() // a fault may be in effect before Inject is back
	seen, err := m.step(ctx, recording.FaultInjected, m.fault.Inject)
	seen.At = began
	return seen, err
}

func (m *machine) seeInEffect(ctx context.Context) (sight, error) {
	if err := m.legal("see in effect", recording.FaultInjected); err != nil {
		return sight{}, err
	}
	return m.step(ctx, recording.FaultInEffect, m.fault.SeeInEffect)
}

// hold checks at the end of the hold that the fault is still in effect.
func (m *machine) hold(ctx context.Context) (sight, error) {
	if err := m.legal("hold", recording.FaultInEffect); err != nil {
		return sight{}, err
	}
	return m.step(ctx, recording.FaultHeld, m.fault.SeeInEffect)
}

// revert is legal while the fault is dirty.
func (m *machine) revert(ctx context.Context) (sight, error) {
	if !m.dirty {
		return sight{}, words.Errorf("revert: nothing was injected; the fault is %s", m.state)
	}
	seen, err := m.step(ctx, recording.FaultReverted, m.fault.Revert)
	if err != nil {
		return seen, err
	}
	m.dirty = false
	return seen, m.journal.End(m.id)
}

func (m *machine) seeGone(ctx context.Context) (sight, error) {
	if err := m.legal("see gone", recording.FaultReverted); err != nil {
		return sight{}, err
	}
	return m.step(ctx, recording.FaultGone, m.fault.SeeGone)
}

func (m *machine) legal(step words.Phrase, from string) error {
	if m.state != from {
		return words.Errorf("%s: the fault is %s, expected %s", words.Say(step), m.state, from)
	}
	return nil
}

func (m *machine) step(ctx context.Context, to string, do func(context.Context) (sight, error)) (sight, error) {
	seen, err := do(ctx)
	if err == nil {
		m.state = to
	}
	return seen, err
}
