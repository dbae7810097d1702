package run

import (
	"context"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/launchgate/launchgate/deploy"
	"github.com/launchgate/launchgate/internal/recording"
)

// memoryEvery is how often the memory of the service is looked at.
const memoryEvery = 500 * time.Millisecond

// memory knows the processes of a deployment.
type memory struct {
	mu   sync.Mutex
	pids map[string]int
}

// see takes note of processes that start and end.
func (m *memory) see(e deploy.Event) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch e.Name {
	case recording.ObsProcessStarted:
		if m.pids == nil {
			m.pids = map[string]int{}
		}
		m.pids[e.Subject] = int(e.Value)
	case recording.ObsProcessExited:
		delete(m.pids, e.Subject)
	}
}

// watchMemory observes until ctx ends how much memory each process takes that
// was deployed. A service that is already there tells it itself, or nobody
// does.
func (c *conductor) watchMemory(ctx context.Context) {
	if c.Gate.Target.Local == nil {
		return
	}
	tick := time.NewTicker(memoryEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		c.memory.each(func(name string, bytes int64) {
			c.observe(recording.Observation{At: c.clock.Now(), Name: recording.ObsMemory, Subject: name, Value: float64(bytes)})
		})
	}
}

// each tells the resident memory of each process that runs.
func (m *memory) each(tell func(name string, bytes int64)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for name, pid := range m.pids {
		statm, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
		if err != nil {
			continue // it has just ended, or this is no Linux
		}
		var size, resident int64
		if _, err := fmt.Sscan(string(statm), &size, &resident); err == nil {
			tell(name, resident*int64(os.Getpagesize()))
		}
	}
}
