package deploy

import "syscall"

// childAttr puts the child in a process group of its own, so that a Ctrl-C in
// the terminal reaches the harness alone and the stop stays orderly, and has
// the kernel kill it should the harness die.
func childAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
