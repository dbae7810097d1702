//go:build unix

package main

import (
	"os"
	"os/exec"
	"strconv"
	"syscall"
)

// apart keeps Ctrl-C at the terminal from a process.
func apart(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }

// lowerPriority lets everything else go first. Where threads have priorities of
// their own, as on Linux, each is told; those to come inherit it.
func lowerPriority() {
	_ = syscall.Setpriority(syscall.PRIO_PROCESS, 0, leastPriority)
	threads, _ := os.ReadDir("/proc/self/task")
	for _, t := range threads {
		if id, err := strconv.Atoi(t.Name()); err == nil {
			_ = syscall.Setpriority(syscall.PRIO_PROCESS, id, leastPriority)
		}
	}
}

const leastPriority = 19
