package reports

import (
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"github.com/launchgate/launchgate/checklist"
)

// Terminal writes the verdict in short: what was decided, each objective in a
// line, the faults, what to do next and where the report lies.
func Terminal(w io.Writer, r Report, dir string, color bool) error {
	var b strings.Builder
	for _, s := range r.shown() {
		if s.terminal != nil {
			s.terminal(&b, paint{on: color}, r)
		}
	}
	fmt.Fprintf(&b, "\n%s  %s\n", r.Language.say("terminal.report"), printable(filepath.Join(dir, HTMLFile)))
	_, err := io.WriteString(w, b.String())
	return err
}

// TerminalLine writes the verdict and the path of the report in one line.
func TerminalLine(w io.Writer, r Report, dir string, color bool) error {
	p := paint{on: color}
	_, err := fmt.Fprintf(w, "%s  %s  %s  %s\n", p.outcome(r.Verdict.Verdict, word(r)), printable(r.Gate), printable(headline(r)), printable(filepath.Join(dir, HTMLFile)))
	return err
}

func pad(s string, width int) string {
	return s + strings.Repeat(" ", max(width-columns(s), 0))
}

func padLeft(s string, width int) string {
	return strings.Repeat(" ", max(width-columns(s), 0)) + s
}

// columns is how wide a text is on a terminal, where Chinese characters and
// their punctuation take two columns.
func columns(s string) (n int) {
	for _, r := range s {
		n++
		if r >= 0x2e80 && r <= 0x9fff || r >= 0xff00 && r <= 0xff60 {
			n++
		}
	}
	return n
}

// Cut shortens a text to a width on a terminal.
func Cut(s string, width int) string {
	if columns(s) <= width {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if width -= columns(string(r)); width < 1 {
			break
		}
		b.WriteRune(r)
	}
	return b.String() + "…"
}

// paint adds the colours of a terminal, where there is one.
type paint struct{ on bool }

func (p paint) code(code, s string) string {
	if !p.on || s == "" {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}

func (p paint) bold(s string) string { return p.code("1", s) }
func (p paint) dim(s string) string  { return p.code("2", s) }

func (p paint) outcome(o checklist.Outcome, s string) string {
	codes := map[checklist.Outcome]string{
		checklist.Pass: "1;32", checklist.Fail: "1;31", checklist.Unproven: "1;33", checklist.Invalid: "1;35",
	}
	return p.code(codes[o], s)
}
