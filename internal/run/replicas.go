package run

import (
	"context"
	"errors"
	"time"

	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/loadgen/client"
)

// replicasEvery is how often a service that is already there is asked how many
// replicas are ready. A local deployment tells by itself.
const replicasEvery = 250 * time.Millisecond

// watchReplicas observes until ctx ends how many replicas a service that is
// already there says are ready, each time that it says something else. One that
// does not say is asked once.
func (c *conductor) watchReplicas(ctx context.Context) {
	if c.Gate.Target.Local != nil {
		return
	}
	tick := time.NewTicker(replicasEvery)
	defer tick.Stop()
	for before := -1; ; {
		n, err := c.client.Replicas(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case errors.Is(err, client.ErrUntold):
			c.observe(recording.Observation{At: c.clock.Now(), Name: recording.ObsReplicasUntold, Text: err.Error()})
			return
		case n == 0 && before < 0: // it has never said how many, so this may be about something else
		case err == nil && n != before:
			c.observe(recording.Observation{At: c.clock.Now(), Name: recording.ObsReplicasReady, Value: float64(n)})
			before = n
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
