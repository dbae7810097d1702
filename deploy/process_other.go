//go:build !linux

package deploy

import "errors"

// dying is false: here it is not known before the parent can reap the process.
func dying(int) bool { return false }

// Stat returns an error, because only Linux has /proc.
func Stat(int) (ProcStat, error) { return ProcStat{}, errors.ErrUnsupported }
