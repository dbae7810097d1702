package recording

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/launchgate/launchgate/internal/words"
)

// ScanFile holds what a security scan came to, a line for each check.
const ScanFile = "scan.jsonl"

// How a check of a security scan ended. What could not be looked at is never
// safe.
const (
	ScanSafe     = "safe"     // the control worked, and nothing was found
	ScanFlaw     = "flaw"     // something was found and verified
	ScanUnproven = "unproven" // Why says what was missing
)

// ScanResult is how one check of a security scan ended: a line of scan.jsonl.
type ScanResult struct {
	At      time.Duration `json:"at_ns"`    // when it ended
	Began   time.Duration `json:"began_ns"` // when it began
	Check   string        `json:"check"`
	Outcome string        `json:"outcome"` // safe | flaw | unproven
	// LeftOut: the gate did not ask for it, so that its being unproven is no doubt
	// about what the gate asks.
	LeftOut bool `json:"left_out,omitempty"`
	// Disruptive: it may harm the service, and is only made where that is allowed.
	Disruptive bool `json:"disruptive,omitempty"`
	// Worst is the highest score that a finding of this check can have.
	Worst float64 `json:"worst"`
	// Why says what the outcome rests on, or what was missing.
	Why words.Kept `json:"why"`
	// Requests and Bytes are what the check sent and read.
	Requests int64 `json:"requests"`
	Bytes    int64 `json:"bytes"`
	// Others is how another client was served meanwhile.
	Others   *Others       `json:"others,omitempty"`
	Findings []ScanFinding `json:"findings,omitempty"`
}

// Others is how another client fared while a check was made.
type Others struct {
	Asked   int           `json:"asked"`
	Failed  int           `json:"failed"`
	Median  time.Duration `json:"median_ns"` // of those that were answered
	Longest time.Duration `json:"longest_ns"`
	Quiet   time.Duration `json:"quiet_ns"` // the median before the scan
}

// ScanFinding is one flaw that a check found.
type ScanFinding struct {
	// Fingerprint is the same for the same flaw in every scan.
	Fingerprint string     `json:"fingerprint"`
	Title       words.Kept `json:"title"`
	Where       string     `json:"where"`  // a route, a file and line, a name
	Vector      string     `json:"vector"` // CVSS 3.1
	Score       float64    `json:"score"`  // of the vector
	// Tags are classes of the OWASP API Security Top 10 of 2023, the OWASP Top 10
	// for LLM applications of 2025, and CWE numbers.
	Tags     []string   `json:"tags"`
	Evidence []Exchange `json:"evidence"`
	Verified words.Kept `json:"verified"`
	Fix      words.Kept `json:"fix"`
	Waiver   *Waiver    `json:"waiver,omitempty"`
}

// Exchange is what was sent and what came, with secrets replaced.
type Exchange struct {
	Sent string `json:"sent"`
	Came string `json:"came"`
}

// Waiver is why a finding does not count for a time.
type Waiver struct {
	Reason  string `json:"reason"`
	Owner   string `json:"owner"`
	Expires string `json:"expires"` // the last day it holds, such as 2027-03-31
}

// Holds reports whether a waiver counts on a day: to the end of its own, in UTC.
func (w *Waiver) Holds(at time.Time) bool {
	if w == nil {
		return false
	}
	day, err := time.Parse(time.DateOnly, w.Expires)
	return err == nil && at.UTC().Before(day.AddDate(0, 0, 1))
}

// Severity is where a CVSS score stands: critical, high, medium, low or none.
func Severity(score float64) string {
	switch {
	case score >= 9:
		return "critical"
	case score >= 7:
		return "high"
	case score >= 4:
		return "medium"
	case score > 0:
		return "low"
	}
	return "none"
}

// Scan records how a check of a security scan ended.
func (w *Writer) Scan(r ScanResult) { w.queue(r) }

// scans is the growing scan.jsonl, which is made by the first result.
type scans struct {
	dir   string
	lines *lines
}

func (s *scans) write(r ScanResult) (err error) {
	if s.lines == nil {
		if s.lines, err = createLines(filepath.Join(s.dir, ScanFile)); err != nil {
			return err
		}
	}
	return s.lines.write(r)
}

func (s *scans) complete() error {
	if s.lines == nil {
		return nil
	}
	return s.lines.complete()
}

func (s *scans) close() error {
	if s.lines == nil {
		return nil
	}
	return s.lines.close()
}

// readScan reads the results of the scan, where there was one.
func (r *Recording) readScan() (err error) {
	if _, err := os.Stat(filepath.Join(r.Dir, ScanFile)); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	r.Scan, err = events[ScanResult](r, ScanFile)
	return err
}
