package deploy

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/launchgate/launchgate/internal/words"
)

// childAttr puts the child in a process group of its own, so that a Ctrl-C in
// the terminal reaches only the harness, which then stops the child in order.
// The kernel kills the child if the harness dies.
func childAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// pfExiting is the kernel's flag of a process that is ending
// (include/linux/sched.h).
const pfExiting = 0x4

// dying reports whether a process has begun to end. Its program does not run
// any more, but the kernel may need a tenth of a second to free its memory
// before the parent can reap it.
func dying(pid int) bool {
	st, err := Stat(pid)
	return err == nil && (st.flags&pfExiting != 0 || st.State == "Z" || st.State == "X")
}

// ticksPerSecond is the unit of times in /proc on every architecture that Go
// supports.
const ticksPerSecond = 100

// Stat reads the state of a process.
func Stat(pid int) (ProcStat, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ProcStat{}, err
	}
	// pid (name) state ppid pgrp session tty tpgid flags …; the name may have
	// any bytes.
	_, rest, _ := strings.Cut(string(b[strings.LastIndexByte(string(b), ')')+1:]), " ")
	fields := strings.Fields(rest)
	if len(fields) < 20 {
		return ProcStat{}, words.Errorf("/proc/%d/stat has %d fields after the name, expected 20 at least", pid, len(fields))
	}
	var n [4]uint64
	for i, field := range []int{6, 11, 12, 19} { // flags, utime, stime, starttime
		if n[i], err = strconv.ParseUint(fields[field], 10, 64); err != nil {
			return ProcStat{}, words.Errorf("/proc/%d/stat: %s", pid, err)
		}
	}
	cpu := time.Duration(n[1]+n[2]) * (time.Second / ticksPerSecond)
	return ProcStat{State: fields[0], CPU: cpu, Start: n[3], flags: n[0]}, nil
}
