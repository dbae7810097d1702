package worker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/loadgen"
	"github.com/launchgate/launchgate/loadgen/prompt"
	"github.com/launchgate/launchgate/scenarios"
)

const gate = `
name: g
seed: 1
target: {endpoint: {url: "http://127.0.0.1:1"}}
scenarios:
  - name: s
    stages:
      - {name: open, for: 1s, rate: 60/s}
      - {name: users, for: 500ms, users: 5, think: 50ms}
objectives: [error_rate <= 5%]
`

// played is the result of a scenario.
type played struct {
	mu   sync.Mutex
	rows []recording.Request
	seen []recording.Observation
}

func (p *played) sink(r recording.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rows = append(p.rows, r)
}
func (p *played) observe(o recording.Observation) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seen = append(p.seen, o)
}

// service answers with one token after a delay.
func service(t *testing.T, after time.Duration) string {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		select {
		case <-time.After(after):
		case <-r.Context().Done():
			return
		}
		w.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprint(w, "data: {\"choices\":[{\"delta\":{\"content\":\"a\"},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n")
	}))
	t.Cleanup(srv.Close)
	return srv.URL
}

// crewOf starts n workers in this process, and returns a function for each that ends
// it.
func crewOf(t *testing.T, n int, clock recording.Clock, url string) (*Crew, []context.CancelFunc) {
	t.Helper()
	c, err := Recruit("127.0.0.1:0", clock)
	if err != nil {
		t.Fatal(err)
	}
	var ends []context.CancelFunc
	var working sync.WaitGroup
	for range n {
		ctx, cancel := context.WithCancel(context.Background())
		ends = append(ends, cancel)
		working.Go(func() {
			if err := Work(ctx, c.Address(), c.Token, "test"); err != nil {
				t.Error(err)
			}
		})
	}
	t.Cleanup(func() { c.Dismiss(); working.Wait() })
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	task := Task{Gate: []byte(gate), Endpoint: scenarios.Endpoint{URL: url, Model: "m"}, Seeds: []uint64{7}, Nonce: 3}
	if err := c.Gather(ctx, n, task); err != nil {
		t.Fatal(err)
	}
	return c, ends
}

func planOf(t *testing.T) *loadgen.Plan {
	g, err := scenarios.Parse("gate.yaml", []byte(gate))
	if err != nil {
		t.Fatal(err)
	}
	m, err := prompt.Gather(g)
	if err != nil {
		t.Fatal(err)
	}
	return loadgen.NewPlan(g.Scenarios[0], 7, m)
}

// Three workers send the plan of one, every request once and at its time by the clock
// of the run.
func TestWorkersShareThePlan(t *testing.T) {
	clock := recording.NewClock()
	time.Sleep(30 * time.Millisecond) // so that the clocks differ
	c, _ := crewOf(t, 3, clock, service(t, 0))
	var p played
	before := clock.Now()
	if err := c.Play(context.Background(), 0, p.sink, p.observe); err != nil {
		t.Fatal(err)
	}
	plan := planOf(t)
	var open []recording.Request
	users := map[int64]bool{}
	for _, r := range p.rows {
		if !r.OK() || r.Scenario != "s" {
			t.Fatalf("%+v", r)
		}
		if r.Stage == "open" {
			open = append(open, r)
		} else {
			users[r.Seq%5] = true
		}
	}
	slices.SortFunc(open, func(a, b recording.Request) int { return int(a.Seq - b.Seq) })
	if len(open) != plan.Requests() || len(users) != 5 {
		t.Fatalf("%d requests and %d users, want %d and 5", len(open), len(users), plan.Requests())
	}
	start := open[0].Due - plan.Due(0)
	if start < before || start > before+time.Second {
		t.Errorf("the load began at %s, and was ordered at %s", start, before)
	}
	for n, r := range open {
		// Every worker's clock is off by at most half of its quickest round trip.
		if off := r.Due - start - plan.Due(n); r.Seq != int64(n) || off > 5*time.Millisecond || off < -5*time.Millisecond {
			t.Errorf("request %d is number %d and %s off", n, r.Seq, off)
		}
	}
	marks := map[string]float64{}
	looks := map[string]bool{}
	for _, o := range p.seen {
		if strings.HasPrefix(o.Name, "stage") {
			if _, twice := marks[o.Name+" "+o.Subject]; twice {
				t.Errorf("%s of %s is told twice", o.Name, o.Subject)
			}
			marks[o.Name+" "+o.Subject] = o.Value
		}
		if strings.HasPrefix(o.Name, "client_") {
			looks[o.Subject] = true
		}
	}
	if marks["stage_started s/open"] != float64(plan.Requests()) || marks["stage_ended s/users"] != float64(len(p.rows)-len(open)) || len(marks) != 4 {
		t.Errorf("%v", marks)
	}
	if len(looks) != 3 {
		t.Errorf("%v looked at themselves", looks)
	}
}

