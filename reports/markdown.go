package reports

import (
	"fmt"
	"io"
	"strings"

	"github.com/launchgate/launchgate/checklist"
)

var markdownSign = map[checklist.Outcome]string{
	checklist.Pass: "✅", checklist.Fail: "❌", checklist.Unproven: "❔", checklist.Invalid: "🚫",
}

// Markdown writes summary.md, short enough for a CI job's summary.
func Markdown(w io.Writer, r Report) error {
	var b strings.Builder
	v := r.Verdict
	fmt.Fprintf(&b, "## %s %s — %s\n\n", markdownSign[v.Verdict], say("outcome."+v.Verdict.String()), markdownText(r.Gate))
	fmt.Fprintf(&b, "%s\n\n", markdownText(headline(r)))
	if i := r.Interrupted; i != nil {
		fmt.Fprintf(&b, "> **%s** %s\n\n", say("interrupted.title", clock(i.At)), markdownText(interruptedText(i)))
	}
	if len(r.Objectives) > 0 {
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s |\n|---|---|--:|--:|--:|--:|\n",
			say("objective.outcome"), say("objective.objective"), say("objective.value"),
			say("objective.limit"), say("objective.margin"), say("latency.samples"))
		for _, o := range r.Objectives {
			fmt.Fprintf(&b, "| %s %s | %s | %s | %s | %s | %s |\n",
				markdownSign[o.Verdict], say("outcome."+o.Verdict.String()), markdownCode(o.Source), measured(o.Finding),
				limit(o), margin(o), count(o.Samples))
		}
		b.WriteString("\n")
	}
	for _, f := range v.Faults {
		fmt.Fprintf(&b, "- %s **%s** — %s\n", markdownSign[f.Verdict], markdownText(faultName(f)), markdownText(faultLine(f)))
	}
	if len(v.Faults) > 0 {
		b.WriteString("\n")
	}
	fmt.Fprintf(&b, "**%s**\n\n", say("section.next"))
	for i, n := range r.Next {
		fmt.Fprintf(&b, "%d. %s\n", i+1, markdownText(n.Say()))
	}
	fmt.Fprintf(&b, "\n%s: %s\n", say("next.reproduce"), markdownCode(r.Reproduce))
	_, err := io.WriteString(w, b.String())
	return err
}

func measured(f checklist.Finding) string {
	if f.Value == nil {
		return say("objective.unmeasured")
	}
	return value(*f.Value, f.Unit)
}

func limit(o Objective) string {
	return strings.TrimSpace(o.Declared.Op + " " + value(o.Threshold, o.Unit))
}

func interruptedText(i *Interruption) string {
	sentences := []string{say("interrupted.cut")}
	if i.By != "" {
		sentences[0] = say("interrupted.by", i.By)
	}
	if len(i.Unplayed) > 0 {
		sentences = append(sentences, say("interrupted.unplayed", strings.Join(i.Unplayed, ", ")))
	}
	return strings.Join(append(sentences, say("interrupted.rest")), " ")
}

// faultLine sums a fault up: its sentence, and what was measured of it.
func faultLine(f checklist.Fault) string {
	var numbers []string
	add := func(id string, v *float64) {
		if v != nil {
			numbers = append(numbers, say(id)+" "+seconds(*v))
		}
	}
	add("fault.detection", f.DetectionSeconds)
	add("fault.rto", f.RTOSeconds)
	add("fault.rpo", f.RPOSeconds)
	line := f.Why.String() + "."
	if len(numbers) > 0 {
		line += " " + strings.Join(numbers, ", ") + "."
	}
	return line
}

// markdownText keeps text of unknown origin from being read as Markdown or
// HTML.
func markdownText(s string) string {
	var b strings.Builder
	for _, r := range printable(s) {
		if strings.ContainsRune("\\`*_{}[]<>#|~!&@", r) {
			b.WriteByte('\\')
		}
		b.WriteRune(r)
	}
	return b.String()
}

// markdownCode is a code span, fenced with more backticks than the text has.
func markdownCode(s string) string {
	s = strings.ReplaceAll(printable(s), "|", "\\|")
	fence := "`"
	for strings.Contains(s, fence) {
		fence += "`"
	}
	if len(fence) > 1 {
		return fence + " " + s + " " + fence
	}
	return fence + s + fence
}
