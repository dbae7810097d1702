package deploy

import (
	"errors"
	"os"
	"syscall"

	"github.com/launchgate/launchgate/internal/words"
)

// Pause and Resume have no counterpart on Windows, so Signal refuses them.
const (
	Pause  = syscall.Signal(0x13)
	Resume = syscall.Signal(0x12)
)

// DeploysHere is an error: replicas are stopped, drained and broken by signals, which
// Windows does not have.
func DeploysHere() error {
	return words.Errorf("target.local cannot be deployed on Windows, because replicas are stopped and broken by signals; run this gate on Linux or macOS, or against a running service (target.endpoint, --target URL)")
}

// Signal cannot send a signal here.
func Signal(int, syscall.Signal) error { return errors.ErrUnsupported }

// Apart gives a process a group of its own, which Ctrl-C does not reach.
func Apart() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{CreationFlags: syscall.CREATE_NEW_PROCESS_GROUP}
}

func lockFile(*os.File) error { return errors.ErrUnsupported }
