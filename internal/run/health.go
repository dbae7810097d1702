package run

import (
	"context"
	"time"

	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/internal/words"
)

// healthEvery is how often a service is asked whether it is well.
const healthEvery = time.Second

// watchHealth observes until ctx ends what the service's own health check says,
// where an objective is about it. A service without one is asked once.
func (c *conductor) watchHealth(ctx context.Context) {
	if !c.Gate.AsksForHealth() {
		return
	}
	path, has := c.client.HealthPath(ctx)
	if !has {
		return
	}
	tick := time.NewTicker(healthEvery)
	defer tick.Stop()
	for {
		status, err := c.client.Health(ctx, path)
		if ctx.Err() != nil {
			return
		}
		o := recording.Observation{At: c.clock.Now(), Name: recording.ObsHealth, Text: words.Verbatim(path + ": " + status)}
		if err == nil {
			o.Value = 1
		}
		c.observe(o)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
