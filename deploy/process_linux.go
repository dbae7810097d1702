package deploy

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// childAttr puts the child in a process group of its own, so that a Ctrl-C in
// the terminal reaches the harness alone and the stop stays orderly, and has
// the kernel kill it should the harness die.
func childAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// pfExiting is the kernel's mark of a process that is ending
// (include/linux/sched.h).
const pfExiting = 0x4

// dying reports whether a process has begun to end: it runs no more of its
// program, though the kernel may take a tenth of a second to give its memory
// back before it can be waited for.
func dying(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	// pid (name) state ppid pgrp session tty tpgid flags …; the name may hold anything.
	_, rest, _ := strings.Cut(string(b[strings.LastIndexByte(string(b), ')')+1:]), " ")
	fields := strings.Fields(rest)
	if len(fields) < 7 {
		return false
	}
	flags, err := strconv.ParseUint(fields[6], 10, 64)
	return err == nil && (flags&pfExiting != 0 || fields[0] == "Z" || fields[0] == "X")
}
