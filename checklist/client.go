package checklist

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/internal/words"
)

// Beyond these bounds the client, and not the service, determined the numbers.
// docs/judging.md documents them.
const (
	maxSendLagP99   = 0.050 // seconds between due and sent
	minDelivered    = 0.95  // of the requests that were due in a stage
	maxStall        = 0.050 // seconds: a second's p99 of scheduling delays or garbage collection pauses
	maxReadDelay    = 0.050 // seconds: a second's p99 from the arrival of a chunk to its being parsed
	maxCPU          = 0.90  // of all cores
	maxUsed         = 0.90  // of file descriptors and of ports
	maxClockError   = 0.050 // seconds that a worker's clock may have been off
	maxStalledShare = 0.05  // of the seconds may be beyond these, and one always may
)

// judgeClient decides whether the load generator's measurements are valid.
func judgeClient(e *evidence) Client {
	run := e.within(stageID{})
	c := Client{Valid: true, Why: words.Say("every request was sent at or close to its due time"), Bounds: map[string]float64{
		"delivered_ratio": minDelivered, "send_lag_p99_seconds": maxSendLagP99, "gc_pause_p99_seconds": maxStall,
		"sched_delay_p99_seconds": maxStall, "read_delay_p99_seconds": maxReadDelay, "descriptors_max_ratio": maxUsed, "ports_max_ratio": maxUsed,
	}}
	if cores := e.rec.Environment.Host.Cores; cores > 0 {
		c.Bounds["cpu_max_ratio"] = maxCPU * float64(cores)
	}
	if run.lags.n() > 0 {
		c.SendLagP50Seconds, c.SendLagP99Seconds = new(run.lags.quantile(0.5)), new(run.lags.quantile(0.99))
		c.SendLagMaxSeconds = new(run.lags.max())
	} else {
		c.Why = words.Say("no request was sent")
	}
	if seconds := e.seconds(stageID{}); seconds > 0 {
		c.OfferedPerSecond, c.AchievedPerSecond = new(float64(run.due)/seconds), new(float64(run.due-run.notSent)/seconds)
	}
	if e.tool != "" && !e.dueKnown {
		c.SendLagP50Seconds, c.SendLagP99Seconds, c.SendLagMaxSeconds = nil, nil, nil
		c.Why = words.Say("it was that of %s, whose file does not say when requests were due", e.tool)
	}
	problems := slices.Concat(e.lostWorkers(), e.clocks(&c), e.undelivered(), c.late())
	if e.tool == "" { // other tools do not record their own state
		problems = append(problems, e.stalls(&c)...)
	}
	if len(problems) > 0 {
		c.Valid, c.Why = false, problems[0]
	}
	return c
}

// undelivered finds stages whose load was not sent. A stage that was stopped from
// outside is not the client's fault and is not judged.
func (e *evidence) undelivered() []words.Sentence {
	for _, s := range e.gate.Scenarios {
		if !e.complete(s.Name) {
			continue
		}
		for _, st := range s.Stages {
			got := e.within(stageID{s.Name, st.Name, "", ""})
			if sent := got.due - got.notSent; float64(sent) < minDelivered*float64(got.due) {
				return []words.Sentence{words.Say("only %d of the %d requests of %s/%s were sent, but at least 95 %% are required; give the client more cores or file descriptors, or lower the rate",
					sent, got.due, s.Name, st.Name)}
			}
		}
	}
	return nil
}

func (c Client) late() []words.Sentence {
	if c.SendLagP99Seconds == nil || *c.SendLagP99Seconds <= maxSendLagP99 {
		return nil
	}
	return []words.Sentence{words.Say("requests were sent %.0f ms late at p99, and at most %.0f ms is acceptable; the client was overloaded, so run it on its own machine or lower the rate",
		*c.SendLagP99Seconds*1e3, maxSendLagP99*1e3)}
}

