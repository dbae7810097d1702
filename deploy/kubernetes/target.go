// Package kubernetes has the target that runs on a Kubernetes cluster: the
// bundled service, deployed from the manifests in this folder, or an existing
// Deployment or StatefulSet. Faults act through the API server, with the rights
// of the kubeconfig's user.
package kubernetes

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/launchgate/launchgate/deploy"
	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/scenarios"
)

// PlanFor plans the target.kubernetes of a gate.
func PlanFor(g scenarios.Gate) deploy.Plan {
	return plan{*g.Resolved().Target.Kubernetes}
}

type plan struct{ spec scenarios.Kubernetes }

// About is what the gate says of it.
func (p plan) About() deploy.About {
	a := deploy.About{Kind: "kubernetes", Model: p.spec.Model, Replicas: p.spec.Replicas, Tells: []string{"replicas_ready"}}
	where := words.Say("the current context")
	if p.spec.Context != "" {
		where = words.Verbatim(p.spec.Context)
	}
	if p.bundled() {
		a.Place = words.Say("the bundled service by the manifests of %s, in the namespace %s of the cluster of %s", p.spec.Overlay, p.spec.Namespace, where)
	} else {
		a.Place = words.Say("the pods of %s in the namespace %s of the cluster of %s, which are already there", p.spec.Selector, p.spec.Namespace, where)
	}
	if strings.Contains(p.spec.Access, "://") {
		a.URL = p.spec.Access
	}
	return a
}

func (p plan) bundled() bool { return p.spec.Deploy == scenarios.DeployBundled }

// Replicas is empty: pods get their names when they are made.
func (plan) Replicas() []deploy.Replica { return nil }

// PlayedBy is empty: the API server plays every fault.
func (plan) PlayedBy(scenarios.Fault) words.Sentence { return words.Sentence{} }

// Lacks returns nil for what the API server or the gate's own commands can do.
func (p plan) Lacks(c deploy.Capability, f scenarios.Fault) error {
	switch {
	case f.MinStreams > 0 && !p.bundled():
		return lack("how many streams run through a pod is not known of a service that launchgate did not deploy, so min_streams cannot be waited for")
	case c == deploy.KillReplica, c == deploy.Preempt, c == deploy.DrainNode:
		return nil
	case c == deploy.TakeNode && f.Disk == scenarios.DiskLost:
		return lack("its manifests have no ledger, whose disk could be lost")
	case c == deploy.TakeNode && p.spec.Node == nil:
		return lack("nothing says how a node is stopped: give target.kubernetes.node the commands stop and start")
	case c == deploy.TakeNode:
		return nil
	case c == deploy.RollOutBad && !p.bundled():
		return lack("launchgate did not deploy this service, and does not know what a bad version of it is")
	case c == deploy.RollOutBad && f.Release != scenarios.ReleaseCorruptModel:
		return lack("on Kubernetes a bad version is found by the Deployment, when it does not get ready: only corrupt-model is played")
	case c == deploy.RollOutBad:
		return nil
	case c == deploy.ShapeNetwork && p.spec.Access == scenarios.AccessPortForward:
		return lack("it cannot %s: the load goes through the API server to the loopback of the pods (access: port-forward), where no network is shaped; take access: in-cluster, or a URL", c.Said())
	case c == deploy.ShapeNetwork && f.Cut == scenarios.CutReset:
		return lack("Chaos Mesh cuts a network without a word: cut: reset is not played on a cluster")
	case byChaosMesh[c].Kind != "":
		return nil
	}
	return lack("it cannot %s: the API server alone does not, and launchgate has no other means on a cluster", c.Said())
}

func lack(p words.Phrase, args ...any) error { return deploy.Lack{Reason: words.Say(p, args...)} }

// Target is a service on a cluster.
type Target struct {
	plan
	api     *api
	pods    *pods
	way     *forwarder // connects to the pods
	access  deploy.Access
	made    []*unstructured.Unstructured
	run     string // the value of runLabel
	journal deploy.Journal
	onEvent func(deploy.Event)
	alive   context.Context // ends when the target is stopped
	stop    context.CancelFunc
	running sync.WaitGroup

	meshes map[schema.GroupVersionKind]error // why the cluster lacks a kind of Chaos Mesh
	faults sync.Mutex
	played int // faults by Chaos Mesh so far, which numbers their objects
}

