package run

import (
	"context"
	"slices"
	"time"

	"github.com/launchgate/launchgate/deploy"
	"github.com/launchgate/launchgate/deploy/targets"
	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/loadgen"
	"github.com/launchgate/launchgate/loadgen/client"
	"github.com/launchgate/launchgate/loadgen/prompt"
	"github.com/launchgate/launchgate/scenarios"
)

// Session is a target that is used by several runs, one after the other.
type Session struct {
	// Endpoint is its address, for the gates of those runs.
	Endpoint scenarios.Endpoint
	// Keys are the keys issued for it, for those runs.
	Keys map[string]string

	target deploy.Target
	client *client.Client
	clock  recording.Clock
	ask    client.Prompt
	idle   time.Duration // time to first token of a service without load
}

const (
	idleProbes = 5
	drainFor   = time.Minute
)

// Open deploys a gate's target, or connects to it, and measures its time to first token
// without load. The folder for the logs of the target must exist.
func Open(ctx context.Context, g scenarios.Gate, server, logs string) (s *Session, err error) {
	s = &Session{clock: recording.NewClock()}
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	if s.target, err = targets.PlanFor(g).Open(ctx, deploy.Setup{Build: server, LogDir: logs, AnyLoad: true, OnEvent: func(deploy.Event) {}}); err != nil {
		return s, err
	}
	access := s.target.Access()
	s.Endpoint, s.Keys = access.Endpoint, access.Keys
	if err := s.target.WaitReady(ctx); err != nil {
		return s, err
	}
	keys := loadgen.KeysFor(g, s.Endpoint, s.Keys)
	if s.client, err = loadgen.Connect(s.Endpoint, access.Via, keys); err != nil {
		return s, err
	}
	w := g.Scenarios[0].Mix()[0].Workload
	s.ask = client.Prompt{API: w.API, Model: w.Model, APIKey: keys[w.APIKeyEnv], Fields: scenarios.Texts(w.Fields), Messages: []client.Message{{Role: "user", Content: "Hello!"}},
		MaxTokens: client.Least(w.API), Stream: true, Finish: recording.OrEnd(w.Finish), Timeout: time.Duration(w.Timeout)}
	if err := s.client.Preflight(ctx, s.ask, client.Patience{Ready: time.Duration(s.Endpoint.ReadyTimeout)}); err != nil {
		return s, words.Errorf("the target is not serving: %s", err)
	}
	var waits []time.Duration
	for range idleProbes {
		if wait, ok := s.probe(ctx); ok {
			waits = append(waits, wait)
		}
	}
	if len(waits) == 0 {
		return s, words.Errorf("the target answers, but does not stream: none of %d small requests got a first token", idleProbes)
	}
	slices.Sort(waits)
	s.idle = waits[len(waits)/2]
	if s.Endpoint.Model == "" {
		// The runs need not ask for the models again, when the service may be busy.
		s.Endpoint.Model = s.client.Model()
	}
	return s, nil
}

// answersAsked is how many requests are sent at once to see how long an answer takes.
const answersAsked = 16

// Answer is the mean and the longest time of an answer to the load of the gate's first
// scenario, of a few requests that are sent at once.
func (s *Session) Answer(ctx context.Context, g scenarios.Gate) (mean, longest time.Duration, err error) {
	material, err := prompt.Gather(g)
	if err != nil {
		return 0, 0, err
	}
	plan := loadgen.NewPlan(g.Scenarios[0], SeedFor(g, g.Scenarios[0].Name), material)
	keys := loadgen.KeysFor(g, s.Endpoint, s.Keys)
	if err := material.Keys(g, keys); err != nil {
		return 0, 0, err
	}
	rows := ask(ctx, s.client, s.clock, plan, 0, answersAsked, answersAsked, func(recording.Request) {})
	if ctx.Err() != nil {
		return 0, 0, ctx.Err()
	}
	var sum time.Duration
	n := 0
	for i := range rows {
		if took, ok := rows[i].ServiceLatency(); ok {
			sum += took
			longest = max(longest, took)
			n++
		}
	}
	if n == 0 {
		return 0, 0, words.Errorf("none of %d requests of the load was answered: %s", answersAsked, rows[0].Why())
	}
	return sum / time.Duration(n), longest, nil
}

// probe sends one small request and returns its time to first token.
func (s *Session) probe(ctx context.Context) (time.Duration, bool) {
	row := s.client.Do(ctx, s.ask, s.clock, s.clock.Now())
	return row.ServiceTTFT()
}

// Drain waits until the service answers as quickly as it did without load, so that
// queues left by one run do not affect the next. It fails if that takes longer than most,
// or a minute if that is more.
func (s *Session) Drain(ctx context.Context, most time.Duration) error {
	began, drainFor := time.Now(), max(most, drainFor)
	for good := 0; good < 2; {
		wait, ok := s.probe(ctx)
		if good++; !ok || wait > 3*s.idle+20*time.Millisecond {
			good = 0
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if good == 0 && time.Since(began) > drainFor {
			if !ok {
				return words.Errorf("%s after the end of the load, the service still did not answer a small request; before the load, its first token took %s", drainFor, s.idle.Round(time.Millisecond))
			}
			return words.Errorf("%s after the end of the load, the service was still slower than before it: the first token took %s, and %s before the load",
				drainFor, wait.Round(time.Millisecond), s.idle.Round(time.Millisecond))
		}
		select {
		case <-ctx.Done():
		case <-time.After(50 * time.Millisecond):
		}
	}
	return nil
}

// Close stops what Open started.
func (s *Session) Close() {
	if s.target != nil {
		_ = s.target.Stop() // it has no faults that would have to be reverted
	}
}
