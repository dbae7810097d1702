package recording

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/launchgate/launchgate/internal/durable"
	"github.com/launchgate/launchgate/internal/words"
)

const (
	// completeEvery is how often written data is made durable: a crash loses at most
	// the data since then.
	completeEvery = 2 * time.Second
	// backlog is how many entries may wait for the disk before callers block. It is
	// enough for a second of a slow disk at tens of thousands of requests a second.
	backlog = 1 << 16
)

// Writer writes a recording. All its methods may be called from any goroutine. Request,
// Inject and Observe only queue: one goroutine owns the files, so that a slow disk does
// not delay the load. The first error there is kept for Err and Close; later entries
// are counted and dropped.
type Writer struct {
	dir     string
	entries chan any      // *Request, Injection, Observation, keepChunks or flushed
	ended   chan struct{} // closed when the goroutine that owns the files has ended

	sending sync.RWMutex // held for reading while an entry is queued
	closed  bool

	failure atomic.Pointer[error]
	dropped atomic.Int64

	environment *Environment // guarded by sending
	closeOnce   sync.Once
	closeErr    error
}

// flushed is an entry that asks for all entries before it to be made readable.
type flushed chan struct{}

// Create makes the folder of a new recording. A folder that contains a file of a run is
// refused with ErrExists: recorded data is never overwritten. The path is made absolute
// and its links are resolved, because other processes use it from other folders, and
// the kernel knows the folder by this path only.
func Create(dir string) (*Writer, error) {
	if err := os.MkdirAll(filepath.Join(dir, LogsFolder), 0o777); err != nil {
		return nil, cannotCreate(dir, err)
	}
	if err := refuseExisting(dir); err != nil {
		return nil, err
	}
	whole, err := filepath.Abs(dir)
	if err == nil {
		whole, err = filepath.EvalSymlinks(whole)
	}
	if err != nil {
		return nil, cannotCreate(dir, err)
	}
	files, err := createFiles(whole)
	if err != nil {
		return nil, cannotCreate(dir, err)
	}
	w := &Writer{dir: whole, entries: make(chan any, backlog), ended: make(chan struct{})}
	go w.own(files)
	return w, nil
}

func cannotCreate(dir string, err error) error {
	if errors.Is(err, fs.ErrExist) {
		return words.Errorf("%s: %s (another run has just begun there); choose another folder", dir, ErrExists)
	}
	return words.Errorf("cannot write a recording into %s: %s; choose a folder that can be written", dir, err)
}

func refuseExisting(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return cannotCreate(dir, err)
	}
	for _, entry := range entries {
		switch name := entry.Name(); {
		case name == GateFile, name == EnvironmentFile, name == InjectionsFile, name == ObservationsFile, name == ScanFile, name == GapsFile,
			name == "verdict.json", strings.HasPrefix(name, "requests-"):
			return words.Errorf("%s: %s (%s is there); choose another folder or move that run away", dir, ErrExists, name)
		}
	}
	return nil
}

// LogDir is the folder for the logs of the processes of the run.
func (w *Writer) LogDir() string { return filepath.Join(w.dir, LogsFolder) }

// Gate stores the resolved gate.
func (w *Writer) Gate(yaml []byte) error {
	if err := durable.Replace(filepath.Join(w.dir, GateFile), 0o644, durable.Content(yaml)); err != nil {
		return words.Errorf("record the gate: %s", err)
	}
	return nil
}

// Environment stores the environment of the run. The writer sets its Format and Files.
func (w *Writer) Environment(e Environment) error {
	w.sending.Lock()
	defer w.sending.Unlock()
	e.Format, e.Files = Format, nil
	w.environment = &e
	return w.writeEnvironment()
}

func (w *Writer) writeEnvironment() error {
	content, err := json.MarshalIndent(w.environment, "", "  ")
	if err == nil {
		err = durable.Replace(filepath.Join(w.dir, EnvironmentFile), 0o644, durable.Content(append(content, '\n')))
	}
	if err != nil {
		return words.Errorf("record the environment: %s", err)
	}
	return nil
}

// KeepChunks selects, by their numbers, the requests whose chunk times are kept. Gaps
// between chunks are counted for all requests. It must be called before the first
// request.
func (w *Writer) KeepChunks(of func(seq int64) bool) { w.queue(keepChunks(of)) }

// keepChunks is the entry of KeepChunks.
type keepChunks func(seq int64) bool

// Request records one request. The writer owns its Chunks from then on.
func (w *Writer) Request(r Request) { w.queue(&r) }

// Inject records one step of a fault's life.
func (w *Writer) Inject(i Injection) { w.queue(i) }