// stalls checks what each of the client's processes recorded about itself in each
// second of load.
func (e *evidence) stalls(c *Client) (problems []words.Sentence) {
	watched := e.watchedSeconds()
	tooMany := func(n int) bool { return n > 1 && float64(n) > maxStalledShare*float64(watched) }
	seen := e.ofClient()
	c.SchedDelayP99Seconds, c.GCPauseP99Seconds = highest(seen, recording.ObsClientSched), highest(seen, recording.ObsClientGCPause)
	c.ReadDelayP99Seconds, c.FilesRatio, c.PortsRatio = highest(seen, recording.ObsClientReadDelay), highest(seen, recording.ObsClientFiles), highest(seen, recording.ObsClientPorts)
	for _, who := range slices.Sorted(maps.Keys(seen)) {
		of := seen[who]
		name := words.Say("the client")
		if who != "" {
			name = words.Verbatim(who)
		}
		delays := of[recording.ObsClientSched]
		// A second without an observation counts as stalled: the client was too busy
		// to observe itself.
		unseen := max(0, watched-len(delays))
		if tooMany(unseen) {
			problems = append(problems, words.Say("%s recorded its own state in only %d of %d seconds, so it was stalled or its record is incomplete; run it on its own machine", name, len(delays), watched))
		} else if n := beyond(delays, maxStall); tooMany(n + unseen) {
			problems = append(problems, words.Say("in %d of %d seconds, threads of %s waited more than %.0f ms for a CPU (maximum %.0f ms); run it on its own machine",
				n, watched, name, maxStall*1e3, slices.Max(delays)*1e3))
		}
		for _, b := range selfBounds {
			if n := beyond(of[b.of], b.limit); tooMany(n) {
				problems = append(problems, words.Say(b.text, n, watched, name, b.limit*b.scale, slices.Max(of[b.of])*b.scale))
			}
		}
	}
	return append(problems, e.processor(c, tooMany)...)
}

// selfBounds are the bounds of the client's observations of itself, each with the
// phrase for a client that exceeds it in too many seconds.
var selfBounds = []struct {
	of           string
	limit, scale float64
	text         words.Phrase // of seconds beyond, seconds, client, limit, highest
}{
	{recording.ObsClientGCPause, maxStall, 1e3, "in %d of %d seconds, the garbage collector of %s paused it for more than %.0f ms (maximum %.0f ms); give it more memory or cores"},
	{recording.ObsClientReadDelay, maxReadDelay, 1e3, "in %d of %d seconds, data that had arrived at %s stayed unread for more than %.0f ms at p99 (maximum %.0f ms); give it more cores or lower the load"},
	{recording.ObsClientFiles, maxUsed, 100, "in %d of %d seconds, %s used more than %.0f %% of its file descriptors (maximum %.0f %%); raise the limit (ulimit -n)"},
	{recording.ObsClientPorts, maxUsed, 100, "in %d of %d seconds, the connections of %s used more than %.0f %% of the ephemeral ports (maximum %.0f %%); widen net.ipv4.ip_local_port_range, keep connections, or use several machines"},
}

// clocks judges how well the clocks of workers were known, by which requests of several
// workers, faults and probes are put in order.
func (e *evidence) clocks(c *Client) []words.Sentence {
	worst := ""
	for _, o := range e.rec.Observations {
		if o.Name == recording.ObsWorkerClock && (c.WorkerClockErrorSeconds == nil || o.Value > *c.WorkerClockErrorSeconds) {
			c.WorkerClockErrorSeconds, worst = new(o.Value), o.Subject
		}
	}
	if c.WorkerClockErrorSeconds == nil {
		return nil
	}
	c.Bounds["worker_clock_error_seconds"] = maxClockError
	if *c.WorkerClockErrorSeconds <= maxClockError {
		c.Why = words.Say("%s; the clocks of the workers were known to within %.1f ms", c.Why, *c.WorkerClockErrorSeconds*1e3)
		return nil
	}
	return []words.Sentence{words.Say("the clock of %s may have been off by %.1f ms, and at most %.0f ms is acceptable; synchronize the clocks of the machines, or bring the workers nearer", worst, *c.WorkerClockErrorSeconds*1e3, maxClockError*1e3)}
}

