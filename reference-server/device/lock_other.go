//go:build !linux

package device

import (
	"os"
	"strconv"
)

// lock does nothing here. Only goroutines of one process exclude each other.
func lock(*os.File) error { return nil }

// startOf knows only this process here, so claims of other processes are void.
func startOf(pid int) string {
	if pid == os.Getpid() {
		return strconv.Itoa(pid)
	}
	return ""
}
