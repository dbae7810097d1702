package run

import (
	"context"
	"errors"
	"time"

	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/loadgen/client"
)

// replicasEvery is how often a service is asked how many replicas are ready,
// where the target does not tell it by itself.
const replicasEvery = 250 * time.Millisecond

// watchReplicas observes until ctx ends how many replicas the service says are
// ready, each time that it says something else, where the target does not tell
// it by itself. A service that does not say is asked once.
func (c *conductor) watchReplicas(ctx context.Context) {
	if c.target.About().TellsOf(recording.ObsReplicasReady) {
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
			c.observe(recording.Observation{At: c.clock.Now(), Name: recording.ObsReplicasUntold, Text: words.Of(err)})
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
