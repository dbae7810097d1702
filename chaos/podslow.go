package chaos

import (
	"context"
	"fmt"
	"time"

	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/scenarios"
)

var podSlow = Kind{
	Name:      "pod-slow",
	Does:      "leaves one replica only so many cores, by a quota of a control group",
	Needs:     "a deployment of launchgate's own (target.local), and control groups that can be made (Linux, root); for, cores",
	Seen:      "the kernel counts the time for which it kept the process from running; gone when the process is out of the group and the gateway routes to it",
	Simulates: "a noisy neighbour, a thermal or a CPU limit: a replica that answers, late",
	Example:   "{kind: pod-slow, target: replica-0, at: 5s, for: 20s, cores: 0.2}",
	can:       canGroup("cpu"),
	prepare:   preparePodSlow,
}

const (
	quotaPeriod  = 100 * time.Millisecond // the kernel's default
	leastQuota   = time.Millisecond       // the least it takes
	throttledFor = 50 * time.Millisecond  // what counts as in effect: half a period without a core
)

func preparePodSlow(ctx context.Context, target any, f scenarios.Fault, seed uint64) (fault, error) {
	p, err := prepareOnProcess(ctx, target, f, seed)
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

func (s *slowing) Undo() []Undo { return s.group.undo() }

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
	return sight{how: words.Say("pid %d may use %s of processor time in every %s, with %d streams in flight", s.pid, quota, quotaPeriod, s.streams)}, nil
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
	if err := s.Undo()[0].apply(); err != nil {
		return sight{}, err
	}
	return sight{how: words.Say("pid %d has its cores back", s.pid)}, nil
}

func (s *slowing) SeeGone(ctx context.Context) (sight, error) {
	if s.group.exists() {
		return sight{}, words.Errorf("the control group %s is still there", s.group.path)
	}
	return s.seeServing(ctx, words.Say("the control group is gone"))
}
