// Package chaos breaks the service under test on purpose and proves that it
// did. To request a fault is not enough: each one is followed from declared to
// seen gone, and every step records how it was observed. Before a fault changes
// anything, the way to undo it is written to a journal on disk. If the harness
// dies, a watchdog or launchgate recover undoes it.
package chaos

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/launchgate/launchgate/deploy"
	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/scenarios"
)

// Kind is one way to break a service.
type Kind struct {
	scenarios.FaultKind // what a gate may say of it

	Does      string // what is done
	Needs     string // what must be there to do it
	Seen      string // how it is verified to be in effect
	Simulates string // what it stands for in the field
	Example   string // in a gate

	ask asking
}

// asking is how a kind asks its target for what it does.
type asking struct {
	capability deploy.Capability
	// prepare returns the effect on a victim. A deploy.Lack means that this target
	// cannot be broken this way.
	prepare func(ctx context.Context, t deploy.Target, v deploy.Victim, f scenarios.Fault) (deploy.Effect, error)
}

// on asks a target for an effect through the interface of a capability. A target
// without that interface gets its Lack here, and nowhere else.
func on[C any](c deploy.Capability, effect func(C, context.Context, deploy.Victim, scenarios.Fault) (deploy.Effect, error)) asking {
	return asking{c, func(ctx context.Context, t deploy.Target, v deploy.Victim, f scenarios.Fault) (deploy.Effect, error) {
		able, ok := t.(C)
		if !ok {
			return nil, deploy.Lack{Reason: words.Say("this kind of target cannot %s", c.Said())}
		}
		return effect(able, ctx, v, f)
	}}
}

// unsupported is the reason recorded for a fault that the target cannot have.
func unsupported(l deploy.Lack) words.Sentence { return recording.Unsupported(l.Reason) }

// Short names of deploy's types.
type (
	fault = deploy.Effect
	sight = deploy.Sight
)

func kindOf(name string) (Kind, error) {
	i := slices.IndexFunc(Kinds, func(k Kind) bool { return k.Name == name })
	if i >= 0 {
		return Kinds[i], nil
	}
	var known []string
	for _, k := range Kinds {
		known = append(known, k.Name)
	}
	return Kind{}, words.Errorf("unknown fault kind %q; known: %s", name, strings.Join(known, ", "))
}

// Unable lists the kinds of a gate's faults that cannot act on its target, with
// the reason, before anything is started.
func Unable(gate scenarios.Gate, target deploy.Plan) []words.Sentence {
	var unable []words.Sentence
	listed := map[string]bool{}
	for _, s := range gate.Scenarios {
		for _, f := range s.Faults {
			k, err := kindOf(f.Kind)
			if err != nil || listed[f.Kind] {
				continue
			}
			why := noSuch(target, f.Target)
			if lack := target.Lacks(k.ask.capability, f); lack != nil {
				listed[f.Kind] = true
				why = lack
			}
			if why == nil {
				continue
			}
			said := words.Of(why)
			var lack deploy.Lack
			if errors.As(why, &lack) {
				said = unsupported(lack)
			}
			unable = append(unable, words.Say("%s: %s", f.Kind, said))
		}
	}
	return unable
}

// noSuch is why the target has no replica of the victim's name. The replicas of a
// service that launchgate did not deploy have no names.
func noSuch(target deploy.Plan, victim string) error {
	if victim == "" || victim == scenarios.VictimBusiest || victim == scenarios.VictimRandom {
		return nil
	}
	there := deploy.Names(target.Replicas())
	switch {
	case len(there) == 0:
		return words.Errorf("no replica is named %q: launchgate did not start this service and treats it as one replica; remove target from the fault", victim)
	case slices.Contains(there, victim):
		return nil
	}
	return words.Errorf("no replica is named %q, expected %s", victim, strings.Join(there, ", "))
}

// HitsNewConnections reports whether a scenario has a fault that only new
// connections can notice.
func HitsNewConnections(s scenarios.Scenario) bool {
	return s.AnyFault(func(_ scenarios.Fault, k scenarios.FaultKind) bool { return k.NewConnections })
}
