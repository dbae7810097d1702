//go:build unix

package main

import (
	"os"
	"os/exec"
	"strconv"
	"syscall"
)

// apart prevents that Ctrl-C at the terminal reaches a process.
func apart(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }

// lowerPriority gives this process the lowest priority. On Linux each thread
// has its own priority, so it is set for all threads; later ones inherit it.
func lowerPriority() {
	_ = syscall.Setpriority(syscall.PRIO_PROCESS, 0, leastPriority)
	threads, _ := os.ReadDir("/proc/self/task")
	for _, t := range threads {
		if id, err := strconv.Atoi(t.Name()); err == nil {
			_ = syscall.Setpriority(syscall.PRIO_PROCESS, id, leastPriority)
		}
	}
}

// closeOnExec keeps the files that this process inherited from those it starts, so that
// one that stays behind does not hold its caller's pipes open.
func closeOnExec() {
	entries, err := os.ReadDir("/dev/fd")
	if err != nil {
		return
	}
	for _, e := range entries {
		if fd, err := strconv.Atoi(e.Name()); err == nil && fd > 2 {
			syscall.CloseOnExec(fd)
		}
	}
}

const leastPriority = 19
