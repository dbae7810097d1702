package run

import (
	"context"
	"sync"

	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/loadgen"
	"github.com/launchgate/launchgate/loadgen/client"
	"github.com/launchgate/launchgate/scenarios"
)

// warmedAtOnce is how many requests of the warm-up are in flight.
const warmedAtOnce = 4

// warmUp sends a few concurrent requests that are not judged, so that caches,
// connections and code paths are warm.
func (c *conductor) warmUp(ctx context.Context) error {
	if len(c.Gate.Scenarios) > 0 {
		n := c.Gate.Warmup.Requests
		c.say("warming up with %d requests", n)
		c.ask(ctx, c.Gate.Scenarios[0], 0, n, warmedAtOnce)
	}
	return ctx.Err()
}

// ask sends n requests like those of a scenario and records them as warm-up.
func (c *conductor) ask(ctx context.Context, s scenarios.Scenario, first, n, atOnce int) []recording.Request {
	plan := loadgen.NewPlan(s, SeedFor(c.Gate, s.Name), c.Material)
	return ask(ctx, c.client, c.clock, plan, first, n, atOnce, func(r recording.Request) {
		r.Scenario = s.Name
		c.rec.Request(r)
	})
}

// ask sends n questions that are like those of a load and none of them, by their numbers
// from first on, so many at once. It returns what became of them; each is told that at
// once. If ctx ends, some have not been sent.
func ask(ctx context.Context, cl *client.Client, clock recording.Clock, plan *loadgen.Plan, first, n, atOnce int, each func(recording.Request)) []recording.Request {
	rows := make([]recording.Request, n)
	var inFlight sync.WaitGroup
	defer inFlight.Wait()
	slots := make(chan struct{}, atOnce)
	for i := range rows {
		select {
		case <-ctx.Done():
			return rows
		case slots <- struct{}{}:
		}
		inFlight.Go(func() {
			defer func() { <-slots }()
			q := plan.Warmup(first + i)
			r := cl.Do(ctx, q.Prompt, clock, clock.Now())
			r.Seq, r.Kind, r.Class = int64(i), recording.KindWarmup, q.Class
			rows[i] = r
			each(r)
		})
	}
	return rows
}
