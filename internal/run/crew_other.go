//go:build !linux

package run

import "syscall"

// dieWithParent is nothing here: a worker ends when it is hung up on.
func dieWithParent() *syscall.SysProcAttr { return nil }
