package device

import (
	"fmt"
	"os"
	"strings"
	"syscall"
)

// lock waits for the file's lock; closing the file gives it up, and so does
// the death of the process.
func lock(f *os.File) error { return syscall.Flock(int(f.Fd()), syscall.LOCK_EX) }

// startOf is when a process began, in the kernel's ticks; empty when there is
// none, or when it has ended and only waits to be noticed.
func startOf(pid int) string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	// pid (name) state … with the start as field 22; the name may hold anything.
	fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	if len(fields) < 20 || fields[0] == "Z" || fields[0] == "X" {
		return ""
	}
	return fields[19]
}
