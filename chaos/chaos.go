// Package chaos breaks the service under test on purpose and proves that it
// did. A fault asked for is not a fault in effect: each one is followed from
// declared to seen gone, and every step says how it was seen. What has to be
// undone is journaled on disk before it is done, so that a watchdog, or
// launchgate recover, undoes it when the harness cannot.
package chaos

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/scenarios"
)

// Kind is one way to break a service.
type Kind struct {
	Name      string
	Does      string // what is done
	Needs     string // what must be there to do it
	Seen      string // how it is verified to be in effect
	Simulates string // what it stands for in the field
	Example   string // in a gate

	network means        // of the kernel, which plays it where it can; empty: it is not of the network
	door    bool         // the gateway must be the whole one
	can     func() error // an Unsupported where this machine cannot do it; nil: every one can

	// prepare finds the victim and returns the fault on it. An error that is an
	// Unsupported means that this target cannot be broken this way.
	prepare func(ctx context.Context, target any, f scenarios.Fault, seed uint64) (fault, error)
}

// Kinds is the catalogue.
var Kinds = []Kind{
	podKill, podHang, podSlow, gatewayKill, nodeLoss, spotPreemption,
	networkDelay, networkLoss, networkBandwidth, nodePartition, cpuStress, memoryPressure, gpuOOM, kvExhaustion,
	certificateExpiry, ledgerLoss, diskFull, clockSkew, badRelease,
}

// Unsupported is the error of a fault that the target cannot have.
type Unsupported struct{ Reason words.Sentence }

// Said is what the recording says of it.
func (u Unsupported) Said() words.Sentence { return recording.Unsupported(u.Reason) }

func (u Unsupported) Error() string { return u.Said().String() }

func unsupported(p words.Phrase, args ...any) error { return Unsupported{words.Say(p, args...)} }

// notOurs is why faults need a deployment of launchgate's own.
func notOurs(what words.Phrase, args ...any) error {
	return unsupported("launchgate did not deploy this target, so %s; use target.local, or break it by other means", words.Say(what, args...))
}

// needsDoor is why faults need the whole gateway.
func needsDoor(what words.Phrase, args ...any) error {
	return unsupported("the gateway of this target is plain, so %s; take plain out of target.local.gateway", words.Say(what, args...))
}

// fault is a fault on its chosen victim. Its methods are called in the order of
// the fault's life; those that wait return when they saw what they wait for,
// with a sentence of how, or when ctx ends.
type fault interface {
	Victim() string
	// Undo is what remains to be undone should this process die once Inject has
	// begun. It is known before.
	Undo() []Undo
	Inject(ctx context.Context) (sight, error)
	// SeeInEffect is called when the fault was injected, and once more at the
	// end of its hold: it must still be in effect.
	SeeInEffect(ctx context.Context) (sight, error)
	// Revert undoes what Inject did or only began to do. It can be repeated.
	Revert(ctx context.Context) (sight, error)
	SeeGone(ctx context.Context) (sight, error)
}

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

// able is why a kind cannot act here, as far as that is known before the run.
func (k Kind) able(t scenarios.Target) error {
	switch {
	case t.Local == nil && k.network != "":
		return nil // a proxy can stand in front of anything
	case t.Local == nil:
		return notOurs("it cannot have a fault of kind %s", k.Name)
	case k.door && t.Local.Gateway.Plain:
		return needsDoor("it cannot have a fault of kind %s", k.Name)
	case k.can == nil:
		return nil
	}
	return k.can()
}

// Unable lists the kinds of a gate's faults that cannot act here, with the
// reason, before anything is started.
func Unable(gate scenarios.Gate) []words.Sentence {
	var unable []words.Sentence
	unableTo := func(kind string, why error) { unable = append(unable, words.Say("%s: %s", kind, why)) }
	able := map[string]bool{}
	for _, name := range kindsOf(gate) {
		if k, err := kindOf(name); err == nil {
			why := k.able(gate.Target)
			if able[name] = why == nil; why != nil {
				unableTo(name, why)
			}
		}
	}
	target := gate.Resolved().Target
	for _, s := range gate.Scenarios {
		for _, f := range s.Faults {
			if why := noSuch(target, f.Target); able[f.Kind] && why != nil {
				unableTo(f.Kind, why)
			}
		}
	}
	if name := nodeLoss.Name; gate.Target.Local != nil && gate.Target.Local.Gateway.Plain && losesDisk(gate) {
		unableTo(name, needsDoor("it has no disk with a ledger that could be lost"))
	}
	return unable
}

// noSuch is why a victim that is named will not be there: a service that was
// there before is one, of which none is told by a name.
func noSuch(t scenarios.Target, victim string) error {
	switch {
	case victim == "" || victim == scenarios.VictimBusiest || victim == scenarios.VictimRandom:
		return nil
	case t.Local == nil:
		return words.Errorf("no replica is named %q: launchgate did not start this service and sees it as one replica; leave target out of the fault", victim)
	}
	var there []string
	for i := range t.Local.Replicas {
		there = append(there, fmt.Sprintf("replica-%d", i))
	}
	if slices.Contains(there, victim) {
		return nil
	}
	return words.Errorf("no replica is named %q; there are %s", victim, strings.Join(there, ", "))
}

func losesDisk(gate scenarios.Gate) bool {
	return anyFault(gate, func(f scenarios.Fault) bool { return f.Disk == scenarios.DiskLost })
}

// HitsNewConnections reports whether a scenario has a fault that only who
// connects anew can notice.
func HitsNewConnections(s scenarios.Scenario) bool {
	return slices.ContainsFunc(s.Faults, func(f scenarios.Fault) bool { return f.Kind == certificateExpiry.Name })
}

// kindsOf names the kinds of a gate's faults, each once.
func kindsOf(gate scenarios.Gate) []string {
	var kinds []string
	for _, s := range gate.Scenarios {
		for _, f := range s.Faults {
			if !slices.Contains(kinds, f.Kind) {
				kinds = append(kinds, f.Kind)
			}
		}
	}
	return kinds
}
