package loadgen

import (
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// The client has a raised priority if it is allowed, and its child processes do not.
func TestRaisePriority(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("skipped: only root may give itself precedence")
	}
	runtime.LockOSThread() // never unlocked: the thread ends with the test
	own, err := unix.SchedGetAttr(0, 0)
	if err != nil || own.Nice != 0 {
		t.Skipf("skipped: this thread has a precedence of its own (%v, %v)", own, err)
	}
	raisePriority()
	if own, err = unix.SchedGetAttr(0, 0); err != nil {
		t.Fatal(err)
	}
	if own.Nice != precedence {
		t.Skipf("skipped: this machine does not let root give itself precedence (nice %d)", own.Nice)
	}
	out, err := exec.Command("nice").Output()
	if err != nil {
		t.Skipf("skipped: no program named nice tells how nice it is: %v", err)
	}
	if nice := strings.TrimSpace(string(out)); nice != "0" {
		t.Errorf("a process that was started has nice %s", nice)
	}
}
