package deploy

import (
	"os"
	"slices"
	"testing"
	"time"
)

// memory_growth is about the processes that serve. Prometheus and the
// replicator of the ledger run beside them, and their memory is not reported.
func TestMonitoringMemoryIsNotReported(t *testing.T) {
	running := func(name string) *process { return &process{name: name, life: &life{pid: os.Getpid()}} }
	ps := programs{
		replicas: []*process{running("replica-0"), running("replica-1"), {name: "replica-2"}}, gateway: running(Gateway),
		replicator: running(Replicator), monitor: &monitor{process: running(Prometheus)},
	}
	if n := len(ps.all()); n != 6 {
		t.Fatalf("%d processes are known, expected 6", n)
	}
	var told []string
	ps.tellMemory(time.Now(), func(ev Event) {
		if ev.Name != "memory_bytes" || ev.Value <= 0 {
			t.Errorf("told %+v, expected memory_bytes above 0", ev)
		}
		told = append(told, ev.Subject)
	})
	if want := []string{"replica-0", "replica-1", Gateway}; !slices.Equal(told, want) {
		t.Errorf("the memory of %v was told, expected that of %v", told, want)
	}
}
