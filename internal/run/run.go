// Package run conducts a run: it deploys the target, plays the gate's scenarios with
// their load, faults and probes, and leaves a recording. It judges nothing: the caller
// gives it the function that judges.
package run

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/launchgate/launchgate/chaos"
	"github.com/launchgate/launchgate/deploy"
	"github.com/launchgate/launchgate/deploy/targets"
	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/loadgen"
	"github.com/launchgate/launchgate/loadgen/canary"
	"github.com/launchgate/launchgate/loadgen/client"
	"github.com/launchgate/launchgate/loadgen/durability"
	"github.com/launchgate/launchgate/loadgen/probe"
	"github.com/launchgate/launchgate/loadgen/prompt"
	"github.com/launchgate/launchgate/loadgen/twins"
	"github.com/launchgate/launchgate/scenarios"
)

// Options say what to run, and against which target.
type Options struct {
	Gate scenarios.Gate
	// Plan makes the plan of the gate's target; nil: targets.PlanFor.
	Plan func(scenarios.Gate) deploy.Plan
	// Keys are API keys that were issued for the target before this run, by the names
	// of their variables in the gate.
	Keys map[string]string
	// Material is what the gate's prompts are made of, if it has been read already;
	// nil: it is read.
	Material *prompt.Material
	Dir      string   // the run folder, which Run creates
	Focus    []string // see scenarios.Suite
	Server   string   // the reference-server program, if the target is local
	Version  string
	Command  []string
	// Watchdog is the command that reverts faults if this process dies.
	Watchdog []string
	// Workers is how many processes the load is distributed over, and Worker is the
	// command of one. If it is 0, this process sends the load.
	Workers int
	Worker  []string
	// Elsewhere starts the workers on other machines; nil: they are processes of this
	// machine.
	Elsewhere deploy.WorkerPlan
	// Judge judges what is recorded so far, and returns a function that says of each
	// objective whether it is proven. It is called when a scenario has ended. If it is
	// nil, the scenarios are played without judging, and without a Ginkgo suite, of
	// which a process can run only one.
	Judge func(dir string) (func(o scenarios.Objective) error, error)
	// Undecided reports, from what is recorded so far, whether to extend a scenario
	// that may be extended. If it is nil, none is extended.
	Undecided func(dir, scenario string) (bool, error)
	// Missed says, from what is recorded so far, what of the gate can no longer pass; zero
	// words: nothing. If it is nil, every scenario is played.
	Missed func(dir string) (words.Sentence, error)
	// Tell receives the progress, for a person to watch. It is called from several
	// goroutines.
	Tell func(Progress)
}

// Run deploys, plays and records. It returns nil if there is a recording that can be
// judged, even if it was interrupted, and an error if the run could not be made.
func Run(ctx context.Context, o Options) (err error) {
	rec, err := recording.Create(o.Dir)
	if err != nil {
		return err
	}
	defer func() {
		if closed := rec.Close(); err == nil { // Close returns the error of earlier writes
			err = closed
		}
	}()
	if o.Gate.Chunks != scenarios.ChunksAll {
		rec.KeepChunks(o.Gate.KeepChunks)
	}
	if o.Plan == nil {
		o.Plan = targets.PlanFor
	}
	c := &conductor{Options: o, rec: rec, clock: recording.NewClock(), plan: o.Plan(o.Gate)}
	if c.Material == nil {
		if c.Material, err = prompt.Gather(o.Gate); err != nil {
			return err
		}
	}
	if err := c.describe(); err != nil {
		return err
	}
	defer func() {
		if err != nil { // the folder says why there is nothing in it
			rec.Observe(recording.Observation{At: c.clock.Now(), Name: recording.ObsCouldNotRun, Text: words.Of(err)})
		}
	}()
	if err := c.openJournal(); err != nil {
		return err
	}
	defer func() {
		if c.journal != nil {
			err = errors.Join(err, c.journal.Close())
		}
	}()
	defer func() {
		if c.crew != nil {
			err = errors.Join(err, c.crew.dismiss())
		}
		if c.target != nil {
			err = errors.Join(err, c.target.Stop())
		}
	}()
	if err := c.deploy(ctx); err != nil {
		return c.stopped(ctx, err)
	}
	if err := c.warmUp(ctx); err != nil {
		return c.stopped(ctx, err)
	}
	if err := c.size(ctx); err != nil {
		return c.stopped(ctx, err)
	}
	if c.Workers > 0 && len(c.Gate.Scenarios) > 0 {
		if err := c.recruit(ctx, c.target.Access()); err != nil {
			return c.stopped(ctx, words.Errorf("the workers: %s", err))
		}
	}
	if err := c.play(ctx); err != nil {
		return err
	}
	return c.finish(ctx)
}

