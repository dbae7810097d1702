package loadgen

import (
	"context"
	"math"
	"runtime/metrics"
	"strconv"
	"strings"
	"time"

	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/loadgen/client"
)

const (
	selfEvery = time.Second
	// firstEvery is how often newly started threads get the raised priority too.
	firstEvery = 100 * time.Millisecond
)

// WatchSelf observes the client itself until ctx ends: its processor time, its pauses
// for garbage collection and scheduling, how long received bytes waited to be read, and
// how near it is to its limits of file descriptors and ports. A client short of any of
// these measures itself and not the service.
func WatchSelf(ctx context.Context, clock recording.Clock, c *client.Client, observe func(recording.Observation)) {
	raisePriority()
	first := time.NewTicker(firstEvery)
	defer first.Stop()
	c.ReadDelay() // drops what was read before
	last := readSelf()
	tick := time.NewTicker(selfEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-first.C:
			raisePriority()
			continue
		case <-tick.C:
		}
		now := readSelf()
		see := func(name string, v float64) {
			observe(recording.Observation{At: clock.Now(), Name: name, Value: v})
		}
		if wall := now.at.Sub(last.at).Seconds(); wall > 0 && now.cpu > 0 {
			see(recording.ObsClientCPU, (now.cpu-last.cpu)/wall)
		}
		if v, ok := quantile(last.pauses, now.pauses, 0.99); ok {
			see(recording.ObsClientGCPause, v)
		}
		if v, ok := quantile(last.delays, now.delays, 0.99); ok {
			see(recording.ObsClientSched, v)
		}
		if delay, reads := c.ReadDelay(); reads > 0 {
			see(recording.ObsClientReadDelay, delay.Seconds())
		}
		if ratio, ok := filesUsed(); ok {
			see(recording.ObsClientFiles, ratio)
		}
		if ratio, ok := portsUsed(c.Connections()); ok {
			see(recording.ObsClientPorts, ratio)
		}
		last = now
	}
}

type self struct {
	at     time.Time
	cpu    float64 // seconds, user and system
	pauses *metrics.Float64Histogram
	delays *metrics.Float64Histogram
}

func readSelf() self {
	samples := []metrics.Sample{{Name: "/sched/pauses/total/gc:seconds"}, {Name: "/sched/latencies:seconds"}}
	metrics.Read(samples)
	s := self{at: time.Now(), cpu: cpuSeconds()}
	if samples[0].Value.Kind() == metrics.KindFloat64Histogram {
		s.pauses = clone(samples[0].Value.Float64Histogram())
	}
	if samples[1].Value.Kind() == metrics.KindFloat64Histogram {
		s.delays = clone(samples[1].Value.Float64Histogram())
	}
	return s
}

func clone(h *metrics.Float64Histogram) *metrics.Float64Histogram {
	return &metrics.Float64Histogram{Counts: append([]uint64(nil), h.Counts...), Buckets: h.Buckets}
}

// quantile is a quantile of the values added to a histogram since before: the upper
// edge of the bucket.
func quantile(before, after *metrics.Float64Histogram, q float64) (float64, bool) {
	if before == nil || after == nil || len(before.Counts) != len(after.Counts) {
		return 0, false
	}
	var total uint64
	for i := range after.Counts {
		total += after.Counts[i] - before.Counts[i]
	}
	if total == 0 {
		return 0, false
	}
	rank, sum := uint64(math.Ceil(q*float64(total))), uint64(0)
	for i := range after.Counts {
		if sum += after.Counts[i] - before.Counts[i]; sum >= rank {
			if edge := after.Buckets[i+1]; !math.IsInf(edge, 1) {
				return edge, true
			}
			return after.Buckets[i], true
		}
	}
	return 0, false
}

// sockstatWaiting reads the number after tw in the TCP line of /proc/net/sockstat.
func sockstatWaiting(stat string) int {
	for line := range strings.Lines(stat) {
		words := strings.Fields(line)
		if len(words) == 0 || words[0] != "TCP:" {
			continue
		}
		for i := 1; i+1 < len(words); i += 2 {
			if words[i] == "tw" {
				n, _ := strconv.Atoi(words[i+1])
				return n
			}
		}
	}
	return 0
}
