package recording

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/launchgate/launchgate/internal/words"
)

// Open reads the recording in dir. It may come from anywhere, so Harmless is applied to
// its texts here. Incomplete lines and parts, as a crash leaves them, are listed in
// Warnings. Content that cannot be trusted or understood is an error. Open may be
// called while the recording is written, after a Flush.
func Open(dir string) (*Recording, error) {
	recording := &Recording{Dir: dir}
	steps := []func() error{recording.readEnvironment, recording.readGate, recording.checkSums,
		recording.readEvents, recording.readScan, recording.readGaps, recording.findRequests}
	for _, step := range steps {
		if err := step(); err != nil {
			return nil, words.Errorf("open %s: %s", dir, err)
		}
	}
	return recording, nil
}

// InMemory is a recording without files, for tests of its readers.
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
		return words.Errorf("%s: the folder does not exist", ErrNotRun)
	case gone == nil && !is.IsDir():
		return words.Errorf("%s: found a file, expected the folder of a run", ErrNotRun)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return words.Errorf("%s: it contains no %s", ErrNotRun, EnvironmentFile)
	}
	if err != nil {
		return err
	}
	// The format is checked before the rest, which may differ in a newer one.
	var format struct {
		Format  int    `json:"format"`
		Version string `json:"version"`
	}
	if err := json.Unmarshal(content, &format); err != nil {
		return words.Errorf("%s: %s: %s", ErrDamaged, EnvironmentFile, err)
	}
	if format.Format > Format {
		return words.Errorf("%s: found format %d of launchgate %s, but this launchgate reads formats up to %d; use a newer launchgate",
			ErrNewer, format.Format, format.Version, Format)
	}
	if format.Format < 1 {
		return words.Errorf("%s: %s has no format", ErrNotRun, EnvironmentFile)
	}
	if err := json.Unmarshal(content, &r.Environment); err != nil {
		return words.Errorf("%s: %s: %s", ErrDamaged, EnvironmentFile, err)
	}
	words.HarmlessIn(&r.Environment)
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

// checkSums compares the files with the sums taken when the recording was closed. A run
// that was cut short has no sums, and is not complete.
func (r *Recording) checkSums() error {
	if r.Environment.Files == nil {
		return nil
	}
	names, err := hashedFiles(r.Dir)
	if err != nil {
		return err
	}
	var changed []words.Sentence
	for name := range r.Environment.Files {
		if !slices.Contains(names, name) {
			changed = append(changed, words.Say("%s is missing", name))
		}
	}
	for _, name := range names {
		want, known := r.Environment.Files[name]
		got, err := sum(filepath.Join(r.Dir, name))
		switch {
		case err != nil:
			return err
		case !known:
			changed = append(changed, words.Say("%s was added", name))
		case got != want:
			changed = append(changed, words.Say("%s was changed", name))
		}
	}
	if len(changed) > 0 {
		slices.SortFunc(changed, func(a, b words.Sentence) int { return strings.Compare(a.String(), b.String()) })
		return words.Errorf("%s: %s", ErrTampered, words.List("%s, %s", changed...))
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
		warning, err = words.Say("%s is missing.", name), nil
	}
	if !warning.IsZero() {
		r.Warnings = append(r.Warnings, warning)
	}
	words.HarmlessIn(&values)
	return values, err
}

// findRequests reads the footer of every part, so that an unreadable part is noticed
// before the run is judged.
func (r *Recording) findRequests() error {
	names, err := wholeParts(r.Dir)
	if err != nil {
		return err
	}
	var readable []string
	for _, name := range names {
		file, _, err := openPart(filepath.Join(r.Dir, name))
		if errors.Is(err, ErrDamaged) {
			r.Warnings = append(r.Warnings, words.Say("%s; its requests are left out.", err))
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
			r.Warnings = append(r.Warnings, words.Say(
				"%s was not finished: requests of up to the last %v before the end are left out.", entry.Name(), completeEvery))
		}
	}
	return nil
}

// reachedEnd reports whether the run wrote its end and was not interrupted.
func reachedEnd(observations []Observation) bool {
	ended, interrupted := false, false
	for _, o := range observations {
		ended = ended || o.Name == ObsRunEnded
		interrupted = interrupted || o.Name == ObsInterrupted || o.Name == ObsCouldNotRun
	}
	return ended && !interrupted
}
