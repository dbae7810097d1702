package loadgen

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"time"

	vegeta "github.com/tsenart/vegeta/v12/lib"

	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/loadgen/client"
	"github.com/launchgate/launchgate/scenarios"
)

// spin is how long before a request is due the timer gives way to a busy wait:
// timers of an operating system wake late by tens of microseconds.
const spin = 150 * time.Microsecond

// Drive plays a scenario's load and gives every request to sink when it has
// ended, from several goroutines. It returns when all have. When ctx ends it
// stops at once: requests under way are recorded as cancelled, those that were
// due and not yet sent as not sent.
//
// A late client never shifts the schedule: due times are those of the plan, and
// what is sent late is seen to be late.
func Drive(ctx context.Context, clock recording.Clock, s scenarios.Scenario, seed uint64, c *client.Client,
	sink func(recording.Request), observe func(recording.Observation)) error {
	d := &drive{
		ctx: ctx, clock: clock, scenario: s.Name, plan: NewPlan(s, seed), client: c, sink: sink,
		start: clock.Now(),
	}
	d.sent = make([]bool, d.plan.Requests())
	var marks sync.WaitGroup
	marks.Go(func() { d.mark(observe) })
	err := d.attack()
	marks.Wait()
	d.notSent()
	return err
}

// drive is one scenario's load under way.
type drive struct {
	ctx      context.Context
	clock    recording.Clock
	scenario string
	plan     Plan
	client   *client.Client
	sink     func(recording.Request)
	start    time.Duration // of the scenario, on the run's clock

	mu   sync.Mutex
	sent []bool // by request
}

// attack lets vegeta drive: its loop calls Pace for the next tick, and a free
// worker, or a new one, takes it to RoundTrip.
func (d *drive) attack() error {
	attacker := vegeta.NewAttacker(
		vegeta.Timeout(0),
		vegeta.Workers(64),
		vegeta.Client(&http.Client{Transport: d}),
	)
	target := vegeta.NewStaticTargeter(vegeta.Target{Method: http.MethodPost, URL: "http://request"})
	for r := range attacker.Attack(target, d, 0, d.scenario) {
		if r.Error != "" {
			attacker.Stop()
			return fmt.Errorf("the load could not be driven: %s", r.Error)
		}
	}
	return nil
}

// Pace is vegeta's Pacer over the plan. It waits itself, because vegeta's own
// wait can neither be interrupted nor be precise.
func (d *drive) Pace(_ time.Duration, hits uint64) (wait time.Duration, stop bool) {
	if hits >= uint64(d.plan.Requests()) {
		return 0, true
	}
	due := d.start + d.plan.Due(int(hits))
	if !d.waitUntil(due) {
		return 0, true
	}
	return 0, false
}

// Rate is the rate that the plan has at a time, for vegeta's Pacer.
func (d *drive) Rate(elapsed time.Duration) float64 {
	for _, s := range d.plan.Stages {
		if elapsed < s.Start+s.Duration {
			return float64(s.Requests) / s.Duration.Seconds()
		}
	}
	return 0
}

// String names the pacer.
func (d *drive) String() string { return "plan of " + d.scenario }

// waitUntil waits until a time on the run's clock, or until ctx ends.
func (d *drive) waitUntil(at time.Duration) bool {
	if rest := at - d.clock.Now() - spin; rest > 0 {
		timer := time.NewTimer(rest)
		defer timer.Stop()
		select {
		case <-d.ctx.Done():
			return false
		case <-timer.C:
		}
	}
	for d.clock.Now() < at {
	}
	return d.ctx.Err() == nil
}

// RoundTrip sends one request of the plan in vegeta's stead. vegeta numbers its
// hits; the number says which request of the plan it is.
func (d *drive) RoundTrip(r *http.Request) (*http.Response, error) {
	n, err := strconv.Atoi(r.Header.Get("X-Vegeta-Seq"))
	if err != nil || n >= len(d.sent) {
		return nil, fmt.Errorf("vegeta numbered a hit %q", r.Header.Get("X-Vegeta-Seq"))
	}
	d.mu.Lock()
	d.sent[n] = true
	d.mu.Unlock()
	d.give(n, d.client.Do(d.ctx, d.plan.Prompt(n), d.clock, d.start+d.plan.Due(n)))
	return &http.Response{StatusCode: http.StatusOK, Body: http.NoBody, Request: r}, nil
}

func (d *drive) give(n int, row recording.Request) {
	row.Seq, row.Kind, row.Scenario = int64(n), recording.KindLoad, d.scenario
	row.Stage = d.plan.Stages[d.plan.stage[n]].Name
	d.sink(row)
}

// notSent records what was due and never sent.
func (d *drive) notSent() {
	now := d.clock.Now()
	for n, sent := range d.sent {
		due := d.start + d.plan.Due(n)
		if sent || due > now {
			continue
		}
		d.give(n, recording.Request{
			Due: due, Streamed: d.plan.Prompt(n).Stream, Error: recording.ErrorNotSent,
			ErrorText: "it was due and the client had not sent it when the run was stopped",
		})
	}
}

// mark observes the beginning and end of every stage, when they happen.
func (d *drive) mark(observe func(recording.Observation)) {
	for _, s := range d.plan.Stages {
		if !d.sleepUntil(d.start + s.Start) {
			return
		}
		subject := d.scenario + "/" + s.Name
		observe(recording.Observation{At: d.start + s.Start, Name: recording.ObsStageStarted, Subject: subject, Value: float64(s.Requests)})
		if !d.sleepUntil(d.start + s.Start + s.Duration) {
			return
		}
		observe(recording.Observation{At: d.start + s.Start + s.Duration, Name: recording.ObsStageEnded, Subject: subject, Value: float64(s.Requests)})
	}
}

func (d *drive) sleepUntil(at time.Duration) bool {
	select {
	case <-d.ctx.Done():
		return false
	case <-time.After(at - d.clock.Now()):
		return true
	}
}
