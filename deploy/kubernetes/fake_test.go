package kubernetes

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/streaming/pkg/httpstream"
	"k8s.io/streaming/pkg/httpstream/spdy"
)

// object is an object of the API server, as decoded JSON.
type object = map[string]any

// fake is an API server with the controllers of Deployments and namespaces, and
// with a kubelet whose pods serve in this test. It records the requests that it
// got.
type fake struct {
	*httptest.Server
	t *testing.T

	mu       sync.Mutex
	objects  map[string]object // by namespace/resource/name
	version  int
	watchers []chan object
	told     []told
	asked    map[string]bool // "group/resource verb"

	forbid  string             // a "group/resource verb" that it refuses
	image   string             // the reason why images cannot be pulled
	quota   bool               // the quota is full
	serve   map[int]string     // addresses that serve the ports of pods
	workers map[string]*child  // processes that are the pods of Jobs, by their names
	proxy   string             // by which those reach Services
	running map[string]float64 // streams of each pod
	mesh    *mesh              // plays Chaos Mesh; nil: it is not installed
	failing string             // a pod that answers nothing
	budget  int                // how many evictions a disruption budget refuses
}

var served = map[string]map[string]bool{ // group/version: resources, and whether they are namespaced
	"v1":                             {"namespaces": false, "nodes": false, "pods": true, "services": true, "configmaps": true, "persistentvolumeclaims": true},
	"apps/v1":                        {"deployments": true},
	"autoscaling/v2":                 {"horizontalpodautoscalers": true},
	"batch/v1":                       {"jobs": true},
	"policy/v1":                      {"poddisruptionbudgets": true},
	"networking.k8s.io/v1":           {"networkpolicies": true},
	"rbac.authorization.k8s.io/v1":   {"roles": true},
	"monitoring.coreos.com/v1alpha1": {},
}

var kindOf = map[string]string{"namespaces": "Namespace", "nodes": "Node", "pods": "Pod", "services": "Service", "configmaps": "ConfigMap", "persistentvolumeclaims": "PersistentVolumeClaim",
	"deployments": "Deployment", "jobs": "Job", "horizontalpodautoscalers": "HorizontalPodAutoscaler", "poddisruptionbudgets": "PodDisruptionBudget", "networkpolicies": "NetworkPolicy",
	"networkchaos": "NetworkChaos", "timechaos": "TimeChaos", "podchaos": "PodChaos"}

func newFake(t *testing.T) *fake {
	f := &fake{t: t, objects: map[string]object{}, asked: map[string]bool{}, serve: map[int]string{}, workers: map[string]*child{}, running: map[string]float64{}}
	f.Server = httptest.NewServer(f)
	f.objects["/nodes/node-a"] = object{"apiVersion": "v1", "kind": "Node", "metadata": object{"name": "node-a", "resourceVersion": "1"}, "spec": object{}, "status": object{"conditions": []any{object{"type": "Ready", "status": "True"}}}}
	t.Cleanup(func() {
		f.mu.Lock()
		for _, w := range f.watchers {
			close(w)
		}
		f.watchers = nil
		f.mu.Unlock()
		f.CloseClientConnections()
		f.Close()
	})
	return f
}

