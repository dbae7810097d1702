package run

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
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

// watchMemory observes until ctx ends how much memory the service takes: of
// each process that was deployed, or what a service that is already there says
// on its /metrics, as Prometheus clients do. Where neither is known, nothing is
// observed.
func (c *conductor) watchMemory(ctx context.Context) {
	tick := time.NewTicker(memoryEvery)
	defer tick.Stop()
	deployed := c.Gate.Target.Local != nil
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if deployed {
			c.memory.each(func(name string, bytes int64) {
				c.observe(recording.Observation{At: c.clock.Now(), Name: recording.ObsMemory, Subject: name, Value: float64(bytes)})
			})
			continue
		}
		bytes, ok := scrapeMemory(ctx, c.target.URL())
		if !ok {
			return
		}
		c.observe(recording.Observation{At: c.clock.Now(), Name: recording.ObsMemory, Subject: "service", Value: bytes})
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

// memoryMetric is what Prometheus clients of most languages call it.
const memoryMetric = "process_resident_memory_bytes"

func scrapeMemory(ctx context.Context, url string) (float64, bool) {
	if !strings.HasPrefix(url, "http") {
		return 0, false
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(strings.TrimRight(url, "/"), "/v1")+"/metrics", nil)
	if err != nil {
		return 0, false
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, false
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return 0, false
	}
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		if rest, ok := strings.CutPrefix(lines.Text(), memoryMetric); ok {
			if i := strings.LastIndexByte(rest, ' '); i >= 0 {
				v, err := strconv.ParseFloat(rest[i+1:], 64)
				return v, err == nil && v > 0
			}
		}
	}
	return 0, false
}
