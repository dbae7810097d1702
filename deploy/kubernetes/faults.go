package kubernetes

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/launchgate/launchgate/deploy"
	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/scenarios"
)

type sight = deploy.Sight

// KillReplica deletes a pod without a grace period.
func (t *Target) KillReplica(_ context.Context, v deploy.Victim, _ scenarios.Fault) (deploy.Effect, error) {
	return t.deletion(v, 0)
}

// Preempt deletes a pod with the notice as its grace period. If the fault has
// `for`, the pod's node takes no pods meanwhile.
func (t *Target) Preempt(_ context.Context, v deploy.Victim, f scenarios.Fault) (deploy.Effect, error) {
	d, err := t.deletion(v, time.Duration(f.Notice))
	if err != nil || f.For == 0 {
		return d, err
	}
	d.node = d.pod.Spec.NodeName
	return d, nil
}

// pod is the pod of a victim.
func (t *Target) pod(v deploy.Victim) (*corev1.Pod, error) {
	pod := t.pods.named(v.Replica)
	if pod == nil {
		return nil, words.Errorf("the pod %s is gone", v.Replica)
	}
	return pod, nil
}

func (t *Target) deletion(v deploy.Victim, grace time.Duration) (*deletion, error) {
	pod, err := t.pod(v)
	if err != nil {
		return nil, err
	}
	return &deletion{Target: t, pod: pod, streams: v.Streams, grace: grace, before: len(t.pods.serving())}, nil
}

// deletion is the end of a pod that its controller then replaces.
type deletion struct {
	*Target
	pod     *corev1.Pod
	streams int
	grace   time.Duration
	before  int    // number of pods that served
	node    string // the tainted node; empty: none
}

func (d *deletion) Victim() string { return d.pod.Name }

// Undo removes the taint, so that the node takes pods again.
func (d *deletion) Undo() []deploy.Undo {
	if d.node == "" {
		return nil
	}
	return []deploy.Undo{undoing(undoTaint, d.left(d.node))}
}

func (d *deletion) Inject(ctx context.Context) (sight, error) {
	if d.node != "" {
		if err := d.api.taint(ctx, d.node, true); err != nil {
			return sight{}, err
		}
	}
	seconds := int64((d.grace + time.Second - 1) / time.Second)
	err := d.api.dynamic.Resource(podsGVR).Namespace(d.pod.Namespace).Delete(ctx, d.pod.Name, metav1.DeleteOptions{GracePeriodSeconds: &seconds, Preconditions: &metav1.Preconditions{UID: &d.pod.UID}})
	if err != nil {
		return sight{}, words.Errorf("delete the pod %s: %s", d.pod.Name, d.api.explain(err))
	}
	return sight{How: words.Say("the pod %s on the node %s was deleted with a grace period of %d s and %d streams in flight", d.pod.Name, d.pod.Spec.NodeName, seconds, d.streams)}, nil
}

// SeeInEffect waits until the API server has no such pod.
func (d *deletion) SeeInEffect(ctx context.Context) (sight, error) {
	if err := d.pods.until(ctx, func() bool { return !d.pods.goneAt(d.pod.UID).IsZero() }); err != nil {
		return sight{}, err
	}
	how := words.Say("the pod %s is gone", d.pod.Name)
	if d.node != "" {
		tainted, err := d.api.tainted(ctx, d.node)
		if err != nil {
			return sight{}, err
		}
		if !tainted {
			return sight{}, words.Errorf("the node %s takes pods, though it was tainted", d.node)
		}
		how = words.Say("%s, and the node %s takes no other", how, d.node)
	}
	return sight{At: d.pods.goneAt(d.pod.UID), How: how}, nil
}

// Revert lets the node take pods again. The controller must make another pod,
// and that is part of what is measured.
func (d *deletion) Revert(ctx context.Context) (sight, error) {
	if d.node == "" {
		return sight{How: words.Say("nothing to undo: its controller makes another pod")}, nil
	}
	if err := d.api.taint(ctx, d.node, false); err != nil {
		return sight{}, err
	}
	return sight{How: words.Say("the node %s takes pods again", d.node)}, nil
}

func (d *deletion) SeeGone(ctx context.Context) (sight, error) { return d.whole(ctx, d.before) }

// whole waits until as many pods serve as before.
func (t *Target) whole(ctx context.Context, before int) (sight, error) {
	if err := t.pods.until(ctx, func() bool { return len(t.pods.serving()) >= before }); err != nil {
		return sight{}, errors.Join(err, t.pods.trouble())
	}
	return sight{How: words.Say("%d pods are ready again", len(t.pods.serving()))}, nil
}

const taintKey = "launchgate.dev/preempted"

