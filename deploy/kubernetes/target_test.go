package kubernetes

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"

	"github.com/launchgate/launchgate/deploy"
	"github.com/launchgate/launchgate/scenarios"
)

// notes is the journal and the recording of a test.
type notes struct {
	mu     sync.Mutex
	events []deploy.Event
	undo   []deploy.Undo
}

func (n *notes) Begin(_, _, _ string, undo []deploy.Undo) error {
	n.undo = undo
	return nil
}

func (n *notes) End(string) error {
	n.undo = nil
	return nil
}

func (n *notes) on(e deploy.Event) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.events = append(n.events, e)
}

func (n *notes) told(name string, value float64) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.ContainsFunc(n.events, func(e deploy.Event) bool { return e.Name == name && e.Value == value })
}

func planOf(k scenarios.Kubernetes) plan {
	return PlanFor(scenarios.Gate{Target: scenarios.Target{Kubernetes: &k}}).(plan)
}

func open(t *testing.T, f *fake, k scenarios.Kubernetes) (*Target, *notes) {
	t.Helper()
	n := &notes{}
	target, err := planOf(k).open(t.Context(), f.api(), deploy.Setup{OnEvent: n.on, Journal: n})
	if err != nil {
		t.Fatal(err)
	}
	return target.(*Target), n
}

// The bundled service is deployed and reached, suffers every fault that the API
// server can play, and is removed without a trace. The run needs exactly the
// rights in role.yaml.
func TestTheLifeOfATarget(t *testing.T) {
	f := newFake(t)
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, "served %s", r.URL.Path) }))
	defer api.Close()
	metrics := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, "# HELP ai_batch_size x\nai_batch_size{model=\"m\"} 2\nai_queue_size{model=\"m\"} 1\nai_batch_size_other 9\n")
	}))
	defer metrics.Close()
	f.serve[8080], f.serve[9090] = api.Listener.Addr().String(), metrics.Listener.Addr().String()

	target, n := open(t, f, scenarios.Kubernetes{ReadyTimeout: scenarios.Duration(20 * time.Second)})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := target.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	if got := deploy.Names(target.Replicas()); len(got) != 3 || target.Replicas()[0].Node != "node-a" {
		t.Errorf("replicas %v", target.Replicas())
	}
	if !n.told("replicas_ready", 3) || !n.told("process_started", 0) {
		t.Errorf("told: %+v", n.events)
	}

	resp, err := http.Get(target.Access().Endpoint.URL + "/v1/models")
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil || string(b) != "served /v1/models" {
		t.Errorf("through the port-forward: %q, %v", b, err)
	}
	streams, err := target.InFlight(ctx)
	if err != nil || len(streams) != 3 {
		t.Fatal(streams, err)
	}
	victim := target.Replicas()[0].Name
	if streams[victim] != 3 {
		t.Errorf("%s has %d streams, want 3", victim, streams[victim])
	}

	live := func(name string, effect deploy.Effect, err error, inEffect, back string) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for _, step := range []struct {
			do   func(context.Context) (deploy.Sight, error)
			says string
		}{{effect.Inject, ""}, {effect.SeeInEffect, inEffect}, {effect.SeeInEffect, inEffect}, {effect.Revert, back}, {effect.Revert, back}, {effect.SeeGone, "3"}} {
			seen, err := step.do(ctx)
			if err != nil || !strings.Contains(seen.How.String(), step.says) {
				t.Fatalf("%s: %v: %v; it should say %q", name, seen.How, err, step.says)
			}
		}
	}
	effect, err := target.KillReplica(ctx, deploy.Victim{Replica: victim, Streams: 2}, scenarios.Fault{})
	live("pod-kill", effect, err, "the pod "+victim+" is gone", "nothing to undo")
	if target.Serving(ctx, victim) || slices.Contains(deploy.Names(target.Replicas()), victim) {
		t.Errorf("%s still serves", victim)
	}
	effect, err = target.Preempt(ctx, deploy.Victim{Replica: target.Replicas()[0].Name}, scenarios.Fault{Notice: scenarios.Duration(time.Second), For: scenarios.Duration(time.Second)})
	live("spot-preemption", effect, err, "the node node-a takes no other", "takes pods again")
	f.mu.Lock()
	f.budget = 2
	f.mu.Unlock()
	effect, err = target.DrainNode(ctx, deploy.Victim{Replica: target.Replicas()[0].Name}, scenarios.Fault{Notice: scenarios.Duration(time.Second)})
	live("node-drain", effect, err, "was evicted (DisruptionTarget), and the node node-a takes no other", "takes pods again")
	if _, err := target.DrainNode(ctx, deploy.Victim{Replica: "nobody"}, scenarios.Fault{}); err == nil || !strings.Contains(err.Error(), "the pod nobody is gone") {
		t.Error(err)
	}
	effect, err = target.RollOutBad(ctx, deploy.Victim{}, scenarios.Fault{Release: scenarios.ReleaseCorruptModel})
	live("bad-release", effect, err, "deadline", "as before")
	state := filepath.Join(t.TempDir(), "down")
	target.spec.Node = &scenarios.NodeCommands{Stop: "echo $NODE > " + state, Start: "rm -f " + state}
	effect, err = target.TakeNode(ctx, deploy.Victim{Replica: target.Replicas()[0].Name}, scenarios.Fault{})
	if err != nil {
		t.Fatal(err)
	}
	f.ready("node-a", "Unknown")
	if seen, err := effect.Inject(ctx); err != nil {
		t.Fatal(seen, err)
	}
	if b, err := os.ReadFile(state); err != nil || string(b) != "node-a\n" {
		t.Errorf("the command was given %q, %v", b, err)
	}
	if seen, err := effect.SeeInEffect(ctx); err != nil || !strings.Contains(seen.How.String(), "Unknown") {
		t.Error(seen, err)
	}
	f.ready("node-a", "True")
	if seen, err := effect.Revert(ctx); err != nil {
		t.Error(seen, err)
	}
	if seen, err := effect.SeeGone(ctx); err != nil {
		t.Error(seen, err)
	}
	if _, err := os.Stat(state); !os.IsNotExist(err) {
		t.Errorf("the node was not started: %v", err)
	}

	if err := target.Stop(); err != nil {
		t.Fatal(err)
	}
	if left := slices.Sorted(maps.Keys(f.objects)); !slices.Equal(left, []string{"/nodes/node-a"}) {
		t.Errorf("left behind: %v", left)
	}
	if n.undo != nil {
		t.Errorf("the journal still holds %+v", n.undo)
	}
	// Rights that only recover needs.
	for _, r := range []string{"configmaps", "services", "persistentvolumeclaims"} {
		f.asked["/"+r+" list"] = true
	}
	for _, r := range []string{"apps/deployments", "autoscaling/horizontalpodautoscalers", "policy/poddisruptionbudgets", "networking.k8s.io/networkpolicies", "/namespaces"} {
		f.asked[r+" list"] = true
	}
	f.askedExactly(t, "role.yaml")
}

