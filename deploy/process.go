package deploy

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/launchgate/launchgate/internal/words"
)

// Restart delays, as in kubelet: the first restart is immediate, then the delay
// doubles. After a process has run long enough, the delays begin again.
const (
	firstBackoff = time.Second
	maxBackoff   = 5 * time.Minute
	provenAfter  = time.Minute
	stopGrace    = 5 * time.Second
)

// backoff is how long to wait before start number n of a process. Number 0 is
// its first start, and 1 its first restart.
func backoff(n int) time.Duration {
	if n <= 1 {
		return 0
	}
	d := firstBackoff
	for range n - 2 {
		if d *= 2; d >= maxBackoff {
			return maxBackoff
		}
	}
	return d
}

// process is one supervised program. It is started, and restarted when it ends,
// until it is stopped.
//
//	starting → running → exited → (back-off, held) → starting …
//	any      → stopping → stopped
type process struct {
	name    string
	node    *Node // the node that it runs on; nil: the host
	env     []string
	log     io.Writer
	onEvent func(Event)
	before  func(context.Context) // called before each start; nil: nothing

	mu       sync.Mutex
	argv     []string
	starts   int           // number of starts with this argv
	fresh    bool          // argv is new, so exits of the old one do not count
	replaced chan struct{} // closed when argv is replaced; nil while nobody waits for that
	life     *life         // the running incarnation; nil while none runs
	holds    int           // number of holds that prevent a start
	released chan struct{} // closed when the last hold ends; nil without holds
}

// life is one incarnation of a process.
type life struct {
	pid    int
	exited chan struct{} // closed when the process was reaped
	at     time.Time     // time of the exit, valid once exited is closed
	how    words.Sentence
}

// supervise runs the process until ctx ends, then stops it gracefully. It
// returns once the process has ended.
//
// The goroutine is locked to its thread: the kernel sends Pdeathsig when the
// thread that forked the child ends, not when the program does. The child is in
// the network namespace of that thread.
func (p *process) supervise(ctx context.Context) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := p.node.inside(func() error { p.superviseHere(ctx); return nil }); err != nil {
		p.event("process_exited", 0, words.Say("could not be started: %s", err))
	}
}

func (p *process) superviseHere(ctx context.Context) {
	for restarts := 0; ctx.Err() == nil; restarts++ {
		fresh, ok := p.backOff(ctx, backoff(restarts))
		if !ok {
			return
		}
		if fresh {
			restarts = 0
		}
		held, ok := p.awaitRelease(ctx)
		if !ok {
			return
		}
		if held {
			restarts = 1 // on a new node its earlier exits do not count
		}
		started := time.Now()
		p.runOnce(ctx, restarts)
		if time.Since(started) >= provenAfter {
			restarts = 0 // it ran long enough, so the delays begin again
		}
	}
}

func (p *process) runOnce(ctx context.Context, restarts int) {
	if p.before != nil {
		p.before(ctx)
	}
	argv, _ := p.command()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), p.env...)
	cmd.Stdout, cmd.Stderr = p.log, p.log
	cmd.SysProcAttr = childAttr()
	if err := cmd.Start(); err != nil {
		p.event("process_exited", 0, words.Say("could not be started: %s", err))
		return
	}
	l := &life{pid: cmd.Process.Pid, exited: make(chan struct{})}
	p.set(l)
	p.event("process_started", float64(l.pid), words.Say("restart %d", restarts))

	var stopper sync.WaitGroup
	stopper.Go(func() { stopOnEnd(ctx, cmd.Process, l.exited) })
	err := cmd.Wait()
	l.at, l.how = time.Now(), howEnded(cmd.ProcessState, err)
	p.set(nil)
	close(l.exited)
	stopper.Wait()
	p.event("process_exited", float64(l.pid), l.how)
}

// stopOnEnd sends SIGTERM when ctx ends, and SIGKILL if the process still runs
// after the grace period.
func stopOnEnd(ctx context.Context, proc *os.Process, exited <-chan struct{}) {
	select {
	case <-exited:
		return
	case <-ctx.Done():
	}
	_ = proc.Signal(syscall.SIGTERM)
	// A process stopped by SIGSTOP would never see the SIGTERM.
	_ = proc.Signal(Resume)
	select {
	case <-exited:
	case <-time.After(stopGrace):
		_ = proc.Kill()
	}
}

func howEnded(st *os.ProcessState, err error) words.Sentence {
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return words.Of(err)
	}
	if ws, ok := st.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return words.Say("signal: %s", ws.Signal())
	}
	return words.Verbatim(st.String())
}

// hold prevents a restart of the process until it is released, as if there were no
// machine for it.
func (p *process) hold() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.holds++; p.holds == 1 {
		p.released = make(chan struct{})
	}
}

// release ends one hold.
func (p *process) release() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.holds--; p.holds == 0 {
		close(p.released)
		p.released = nil
	}
}

// replace sets the command for the next start on. The back-off of the old command
// does not delay that start.
func (p *process) replace(argv []string) (old []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	old, p.argv, p.fresh, p.starts = p.argv, argv, true, 0
	if p.replaced != nil {
		close(p.replaced)
		p.replaced = nil
	}
	return old
}

// backOff waits before a start. It returns early if the command is replaced. ok
// is false if ctx ended.
func (p *process) backOff(ctx context.Context, d time.Duration) (fresh, ok bool) {
	p.mu.Lock()
	replaced := make(chan struct{})
	if p.fresh {
		close(replaced)
	} else {
		p.replaced = replaced
	}
	p.mu.Unlock()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-replaced:
	case <-timer.C:
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	fresh, p.fresh, p.replaced = p.fresh, false, nil
	return fresh, ctx.Err() == nil
}

// command is the current command, and how often it was started.
func (p *process) command() (argv []string, starts int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.argv, p.starts
}

// awaitRelease waits while the process is held, and reports whether it was
// held. ok is false if ctx ended first.
func (p *process) awaitRelease(ctx context.Context) (held, ok bool) {
	p.mu.Lock()
	released := p.released
	p.mu.Unlock()
	if released == nil {
		return false, true
	}
	select {
	case <-ctx.Done():
		return true, false
	case <-released:
		return true, true
	}
}

func (p *process) set(l *life) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.life = l; l != nil {
		p.starts++
	}
}

func (p *process) current() *life {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.life
}

func (p *process) event(name string, value float64, text words.Sentence) {
	p.onEvent(Event{At: time.Now(), Name: name, Subject: p.name, Value: value, Text: text})
}

// ProcStat is the state of a process as the kernel reports it.
type ProcStat struct {
	State string        // R running, S sleeping, T stopped, Z ended and not waited for, …
	CPU   time.Duration // processor time used
	Start uint64        // its start, in ticks since the machine's; pid and Start identify a process for ever
	flags uint64
}

// tail returns the last lines of a log file, for an error message.
func tail(path string, lines int) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	all := strings.Split(strings.TrimSpace(string(b)), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}
