package kubernetes

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/launchgate/launchgate/deploy"
	"github.com/launchgate/launchgate/internal/words"
)

// The actions of an Undo of this package.
const (
	undoPrefix  = "kubernetes-"
	undoRemove  = undoPrefix + "remove"  // the objects with the label of a run are deleted
	undoTaint   = undoPrefix + "taint"   // a node takes pods again
	undoCordon  = undoPrefix + "cordon"  // a drained node takes pods again
	undoNode    = undoPrefix + "node"    // a node is started by the gate's command
	undoRelease = undoPrefix + "release" // a Deployment is restored
	undoChaos   = undoPrefix + "chaos"   // an object of Chaos Mesh is removed, with its finalizers
)

// left is what an Undo of this package acts on: how another process finds the
// same cluster, and the object in it.
type left struct {
	Kubeconfig string `json:"kubeconfig,omitempty"` // a file; empty: where kubectl looks
	Context    string `json:"context,omitempty"`    // empty: the current one
	Namespace  string `json:"namespace,omitempty"`
	Name       string `json:"name,omitempty"`    // of the run, the node or the Deployment
	Made       []kind `json:"made,omitempty"`    // kinds that the run has made, the last first
	Command    string `json:"command,omitempty"` // the command that starts the node
	Patch      []byte `json:"patch,omitempty"`   // of the Deployment
}

// undoing is an Undo of this package.
func undoing(do string, to left) deploy.Undo {
	b, err := json.Marshal(to)
	if err != nil { // cannot happen: it has only strings
		panic(err)
	}
	return deploy.Undo{Do: do, To: b}
}

// IsUndo reports whether an Undo belongs to this package.
func IsUndo(u deploy.Undo) bool { return strings.HasPrefix(u.Do, undoPrefix) }

const undoWithin = 30 * time.Second

// Undo undoes what a run has left in a cluster. It returns nil if it is gone
// already.
func Undo(u deploy.Undo) error {
	to, err := leftBy(u)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), undoWithin)
	defer cancel()
	if u.Do == undoNode {
		return command(ctx, to.Command, to.Name)
	}
	a, err := connect(to.Kubeconfig, to.Context)
	if err != nil {
		return words.Errorf("undo: %s", err)
	}
	return a.undo(ctx, u.Do, to)
}

func leftBy(u deploy.Undo) (to left, err error) {
	if err := json.Unmarshal(u.To, &to); err != nil || to.Name == "" {
		return to, words.Errorf("undo: it is not said what %q is done to; this journal is damaged", u.Do)
	}
	return to, nil
}

func (a *api) undo(ctx context.Context, do string, to left) error {
	switch do {
	case undoRemove:
		return a.removeRun(ctx, to)
	case undoChaos:
		return a.endChaos(ctx, to)
	case undoCordon:
		return a.cordon(ctx, to.Name, false)
	case undoTaint:
		return a.taint(ctx, to.Name, false)
	case undoRelease:
		err := a.patchDeployment(ctx, to.Namespace, to.Name, to.Patch)
		if apierrors.IsNotFound(err) {
			return nil // the object was removed
		}
		return err
	}
	return words.Errorf("undo: %q is not known; this journal is of a newer launchgate", do)
}

// kindsOf returns the kinds of objects in the order in which removeRun deletes
// them, the last first.
func (a *api) kindsOf(ctx context.Context, objects []*unstructured.Unstructured) ([]kind, error) {
	var kinds []kind
	for _, o := range slices.Backward(objects) {
		k, err := a.find(ctx, o.GroupVersionKind())
		if err != nil {
			return nil, err
		}
		if !slices.Contains(kinds, k) {
			kinds = append(kinds, k)
		}
	}
	return kinds, nil
}

// removeRun deletes the objects that have the label of a run, of the kinds that
// it made.
func (a *api) removeRun(ctx context.Context, to left) (err error) {
	for _, k := range to.Made {
		c := a.in(k, to.Namespace)
		list, listed := c.List(ctx, metav1.ListOptions{LabelSelector: runLabel + "=" + to.Name})
		if apierrors.IsForbidden(listed) && !k.Namespaced {
			continue // without the right to list them, the run has not made one
		}
		if listed != nil {
			err = errors.Join(err, words.Errorf("undo: list %s: %s", k.Resource.Resource, a.explain(listed)))
			continue
		}
		for _, o := range list.Items {
			if gone := drop(ctx, c, o.GetName()); gone != nil {
				err = errors.Join(err, words.Errorf("undo: remove %s: %s", named(&o), a.explain(gone)))
			}
		}
	}
	return err
}
