package kubernetes

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chaos-mesh/chaos-mesh/api/v1alpha1"

	"github.com/launchgate/launchgate/deploy"
	"github.com/launchgate/launchgate/scenarios"
)

// mesh has the fake play Chaos Mesh: what it injects changes how pods answer.
type mesh struct {
	*fake
	delay  atomic.Int64 // of every answer through the proxy
	lossy  atomic.Bool  // every third answer is as late as a packet that was lost
	rate   atomic.Int64 // bytes a second; 0: any
	cut    atomic.Bool
	skew   atomic.Int64
	looks  atomic.Int64
	last   atomic.Pointer[object] // object that was applied
	refuse string                 // why nothing can be injected
	stick  bool                   // it takes back nothing
}

const page = 20000 // bytes of the metrics

func newMesh(t *testing.T) *mesh {
	m := &mesh{fake: newFake(t)}
	m.fake.mesh = m
	serve := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Date", time.Now().Add(time.Duration(m.skew.Load())).UTC().Format(http.TimeFormat))
		fmt.Fprint(w, "served")
	}))
	t.Cleanup(serve.Close)
	m.serve[8080] = serve.Listener.Addr().String()
	return m
}

// inject does what an object of Chaos Mesh says, and notes it in its status.
func (m *mesh) inject(o object) {
	m.last.Store(&o)
	o["metadata"].(object)["finalizers"] = []any{"chaos-mesh/records"}
	record := object{"id": "ns/pod", "selectorKey": ".", "phase": "Injected", "injectedCount": 1}
	status := "True"
	if m.refuse != "" {
		status = "False"
		record["phase"], record["events"] = "Not Injected", []any{object{"type": "Failed", "operation": "Apply", "message": m.refuse, "timestamp": nil}}
	} else {
		m.play(o["spec"].(object), true)
	}
	o["status"] = object{"conditions": []any{object{"type": "AllInjected", "status": status}}, "experiment": object{"containerRecords": []any{record}}}
}

func (m *mesh) play(spec object, on bool) {
	set := func(d time.Duration) int64 {
		if !on {
			return 0
		}
		return int64(d)
	}
	switch action, _ := spec["action"].(string); {
	case spec["timeOffset"] != nil:
		d, _ := time.ParseDuration(spec["timeOffset"].(string))
		m.skew.Store(set(d))
	case action == "delay":
		d, _ := time.ParseDuration(spec["delay"].(object)["latency"].(string))
		m.delay.Store(set(d))
	case action == "loss":
		m.lossy.Store(on)
	case action == "bandwidth":
		var rate int64
		_, _ = fmt.Sscanf(spec["bandwidth"].(object)["rate"].(string), "%dbps", &rate)
		m.rate.Store(set(time.Duration(rate)))
	case action == "partition":
		m.cut.Store(on)
	case action == "pod-failure":
		for name := range spec["selector"].(object)["pods"].(object) {
			pod := spec["selector"].(object)["pods"].(object)[name].([]any)[0].(string)
			o := m.objects[name+"/pods/"+pod]
			o["status"].(object)["conditions"] = []any{object{"type": "Ready", "status": map[bool]string{true: "False", false: "True"}[on]}}
			m.failing = map[bool]string{true: pod}[on]
			m.tell("MODIFIED", o)
		}
	}
}

// end takes an object back when it is deleted.
func (m *mesh) end(key string, o object) {
	if m.stick {
		o["metadata"].(object)["deletionTimestamp"] = "2026-01-01T00:00:00Z"
		return
	}
	m.play(o["spec"].(object), false)
	delete(m.objects, key)
}

// proxy answers as the API server's proxy of a pod does.
func (m *mesh) proxy(w http.ResponseWriter, r *http.Request) {
	if m.cut.Load() {
		m.fail(w, http.StatusServiceUnavailable, "ServiceUnavailable", "error trying to reach service: dial tcp: i/o timeout")
		return
	}
	wait := time.Duration(m.delay.Load())
	if m.lossy.Load() && m.looks.Add(1)%3 == 0 {
		wait += 220 * time.Millisecond
	}
	size := 10
	if strings.HasSuffix(r.URL.Path, "/metrics") {
		size = page
	}
	if rate := m.rate.Load(); rate > 0 {
		wait += time.Duration(size) * time.Second / time.Duration(rate)
	}
	time.Sleep(wait)
	_, _ = w.Write(make([]byte, size))
}