func (f *fake) api() *api {
	a, err := newAPI(&rest.Config{Host: f.URL, QPS: -1}, "fake")
	if err != nil {
		f.t.Fatal(err)
	}
	return a
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	group, rest := "", parts
	switch {
	case parts[0] == "api":
		group, rest = parts[1], parts[2:]
	case parts[0] == "apis" && len(parts) > 2:
		group, rest = parts[1]+"/"+parts[2], parts[3:]
	}
	resources, known := served[group]
	if group == "chaos-mesh.org/v1alpha1" && f.mesh != nil {
		resources, known = map[string]bool{"networkchaos": true, "timechaos": true, "podchaos": true}, true
	}
	if len(rest) == 0 {
		if !known {
			f.fail(w, http.StatusNotFound, "NotFound", "the server could not find the requested resource")
			return
		}
		list := metav1.APIResourceList{GroupVersion: group}
		for name, namespaced := range resources {
			list.APIResources = append(list.APIResources, metav1.APIResource{Name: name, Kind: kindOf[name], Namespaced: namespaced})
		}
		_ = json.NewEncoder(w).Encode(list)
		return
	}
	namespace := ""
	if rest[0] == "namespaces" && len(rest) > 2 {
		namespace, rest = rest[1], rest[2:]
	}
	resource, name, sub := rest[0], "", ""
	if len(rest) > 1 {
		name = rest[1]
	}
	if len(rest) > 2 {
		sub = "/" + rest[2]
	}
	verb := map[string]string{http.MethodGet: "get", http.MethodPatch: "patch", http.MethodDelete: "delete", http.MethodPost: "create"}[r.Method]
	if verb == "get" && name == "" {
		verb = "list"
		if r.URL.Query().Get("watch") != "" {
			verb = "watch"
		}
	}
	g, _, _ := strings.Cut(group, "/")
	if g == "v1" {
		g = ""
	}
	ask := g + "/" + resource + sub + " " + verb
	f.mu.Lock()
	f.asked[ask] = true
	forbidden := f.forbid != "" && f.forbid == ask
	f.mu.Unlock()
	if forbidden {
		f.fail(w, http.StatusForbidden, "Forbidden", fmt.Sprintf(`%s is forbidden: User "u" cannot %s resource "%s" in API group "%s" in the namespace "%s"`, resource, verb, resource, g, namespace))
		return
	}
	switch sub {
	case "/portforward":
		f.portForward(w, r, name)
		return
	case "/eviction":
		f.evict(w, r, namespace, name)
		return
	case "/proxy":
		f.mesh.proxy(w, r)
		return
	}
	f.do(w, r, verb, namespace, resource, name)
}

func (f *fake) do(w http.ResponseWriter, r *http.Request, verb, namespace, resource, name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	key := namespace + "/" + resource + "/" + name
	o := f.objects[key]
	switch verb {
	case "get":
		f.answer(w, o, name)
	case "list":
		items := []any{}
		for _, k := range slices.Sorted(maps.Keys(f.objects)) {
			if strings.HasPrefix(k, key) && matches(f.objects[k], r.URL.Query().Get("labelSelector")) {
				items = append(items, f.objects[k])
			}
		}
		_ = json.NewEncoder(w).Encode(object{"apiVersion": "v1", "kind": "List", "metadata": object{"resourceVersion": fmt.Sprint(f.version)}, "items": items})
	case "watch":
		f.watch(w, r)
	case "patch":
		f.patch(w, r, namespace, resource, name, o)
	case "delete":
		f.answer(w, o, name)
		switch {
		case o != nil && strings.HasSuffix(resource, "chaos"):
			f.mesh.end(key, o)
		case o != nil:
			f.remove(namespace, resource, name)
		}
	}
}

func matches(o object, selector string) bool {
	labels, _ := o["metadata"].(object)["labels"].(object)
	for term := range strings.SplitSeq(selector, ",") {
		if k, v, found := strings.Cut(term, "="); found && labels[k] != v {
			return false
		}
	}
	return true
}

func (f *fake) answer(w http.ResponseWriter, o object, name string) {
	if o == nil {
		f.fail(w, http.StatusNotFound, "NotFound", fmt.Sprintf("%q not found", name))
		return
	}
	_ = json.NewEncoder(w).Encode(o)
}

func (f *fake) fail(w http.ResponseWriter, code int, reason, message string) {
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: "Failure", Code: int32(code), Reason: metav1.StatusReason(reason), Message: message})
}

// watch begins with what happened after the list.
func (f *fake) watch(w http.ResponseWriter, r *http.Request) {
	events := make(chan object, 1000)
	var listed int
	_, _ = fmt.Sscan(r.URL.Query().Get("resourceVersion"), &listed)
	for _, e := range f.told {
		if e.version > listed {
			events <- e.event
		}
	}
	f.watchers = append(f.watchers, events)
	f.mu.Unlock()
	defer f.mu.Lock()
	w.WriteHeader(http.StatusOK)
	_ = http.NewResponseController(w).Flush()
	for {
		select {
		case <-r.Context().Done():
			return
		case e, ok := <-events:
			if !ok {
				return
			}
			if matches(e["object"].(object), r.URL.Query().Get("labelSelector")) {
				_ = json.NewEncoder(w).Encode(e)
				_ = http.NewResponseController(w).Flush()
			}
		}
	}
}

// told is an event of a pod that watchers were told.
type told struct {
	version int
	event   object
}

func (f *fake) tell(what string, pod object) {
	f.version++
	e := object{"type": what, "object": pod}
	f.told = append(f.told, told{f.version, e})
	for _, w := range f.watchers {
		w <- e
	}
}

