package host

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/launchgate/launchgate/chaos"
	"github.com/launchgate/launchgate/deploy"
	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/scenarios"
)

// replicas is a deployment on fake time. A killed replica exits after dies and
// serves again after back. A negative time means never.
type replicas struct {
	bare
	streams    map[string]int
	dies, back time.Duration
	deaf       string // the one that does not serve

	mu       sync.Mutex
	killedAt time.Time
}

func (r *replicas) Replicas() []deploy.Replica {
	return []deploy.Replica{{Name: "replica-0"}, {Name: "replica-1"}}
}

var _ killable = (*replicas)(nil)

func (r *replicas) KillReplica(_ context.Context, v deploy.Victim, _ scenarios.Fault) (deploy.Effect, error) {
	return killReplica(r, v), nil
}

func (r *replicas) InFlight(context.Context) (map[string]int, error) { return r.streams, nil }

func (r *replicas) Kill(string) (deploy.Killed, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.killedAt = time.Now()
	exited := make(chan struct{})
	if r.dies >= 0 {
		time.AfterFunc(r.dies, func() { close(exited) })
	}
	return deploy.NewKilled(100, exited, func() (time.Time, words.Sentence) { return r.killedAt.Add(r.dies), words.Verbatim("signal: killed") }), nil
}

func (r *replicas) PID(string) int {
	if !r.hasBack() {
		return 0
	}
	return 101
}

// Serving: a replica that was not killed yet serves, unless it is the deaf one.
func (r *replicas) Serving(_ context.Context, name string) bool {
	r.mu.Lock()
	untouched := r.killedAt.IsZero()
	r.mu.Unlock()
	return name != r.deaf && (untouched || r.hasBack())
}

func (r *replicas) hasBack() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.back >= 0 && time.Since(r.killedAt) >= r.back
}

func TestPlay(t *testing.T) {
	busy := map[string]int{"replica-0": 1, "replica-1": 3}
	tests := []struct {
		name   string
		target deploy.Target
		fault  scenarios.Fault
		want   string // the states in order
		victim string
		text   string // the text of the last line
	}{
		{
			name:   "a kill that works is followed to its end",
			target: &replicas{streams: busy, dies: time.Millisecond, back: 2 * time.Second},
			fault:  scenarios.Fault{Target: "busiest", MinStreams: 2},
			want:   "declared injected in_effect reverted gone", victim: "replica-1", text: "routes to replica-1 again",
		}, {
			name:   "a target that is not ours cannot be killed",
			target: &Endpoint{Endpoint: new(deploy.Endpoint)},
			fault:  scenarios.Fault{Target: "busiest"},
			want:   "declared failed", victim: "busiest", text: "unsupported: ",
		}, {
			name:   "a victim that does not exist is not a fault injected",
			target: &replicas{streams: busy},
			fault:  scenarios.Fault{Target: "replica-7"},
			want:   "declared failed", victim: "replica-7", text: `no replica is named "replica-7", expected replica-0, replica-1`,
		}, {
			name:   "an idle victim is waited for, but not for ever",
			target: &replicas{streams: map[string]int{"replica-0": 0, "replica-1": 0}},
			fault:  scenarios.Fault{Target: "busiest", MinStreams: 1},
			want:   "declared failed", victim: "busiest", text: "0 streams in flight, and the fault waits for 1",
		}, {
			name:   "one that does not serve is no victim",
			target: &replicas{streams: busy, deaf: "replica-1"},
			fault:  scenarios.Fault{Target: "replica-1"},
			want:   "declared failed", victim: "replica-1", text: "replica-1 is not serving",
		}, {
			name:   "the busiest is one that serves",
			target: &replicas{streams: busy, deaf: "replica-1"},
			fault:  scenarios.Fault{Target: "busiest", MinStreams: 1},
			want:   "declared injected in_effect reverted gone", victim: "replica-0", text: "routes to replica-0 again",
		}, {
			name:   "a process that does not die was never a fault in effect",
			target: &replicas{streams: busy, dies: -1},
			fault:  scenarios.Fault{Target: "replica-0"},
			want:   "declared injected failed reverted", victim: "replica-0", text: "nothing to undo",
		}, {
			name:   "a replica that never comes back is told",
			target: &replicas{streams: busy, dies: 0, back: -1},
			fault:  scenarios.Fault{Target: "replica-0"},
			want:   "declared injected in_effect reverted failed", victim: "replica-0", text: "never seen gone: not within 10s",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			j := journal(t)
			synctest.Test(t, func(t *testing.T) {
				tt.fault.Kind, tt.fault.At, tt.fault.Within = "pod-kill", scenarios.Duration(5*time.Second), scenarios.Duration(10*time.Second)
				lines := play(t.Context(), j, tt.target, tt.fault)
				last := lines[len(lines)-1]
				if got := states(lines); got != tt.want {
					t.Errorf("states are %q, want %q", got, tt.want)
				}
				if last.Target != tt.victim || !strings.Contains(last.Text.String(), tt.text) {
					t.Errorf("last line is of %q and says %q, want %q and %q", last.Target, last.Text, tt.victim, tt.text)
				}
				if len(lines) > 1 && lines[1].State == recording.FaultInjected && lines[1].At < 5*time.Second {
					t.Errorf("injected at %s, before its time", lines[1].At)
				}
			})
		})
	}
}

