package recording

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Open reads the recording in dir. What a crash leaves behind (a line or a part
// cut short) is told in Warnings; what cannot be trusted or understood is an
// error. It may be called while the recording is written, after a Flush.
func Open(dir string) (*Recording, error) {
	recording := &Recording{Dir: dir}
	steps := []func() error{recording.readEnvironment, recording.readGate, recording.checkSums,
		recording.readEvents, recording.readScan, recording.readGaps, recording.findRequests}
	for _, step := range steps {
		if err := step(); err != nil {
			return nil, fmt.Errorf("open %s: %w", dir, err)
		}
	}
	return recording, nil
}

// InMemory is a recording that was never on disk, for tests of those who read
// one.
func InMemory(requests []Request, injections []Injection, observations []Observation) *Recording {
	recording := &Recording{
		Injections:   injections,
		Observations: observations,
		Requests: func(yield func(Request, error) bool) {
			for _, request := range requests {
				if !yield(request, nil) {
					return
				}
			}
		},
	}
	recording.Complete = reachedEnd(observations)
	return recording
}

func (r *Recording) readEnvironment() error {
	content, err := os.ReadFile(filepath.Join(r.Dir, EnvironmentFile))
	switch is, gone := os.Stat(r.Dir); {
	case errors.Is(gone, fs.ErrNotExist):
		return fmt.Errorf("%w: there is no such folder", ErrNotRun)
	case gone == nil && !is.IsDir():
		return fmt.Errorf("%w: it is a file; name the folder of a run", ErrNotRun)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: no %s in it", ErrNotRun, EnvironmentFile)
	}
	if err != nil {
		return err
	}
	// The format is looked at before the rest, which a newer one may have changed.
	var format struct {
		Format  int    `json:"format"`
		Version string `json:"version"`
	}
	if err := json.Unmarshal(content, &format); err != nil {
		return fmt.Errorf("%w: %s: %v", ErrDamaged, EnvironmentFile, err)
	}
	if format.Format > Format {
		return fmt.Errorf("%w: format %d by launchgate %s, and this launchgate reads up to %d; use a newer one",
			ErrNewer, format.Format, format.Version, Format)
	}
	if format.Format < 1 {
		return fmt.Errorf("%w: %s has no format", ErrNotRun, EnvironmentFile)
	}
	if err := json.Unmarshal(content, &r.Environment); err != nil {
		return fmt.Errorf("%w: %s: %v", ErrDamaged, EnvironmentFile, err)
	}
	return nil
}

func (r *Recording) readGate() error {
	gate, err := os.ReadFile(filepath.Join(r.Dir, GateFile))
	if errors.Is(err, fs.ErrNotExist) {
		return ErrNoGate
	}
	r.Gate = gate
	return err
}

// checkSums compares the files with the sums taken when the recording was
// closed. A run that was cut short has none, and is not complete.
func (r *Recording) checkSums() error {
	if r.Environment.Files == nil {
		return nil
	}
	names, err := hashedFiles(r.Dir)
	if err != nil {
		return err
	}
	var changed []string
	for name := range r.Environment.Files {
		if !slices.Contains(names, name) {
			changed = append(changed, name+" is missing")
		}
	}
	for _, name := range names {
		want, known := r.Environment.Files[name]
		got, err := sum(filepath.Join(r.Dir, name))
		switch {
		case err != nil:
			return err
		case !known:
			changed = append(changed, name+" was added")
		case got != want:
			changed = append(changed, name+" was changed")
		}
	}
	if len(changed) > 0 {
		slices.Sort(changed)
		return fmt.Errorf("%w: %s", ErrTampered, strings.Join(changed, ", "))
	}
	return nil
}

func (r *Recording) readEvents() (err error) {
	if r.Injections, err = events[Injection](r, InjectionsFile); err != nil {
		return err
	}
	r.Observations, err = events[Observation](r, ObservationsFile)
	r.Complete = reachedEnd(r.Observations)
	return err
}

func events[T any](r *Recording, name string) ([]T, error) {
	values, warning, err := readLines[T](filepath.Join(r.Dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		warning, err = name+" is missing.", nil
	}
	if warning != "" {
		r.Warnings = append(r.Warnings, warning)
	}
	return values, err
}

// findRequests looks at the footer of every part, so that a part that cannot
// be read is known before anything is judged.
func (r *Recording) findRequests() error {
	names, err := wholeParts(r.Dir)
	if err != nil {
		return err
	}
	var readable []string
	for _, name := range names {
		file, _, err := openPart(filepath.Join(r.Dir, name))
		if errors.Is(err, ErrDamaged) {
			r.Warnings = append(r.Warnings, fmt.Sprintf("%v; its requests are left out.", err))
			continue
		}
		if err != nil {
			return err
		}
		if err := file.Close(); err != nil {
			return err
		}
		readable = append(readable, name)
	}
	r.Requests = readParts(r.Dir, readable)
	return r.warnUnfinished()
}

func (r *Recording) warnUnfinished() error {
	entries, err := os.ReadDir(r.Dir)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if strings.HasSuffix(entry.Name(), unfinished) {
			r.Warnings = append(r.Warnings, fmt.Sprintf(
				"%s was not finished: requests of up to the last %v before the end are left out.", entry.Name(), completeEvery))
		}
	}
	return nil
}

// reachedEnd is whether the run wrote its end and was not stopped on the way.
func reachedEnd(observations []Observation) bool {
	ended, interrupted := false, false
	for _, o := range observations {
		ended = ended || o.Name == ObsRunEnded
		interrupted = interrupted || o.Name == ObsInterrupted
	}
	return ended && !interrupted
}
