package security

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/internal/words"
)

// end is the result of a check.
type end struct {
	outcome string
	why     words.Sentence
}

// safe ends a check whose control worked and that found nothing; how says what the
// result is based on.
func safe(how words.Phrase, args ...any) end { return end{recording.ScanSafe, say(how, args...)} }

// unproven ends a check that could not look.
func unproven(why words.Phrase, args ...any) end {
	return end{recording.ScanUnproven, say(why, args...)}
}

// trial is one check under way: it counts what is sent, and collects findings.
type trial struct {
	*session
	check    Check
	requests atomic.Int64
	bytes    atomic.Int64
	tooMuch  atomic.Bool

	mu       sync.Mutex
	findings []recording.ScanFinding
}

func newTrial(s *session, c Check) *trial { return &trial{session: s, check: c} }

// flaw is a finding, as the check describes it.
type flaw struct {
	title    words.Sentence
	kind     string // distinguishes the findings of one check, for the fingerprint
	where    string // a route, a file
	vector   string
	tags     []string
	evidence []recording.Exchange
	verified words.Sentence
	fix      words.Sentence
}

// found adds a finding. The fingerprint depends on its kind and place, and not on the
// host, the time or measured numbers.
func (t *trial) found(f flaw) {
	score, err := Score(f.vector)
	if err != nil {
		panic(fmt.Sprintf("security: %s: %v", t.check.Name, err)) // a test covers every vector
	}
	for i := range f.evidence {
		f.evidence[i] = recording.Exchange{Sent: t.hide(f.evidence[i].Sent), Came: t.hide(f.evidence[i].Came)}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.findings = append(t.findings, recording.ScanFinding{
		Fingerprint: Fingerprint(t.check.Name, f.kind, f.where), Title: words.Kept{Sentence: f.title}, Where: f.where, Vector: f.vector, Score: score,
		Tags: f.tags, Evidence: f.evidence, Verified: words.Kept{Sentence: f.verified}, Fix: words.Kept{Sentence: f.fix},
	})
}

// Fingerprint is the same for the same flaw in every scan.
func Fingerprint(check, kind, where string) string {
	sum := sha256.Sum256([]byte(strings.Join([]string{check, kind, where}, "\x00")))
	return hex.EncodeToString(sum[:8])
}

// ended ends a check that looked: safe, unless it found something.
func (t *trial) ended(how words.Phrase, args ...any) end {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.findings) > 0 {
		return end{outcome: recording.ScanFlaw, why: found(len(t.findings))}
	}
	return safe(how, args...)
}

// found words the number of findings.
func found(n int) words.Sentence {
	if n == 1 {
		return say("1 flaw was found and verified")
	}
	return say("%s flaws were found and verified", number(int64(n)))
}

// result is the row of the recording. Findings made before a check had to stop are
// kept.
func (t *trial) result(e end, others *recording.Others) recording.ScanResult {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.findings) > 0 {
		e = end{recording.ScanFlaw, found(len(t.findings))}
	}
	return recording.ScanResult{
		Check: t.check.Name, Outcome: e.outcome, Disruptive: t.check.Disruptive, Worst: t.check.Worst(), Why: words.Kept{Sentence: e.why},
		Requests: t.requests.Load(), Bytes: t.bytes.Load(), Others: others, Findings: t.findings,
	}
}

// spend counts a request, and reports whether it may still be sent.
func (t *trial) spend() bool {
	if t.requests.Add(1) > t.check.Cap.Requests {
		t.tooMuch.Store(true)
		return false
	}
	return !t.tooMuch.Load()
}

// moved counts bytes on the wire, and reports whether more are allowed.
func (t *trial) moved(n int) bool {
	if t.bytes.Add(int64(n)) > t.check.Cap.Bytes {
		t.tooMuch.Store(true)
	}
	return !t.tooMuch.Load()
}

func (t *trial) capped() bool { return t.tooMuch.Load() }

func number(n int64) string { return strconv.FormatInt(n, 10) }

// clip shortens a text, and says how long it was.
func clip(s string, most int) string {
	if len(s) <= most {
		return strings.ToValidUTF8(s, "\uFFFD")
	}
	return fmt.Sprintf("%s… (%d bytes)", strings.ToValidUTF8(s[:most], "\uFFFD"), len(s))
}