// A run that is stopped while a fault is in effect still reverts it.
func TestPlayRevertsWhenStopped(t *testing.T) {
	j := journal(t)
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancelCause(t.Context())
		time.AfterFunc(2*time.Second, func() { stop(errors.New("stopped by signal: interrupt")) })
		target := &replicas{streams: map[string]int{"replica-0": 1}, dies: -1}
		lines := play(ctx, j, target, scenarios.Fault{Kind: "pod-kill", Target: "replica-0", At: scenarios.Duration(time.Second), Within: scenarios.Duration(time.Minute)})
		if got := states(lines); got != "declared injected failed reverted" {
			t.Errorf("states are %q", got)
		}
		if text := lines[2].Text.String(); !strings.Contains(text, "the run was stopped") {
			t.Errorf("the failed step says %q", text)
		}
	})
}

// Faults come in sequence if they say so. Random times are drawn from the seed:
// the same seed gives the same times, and another seed gives others.
func TestFaultsInSequenceAndAtRandom(t *testing.T) {
	j := journal(t)
	drawn := map[uint64]time.Duration{}
	for _, seed := range []uint64{1, 1, 2} {
		synctest.Test(t, func(t *testing.T) {
			var mu sync.Mutex
			at := map[string]map[string]time.Duration{}
			p := chaos.Player{Clock: recording.NewClock(), Journal: j,
				Target: &replicas{streams: map[string]int{"replica-0": 1}, dies: time.Millisecond, back: 2 * time.Second},
				Record: func(in recording.Injection) {
					mu.Lock()
					defer mu.Unlock()
					if at[in.ID] == nil {
						at[in.ID] = map[string]time.Duration{}
					}
					at[in.ID][in.State] = in.At
				}}
			kill := scenarios.Fault{Kind: "pod-kill", Target: "replica-0", At: scenarios.Duration(5 * time.Second), Latest: scenarios.Duration(15 * time.Second), Within: scenarios.Duration(10 * time.Second)}
			next := kill
			next.At, next.Latest, next.After = scenarios.Duration(3*time.Second), 0, scenarios.AfterPrevious
			p.Play(t.Context(), scenarios.Scenario{Name: "s", Faults: []scenarios.Fault{kill, next}}, seed)
			first := at["s/0"][recording.FaultInjected]
			if first < 5*time.Second || first > 16*time.Second {
				t.Errorf("the first is injected at %s, and may be from 5s to 15s", first)
			}
			if before, again := drawn[seed]; again && (before-first).Abs() > 200*time.Millisecond {
				t.Errorf("the seed %d drew %s, and %s before", seed, first, before)
			}
			drawn[seed] = first
			gone, second := at["s/0"][recording.FaultGone], at["s/1"][recording.FaultInjected]
			if gone == 0 || second < gone+3*time.Second || second > gone+4*time.Second {
				t.Errorf("the first is gone at %s, and the second injected at %s", gone, second)
			}
		})
	}
	if (drawn[1] - drawn[2]).Abs() < 100*time.Millisecond {
		t.Errorf("two seeds drew %s and %s", drawn[1], drawn[2])
	}
}