// Each fault by Chaos Mesh is injected by its API's types with a duration, an owner and
// labels, is seen by what the service shows, and is gone with its object.
func TestChaosMesh(t *testing.T) {
	asked, allowed, more := map[string]bool{}, roles(t, "rights/role.yaml"), roles(t, "rights/chaos-mesh.yaml")
	for name, tt := range map[string]struct {
		fault   scenarios.Fault
		prepare func(*Target) func(context.Context, deploy.Victim, scenarios.Fault) (deploy.Effect, error)
		spec    string // what the object has to hold
		says    string
	}{
		"delay":     {scenarios.Fault{Kind: "network-delay", Delay: scenarios.Duration(150 * time.Millisecond)}, shape, `"action":"delay"`, "took"},
		"loss":      {scenarios.Fault{Kind: "network-loss", Loss: 0.25}, shape, `"loss":"25"`, "took"},
		"bandwidth": {scenarios.Fault{Kind: "network-bandwidth", Bandwidth: 40000}, shape, `"rate":"40000bps"`, "took"},
		"partition": {scenarios.Fault{Kind: "node-partition"}, shape, `"direction":"both"`, "is not answered"},
		"skew":      {scenarios.Fault{Kind: "clock-skew", Skew: scenarios.Offset(-90 * time.Second)}, func(t *Target) prepares { return t.SkewClock }, `"timeOffset":"-1m30s"`, "-1m"},
		"failure":   {scenarios.Fault{Kind: "pod-hang"}, func(t *Target) prepares { return t.HangReplica }, `"action":"pod-failure"`, "answers nothing"},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMesh(t)
			target, _ := open(t, m.fake, scenarios.Kubernetes{Access: scenarios.AccessInCluster, ReadyTimeout: scenarios.Duration(20 * time.Second)})
			defer func() {
				if err := target.Stop(); err != nil {
					t.Error(err)
				}
			}()
			ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
			defer cancel()
			if err := target.WaitReady(ctx); err != nil {
				t.Fatal(err)
			}
			tt.fault.For, tt.fault.Within = scenarios.Duration(10*time.Second), scenarios.Duration(20*time.Second)
			victim := target.Replicas()[0].Name
			effect, err := tt.prepare(target)(ctx, deploy.Victim{Replica: victim}, tt.fault)
			if err != nil {
				t.Fatal(err)
			}
			for i, step := range []func(context.Context) (deploy.Sight, error){effect.Inject, effect.SeeInEffect, effect.SeeInEffect, effect.Revert, effect.Revert, effect.SeeGone} {
				seen, err := step(ctx)
				if err != nil {
					t.Fatalf("step %d: %v", i, err)
				}
				if i == 1 && !strings.Contains(seen.How.String(), tt.says) {
					t.Errorf("it was seen as %q, and not as %q", seen.How, tt.says)
				}
			}
			sent := *m.last.Load()
			b := mustJSON(t, sent)
			for _, want := range []string{tt.spec, `"duration":"30s"`, `"ownerReferences":[{"apiVersion":"v1","kind":"Pod","name":"` + victim, `"launchgate.dev/run":"` + target.run, `"` + victim + `"`} {
				if !strings.Contains(b, want) {
					t.Errorf("it lacks %s: %s", want, b)
				}
			}
			if !strings.Contains(b, `"apiVersion":"`+v1alpha1.SchemeGroupVersion.String()) {
				t.Errorf("%s", b)
			}
			for key := range m.objects {
				if strings.Contains(key, "chaos/") {
					t.Errorf("left behind: %s", key)
				}
			}
			maps.Copy(asked, m.asked)
		})
	}
	for ask := range asked {
		if !allowed[ask] && !more[ask] {
			t.Errorf("rights do not allow %q, which is asked for", ask)
		}
	}
	for ask := range more {
		if !asked[ask] {
			t.Errorf("chaos-mesh.yaml allows %q, which nobody asks for", ask)
		}
	}
}

type prepares = func(context.Context, deploy.Victim, scenarios.Fault) (deploy.Effect, error)

func shape(t *Target) prepares { return t.ShapeNetwork }

// A fault that Chaos Mesh cannot inject says why, and does not stay on its finalizer,
// nor after the harness has died; where Chaos Mesh is not there, that is the reason.
func TestChaosMeshThatCannot(t *testing.T) {
	letGoWithin = 300 * time.Millisecond
	m := newMesh(t)
	m.refuse, m.stick = "no kernel module sch_netem", true
	target, _ := open(t, m.fake, scenarios.Kubernetes{Access: scenarios.AccessInCluster, ReadyTimeout: scenarios.Duration(20 * time.Second)})
	if err := target.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	fault := scenarios.Fault{Kind: "network-delay", Delay: scenarios.Duration(100 * time.Millisecond), For: scenarios.Duration(time.Second)}
	if err := target.Lacks(deploy.ShapeNetwork, fault); err != nil {
		t.Fatal(err)
	}
	for _, ending := range []string{"by itself", "by recover"} {
		effect, err := target.ShapeNetwork(t.Context(), deploy.Victim{Replica: target.Replicas()[0].Name}, fault)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := effect.Inject(t.Context()); err != nil {
			t.Fatal(err)
		}
		short, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		if _, err := effect.SeeInEffect(short); err == nil || !strings.Contains(err.Error(), "no kernel module sch_netem") {
			t.Error(err)
		}
		cancel()
		if ending == "by recover" {
			for _, u := range effect.Undo() {
				to, err := leftBy(u)
				if err != nil {
					t.Fatal(err)
				}
				if err := m.api().undo(t.Context(), u.Do, to); err != nil {
					t.Error(err)
				}
			}
		} else {
			if _, err := effect.Revert(t.Context()); err != nil {
				t.Error(err)
			}
			if seen, err := effect.SeeGone(t.Context()); err != nil || !strings.Contains(seen.How.String(), "finalizers were taken off") {
				t.Error(seen.How, err)
			}
		}
		if slices.ContainsFunc(slices.Collect(maps.Keys(m.objects)), func(key string) bool { return strings.Contains(key, "networkchaos") }) {
			t.Errorf("%s: it is still there", ending)
		}
	}
	if _, err := target.ShapeNetwork(t.Context(), deploy.Victim{Replica: target.Replicas()[0].Name}, scenarios.Fault{Kind: "network-bandwidth", Bandwidth: 1 << 30}); err == nil || !strings.Contains(err.Error(), "could not be seen") {
		t.Error(err)
	}
	if err := target.Stop(); err != nil {
		t.Error(err)
	}

	target, _ = open(t, newFake(t), scenarios.Kubernetes{Access: scenarios.AccessInCluster})
	defer func() { _ = target.Stop() }()
	var lacks deploy.Lack
	if err := target.Lacks(deploy.ShapeNetwork, fault); !errors.As(err, &lacks) || !strings.Contains(err.Error(), "does not have it") {
		t.Error(err)
	}
}
