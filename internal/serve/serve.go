// Package serve is a small API that plays gates when somebody asks, for systems that
// deploy in steps and ask before the next one. It plays one gate at a time, keeps the
// run folders, and reads everything it tells from them.
package serve

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/launchgate/launchgate/checklist"
	"github.com/launchgate/launchgate/internal/durable"
	"github.com/launchgate/launchgate/reports"
)

// The states of a run.
const (
	Queued  = "queued"
	Running = "running"
	Done    = "done"
)

// The verdicts beside those of a run that was judged.
const (
	notYet      = "running" // it is queued or under way
	couldNotRun = "could-not-run"
	interrupted = "interrupted"
)

// Run is what the API tells of a run.
type Run struct {
	ID   string `json:"id"`
	Gate string `json:"gate"`
	// For is what it was asked for, such as a version: the same gate asked for the
	// same is one run.
	For      string    `json:"for,omitempty"`
	State    string    `json:"state"`
	Verdict  string    `json:"verdict"`
	ExitCode *int      `json:"exit_code,omitempty"`
	Why      string    `json:"why,omitempty"`
	AskedAt  time.Time `json:"asked_at"`
	EndedAt  time.Time `json:"ended_at,omitzero"`
	Report   string    `json:"report,omitempty"` // the path of its page in this API
}

// Options of a Server.
type Options struct {
	Dir   string // of the run folders
	Queue int    // runs that may wait
	Keep  int    // ended runs that are kept with their folders; 0: all
	// Gates are the names of the gates that can be played.
	Gates func() []string
	// Play plays a gate into a folder and returns the exit code, and what it said
	// last.
	Play func(ctx context.Context, gate, dir string) (code int, said string)
}

// Server plays what it is asked for, one after the other.
type Server struct {
	Options
	mu    sync.Mutex
	runs  map[string]*Run
	queue []string // ids
	more  chan struct{}
	ended map[string]chan struct{} // closed when the run is done
}

var errFull = errors.New("the queue is full")

// jobs is the folder in Dir that holds a file for each run that was asked for.
const jobs = ".serve"

// New reads the runs that there are. One that an earlier server was asked for and did
// not begin is queued again; one that it did not end was interrupted.
func New(o Options) (*Server, error) {
	s := &Server{Options: o, runs: map[string]*Run{}, more: make(chan struct{}, 1), ended: map[string]chan struct{}{}}
	if err := os.MkdirAll(filepath.Join(o.Dir, jobs), 0o755); err != nil {
		return nil, err
	}
	files, err := os.ReadDir(filepath.Join(o.Dir, jobs))
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		if filepath.Ext(f.Name()) != ".json" {
			continue // a file that was not finished
		}
		file := filepath.Join(o.Dir, jobs, f.Name())
		b, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		var r Run
		if err := json.Unmarshal(b, &r); err != nil || r.ID+".json" != f.Name() || r.ID == "" || r.ID[0] == '.' {
			return nil, fmt.Errorf("%s is damaged (%v): remove it, and the run is no longer listed", file, err)
		}
		s.runs[r.ID], s.ended[r.ID] = &r, make(chan struct{})
		switch r.State {
		case Queued: // in the order of asking, below
		case Running:
			s.finish(&r, s.endOf(r.ID, checklist.ExitInterrupted, "launchgate serve ended while it was under way"))
		default:
			close(s.ended[r.ID])
		}
	}
	for _, r := range slices.Backward(s.List()) {
		if r.State == Queued {
			s.queue = append(s.queue, r.ID)
		}
	}
	return s, s.removeOld()
}

// keep writes the file of a run; the caller holds the lock, or is alone.
func (s *Server) keep(r *Run) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return durable.Replace(filepath.Join(s.Dir, jobs, r.ID+".json"), 0o644, durable.Content(append(b, '\n')))
}

