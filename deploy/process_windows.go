package deploy

import "syscall"

// childAttr gives the child a process group of its own, which Ctrl-C does not reach.
func childAttr() *syscall.SysProcAttr { return Apart() }
