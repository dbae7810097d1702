package kubernetes

import (
	"context"
	_ "embed" // the manifests of the workers
	"encoding/json"
	"errors"
	"net"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/launchgate/launchgate/deploy"
	"github.com/launchgate/launchgate/internal/words"
)

// Workers says where load workers run on a cluster.
type Workers struct {
	Context   string // of the kubeconfig; empty: the current one, or the pod's service account
	Namespace string // which must be there
	Image     string // with launchgate; empty: that of the manifests
}

//go:embed workers/workers.yaml
var workersYAML string

const (
	workersJournal = "workers.kubernetes"
	workerPort     = 7071
	workerSum      = "LAUNCHGATE_WORKER_TOKEN_SHA256" // as in the manifests
)

var jobsGVR = schema.GroupVersionResource{Group: "batch", Version: "v1", Resource: "jobs"}

// Reaches is an error for the loopback of this machine.
func (Workers) Reaches(a deploy.Access) error {
	at := a.ForWorkers().URL
	u, err := url.Parse(at)
	if err != nil {
		return err
	}
	ip := net.ParseIP(u.Hostname())
	if a.Via != "" || u.Hostname() == "localhost" || ip != nil && (ip.IsLoopback() || ip.IsUnspecified()) {
		return words.Errorf("the service is reached at %s on this machine, where pods of a cluster do not reach it; take target.kubernetes, or a URL that they reach", at)
	}
	return nil
}

// Start applies the Job of the workers.
func (w Workers) Start(ctx context.Context, n int, sum string, j deploy.Journal) (deploy.Workers, error) {
	a, err := connect("", w.Context)
	if err != nil {
		return nil, err
	}
	return w.start(ctx, a, n, sum, j)
}

// workers are the pods of a Job.
type workers struct {
	Workers
	n       int
	api     *api
	pods    *pods
	way     *forwarder
	job     string // its name
	made    left
	journal deploy.Journal
	stop    context.CancelFunc
	running sync.WaitGroup
}

func (w Workers) start(ctx context.Context, a *api, n int, sum string, j deploy.Journal) (_ deploy.Workers, err error) {
	run, err := newRun()
	if err != nil {
		return nil, err
	}
	objects, err := w.manifests(n, sum, run)
	if err != nil {
		return nil, err
	}
	s := &workers{Workers: w, n: n, api: a, job: objects[0].GetName(), journal: j,
		made: left{Kubeconfig: kubeconfigFile(), Context: w.Context, Namespace: w.Namespace, Name: run}}
	if s.made.Made, err = a.kindsOf(ctx, objects); err != nil {
		return nil, err
	}
	if err := j.Begin(workersJournal, "workers", w.Namespace, []deploy.Undo{undoing(undoRemove, s.made)}); err != nil {
		return nil, err
	}
	watching, stop := context.WithCancel(context.Background())
	s.stop = stop
	s.pods = newPods(a, w.Namespace, runLabel+"="+run, func(deploy.Event) {})
	s.way = newForwarder(a, s.pods, workerPort)
	s.running.Go(func() { s.pods.follow(watching) })
	var owner *unstructured.Unstructured
	for _, o := range objects {
		if owner != nil { // the Job, when it goes, takes the others with it
			o.SetOwnerReferences([]metav1.OwnerReference{{APIVersion: owner.GetAPIVersion(), Kind: owner.GetKind(), Name: owner.GetName(), UID: owner.GetUID()}})
		}
		if err := a.apply(ctx, o); err != nil {
			return nil, errors.Join(err, s.Stop())
		}
		if owner == nil {
			if owner, err = a.dynamic.Resource(jobsGVR).Namespace(w.Namespace).Get(ctx, o.GetName(), metav1.GetOptions{}); err != nil {
				return nil, errors.Join(a.explain(err), s.Stop())
			}
		}
	}
	return s, nil
}

