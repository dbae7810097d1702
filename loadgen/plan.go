// Package loadgen sends a gate's load. Open-loop load is drawn from a seed before the
// run: every request has a due time and is sent then, whether or not earlier ones were
// answered. Vegeta sends; the schedule, the clock and the measurements are ours.
// Closed-loop load comes from users who wait for an answer before they ask again.
package loadgen

import (
	"math/rand/v2"
	"sort"
	"time"

	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/loadgen/client"
	"github.com/launchgate/launchgate/loadgen/prompt"
	"github.com/launchgate/launchgate/loadgen/trace"
	"github.com/launchgate/launchgate/scenarios"
)

// Plan is a scenario's load, known before it runs. The same seed gives the same plan,
// except for the times at which users ask and the salt of the prompts.
type Plan struct {
	Stages []PlannedStage
	due    []time.Duration // of every open-loop request, from the scenario's start, ascending
	seed   uint64
	mix    []class
}

// PlannedStage is a stage of the plan.
type PlannedStage struct {
	Name     string
	Start    time.Duration // from the scenario's start
	Duration time.Duration
	Requests int // requests that become due; not known for users
	// Extend is how much longer the stage may last; the plan holds the requests of that
	// time too.
	Extend time.Duration
	Users  int // number of users of a closed loop
	Think  time.Duration
	// InFlight is how many requests shall be in flight; its rate is not known before
	// the warm-up.
	InFlight int
	first    int // index of its first request
	replay   []trace.Request
}

// class is a part of the mix. A draw from 0 to 1 belongs to the first class whose below
// it is less than.
type class struct {
	name    string
	variant string // the values of the factors that vary
	below   float64
	maker   *prompt.Maker
}

// NewPlan draws the arrivals of a scenario. The scenario must have been
// resolved, and the material gathered for its gate.
func NewPlan(s scenarios.Scenario, seed uint64, m *prompt.Material) *Plan {
	p := &Plan{seed: seed}
	var start time.Duration
	for i, st := range s.Stages {
		planned := PlannedStage{
			Name: st.Name, Start: start, Duration: time.Duration(st.For), Users: st.Users, Think: time.Duration(st.Think), InFlight: st.InFlight, first: len(p.due),
		}
		var due []time.Duration
		switch {
		case st.Trace != nil:
			planned.replay, due = replay(st, m.Trace(*st.Trace))
		case st.OpenLoop() && st.InFlight == 0:
			// Each stage has a generator of its own, so that a change of one stage
			// leaves the others as they were.
			longer := st
			longer.For += st.Extend
			due = arrivals(longer, rand.New(rand.NewPCG(seed, uint64(i))))
			planned.Extend = time.Duration(st.Extend)
		}
		for _, at := range due {
			p.due = append(p.due, start+at)
		}
		planned.Requests = sort.Search(len(due), func(n int) bool { return due[n] >= planned.Duration })
		p.Stages = append(p.Stages, planned)
		start += planned.Duration
	}
	p.mix = mixOf(s, seed, m)
	return p
}

// replay are the requests of a trace that come within a stage, and their due times.
func replay(st scenarios.Stage, t trace.Trace) (requests []trace.Request, due []time.Duration) {
	for _, r := range t.Requests {
		at := time.Duration(float64(r.At) / st.Trace.Speed)
		if at >= time.Duration(st.For) {
			break
		}
		due = append(due, at)
	}
	return t.Requests[:len(due)], due
}

func mixOf(s scenarios.Scenario, seed uint64, m *prompt.Material) (mix []class) {
	var sum, below float64
	for _, c := range s.Mix() {
		sum += c.Weight
	}
	each := max(len(s.Mix())/max(len(s.Classes), 1), 1) // variants of each class, which share the beginnings of their prompts
	for i, c := range s.Mix() {
		below += c.Weight / sum
		mix = append(mix, class{c.Name, c.Variant, below, m.Maker(c.Workload, seed+uint64(i/each)).Of(s.Name)})
	}
	mix[len(mix)-1].below = 2 // in spite of rounding
	return mix
}

// Idle are the stages that last longer than their trace: nothing is sent in the rest of
// such a stage, which lowers its rates.
func (p *Plan) Idle() (remarks []words.Sentence) {
	for _, st := range p.Stages {
		if st.replay == nil || st.Requests == 0 {
			continue
		}
		last := p.due[st.first+st.Requests-1] - st.Start
		if rest := st.Duration - last; rest > st.Duration/10 && rest > time.Second {
			remarks = append(remarks, words.Say("the trace of stage %s ends after %s, but the stage lasts %s. No requests are sent in the rest, which lowers its rates; set for: %s",
				st.Name, last.Round(time.Millisecond).String(), st.Duration.String(), (last+time.Second).Truncate(time.Second).String()))
		}
	}
	return remarks
}

// Duration is how long the load lasts.
func (p *Plan) Duration() time.Duration {
	if len(p.Stages) == 0 {
		return 0
	}
	last := p.Stages[len(p.Stages)-1]
	return last.Start + last.Duration
}

