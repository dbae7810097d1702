package chaos

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/launchgate/launchgate/deploy"
	"github.com/launchgate/launchgate/scenarios"
)

var podKill = Kind{
	Name:      "pod-kill",
	Does:      "sends SIGKILL to the process of one replica while streams run through it",
	Needs:     "a deployment of launchgate's own (target.local)",
	Seen:      "the process is gone and was ended by the signal; gone again when the gateway routes to a new process of it",
	Simulates: "a crash, an OOM kill, an evicted or deleted pod",
	prepare:   preparePodKill,
}

// pollEvery is how often a condition is looked at while it is waited for.
const pollEvery = 10 * time.Millisecond

// killable is what pod-kill needs of a target.
type killable interface {
	Replicas() []string
	InFlight(ctx context.Context) (map[string]int, error)
	Kill(replica string) (deploy.Killed, error)
	PID(replica string) int
	Serving(ctx context.Context, replica string) bool
}

func preparePodKill(ctx context.Context, target any, f scenarios.Fault, seed uint64) (fault, error) {
	t, ok := target.(killable)
	if !ok {
		return nil, Unsupported{"launchgate did not deploy this target, so it has no process of it to kill; use target.local, or break it by other means"}
	}
	victim, err := chooseVictim(ctx, t, f, seed)
	if err != nil {
		return nil, err
	}
	return &killing{target: t, victim: victim}, nil
}

// chooseVictim picks the replica the fault's target names, once it has the
// streams in flight that the fault wants: the kill must hit work.
func chooseVictim(ctx context.Context, t killable, f scenarios.Fault, seed uint64) (string, error) {
	candidates := t.Replicas()
	switch f.Target {
	case "busiest":
	case "random":
		candidates = candidates[rand.New(rand.NewPCG(seed, 0)).IntN(len(candidates)):][:1]
	default:
		candidates = []string{f.Target}
	}
	for {
		streams, err := t.InFlight(ctx)
		if err != nil && ctx.Err() == nil {
			return "", err
		}
		victim := slices.MaxFunc(candidates, func(a, b string) int { return streams[a] - streams[b] })
		if n, known := streams[victim]; err == nil && !known {
			return "", fmt.Errorf("no replica is named %q; there are %s", victim, strings.Join(t.Replicas(), ", "))
		} else if err == nil && n >= f.MinStreams {
			return victim, nil
		}
		select {
		case <-ctx.Done():
			return "", fmt.Errorf("%s had %d streams in flight and the fault waits for %d: %w", victim, streams[victim], f.MinStreams, ctx.Err())
		case <-time.After(pollEvery):
		}
	}
}

// killing is a pod-kill on its victim.
type killing struct {
	target killable
	victim string
	killed deploy.Killed
}

func (k *killing) Victim() string { return k.victim }

func (k *killing) Inject(ctx context.Context) (sight, error) {
	streams, err := k.target.InFlight(ctx)
	if err != nil {
		return sight{}, err
	}
	if k.killed, err = k.target.Kill(k.victim); err != nil {
		return sight{}, err
	}
	return sight{how: fmt.Sprintf("SIGKILL sent to pid %d with %d streams in flight", k.killed.PID, streams[k.victim])}, nil
}

// SeeInEffect looks every millisecond, so that RTO does not begin late: a
// process with much memory is dead for a while before it can be waited for.
func (k *killing) SeeInEffect(ctx context.Context) (sight, error) {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return sight{}, ctx.Err()
		case <-k.killed.Exited:
			at, how := k.killed.How()
			return sight{at, fmt.Sprintf("pid %d is gone (%s)", k.killed.PID, how)}, nil
		case <-tick.C:
			if k.killed.Dying() {
				return sight{how: fmt.Sprintf("pid %d is ending and runs no more", k.killed.PID)}, nil
			}
		}
	}
}

// Revert has nothing to undo: starting the replica again is the platform's
// own duty, and part of what is measured.
func (k *killing) Revert(context.Context) (sight, error) {
	return sight{how: "nothing to undo: the supervisor restarts the replica"}, nil
}

func (k *killing) SeeGone(ctx context.Context) (sight, error) {
	for {
		if pid := k.target.PID(k.victim); pid != 0 && pid != k.killed.PID && k.target.Serving(ctx, k.victim) {
			return sight{how: fmt.Sprintf("the gateway routes to %s again, now pid %d", k.victim, pid)}, nil
		}
		select {
		case <-ctx.Done():
			return sight{}, ctx.Err()
		case <-time.After(pollEvery):
		}
	}
}
