// Package targets is the one place that knows which kinds of targets there are: it
// chooses one by the gate, and finds who takes back what a fault left.
package targets

import (
	"github.com/launchgate/launchgate/deploy"
	"github.com/launchgate/launchgate/deploy/host"
	"github.com/launchgate/launchgate/deploy/kubernetes"
	"github.com/launchgate/launchgate/scenarios"
)

// PlanFor is the plan of a gate's target.
func PlanFor(g scenarios.Gate) deploy.Plan {
	switch {
	case g.Target.Local != nil:
		return host.PlanLocal(g)
	case g.Target.Kubernetes != nil:
		return kubernetes.PlanFor(g)
	}
	return host.PlanEndpoint(g)
}

// Undo takes back one thing that a target did because a fault asked for it. It
// can be repeated.
func Undo(u deploy.Undo) error {
	if kubernetes.IsUndo(u) {
		return kubernetes.Undo(u)
	}
	return host.Undo(u)
}
