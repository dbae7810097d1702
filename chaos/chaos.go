// Package chaos breaks the service under test on purpose and proves that it
// did. A fault asked for is not a fault in effect: each one is followed from
// declared to seen gone, and every step says how it was seen.
package chaos

import (
	"context"
	"fmt"
	"strings"

	"github.com/launchgate/launchgate/scenarios"
)

// Kind is one way to break a service.
type Kind struct {
	Name      string
	Does      string // what is done
	Needs     string // what must be there to do it
	Seen      string // how it is verified to be in effect
	Simulates string // what it stands for in the field

	// prepare finds the victim and returns the fault on it. An error that is an
	// Unsupported means that this target cannot be broken this way.
	prepare func(ctx context.Context, target any, f scenarios.Fault, seed uint64) (fault, error)
}

// Kinds is the catalogue.
var Kinds = []Kind{podKill}

// Unsupported is the error of a fault that the target cannot have.
type Unsupported struct{ Reason string }

func (u Unsupported) Error() string { return "unsupported: " + u.Reason }

// fault is a fault on its chosen victim. Each method is called at most once in
// the order of the fault's life; those that wait return when they saw what
// they wait for, with a sentence of how, or when ctx ends.
type fault interface {
	Victim() string
	Inject(ctx context.Context) (sight, error)
	SeeInEffect(ctx context.Context) (sight, error)
	Revert(ctx context.Context) (sight, error)
	SeeGone(ctx context.Context) (sight, error)
}

func kindOf(name string) (Kind, error) {
	var known []string
	for _, k := range Kinds {
		if k.Name == name {
			return k, nil
		}
		known = append(known, k.Name)
	}
	return Kind{}, fmt.Errorf("unknown fault kind %q; known: %s", name, strings.Join(known, ", "))
}