// Workers that wait are called by a coordinator, and by nobody else. Each gets the share
// of its number, files of the coordinator's machine, and has its clock measured.
func TestWorkersAreCalled(t *testing.T) {
	token, clock := "the token", recording.NewClock()
	var addresses []string
	var working sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	defer working.Wait()
	defer cancel()
	for range 2 {
		free, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		addresses = append(addresses, free.Addr().String())
		free.Close()
		working.Go(func() {
			if err := Wait(ctx, free.Addr().String(), Sum(token), "test", time.Minute); err != nil {
				t.Error(err)
			}
		})
	}
	dial := func(ctx context.Context, i int) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", addresses[i])
	}
	calling, done := context.WithTimeout(ctx, 60*time.Second)
	defer done()
	short, enough := context.WithTimeoutCause(calling, time.Second, errors.New("enough"))
	defer enough()
	if _, err := Call(short, 2, "a guess", clock, dial); err == nil || !strings.Contains(err.Error(), "enough") {
		t.Errorf("without the token: %v", err)
	}
	folder := t.TempDir()
	if err := os.WriteFile(filepath.Join(folder, "talks.jsonl"), []byte(`{"prompt": "from a file"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	withFile := strings.Replace(gate, "    stages:", "    workload: {dataset: "+filepath.Join(folder, "talks.jsonl")+"}\n    stages:", 1)
	g, err := scenarios.Parse("gate.yaml", []byte(withFile))
	if err != nil {
		t.Fatal(err)
	}
	var asked sync.Map
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		asked.Store(strings.Contains(string(b), "from a file"), true)
		w.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprint(w, "data: {\"choices\":[{\"delta\":{\"content\":\"a\"},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n")
	}))
	defer srv.Close()
	endpoint := scenarios.Endpoint{URL: srv.URL, Model: "m"}
	files, err := Pack(g, endpoint)
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	if err := os.RemoveAll(folder); err != nil { // the workers' machines have no such folder
		t.Fatal(err)
	}
	c, err := Call(calling, 2, token, clock, dial)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Dismiss()
	if err := c.Gather(calling, 2, Task{Gate: []byte(withFile), Endpoint: endpoint, Files: files, Seeds: []uint64{7}}); err != nil {
		t.Fatal(err)
	}
	if cores := c.Cores(); len(cores) != 2 || slices.Min(cores) < 1 {
		t.Errorf("cores %v", cores)
	}
	var p played
	if err := c.Play(ctx, 0, p.sink, p.observe); err != nil {
		t.Fatal(err)
	}
	if _, other := asked.Load(false); other || len(p.rows) < planOf(t).Requests() {
		t.Errorf("%d requests, of which some did not have the prompt of the file: %v", len(p.rows), other)
	}
	clocks := map[string]float64{}
	for _, o := range p.seen {
		if o.Name == recording.ObsWorkerClock {
			clocks[o.Subject] = o.Value
		}
	}
	for _, name := range []string{"worker-0", "worker-1"} {
		if e := clocks[name]; e <= 0 || e > 1 {
			t.Errorf("the clock of %s is off by %g s", name, e)
		}
	}
}

// A worker that nobody calls does not wait for ever.
func TestNobodyCalls(t *testing.T) {
	err := Wait(context.Background(), "127.0.0.1:0", Sum("x"), "test", 50*time.Millisecond)
	if err == nil || !strings.Contains(err.Error(), "no coordinator connected within 50ms") {
		t.Error(err)
	}
}

// The loss of a worker is reported, and the others continue.
func TestALostWorkerIsReported(t *testing.T) {
	clock := recording.NewClock()
	c, ends := crewOf(t, 2, clock, service(t, 0))
	var p played
	time.AfterFunc(600*time.Millisecond, ends[0])
	if err := c.Play(context.Background(), 0, p.sink, p.observe); err != nil {
		t.Fatal(err)
	}
	lost := 0
	for _, o := range p.seen {
		if o.Name == recording.ObsWorkerLost {
			lost++
		}
		if o.Name == recording.ObsStageEnded {
			t.Errorf("%+v, though a part of the stage was not played", o)
		}
	}
	if lost != 1 || len(p.rows) < 20 {
		t.Errorf("%d workers are told to be lost, %d requests came back", lost, len(p.rows))
	}
}

func TestPlayIsStopped(t *testing.T) {
	clock := recording.NewClock()
	c, _ := crewOf(t, 2, clock, service(t, time.Hour))
	ctx, cancel := context.WithCancel(context.Background())
	time.AfterFunc(700*time.Millisecond, cancel)
	var p played
	began := time.Now()
	if err := c.Play(ctx, 0, p.sink, p.observe); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("it took %s", took)
	}
	for _, r := range p.rows {
		if r.Error != recording.ErrorCancelled && r.Error != recording.ErrorNotSent {
			t.Errorf("%+v", r)
		}
	}
}

// A connection without the token is refused, and does not keep workers out.
func TestStrangers(t *testing.T) {
	c, err := Recruit("127.0.0.1:0", recording.NewClock())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Dismiss()
	stranger, err := net.Dial("tcp", c.Address())
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	fmt.Fprint(stranger, "GET / HTTP/1.1\r\n\r\n")
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = Work(context.Background(), c.Address(), "guess", "test")
		_ = Work(context.Background(), c.Address(), c.Token, "test")
	}()
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	if err := c.Gather(ctx, 1, Task{Gate: []byte(gate), Endpoint: scenarios.Endpoint{URL: "http://127.0.0.1:1"}, Seeds: []uint64{7}}); err != nil {
		t.Fatal(err)
	}
	c.Dismiss()
	<-done
}

// A worker that cannot prepare says why.
func TestAWorkerSaysWhyItCannot(t *testing.T) {
	c, err := Recruit("127.0.0.1:0", recording.NewClock())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Dismiss()
	done := make(chan error, 1)
	go func() { done <- Work(context.Background(), c.Address(), c.Token, "test") }()
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	err = c.Gather(ctx, 1, Task{Gate: []byte(gate), Endpoint: scenarios.Endpoint{URL: "http://127.0.0.1:1", APIKeyEnv: "LAUNCHGATE_NO_SUCH_KEY"}, Seeds: []uint64{7}})
	if err == nil || !strings.Contains(err.Error(), "LAUNCHGATE_NO_SUCH_KEY") {
		t.Errorf("%v", err)
	}
	<-done
}