// runLabel is the label of every object that a run has made.
const runLabel = "launchgate.dev/run"

const journalID = "target.kubernetes"

// Open applies the manifests, if the gate asks launchgate to deploy, and finds
// out how to reach the pods.
func (p plan) Open(ctx context.Context, o deploy.Setup) (deploy.Target, error) {
	a, err := connect("", p.spec.Context)
	if err != nil {
		return nil, err
	}
	return p.open(ctx, a, o)
}

func (p plan) open(ctx context.Context, a *api, o deploy.Setup) (_ deploy.Target, err error) {
	run, err := newRun()
	if err != nil {
		return nil, err
	}
	t := &Target{plan: p, api: a, run: run, journal: o.Journal, onEvent: o.OnEvent}
	watching, stop := context.WithCancel(context.Background())
	t.alive, t.stop = watching, stop
	defer func() {
		if err != nil {
			err = errors.Join(err, t.Stop())
		}
	}()
	if p.bundled() {
		if err := t.deploy(ctx); err != nil {
			return nil, err
		}
	}
	t.findMesh(ctx)
	t.pods = newPods(a, p.spec.Namespace, p.spec.Selector, o.OnEvent)
	t.running.Go(func() { t.pods.follow(watching) })
	if t.access, err = t.reach(ctx); err != nil {
		return nil, err
	}
	return t, nil
}

// deploy applies the manifests. An object that exists already belongs to
// somebody else: it is an error, and the object is neither changed nor removed.
// Only the namespace may exist.
func (t *Target) deploy(ctx context.Context) error {
	objects, err := Render(ctx, t.spec)
	if err != nil {
		return err
	}
	made := t.left(t.run)
	if made.Made, err = t.api.kindsOf(ctx, objects); err != nil {
		return err
	}
	if t.journal != nil {
		if err := t.journal.Begin(journalID, "deployment", t.spec.Namespace, []deploy.Undo{undoing(undoRemove, made)}); err != nil {
			return err
		}
	}
	for _, o := range objects {
		there, err := t.api.there(ctx, o)
		switch {
		case o.GetKind() == "Namespace" && (there || apierrors.IsForbidden(err)): // without the right to see it, assume that it exists; if not, the next object fails
			continue
		case err != nil:
			return t.api.explain(err)
		case there:
			return words.Errorf("%s is already there: drive it with deploy: none, choose another namespace, or remove it (launchgate recover removes what a run has left)", named(o))
		}
		labels := o.GetLabels()
		if labels == nil {
			labels = map[string]string{}
		}
		labels[runLabel] = t.run
		o.SetLabels(labels)
		t.made = append(t.made, o)
		if err := t.api.apply(ctx, o); err != nil {
			return err
		}
	}
	return nil
}

// left describes something in this cluster that may have to be undone.
func (t *Target) left(name string) left {
	return left{Kubeconfig: kubeconfigFile(), Context: t.spec.Context, Namespace: t.spec.Namespace, Name: name}
}

// reach finds out how to reach the service.
func (t *Target) reach(ctx context.Context) (deploy.Access, error) {
	e := scenarios.Endpoint{URL: t.spec.Access, Model: t.spec.Model, APIKeyEnv: t.spec.APIKeyEnv, CAFile: t.spec.CAFile, Tokenizer: t.spec.Tokenizer}
	port, pod, err := t.ports(ctx)
	switch {
	case strings.Contains(t.spec.Access, "://") && err != nil:
		t.way = newForwarder(t.api, t.pods, 0)
		return deploy.Access{Endpoint: e}, nil
	case err != nil:
		return deploy.Access{}, err
	case strings.Contains(t.spec.Access, "://"):
		t.way = newForwarder(t.api, t.pods, pod)
	case t.spec.Access == scenarios.AccessInCluster:
		t.way = newForwarder(t.api, t.pods, pod)
		e.URL = t.inside(port)
	default:
		if t.way, err = forward(t.api, t.pods, pod); err != nil {
			return deploy.Access{}, err
		}
		e.URL = "http://" + t.way.addr()
		return deploy.Access{Endpoint: e, Inside: t.inside(port)}, nil
	}
	return deploy.Access{Endpoint: e}, nil
}

