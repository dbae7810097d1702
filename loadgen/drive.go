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
	// mostSpin is how long before a request is due the busy wait begins, because a
	// sleeping thread is woken a tenth of a millisecond late. spinShare is how much of
	// a processor the busy wait may take: at high rates the client needs its time for
	// sending.
	mostSpin  = 150 * time.Microsecond
	spinShare = 0.04
	// Requests are prepared before they are due: ahead batches of batch requests. One
	// by one, each would wake the goroutine that prepares them.
	ahead, batch = 8, 32
	// collectAt is the GOGC percentage: how much garbage, relative to the memory in
	// use, may pile up before it is collected. A client's heap is small, and each
	// collection delays the requests that are due meanwhile.
	collectAt = 400
)

// Driver holds what is needed to send a load.
type Driver struct {
	Clock   recording.Clock
	Client  *client.Client
	Share   Share // of the plan; Whole for a process that plays alone
	Sink    func(recording.Request)
	Observe func(recording.Observation)
	// Undecided is called shortly before the end of a stage that may be extended, and
	// says whether to extend it. Without it no stage is extended.
	Undecided func() bool
}

// Drive plays a scenario's plan, starting at a time of the clock, and gives every
// request to the sink when it has ended, from several goroutines. It returns when all
// have. When ctx ends it stops at once: requests under way are recorded as cancelled,
// and those that were due and not yet sent as not sent.
//
// A late client never shifts the schedule: due times are those of the plan, so that a
// late request is recorded as late.
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
	next  []ready      // the batch that the pacer works on

	mu    sync.Mutex
	paced map[int]ready // by hit, between due and sent
	sent  []bool        // by hit
}

// ready is a prepared request, which only has to be sent.
type ready struct {
	class    string
	variant  string
	bytes    int32 // of the prompt
	streamed bool
	asked    int32 // exact number of tokens asked for, if the answer must have it
	request  *client.Prepared
	err      error
}

// request is the index in the plan of the n-th request of the share.
func (d *drive) request(hit int) int { return d.share.Worker + hit*d.share.Of }

// attack lets vegeta drive: its loop calls Pace for the next tick, and an idle worker,
// or a new one, calls RoundTrip for it.
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

// prepare prepares requests before they are due: writing a long prompt and its JSON
// takes longer than sending it.
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

// asked is the exact number of tokens that an answer must have; 0 if it may end
// earlier.
func asked(p client.Prompt) int32 {
	if !p.IgnoreEOS {
		return 0
	}
	return int32(p.MaxTokens)
}

// Pace is vegeta's Pacer over the plan. It waits itself, because vegeta's own wait is
// neither precise nor interruptible.
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

// Rate is the rate of the plan at a time, for vegeta's Pacer.
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

// RoundTrip sends one request of the plan in place of vegeta. Vegeta numbers its hits;
// from the number follows the request of the plan.
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

// notSent records requests that were due and never sent.
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
			continue // users observes its own stages
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
