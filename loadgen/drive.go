package loadgen

import (
	"context"
	"net/http"
	"os"
	"runtime/debug"
	"strconv"
	"sync"
	"time"

	vegeta "github.com/tsenart/vegeta/v12/lib"

	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/loadgen/client"
)

const (
	// mostSpin is how long before a request is due a busy wait begins, because a
	// sleeping thread is woken late by a tenth of a millisecond, and spinShare how
	// much of a processor it may take: at high rates the client's time is needed
	// for sending.
	mostSpin  = 150 * time.Microsecond
	spinShare = 0.04
	// Requests are made ready before they are due, so many times so many: one by
	// one, each would wake the goroutine that makes them.
	ahead, batch = 8, 32
	// collectAt is how much garbage, in percent of what is in use, is let lie
	// before it is collected: a client's heap is small, and each collection
	// makes requests late that are due meanwhile.
	collectAt = 400
)

// Driver is what a load is driven with.
type Driver struct {
	Clock   recording.Clock
	Client  *client.Client
	Share   Share // of the plan; Whole for a process that plays alone
	Sink    func(recording.Request)
	Observe func(recording.Observation)
	// Undecided is asked, shortly before a stage that may be extended would end,
	// whether it has to go on. Without it no stage is extended.
	Undecided func() bool
}

// Drive plays a scenario's plan from a time on the clock on, and gives every
// request to the sink when it has ended, from several goroutines. It returns
// when all have. When ctx ends it stops at once: requests under way are
// recorded as cancelled, those that were due and not yet sent as not sent.
//
// A late client never shifts the schedule: due times are those of the plan, and
// what is sent late is seen to be late.
func (dr Driver) Drive(ctx context.Context, scenario string, plan *Plan, start time.Duration) error {
	d := &drive{
		ctx: ctx, clock: dr.Clock, scenario: scenario, plan: plan, share: dr.Share, client: dr.Client,
		sink: dr.Sink, observe: dr.Observe, start: start,
		sent: make([]bool, dr.Share.requests(plan)),
	}
	d.longer = newExtension(plan, dr.Undecided)
	var beside sync.WaitGroup
	beside.Go(func() { d.longer.decide(d) })
	for i, stage := range plan.Stages {
		if stage.Users > 0 {
			beside.Go(func() { d.users(stage, i) })
		}
	}
	beside.Go(d.mark)
	err := d.attack()
	beside.Wait()
	d.notSent()
	return err
}

// drive is one scenario's load under way.
type drive struct {
	ctx      context.Context
	clock    recording.Clock
	scenario string
	plan     *Plan
	share    Share
	client   *client.Client
	sink     func(recording.Request)
	observe  func(recording.Observation)
	start    time.Duration // of the scenario, on the run's clock
	alarm    *alarm        // of the pacer
	spin     time.Duration // of the pacer, before each request
	longer   *extension

	ready chan []ready // in the order of the plan
	next  []ready      // the pacer's, from ready

	mu    sync.Mutex
	paced map[int]ready // by hit, from when it is due to when it is sent
	sent  []bool        // by hit
}

// ready is a request that has only to be sent.
type ready struct {
	class    string
	variant  string
	bytes    int32 // of the prompt
	streamed bool
	asked    int32 // tokens, where the answer is to have exactly so many
	request  *client.Prepared
	err      error
}

// request of the plan that is the n-th of the share.
func (d *drive) request(hit int) int { return d.share.Worker + hit*d.share.Of }

// attack lets vegeta drive: its loop calls Pace for the next tick, and a free
// worker, or a new one, takes it to RoundTrip.
func (d *drive) attack() error {
	if len(d.sent) == 0 {
		return nil
	}
	var err error
	if d.alarm, err = newAlarm(d.ctx); err != nil {
		return words.Errorf("the load cannot be scheduled: %s", err)
	}
	defer d.alarm.close()
	d.spin = d.affordable()
	if os.Getenv("GOGC") == "" {
		defer debug.SetGCPercent(debug.SetGCPercent(collectAt))
	}
	ctx, stop := context.WithCancel(d.ctx)
	d.ready, d.paced = make(chan []ready, ahead), map[int]ready{}
	var preparing sync.WaitGroup
	preparing.Go(func() { d.prepare(ctx) })
	defer preparing.Wait()
	defer stop()

	attacker := vegeta.NewAttacker(
		vegeta.Timeout(0),
		vegeta.Workers(64),
		vegeta.Client(&http.Client{Transport: d}),
	)
	target := vegeta.NewStaticTargeter(vegeta.Target{Method: http.MethodPost, URL: "http://request"})
	for r := range attacker.Attack(target, d, 0, d.scenario) {
		if r.Error != "" {
			attacker.Stop()
			return words.Errorf("the load could not be driven: %s", r.Error)
		}
	}
	return nil
}

// affordable is how long the pacer may spin before each request at the plan's
// highest rate.
func (d *drive) affordable() time.Duration {
	highest := 0.0
	for _, s := range d.plan.Stages {
		highest = max(highest, float64(s.Requests)/s.Duration.Seconds()/float64(d.share.Of))
	}
	if highest == 0 {
		return 0
	}
	return min(mostSpin, time.Duration(spinShare/highest*float64(time.Second)))
}