// Requests is how many requests become due by the plan, if no stage is extended.
func (p *Plan) Requests() int {
	if len(p.Stages) == 0 {
		return 0
	}
	last := p.Stages[len(p.Stages)-1]
	return last.first + last.Requests
}

// Most is how many requests of a stage become due by the plan if it is extended as far
// as it may be. It is false for users, because it is not known how often they will ask.
func (p *Plan) Most(st PlannedStage) (int, bool) {
	return p.before(st.Start+st.Duration+st.Extend) - st.first, st.Users == 0 && st.InFlight == 0
}

// Due is when request n becomes due, from the scenario's start.
func (p *Plan) Due(n int) time.Duration { return p.due[n] }

// DueBy is how many requests become due until a time from the scenario's start.
func (p *Plan) DueBy(at time.Duration) int {
	return sort.Search(len(p.due), func(n int) bool { return p.due[n] > at })
}

// before is how many requests become due before a time from the scenario's start.
func (p *Plan) before(at time.Duration) int {
	return sort.Search(len(p.due), func(n int) bool { return p.due[n] >= at })
}

// Stage is the stage of request n.
func (p *Plan) Stage(n int) PlannedStage {
	return p.Stages[sort.Search(len(p.Stages), func(i int) bool { return p.Stages[i].first > n })-1]
}

// Question is the prompt of one request, with its class and variant.
type Question struct {
	Class   string
	Variant string // the values of the factors that vary
	Prompt  client.Prompt
}

// Question is the question of request n. It is drawn on demand, so that a plan of
// millions of requests holds no texts.
func (p *Plan) Question(n int) Question {
	stage := p.Stage(n)
	rng := p.draw(stage, uint64(n-stage.first))
	c := p.class(rng)
	var t prompt.Asked
	if stage.replay != nil {
		t = c.maker.Replayed(stage.replay[n-stage.first], rng, uint64(n))
	} else {
		t = c.maker.Talk(rng, uint64(n))
	}
	return Question{c.name, c.variant, c.maker.Prompt(t, t.First(), rng)}
}

// Again is the prompt of an open-loop request, drawn again. It is false for users,
// whose questions depend on earlier answers.
func (p *Plan) Again(n int64) (client.Prompt, bool) {
	if n < 0 || n >= int64(len(p.due)) {
		return client.Prompt{}, false
	}
	return p.Question(int(n)).Prompt, true
}

// Warmup is a question like those of the load that is not one of them.
func (p *Plan) Warmup(n int) Question {
	rng := rand.New(rand.NewPCG(p.seed, uint64(n)))
	c := p.class(rng)
	t := c.maker.Talk(rng, 1<<62+uint64(n))
	return Question{c.name, c.variant, c.maker.Prompt(t, t.First(), rng)}
}

// draw is the generator of a stage's n-th question. Each question has its own, so that
// several processes can draw questions in any order.
func (p *Plan) draw(stage PlannedStage, n uint64) *rand.Rand {
	return rand.New(rand.NewPCG(p.seed^uint64(stage.Start+1)*0x9e3779b97f4a7c15, n))
}

func (p *Plan) class(rng *rand.Rand) class {
	if len(p.mix) == 1 {
		return p.mix[0]
	}
	at := rng.Float64()
	for _, c := range p.mix {
		if at < c.below {
			return c
		}
	}
	return p.mix[len(p.mix)-1]
}

// Share is the part of a plan that one of several processes plays: the requests and
// users whose number modulo Of is Worker.
type Share struct{ Worker, Of int }

// Whole is the share of a process that plays alone.
var Whole = Share{0, 1}

// requests is how many requests of the plan are in the share.
func (s Share) requests(p *Plan) int { return s.below(len(p.due)) }

// within is how many requests of a stage are in the share.
func (s Share) within(st PlannedStage) int { return s.below(st.first+st.Requests) - s.below(st.first) }

// below is how many of the numbers below n are in the share.
func (s Share) below(n int) int { return (n - s.Worker + s.Of - 1) / s.Of }

// Said words a stage.
func (st PlannedStage) Said() words.Sentence {
	if st.Users > 0 {
		return words.Say("%d users in closed loop for %s", st.Users, st.Duration)
	}
	if st.InFlight > 0 {
		return words.Say("about %d requests in flight for %s; the rate follows from the speed that is measured after the warm-up", st.InFlight, st.Duration)
	}
	if st.Extend > 0 {
		return words.Say("%d requests in %s, extended by up to %s until its percentiles can be decided", st.Requests, st.Duration, st.Extend)
	}
	if st.replay != nil {
		return words.Say("replayed %d requests in %s", st.Requests, st.Duration)
	}
	return words.Say("%d requests in %s", st.Requests, st.Duration)
}

// observation is the observation of a stage's beginning or end.
func (st PlannedStage) observation(name, scenario string, at time.Duration, requests int) recording.Observation {
	o := recording.Observation{At: at, Name: name, Subject: scenario + "/" + st.Name, Value: float64(requests)}
	if st.Users > 0 {
		o.Text = words.Say("closed loop of %d users", st.Users)
	}
	return o
}
