//go:build !linux

package run

import "syscall"

// dieWithParent does nothing on this system: a worker ends when its connection is
// closed.
func dieWithParent() *syscall.SysProcAttr { return nil }
