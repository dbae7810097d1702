package kubernetes

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/chaos-mesh/chaos-mesh/api/v1alpha1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"github.com/launchgate/launchgate/deploy"
	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/scenarios"
)

// byChaosMesh are the capabilities that the API server alone does not have.
var byChaosMesh = map[deploy.Capability]schema.GroupVersionKind{
	deploy.ShapeNetwork: v1alpha1.SchemeGroupVersion.WithKind("NetworkChaos"),
	deploy.SkewClock:    v1alpha1.SchemeGroupVersion.WithKind("TimeChaos"),
	deploy.HangReplica:  v1alpha1.SchemeGroupVersion.WithKind("PodChaos"),
}

// Lacks adds to the plan's reasons what is known of the cluster.
func (t *Target) Lacks(c deploy.Capability, f scenarios.Fault) error {
	if err := t.plan.Lacks(c, f); err != nil {
		return err
	}
	if kind, mesh := byChaosMesh[c]; mesh && t.meshes[kind] != nil {
		return lack("it cannot %s: Chaos Mesh plays that, and the cluster of the context %q does not have it (%s)", c.Said(), t.api.where, t.meshes[kind])
	}
	return nil
}

// findMesh looks which kinds of Chaos Mesh the cluster has.
func (t *Target) findMesh(ctx context.Context) {
	t.meshes = map[schema.GroupVersionKind]error{}
	for _, kind := range byChaosMesh {
		if _, err := t.api.find(ctx, kind); err != nil {
			t.meshes[kind] = err
		}
	}
}

// ShapeNetwork has a NetworkChaos change the network of a pod. What is seen is a
// request that the API server makes to the pod's address.
func (t *Target) ShapeNetwork(ctx context.Context, v deploy.Victim, f scenarios.Fault) (deploy.Effect, error) {
	pod, err := t.pod(v)
	if err != nil {
		return nil, err
	}
	spec := v1alpha1.NetworkChaosSpec{PodSelector: only(pod)}
	n := &networkSight{look: t.looking(pod, "/")}
	switch f.Kind {
	case scenarios.DelayedNetwork.Name:
		spec.Action, spec.Delay = v1alpha1.DelayAction, &v1alpha1.DelaySpec{Latency: time.Duration(f.Delay).String()}
		n.longer = time.Duration(f.Delay) * 8 / 10
	case scenarios.LossyNetwork.Name:
		spec.Action, spec.Loss = v1alpha1.LossAction, &v1alpha1.LossSpec{Loss: fmt.Sprintf("%.4g", float64(f.Loss)*100)}
		n.longer, n.sometimes = retransmit*8/10, true
	case scenarios.NarrowNetwork.Name:
		const buffer = 1600 // bytes that pass at once: one packet
		spec.Action, spec.Bandwidth = v1alpha1.BandwidthAction, &v1alpha1.BandwidthSpec{Rate: fmt.Sprintf("%dbps", int64(f.Bandwidth)), Limit: 1 << 20, Buffer: buffer}
		n.look = t.looking(pod, "/metrics")
		if t.bundled() {
			n.look.port = metricsPort
		}
		n.rate = float64(f.Bandwidth)
	case scenarios.NodePartition.Name:
		spec.Action, spec.Direction = v1alpha1.PartitionAction, v1alpha1.Both
		n.cut = true
	default:
		return nil, words.Errorf("%s is no fault of a network", f.Kind)
	}
	spec.Duration = lasting(f)
	return t.chaos(pod, n, &v1alpha1.NetworkChaos{Spec: spec}, "NetworkChaos"), n.before(ctx)
}

