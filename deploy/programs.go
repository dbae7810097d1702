package deploy

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/launchgate/launchgate/internal/words"
)

// programs are the processes of a deployment, each supervised and with a log file
// of its own.
type programs struct {
	gateway    *process
	replicas   []*process
	replicator *process // of the ledger; nil without one
	monitor    *monitor
}

// all are the processes that run.
func (ps *programs) all() []*process {
	all := append(slices.Clone(ps.replicas), ps.gateway)
	if ps.replicator != nil {
		all = append(all, ps.replicator)
	}
	if ps.monitor.process != nil {
		all = append(all, ps.monitor.process)
	}
	return all
}

func (ps *programs) process(name string) (*process, error) {
	for _, p := range ps.all() {
		if p.name == name {
			return p, nil
		}
	}
	var names []string
	for _, r := range ps.replicas {
		names = append(names, r.name)
	}
	return nil, words.Errorf("no process is named %q, expected %s or %s", name, strings.Join(names, ", "), Gateway)
}

// PID is the pid of a replica or the Gateway. It is 0 while no process runs.
func (ps *programs) PID(name string) int {
	if p, err := ps.process(name); err == nil {
		if life := p.current(); life != nil {
			return life.pid
		}
	}
	return 0
}

// Killed is a replica that was sent SIGKILL.
type Killed struct {
	PID    int
	Exited <-chan struct{} // closed once the process is gone
	how    func() (time.Time, words.Sentence)
}

// NewKilled describes the death of a process. how is called after exited was
// closed.
func NewKilled(pid int, exited <-chan struct{}, how func() (time.Time, words.Sentence)) Killed {
	return Killed{PID: pid, Exited: exited, how: how}
}

// How tells when and how the process ended; only after Exited is closed.
func (k Killed) How() (time.Time, words.Sentence) { return k.how() }

// Dying reports whether the process is ending. That is seen before it has exited,
// because the kernel frees its memory first.
func (k Killed) Dying() bool { return dying(k.PID) }

// Names of processes beside the replicas.
const (
	Gateway    = "gateway"
	Replicator = "ledger-replicator"
)

// Kill sends SIGKILL to the process of a replica or the Gateway. Its streams
// break. The supervisor starts it again.
func (ps *programs) Kill(name string) (Killed, error) {
	return ps.end(name, syscall.SIGKILL, "SIGKILL")
}

// Terminate sends SIGTERM to a process, which may then finish its requests.
func (ps *programs) Terminate(name string) (Killed, error) {
	return ps.end(name, syscall.SIGTERM, "SIGTERM")
}

func (ps *programs) end(name string, signal syscall.Signal, called string) (Killed, error) {
	p, err := ps.process(name)
	if err != nil {
		return Killed{}, err
	}
	life := p.current()
	if life == nil {
		return Killed{}, words.Errorf("%s is not running, so it cannot get %s", name, called)
	}
	if err := Signal(life.pid, signal); err != nil {
		return Killed{}, words.Errorf("send %s to %s (pid %d): %s", called, name, life.pid, err)
	}
	return NewKilled(life.pid, life.exited, func() (time.Time, words.Sentence) { return life.at, life.how }), nil
}

// Hold prevents the restart of processes that end, until release is called. release
// may be called more than once.
func (ps *programs) Hold(names ...string) (release func(), err error) {
	var held []*process
	for _, name := range names {
		p, err := ps.process(name)
		if err != nil {
			return nil, err
		}
		held = append(held, p)
	}
	for _, p := range held {
		p.hold()
	}
	return sync.OnceFunc(func() {
		for _, p := range held {
			p.release()
		}
	}), nil
}

// tellMemory reports the resident memory of the processes that serve. Processes
// that only watch them, such as Prometheus, are not judged by their memory.
func (ps *programs) tellMemory(now time.Time, onEvent func(Event)) {
	for _, p := range append(slices.Clone(ps.replicas), ps.gateway) {
		if life := p.current(); life != nil {
			if rss, ok := residentBytes(life.pid); ok {
				onEvent(Event{At: now, Name: "memory_bytes", Subject: p.name, Value: rss})
			}
		}
	}
}

// residentBytes is the resident memory of a process. It returns false without
// /proc.
func residentBytes(pid int) (float64, bool) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0, false
	}
	fields := bytes.Fields(b)
	if len(fields) < 2 {
		return 0, false
	}
	pages, err := strconv.ParseInt(string(fields[1]), 10, 64)
	return float64(pages) * float64(os.Getpagesize()), err == nil
}
