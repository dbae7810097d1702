//go:build !linux

package device

import (
	"os"
	"strconv"
)

// lock does nothing here: only goroutines of one process are kept apart.
func lock(*os.File) error { return nil }

// startOf knows only this process here, so that claims of others are void.
func startOf(pid int) string {
	if pid == os.Getpid() {
		return strconv.Itoa(pid)
	}
	return ""
}