// ready sets the Ready condition of a node.
func (f *fake) ready(node, status string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.objects["/nodes/"+node]["status"] = object{"conditions": []any{object{"type": "Ready", "status": status}}}
}

// askedExactly compares what was asked of the API server with what a file in rights allows.
func (f *fake) askedExactly(t *testing.T, file string) {
	t.Helper()
	allowed := roles(t, filepath.Join("rights", file))
	for ask := range f.asked {
		if !allowed[ask] {
			t.Errorf("%s does not allow %q, which is asked for", file, ask)
		}
	}
	for ask := range allowed {
		if !f.asked[ask] {
			t.Errorf("%s allows %q, which nobody asks for", file, ask)
		}
	}
}

func roles(t *testing.T, file string) map[string]bool {
	t.Helper()
	src, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	allowed := map[string]bool{}
	for doc := range strings.SplitSeq(string(src), "\n---") {
		b, err := yaml.YAMLToJSON([]byte(doc))
		if err != nil {
			t.Fatal(err)
		}
		var role rbacv1.Role
		if err := json.Unmarshal(b, &role); err != nil {
			t.Fatal(err)
		}
		for _, r := range role.Rules {
			for _, resource := range r.Resources {
				for _, verb := range r.Verbs {
					allowed[r.APIGroups[0]+"/"+resource+" "+verb] = true
				}
			}
		}
	}
	return allowed
}