// conductor holds the state that the acts of one run share.
type conductor struct {
	Options
	rec    *recording.Writer
	clock  recording.Clock
	plan   deploy.Plan
	target deploy.Target // nil until it is open
	client *client.Client
	keys   map[string]string // keys for the load
	crew   *crew             // nil if this process sends the load
	gpus   []recording.GPU   // of this machine; nil until they are listed
	// journal is the journal of the faults, if the gate has any, and of workers elsewhere.
	journal *chaos.Journal
	budget  *budget
	// abort ends the play at once; harm is the reason.
	abort context.CancelCauseFunc
	harm  atomic.Pointer[error]
	over  bool // the run can no longer pass, and what is left is not to be played
}

// play runs the suite, and observes the client meanwhile. If the recording cannot be
// written any more, the run ends, because it would prove nothing.
func (c *conductor) play(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	c.abort, c.budget = cancel, newBudget(c.Gate.Resolved().Stop)
	var beside sync.WaitGroup
	beside.Go(func() { loadgen.WatchSelf(ctx, c.clock, c.client, c.observe) })
	beside.Go(func() { c.watchRecording(ctx, cancel) })
	beside.Go(func() { c.watchGPUs(ctx) })
	defer beside.Wait()
	defer cancel(nil)
	defer c.countConnections()

	if c.Judge == nil {
		for _, s := range c.Gate.Scenarios {
			if err := c.act(ctx, s); err != nil && ctx.Err() == nil {
				return err
			}
		}
		return c.rec.Err()
	}
	log, err := os.Create(filepath.Join(c.rec.LogDir(), "ginkgo.log"))
	if err != nil {
		return err
	}
	defer log.Close()
	suite := scenarios.Suite{
		Gate: c.Gate, Focus: c.Focus, Out: log, JUnit: filepath.Join(c.rec.LogDir(), "ginkgo.xml"),
		Act: func(_ context.Context, s scenarios.Scenario) error {
			return c.unlessFailed(func() error { return errors.Join(c.act(ctx, s), c.endIfFailed(ctx, s)) })
		},
		Scan:  func(context.Context) error { return c.unlessFailed(func() error { return c.scan(ctx) }) },
		Judge: c.judge,
	}
	suite.Run()
	return c.rec.Err()
}

// countConnections records what the client saw of connections that is not an error of a
// request.
func (c *conductor) countConnections() {
	left, more := c.client.AfterEnd()
	for _, seen := range []struct {
		name  string
		count int64
	}{{recording.ObsResent, c.client.Stale()}, {recording.ObsLeftOpen, left}, {recording.ObsSentAfterEnd, more}} {
		if seen.count > 0 {
			c.observe(recording.Observation{At: c.clock.Now(), Name: seen.name, Value: float64(seen.count)})
		}
	}
}

