package host

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/launchgate/launchgate/deploy"
	"github.com/launchgate/launchgate/internal/words"
)

// The actions of an Undo.
const (
	undoContinue = "continue" // a stopped process runs again
	undoKill     = "kill"     // a process that a fault started ends
	undoCgroup   = "cgroup"   // processes leave a control group, and it is removed
	undoSwap     = "swap"     // a file comes back from the folder that keeps it, and the folder is removed
	undoClock    = "clock"    // a process reads the kernel's clock again
	undoRemove   = "remove"   // a file or a folder of a fault is removed
	undoUnmount  = "unmount"  // a file system that launchgate made is unmounted
	undoPower    = "power"    // a GPU gets its power limit back
	undoLink     = "link"     // the veth of a simulated node is removed, with its queues and its namespace
)

// ofOurs is the prefix of names that may be removed from the machine. A damaged
// journal must not make recover remove anything else.
const ofOurs = "launchgate-fault-"

// object is what an Undo of this package acts on.
type object struct {
	PID   int     `json:"pid,omitempty"`
	Start uint64  `json:"start,omitempty"` // identifies the process together with PID, so that no later one is meant
	Path  string  `json:"path,omitempty"`
	Home  string  `json:"home,omitempty"` // the control group that the processes came from, or the swapped file
	At    uint64  `json:"at,omitempty"`   // an address in the process
	Watts float64 `json:"watts,omitempty"`
	Code  []byte  `json:"code,omitempty"` // the original bytes at that address
}

// undoing is an Undo of this package.
func undoing(do string, to object) deploy.Undo {
	b, err := json.Marshal(to)
	if err != nil { // cannot happen: it has only numbers and strings
		panic(err)
	}
	return deploy.Undo{Do: do, To: b, UntilReboot: to.PID != 0}
}

// Undo undoes an effect of this package. It returns nil if the effect is gone
// already.
func Undo(u deploy.Undo) error {
	var to object
	if len(u.To) > 0 {
		if err := json.Unmarshal(u.To, &to); err != nil {
			return words.Errorf("undo: %s", err)
		}
	}
	switch u.Do {
	case undoContinue:
		return signalIf(to.PID, to.Start, deploy.Resume)
	case undoKill:
		return signalIf(to.PID, to.Start, syscall.SIGKILL)
	case undoClock:
		return restoreClock(to.PID, to.Start, to.At, to.Code)
	case undoRemove:
		if !strings.HasPrefix(filepath.Base(to.Path), ofOurs) {
			return words.Errorf("undo: %q is no file of launchgate's", to.Path)
		}
		return remove(to.Path)
	case undoUnmount:
		return unmount(to.Path)
	case undoLink:
		return deploy.RemoveNode(to.Path)
	case undoPower:
		return restorePower(to.Path, to.Watts)
	case undoCgroup:
		if !strings.HasPrefix(filepath.Base(to.Path), ofOurs) {
			return words.Errorf("undo: %q is no control group of launchgate's", to.Path)
		}
		return removeGroup(to.Path, to.Home)
	case undoSwap:
		if !strings.HasPrefix(filepath.Base(to.Path), ofOurs) {
			return words.Errorf("undo: %q is no folder of launchgate's", to.Path)
		}
		return swapBack(to.Path, to.Home)
	}
	return words.Errorf("undo: %q is not known; this journal is of a newer launchgate", u.Do)
}

// signalIf sends a signal to the process that is meant, if it still exists.
func signalIf(pid int, start uint64, signal syscall.Signal) error {
	if st, err := deploy.Stat(pid); err != nil || st.Start != start || pid <= 1 {
		return nil
	}
	if err := deploy.Signal(pid, signal); err != nil && !errors.Is(err, syscall.ESRCH) {
		return words.Errorf("undo: send %s to pid %d: %s", signal, pid, err)
	}
	return nil
}

// swapBack moves a file from the folder that keeps it back to its place. It
// removes the folder with everything else in it.
func swapBack(kept, home string) error {
	err := os.Rename(filepath.Join(kept, filepath.Base(home)), home)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return words.Errorf("undo: %s", err)
	}
	return remove(kept)
}

func remove(path string) error {
	if err := os.RemoveAll(path); err != nil {
		return words.Errorf("undo: %s", err)
	}
	return nil
}

// removeGroup moves the processes of a control group back and removes the
// group. A process that is ending keeps the group busy for a moment, so the
// caller must try again.
func removeGroup(path, home string) error {
	pids, err := os.ReadFile(filepath.Join(path, "cgroup.procs"))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return words.Errorf("undo: %s", err)
	}
	for _, pid := range strings.Fields(string(pids)) {
		err := os.WriteFile(filepath.Join(home, "cgroup.procs"), []byte(pid), 0o644)
		if err != nil && !errors.Is(err, syscall.ESRCH) {
			return words.Errorf("undo: move pid %s back to %s: %s", pid, home, err)
		}
	}
	if err := syscall.Rmdir(path); err != nil && !errors.Is(err, syscall.ENOENT) {
		return words.Errorf("undo: remove the control group %s: %s", path, err)
	}
	return nil
}
