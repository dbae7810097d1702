// Package chaos breaks the service under test on purpose and proves that it
// did. A fault asked for is not a fault in effect: each one is followed from
// declared to seen gone, and every step says how it was seen. What has to be
// undone is journaled on disk before it is done, so that a watchdog, or
// launchgate recover, undoes it when the harness cannot.
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

// on asks a target by the interface of a capability. That a target has none is
// told by the target, and here alone.
func on[C any](c deploy.Capability, effect func(C, context.Context, deploy.Victim, scenarios.Fault) (deploy.Effect, error)) asking {
	return asking{c, func(ctx context.Context, t deploy.Target, v deploy.Victim, f scenarios.Fault) (deploy.Effect, error) {
		able, ok := t.(C)
		if !ok {
			return nil, deploy.Lack{Reason: words.Say("this kind of target cannot %s", c.Said())}
		}
		return effect(able, ctx, v, f)
	}}
}

// unsupported is what is said of a fault that its target cannot have.
func unsupported(l deploy.Lack) words.Sentence { return recording.Unsupported(l.Reason) }

// The words of this package for what a target does.
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

// noSuch is why a victim that is named will not be there: a service that was
// there before is one, of which none is told by a name.
func noSuch(target deploy.Plan, victim string) error {
	if victim == "" || victim == scenarios.VictimBusiest || victim == scenarios.VictimRandom {
		return nil
	}
	there := deploy.Names(target.Replicas())
	switch {
	case len(there) == 0:
		return words.Errorf("no replica is named %q: launchgate did not start this service and sees it as one replica; leave target out of the fault", victim)
	case slices.Contains(there, victim):
		return nil
	}
	return words.Errorf("no replica is named %q; there are %s", victim, strings.Join(there, ", "))
}

// HitsNewConnections reports whether a scenario has a fault that only who
// connects anew can notice.
func HitsNewConnections(s scenarios.Scenario) bool {
	return s.AnyFault(func(_ scenarios.Fault, k scenarios.FaultKind) bool { return k.NewConnections })
}
