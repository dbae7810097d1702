package chaos

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/launchgate/launchgate/deploy"
	"github.com/launchgate/launchgate/internal/words"
)

// How long and how often the watchdog tries to undo a fault.
const (
	reapFor   = 10 * time.Second
	reapEvery = 100 * time.Millisecond
)

// Watchdog waits until lifeline is closed, which happens when the harness ends in
// any way, and then undoes the faults that are left in the journal. It runs in a
// process of its own.
func Watchdog(journal string, lifeline io.Reader, undo Undoer) error {
	signal.Ignore(syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP) // it ends when its work does
	_, _ = io.Copy(io.Discard, lifeline)
	for deadline := time.Now().Add(reapFor); ; time.Sleep(reapEvery) {
		_, err := reap(journal, undo)
		if err == nil || time.Now().After(deadline) {
			return err
		}
	}
}

// Recovered tells what became of a journal.
type Recovered struct {
	Run    string   // the run folder
	Undone []string // faults that were not reverted, and are now
	Alive  int      // pid of a harness that still runs: its faults are its own
	Err    error    // what could not be undone
}

// Recover undoes the faults of runs that ended without reverting them. It can be
// repeated.
func Recover(undo Undoer) ([]Recovered, error) {
	dir, err := StateDir()
	if err != nil {
		return nil, err
	}
	journals, err := filepath.Glob(filepath.Join(dir, "*.jsonl"))
	if err != nil {
		return nil, err
	}
	var all []Recovered
	for _, path := range journals {
		all = append(all, recoverOne(path, undo))
	}
	return all, nil
}

func recoverOne(path string, undo Undoer) Recovered {
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return Recovered{} // its watchdog was quicker
	}
	head, _ := readJournal(b)
	if st, alive := deploy.Stat(head.PID); err == nil && alive == nil && st.Start == head.Start && head.Boot == bootID() && st.State != "Z" {
		return Recovered{Run: head.Run, Alive: head.PID}
	}
	undone, err := reap(path, undo)
	return Recovered{Run: head.Run, Undone: undone, Err: err}
}

// reap undoes every fault of a journal that was not reverted, and removes the
// journal when all are undone. A journal that does not exist needs no work.
func reap(path string, undo Undoer) (undone []string, err error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, words.Errorf("the journal of faults: %s", err)
	}
	head, open := readJournal(b)
	sameBoot := head.Boot == bootID()
	var failed error
	for _, e := range open {
		for _, u := range e.Undo {
			if u.UntilReboot && !sameBoot {
				continue // the process is gone with the boot, and its number may be another's
			}
			if err := undo(u); err != nil {
				failed = errors.Join(failed, words.Errorf("%s: %s", e, err))
			}
		}
		undone = append(undone, e.String())
	}
	if failed != nil {
		return undone, failed
	}
	return undone, os.Remove(path)
}

// readJournal returns the first line of a journal, and the faults that were begun
// and not reverted. An incomplete line is ignored, because the harness writes a
// line before it acts.
func readJournal(b []byte) (head entry, open []entry) {
	for line := range bytes.Lines(b) {
		var e entry
		if json.Unmarshal(line, &e) != nil {
			continue
		}
		switch {
		case e.Fault == "":
			head = e
		case e.Reverted:
			open = without(open, e.Fault)
		default:
			open = append(open, e)
		}
	}
	return head, open
}

func without(open []entry, fault string) []entry {
	var rest []entry
	for _, e := range open {
		if e.Fault != fault {
			rest = append(rest, e)
		}
	}
	return rest
}
