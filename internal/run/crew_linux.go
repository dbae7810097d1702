package run

import "syscall"

// dieWithParent makes the kernel end a worker when the run dies, and protects it from
// Ctrl-C at the terminal: the run ends the worker itself.
func dieWithParent() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
