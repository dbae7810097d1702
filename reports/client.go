package reports

import "github.com/launchgate/launchgate/checklist"

// clientNumber is what the client said of itself, with the bound past which the
// run is invalid.
type clientNumber struct{ Name, Value, Bound string }

func clientNumbers(l Language, c checklist.Client) (numbers []clientNumber) {
	type number struct {
		name, bound, unit string
		v                 *float64
	}
	all := []number{
		{l.say("client.lag") + " p50", "", "s", c.SendLagP50Seconds},
		{l.say("client.lag") + " p99", "send_lag_p99_seconds", "s", c.SendLagP99Seconds},
		{l.say("client.lag") + " " + l.say("latency.max"), "", "s", c.SendLagMaxSeconds},
		{l.say("client.offered"), "", "per_second", c.OfferedPerSecond},
		{l.say("client.achieved"), "", "per_second", c.AchievedPerSecond},
		{l.say("client.read"), "read_delay_p99_seconds", "s", c.ReadDelayP99Seconds},
		{l.say("client.gc"), "gc_pause_p99_seconds", "s", c.GCPauseP99Seconds},
		{l.say("client.sched"), "sched_delay_p99_seconds", "s", c.SchedDelayP99Seconds},
		{l.say("client.cpu"), "cpu_max_ratio", "ratio", c.CPUMaxRatio},
		{l.say("client.files"), "descriptors_max_ratio", "ratio", c.FilesRatio},
		{l.say("client.ports"), "ports_max_ratio", "ratio", c.PortsRatio},
	}
	if c.WorkerClockErrorSeconds != nil {
		all = append(all, number{l.say("client.clocks"), "worker_clock_error_seconds", "s", c.WorkerClockErrorSeconds})
	}
	for _, n := range all {
		shown := clientNumber{Name: n.name, Value: "–"}
		if n.v != nil {
			shown.Value = l.Word(value(*n.v, n.unit))
		}
		if bound, has := c.Bounds[n.bound]; has {
			shown.Bound = l.say("client.bound", value(bound, n.unit))
		}
		numbers = append(numbers, shown)
	}
	return numbers
}

func junitClient(r Report) []junitSuite {
	c, l := r.Verdict.Client, r.Language
	outcome := checklist.Pass
	if !c.Valid {
		outcome = checklist.Invalid
	}
	return []junitSuite{{Name: junitRun, Cases: []junitCase{junitResult("client", r.Gate, outcome, l.Word(c.Why), l.Word(c.Why))}}}
}
