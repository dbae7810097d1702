package kubernetes

import (
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/launchgate/launchgate/deploy"
	"github.com/launchgate/launchgate/loadgen/worker"
)

// Workers on a cluster are pods of a Job that are restricted, called through the API
// server, and removed without a trace, with exactly the rights of their Role.
func TestTheLifeOfWorkers(t *testing.T) {
	f := newFake(t)
	f.objects["/namespaces/load"] = object{"apiVersion": "v1", "kind": "Namespace", "metadata": object{"name": "load"}}
	n := &notes{}
	started, err := Workers{Namespace: "load", Image: "registry.example/launchgate:v1"}.start(t.Context(), f.api(), 2, worker.Sum("token"), n)
	if err != nil {
		t.Fatal(err)
	}
	if len(n.undo) != 1 || !IsUndo(n.undo[0]) {
		t.Errorf("the journal has %+v", n.undo)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	for i := range 2 {
		var conn net.Conn
		for conn == nil { // until the API server has told of the pod
			var missing error
			if conn, missing = started.Dial(ctx, i); missing != nil && sleep(ctx, 10*time.Millisecond) != nil {
				t.Fatal(missing)
			}
		}
		conn.Close()
		if place := started.Place(i).String(); !strings.Contains(place, "node-a") || !strings.Contains(place, "the pod launchgate-workers-") {
			t.Errorf("worker %d runs at %q", i, place)
		}
	}
	f.mu.Lock()
	for key, o := range f.objects {
		if !strings.HasPrefix(key, "load/networkpolicies/") {
			continue
		}
		owner := o["metadata"].(object)["ownerReferences"].([]any)[0].(object)
		if owner["kind"] != "Job" || owner["uid"] == "" {
			t.Errorf("its owner is %v", owner)
		}
	}
	f.mu.Unlock()
	if err := started.Stop(); err != nil {
		t.Fatal(err)
	}
	f.mu.Lock()
	for key := range f.objects {
		if strings.HasPrefix(key, "load/") {
			t.Errorf("left behind: %s", key)
		}
	}
	f.mu.Unlock()
	if n.undo != nil {
		t.Errorf("the journal still holds %+v", n.undo)
	}
	f.askedExactly(t, "workers.yaml")
}

// launchgate recover removes what a run that died has left of its workers.
func TestWorkersAreRecovered(t *testing.T) {
	c := NewCluster(t, "127.0.0.1:1")
	n := &notes{}
	before := c.Objects()
	started, err := Workers{Namespace: "n"}.Start(t.Context(), 1, worker.Sum("token"), n)
	if err != nil {
		t.Fatal(err)
	}
	if err := Undo(n.undo[0]); err != nil {
		t.Fatal(err)
	}
	if left := c.Objects(); !slices.Equal(left, before) {
		t.Errorf("left behind: %v, before %v", left, before)
	}
	if err := started.Stop(); err != nil { // what is gone already is no error
		t.Error(err)
	}
}

// Workers that will never be there are a clear error.
func TestWorkersThatCannotStart(t *testing.T) {
	for name, tt := range map[string]struct {
		spoil func(f *fake)
		says  string
	}{
		"no rights":    {func(f *fake) { f.forbid = "batch/jobs patch" }, "may not"},
		"no namespace": {func(f *fake) { delete(f.objects, "/namespaces/n") }, `namespaces "n" not found`},
		"no image":     {func(f *fake) { f.image = "ImagePullBackOff" }, "cannot be pulled"},
		"a full quota": {func(f *fake) { f.quota = true }, "has made 0 of 1 pods"},
	} {
		t.Run(name, func(t *testing.T) {
			c := NewCluster(t, "127.0.0.1:1")
			tt.spoil(c.f)
			started, err := Workers{Namespace: "n"}.Start(t.Context(), 1, worker.Sum("token"), &notes{})
			if err == nil {
				// Wait until the API server has told of the pods.
				ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
				defer cancel()
				for ctx.Err() == nil && (err == nil || !strings.Contains(err.Error(), tt.says)) {
					_, missing := started.Dial(ctx, 0)
					err = errors.Join(started.Hopeless(), missing, sleep(ctx, 10*time.Millisecond))
				}
				if gone := started.Stop(); gone != nil {
					t.Error(gone)
				}
			}
			if err == nil || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("it does not say %q: %v", tt.says, err)
			}
		})
	}
}

// What is applied for the workers is restricted, and what the scan looks for.
func TestManifestsOfWorkers(t *testing.T) {
	scanned(t, []byte(workersYAML))
}

// Pods of a cluster do not reach this machine's loopback.
func TestWhatWorkersReach(t *testing.T) {
	for url, reached := range map[string]bool{
		"http://127.0.0.1:8000": false, "http://localhost": false, "http://[::1]:80/v1": false, "http://0.0.0.0:1": false,
		"http://llm.n.svc:80": true, "https://llm.example.com/v1": true, "http://10.0.0.4": true,
	} {
		access := deploy.Access{}
		access.Endpoint.URL = url
		if err := (Workers{}).Reaches(access); (err == nil) != reached {
			t.Errorf("%s: %v", url, err)
		}
		access.Inside = "http://llm.n.svc:80"
		if err := (Workers{}).Reaches(access); err != nil {
			t.Errorf("%s with a Service: %v", url, err)
		}
	}
}
