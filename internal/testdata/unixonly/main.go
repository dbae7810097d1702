// Command unixonly does not build for Windows; TestABuildForAnotherSystemIsChecked finds
// out why.
package main

import (
	"os/exec"
	"syscall"
)

func main() {
	cmd := exec.Command("true")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	onlyOnUnix(cmd)
	_ = syscall.Kill(1, 0)
}