// prepare makes requests ready before they are due: writing a long prompt and
// its JSON takes longer than sending it.
func (d *drive) prepare(ctx context.Context) {
	for first := 0; first < len(d.sent); first += batch {
		made := make([]ready, 0, batch)
		for hit := first; hit < min(first+batch, len(d.sent)) && ctx.Err() == nil; hit++ {
			q := d.plan.Question(d.request(hit))
			request, err := d.client.Prepare(q.Prompt)
			made = append(made, ready{q.Class, q.Variant, int32(q.Prompt.Bytes()), q.Prompt.Stream, asked(q.Prompt), request, err})
		}
		select {
		case d.ready <- made:
		case <-ctx.Done():
			return
		}
	}
}

// asked is how many tokens an answer is to have exactly; 0 where it may end
// before.
func asked(p client.Prompt) int32 {
	if !p.IgnoreEOS {
		return 0
	}
	return int32(p.MaxTokens)
}

// Pace is vegeta's Pacer over the plan. It waits itself, because vegeta's own
// wait can neither be interrupted nor be precise.
func (d *drive) Pace(_ time.Duration, hits uint64) (wait time.Duration, stop bool) {
	if hits >= uint64(len(d.sent)) || !d.longer.holds(d.ctx, d.plan.Due(d.request(int(hits)))) {
		return 0, true
	}
	if len(d.next) == 0 {
		select {
		case d.next = <-d.ready:
		case <-d.ctx.Done():
			return 0, true
		}
	}
	d.mu.Lock()
	d.paced[int(hits)] = d.next[0]
	d.mu.Unlock()
	d.next = d.next[1:]
	if !d.waitUntil(d.start + d.plan.Due(d.request(int(hits)))) {
		return 0, true
	}
	return 0, false
}

// Rate is the rate that the plan has at a time, for vegeta's Pacer.
func (d *drive) Rate(elapsed time.Duration) float64 {
	for _, s := range d.plan.Stages {
		if elapsed < s.Start+s.Duration {
			return float64(s.Requests) / s.Duration.Seconds() / float64(d.share.Of)
		}
	}
	return 0
}

// String names the pacer.
func (d *drive) String() string { return "plan of " + d.scenario }

// waitUntil waits until a time on the run's clock, or until ctx ends.
func (d *drive) waitUntil(at time.Duration) bool {
	if rest := at - d.clock.Now() - d.spin; rest > 0 {
		d.alarm.wait(rest)
	}
	for d.ctx.Err() == nil && d.clock.Now() < at {
	}
	return d.ctx.Err() == nil
}

// RoundTrip sends one request of the plan in vegeta's stead. vegeta numbers its
// hits; the number says which request of the plan it is.
func (d *drive) RoundTrip(r *http.Request) (*http.Response, error) {
	hit, err := strconv.Atoi(r.Header.Get("X-Vegeta-Seq"))
	if err != nil || hit >= len(d.sent) {
		return nil, words.Errorf("vegeta returned the request number %q", r.Header.Get("X-Vegeta-Seq"))
	}
	d.mu.Lock()
	d.sent[hit] = true
	q := d.paced[hit]
	delete(d.paced, hit)
	d.mu.Unlock()
	n := d.request(hit)
	due := d.start + d.plan.Due(n)
	row := recording.Request{Due: due, Streamed: q.streamed, Error: recording.ErrorNotSent}
	if q.err != nil {
		row.Fail(recording.ErrorNotSent, words.Of(q.err))
	} else {
		row = d.client.Send(d.ctx, q.request, d.clock, due)
	}
	row.Seq, row.Class, row.Variant, row.PromptBytes, row.AskedTokens = int64(n), q.class, q.variant, q.bytes, q.asked
	d.give(d.plan.Stage(n), row)
	return &http.Response{StatusCode: http.StatusOK, Body: http.NoBody, Request: r}, nil
}

func (d *drive) give(stage PlannedStage, row recording.Request) {
	row.Kind, row.Scenario, row.Stage = recording.KindLoad, d.scenario, stage.Name
	d.sink(row)
}

// notSent records what was due and never sent.
func (d *drive) notSent() {
	now := d.clock.Now()
	for hit, sent := range d.sent {
		n := d.request(hit)
		due := d.start + d.plan.Due(n)
		if sent || due > now || d.plan.Due(n) >= d.longer.end() {
			continue
		}
		q := d.plan.Question(n)
		row := recording.Request{Seq: int64(n), Class: q.Class, Variant: q.Variant, PromptBytes: int32(q.Prompt.Bytes()), Due: due, Streamed: q.Prompt.Stream}
		row.Fail(recording.ErrorNotSent, words.Say("it was due, but the client had not sent it when the run was stopped"))
		d.give(d.plan.Stage(n), row)
	}
}

// mark observes the beginning and end of every open-loop stage, when they
// happen.
func (d *drive) mark() {
	for _, s := range d.plan.Stages {
		if s.Users > 0 {
			continue // its users do
		}
		if !d.sleepUntil(d.start + s.Start) {
			return
		}
		requests, end := d.share.within(s), s.Start+s.Duration
		d.observe(s.observation(recording.ObsStageStarted, d.scenario, d.start+s.Start, requests))
		if s.Extend > 0 {
			if !d.longer.ended(d.ctx) {
				return
			}
			end = d.longer.end()
			requests = d.share.below(d.plan.before(end)) - d.share.below(s.first)
		}
		if !d.sleepUntil(d.start + end) {
			return
		}
		d.observe(s.observation(recording.ObsStageEnded, d.scenario, d.start+end, requests))
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
