package recording

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/launchgate/launchgate/internal/words"
)

// ScanFile holds the results of a security scan, a line for each check.
const ScanFile = "scan.jsonl"

// The outcomes of a check of a security scan. A check that could not look is never
// safe.
const (
	ScanSafe     = "safe"     // the control worked, and nothing was found
	ScanFlaw     = "flaw"     // a flaw was found and verified
	ScanUnproven = "unproven" // Why says what was missing
)

// ScanResult is the result of one check of a security scan: a line of scan.jsonl.
type ScanResult struct {
	At      time.Duration `json:"at_ns"`    // when it ended
	Began   time.Duration `json:"began_ns"` // when it began
	Check   string        `json:"check"`
	Outcome string        `json:"outcome"` // safe | flaw | unproven
	// LeftOut: the gate did not ask for this check, so its being unproven does not
	// affect the gate's objectives.
	LeftOut bool `json:"left_out,omitempty"`
	// Disruptive: it may harm the service, and runs only if that is allowed.
	Disruptive bool `json:"disruptive,omitempty"`
	// Worst is the highest score that a finding of this check can have.
	Worst float64 `json:"worst"`
	// Why says what the outcome is based on, or what was missing.
	Why words.Kept `json:"why"`
	// Requests and Bytes are what the check sent and read.
	Requests int64 `json:"requests"`
	Bytes    int64 `json:"bytes"`
	// Others is how another client was served meanwhile.
	Others   *Others       `json:"others,omitempty"`
	Findings []ScanFinding `json:"findings,omitempty"`
}

// Others is how another client was served during a check.
type Others struct {
	Asked   int           `json:"asked"`
	Failed  int           `json:"failed"`
	Median  time.Duration `json:"median_ns"` // of the answered requests
	Longest time.Duration `json:"longest_ns"`
	Quiet   time.Duration `json:"quiet_ns"` // the median before the scan
	// QuietP95 is the 95th percentile before the scan; 0 in older recordings.
	QuietP95 time.Duration `json:"quiet_p95_ns,omitempty"`
	// Took are the times of the answered requests, in the order in which they were sent.
	Took []time.Duration `json:"took_ns,omitempty"`
}

// P95 is the 95th percentile of the answered requests by nearest rank; 0 if there are
// none, or if the recording does not have their times.
func (o Others) P95() time.Duration { return P95(o.Took) }

// P95 is the smallest of the times that 95 % of them do not exceed; 0 if there are none.
func P95(took []time.Duration) time.Duration {
	if len(took) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(took))
	return sorted[(len(sorted)*95+99)/100-1]
}

// OthersOf is how another client was served during all checks of a scan together; nil if
// it sent nothing.
func OthersOf(results []ScanResult) *Others {
	var all *Others
	for _, r := range results {
		if r.Others == nil {
			continue
		}
		if all == nil {
			all = &Others{Quiet: r.Others.Quiet, QuietP95: r.Others.QuietP95}
		}
		all.Asked += r.Others.Asked
		all.Failed += r.Others.Failed
		all.Longest = max(all.Longest, r.Others.Longest)
		all.Took = append(all.Took, r.Others.Took...)
	}
	if all != nil && len(all.Took) > 0 {
		all.Median = slices.Sorted(slices.Values(all.Took))[len(all.Took)/2]
	}
	return all
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

// Exchange is a request and its answer, with secrets replaced.
type Exchange struct {
	Sent string `json:"sent"`
	Came string `json:"came"`
}

// Waiver is the reason why a finding does not count until a day.
type Waiver struct {
	Reason  string `json:"reason"`
	Owner   string `json:"owner"`
	Expires string `json:"expires"` // the last day on which it is valid, such as 2027-03-31
}

// Holds reports whether a waiver is valid at a time: to the end of its last day, in
// UTC.
func (w *Waiver) Holds(at time.Time) bool {
	if w == nil {
		return false
	}
	day, err := time.Parse(time.DateOnly, w.Expires)
	return err == nil && at.UTC().Before(day.AddDate(0, 0, 1))
}

// Severity is the severity of a CVSS score: critical, high, medium, low or none.
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

// Scan records the result of a check of a security scan.
func (w *Writer) Scan(r ScanResult) { w.queue(r) }

// scans is the growing scan.jsonl, created with the first result.
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

// readScan reads the results of the scan, if there was one.
func (r *Recording) readScan() (err error) {
	if _, err := os.Stat(filepath.Join(r.Dir, ScanFile)); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	r.Scan, err = events[ScanResult](r, ScanFile)
	return err
}
