package host

import (
	"context"
	"fmt"
	"time"

	"github.com/launchgate/launchgate/deploy"
	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/scenarios"
)

const (
	quotaPeriod  = 100 * time.Millisecond // the kernel's default
	leastQuota   = time.Millisecond       // the kernel's minimum
	throttledFor = 50 * time.Millisecond  // the fault is in effect after half a period without a core
)

// SlowReplica limits with a control group how many cores a replica gets.
func (l *Local) SlowReplica(_ context.Context, v deploy.Victim, f scenarios.Fault) (deploy.Effect, error) {
	p, err := prepareOnProcess(l.Local, v)
	if err != nil {
		return nil, err
	}
	group, err := findGroup("cpu")
	return &slowing{onProcess: p, group: group, cores: f.Cores}, err
}

type slowing struct {
	onProcess
	group cgroup
	cores float64
}

func (s *slowing) Undo() []deploy.Undo { return s.group.undo() }

func (s *slowing) Inject(context.Context) (sight, error) {
	if _, err := s.stat(); err != nil {
		return sight{}, err
	}
	quota := max(leastQuota, time.Duration(s.cores*float64(quotaPeriod)))
	period, limits := quotaPeriod.Microseconds(), [][2]string(nil)
	if s.group.v2 {
		limits = [][2]string{{"cpu.max", fmt.Sprintf("%d %d", quota.Microseconds(), period)}}
	} else {
		limits = [][2]string{{"cpu.cfs_period_us", fmt.Sprint(period)}, {"cpu.cfs_quota_us", fmt.Sprint(quota.Microseconds())}}
	}
	if err := s.group.take(s.pid, limits); err != nil {
		return sight{}, err
	}
	return sight{How: words.Say("pid %d may use %s of processor time in every %s, with %d streams in flight", s.pid, quota, quotaPeriod, s.streams)}, nil
}

func (s *slowing) SeeInEffect(ctx context.Context) (sight, error) {
	return until(ctx, pollEvery, func() (words.Sentence, bool) {
		waited := s.throttled()
		return words.Say("the kernel kept pid %d from running for %s, in %d periods of %s", s.pid, waited.Round(time.Millisecond), s.group.count("cpu.stat", "nr_throttled"), quotaPeriod),
			waited >= throttledFor && s.group.has(s.pid)
	})
}

func (s *slowing) throttled() time.Duration {
	if s.group.v2 {
		return time.Duration(s.group.count("cpu.stat", "throttled_usec")) * time.Microsecond
	}
	return time.Duration(s.group.count("cpu.stat", "throttled_time"))
}

func (s *slowing) Revert(context.Context) (sight, error) {
	if err := Undo(s.Undo()[0]); err != nil {
		return sight{}, err
	}
	return sight{How: words.Say("pid %d has its cores back", s.pid)}, nil
}

func (s *slowing) SeeGone(ctx context.Context) (sight, error) {
	if s.group.exists() {
		return sight{}, words.Errorf("the control group %s is still there", s.group.path)
	}
	return s.seeServing(ctx, words.Say("the control group is gone"))
}
