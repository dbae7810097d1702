//go:build !linux

package deploy

import (
	"errors"
	"syscall"
)

// childAttr puts the child in a process group of its own, so that a Ctrl-C in
// the terminal reaches the harness alone and the stop stays orderly.
func childAttr() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

// dying is not known here before the process can be waited for.
func dying(int) bool { return false }

// Stat is read from /proc, which is Linux's.
func Stat(int) (ProcStat, error) { return ProcStat{}, errors.ErrUnsupported }
