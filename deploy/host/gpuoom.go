package host

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/launchgate/launchgate/deploy"
	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/scenarios"
)

// accounted is what a target must offer for gpu-oom: a command that takes the
// device's memory when it reads a line, and one that prints how much is free.
type accounted interface {
	Ballast(ctx context.Context, leave int64) *exec.Cmd
	AskFree(ctx context.Context) *exec.Cmd
}

// FillDevice takes the memory of the device that the replicas share, except for
// the part that the fault leaves free.
func (l *Local) FillDevice(ctx context.Context, _ deploy.Victim, f scenarios.Fault) (deploy.Effect, error) {
	b := &ballast{target: l.Local, leave: f.Memory}
	var err error
	if b.before, err = b.free(ctx); err != nil {
		return nil, err
	}
	if b.before <= b.leave {
		return nil, words.Errorf("%v of the device's memory are free, and the fault is to leave %v: there is nothing to take", b.before, b.leave)
	}
	b.child, err = startChild(l.Ballast(context.WithoutCancel(ctx), int64(b.leave)))
	return b, err
}

type ballast struct {
	*child
	target accounted
	leave  scenarios.Size
	before scenarios.Size
}

// Victim is empty: the fault hits the device.
func (b *ballast) Victim() string { return "" }

func (b *ballast) Undo() []deploy.Undo { return b.undo() }

// free asks the device, and not the process that took its memory.
func (b *ballast) free(ctx context.Context) (scenarios.Size, error) {
	out, err := b.target.AskFree(ctx).Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		err = words.Errorf("%s: %s", err, strings.TrimSpace(string(exit.Stderr)))
	}
	if err != nil {
		return 0, words.Errorf("ask for the device's free memory: %s", err)
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(out)), 10, 64)
	return scenarios.Size(n), err
}

func (b *ballast) Inject(ctx context.Context) (sight, error) {
	if err := b.begin(); err != nil {
		return sight{}, err
	}
	stop := context.AfterFunc(ctx, func() { _ = b.cmd.Process.Kill() })
	defer stop()
	if _, err := b.says.ReadString('\n'); err != nil {
		return sight{}, words.Errorf("pid %d did not take the device's memory: %s", b.pid, err)
	}
	return sight{How: words.Say("pid %d takes the device's memory but for %v", b.pid, b.leave)}, nil
}

func (b *ballast) SeeInEffect(ctx context.Context) (sight, error) {
	return until(ctx, 100*time.Millisecond, func() (words.Sentence, bool) {
		free, err := b.free(ctx)
		_, alive := b.stat()
		return words.Say("free device memory fell from %s to %s", mib(b.before), mib(free)), err == nil && alive && free <= b.leave
	})
}

func (b *ballast) Revert(context.Context) (sight, error) {
	b.end()
	return sight{How: words.Say("pid %d was ended", b.pid)}, nil
}

func (b *ballast) SeeGone(ctx context.Context) (sight, error) {
	return until(ctx, 100*time.Millisecond, func() (words.Sentence, bool) {
		free, err := b.free(ctx)
		_, alive := b.stat()
		return words.Say("pid %d is gone, and %s of device memory are free", b.pid, mib(free)), err == nil && !alive && free > b.leave
	})
}

func mib(s scenarios.Size) string { return fmt.Sprintf("%.1f MiB", float64(s)/(1<<20)) }
