package kubernetes

import (
	"context"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"github.com/launchgate/launchgate/deploy"
	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/scenarios"
)

// DrainNode cordons the node of a pod and evicts the pods of the service on it. Pods of
// others stay. An eviction goes through the disruption budget, which a deletion does not.
func (t *Target) DrainNode(ctx context.Context, v deploy.Victim, f scenarios.Fault) (deploy.Effect, error) {
	pod, err := t.pod(v)
	if err != nil {
		return nil, err
	}
	node, err := t.api.node(ctx, pod.Spec.NodeName)
	if err != nil {
		return nil, err
	}
	if node.Spec.Unschedulable {
		return nil, words.Errorf("the node %s takes no pods already, because somebody has cordoned it; let it take pods again (kubectl uncordon), or strike another", node.Name)
	}
	d := &drain{Target: t, node: node.Name, victim: pod, notice: time.Duration(f.Notice), before: len(t.pods.serving())}
	d.evict = append(d.evict, pod)
	for _, other := range t.pods.list() {
		if other.Spec.NodeName == node.Name && other.UID != pod.UID {
			d.evict = append(d.evict, other)
		}
	}
	return d, nil
}

// drain is the maintenance of a node.
type drain struct {
	*Target
	node   string
	victim *corev1.Pod
	evict  []*corev1.Pod // on the node, the victim first
	notice time.Duration // 0: what each pod says itself
	before int           // number of pods that served

	stop    context.CancelFunc // ends the evictions; nil before Inject
	ended   chan struct{}      // closed when they have ended
	mu      sync.Mutex
	refused error // the last refusal of an eviction
}

func (d *drain) Victim() string { return d.node }

// Undo lets the node take pods again.
func (d *drain) Undo() []deploy.Undo {
	return []deploy.Undo{undoing(undoCordon, d.left(d.node))}
}

// Inject cordons the node, and begins with the evictions. What the budget refuses is
// asked for again until the fault is over, as kubectl drain does.
func (d *drain) Inject(ctx context.Context) (sight, error) {
	if err := d.api.cordon(ctx, d.node, true); err != nil {
		return sight{}, err
	}
	evicting, stop := context.WithCancel(d.alive)
	d.stop, d.ended = stop, make(chan struct{})
	d.running.Go(func() {
		defer close(d.ended)
		for _, pod := range d.evict {
			d.away(evicting, pod)
		}
	})
	return sight{How: words.Say("the node %s was cordoned, and the eviction of %d pods began", d.node, len(d.evict))}, nil
}

// evictAgain is the wait after the budget has refused.
const evictAgain = 200 * time.Millisecond

// away evicts a pod, as soon as its budget allows that.
func (d *drain) away(ctx context.Context, pod *corev1.Pod) {
	for ctx.Err() == nil {
		err := d.api.evict(ctx, pod, d.notice)
		switch {
		case err == nil || apierrors.IsNotFound(err) || apierrors.IsConflict(err): // it is another pod by now
			return
		case ctx.Err() != nil:
			return
		}
		d.mu.Lock()
		d.refused = words.Errorf("the eviction of the pod %s is refused: %s", pod.Name, d.api.explain(err))
		d.mu.Unlock()
		_ = sleep(ctx, evictAgain)
	}
}

// evict asks once for the eviction of a pod.
func (a *api) evict(ctx context.Context, pod *corev1.Pod, notice time.Duration) error {
	e := policyv1.Eviction{
		TypeMeta:      metav1.TypeMeta{APIVersion: policyv1.SchemeGroupVersion.String(), Kind: "Eviction"},
		ObjectMeta:    metav1.ObjectMeta{Name: pod.Name, Namespace: pod.Namespace},
		DeleteOptions: &metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &pod.UID}},
	}
	if notice > 0 {
		e.DeleteOptions.GracePeriodSeconds = new(int64((notice + time.Second - 1) / time.Second))
	}
	fields, err := runtime.DefaultUnstructuredConverter.ToUnstructured(&e)
	if err != nil {
		return err
	}
	_, err = a.dynamic.Resource(podsGVR).Namespace(pod.Namespace).Create(ctx, &unstructured.Unstructured{Object: fields}, metav1.CreateOptions{FieldManager: manager}, "eviction")
	return err
}

// SeeInEffect waits until the victim is gone by an eviction, and sees that its node takes
// no pods. The other pods of the node may still wait for their budget.
func (d *drain) SeeInEffect(ctx context.Context) (sight, error) {
	if err := d.pods.until(ctx, func() bool { return !d.pods.goneAt(d.victim.UID).IsZero() }); err != nil {
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.refused != nil {
			err = d.refused
		}
		return sight{}, err
	}
	node, err := d.api.node(ctx, d.node)
	if err != nil {
		return sight{}, err
	}
	if !node.Spec.Unschedulable {
		return sight{}, words.Errorf("the node %s takes pods, though it was cordoned", d.node)
	}
	gone := 0
	for _, pod := range d.evict {
		if !d.pods.goneAt(pod.UID).IsZero() {
			gone++
		}
	}
	how := words.Say("the pod %s is gone after its eviction", d.victim.Name)
	if d.pods.wasEvicted(d.victim.UID) {
		how = words.Say("the pod %s was evicted (DisruptionTarget)", d.victim.Name)
	}
	return sight{At: d.pods.goneAt(d.victim.UID), How: words.Say("%s, and the node %s takes no other; %d of its %d pods are gone", how, d.node, gone, len(d.evict))}, nil
}

// Revert ends the evictions and lets the node take pods again.
func (d *drain) Revert(ctx context.Context) (sight, error) {
	if d.stop != nil {
		d.stop()
		<-d.ended
	}
	if err := d.api.cordon(ctx, d.node, false); err != nil {
		return sight{}, err
	}
	return sight{How: words.Say("the node %s takes pods again", d.node)}, nil
}

func (d *drain) SeeGone(ctx context.Context) (sight, error) {
	node, err := d.api.node(ctx, d.node)
	if err != nil {
		return sight{}, err
	}
	if node.Spec.Unschedulable {
		return sight{}, words.Errorf("the node %s still takes no pods", d.node)
	}
	return d.whole(ctx, d.before)
}

// cordon makes a node take no new pods, or take them again.
func (a *api) cordon(ctx context.Context, name string, on bool) error {
	patch := []byte(`{"spec":{"unschedulable":false}}`)
	if on {
		patch = []byte(`{"spec":{"unschedulable":true}}`)
	}
	_, err := a.dynamic.Resource(nodesGVR).Patch(ctx, name, types.MergePatchType, patch, metav1.PatchOptions{FieldManager: manager})
	if apierrors.IsNotFound(err) && !on {
		return nil // the node is gone
	}
	if err != nil {
		return words.Errorf("cordon the node %s: %s", name, a.explain(err))
	}
	return nil
}
