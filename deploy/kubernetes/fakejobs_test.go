package kubernetes

import (
	"context"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"

	"github.com/launchgate/launchgate/loadgen/worker"
)

// TestMain runs this program as a load worker, where the fake's kubelet starts it.
func TestMain(m *testing.M) {
	if at := os.Getenv("LAUNCHGATE_TEST_WORKER"); at != "" {
		if err := worker.Wait(context.Background(), at, os.Getenv(workerSum), "test", time.Minute); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// child is a process that is the pod of a Job.
type child struct {
	cmd     *exec.Cmd
	address string // that its port is reached at
}

// startJob starts a process for each pod of an Indexed Job.
func (f *fake) startJob(namespace string, o object) {
	job := strictly[batchv1.Job](f.t, o)
	o["metadata"].(object)["uid"] = "uid-" + job.Name
	pod := job.Spec.Template.Spec
	if *job.Spec.CompletionMode != batchv1.IndexedCompletion || *job.Spec.Completions != *job.Spec.Parallelism || *job.Spec.BackoffLimit != 0 || job.Spec.TTLSecondsAfterFinished == nil {
		f.t.Errorf("the Job is %+v", job.Spec)
	}
	if f.image != "" { // it cannot be pulled
		f.jobPod(namespace, job, 0, "Pending", object{"waiting": object{"reason": f.image, "message": "not found"}})
		return
	}
	if f.quota {
		return
	}
	for i := range int(*job.Spec.Completions) {
		free, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			f.t.Fatal(err)
		}
		free.Close()
		c := &child{exec.Command(os.Args[0]), free.Addr().String()}
		c.cmd.Env = append(os.Environ(), "LAUNCHGATE_TEST_WORKER="+c.address, "HTTP_PROXY="+f.proxy)
		for _, e := range pod.Containers[0].Env {
			c.cmd.Env = append(c.cmd.Env, e.Name+"="+e.Value)
		}
		c.cmd.Stderr = os.Stderr
		if err := c.cmd.Start(); err != nil {
			f.t.Fatal(err)
		}
		name := f.jobPod(namespace, job, i, "Running", object{"running": object{}})
		f.workers[name] = c
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			_ = c.cmd.Wait()
		}()
		f.t.Cleanup(func() {
			_ = c.cmd.Process.Kill()
			<-ended
		})
	}
}

func (f *fake) jobPod(namespace string, job batchv1.Job, i int, phase string, state object) string {
	f.version++
	name := fmt.Sprintf("%s-%d-x", job.Name, i)
	ready := "False"
	if phase == "Running" {
		ready = "True"
	}
	labels := object{}
	for k, v := range job.Spec.Template.Labels {
		labels[k] = v
	}
	pod := object{"apiVersion": "v1", "kind": "Pod",
		"metadata": object{"name": name, "namespace": namespace, "uid": "uid-" + name, "labels": labels, "annotations": object{indexKey: fmt.Sprint(i)}, "resourceVersion": fmt.Sprint(f.version)},
		"spec":     object{"nodeName": "node-a", "containers": []any{object{"name": "worker", "image": job.Spec.Template.Spec.Containers[0].Image}}},
		"status": object{"phase": phase, "conditions": []any{object{"type": "Ready", "status": ready}},
			"containerStatuses": []any{object{"name": "worker", "image": job.Spec.Template.Spec.Containers[0].Image, "imageID": "", "ready": true, "restartCount": 0, "state": state}}}}
	f.objects[namespace+"/pods/"+name] = pod
	f.tell("ADDED", pod)
	return name
}

// endJob ends the pods of a Job that was removed.
func (f *fake) endJob(namespace string, o object) {
	name := o["metadata"].(object)["name"].(string)
	for key, pod := range f.objects {
		if own, found := strings.CutPrefix(key, namespace+"/pods/"); found && strings.HasPrefix(own, name+"-") {
			if c := f.workers[own]; c != nil {
				_ = c.cmd.Process.Kill()
			}
			delete(f.objects, key)
			f.tell("DELETED", pod)
		}
	}
}

// Cluster is a fake for the tests of whole runs: an API server that a kubeconfig names,
// with a service that is there already.
type Cluster struct{ f *fake }

// NewCluster has the service llm in the namespace n, whose pods answer at an address, and
// at which the pods of Jobs find every Service.
func NewCluster(t *testing.T, service string) Cluster {
	f := newFake(t)
	f.proxy = "http://" + service
	f.objects["/namespaces/n"] = object{"apiVersion": "v1", "kind": "Namespace", "metadata": object{"name": "n"}}
	f.objects["n/services/llm"] = object{"apiVersion": "v1", "kind": "Service", "metadata": object{"name": "llm"}, "spec": object{"ports": []any{object{"name": "api", "port": 80, "targetPort": 8000}}}}
	f.objects["n/pods/llm-0"] = object{"apiVersion": "v1", "kind": "Pod", "metadata": object{"name": "llm-0", "namespace": "n", "uid": "u0", "labels": object{"app": "llm"}}, "spec": object{},
		"status": object{"phase": "Running", "conditions": []any{object{"type": "Ready", "status": "True"}}}}
	f.serve[8000] = service
	file := filepath.Join(t.TempDir(), "config")
	config := mustJSON(t, object{"apiVersion": "v1", "kind": "Config", "current-context": "fake", "contexts": []any{object{"name": "fake", "context": object{"cluster": "fake", "user": "u"}}},
		"clusters": []any{object{"name": "fake", "cluster": object{"server": f.URL}}}, "users": []any{object{"name": "u", "user": object{}}}})
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("KUBECONFIG", file)
	return Cluster{f}
}

// Workers are the names of the pods that are load workers, in the order of their numbers.
func (c Cluster) Workers() []string {
	c.f.mu.Lock()
	defer c.f.mu.Unlock()
	return slices.Sorted(maps.Keys(c.f.workers))
}

// Kill ends the process of a worker.
func (c Cluster) Kill(pod string) error {
	c.f.mu.Lock()
	defer c.f.mu.Unlock()
	return c.f.workers[pod].cmd.Process.Kill()
}

// Objects are the keys of what is in the namespace n.
func (c Cluster) Objects() (keys []string) {
	c.f.mu.Lock()
	defer c.f.mu.Unlock()
	for key := range c.f.objects {
		if strings.HasPrefix(key, "n/") {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys
}