// Observe records an observation. A Value that is not a number is an error, because
// JSON cannot represent it, and zero would be wrong.
func (w *Writer) Observe(o Observation) { w.queue(o) }

// queue sends an entry to the goroutine that owns the files. The lock ensures that
// nothing is queued after Close has closed the channel.
func (w *Writer) queue(entry any) bool {
	w.sending.RLock()
	defer w.sending.RUnlock()
	if w.closed {
		w.fail(ErrClosed)
		w.dropped.Add(1)
		return false
	}
	w.entries <- entry
	return true
}

// Flush waits until everything recorded so far can be read with Open.
func (w *Writer) Flush() error {
	done := make(flushed)
	if w.queue(done) {
		<-done
	}
	return w.Err()
}

// Err is the first error, or nil. A run whose recording has failed cannot be judged and
// should stop.
func (w *Writer) Err() error {
	if err := w.failure.Load(); err != nil {
		return *err
	}
	return nil
}

func (w *Writer) fail(err error) {
	if err != nil {
		err = words.Errorf("record the run in %s: %s", w.dir, err)
		w.failure.CompareAndSwap(nil, &err)
	}
}

// Close writes what is queued, merges the parts of the requests into few files and adds
// the sums of the files. It returns the error of Err, and how many entries were dropped
// because of it.
func (w *Writer) Close() error {
	w.closeOnce.Do(func() { w.closeErr = w.close() })
	return w.closeErr
}

func (w *Writer) close() error {
	w.sending.Lock()
	w.closed = true
	close(w.entries)
	w.sending.Unlock()
	<-w.ended
	if w.Err() == nil {
		w.fail(w.seal())
	}
	if n := w.dropped.Load(); n > 0 {
		return words.Errorf("%s; %d entries after it were not recorded", w.Err(), n)
	}
	return w.Err()
}

// seal completes the folder of a whole run. A run that was cut short stays readable,
// without sums.
func (w *Writer) seal() error {
	if err := mergeParts(w.dir); err != nil {
		return words.Errorf("merge the requests: %s", err)
	}
	if w.environment == nil {
		return nil // the run ended before its environment was written
	}
	names, err := hashedFiles(w.dir)
	if err != nil {
		return err
	}
	w.environment.Files = make(map[string]string, len(names))
	for _, name := range names {
		if w.environment.Files[name], err = sum(filepath.Join(w.dir, name)); err != nil {
			return words.Errorf("sum %s: %s", name, err)
		}
	}
	return w.writeEnvironment()
}

// own is the goroutine that owns the files, until entries is closed.
func (w *Writer) own(f *files) {
	defer close(w.ended)
	tick := time.NewTicker(completeEvery)
	defer tick.Stop()
	for {
		select {
		case entry, open := <-w.entries:
			if !open {
				w.fail(f.close())
				return
			}
			w.write(f, entry)
		case <-tick.C:
			w.complete(f)
		}
	}
}

func (w *Writer) write(f *files, entry any) {
	if done, ok := entry.(flushed); ok {
		w.complete(f)
		close(done)
		return
	}
	if w.Err() != nil {
		w.dropped.Add(1)
		return
	}
	w.fail(f.write(entry))
}

func (w *Writer) complete(f *files) {
	if w.Err() == nil {
		w.fail(f.complete())
	}
}

// files are the files of a recording that grow during the run.
type files struct {
	requests     parts
	gaps         gapCounter
	injections   *lines
	observations *lines
	scans        scans
}

func createFiles(dir string) (*files, error) {
	injections, err := createLines(filepath.Join(dir, InjectionsFile))
	if err != nil {
		return nil, err
	}
	observations, err := createLines(filepath.Join(dir, ObservationsFile))
	if err != nil {
		return nil, errors.Join(err, injections.close())
	}
	return &files{requests: parts{dir: dir}, gaps: gapCounter{of: map[string]*hdrhistogram.Histogram{}}, injections: injections, observations: observations, scans: scans{dir: dir}}, nil
}

func (f *files) write(entry any) error {
	switch e := entry.(type) {
	case *Request:
		f.gaps.take(e)
		return f.requests.write(e)
	case keepChunks:
		f.gaps.keep = e
		return nil
	case Injection:
		return f.injections.write(e)
	case ScanResult:
		return f.scans.write(e)
	default:
		return f.observations.write(e)
	}
}

// complete makes the written data durable and readable.
func (f *files) complete() error {
	return errors.Join(f.requests.complete(), f.gaps.write(f.requests.dir), f.injections.complete(), f.observations.complete(), f.scans.complete())
}

func (f *files) close() error {
	return errors.Join(f.requests.complete(), f.gaps.write(f.requests.dir), f.injections.close(), f.observations.close(), f.scans.close())
}