// inside is the URL of the Service, as pods reach it.
func (t *Target) inside(port int) string {
	return fmt.Sprintf("http://%s.%s.svc:%d", t.spec.ServiceName(), t.spec.Namespace, port)
}

// ports returns the port of the Service and the port of the pods behind it. The
// Service port is the one that the gate names, or the first.
func (t *Target) ports(ctx context.Context) (service, pod int, err error) {
	o, err := t.api.dynamic.Resource(servicesGVR).Namespace(t.spec.Namespace).Get(ctx, t.spec.ServiceName(), metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return 0, 0, words.Errorf("there is no Service %s in the namespace %s: say in target.kubernetes.service which one it is", t.spec.ServiceName(), t.spec.Namespace)
	}
	if err != nil {
		return 0, 0, t.api.explain(err)
	}
	s, err := into[corev1.Service](o)
	if err != nil {
		return 0, 0, err
	}
	var has []string
	for _, p := range s.Spec.Ports {
		has = append(has, strings.TrimPrefix(p.Name+":", ":")+strconv.Itoa(int(p.Port)))
		if want := t.spec.ServicePort(); want != "" && want != p.Name && want != strconv.Itoa(int(p.Port)) {
			continue
		}
		pod := int(p.TargetPort.IntVal)
		if p.TargetPort.StrVal != "" {
			if pod, err = t.podPort(ctx, p.TargetPort.StrVal); err != nil {
				return 0, 0, err
			}
		}
		if pod == 0 {
			pod = int(p.Port)
		}
		return int(p.Port), pod, nil
	}
	return 0, 0, words.Errorf("the Service %s has no port %q; it has %s", t.spec.ServiceName(), t.spec.ServicePort(), strings.Join(has, ", "))
}

// podPort is the container port with a name.
func (t *Target) podPort(ctx context.Context, name string) (int, error) {
	limited, cancel := context.WithTimeout(ctx, time.Duration(t.spec.ReadyTimeout))
	defer cancel()
	found := 0
	err, hopeless := t.until(limited, func(*appsv1.Deployment) bool {
		for _, pod := range t.pods.list() {
			for _, c := range pod.Spec.Containers {
				for _, p := range c.Ports {
					if p.Name == name {
						found = int(p.ContainerPort)
					}
				}
			}
		}
		return found != 0
	})
	switch {
	case hopeless != nil:
		return 0, hopeless
	case err == nil:
		return found, nil
	case ctx.Err() != nil:
		return 0, context.Cause(ctx)
	case t.pods.trouble() != nil:
		return 0, t.pods.trouble()
	case len(t.pods.list()) == 0:
		return 0, t.neverReady(context.WithoutCancel(ctx))
	}
	return 0, words.Errorf("no container of the pods of %s has a port named %q", t.spec.Selector, name)
}

// About adds the address to what the plan knew.
func (t *Target) About() deploy.About {
	a := t.plan.About()
	a.URL = t.access.Endpoint.URL
	a.Replicas = max(a.Replicas, len(t.pods.list()))
	return a
}

// Access is how the load reaches it.
func (t *Target) Access() deploy.Access { return t.access }

// Replicas are the pods that exist now.
func (t *Target) Replicas() []deploy.Replica {
	var all []deploy.Replica
	for _, pod := range t.pods.list() {
		r := deploy.Replica{Name: pod.Name, Node: pod.Spec.NodeName}
		for _, c := range pod.Spec.Containers {
			for name, n := range c.Resources.Limits {
				if strings.HasSuffix(string(name), "/gpu") {
					r.Device = fmt.Sprintf("%s × %s", n.String(), name)
				}
			}
		}
		all = append(all, r)
	}
	return all
}

// Metrics are not read from here: Prometheus scrapes pods.
func (t *Target) Metrics() []deploy.Source { return nil }

