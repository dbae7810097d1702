package chaos

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/launchgate/launchgate/deploy"
	"github.com/launchgate/launchgate/internal/words"
)

// JournalFile is the copy of the journal in a run's folder of logs.
const JournalFile = "faults.jsonl"

// entry is a line of the journal. The first names the run. Every other one is
// about a fault that is about to be injected, or that was reverted.
type entry struct {
	Run      string        `json:"run,omitempty"` // the run folder
	PID      int           `json:"pid,omitempty"` // of the harness
	Start    uint64        `json:"start,omitempty"`
	Boot     string        `json:"boot,omitempty"` // of the machine: processes of an earlier one are gone
	At       *time.Time    `json:"at,omitempty"`
	Fault    string        `json:"fault,omitempty"`
	Kind     string        `json:"kind,omitempty"`
	Victim   string        `json:"victim,omitempty"`
	Undo     []deploy.Undo `json:"undo,omitempty"`
	Reverted bool          `json:"reverted,omitempty"`
}

// String names the fault and, if it has a name, the victim.
func (e entry) String() string {
	if e.Victim == "" {
		return e.Kind
	}
	return e.Kind + " on " + e.Victim
}

// Journal holds on disk what the faults of a run leave to be undone, before
// they are injected. A watchdog, which is another process, waits for this one
// to end, and undoes what is left then.
//
//	harness ──writes──▶ journal ◀──reads── watchdog, launchgate recover
//	   └────────────pipe, closed when the harness ends──────▶ │
type Journal struct {
	path string // in the state folder, while the run goes on
	copy *os.File

	mu   sync.Mutex
	file *os.File
	open []string // faults that are not reverted

	watchdog *exec.Cmd
	lifeline io.Closer     // closing it tells the watchdog that the harness ended
	gone     chan struct{} // closed when the watchdog ended
	log      string        // what the watchdog says
	undo     Undoer
}

// StateDir is where the journals of runs under way lie, and of those that
// ended before their faults.
func StateDir() (string, error) {
	if dir := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "launchgate", "faults"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", words.Errorf("no folder for the journal of faults: set HOME or XDG_STATE_HOME: %s", err)
	}
	return filepath.Join(home, ".local", "state", "launchgate", "faults"), nil
}

// Undoer carries out an Undo. targets.Undo does so for every kind of target.
type Undoer func(deploy.Undo) error

// OpenJournal begins the journal of a run; logDir gets a copy of it. The
// watchdog is this command with the journal's path after its arguments. Close uses
// undo for anything that the watchdog has left.
func OpenJournal(runDir, logDir string, undo Undoer, watchdog ...string) (*Journal, error) {
	dir, err := StateDir()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, words.Errorf("the folder of the journal of faults: %s", err)
	}
	if runDir, err = filepath.Abs(runDir); err != nil {
		return nil, err
	}
	pid := os.Getpid()
	self, _ := deploy.Stat(pid) // without /proc a process is known by its number alone
	j := &Journal{undo: undo, path: filepath.Join(dir, fmt.Sprintf("%d-%d-%d.jsonl", pid, self.Start, time.Now().UnixNano()))}
	if j.file, err = os.OpenFile(j.path, os.O_CREATE|os.O_EXCL|os.O_WRONLY|os.O_APPEND, 0o600); err != nil {
		return nil, words.Errorf("the journal of faults: %s", err)
	}
	if j.copy, err = os.Create(filepath.Join(logDir, JournalFile)); err != nil {
		j.discard()
		return nil, words.Errorf("the journal of faults: %s", err)
	}
	if err := j.write(entry{Run: runDir, PID: pid, Start: self.Start, Boot: bootID()}); err != nil {
		j.discard()
		return nil, err
	}
	j.log = filepath.Join(logDir, "watchdog.log")
	if err := j.startWatchdog(watchdog); err != nil {
		j.discard()
		return nil, err
	}
	return j, nil
}

func (j *Journal) discard() {
	j.file.Close()
	os.Remove(j.path)
	if j.copy != nil {
		j.copy.Close()
	}
}

// startWatchdog starts it in a session of its own: a Ctrl-C in the terminal,
// or the end of that, must not take it along.
func (j *Journal) startWatchdog(argv []string) error {
	if len(argv) == 0 {
		return words.Errorf("the watchdog of the faults: no command to start it with")
	}
	j.watchdog = exec.Command(argv[0], append(slices.Clone(argv[1:]), j.path)...)
	j.watchdog.SysProcAttr = deploy.Apart()
	log, err := os.Create(j.log) // not a pipe: it has to go on when this process is dead
	if err != nil {
		return err
	}
	defer log.Close()
	j.watchdog.Stdout, j.watchdog.Stderr = log, log
	if j.lifeline, err = j.watchdog.StdinPipe(); err != nil {
		return err
	}
	if err := j.watchdog.Start(); err != nil {
		return words.Errorf("the watchdog of the faults could not be started: %s", err)
	}
	j.gone = make(chan struct{})
	go func() { // owned by Close, which waits for gone
		_ = j.watchdog.Wait()
		close(j.gone)
	}()
	return nil
}

// Begin notes a fault that is about to be injected. If it fails, because the note is
// not on disk or the watchdog is gone, the fault must not be injected.
func (j *Journal) Begin(id, kind, victim string, undo []deploy.Undo) error {
	select {
	case <-j.gone:
		return words.Errorf("the watchdog of the faults has ended, and without it no fault is injected; its output: %s", j.said())
	default:
	}
	if err := j.write(entry{At: new(time.Now().Round(0)), Fault: id, Kind: kind, Victim: victim, Undo: undo}); err != nil {
		return err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.open = append(j.open, id)
	return nil
}

// End notes that a fault was reverted.
func (j *Journal) End(id string) error {
	if err := j.write(entry{At: new(time.Now().Round(0)), Fault: id, Reverted: true}); err != nil {
		return err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.open = slices.DeleteFunc(j.open, func(o string) bool { return o == id })
	return nil
}

// write writes a line to both files and syncs them to disk.
func (j *Journal) write(e entry) error {
	line, err := json.Marshal(e)
	if err != nil {
		return err
	}
	line = append(line, '\n')
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, f := range []*os.File{j.file, j.copy} {
		if _, err := f.Write(line); err != nil {
			return words.Errorf("the journal of faults: %s", err)
		}
	}
	if err := j.file.Sync(); err != nil {
		return words.Errorf("the journal of faults: %s", err)
	}
	return nil
}

// Close ends the journal. It waits for the watchdog, which undoes the faults that
// could not be reverted, and tries once more itself if the watchdog failed. The
// error names the faults that are left.
func (j *Journal) Close() error {
	j.mu.Lock()
	left := len(j.open)
	j.mu.Unlock()
	if left == 0 {
		os.Remove(j.path)
	}
	err := errors.Join(j.file.Close(), j.copy.Close())
	_ = j.lifeline.Close() // it is closed where the watchdog is gone
	<-j.gone
	if _, left := reap(j.path, j.undo); left != nil { // the watchdog was gone, or failed
		err = errors.Join(err, words.Errorf("a fault is not undone, see launchgate recover: %s", left))
	}
	return err
}

// said is what the watchdog said.
func (j *Journal) said() string {
	b, err := os.ReadFile(j.log)
	if err != nil || len(bytes.TrimSpace(b)) == 0 {
		return "nothing"
	}
	return string(bytes.TrimSpace(b))
}

func bootID() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}
