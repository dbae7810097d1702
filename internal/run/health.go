package run

import (
	"context"
	"time"

	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/internal/words"
)

// healthEvery is the interval of health checks.
const healthEvery = time.Second

// watchHealth records the results of the service's health check until ctx ends, if an
// objective needs them. A service without a health check is asked once.
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