// WaitReady waits until the wanted number of pods serves. A problem that
// waiting cannot solve ends the wait with an error.
func (t *Target) WaitReady(ctx context.Context) error {
	limited, cancel := context.WithTimeout(ctx, time.Duration(t.spec.ReadyTimeout))
	defer cancel()
	err, hopeless := t.until(limited, func(d *appsv1.Deployment) bool {
		want := t.wanted(d)
		return want > 0 && len(t.pods.serving()) >= want
	})
	switch {
	case hopeless != nil:
		return hopeless
	case err == nil:
		t.tellVersions()
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	}
	return t.neverReady(context.WithoutCancel(ctx))
}

// tellVersions reports what every replica runs, and where.
func (t *Target) tellVersions() {
	for _, pod := range t.pods.serving() {
		for _, c := range pod.Status.ContainerStatuses {
			t.onEvent(deploy.Event{At: time.Now(), Name: "process_started", Subject: pod.Name, Text: words.Say("container %s on the node %s, image %s (%s)", c.Name, pod.Spec.NodeName, c.Image, c.ImageID)})
		}
	}
}

// until waits until done returns true. It calls done with the current state of
// the bundled Deployment. hopeless is why the pods will never be ready, which
// ends the wait too.
func (t *Target) until(ctx context.Context, done func(*appsv1.Deployment) bool) (err, hopeless error) {
	err = t.pods.until(ctx, func() bool {
		d := t.bundledDeployment(ctx)
		hopeless = t.hopeless(d)
		return hopeless != nil || done(d)
	})
	return err, hopeless
}

// bundledDeployment is nil for a service that launchgate did not deploy, and
// while the API server does not answer.
func (t *Target) bundledDeployment(ctx context.Context) *appsv1.Deployment {
	if !t.bundled() {
		return nil
	}
	d, err := t.deployment(ctx)
	if err != nil {
		return nil
	}
	return d
}

// wanted is how many pods must serve. For the bundled service the Deployment
// says so. For others it is the number of existing pods.
func (t *Target) wanted(d *appsv1.Deployment) int {
	if t.spec.Replicas > 0 {
		return t.spec.Replicas
	}
	if d != nil && d.Spec.Replicas != nil {
		return int(*d.Spec.Replicas)
	}
	return max(1, len(t.pods.list()))
}

func (t *Target) deployment(ctx context.Context) (*appsv1.Deployment, error) {
	o, err := t.api.dynamic.Resource(deploymentsGVR).Namespace(t.spec.Namespace).Get(ctx, deploymentName, metav1.GetOptions{})
	if err != nil {
		return nil, t.api.explain(err)
	}
	return into[appsv1.Deployment](o)
}

// hopeless is why pods will never be ready, as far as the cluster reports it.
func (t *Target) hopeless(d *appsv1.Deployment) error {
	if err := t.pods.hopeless(); err != nil {
		return err
	}
	if d == nil {
		return nil // keep waiting until the timeout
	}
	for _, c := range d.Status.Conditions {
		if c.Type == appsv1.DeploymentReplicaFailure && c.Status == corev1.ConditionTrue {
			if strings.Contains(c.Message, "exceeded quota") {
				return words.Errorf("the quota of the namespace %s is full, so pods are not made: %s", t.spec.Namespace, c.Message)
			}
			return words.Errorf("pods are not made: %s", c.Message)
		}
	}
	return nil
}

// hopeless is why some pods will never run: they may not be seen, or a container cannot
// be started.
func (p *pods) hopeless() error {
	if err := p.trouble(); err != nil && (apierrors.IsForbidden(err) || apierrors.IsUnauthorized(err)) {
		return err
	}
	for _, pod := range p.list() {
		for _, c := range append(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses...) {
			w := c.State.Waiting
			if w == nil {
				continue
			}
			switch w.Reason {
			case "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName":
				return words.Errorf("the image %s of the pod %s cannot be pulled (%s): %s; make images and load them into the nodes, or name a registry's in an overlay of your own", c.Image, pod.Name, w.Reason, w.Message)
			case "CreateContainerConfigError", "CreateContainerError":
				return words.Errorf("the container %s of the pod %s cannot be made (%s): %s", c.Name, pod.Name, w.Reason, w.Message)
			}
		}
	}
	return nil
}