// A problem that waiting cannot solve is a clear error soon, and leaves nothing
// behind.
func TestClearErrors(t *testing.T) {
	for name, tt := range map[string]struct {
		spec  scenarios.Kubernetes
		spoil func(*fake)
		says  []string
	}{
		"an image that cannot be pulled": {scenarios.Kubernetes{}, func(f *fake) { f.image = "ImagePullBackOff" }, []string{"launchgate/reference-server:dev", "cannot be pulled", "ImagePullBackOff"}},
		"a quota that is full":           {scenarios.Kubernetes{}, func(f *fake) { f.quota = true }, []string{"quota of the namespace ai-service is full", "exceeded quota: few"}},
		"no rights to deploy":            {scenarios.Kubernetes{}, func(f *fake) { f.forbid = "apps/deployments patch" }, []string{`context "fake"`, "may not", "role.yaml", "deployments"}},
		"no rights to see pods":          {scenarios.Kubernetes{}, func(f *fake) { f.forbid = "/pods list" }, []string{"may not", "role.yaml", "pods"}},
		"a kind that is not installed":   {scenarios.Kubernetes{Overlay: "monitored"}, nil, []string{"the cluster has no ServiceMonitor of monitoring.coreos.com/v1", "another overlay"}},
		"an overlay that is not there":   {scenarios.Kubernetes{Overlay: "./none"}, nil, []string{`found "./none"`, "base", "builtin-model", "kustomization.yaml"}},
		"a service that is not there":    {scenarios.Kubernetes{Deploy: scenarios.DeployNone, Namespace: "n", Selector: "app=x", Service: "x"}, nil, []string{"no Service x in the namespace n"}},
		"pods that never get ready":      {scenarios.Kubernetes{}, func(f *fake) { f.image = "CrashLoopBackOff" }, []string{"0 of 3 pods", "after 1ms", "CrashLoopBackOff"}},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			if tt.spoil != nil {
				tt.spoil(f)
			}
			n := &notes{}
			target, err := planOf(tt.spec).open(t.Context(), f.api(), deploy.Setup{OnEvent: n.on})
			if err == nil {
				// The pods are known now, however slow the machine is.
				target.(*Target).spec.ReadyTimeout = scenarios.Duration(time.Millisecond)
				err = target.WaitReady(t.Context())
				if gone := target.Stop(); gone != nil {
					t.Error(gone)
				}
			}
			if err == nil {
				t.Fatal("no error")
			}
			for _, says := range tt.says {
				if !strings.Contains(err.Error(), says) {
					t.Errorf("it does not say %q: %v", says, err)
				}
			}
			if left := slices.Sorted(maps.Keys(f.objects)); !slices.Equal(left, []string{"/nodes/node-a"}) {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

// A container that ended is told with its last words.
func TestWhyNot(t *testing.T) {
	pod := &corev1.Pod{Status: corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{{
		Name:                 "server",
		State:                corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff", Message: "back-off 10s"}},
		LastTerminationState: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 1, Message: "no model\n"}},
	}}}}
	if said, want := whyNot(pod).String(), "the container server waits (CrashLoopBackOff): back-off 10s; it ended with exit code 1 before: no model"; said != want {
		t.Errorf("got %q, want %q", said, want)
	}
}

// The replicas listen where other pods reach them, which they refuse to do unless told.
func TestReplicasAnswerTheirPods(t *testing.T) {
	rendered, err := filepath.Glob("rendered/*.yaml")
	if err != nil || len(rendered) == 0 {
		t.Fatal(rendered, err)
	}
	for _, file := range rendered {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(b), "- --answer-everybody\n") {
			t.Errorf("%s: a replica with no secret, on 0.0.0.0, does not start without --answer-everybody", file)
		}
	}
}

// Existing objects are neither changed nor removed.
func TestOthersObjectsAreLeftAlone(t *testing.T) {
	f := newFake(t)
	f.objects["/namespaces/ai-service"] = object{"apiVersion": "v1", "kind": "Namespace", "metadata": object{"name": "ai-service"}}
	f.objects["ai-service/deployments/inference-service"] = object{"apiVersion": "apps/v1", "kind": "Deployment", "metadata": object{"name": "inference-service", "namespace": "ai-service"}}
	before := len(f.objects)
	_, err := planOf(scenarios.Kubernetes{}).open(t.Context(), f.api(), deploy.Setup{OnEvent: func(deploy.Event) {}})
	if err == nil || !strings.Contains(err.Error(), "deployment/inference-service in ai-service is already there") {
		t.Fatal(err)
	}
	if len(f.objects) != before {
		t.Errorf("%v", slices.Sorted(maps.Keys(f.objects)))
	}
}

