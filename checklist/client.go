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
	minDelivered    = 0.95  // of the requests that were due in a stage
	maxStall        = 0.050 // seconds: a second's p99 of scheduling delays or garbage collection pauses
	maxCPU          = 0.90  // of all cores
	maxStalledShare = 0.05  // of the seconds may be beyond these, and one always may
)

// judgeClient says whether the load generator itself can be believed.
func judgeClient(e *evidence) Client {
	run := e.within(stageID{})
	c := Client{Valid: true, Why: "every request was sent when it was due, or nearly so"}
	if n := len(run.lags); n > 0 {
		c.SendLagP50Seconds, c.SendLagP99Seconds = new(nearestRank(run.lags, 0.5)), new(nearestRank(run.lags, 0.99))
		c.SendLagMaxSeconds = new(run.lags[n-1])
	} else {
		c.Why = "no request was sent"
	}
	if seconds := e.seconds(stageID{}); seconds > 0 {
		c.OfferedPerSecond, c.AchievedPerSecond = new(float64(run.due)/seconds), new(float64(run.due-run.notSent)/seconds)
	}
	problems := slices.Concat(e.undelivered(), c.late(), e.stalls(&c))
	if len(problems) > 0 {
		c.Valid, c.Why = false, problems[0]
	}
	return c
}

// undelivered finds stages whose load was not sent. One that was stopped from
// outside is not the client's doing, and is not judged anyway.
func (e *evidence) undelivered() []string {
	for _, s := range e.gate.Scenarios {
		if !e.complete(s.Name) {
			continue
		}
		for _, st := range s.Stages {
			got := e.within(stageID{s.Name, st.Name, ""})
			if sent := got.due - got.notSent; float64(sent) < minDelivered*float64(got.due) {
				return []string{fmt.Sprintf("only %d of the %d requests of %s/%s were sent, and 95 %% is the least that is the load asked for; give the client more cores or file descriptors, or lower the rate",
					sent, got.due, s.Name, st.Name)}
			}
		}
	}
	return nil
}

func (c Client) late() []string {
	if c.SendLagP99Seconds == nil || *c.SendLagP99Seconds <= maxSendLagP99 {
		return nil
	}
	return []string{fmt.Sprintf("requests were sent %.0f ms late at p99, and up to %.0f ms can be believed; the client was short of time, so run it on a machine of its own or lower the rate",
		*c.SendLagP99Seconds*1e3, maxSendLagP99*1e3)}
}

// stalls looks at what the client said of itself in each second of load.
func (e *evidence) stalls(c *Client) []string {
	delays := e.ofClient(recording.ObsClientSched)
	pauses := e.ofClient(recording.ObsClientGCPause)
	cpu := e.ofClient(recording.ObsClientCPU)
	highest := func(values []float64) *float64 {
		if len(values) == 0 {
			return nil
		}
		return new(slices.Max(values))
	}
	c.SchedDelayP99Seconds, c.GCPauseP99Seconds, c.CPUMaxRatio = highest(delays), highest(pauses), highest(cpu)

	watched := e.watchedSeconds()
	beyond := func(values []float64, limit float64) int {
		n := 0
		for _, v := range values {
			if v > limit {
				n++
			}
		}
		return n
	}
	tooMany := func(n int) bool { return n > 1 && float64(n) > maxStalledShare*float64(watched) }
	var problems []string
	// A client that did not get to look at itself was stalled, if anything.
	unseen := max(0, watched-len(delays))
	if tooMany(unseen) {
		problems = append(problems, fmt.Sprintf("the client looked at itself in %d of %d seconds only, so it was stalled or its record is incomplete; run it on a machine of its own", len(delays), watched))
	} else if n := beyond(delays, maxStall); tooMany(n + unseen) {
		problems = append(problems, fmt.Sprintf("in %d of %d seconds the client's own threads waited more than %.0f ms for a processor (at most %.0f ms); run it on a machine of its own",
			n, watched, maxStall*1e3, *c.SchedDelayP99Seconds*1e3))
	}
	if n := beyond(pauses, maxStall); tooMany(n) {
		problems = append(problems, fmt.Sprintf("in %d of %d seconds the client's own garbage collector paused it for more than %.0f ms (at most %.0f ms); give it more memory or cores",
			n, watched, maxStall*1e3, *c.GCPauseP99Seconds*1e3))
	}
	cores := e.rec.Environment.Host.Cores
	if n := beyond(cpu, maxCPU*float64(cores)); cores > 0 && tooMany(n) {
		problems = append(problems, fmt.Sprintf("in %d of %d seconds the client used more than %.0f %% of the machine's %d cores (at most %.1f): it was itself the bottleneck; run it on a machine of its own",
			n, watched, maxCPU*100, cores, *c.CPUMaxRatio))
	}
	return problems
}

// ofClient are the values of an observation of the client while load was sent.
func (e *evidence) ofClient(name string) []float64 {
	var values []float64
	for _, o := range e.rec.Observations {
		if o.Name == name && e.underLoad(o.At) {
			values = append(values, o.Value)
		}
	}
	return values
}

func (e *evidence) underLoad(at time.Duration) bool {
	for _, s := range e.played {
		if at > s.from && at <= s.to {
			return true
		}
	}
	return false
}

// watchedSeconds is how many looks at itself the client has had time for, one
// a second and one less for each scenario, because looks and scenarios do not
// begin together.
func (e *evidence) watchedSeconds() int {
	n := 0
	for _, s := range e.gate.Scenarios {
		n += max(0, int(e.seconds(stageID{scenario: s.Name}))-1)
	}
	return n
}