// neverReady is an error that says what each pod waits for.
func (t *Target) neverReady(ctx context.Context) error {
	if err := t.pods.trouble(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	said := words.Say("%d of %d pods of %s were ready after %s", len(t.pods.serving()), t.wanted(t.bundledDeployment(ctx)), t.spec.Selector, time.Duration(t.spec.ReadyTimeout))
	for _, pod := range t.pods.list() {
		if !serves(pod) {
			said = words.Say("%s\n%s: %s", said, pod.Name, whyNot(pod))
		}
	}
	return words.Error(said)
}

// whyNot is the cluster's reason why a pod is not ready.
func whyNot(pod *corev1.Pod) words.Sentence {
	for _, c := range append(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses...) {
		if w := c.State.Waiting; w != nil {
			said := words.Say("the container %s waits (%s): %s", c.Name, w.Reason, w.Message)
			if last := c.LastTerminationState.Terminated; last != nil {
				said = words.Say("%s; it ended with exit code %d before", said, last.ExitCode)
				if why := strings.TrimSpace(last.Message); why != "" {
					said = words.Say("%s: %s", said, why)
				}
			}
			return said
		}
	}
	for _, c := range pod.Status.Conditions {
		if c.Status != corev1.ConditionTrue && c.Message != "" {
			return words.Say("%s is not true: %s", string(c.Type), c.Message)
		}
	}
	return words.Say("it is in the phase %s, and its readiness probe does not succeed", string(pod.Status.Phase))
}

// Stop closes the connections to the pods and removes what the run has made.
func (t *Target) Stop() error {
	if t.way != nil {
		t.way.close()
	}
	err := t.takeAway()
	t.stop()
	t.running.Wait()
	if err == nil && t.journal != nil && t.bundled() {
		err = t.journal.End(journalID)
	}
	return err
}

// removeWithin bounds the wait until everything that the run has made is gone.
const removeWithin = 90 * time.Second

// takeAway removes what the run has made, in reverse order, and waits until its
// pods are gone.
func (t *Target) takeAway() (err error) {
	if len(t.made) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), removeWithin)
	defer cancel()
	for i := len(t.made) - 1; i >= 0; i-- {
		err = errors.Join(err, t.api.remove(ctx, t.made[i]))
	}
	if err != nil {
		return err
	}
	for _, o := range t.made {
		for {
			there, err := t.api.there(ctx, o)
			if err == nil && !there {
				break
			}
			if sleep(ctx, 200*time.Millisecond) != nil {
				return words.Errorf("%s is still there %s after it was removed", named(o), removeWithin)
			}
		}
	}
	t.made = nil
	return nil
}

// InFlight is how many requests each pod computes, by its own metrics. It is
// not known for a service that launchgate did not deploy. Faults that wait for
// streams are refused earlier.
func (t *Target) InFlight(ctx context.Context) (map[string]int, error) {
	streams := map[string]int{}
	ready := t.pods.serving()
	var mu sync.Mutex
	var asking sync.WaitGroup
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	for _, pod := range t.pods.list() {
		streams[pod.Name] = 0
	}
	if !t.bundled() {
		return streams, nil
	}
	for _, pod := range ready {
		asking.Go(func() {
			b, err := t.way.ask(ctx, pod, metricsPort, "/metrics")
			if err != nil {
				return // a pod that does not answer counts as idle
			}
			mu.Lock()
			defer mu.Unlock()
			streams[pod.Name] = int(gauge(b, "ai_batch_size") + gauge(b, "ai_queue_size"))
		})
	}
	asking.Wait()
	return streams, nil
}

const metricsPort = 9090 // of the bundled service

// gauge sums a metric over its labels.
func gauge(metrics []byte, name string) (sum float64) {
	for lines := bufio.NewScanner(bytes.NewReader(metrics)); lines.Scan(); {
		rest, ok := strings.CutPrefix(lines.Text(), name)
		if !ok || rest == "" || rest[0] != '{' && rest[0] != ' ' {
			continue
		}
		if v, err := strconv.ParseFloat(rest[strings.LastIndexByte(rest, ' ')+1:], 64); err == nil {
			sum += v
		}
	}
	return sum
}

// Serving reports whether a Service sends requests to a pod.
func (t *Target) Serving(_ context.Context, replica string) bool {
	pod := t.pods.named(replica)
	return pod != nil && serves(pod)
}
