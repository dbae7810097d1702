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

// accounted is what gpu-oom needs of a target: a command that takes a device's
// memory when it reads a line, and one that says how much is free.
type accounted interface {
	Ballast(ctx context.Context, device string, leave int64) *exec.Cmd
	AskFree(ctx context.Context, device string) *exec.Cmd
}

// FillDevice takes the memory of the device of a replica, all but a rest. Without a
// victim it is the device through whose replicas most streams run.
func (l *Local) FillDevice(ctx context.Context, v deploy.Victim, f scenarios.Fault) (deploy.Effect, error) {
	device, err := l.deviceOf(ctx, v)
	if err != nil {
		return nil, err
	}
	b := &ballast{target: l.Local, victim: v.Replica, device: device, leave: f.Memory}
	if b.before, err = b.free(ctx); err != nil {
		return nil, err
	}
	if b.before <= b.leave {
		return nil, words.Errorf("%v of the device's memory are free, and the fault is to leave %v: there is nothing to take", b.before, b.leave)
	}
	b.child, err = startChild(l.Ballast(context.WithoutCancel(ctx), b.device, int64(b.leave)))
	return b, err
}

// deviceOf is the device of a victim, or the busiest one.
func (l *Local) deviceOf(ctx context.Context, v deploy.Victim) (string, error) {
	streams, err := l.InFlight(ctx)
	if err != nil && v.Replica == "" {
		return "", err
	}
	on := map[string]int{}
	busiest := ""
	for _, r := range l.Replicas() {
		if r.Name == v.Replica {
			return r.Device, nil
		}
		if on[r.Device] += streams[r.Name]; busiest == "" || on[r.Device] > on[busiest] {
			busiest = r.Device
		}
	}
	return busiest, nil
}

type ballast struct {
	*child
	target accounted
	victim string // the replica that was chosen; empty: none
	device string
	leave  scenarios.Size
	before scenarios.Size
}

// Victim is the replica whose device it is, where one was chosen.
func (b *ballast) Victim() string { return b.victim }

func (b *ballast) Undo() []deploy.Undo { return b.undo() }

// free asks the device, and not the process that took its memory.
func (b *ballast) free(ctx context.Context) (scenarios.Size, error) {
	out, err := b.target.AskFree(ctx, b.device).Output()
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
	return sight{How: words.Say("pid %d takes the memory of %s but for %v", b.pid, deviceSaid(b.device), b.leave)}, nil
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

// deviceSaid is a device in words.
func deviceSaid(device string) words.Sentence {
	if n, isGPU := strings.CutPrefix(device, "cuda:"); isGPU {
		return words.Say("GPU %s", n)
	}
	return words.Say("the device")
}