func (f *fake) patch(w http.ResponseWriter, r *http.Request, namespace, resource, name string, old object) {
	b, err := io.ReadAll(r.Body)
	var o object
	if err != nil || json.Unmarshal(b, &o) != nil {
		f.fail(w, http.StatusBadRequest, "BadRequest", "no JSON")
		return
	}
	f.version++
	switch kind := r.Header.Get("Content-Type"); {
	case strings.Contains(kind, "apply-patch"):
		if r.URL.Query().Get("fieldManager") != manager {
			f.t.Errorf("%s/%s was applied by %q", resource, name, r.URL.Query().Get("fieldManager"))
		}
		f.asked[groupOf(o)+"/"+resource+" create"] = true // the API server requires this right as well
		if namespace != "" && f.objects["/namespaces/"+namespace] == nil {
			f.fail(w, http.StatusNotFound, "NotFound", fmt.Sprintf("namespaces %q not found", namespace))
			return
		}
		f.objects[namespace+"/"+resource+"/"+name] = o
		switch {
		case resource == "deployments":
			o["metadata"].(object)["generation"] = 1
			f.roll(namespace, o)
		case resource == "jobs":
			f.startJob(namespace, o)
		case strings.HasSuffix(resource, "chaos"):
			f.mesh.inject(o)
		}
	case strings.HasSuffix(resource, "chaos"): // its finalizers are taken off
		if old["metadata"].(object)["deletionTimestamp"] == nil {
			f.t.Errorf("finalizers were taken off %s, which is not being deleted", name)
		}
		delete(f.objects, namespace+"/"+resource+"/"+name)
		o = old
	case resource == "nodes":
		maps.Copy(old["spec"].(object), o["spec"].(object))
		o = old
	case resource == "deployments":
		bad := strings.Contains(string(b), noModel)
		old["metadata"].(object)["generation"] = f.version
		f.release(namespace, old, bad)
		o = old
	}
	_ = json.NewEncoder(w).Encode(o)
}