// SkewClock has a TimeChaos shift the clock of a pod's containers, as the Date of an
// answer shows.
func (t *Target) SkewClock(ctx context.Context, v deploy.Victim, f scenarios.Fault) (deploy.Effect, error) {
	pod, err := t.pod(v)
	if err != nil {
		return nil, err
	}
	s := &clockSight{t: t, pod: pod, skew: time.Duration(f.Skew)}
	if off, err := s.off(ctx); err != nil {
		return nil, err
	} else if off.Abs() > clockError {
		return nil, words.Errorf("the clock of the pod %s is off by %s already, so that a skew could not be seen", pod.Name, off)
	}
	spec := v1alpha1.TimeChaosSpec{ContainerSelector: v1alpha1.ContainerSelector{PodSelector: only(pod)}, TimeOffset: s.skew.String(), Duration: lasting(f)}
	return t.chaos(pod, s, &v1alpha1.TimeChaos{Spec: spec}, "TimeChaos"), nil
}

// HangReplica has a PodChaos put a program that does nothing in the place of the
// pod's.
func (t *Target) HangReplica(_ context.Context, v deploy.Victim, f scenarios.Fault) (deploy.Effect, error) {
	pod, err := t.pod(v)
	if err != nil {
		return nil, err
	}
	spec := v1alpha1.PodChaosSpec{ContainerSelector: v1alpha1.ContainerSelector{PodSelector: only(pod)}, Action: v1alpha1.PodFailureAction, Duration: lasting(f)}
	return t.chaos(pod, hangSight{t, pod}, &v1alpha1.PodChaos{Spec: spec}, "PodChaos"), nil
}

func only(pod *corev1.Pod) v1alpha1.PodSelector {
	return v1alpha1.PodSelector{Mode: v1alpha1.AllMode, Selector: v1alpha1.PodSelectorSpec{Pods: map[string][]string{pod.Namespace: {pod.Name}}}}
}

// lasting is when a fault ends by itself, should nobody revert it: a while after its
// hold, because the time counts from when it was made.
func lasting(f scenarios.Fault) *string {
	d := (time.Duration(f.For) + cmp.Or(time.Duration(f.Within), time.Minute)).Round(time.Second).String()
	return &d
}

// meshSight is what shows a fault of Chaos Mesh in effect, and gone.
type meshSight interface {
	inEffect(ctx context.Context) (words.Sentence, error)
	gone(ctx context.Context) (words.Sentence, error)
}

// meshed is a fault that an object of Chaos Mesh is.
type meshed struct {
	*Target
	pod    *corev1.Pod
	sight  meshSight
	of     runtime.Object
	kind   schema.GroupVersionKind
	name   string
	before int // how many pods served
}

func (t *Target) chaos(pod *corev1.Pod, s meshSight, of runtime.Object, kind string) *meshed {
	t.faults.Lock()
	defer t.faults.Unlock()
	t.played++
	return &meshed{Target: t, pod: pod, sight: s, of: of, kind: v1alpha1.SchemeGroupVersion.WithKind(kind), name: fmt.Sprintf("launchgate-%s-%d", t.run, t.played), before: len(t.pods.serving())}
}

func (m *meshed) Victim() string { return m.pod.Name }

func (m *meshed) Undo() []deploy.Undo {
	to := m.left(m.name)
	if k, err := m.api.find(context.Background(), m.kind); err == nil { // it was found before
		to.Made = []kind{k}
	}
	return []deploy.Undo{undoing(undoChaos, to)}
}

// object is what is sent: with the victim as its owner, so that it is gone with that.
func (m *meshed) object() (*unstructured.Unstructured, error) {
	fields, err := runtime.DefaultUnstructuredConverter.ToUnstructured(m.of)
	if err != nil {
		return nil, err
	}
	delete(fields, "status")
	delete(fields, "metadata")
	o := &unstructured.Unstructured{Object: fields}
	o.SetGroupVersionKind(m.kind)
	o.SetName(m.name)
	o.SetNamespace(m.pod.Namespace)
	o.SetLabels(map[string]string{runLabel: m.run, "app.kubernetes.io/managed-by": manager})
	o.SetOwnerReferences([]metav1.OwnerReference{{APIVersion: "v1", Kind: "Pod", Name: m.pod.Name, UID: m.pod.UID}})
	return o, nil
}

func (m *meshed) Inject(ctx context.Context) (sight, error) {
	o, err := m.object()
	if err != nil {
		return sight{}, err
	}
	if err := m.api.apply(ctx, o); err != nil {
		return sight{}, err
	}
	return sight{How: words.Say("the %s %s strikes the pod %s", m.kind.Kind, m.name, m.pod.Name)}, nil
}

