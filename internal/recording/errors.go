package recording

import "errors"

// What can be wrong with a folder. The errors returned wrap these and name the
// folder, what was found in it and what to do.
var (
	ErrExists   = errors.New("the folder already holds a run")
	ErrNotRun   = errors.New("the folder does not hold a run")
	ErrNoGate   = errors.New("the run has no gate.yaml")
	ErrNewer    = errors.New("the run was recorded in a newer format")
	ErrDamaged  = errors.New("the run cannot be read")
	ErrTampered = errors.New("the run was changed after it was recorded")
	ErrClosed   = errors.New("the recording is closed")
)
