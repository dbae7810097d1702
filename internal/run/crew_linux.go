package run

import "syscall"

// dieWithParent has the kernel end a worker when the run dies, and keeps Ctrl-C
// at the terminal from it: the run hangs up on it in its own time.
func dieWithParent() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