// Ask queues a run of a gate, or returns the one that was asked for with the same
// reason before.
func (s *Server) Ask(gate, reason string) (Run, error) {
	if !slices.Contains(s.Gates(), gate) {
		return Run{}, unknownGate{gate, s.Gates()}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if reason != "" {
		for _, r := range s.runs {
			if r.Gate == gate && r.For == reason {
				return *r, nil
			}
		}
	}
	may := s.Queue
	if !s.busy() {
		may++ // it is played at once
	}
	if len(s.queue) >= may {
		return Run{}, errFull
	}
	now := time.Now().UTC()
	id := now.Format("20060102-150405") + "-" + plain.ReplaceAllString(gate, "-")
	for base, n := id, 2; s.runs[id] != nil || exists(filepath.Join(s.Dir, id)); n++ {
		id = fmt.Sprintf("%s-%d", base, n)
	}
	r := &Run{ID: id, Gate: gate, For: reason, State: Queued, Verdict: notYet, AskedAt: now}
	if err := s.keep(r); err != nil {
		return Run{}, err
	}
	s.runs[id], s.ended[id] = r, make(chan struct{})
	s.queue = append(s.queue, id)
	select {
	case s.more <- struct{}{}:
	default:
	}
	return *r, nil
}

// busy reports whether a run is under way.
func (s *Server) busy() bool {
	for _, r := range s.runs {
		if r.State == Running {
			return true
		}
	}
	return false
}

var plain = regexp.MustCompile(`[^A-Za-z0-9_.-]`)

func exists(path string) bool { _, err := os.Lstat(path); return err == nil }

type unknownGate struct {
	found string
	known []string
}

func (u unknownGate) Error() string {
	return fmt.Sprintf("found the gate %q, expected one of %s", u.found, strings.Join(u.known, ", "))
}

// Get tells a run. It waits until the run has ended, ctx is done, or for that long.
func (s *Server) Get(ctx context.Context, id string, wait time.Duration) (Run, bool) {
	s.mu.Lock()
	ended := s.ended[id]
	s.mu.Unlock()
	if ended == nil {
		return Run{}, false
	}
	if wait > 0 {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		select {
		case <-ended:
		case <-timer.C:
		case <-ctx.Done():
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.runs[id]
	if r == nil { // it has been removed meanwhile
		return Run{}, false
	}
	return *r, true
}

// List tells all runs, the newest first.
func (s *Server) List() []Run {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]Run, 0, len(s.runs))
	for _, r := range s.runs {
		all = append(all, *r)
	}
	slices.SortFunc(all, func(a, b Run) int {
		if c := b.AskedAt.Compare(a.AskedAt); c != 0 {
			return c
		}
		return strings.Compare(b.ID, a.ID)
	})
	return all
}

// Work plays what is queued until ctx is done. A run that is under way then is
// interrupted, so that its faults are reverted and its report is written; what is
// queued stays so for the next server.
func (s *Server) Work(ctx context.Context) {
	for {
		s.mu.Lock()
		var next *Run
		if len(s.queue) > 0 && ctx.Err() == nil {
			next = s.runs[s.queue[0]]
			s.queue = s.queue[1:]
			next.State = Running
			if err := s.keep(next); err != nil {
				s.finish(next, end{code: checklist.ExitCouldNotRun, why: err.Error()})
				next = nil
			}
		}
		s.mu.Unlock()
		if next != nil {
			code, said := s.Play(ctx, next.Gate, filepath.Join(s.Dir, next.ID))
			came := s.endOf(next.ID, code, said) // reads the run's files, so nobody waits for it
			s.mu.Lock()
			s.finish(next, came)
			s.mu.Unlock()
			if err := s.removeOld(); err != nil {
				s.mu.Lock()
				next.Why = fmt.Sprintf("%s (and older runs could not be removed: %v)", next.Why, err)
				s.mu.Unlock()
			}
			continue
		}
		select {
		case <-ctx.Done():
			return
		case <-s.more:
		}
	}
}

// verdicts of the exit codes.
var verdicts = map[int]string{
	checklist.ExitPass: checklist.Pass.String(), checklist.ExitFail: checklist.Fail.String(), checklist.ExitUnproven: checklist.Unproven.String(),
	checklist.ExitInvalid: checklist.Invalid.String(), checklist.ExitInterrupted: interrupted,
}

// end is what a run came to.
type end struct {
	code   int
	why    string
	report bool // there is a page
}

// endOf reads what a run came to from its folder.
func (s *Server) endOf(id string, code int, said string) end {
	e := end{code, said, exists(filepath.Join(s.Dir, id, reports.HTMLFile))}
	if v, err := s.verdict(id); err == nil && len(v.Why) > 0 {
		e.why = v.Why[0].String()
	}
	return e
}

// finish notes how a run ended; the caller holds the lock, or is alone.
func (s *Server) finish(r *Run, e end) {
	r.State, r.ExitCode, r.EndedAt, r.Why = Done, &e.code, time.Now().UTC(), e.why
	r.Verdict = couldNotRun
	if v, known := verdicts[e.code]; known {
		r.Verdict = v
	}
	if e.report {
		r.Report = "/runs/" + r.ID + "/report"
	}
	if err := s.keep(r); err != nil {
		r.Why = fmt.Sprintf("%s (and the result could not be kept: %v)", r.Why, err)
	}
	close(s.ended[r.ID])
}

// removeOld removes the oldest ended runs beyond those that are kept: the folder of each
// first, so that one whose folder remains is still listed.
func (s *Server) removeOld() error {
	if s.Keep == 0 {
		return nil
	}
	var err error
	ended := 0
	for _, r := range s.List() {
		if r.State != Done {
			continue
		}
		if ended++; ended <= s.Keep {
			continue
		}
		failed := os.RemoveAll(filepath.Join(s.Dir, r.ID))
		if failed == nil { // else the run stays listed, and is removed the next time
			failed = os.Remove(filepath.Join(s.Dir, jobs, r.ID+".json"))
		}
		if failed != nil {
			err = errors.Join(err, failed)
			continue
		}
		s.mu.Lock()
		delete(s.runs, r.ID)
		delete(s.ended, r.ID)
		s.mu.Unlock()
	}
	return err
}

// maxVerdict is far above what a run's verdict takes.
const maxVerdict = 16 << 20

// verdict reads that of a run.
func (s *Server) verdict(id string) (checklist.Verdict, error) {
	var v checklist.Verdict
	path := filepath.Join(s.Dir, id, reports.VerdictFile)
	st, err := os.Stat(path)
	if err != nil {
		return v, err
	}
	if st.Size() > maxVerdict {
		return v, fmt.Errorf("%s is larger than %d bytes", path, maxVerdict)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return v, err
	}
	return v, json.Unmarshal(b, &v)
}
