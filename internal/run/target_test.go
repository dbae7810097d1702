package run

import (
	"context"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/launchgate/launchgate/chaos"
	"github.com/launchgate/launchgate/checklist"
	"github.com/launchgate/launchgate/deploy"
	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/scenarios"
)

// cluster is a third kind of target, neither local processes nor an endpoint of the
// gate. It serves from the test, can lose one of its replicas, and has no other
// capability.
type cluster struct {
	server *httptest.Server
	setup  deploy.Setup
	mu     sync.Mutex
	down   bool // the replica does not answer
	calls  []string
}

func (c *cluster) note(call string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calls = append(c.calls, call)
}

func (c *cluster) isDown() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.down
}

func (c *cluster) set(down bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.down = down
}

func (c *cluster) About() deploy.About {
	return deploy.About{Kind: "cluster", URL: c.server.URL, Replicas: 1, Tells: []string{recording.ObsReplicasReady}}
}

func (c *cluster) Replicas() []deploy.Replica {
	return []deploy.Replica{{Name: "web-7f9c-abcde", Node: "machine-7"}}
}

func (c *cluster) Lacks(what deploy.Capability, _ scenarios.Fault) error {
	if what == deploy.KillReplica {
		return nil
	}
	return deploy.Lack{Reason: words.Say("it cannot %s", what.Said())}
}

func (c *cluster) PlayedBy(scenarios.Fault) words.Sentence { return words.Sentence{} }

func (c *cluster) Open(_ context.Context, o deploy.Setup) (deploy.Target, error) {
	c.setup = o
	c.note("open")
	return c, nil
}

func (c *cluster) Access() deploy.Access {
	return deploy.Access{Endpoint: scenarios.Endpoint{URL: c.server.URL, APIKeyEnv: "CLUSTER_KEY"}, Keys: map[string]string{"CLUSTER_KEY": "issued by the cluster"}}
}

func (c *cluster) Metrics() []deploy.Source { return nil }

func (c *cluster) WaitReady(context.Context) error {
	c.setup.OnEvent(deploy.Event{At: time.Now(), Name: recording.ObsReplicasReady, Value: 1})
	return nil
}

func (c *cluster) Stop() error {
	c.note("stop")
	return nil
}

func (c *cluster) InFlight(context.Context) (map[string]int, error) {
	return map[string]int{"web-7f9c-abcde": 0}, nil
}

func (c *cluster) Serving(context.Context, string) bool { return !c.isDown() }

func (c *cluster) KillReplica(_ context.Context, v deploy.Victim, _ scenarios.Fault) (deploy.Effect, error) {
	return &evicted{c, v.Replica}, nil
}

// evicted is the loss of a pod, which its platform restarts after a while.
type evicted struct {
	*cluster
	pod string
}

func (e *evicted) Victim() string { return e.pod }

// Undo is what another process could do with the pod's name alone.
func (e *evicted) Undo() []deploy.Undo {
	return []deploy.Undo{{Do: "uncordon", To: []byte(`{"node":"machine-7"}`)}}
}

func (e *evicted) Inject(context.Context) (deploy.Sight, error) {
	e.set(true)
	time.AfterFunc(700*time.Millisecond, func() { e.set(false) })
	return deploy.Sight{How: words.Verbatim("the pod was deleted")}, nil
}

func (e *evicted) SeeInEffect(context.Context) (deploy.Sight, error) {
	return deploy.Sight{How: words.Verbatim("the pod is gone")}, nil
}

func (e *evicted) Revert(context.Context) (deploy.Sight, error) {
	e.note("revert")
	return deploy.Sight{How: words.Verbatim("the platform starts another")}, nil
}

func (e *evicted) SeeGone(ctx context.Context) (deploy.Sight, error) {
	for e.isDown() {
		select {
		case <-ctx.Done():
			return deploy.Sight{}, ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
	return deploy.Sight{How: words.Verbatim("another pod serves")}, nil
}

// A target of another kind plays a gate with a fault from end to end, from its Plan
// alone: it is deployed, called with the key that it issued, disturbed, seen to
// recover, judged and stopped. A fault that it does not support is unproven, with its
// own reason.
func TestAThirdKindOfTarget(t *testing.T) {
	c := &cluster{}
	planted := newPlanted()
	c.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case c.isDown():
			http.Error(w, "no pod", http.StatusServiceUnavailable)
		case strings.HasPrefix(r.URL.Path, "/v1/") && r.Header.Get("Authorization") != "Bearer issued by the cluster":
			http.Error(w, "no key", http.StatusUnauthorized)
		default:
			planted.ServeHTTP(w, r)
		}
	}))
	defer c.server.Close()
	gate, err := scenarios.Parse("gate.yaml", []byte(`
name: third
seed: 1
target: {endpoint: {url: "http://127.0.0.1:1"}}
warmup: {requests: 1}
scenarios:
  - name: s
    workload: {max_tokens: 8}
    stages: [{name: m, for: 5s, rate: 20/s}]
    faults:
      - {kind: pod-kill, target: web-7f9c-abcde, at: 1s, repeat: 2}
      - {kind: pod-hang, at: 1s, for: 1s}
    probe: {every: 50ms}
objectives: [rto(pod-kill) < 5s, rto(pod-hang) < 5s]
`))
	if err != nil {
		t.Fatal(err)
	}
	if unable := chaos.Unable(gate, c); len(unable) != 1 || !strings.Contains(unable[0].String(), "pod-hang: unsupported: it cannot stop a replica from answering") {
		t.Errorf("%v", unable)
	}
	t.Setenv("XDG_STATE_HOME", t.TempDir())
	dir := filepath.Join(t.TempDir(), "run")
	err = Run(t.Context(), Options{Gate: gate, Plan: func(scenarios.Gate) deploy.Plan { return c }, Dir: dir, Watchdog: []string{"sh", "-c", "cat >/dev/null", "sh"}, Tell: func(Progress) {}})
	if err != nil {
		t.Fatal(err)
	}
	rec, err := recording.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	v, err := checklist.Judge(gate, rec)
	if err != nil {
		t.Fatal(err)
	}
	if f := v.Objectives[0]; f.Verdict != checklist.Pass || f.Samples != 2 || !strings.Contains(f.Why.String(), "the worst of 2") {
		t.Errorf("%+v", v.Objectives[0])
	}
	if f := v.Objectives[1]; f.Verdict != checklist.Unproven || !strings.Contains(f.Why.String(), "it cannot stop a replica from answering") {
		t.Errorf("%+v", f)
	}
	if got := strings.Join(c.calls, " "); got != "open revert revert stop" {
		t.Errorf("it was called: %s", got)
	}
	if rec.Environment.Target.Kind != "cluster" {
		t.Errorf("%+v", rec.Environment.Target)
	}
}
