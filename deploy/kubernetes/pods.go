package kubernetes

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/launchgate/launchgate/deploy"
)

// pods are the pods that a selector finds, as the API server last reported
// them.
type pods struct {
	api       *api
	namespace string
	selector  string
	onEvent   func(deploy.Event)

	mu      sync.Mutex
	all     map[types.UID]*corev1.Pod
	gone    map[types.UID]time.Time
	evicted map[types.UID]bool // the API server has marked them as evicted
	changed chan struct{}      // closed and replaced at each change
	listed  bool               // the first list has arrived
	lost    error              // why the API server does not answer now; nil: it does
	ready   int                // number of pods that were last reported as ready
}

func newPods(a *api, namespace, selector string, onEvent func(deploy.Event)) *pods {
	return &pods{api: a, namespace: namespace, selector: selector, onEvent: onEvent, all: map[types.UID]*corev1.Pod{}, gone: map[types.UID]time.Time{}, evicted: map[types.UID]bool{}, changed: make(chan struct{}), ready: -1}
}

// watchAgain is the wait after the API server did not answer.
const watchAgain = 500 * time.Millisecond

// follow lists and watches until ctx ends.
func (p *pods) follow(ctx context.Context) {
	for ctx.Err() == nil {
		if err := p.listAndWatch(ctx); err != nil && ctx.Err() == nil {
			p.change(func() { p.lost = p.api.explain(err) })
			_ = sleep(ctx, watchAgain)
		}
	}
}

func (p *pods) listAndWatch(ctx context.Context) error {
	c := p.api.dynamic.Resource(podsGVR).Namespace(p.namespace)
	list, err := c.List(ctx, metav1.ListOptions{LabelSelector: p.selector})
	if err != nil {
		return err
	}
	all := map[types.UID]*corev1.Pod{}
	for i := range list.Items {
		pod, err := into[corev1.Pod](&list.Items[i])
		if err != nil {
			return err
		}
		all[pod.UID] = pod
	}
	p.change(func() {
		for uid := range p.all {
			if all[uid] == nil {
				p.gone[uid] = time.Now()
			}
		}
		p.all, p.listed, p.lost = all, true, nil
	})
	w, err := c.Watch(ctx, metav1.ListOptions{LabelSelector: p.selector, ResourceVersion: list.GetResourceVersion()})
	if err != nil {
		return err
	}
	defer w.Stop()
	for event := range w.ResultChan() {
		o, ok := event.Object.(*unstructured.Unstructured)
		if !ok || event.Type == watch.Error || event.Type == watch.Bookmark {
			return nil // also if the last version is too old: list again
		}
		pod, err := into[corev1.Pod](o)
		if err != nil {
			return err
		}
		p.change(func() {
			if markedEvicted(pod) {
				p.evicted[pod.UID] = true
			}
			if event.Type == watch.Deleted {
				delete(p.all, pod.UID)
				p.gone[pod.UID] = time.Now()
				return
			}
			p.all[pod.UID] = pod
		})
	}
	return nil
}

// change applies a change, wakes the waiters, and reports how many pods serve.
func (p *pods) change(do func()) {
	p.mu.Lock()
	before := map[string]bool{}
	for _, pod := range p.all {
		before[pod.Name] = serves(pod)
	}
	do()
	now := time.Now()
	var events []deploy.Event
	ready, after := 0, map[string]bool{}
	for _, pod := range p.all {
		after[pod.Name] = serves(pod)
		if serves(pod) {
			ready++
		}
	}
	for name, was := range before {
		if was && !after[name] {
			events = append(events, deploy.Event{At: now, Name: "replica_ready", Subject: name})
		}
	}
	for name, is := range after {
		if is && !before[name] {
			events = append(events, deploy.Event{At: now, Name: "replica_ready", Subject: name, Value: 1})
		}
	}
	if p.listed && ready != p.ready {
		p.ready = ready
		events = append(events, deploy.Event{At: now, Name: "replicas_ready", Value: float64(ready)})
	}
	close(p.changed)
	p.changed = make(chan struct{})
	p.mu.Unlock()
	for _, e := range events {
		p.onEvent(e)
	}
}

// until waits until enough returns true, and calls it at each change.
func (p *pods) until(ctx context.Context, enough func() bool) error {
	for {
		p.mu.Lock()
		changed := p.changed
		p.mu.Unlock()
		if enough() {
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-changed:
		case <-time.After(time.Second): // for conditions that are not about pods
		}
	}
}

// list returns the pods that are not being deleted, ordered by name.
func (p *pods) list() []*corev1.Pod {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []*corev1.Pod
	for _, pod := range p.all {
		if pod.DeletionTimestamp == nil && pod.Status.Phase != corev1.PodFailed && pod.Status.Phase != corev1.PodSucceeded {
			all = append(all, pod)
		}
	}
	slices.SortFunc(all, func(a, b *corev1.Pod) int { return cmp.Compare(a.Name, b.Name) })
	return all
}

// serving returns the pods to which a Service sends requests.
func (p *pods) serving() (all []*corev1.Pod) {
	for _, pod := range p.list() {
		if serves(pod) {
			all = append(all, pod)
		}
	}
	return all
}

// named returns the pod of a name, or nil.
func (p *pods) named(name string) *corev1.Pod {
	for _, pod := range p.list() {
		if pod.Name == name {
			return pod
		}
	}
	return nil
}

// goneAt is when the API server reported that a pod was gone. It is zero if the
// pod exists.
func (p *pods) goneAt(uid types.UID) time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.gone[uid]
}

// wasEvicted reports whether the API server has marked a pod as evicted, and not just
// as deleted.
func (p *pods) wasEvicted(uid types.UID) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.evicted[uid]
}

// markedEvicted reports whether a pod ends because of an eviction by the API.
// Kubernetes sets this condition since version 1.26.
func markedEvicted(pod *corev1.Pod) bool {
	return slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.DisruptionTarget && c.Status == corev1.ConditionTrue && c.Reason == "EvictionByEvictionAPI"
	})
}

// trouble is why the API server does not answer now.
func (p *pods) trouble() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.lost
}

// serves reports whether a Service sends requests to a pod.
func serves(pod *corev1.Pod) bool {
	if pod.DeletionTimestamp != nil {
		return false
	}
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}
