// Package targets is the only place that knows all kinds of targets. It chooses
// one by the gate, and finds the package that undoes what a fault left.
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

// Undo undoes one effect of a fault on a target. It can be repeated.
func Undo(u deploy.Undo) error {
	if kubernetes.IsUndo(u) {
		return kubernetes.Undo(u)
	}
	return host.Undo(u)
}
