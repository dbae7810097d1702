//go:build unix

package host

import "syscall"

// apartAttr gives a process a session of its own.
func apartAttr() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setsid: true} }