// act plays one scenario: its load, its faults and its probe concurrently. The probe
// goes on until the faults are over. Then the records written meanwhile are read back.
func (c *conductor) act(ctx context.Context, s scenarios.Scenario) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	c.mark(recording.ObsScenarioStarted, s.Name)
	seed := SeedFor(c.Gate, s.Name)
	probing, stopProbe := context.WithCancel(ctx)
	plan := loadgen.NewPlan(s, seed, c.Material)
	for _, remark := range plan.Idle() {
		c.observe(recording.Observation{At: c.clock.Now(), Name: recording.ObsTraceEnded, Subject: s.Name, Text: remark})
	}
	watched := &watched{conductor: c, scenario: s, plan: plan, started: time.Now(), after: c.loadAfter(s)}
	if s.Twins != nil {
		watched.twins = &twins.Asker{Clock: c.clock, Scenario: s, Client: c.client, Keys: c.keys, Question: plan.Again, Sink: watched.request}
	}

	var load, faults, beside sync.WaitGroup
	var loadErr, probeErr error
	load.Go(func() { loadErr = c.drive(ctx, s, plan, watched.request) })
	player := chaos.Player{Clock: c.clock, Target: c.target, Journal: c.journal, Record: watched.injection}
	faults.Go(func() { player.Play(ctx, s, seed) })
	if s.Probe != nil {
		beside.Go(func() { probeErr = c.probe(probing, s, watched.request) })
	}
	if s.Canary != nil {
		beside.Go(func() { canary.Watch(probing, c.clock, s, c.client, watched.request, c.observe) })
	}
	if watched.twins != nil {
		beside.Go(func() { watched.twins.Beside(probing) })
	}
	var records *durability.Writer
	if s.Durability != nil {
		records = durability.New(c.clock, s, c.client, watched.request)
		beside.Go(func() { records.Write(ctx, probing.Done()) })
	}
	beside.Go(func() { c.watchReplicas(probing) })
	beside.Go(func() { c.watchMetrics(probing, s.Name) })
	beside.Go(func() { c.watchHealth(probing) })
	beside.Go(func() { watched.tell(probing) })
	load.Wait()
	faults.Wait()
	stopProbe()
	beside.Wait()
	if records != nil {
		if due, ok := records.ReadBack(ctx); ok {
			c.observe(recording.Observation{At: c.clock.Now(), Name: recording.ObsReadBack, Subject: s.Name, Value: float64(due)})
		}
	}

	if watched.twins != nil {
		watched.twins.Alone(ctx)
	}
	c.mark(recording.ObsScenarioEnded, s.Name)
	return errors.Join(loadErr, probeErr, ctx.Err(), c.rec.Flush())
}

// probe probes the service as its users do: with a new connection for each probe if a
// fault affects new connections only.
func (c *conductor) probe(ctx context.Context, s scenarios.Scenario, sink func(recording.Request)) error {
	prober := c.client
	if chaos.HitsNewConnections(s) {
		anew, err := c.client.Anew()
		if err != nil {
			return err
		}
		defer anew.Close()
		prober = anew
	}
	return probe.Watch(ctx, c.clock, *s.Probe, s, prober, sink)
}

// openJournal opens the journal, if there is anything to note: faults, or workers on other
// machines.
func (c *conductor) openJournal() (err error) {
	if c.Gate.Breaks() || c.Elsewhere != nil {
		c.journal, err = chaos.OpenJournal(c.Dir, c.rec.LogDir(), targets.Undo, c.Watchdog...)
	}
	return err
}

func (c *conductor) judge() (func(o scenarios.Objective) error, error) {
	if err := c.rec.Flush(); err != nil {
		return nil, err
	}
	return c.Judge(c.Dir)
}

// finish writes the last line of a complete run, or that it was interrupted.
func (c *conductor) finish(ctx context.Context) error {
	if ctx.Err() != nil {
		c.interrupted(ctx)
		return nil
	}
	if harm := c.harm.Load(); harm != nil {
		c.rec.Observe(recording.Observation{At: c.clock.Now(), Name: recording.ObsInterrupted, Text: words.Of(*harm)})
		return nil
	}
	c.mark(recording.ObsRunEnded, "")
	return nil
}

// stopped distinguishes an interruption, which leaves a recording to judge, from a
// service that could not be started.
func (c *conductor) stopped(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		c.interrupted(ctx)
		return nil
	}
	return err
}

func (c *conductor) interrupted(ctx context.Context) {
	c.rec.Observe(recording.Observation{At: c.clock.Now(), Name: recording.ObsInterrupted, Text: words.Of(context.Cause(ctx))})
}

func (c *conductor) mark(name, subject string) {
	c.observe(recording.Observation{At: c.clock.Now(), Name: name, Subject: subject})
}

func (c *conductor) observe(o recording.Observation) { c.rec.Observe(o) }

// watchRecording ends the run if the recording cannot be written any more.
func (c *conductor) watchRecording(ctx context.Context, cancel context.CancelCauseFunc) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Second):
			if err := c.rec.Err(); err != nil {
				cancel(words.Errorf("the recording cannot be written: %s", err))
				return
			}
		}
	}
}

// SeedFor gives every scenario its own seed, which does not depend on the other
// scenarios.
func SeedFor(g scenarios.Gate, scenario string) uint64 {
	h := g.Seed ^ 0xcbf29ce484222325 // FNV-1a
	for _, b := range []byte(scenario) {
		h = (h ^ uint64(b)) * 0x100000001b3
	}
	return h
}
