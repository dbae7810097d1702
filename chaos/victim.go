package chaos

import (
	"context"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/launchgate/launchgate/deploy"
	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/scenarios"
)

// pollEvery is the interval at which a condition is checked.
const pollEvery = 10 * time.Millisecond

// chooseVictim picks the replica that the fault's target names. It waits until that
// replica serves and has at least min_streams streams in flight, because a fault on
// an idle replica would prove nothing. The Victim has the number of streams at that
// moment.
func chooseVictim(ctx context.Context, target deploy.Target, f scenarios.Fault, seed uint64) (deploy.Victim, error) {
	var none deploy.Victim
	t, ok := target.(deploy.Crowd)
	if !ok {
		return none, deploy.Lack{Reason: words.Say("this kind of target does not report which of its replicas serve")}
	}
	candidates := deploy.Names(t.Replicas())
	if len(candidates) == 0 {
		return none, words.Errorf("there is no replica that could be struck")
	}
	switch f.Target {
	case scenarios.VictimBusiest:
	case scenarios.VictimRandom:
		candidates = candidates[rand.New(rand.NewPCG(seed, 0)).IntN(len(candidates)):][:1]
	default:
		candidates = []string{f.Target}
	}
	for {
		streams, err := t.InFlight(ctx)
		if err != nil && ctx.Err() == nil {
			return none, err
		}
		victims := slices.Clone(candidates)
		slices.SortStableFunc(victims, func(a, b string) int { return streams[b] - streams[a] })
		victim := victims[0]
		if _, known := streams[victim]; err == nil && !known {
			return none, words.Errorf("no replica is named %q, expected %s", victim, strings.Join(deploy.Names(t.Replicas()), ", "))
		}
		idle := streams[victim] < f.MinStreams
		for _, v := range victims {
			if err == nil && streams[v] >= f.MinStreams && t.Serving(ctx, v) {
				return deploy.Victim{Replica: v, Streams: streams[v]}, nil
			}
		}
		if sleep(ctx, pollEvery) == nil {
			continue
		}
		if idle {
			return none, words.Errorf("%s had %d streams in flight, and the fault waits for %d: %s", victim, streams[victim], f.MinStreams, ctx.Err())
		}
		return none, words.Errorf("%s is not serving: the gateway does not route to it, so a fault on it would prove nothing: %s", victim, ctx.Err())
	}
}
