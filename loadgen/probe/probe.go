// Package probe watches a service from outside, beside the load: a small request at a
// fixed interval, sent whether or not earlier ones were answered. After a fault, the
// probes show when users were served again.
package probe

import (
	"context"
	"sync"
	"time"

	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/loadgen/client"
	"github.com/launchgate/launchgate/scenarios"
)

// question is what a probe asks. Only whether an answer comes counts, not its text.
const question = "Hello!"

// Watch probes until ctx ends and gives every probe to sink, from several goroutines;
// it returns when all have ended. Each probe times out after the probe's timeout, so
// that no more than timeout/every + 1 are under way even if the service hangs.
func Watch(ctx context.Context, clock recording.Clock, p scenarios.Probe, s scenarios.Scenario, c *client.Client, sink func(recording.Request)) error {
	w := s.Mix()[0].Workload
	ask := client.Prompt{API: w.API, Model: w.Model, Fields: scenarios.Texts(w.Fields), Messages: []client.Message{{Role: "user", Content: question}}, MaxTokens: p.MaxTokens, Stream: true, Finish: recording.OrEnd(w.Finish), Timeout: time.Duration(p.Timeout)}
	start := clock.Now()
	var inFlight sync.WaitGroup
	defer inFlight.Wait()
	for n := 0; ; n++ {
		due := start + time.Duration(n)*time.Duration(p.Every)
		timer := time.NewTimer(due - clock.Now())
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C:
		}
		inFlight.Go(func() {
			row := c.Do(ctx, ask, clock, due)
			row.Seq, row.Kind, row.Scenario, row.Stage = int64(n), recording.KindProbe, s.Name, stageAt(s, due-start)
			sink(row)
		})
	}
}

// stageAt is the stage at an offset from the scenario's start.
func stageAt(s scenarios.Scenario, at time.Duration) string {
	var end time.Duration
	for _, st := range s.Stages {
		if end += time.Duration(st.For); at < end {
			return st.Name
		}
	}
	return ""
}
