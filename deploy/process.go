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

// Restart delays, as kubelet has them: the first restart is immediate, then
// the delay doubles, and a process that lived long enough starts afresh.
const (
	firstBackoff = time.Second
	maxBackoff   = 5 * time.Minute
	provenAfter  = time.Minute
	stopGrace    = 5 * time.Second
)

// backoff is how long to wait before start number n of a process: 0 is its
// first start, 1 its first restart.
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

// process is one supervised program: started, watched, and started again when
// it ends, until it is stopped.
//
//	starting → running → exited → (back-off, held) → starting …
//	any      → stopping → stopped
type process struct {
	name    string
	node    *Node // it runs on; nil: on none of its own
	env     []string
	log     io.Writer
	onEvent func(Event)
	before  func(context.Context) // called before each start; nil: nothing

	mu       sync.Mutex
	argv     []string
	starts   int           // of this argv
	fresh    bool          // argv is new, so what the old one did does not count
	replaced chan struct{} // closed when it is, while somebody waits for that; else nil
	life     *life         // the running incarnation, nil between two
	holds    int           // how many keep it from being started
	released chan struct{} // closed when none does any more; nil while none does
}

// life is one incarnation of a process.
type life struct {
	pid    int
	exited chan struct{} // closed when the process was reaped
	at     time.Time     // when, valid once exited is closed
	how    words.Sentence
}

// supervise runs the process until ctx ends, then stops it gracefully. It
// returns once nothing of it runs any more.
//
// The goroutine keeps its thread: the kernel sends Pdeathsig when the thread
// that forked the child ends, not when the program does. The child is in the
// network namespace of that thread.
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
			restarts = 1 // it has no history on a new node
		}
		started := time.Now()
		p.runOnce(ctx, restarts)
		if time.Since(started) >= provenAfter {
			restarts = 0 // it had become a healthy process: its next restart is a first one
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
	_ = proc.Signal(syscall.SIGCONT)
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

// backOff waits before a start, and not for a command that is new. It is not ok
// when ctx ended.
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

// command is what runs, and how often it was started.
func (p *process) command() (argv []string, starts int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.argv, p.starts
}

// awaitRelease waits while the process is held, and tells whether it was; it
// is not ok when ctx ended first.
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

// ProcStat is the state of a process as the kernel tells it.
type ProcStat struct {
	State string        // R running, S sleeping, T stopped, Z ended and not waited for, …
	CPU   time.Duration // processor time used
	Start uint64        // when it started, in ticks since the machine did: pid and Start name a process for ever
	flags uint64
}

// tail is the last lines of a log file, for an error message.
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
