package checklist

import (
	"fmt"
	"slices"
	"time"

	"github.com/launchgate/launchgate/internal/recording"
)

// Bounds past which the client, not the service, made the numbers. docs/judging.md
// tells them to the reader.
const (
	maxSendLagP99   = 0.050 // seconds between due and sent
	minDelivered    = 0.95  // of the requests that were due
	maxStall        = 0.050 // seconds: p99 of a second's garbage collection pauses and scheduling delays
	maxStalledShare = 0.05  // of the seconds may be beyond it
	maxCPU          = 0.90  // of all cores
)

// judgeClient says whether the load generator itself can be believed.
func judgeClient(e *evidence) Client {
	all := e.within("", "")
	c := Client{Valid: true, Why: "requests were sent when they were due"}
	sent := all.due - all.notSent
	if n := int64(len(all.lags)); n > 0 {
		c.SendLagP50Seconds, c.SendLagP99Seconds = new(nearestRank(all.lags, 0.5)), new(nearestRank(all.lags, 0.99))
		c.SendLagMaxSeconds = new(float64(all.lags[n-1]))
	}
	if seconds := e.seconds("", ""); seconds > 0 {
		c.OfferedPerSecond, c.AchievedPerSecond = new(float64(all.due)/seconds), new(float64(sent)/seconds)
	}
	invalid := func(format string, args ...any) {
		if c.Valid {
			c.Valid, c.Why = false, fmt.Sprintf(format, args...)
		}
	}
	if all.due > 0 && e.rec.Complete && float64(sent) < minDelivered*float64(all.due) {
		invalid("only %d of %d requests were sent: the load was not delivered; give the client more cores or descriptors, or lower the rate", sent, all.due)
	}
	if c.SendLagP99Seconds != nil && *c.SendLagP99Seconds > maxSendLagP99 {
		invalid("requests were sent %.0f ms late at p99, and %.0f ms is the most that can be believed: the client was short of time; run it on a machine of its own", *c.SendLagP99Seconds*1e3, maxSendLagP99*1e3)
	}
	stalled := func(name, what string, worst **float64) {
		values := e.client(name)
		if len(values) == 0 {
			return
		}
		*worst = new(slices.Max(values))
		beyond := 0
		for _, v := range values {
			if v > maxStall {
				beyond++
			}
		}
		if float64(beyond) > maxStalledShare*float64(len(values)) {
			invalid("in %d of %d seconds the client's own %s reached %.0f ms: its clock cannot be believed; run it on a machine of its own", beyond, len(values), what, **worst*1e3)
		}
	}
	stalled(recording.ObsClientGCPause, "garbage collection pauses", &c.GCPauseP99Seconds)
	stalled(recording.ObsClientSched, "scheduling delay", &c.SchedDelayP99Seconds)
	if values := e.client(recording.ObsClientCPU); len(values) > 0 {
		c.CPUMaxRatio = new(slices.Max(values))
		if cores := e.rec.Environment.Host.Cores; cores > 0 && *c.CPUMaxRatio > maxCPU*float64(cores) {
			invalid("the client used %.1f of %d cores: it was itself the bottleneck", *c.CPUMaxRatio, cores)
		}
	}
	return c
}

// client are the values of an observation of the client while load was sent.
func (e *evidence) client(name string) []float64 {
	var values []float64
	for _, o := range e.rec.Observations {
		if o.Name == name && e.underLoad(o.At) {
			values = append(values, o.Value)
		}
	}
	return values
}

func (e *evidence) underLoad(at time.Duration) bool {
	for _, s := range e.spans {
		if at >= s.from && at <= s.to {
			return true
		}
	}
	return false
}
