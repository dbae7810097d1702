//go:build unix

package deploy

import (
	"os"
	"syscall"
)

// Pause stops a process where it is, and Resume continues it.
const (
	Pause  = syscall.SIGSTOP
	Resume = syscall.SIGCONT
)

// DeploysHere is nil if this system can run a local deployment.
func DeploysHere() error { return nil }

// Signal sends a signal to a process.
func Signal(pid int, s syscall.Signal) error { return syscall.Kill(pid, s) }

// Apart gives a process a session of its own, so that it outlives this one.
func Apart() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setsid: true} }

// lockFile takes the lock of a file, if nobody has it, until the file is closed.
func lockFile(f *os.File) error {
	return syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
}