// taint makes a node refuse new pods, or accept them again.
func (a *api) taint(ctx context.Context, name string, on bool) error {
	for {
		o, err := a.dynamic.Resource(nodesGVR).Get(ctx, name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) && !on {
			return nil // the node is gone, and so is its taint
		}
		if err != nil {
			return words.Errorf("the node %s: %s", name, a.explain(err))
		}
		node, err := into[corev1.Node](o)
		if err != nil {
			return err
		}
		taints := slices.DeleteFunc(node.Spec.Taints, func(t corev1.Taint) bool { return t.Key == taintKey })
		if on {
			taints = append(taints, corev1.Taint{Key: taintKey, Value: "true", Effect: corev1.TaintEffectNoSchedule})
		}
		// The resource version makes the patch fail if somebody else changed
		// the taints meanwhile.
		patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"resourceVersion": node.ResourceVersion}, "spec": map[string]any{"taints": taints}})
		if err != nil {
			return err
		}
		_, err = a.dynamic.Resource(nodesGVR).Patch(ctx, name, types.MergePatchType, patch, metav1.PatchOptions{FieldManager: manager})
		if apierrors.IsConflict(err) && ctx.Err() == nil {
			continue
		}
		if err != nil {
			return words.Errorf("the taint of the node %s: %s", name, a.explain(err))
		}
		return nil
	}
}

func (a *api) tainted(ctx context.Context, name string) (bool, error) {
	node, err := a.node(ctx, name)
	if err != nil {
		return false, err
	}
	return slices.ContainsFunc(node.Spec.Taints, func(t corev1.Taint) bool { return t.Key == taintKey }), nil
}

func (a *api) node(ctx context.Context, name string) (*corev1.Node, error) {
	o, err := a.dynamic.Resource(nodesGVR).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return nil, words.Errorf("the node %s: %s", name, a.explain(err))
	}
	return into[corev1.Node](o)
}

// TakeNode stops the victim's node with the gate's own command, and starts it
// again.
func (t *Target) TakeNode(_ context.Context, v deploy.Victim, _ scenarios.Fault) (deploy.Effect, error) {
	pod, err := t.pod(v)
	if err != nil {
		return nil, err
	}
	return &outage{Target: t, node: pod.Spec.NodeName, before: len(t.pods.serving())}, nil
}

// outage is the loss of a node.
type outage struct {
	*Target
	node   string
	before int
}

func (o *outage) Victim() string { return o.node }

// Undo starts the node again.
func (o *outage) Undo() []deploy.Undo {
	to := o.left(o.node)
	to.Command = o.spec.Node.Start
	return []deploy.Undo{undoing(undoNode, to)}
}

func (o *outage) Inject(ctx context.Context) (sight, error) {
	if err := command(ctx, o.spec.Node.Stop, o.node); err != nil {
		return sight{}, err
	}
	return sight{How: words.Say("the node %s was stopped by %s", o.node, o.spec.Node.Stop)}, nil
}

// command runs a command of the gate, with the name of a node.
func command(ctx context.Context, line, node string) error {
	cmd := exec.CommandContext(ctx, "sh", "-c", line)
	cmd.Env = append(os.Environ(), "NODE="+node)
	cmd.WaitDelay = time.Second // a process that it leaves running must not block the wait
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil && !errors.Is(err, exec.ErrWaitDelay) {
		return words.Errorf("the command %q for the node %s: %s: %s", line, node, err, strings.TrimSpace(out.String()))
	}
	return nil
}

const nodeEvery = 100 * time.Millisecond

// SeeInEffect waits until the cluster reports that the node is not ready.
func (o *outage) SeeInEffect(ctx context.Context) (sight, error) {
	for {
		node, err := o.api.node(ctx, o.node)
		if err != nil && ctx.Err() == nil {
			return sight{}, err
		}
		if err == nil {
			if status := nodeReady(node); status != corev1.ConditionTrue {
				return sight{How: words.Say("the condition Ready of the node %s is %s", o.node, string(status))}, nil
			}
		}
		if err := sleep(ctx, nodeEvery); err != nil {
			return sight{}, err
		}
	}
}

func nodeReady(node *corev1.Node) corev1.ConditionStatus {
	for _, c := range node.Status.Conditions {
		if c.Type == corev1.NodeReady {
			return c.Status
		}
	}
	return corev1.ConditionUnknown
}

func (o *outage) Revert(ctx context.Context) (sight, error) {
	if err := command(ctx, o.spec.Node.Start, o.node); err != nil {
		return sight{}, err
	}
	return sight{How: words.Say("the node %s was started by %s", o.node, o.spec.Node.Start)}, nil
}

func (o *outage) SeeGone(ctx context.Context) (sight, error) {
	for {
		node, err := o.api.node(ctx, o.node)
		if err == nil && nodeReady(node) == corev1.ConditionTrue {
			return o.whole(ctx, o.before)
		}
		if sleep(ctx, nodeEvery) != nil {
			return sight{}, errors.Join(context.Cause(ctx), err)
		}
	}
}