// processor judges how much of their machine the processes of the client took in each
// second: those of this machine together, and each worker on another machine alone.
func (e *evidence) processor(c *Client, tooMany func(int) bool) (problems []words.Sentence) {
	cores := map[string]float64{"": float64(e.rec.Environment.Host.Cores)}
	for _, o := range e.rec.Observations {
		if o.Name == recording.ObsWorkerPlace {
			cores[o.Subject] = o.Value
		}
	}
	used := map[string]map[int]float64{} // by worker of another machine, and second
	for _, o := range e.rec.Observations {
		if o.Name != recording.ObsClientCPU || !e.underLoad(o.At) {
			continue
		}
		who := o.Subject
		if _, elsewhere := cores[who]; !elsewhere {
			who = ""
		}
		if used[who] == nil {
			used[who] = map[int]float64{}
		}
		used[who][int(o.At/time.Second)] += o.Value
	}
	for _, who := range slices.Sorted(maps.Keys(used)) {
		cpu := slices.Collect(maps.Values(used[who]))
		most := slices.Max(cpu)
		if c.CPUMaxRatio == nil || most > *c.CPUMaxRatio {
			c.CPUMaxRatio = new(most)
		}
		n := beyond(cpu, maxCPU*cores[who])
		switch {
		case cores[who] == 0 || !tooMany(n):
		case who == "":
			problems = append(problems, words.Say("in %d of %d seconds, the client used more than %.0f %% of the machine's %d cores (maximum %.1f), so it was the bottleneck; run it on its own machine",
				n, e.watchedSeconds(), maxCPU*100, int(cores[who]), most))
		default:
			problems = append(problems, words.Say("in %d of %d seconds, %s used more than %.0f %% of its %d cores (maximum %.1f), so it was the bottleneck; use more workers",
				n, e.watchedSeconds(), who, maxCPU*100, int(cores[who]), most))
		}
	}
	return problems
}

func beyond(values []float64, limit float64) (n int) {
	for _, v := range values {
		if v > limit {
			n++
		}
	}
	return n
}

// highest value of an observation that any of the client's processes made.
func highest(seen map[string]map[string][]float64, name string) (most *float64) {
	for _, of := range seen {
		for _, v := range of[name] {
			if most == nil || v > *most {
				most = new(v)
			}
		}
	}
	return most
}

// lostWorkers are processes of the client that ended before their work was done.
func (e *evidence) lostWorkers() (problems []words.Sentence) {
	for _, o := range e.rec.Observations {
		if o.Name == recording.ObsWorkerLost {
			problems = append(problems, words.Say("%s was lost while it sent its part of the load (%s), so that part of the data is missing or unknown; run the gate again", o.Subject, o.Text))
		}
	}
	return problems
}

// ofClient are the values of the observations that the client's processes made
// of themselves while load was sent, by process and name. A client of one
// process has no name.
func (e *evidence) ofClient() map[string]map[string][]float64 {
	seen := map[string]map[string][]float64{}
	for _, o := range e.rec.Observations {
		if !strings.HasPrefix(o.Name, "client_") || !e.underLoad(o.At) {
			continue
		}
		if seen[o.Subject] == nil {
			seen[o.Subject] = map[string][]float64{}
		}
		seen[o.Subject][o.Name] = append(seen[o.Subject][o.Name], o.Value)
	}
	if len(seen) == 0 {
		seen[""] = nil // a client that never looked at itself
	}
	return seen
}

func (e *evidence) underLoad(at time.Duration) bool {
	for _, s := range e.played {
		if at > s.from && at <= s.to {
			return true
		}
	}
	return false
}

// watchedSeconds is how many observations of itself the client had time for: one per
// second, less one for each scenario, because they do not begin together.
func (e *evidence) watchedSeconds() int {
	n := 0
	for _, s := range e.gate.Scenarios {
		n += max(0, int(e.seconds(stageID{scenario: s.Name}))-1)
	}
	return n
}
