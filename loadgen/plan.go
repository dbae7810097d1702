// Package loadgen sends open-loop load: every request is due at a time that is
// known before the run from a seed, and is sent then, whether or not earlier
// ones were answered. vegeta drives; the schedule, the clock and what is
// measured are ours.
package loadgen

import (
	"math"
	"math/rand/v2"
	"time"

	"github.com/launchgate/launchgate/loadgen/client"
	"github.com/launchgate/launchgate/scenarios"
)

// Plan is a scenario's load, known before it runs: the same for the same seed.
type Plan struct {
	Stages []PlannedStage
	due    []time.Duration // of every request, from the scenario's start, ascending
	stage  []int           // of every request
	prompt []int           // of every request: which of the workload's prompts
	work   scenarios.Workload
}

// PlannedStage is a stretch of load.
type PlannedStage struct {
	Name     string
	Start    time.Duration // from the scenario's start
	Duration time.Duration
	Requests int
}

// NewPlan draws the arrivals and prompts of a scenario. A scenario must have
// been resolved.
func NewPlan(s scenarios.Scenario, seed uint64) Plan {
	p := Plan{work: s.Workload}
	var start time.Duration
	for i, st := range s.Stages {
		// A stage has a generator of its own, so that changing one stage leaves
		// the others as they were.
		rng := rand.New(rand.NewPCG(seed, uint64(i)))
		due := arrivals(st, rng)
		for _, at := range due {
			p.due = append(p.due, start+at)
			p.stage = append(p.stage, i)
			p.prompt = append(p.prompt, rng.IntN(len(s.Workload.Prompts)))
		}
		p.Stages = append(p.Stages, PlannedStage{st.Name, start, time.Duration(st.For), len(due)})
		start += time.Duration(st.For)
	}
	return p
}

// Duration is how long requests become due.
func (p Plan) Duration() time.Duration {
	if len(p.Stages) == 0 {
		return 0
	}
	last := p.Stages[len(p.Stages)-1]
	return last.Start + last.Duration
}

// Requests is how many become due.
func (p Plan) Requests() int { return len(p.due) }

// Due is when request n becomes due, from the scenario's start.
func (p Plan) Due(n int) time.Duration { return p.due[n] }

// Prompt is what request n asks.
func (p Plan) Prompt(n int) client.Prompt { return promptOf(p.work, p.prompt[n]) }

// PromptOf is the n-th prompt of a workload, beginning again after the last.
func PromptOf(w scenarios.Workload, n int) client.Prompt {
	return promptOf(w, n%len(w.Prompts))
}

func promptOf(w scenarios.Workload, i int) client.Prompt {
	return client.Prompt{
		API: w.API, System: w.System, Text: w.Prompts[i], MaxTokens: w.MaxTokens,
		Temperature: *w.Temperature, Stream: *w.Stream, Timeout: time.Duration(w.Timeout),
	}
}

// arrivals are the times at which a stage's requests become due.
//
// Let Λ(t) be how many requests have become due by t on average: the integral
// of the rate. Constant arrivals are where Λ passes 0, 1, 2, …; a Poisson
// process is where it passes the sums of exponential gaps of mean 1.
func arrivals(s scenarios.Stage, rng *rand.Rand) []time.Duration {
	length := time.Duration(s.For).Seconds()
	from, to := float64(s.Rate), float64(s.Rate)
	if s.To != nil {
		to = float64(*s.To)
	}
	total := (from + to) / 2 * length
	var due []time.Duration
	var count float64
	if s.Arrivals == scenarios.ArrivalsPoisson {
		count = rng.ExpFloat64()
	}
	for count < total {
		at := time.Duration(reach(count, from, to, length) * float64(time.Second))
		due = append(due, min(at, time.Duration(s.For)-1))
		if s.Arrivals == scenarios.ArrivalsPoisson {
			count += rng.ExpFloat64()
		} else {
			count++
		}
	}
	return due
}

// reach is when Λ reaches count, for a rate that goes in a straight line from
// one value to another in length seconds: the solution of
// count = from·t + (to−from)/(2·length)·t², in the form that does not cancel.
func reach(count, from, to, length float64) float64 {
	slope := (to - from) / length
	root := math.Sqrt(max(0, from*from+2*slope*count))
	if from+root == 0 {
		return 0
	}
	return 2 * count / (from + root)
}
