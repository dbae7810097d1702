package run

import (
	"context"
	"errors"
	"time"

	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/loadgen/client"
)

// replicasEvery is the interval at which a service is asked how many replicas are
// ready, if the target does not report it.
const replicasEvery = 250 * time.Millisecond

// watchReplicas records until ctx ends how many replicas are ready according to the
// service, whenever the number changes, if the target does not report it. A service
// that does not say is asked once.
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
		case errors.Is(err, client.ErrNoReplicaCount):
			c.observe(recording.Observation{At: c.clock.Now(), Name: recording.ObsReplicasUnreported, Text: words.Of(err)})
			return
		case n == 0 && before < 0: // it has never given a number, so this may have another meaning
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