// RollOutBad makes the Deployment roll out a version whose model file is not a
// model.
func (t *Target) RollOutBad(ctx context.Context, _ deploy.Victim, _ scenarios.Fault) (deploy.Effect, error) {
	d, err := t.deployment(ctx)
	if err != nil {
		return nil, err
	}
	r := &release{Target: t, before: len(t.pods.serving()), generation: d.Generation, good: map[types.UID]bool{}}
	for _, pod := range t.pods.list() {
		r.good[pod.UID] = true
	}
	back := any(map[string]any{"name": modelVariable, "$patch": "delete"})
	for _, c := range d.Spec.Template.Spec.Containers {
		for _, e := range c.Env {
			if c.Name == serverContainer && e.Name == modelVariable {
				back = e
			}
		}
	}
	if r.bad, err = modelPatch(map[string]any{"name": modelVariable, "value": noModel}); err != nil {
		return nil, err
	}
	r.back, err = modelPatch(back)
	return r, err
}

const (
	serverContainer = "server"
	modelVariable   = "MODEL_PATH"
	noModel         = "/sbom.cdx.json" // a file of the image that is not a model
)

// modelPatch changes which model the container of the Deployment serves.
func modelPatch(variable any) ([]byte, error) {
	container := map[string]any{"name": serverContainer, "env": []any{variable}}
	return json.Marshal(map[string]any{"spec": map[string]any{"template": map[string]any{"spec": map[string]any{"containers": []any{container}}}}})
}

// release is the roll-out of a bad version by a Deployment.
type release struct {
	*Target
	before     int
	generation int64
	good       map[types.UID]bool // pods from before
	bad, back  []byte             // patches of the Deployment
}

func (r *release) Victim() string { return deploymentName }

// Undo restores the Deployment.
func (r *release) Undo() []deploy.Undo {
	to := r.left(deploymentName)
	to.Patch = r.back
	return []deploy.Undo{undoing(undoRelease, to)}
}

func (r *release) Inject(ctx context.Context) (sight, error) {
	if err := r.api.patchDeployment(ctx, r.spec.Namespace, deploymentName, r.bad); err != nil {
		return sight{}, err
	}
	return sight{How: words.Say("the Deployment %s rolls out a version that is to serve %s, which is no model", deploymentName, noModel)}, nil
}

func (a *api) patchDeployment(ctx context.Context, namespace, name string, patch []byte) error {
	_, err := a.dynamic.Resource(deploymentsGVR).Namespace(namespace).Patch(ctx, name, types.StrategicMergePatchType, patch, metav1.PatchOptions{FieldManager: manager})
	if err != nil {
		return words.Errorf("the Deployment %s: %s", name, a.explain(err))
	}
	return nil
}

// SeeInEffect waits for a pod of the bad version that does not get ready, and
// then for the Deployment to report that its progress deadline has passed. The
// time that the Deployment needs to notice is measured.
func (r *release) SeeInEffect(ctx context.Context) (sight, error) {
	var failed error
	var how words.Sentence
	err := r.pods.until(ctx, func() bool {
		d, err := r.deployment(ctx)
		if err != nil {
			return false
		}
		fresh := slices.ContainsFunc(r.pods.list(), func(p *corev1.Pod) bool { return !r.good[p.UID] })
		if d.Status.ObservedGeneration > r.generation && fresh && complete(d) {
			failed = words.Errorf("the Deployment %s took the bad version for good: all of its pods are ready", deploymentName)
			return true
		}
		for _, c := range d.Status.Conditions {
			if c.Type == appsv1.DeploymentProgressing && c.Reason == "ProgressDeadlineExceeded" && d.Status.ObservedGeneration > r.generation {
				how = words.Say("a pod of the bad version does not get ready, and the Deployment %s has said that its deadline passed: %s", deploymentName, c.Message)
				return fresh
			}
		}
		return false
	})
	return sight{How: how}, errors.Join(err, failed)
}

// complete reports whether a Deployment has rolled out.
func complete(d *appsv1.Deployment) bool {
	return d.Spec.Replicas != nil && d.Status.UpdatedReplicas == *d.Spec.Replicas && d.Status.Replicas == *d.Spec.Replicas && d.Status.AvailableReplicas == *d.Spec.Replicas
}

// Revert rolls back. A Deployment does not roll back by itself: it only stops
// the roll-out.
func (r *release) Revert(ctx context.Context) (sight, error) {
	if err := r.api.patchDeployment(ctx, r.spec.Namespace, deploymentName, r.back); err != nil {
		return sight{}, err
	}
	return sight{How: words.Say("launchgate had the Deployment %s be as before", deploymentName)}, nil
}

func (r *release) SeeGone(ctx context.Context) (sight, error) {
	err := r.pods.until(ctx, func() bool {
		d, err := r.deployment(ctx)
		return err == nil && d.Status.ObservedGeneration >= d.Generation && complete(d) && len(r.pods.serving()) >= r.before
	})
	if err != nil {
		return sight{}, err
	}
	return sight{How: words.Say("every pod is of the version from before, and %d are ready", len(r.pods.serving()))}, nil
}
