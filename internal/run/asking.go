package run

import (
	"context"
	"sync"
	"time"

	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/loadgen"
	"github.com/launchgate/launchgate/loadgen/client"
	"github.com/launchgate/launchgate/scenarios"
)

// askedAtOnce bounds the concurrent requests of Ask if the service is slow.
const askedAtOnce = 32

// Ask sends small requests to a service at a rate until ctx ends. A release is judged
// by its requests, and there may be no others. The API key of the endpoint is among
// the keys, by its variable.
func Ask(ctx context.Context, e scenarios.Endpoint, keys map[string]string, perSecond float64) error {
	c, err := loadgen.Connect(e, "", keys)
	if err != nil {
		return err
	}
	question := client.Prompt{API: scenarios.APIChat, Messages: []client.Message{{Role: "user", Content: "Tell me a story."}}, MaxTokens: 16, IgnoreEOS: true, Stream: true, Timeout: 10 * time.Second}
	if err := c.Preflight(ctx, question); err != nil && ctx.Err() == nil {
		return words.Errorf("the service is not serving: %s", err)
	}
	clock := recording.NewClock()
	var asking sync.WaitGroup
	defer asking.Wait()
	free := make(chan struct{}, askedAtOnce)
	tick := time.NewTicker(time.Duration(float64(time.Second) / perSecond))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		select {
		case free <- struct{}{}:
			asking.Go(func() {
				c.Do(ctx, question, clock, clock.Now())
				<-free
			})
		default: // the service is slow, which shows without more requests
		}
	}
}