// An existing service is found by its selector, suffers faults, and stays. A
// fact that is not known about it is a reason for an unproven fault.
func TestAServiceThatIsThere(t *testing.T) {
	f := newFake(t)
	f.objects["n/services/llm"] = object{"apiVersion": "v1", "kind": "Service", "metadata": object{"name": "llm", "namespace": "n"}, "spec": object{"ports": []any{object{"name": "metrics", "port": 9000}, object{"name": "api", "port": 80, "targetPort": 8000}}}}
	d := object{"metadata": object{"name": "llm"}, "spec": object{"replicas": 2.0, "template": object{"metadata": object{"labels": object{"app": "llm"}}, "spec": object{"containers": []any{object{"name": "llm"}}}}}}
	f.pod("n", d, true)
	f.pod("n", d, true)
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "llm") }))
	defer api.Close()
	f.serve[8000] = api.Listener.Addr().String()
	spec := scenarios.Kubernetes{Deploy: scenarios.DeployNone, Namespace: "n", Selector: "app=llm", Service: "llm:api", APIKeyEnv: "KEY", Model: "m"}
	target, _ := open(t, f, spec)
	if err := target.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	e := target.Access().Endpoint
	resp, err := http.Get(e.URL)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if e.APIKeyEnv != "KEY" || e.Model != "m" || resp.StatusCode != http.StatusOK {
		t.Errorf("%+v %s", e, resp.Status)
	}
	for fault, c := range map[string]struct {
		capability deploy.Capability
		fault      scenarios.Fault
		why        string
	}{
		"pod-kill":             {deploy.KillReplica, scenarios.Fault{}, ""},
		"pod-kill, waiting":    {deploy.KillReplica, scenarios.Fault{MinStreams: 1}, "min_streams"},
		"network-delay":        {deploy.ShapeNetwork, scenarios.Fault{}, "it cannot shape the network"},
		"node-loss":            {deploy.TakeNode, scenarios.Fault{}, "target.kubernetes.node"},
		"bad-release":          {deploy.RollOutBad, scenarios.Fault{Release: scenarios.ReleaseCorruptModel}, "did not deploy"},
		"node-loss and a disk": {deploy.TakeNode, scenarios.Fault{Disk: scenarios.DiskLost}, "ledger"},
	} {
		err := target.Lacks(c.capability, c.fault)
		if c.why == "" && err != nil || c.why != "" && (err == nil || !strings.Contains(err.Error(), c.why)) {
			t.Errorf("%s: %v, want %q", fault, err, c.why)
		}
	}
	if err := target.Stop(); err != nil {
		t.Fatal(err)
	}
	if len(f.objects) != 4 {
		t.Errorf("what was there is gone: %v", slices.Sorted(maps.Keys(f.objects)))
	}
	spec.Access = scenarios.AccessInCluster
	target, _ = open(t, f, spec)
	if got := target.Access().Endpoint.URL; got != "http://llm.n.svc:80" {
		t.Errorf("in the cluster it is at %s", got)
	}
	if err := target.Stop(); err != nil {
		t.Fatal(err)
	}
}

