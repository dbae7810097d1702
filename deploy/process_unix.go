//go:build unix && !linux

package deploy

import "syscall"

// childAttr puts the child in a process group of its own, so that a Ctrl-C in
// the terminal reaches only the harness, which then stops the child in order.
func childAttr() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
