package kubernetes_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/launchgate/launchgate/checklist"
	"github.com/launchgate/launchgate/deploy/kubernetes"
	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/internal/run"
	"github.com/launchgate/launchgate/scenarios"
)

// viaService is the host that pods name when they reach the service.
const viaService = "llm.n.svc:80"

// service is one of the OpenAI form, and the proxy by which pods reach it. on is called
// for each request of a pod with its number.
func service(t *testing.T, on func(n int)) (address string, asked func() int) {
	var mu sync.Mutex
	n := 0
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		if strings.HasSuffix(r.URL.Path, "/models") {
			fmt.Fprint(w, `{"object": "list", "data": [{"id": "m"}]}`)
			return
		}
		if r.Host == viaService {
			mu.Lock()
			n++
			on(n)
			mu.Unlock()
		}
		w.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprint(w, "data: {\"choices\":[{\"delta\":{\"content\":\"a\"},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n")
	}))
	t.Cleanup(srv.Close)
	return srv.Listener.Addr().String(), func() int {
		mu.Lock()
		defer mu.Unlock()
		return n
	}
}

// play plays a gate with workers on the cluster, and judges it.
func play(t *testing.T, n int) (checklist.Verdict, *recording.Recording) {
	t.Helper()
	t.Setenv("XDG_STATE_HOME", t.TempDir()) // of the journal
	gate, err := scenarios.Parse("gate.yaml", []byte(`
name: shared
seed: 1
target: {kubernetes: {deploy: none, namespace: n, selector: app=llm, service: "llm:api"}}
scenarios:
  - name: s
    stages: [{name: open, for: 2s, rate: 60/s}]
objectives: [error_rate <= 5%]
`))
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "run")
	err = run.Run(t.Context(), run.Options{Gate: gate, Dir: dir, Version: "test", Workers: n, Elsewhere: kubernetes.Workers{Namespace: "n"}, Watchdog: []string{"sh", "-c", "cat >/dev/null"}, Tell: func(run.Progress) {}})
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
	return v, rec
}

// Three pods of a Job share a load: every request of the plan is sent once, through the
// Service, there is one recording and one verdict, which has the error of their clocks,
// and nothing of them is left.
func TestWorkersOnACluster(t *testing.T) {
	address, asked := service(t, func(int) {})
	c := kubernetes.NewCluster(t, address)
	before := c.Objects()
	v, rec := play(t, 3)
	seen, by := map[int64]bool{}, map[string]float64{}
	for r, err := range rec.Requests {
		if err != nil {
			t.Fatal(err)
		}
		if r.Kind != recording.KindLoad {
			continue
		}
		if seen[r.Seq] || !r.OK() {
			t.Errorf("%+v", r)
		}
		seen[r.Seq] = true
	}
	for _, o := range rec.Observations {
		if n := asked(); o.Name == recording.ObsStageEnded && (len(seen) != int(o.Value) || n != len(seen)) {
			t.Errorf("%d requests were recorded, and %d went through the Service, want %g", len(seen), n, o.Value)
		}
		if o.Name == recording.ObsWorkerClock || o.Name == recording.ObsWorkerPlace {
			by[o.Name+" "+o.Subject] = o.Value
		}
	}
	for _, name := range []string{"worker-0", "worker-1", "worker-2"} {
		if by[recording.ObsWorkerClock+" "+name] <= 0 || by[recording.ObsWorkerPlace+" "+name] < 1 {
			t.Errorf("of %s is known: %v", name, by)
		}
	}
	// On a busy machine the client may have been late, which is another matter.
	if e := v.Client.WorkerClockErrorSeconds; e == nil || v.Client.Valid && v.Verdict != checklist.Pass {
		t.Errorf("%v: %v, %v; clocks %v", v.Verdict, v.Why, v.Client.Why, e)
	}
	if left := c.Objects(); !slices.Equal(left, before) {
		t.Errorf("left behind: %v, before %v", left, before)
	}
}

// The loss of a worker makes the run invalid.
func TestALostWorkerOnACluster(t *testing.T) {
	var c kubernetes.Cluster
	address, _ := service(t, func(n int) {
		if n == 10 {
			if err := c.Kill(c.Workers()[0]); err != nil {
				t.Error(err)
			}
		}
	})
	c = kubernetes.NewCluster(t, address)
	v, _ := play(t, 2)
	if v.Verdict != checklist.Invalid || !strings.Contains(v.Client.Why.String(), "worker-0 was lost") {
		t.Errorf("%v: %v", v.Verdict, v.Client.Why)
	}
	if left := c.Objects(); slices.ContainsFunc(left, func(key string) bool { return strings.Contains(key, "workers") }) {
		t.Errorf("left behind: %v", left)
	}
}
