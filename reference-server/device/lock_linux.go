package device

import (
	"fmt"
	"os"
	"strings"
	"syscall"
)

// lock waits for the file's lock. Closing the file or the end of the process
// releases it.
func lock(f *os.File) error { return syscall.Flock(int(f.Fd()), syscall.LOCK_EX) }

// startOf is when a process began, in the kernel's ticks. It is empty if there
// is no such process, or if it is a zombie.
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
