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
	p := paint{on: color}
	v, l := r.Verdict, r.Language
	var b strings.Builder
	fmt.Fprintf(&b, "\n%s  %s\n", p.outcome(v.Verdict, strings.ToUpper(l.name("outcome.", v.Verdict.String()))), printable(r.Gate))
	fmt.Fprintf(&b, "%s\n", printable(headline(r)))
	if i := r.Interrupted; i != nil {
		title := p.bold(l.say("text.sentence", l.say("interrupted.title", clock(i.At))))
		fmt.Fprintf(&b, "%s\n", l.say("text.sentences", title, printable(interruptedText(l, i))))
	}
	for _, aside := range asides(l, v) {
		fmt.Fprintf(&b, "%s\n", printable(aside))
	}
	if len(r.Objectives) > 0 {
		b.WriteString("\n")
		terminalObjectives(&b, p, r)
	}
	if len(v.Faults) > 0 {
		b.WriteString("\n")
		for _, f := range v.Faults {
			fmt.Fprintf(&b, "%s  %s  %s\n", p.outcome(f.Verdict, pad(l.name("outcome.", f.Verdict.String()), 8)),
				p.bold(printable(faultName(f))), printable(faultLine(l, f)))
		}
	}
	fmt.Fprintf(&b, "\n%s\n", p.bold(l.say("section.next")))
	for i, n := range r.Next {
		fmt.Fprintf(&b, "  %d. %s\n", i+1, printable(l.Word(n)))
	}
	fmt.Fprintf(&b, "\n%s  %s\n", l.say("terminal.report"), printable(filepath.Join(dir, HTMLFile)))
	_, err := io.WriteString(w, b.String())
	return err
}

func terminalObjectives(b *strings.Builder, p paint, r Report) {
	l := r.Language
	rows := [][]string{{"", l.say("objective.objective"), l.say("objective.value"), l.say("objective.bound"), l.say("objective.limit"), l.say("objective.margin"), l.say("latency.samples")}}
	for _, o := range r.Objectives {
		rows = append(rows, []string{l.name("outcome.", o.Verdict.String()), printable(o.Source), measured(l, o.Finding),
			bound(l, o), limit(l, o), margin(l, o), count(o.Samples)})
	}
	widths := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			widths[i] = max(widths[i], columns(cell))
		}
	}
	for i, row := range rows {
		var line strings.Builder
		for j, cell := range row {
			if j > 0 {
				line.WriteString("  ")
			}
			switch {
			case j < 2:
				cell = pad(cell, widths[j])
			default:
				cell = padLeft(cell, widths[j])
			}
			if i == 0 {
				cell = p.dim(cell)
			} else if j == 0 {
				cell = p.outcome(r.Objectives[i-1].Verdict, cell)
			}
			line.WriteString(cell)
		}
		fmt.Fprintf(b, "%s\n", strings.TrimRight(line.String(), " "))
		if i > 0 {
			if o := r.Objectives[i-1]; o.Verdict != checklist.Pass && !o.Why.IsZero() {
				fmt.Fprintf(b, "%s  %s\n", strings.Repeat(" ", widths[0]), p.dim(printable(l.Word(o.Why))))
			}
		}
	}
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
