//go:build unix

package chaos

import "syscall"

// apartAttr gives a process a session of its own.
func apartAttr() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setsid: true} }
