package host

import (
	"context"
	"fmt"

	"github.com/launchgate/launchgate/deploy"
	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/scenarios"
)

// LimitMemory limits with a control group how much more memory a replica can
// take.
func (l *Local) LimitMemory(_ context.Context, v deploy.Victim, f scenarios.Fault) (deploy.Effect, error) {
	p, err := prepareOnProcess(l.Local, v)
	if err != nil {
		return nil, err
	}
	group, err := findGroup("memory")
	return &pressing{onProcess: p, group: group, more: f.Memory}, err
}

// pressing is memory pressure. The group does not count memory that a process
// had before it joined, so the limit is on what the process takes from then on.
type pressing struct {
	onProcess
	group cgroup
	more  scenarios.Size
}

func (p *pressing) Undo() []deploy.Undo { return p.group.undo() }

func (p *pressing) Inject(context.Context) (sight, error) {
	if _, err := p.stat(); err != nil {
		return sight{}, err
	}
	limit := "memory.limit_in_bytes"
	if p.group.v2 {
		limit = "memory.max"
	}
	if err := p.group.take(p.pid, [][2]string{{limit, fmt.Sprint(int64(p.more))}}); err != nil {
		return sight{}, err
	}
	return sight{How: words.Say("pid %d may take %s more, with %d streams in flight", p.pid, p.more, p.streams)}, nil
}

// SeeInEffect counts failed allocations and kills. The group outlives a killed
// process, and so do its counters.
func (p *pressing) SeeInEffect(ctx context.Context) (sight, error) {
	return until(ctx, pollEvery, func() (words.Sentence, bool) {
		refused, killed := p.group.count("memory.failcnt", ""), p.group.count("memory.oom_control", "oom_kill")
		if p.group.v2 {
			refused, killed = p.group.count("memory.events", "max"), p.group.count("memory.events", "oom_kill")
		}
		how := words.Say("the kernel hit the limit of %s %d times", p.more, refused)
		if killed > 0 {
			how = words.Say("%s, and killed pid %d for it", how, p.pid)
		}
		return how, refused > 0 || killed > 0
	})
}

func (p *pressing) Revert(context.Context) (sight, error) {
	if err := Undo(p.Undo()[0]); err != nil {
		return sight{}, err
	}
	return sight{How: words.Say("the limit is taken away")}, nil
}

func (p *pressing) SeeGone(ctx context.Context) (sight, error) {
	if p.group.exists() {
		return sight{}, words.Errorf("the control group %s is still there", p.group.path)
	}
	return p.seeServing(ctx, words.Say("the control group is gone"))
}