// Another process undoes what a dead harness has left. It needs only the
// journal, and can repeat it.
func TestUndo(t *testing.T) {
	f := newFake(t)
	target, n := open(t, f, scenarios.Kubernetes{})
	if err := target.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	d, err := target.Preempt(t.Context(), deploy.Victim{Replica: target.Replicas()[0].Name}, scenarios.Fault{For: 1})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Inject(t.Context()); err != nil {
		t.Fatal(err)
	}
	a := f.api()
	if tainted, err := a.tainted(t.Context(), "node-a"); err != nil || !tainted {
		t.Fatal(tainted, err)
	}
	left := slices.Concat(d.Undo(), n.undo)
	target.stop()
	for range 2 {
		for _, u := range left {
			b, err := json.Marshal(u)
			if err != nil {
				t.Fatal(err)
			}
			var read deploy.Undo
			if err := json.Unmarshal(b, &read); err != nil {
				t.Fatal(err)
			}
			if !IsUndo(read) || read.UntilReboot {
				t.Errorf("%+v", read)
			}
			to, err := leftBy(read)
			if err != nil {
				t.Fatal(err)
			}
			if err := a.undo(t.Context(), read.Do, to); err != nil {
				t.Error(err)
			}
		}
	}
	if left := slices.Sorted(maps.Keys(f.objects)); !slices.Equal(left, []string{"/nodes/node-a"}) {
		t.Errorf("left behind: %v", left)
	}
	if tainted, err := a.tainted(t.Context(), "node-a"); err != nil || tainted {
		t.Error(tainted, err)
	}
	for _, damaged := range []deploy.Undo{{Do: undoRemove}, {Do: undoNode, To: []byte(`{}`)}, {Do: undoTaint, To: []byte(`[]`)}} {
		if err := Undo(damaged); err == nil || !strings.Contains(err.Error(), "damaged") {
			t.Errorf("%+v: %v", damaged, err)
		}
	}
}