const meshEvery = 200 * time.Millisecond

// SeeInEffect waits until Chaos Mesh says that it has injected, and then looks at what
// that does.
func (m *meshed) SeeInEffect(ctx context.Context) (sight, error) {
	for {
		injected, why, err := m.injected(ctx)
		if err != nil && ctx.Err() == nil {
			return sight{}, err
		}
		if injected {
			break
		}
		if err := sleep(ctx, meshEvery); err != nil {
			if why != "" {
				err = words.Errorf("Chaos Mesh could not inject the %s %s: %s", m.kind.Kind, m.name, why)
			}
			return sight{}, err
		}
	}
	how, err := m.sight.inEffect(ctx)
	return sight{How: how}, err
}

// injected reads whether Chaos Mesh has struck every victim; why is what it says of
// the last failure.
func (m *meshed) injected(ctx context.Context) (all bool, why string, err error) {
	c, err := m.client(ctx)
	if err != nil {
		return false, "", err
	}
	o, err := c.Get(ctx, m.name, metav1.GetOptions{})
	if err != nil {
		return false, "", m.api.explain(err)
	}
	chaos, err := into[struct {
		Status v1alpha1.ChaosStatus `json:"status"`
	}](o)
	if err != nil {
		return false, "", err
	}
	for _, c := range chaos.Status.Conditions {
		all = all || c.Type == v1alpha1.ConditionAllInjected && c.Status == corev1.ConditionTrue
	}
	if len(chaos.Status.Experiment.Records) == 0 {
		return false, "it selected no pod", nil
	}
	for _, r := range chaos.Status.Experiment.Records {
		for _, e := range r.Events {
			if e.Type == v1alpha1.TypeFailed {
				why = e.Message
			}
		}
	}
	return all, why, nil
}

func (m *meshed) client(ctx context.Context) (dynamic.ResourceInterface, error) {
	k, err := m.api.find(ctx, m.kind)
	if err != nil {
		return nil, err
	}
	return m.api.in(k, m.pod.Namespace), nil
}

// Revert removes the object: Chaos Mesh takes back what it did before it lets it go.
func (m *meshed) Revert(ctx context.Context) (sight, error) {
	c, err := m.client(ctx)
	if err != nil {
		return sight{}, err
	}
	if err := drop(ctx, c, m.name); err != nil {
		return sight{}, words.Errorf("remove %s %s: %s", m.kind.Kind, m.name, m.api.explain(err))
	}
	return sight{How: words.Say("the %s %s was removed", m.kind.Kind, m.name)}, nil
}

func (m *meshed) SeeGone(ctx context.Context) (sight, error) {
	c, err := m.client(ctx)
	if err != nil {
		return sight{}, err
	}
	forced, err := m.api.letGo(ctx, c, m.name)
	if err != nil {
		return sight{}, err
	}
	how, err := m.sight.gone(ctx)
	if err != nil {
		return sight{}, err
	}
	if forced {
		how = words.Say("%s; Chaos Mesh did not let the object go within %s, so its finalizers were taken off", how, letGoWithin)
	}
	again, err := m.whole(ctx, m.before)
	return sight{How: words.Say("%s, and %s", how, again.How)}, err
}

// letGoWithin is how long Chaos Mesh has to take back a fault whose object is being
// removed. One that it could not inject stays on its finalizers for ever.
var letGoWithin = 10 * time.Second

