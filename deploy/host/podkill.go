package host

import (
	"context"
	"time"

	"github.com/launchgate/launchgate/deploy"
	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/scenarios"
)

// killable is what a target must offer for kills.
type killable interface {
	crowd
	Kill(name string) (deploy.Killed, error)
	PID(name string) int
	Serving(ctx context.Context, replica string) bool
}

// KillReplica sends SIGKILL to the process of a replica.
func (l *Local) KillReplica(_ context.Context, v deploy.Victim, _ scenarios.Fault) (deploy.Effect, error) {
	return killReplica(l.Local, v), nil
}

func killReplica(t killable, v deploy.Victim) deploy.Effect {
	return &killing{target: t, victim: v.Replica, streams: v.Streams, serving: []string{v.Replica}}
}

// KillGateway sends SIGKILL to the gateway.
func (l *Local) KillGateway(ctx context.Context, _ deploy.Victim, _ scenarios.Fault) (deploy.Effect, error) {
	return killGateway(ctx, l.Local)
}

func killGateway(ctx context.Context, t killable) (deploy.Effect, error) {
	inFlight, err := t.InFlight(ctx)
	if err != nil {
		return nil, err
	}
	k := &killing{target: t, victim: deploy.Gateway}
	for _, replica := range deploy.Names(t.Replicas()) {
		k.streams += inFlight[replica]
		if t.Serving(ctx, replica) {
			k.serving = append(k.serving, replica)
		}
	}
	return k, nil
}

// killing is the kill of a process.
type killing struct {
	target  killable
	victim  string
	streams int
	serving []string // replicas that served, and must serve again
	killed  deploy.Killed
}

func (k *killing) Victim() string { return k.victim }

// Undo has nothing to do: if the supervisor dies, the kernel ends its
// processes.
func (k *killing) Undo() []deploy.Undo { return nil }

func (k *killing) Inject(context.Context) (sight, error) {
	var err error
	if k.killed, err = k.target.Kill(k.victim); err != nil {
		return sight{}, err
	}
	return sight{How: words.Say("SIGKILL sent to pid %d with %d streams in flight", k.killed.PID, k.streams)}, nil
}

func (k *killing) SeeInEffect(ctx context.Context) (sight, error) { return seeDeath(ctx, k.killed) }

// seeDeath looks every millisecond, so that the RTO does not begin late. A
// process with much memory is dead for a while before the parent can reap it.
func seeDeath(ctx context.Context, killed deploy.Killed) (sight, error) {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return sight{}, ctx.Err()
		case <-killed.Exited:
			at, how := killed.How()
			return sight{At: at, How: words.Say("pid %d is gone (%s)", killed.PID, how)}, nil
		case <-tick.C:
			if killed.Dying() {
				return sight{How: words.Say("pid %d is ending and no longer runs", killed.PID)}, nil
			}
		}
	}
}

// Revert has nothing to undo. The platform must restart the process itself, and
// that is part of what is measured.
func (k *killing) Revert(context.Context) (sight, error) {
	return sight{How: words.Say("nothing to undo: the supervisor restarts %s", k.victim)}, nil
}

func (k *killing) SeeGone(ctx context.Context) (sight, error) {
	return until(ctx, pollEvery, func() (words.Sentence, bool) {
		pid := k.target.PID(k.victim)
		if pid == 0 || pid == k.killed.PID {
			return words.Sentence{}, false
		}
		for _, replica := range k.serving {
			if !k.target.Serving(ctx, replica) {
				return words.Sentence{}, false
			}
		}
		if k.victim == deploy.Gateway {
			return words.Say("the gateway, now pid %d, routes to %d replicas again", pid, len(k.serving)), true
		}
		return words.Say("the gateway routes to %s again, now pid %d", k.victim, pid), true
	})
}
