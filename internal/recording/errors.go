package recording

import "github.com/launchgate/launchgate/internal/words"

// The reasons for which a folder is refused. Returned errors wrap these, and name the
// folder, what was found in it and what to do.
var (
	ErrExists   = words.Errorf("the folder already contains a run")
	ErrNotRun   = words.Errorf("the folder contains no run")
	ErrNoGate   = words.Errorf("the run has no gate.yaml")
	ErrNewer    = words.Errorf("the run was recorded in a newer format")
	ErrDamaged  = words.Errorf("the run cannot be read")
	ErrTampered = words.Errorf("the run was changed after it was recorded")
	ErrClosed   = words.Errorf("the recording is closed")
)