// manifests are the Job, and then what belongs to it.
func (w Workers) manifests(n int, sum, run string) ([]*unstructured.Unstructured, error) {
	objects, err := decode(workersYAML)
	if err != nil {
		return nil, err
	}
	for _, o := range objects {
		o.SetNamespace(w.Namespace)
		o.SetName(o.GetName() + "-" + run[:8])
		labels := o.GetLabels()
		labels[runLabel] = run
		o.SetLabels(labels)
		switch o.GetKind() {
		case "Job":
			job, err := into[batchv1.Job](o)
			if err != nil {
				return nil, err
			}
			job.Spec.Completions, job.Spec.Parallelism = new(int32(n)), new(int32(n))
			job.Spec.Template.Labels[runLabel] = run
			spread := job.Spec.Template.Spec.TopologySpreadConstraints
			spread[0].LabelSelector.MatchLabels = map[string]string{runLabel: run}
			c := &job.Spec.Template.Spec.Containers[0]
			if w.Image != "" {
				c.Image = w.Image
			}
			for i := range c.Env {
				if c.Env[i].Name == workerSum {
					c.Env[i].Value = sum
				}
			}
			if err := setSpec(o, job.Spec); err != nil {
				return nil, err
			}
		case "NetworkPolicy":
			if err := unstructured.SetNestedStringMap(o.Object, map[string]string{runLabel: run}, "spec", "podSelector", "matchLabels"); err != nil {
				return nil, err
			}
		}
	}
	return objects, nil
}

// indexKey is the annotation that has the number of a pod of an Indexed Job.
const indexKey = batchv1.JobCompletionIndexAnnotation

// pod is the pod of a worker, or nil.
func (s *workers) pod(worker int) *corev1.Pod {
	for _, pod := range s.pods.list() {
		if pod.Annotations[indexKey] == strconv.Itoa(worker) {
			return pod
		}
	}
	return nil
}

// Dial connects to the loopback of a pod through the API server.
func (s *workers) Dial(_ context.Context, worker int) (net.Conn, error) {
	pod := s.pod(worker)
	switch {
	case s.pods.trouble() != nil:
		return nil, s.pods.trouble()
	case pod == nil:
		return nil, words.Errorf("the Job %s has made %d of %d pods; kubectl -n %s describe job %s says why, such as a quota that is full", s.job, len(s.pods.list()), s.n, s.Namespace, s.job)
	case !serves(pod):
		return nil, words.Errorf("the pod %s is not ready: %s", pod.Name, whyNot(pod))
	}
	conn, err := s.way.dial(pod, workerPort)
	if err != nil {
		return nil, err
	}
	return netConn{conn}, nil
}

// Hopeless is why pods of the Job will never run.
func (s *workers) Hopeless() error {
	if err := s.pods.hopeless(); err != nil {
		return err
	}
	return s.failed()
}

// failed is why a worker has ended. None of them ends before it is told to.
func (s *workers) failed() error {
	s.pods.mu.Lock()
	defer s.pods.mu.Unlock()
	for _, pod := range s.pods.all {
		if pod.Status.Phase != corev1.PodFailed && pod.Status.Phase != corev1.PodSucceeded {
			continue
		}
		why := words.Verbatim(pod.Status.Message)
		for _, c := range pod.Status.ContainerStatuses {
			if ended := c.State.Terminated; ended != nil {
				why = words.Say("exit code %d: %s", ended.ExitCode, strings.TrimSpace(ended.Message))
			}
		}
		return words.Errorf("the pod %s has ended (%s); does its image have this version of launchgate?", pod.Name, why)
	}
	return nil
}

// Place is the pod and the node of a worker.
func (s *workers) Place(worker int) words.Sentence {
	pod := s.pod(worker)
	if pod == nil {
		return words.Sentence{}
	}
	return words.Say("the pod %s on the node %s", pod.Name, pod.Spec.NodeName)
}

// Stop removes the Job, and waits until its pods are gone.
func (s *workers) Stop() error {
	s.way.close()
	s.stop()
	s.running.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), removeWithin)
	defer cancel()
	if err := s.api.removeRun(ctx, s.made); err != nil {
		return err
	}
	for {
		list, err := s.api.dynamic.Resource(podsGVR).Namespace(s.Namespace).List(ctx, metav1.ListOptions{LabelSelector: runLabel + "=" + s.made.Name})
		if err == nil && len(list.Items) == 0 {
			break
		}
		if err != nil && ctx.Err() == nil {
			return s.api.explain(err)
		}
		if sleep(ctx, 200*time.Millisecond) != nil {
			return words.Errorf("pods of the Job %s are still there %s after it was removed", s.job, removeWithin)
		}
	}
	return s.journal.End(workersJournal)
}

// setSpec replaces the spec of an object.
func setSpec(o *unstructured.Unstructured, spec any) error {
	b, err := json.Marshal(spec)
	if err != nil {
		return err
	}
	var plain map[string]any
	if err := json.Unmarshal(b, &plain); err != nil {
		return err
	}
	o.Object["spec"] = plain
	return nil
}