// evict deletes a pod as the API server does when it is asked for an eviction: the pod is
// marked, and a budget can refuse.
func (f *fake) evict(w http.ResponseWriter, r *http.Request, namespace, name string) {
	var e policyv1.Eviction
	if err := json.NewDecoder(r.Body).Decode(&e); err != nil || e.Kind != "Eviction" || e.Name != name {
		f.fail(w, http.StatusBadRequest, "BadRequest", fmt.Sprintf("no eviction of %s: %+v, %v", name, e, err))
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	pod := f.objects[namespace+"/pods/"+name]
	switch {
	case pod == nil:
		f.answer(w, nil, name)
	case f.budget > 0:
		f.budget--
		f.fail(w, http.StatusTooManyRequests, "TooManyRequests", "Cannot evict pod as it would violate the pod's disruption budget.")
	default:
		conditions := pod["status"].(object)["conditions"].([]any)
		pod["status"].(object)["conditions"] = append(conditions, object{"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"})
		f.tell("MODIFIED", pod)
		f.remove(namespace, "pods", name)
		w.WriteHeader(http.StatusCreated)
		_ = json.NewEncoder(w).Encode(object{"apiVersion": "v1", "kind": "Status", "status": "Success"})
	}
}

func groupOf(o object) string {
	group, _, found := strings.Cut(o["apiVersion"].(string), "/")
	if !found {
		return ""
	}
	return group
}

// roll makes the pods of a Deployment.
func (f *fake) roll(namespace string, d object) {
	n := int(d["spec"].(object)["replicas"].(float64))
	if f.quota {
		d["status"] = object{"conditions": []any{object{"type": "ReplicaFailure", "status": "True", "message": `pods "x" is forbidden: exceeded quota: few`}}}
		return
	}
	for range n {
		f.pod(namespace, d, f.image == "")
	}
	f.complete(d)
}

func (f *fake) complete(d object) {
	n := d["spec"].(object)["replicas"]
	d["status"] = object{"observedGeneration": d["metadata"].(object)["generation"], "replicas": n, "updatedReplicas": n, "availableReplicas": n, "conditions": []any{object{"type": "Progressing", "status": "True", "reason": "NewReplicaSetAvailable"}}}
}

func (f *fake) pod(namespace string, d object, ready bool) {
	f.version++
	template := d["spec"].(object)["template"].(object)
	status := "True"
	containers := []any{object{"name": "server", "image": "launchgate/reference-server:dev", "imageID": "sha256:abc", "state": object{"running": object{}}}}
	if !ready {
		status = "False"
		containers = []any{object{"name": "server", "image": "launchgate/reference-server:dev", "state": object{"waiting": object{"reason": f.image, "message": "not found"}}}}
	}
	name := fmt.Sprintf("%s-%d", d["metadata"].(object)["name"], f.version)
	spec := object{"nodeName": "node-a"}
	maps.Copy(spec, template["spec"].(object))
	pod := object{"apiVersion": "v1", "kind": "Pod", "metadata": object{"name": name, "namespace": namespace, "uid": "uid-" + name, "labels": template["metadata"].(object)["labels"], "resourceVersion": fmt.Sprint(f.version)},
		"spec": spec, "status": object{"phase": "Running", "conditions": []any{object{"type": "Ready", "status": status}}, "containerStatuses": containers}}
	f.objects[namespace+"/pods/"+name] = pod
	f.tell("ADDED", pod)
}

// release rolls out a bad version, or the one from before.
func (f *fake) release(namespace string, d object, bad bool) {
	if bad {
		f.image = "CrashLoopBackOff"
		f.pod(namespace, d, false)
		f.image = ""
		d["status"].(object)["observedGeneration"] = d["metadata"].(object)["generation"]
		d["status"].(object)["updatedReplicas"] = 1
		d["status"].(object)["conditions"] = []any{object{"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": "has timed out progressing"}}
		return
	}
	for key, pod := range f.objects {
		if strings.HasPrefix(key, namespace+"/pods/") && pod["status"].(object)["conditions"].([]any)[0].(object)["status"] == "False" {
			delete(f.objects, key)
			f.tell("DELETED", pod)
		}
	}
	f.complete(d)
}

// remove removes an object and what belongs to it. If it is a pod, its
// Deployment makes another one.
func (f *fake) remove(namespace, resource, name string) {
	key := namespace + "/" + resource + "/" + name
	o := f.objects[key]
	delete(f.objects, key)
	switch resource {
	case "pods":
		f.tell("DELETED", o)
		time.AfterFunc(30*time.Millisecond, func() {
			f.mu.Lock()
			defer f.mu.Unlock()
			if d := f.objects[namespace+"/deployments/"+deploymentName]; d != nil {
				f.pod(namespace, d, true)
			}
		})
	case "jobs":
		f.endJob(namespace, o)
	case "deployments":
		for k, pod := range f.objects {
			if strings.HasPrefix(k, namespace+"/pods/") {
				delete(f.objects, k)
				f.tell("DELETED", pod)
			}
		}
	case "namespaces":
		for k := range f.objects {
			if strings.HasPrefix(k, name+"/") {
				delete(f.objects, k)
			}
		}
	}
}

// portForward connects streams to the server that stands in for the pod.
func (f *fake) portForward(w http.ResponseWriter, r *http.Request, pod string) {
	if _, err := httpstream.Handshake(r, w, []string{portForwardProtocol}); err != nil {
		return
	}
	streams := make(chan httpstream.Stream, 100)
	conn := spdy.NewResponseUpgrader().UpgradeResponse(w, r, func(s httpstream.Stream, _ <-chan struct{}) error {
		streams <- s
		return nil
	})
	if conn == nil {
		return
	}
	defer conn.Close()
	failed := map[string]httpstream.Stream{}
	for {
		select {
		case <-conn.CloseChan():
			return
		case s := <-streams:
			id := s.Headers().Get("requestID")
			if s.Headers().Get("streamType") == "error" {
				failed[id] = s
				continue
			}
			var port int
			_, _ = fmt.Sscan(s.Headers().Get("port"), &port)
			f.mu.Lock()
			at := f.serve[port]
			if w := f.workers[pod]; w != nil {
				at = w.address
			}
			f.mu.Unlock()
			to, err := net.Dial("tcp", at)
			f.mu.Lock()
			if pod == f.failing {
				err = errors.New("connection refused")
			}
			f.mu.Unlock()
			if err != nil {
				fmt.Fprintf(failed[id], "connect to port %d: %v", port, err)
				_ = failed[id].Close()
				_ = s.Reset()
				continue
			}
			e := failed[id]
			go func() {
				go func() {
					_, _ = io.Copy(to, s)
					_ = to.(*net.TCPConn).CloseWrite()
				}()
				_, _ = io.Copy(s, to)
				_ = s.Close()
				_ = e.Close()
			}()
		}
	}
}

func mustJSON(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
