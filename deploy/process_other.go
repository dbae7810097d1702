//go:build !linux

package deploy

import (
	"errors"
	"syscall"
)

// childAttr puts the child in a process group of its own, so that a Ctrl-C in
// the terminal reaches only the harness, which then stops the child in order.
func childAttr() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

// dying is false: here it is not known before the parent can reap the process.
func dying(int) bool { return false }

// Stat returns an error, because only Linux has /proc.
func Stat(int) (ProcStat, error) { return ProcStat{}, errors.ErrUnsupported }