// A drain that a disruption budget holds up is not seen in effect, and says so. A node
// that somebody else has cordoned stays as it is.
func TestDrainThatIsHeldUp(t *testing.T) {
	f := newFake(t)
	target, _ := open(t, f, scenarios.Kubernetes{ReadyTimeout: scenarios.Duration(20 * time.Second)})
	defer func() {
		if err := target.Stop(); err != nil {
			t.Error(err)
		}
	}()
	if err := target.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.mu.Lock()
	f.budget = 1 << 30
	f.mu.Unlock()
	victim := deploy.Victim{Replica: target.Replicas()[0].Name}
	effect, err := target.DrainNode(t.Context(), victim, scenarios.Fault{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := effect.Inject(t.Context()); err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	if _, err := effect.SeeInEffect(short); err == nil || !strings.Contains(err.Error(), "disruption budget") {
		t.Error(err)
	}
	if _, err := target.DrainNode(t.Context(), victim, scenarios.Fault{}); err == nil || !strings.Contains(err.Error(), "already") {
		t.Error(err)
	}
	if len(effect.Undo()) != 1 {
		t.Fatal(effect.Undo())
	}
	for range 2 { // another process undoes it, and can repeat that
		to, err := leftBy(effect.Undo()[0])
		if err != nil {
			t.Fatal(err)
		}
		if err := f.api().undo(t.Context(), effect.Undo()[0].Do, to); err != nil {
			t.Error(err)
		}
		if node, err := f.api().node(t.Context(), "node-a"); err != nil || node.Spec.Unschedulable {
			t.Error(node, err)
		}
	}
	if _, err := effect.Revert(t.Context()); err != nil {
		t.Error(err)
	}
}

// The cluster is found as kubectl finds it. If a context is unknown, the error
// lists the known ones.
func TestContexts(t *testing.T) {
	f := newFake(t)
	file := filepath.Join(t.TempDir(), "kubeconfig")
	config := fmt.Sprintf("apiVersion: v1\nkind: Config\nclusters: [{name: c, cluster: {server: %q}}]\ncontexts: [{name: a, context: {cluster: c}}, {name: b, context: {cluster: c}}]\ncurrent-context: %%s\n", f.URL)
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	for name, tt := range map[string]struct{ current, context, says string }{
		"the current one":                  {"a", "", ""},
		"another one":                      {"a", "b", ""},
		"one that is not there":            {"a", "nope", `no context is named "nope" in the kubeconfig (` + file + `); there are a, b`},
		"no current one, and none is told": {`""`, "", "there is no cluster"},
	} {
		if err := os.WriteFile(file, fmt.Appendf(nil, config, tt.current), 0o600); err != nil {
			t.Fatal(err)
		}
		t.Setenv("KUBECONFIG", file)
		a, err := connect("", tt.context)
		if tt.says == "" {
			if err != nil || a.config.Host != f.URL {
				t.Errorf("%s: %v", name, err)
			}
		} else if err == nil || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
	f.Close()
	if err := os.WriteFile(file, fmt.Appendf(nil, config, `""`), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := planOf(scenarios.Kubernetes{}).Open(t.Context(), deploy.Setup{OnEvent: func(deploy.Event) {}})
	if err == nil || !strings.Contains(err.Error(), "there is no cluster") {
		t.Error(err)
	}
	if err := os.WriteFile(file, fmt.Appendf(nil, config, "a"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err = planOf(scenarios.Kubernetes{}).Open(t.Context(), deploy.Setup{OnEvent: func(deploy.Event) {}}); err == nil || !strings.Contains(err.Error(), `the API server of the context "a" does not answer`) {
		t.Error(err)
	}
}

// A user's folder is rendered with kubectl or kustomize. Without both, the
// error says so.
func TestOwnOverlay(t *testing.T) {
	folder := t.TempDir()
	for file, text := range map[string]string{"kustomization.yaml": "resources: [config.yaml]\n", "config.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: own, namespace: here}\n"} {
		if err := os.WriteFile(filepath.Join(folder, file), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	spec := scenarios.Kubernetes{Overlay: folder, Namespace: "there"}
	if _, err := exec.LookPath("kubectl"); err == nil {
		objects, err := Render(t.Context(), spec)
		if err != nil || len(objects) != 1 || named(objects[0]) != "configmap/own in there" {
			t.Errorf("%v, %v", objects, err)
		}
	}
	programs := t.TempDir()
	if err := os.WriteFile(filepath.Join(programs, "kustomize"), []byte("#!/bin/sh\n[ $1 = build ] && exec /bin/cat $2/config.yaml\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", programs)
	if objects, err := Render(t.Context(), spec); err != nil || len(objects) != 1 {
		t.Errorf("by kustomize: %v, %v", objects, err)
	}
	t.Setenv("PATH", t.TempDir())
	if _, err := Render(t.Context(), spec); err == nil || !strings.Contains(err.Error(), "neither kubectl nor kustomize") {
		t.Error(err)
	}
}

// Every overlay has the guide's numbers and can get another namespace and
// another number of replicas. The scan of manifests finds nothing in it.
func TestManifests(t *testing.T) {
	for _, overlay := range Overlays() {
		t.Run(overlay, func(t *testing.T) {
			objects, err := Render(t.Context(), scenarios.Kubernetes{Overlay: overlay, Namespace: "elsewhere", Replicas: 12})
			if err != nil {
				t.Fatal(err)
			}
			var all strings.Builder
			for i, o := range objects {
				b, err := o.MarshalJSON()
				if err != nil {
					t.Fatal(err)
				}
				fmt.Fprintf(&all, "---\n%s\n", b)
				if o.GetKind() == "Namespace" != (i == 0) {
					t.Errorf("object %d is %s", i, named(o))
				}
				if o.GetKind() != "Namespace" && o.GetNamespace() != "elsewhere" {
					t.Errorf("%s is not in the namespace", named(o))
				}
			}
			for _, want := range []string{`"MODEL_NAME":"launchgate-default"`, `"MAX_BATCH_SIZE":"32"`, `"MAX_SEQUENCE_LENGTH":"4096"`, `"GPU_MEMORY_FRACTION":"0.9"`, `"replicas":12`, `"minReplicas":12`, `"maxReplicas":12`,
				`"containerPort":8080`, `"containerPort":8081`, `"containerPort":9090`, `"path":"/health"`, `"path":"/ready"`, `"medium":"Memory"`, `"averageUtilization":70`, `"averageUtilization":80`, `"name":"inference_queue_size"`, `"averageValue":"30"`,
				`"pod-security.kubernetes.io/enforce":"restricted"`} {
				if !strings.Contains(all.String(), want) {
					t.Errorf("it lacks %s", want)
				}
			}
			if has := strings.Contains(all.String(), "nvidia.com/gpu"); has != (overlay == "gpu") {
				t.Errorf("it asks for a GPU: %v", has)
			}
			if has := strings.Contains(all.String(), "PersistentVolumeClaim"); has == (overlay == "builtin-model" || overlay == "lab") {
				t.Errorf("it has a volume: %v", has)
			}
			scanned(t, []byte(all.String()))
		})
	}
}
