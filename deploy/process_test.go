package deploy

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/launchgate/launchgate/scenarios"
)

func TestBackoff(t *testing.T) {
	tests := []struct {
		start int
		want  time.Duration
	}{
		{0, 0},               // the first start does not wait
		{1, 0},               // neither does the first restart
		{2, time.Second},     // then the delay begins
		{3, 2 * time.Second}, // and it doubles
		{5, 8 * time.Second},
		{50, maxBackoff}, // up to its bound
	}
	for _, tt := range tests {
		if got := backoff(tt.start); got != tt.want {
			t.Errorf("backoff(%d) = %s, want %s", tt.start, got, tt.want)
		}
	}
}

// events collects the events of a process.
type events struct {
	mu  sync.Mutex
	all []Event
}

func (e *events) add(ev Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.all = append(e.all, ev)
}

// wait waits for the nth event of a name.
func (e *events) wait(t *testing.T, name string, nth int) Event {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		e.mu.Lock()
		seen := 0
		for _, ev := range e.all {
			if ev.Name == name {
				if seen++; seen == nth {
					e.mu.Unlock()
					return ev
				}
			}
		}
		e.mu.Unlock()
	}
	t.Fatalf("no %s number %d; got %v", name, nth, e.all)
	return Event{}
}

func TestSuperviseRestartsAndStops(t *testing.T) {
	var seen events
	p := &process{name: "sleeper", argv: []string{"sleep", "60"}, log: io.Discard, onEvent: seen.add}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { p.supervise(ctx) })

	first := seen.wait(t, "process_started", 1)
	life := p.current()
	proc, err := os.FindProcess(life.pid)
	if err != nil {
		t.Fatal(err)
	}
	if err := proc.Kill(); err != nil {
		t.Fatal(err)
	}
	<-life.exited
	if life.how.String() != "signal: killed" {
		t.Errorf("the process ended by %q, want signal: killed", life.how)
	}
	second := seen.wait(t, "process_started", 2)
	if second.Value == first.Value {
		t.Errorf("restarted with the same pid %v", second.Value)
	}

	cancel()
	running.Wait()
	if out, _ := exec.Command("ps", "-o", "pid=", "-p", fmt.Sprint(int(second.Value))).Output(); strings.TrimSpace(string(out)) != "" {
		t.Errorf("pid %v still runs after the supervisor returned", second.Value)
	}
}

func TestStopKillsWhatDoesNotStop(t *testing.T) {
	var seen events
	p := &process{name: "stubborn", argv: []string{"sh", "-c", "trap '' TERM; echo up; while :; do sleep 1; done"}, log: io.Discard, onEvent: seen.add}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { p.supervise(ctx) })
	seen.wait(t, "process_started", 1)
	time.Sleep(100 * time.Millisecond) // until the process ignores SIGTERM
	started := time.Now()
	cancel()
	running.Wait()
	if took := time.Since(started); took < stopGrace || took > stopGrace+5*time.Second {
		t.Errorf("stopping took %s, want the grace of %s and little more", took, stopGrace)
	}
	if end := seen.wait(t, "process_exited", 1); end.Text.String() != "signal: killed" {
		t.Errorf("ended by %q, want signal: killed", end.Text)
	}
}

func TestSuperviseReportsWhatCannotStart(t *testing.T) {
	var seen events
	p := &process{name: "none", argv: []string{"/nonexistent/program"}, log: io.Discard, onEvent: seen.add}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { p.supervise(ctx) })
	if ev := seen.wait(t, "process_exited", 1); !strings.Contains(ev.Text.String(), "could not be started") {
		t.Errorf("event says %q", ev.Text)
	}
	cancel()
	running.Wait()
}

func TestFreePortsLieBelowTheSourcePorts(t *testing.T) {
	ports, err := freePorts(20)
	if err != nil {
		t.Fatal(err)
	}
	again, err := freePorts(20) // nobody listens on the first ones yet
	if err != nil {
		t.Fatal(err)
	}
	ports = append(ports, again...)
	seen := map[int]bool{}
	for _, p := range ports {
		if seen[p] || p >= ephemeralStart() {
			t.Errorf("port %d twice or in the range of source ports, which starts at %d", p, ephemeralStart())
		}
		seen[p] = true
	}
}

func TestPortTaken(t *testing.T) {
	ports, err := freePorts(1)
	if err != nil {
		t.Fatal(err)
	}
	if err := portFree(ports[0]); err != nil {
		t.Errorf("a free port: %v", err)
	}
	l, err := listen(ports[0])
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := portFree(ports[0]); err == nil || !strings.Contains(err.Error(), "is taken") {
		t.Errorf("a taken port: %v", err)
	}
}

// A missing model file is an error at once, not only after the wait for the
// replicas.
func TestAModelThatIsNotThere(t *testing.T) {
	for _, spec := range []scenarios.Local{{Model: "/no/such.gguf"}, {Models: map[string]scenarios.Model{"a": {}, "b": {Path: "/no/such.gguf"}}}} {
		if err := spec.CheckModels(); err == nil || !strings.Contains(err.Error(), "/no/such.gguf") {
			t.Errorf("%+v: %v", spec, err)
		}
	}
	if err := (scenarios.Local{}).CheckModels(); err != nil {
		t.Error(err)
	}
}