// letGo waits until an object is gone, and takes off its finalizers where it does not
// go.
func (a *api) letGo(ctx context.Context, c dynamic.ResourceInterface, name string) (forced bool, err error) {
	for began := time.Now(); ; {
		_, err := c.Get(ctx, name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return forced, nil
		}
		if err == nil && !forced && time.Since(began) > letGoWithin {
			_, err = c.Patch(ctx, name, types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`), metav1.PatchOptions{FieldManager: manager})
			if err != nil && !apierrors.IsNotFound(err) {
				return false, a.explain(err)
			}
			forced = true
		}
		if err := sleep(ctx, meshEvery); err != nil {
			return forced, err
		}
	}
}

// endChaos removes what a harness that died has left of a fault.
func (a *api) endChaos(ctx context.Context, to left) error {
	for _, k := range to.Made {
		c := a.in(k, to.Namespace)
		if err := drop(ctx, c, to.Name); err != nil {
			return words.Errorf("undo: remove %s %s: %s", k.Resource.Resource, to.Name, a.explain(err))
		}
		if _, err := a.letGo(ctx, c, to.Name); err != nil {
			return words.Errorf("undo: remove %s %s: %s", k.Resource.Resource, to.Name, err)
		}
	}
	return nil
}

// looker makes requests through the API server's proxy, which go to the pod's address
// over the network: a port-forward would reach its loopback.
type looker struct {
	api  *api
	pod  *corev1.Pod
	port int
	path string
}

func (t *Target) looking(pod *corev1.Pod, path string) looker {
	return looker{t.api, pod, t.way.port, path}
}

// look requests the path once, and returns how much was answered and how long that took.
// An answer of any status is one, but not one of the proxy that it got none.
func (l looker) look(ctx context.Context, within time.Duration) (size int, took time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	client, err := rest.HTTPClientFor(l.api.config)
	if err != nil {
		return 0, 0, err
	}
	at, err := url.Parse(l.api.config.Host)
	if err != nil {
		return 0, 0, err
	}
	at = at.JoinPath("api/v1/namespaces", l.pod.Namespace, "pods", fmt.Sprintf("%s:%d", l.pod.Name, l.port), "proxy", l.path)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at.String(), nil)
	if err != nil {
		return 0, 0, err
	}
	began := time.Now()
	resp, err := client.Do(req)
	if err != nil {
		return 0, 0, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 16<<20))
	took = time.Since(began)
	if err != nil {
		return 0, took, err
	}
	var status metav1.Status
	if resp.StatusCode >= 400 && json.Unmarshal(b, &status) == nil && status.Kind == "Status" {
		return 0, took, &apierrors.StatusError{ErrStatus: status}
	}
	return len(b), took, nil
}

const (
	lookWithin = 5 * time.Second
	retransmit = 200 * time.Millisecond // TCP waits at least that long for an acknowledgement
	looksQuick = 10                     // requests in a row that show that no packets are lost
)

// networkSight sees a fault of a network by requests.
type networkSight struct {
	look      looker
	usual     time.Duration // that a request takes without the fault
	longer    time.Duration // by how much one takes longer with it
	sometimes bool          // it is not every request that does
	cut       bool          // none is answered
	rate      float64       // bytes a second; 0: it is not limited
}

// before measures how it is without the fault.
func (n *networkSight) before(ctx context.Context) error {
	var all []time.Duration
	size := 0
	for range 5 {
		got, took, err := n.look.look(ctx, lookWithin)
		if err != nil {
			return words.Errorf("the pod %s cannot be reached through the API server's proxy, so that a fault of its network could not be seen: %s", n.look.pod.Name, n.look.api.explain(err))
		}
		all, size = append(all, took), got
	}
	slices.Sort(all)
	n.usual = all[len(all)/2]
	if n.rate > 0 {
		n.longer = time.Duration(float64(size) / n.rate * 0.8 * float64(time.Second))
		if n.longer < 3*n.usual || n.longer < 50*time.Millisecond {
			return words.Errorf("a bandwidth of %s/s could not be seen: the page %s has %d bytes and takes %s without it; take a narrower one", scenarios.Size(n.rate), n.look.path, size, n.usual.Round(time.Microsecond))
		}
	}
	return nil
}

func (n *networkSight) within() time.Duration { return lookWithin + 4*n.longer }

func (n *networkSight) inEffect(ctx context.Context) (words.Sentence, error) {
	for {
		_, took, err := n.look.look(ctx, n.within())
		switch {
		case ctx.Err() != nil:
			return words.Sentence{}, words.Errorf("requests to the pod %s are answered as before (%s): %s", n.look.pod.Name, n.usual.Round(time.Microsecond), context.Cause(ctx))
		case n.cut && err != nil:
			return words.Say("a request to the address of the pod %s is not answered: %s", n.look.pod.Name, err), nil
		case !n.cut && err == nil && took >= n.usual+n.longer:
			return words.Say("a request to the address of the pod %s took %s, and %s before", n.look.pod.Name, took.Round(time.Millisecond), n.usual.Round(time.Microsecond)), nil
		}
		if err := sleep(ctx, meshEvery/4); err != nil {
			continue // the next look says so
		}
	}
}

func (n *networkSight) gone(ctx context.Context) (words.Sentence, error) {
	most := n.usual + n.longer/2
	if n.cut {
		most = n.within()
	}
	needed := 1
	if n.sometimes {
		needed = looksQuick
	}
	for quick := 0; ; {
		_, took, err := n.look.look(ctx, n.within())
		if quick++; err != nil || took > most {
			quick = 0
		}
		if quick >= needed {
			return words.Say("a request to the address of the pod %s took %s", n.look.pod.Name, took.Round(time.Microsecond)), nil
		}
		if err := sleep(ctx, meshEvery/4); err != nil {
			return words.Sentence{}, err
		}
	}
}

// clockError is how far a Date can be off: it has whole seconds, and takes a while to
// come.
const clockError = 3 * time.Second

// clockSight sees the clock of a pod by the Date of its answers.
type clockSight struct {
	t    *Target
	pod  *corev1.Pod
	skew time.Duration
}

// off is how far the clock of the pod is ahead.
func (s *clockSight) off(ctx context.Context) (time.Duration, error) {
	asked := time.Now()
	header, _, _, err := s.t.way.fetch(ctx, s.pod, s.t.way.port, "/")
	if err != nil {
		return 0, err
	}
	date, err := http.ParseTime(header.Get("Date"))
	if err != nil {
		return 0, words.Errorf("the answers of the pod %s have no Date, so that its clock is not seen", s.pod.Name)
	}
	return date.Sub(asked.Add(time.Since(asked) / 2).Add(-time.Second / 2)).Round(time.Second), nil
}

func (s *clockSight) until(ctx context.Context, want time.Duration) (words.Sentence, error) {
	for {
		off, err := s.off(ctx)
		if err == nil && (off-want).Abs() <= clockError {
			return words.Say("the Date of an answer of the pod %s is %s ahead of this machine's clock", s.pod.Name, off), nil
		}
		if waited := sleep(ctx, meshEvery); waited != nil {
			return words.Sentence{}, errors.Join(waited, err)
		}
	}
}

func (s *clockSight) inEffect(ctx context.Context) (words.Sentence, error) {
	return s.until(ctx, s.skew)
}
func (s *clockSight) gone(ctx context.Context) (words.Sentence, error) { return s.until(ctx, 0) }

// hangSight sees a pod that is there and does not answer.
type hangSight struct {
	t   *Target
	pod *corev1.Pod
}

func (s hangSight) inEffect(ctx context.Context) (words.Sentence, error) {
	for {
		pod := s.t.pods.named(s.pod.Name)
		if pod == nil {
			return words.Sentence{}, words.Errorf("the pod %s is gone", s.pod.Name)
		}
		asking, cancel := context.WithTimeout(ctx, time.Second)
		_, _, _, err := s.t.way.fetch(asking, pod, s.t.way.port, "/")
		cancel()
		if err != nil && !serves(pod) && ctx.Err() == nil {
			return words.Say("the pod %s is there, answers nothing and is not ready", pod.Name), nil
		}
		if err := sleep(ctx, meshEvery); err != nil {
			return words.Sentence{}, err
		}
	}
}

func (s hangSight) gone(ctx context.Context) (words.Sentence, error) {
	err := s.t.pods.until(ctx, func() bool {
		pod := s.t.pods.named(s.pod.Name)
		return pod == nil || serves(pod)
	})
	return words.Say("the pod %s is ready, or another one is in its place", s.pod.Name), err
}
