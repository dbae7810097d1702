package reports

import (
	"fmt"
	"io"
	"strings"

	"github.com/launchgate/launchgate/checklist"
	"github.com/launchgate/launchgate/internal/words"
)

var markdownSign = map[checklist.Outcome]string{
	checklist.Pass: "✅", checklist.Fail: "❌", checklist.Unproven: "❔", checklist.Invalid: "🚫",
}

// Markdown writes summary.md, short enough for a CI job's summary.
func Markdown(w io.Writer, r Report) error {
	var b strings.Builder
	v, l := r.Verdict, r.Language
	fmt.Fprintf(&b, "## %s %s — %s\n\n", markdownSign[v.Verdict], l.name("outcome.", v.Verdict.String()), markdownText(r.Gate))
	fmt.Fprintf(&b, "%s\n\n", markdownText(headline(r)))
	for _, aside := range asides(l, v) {
		fmt.Fprintf(&b, "- %s\n", markdownText(aside))
	}
	if len(asides(l, v)) > 0 {
		b.WriteString("\n")
	}
	if i := r.Interrupted; i != nil {
		fmt.Fprintf(&b, "> **%s** %s\n\n", l.say("interrupted.title", clock(i.At)), markdownText(interruptedText(l, i)))
	}
	if len(r.Objectives) > 0 {
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s | %s |\n|---|---|--:|--:|--:|--:|--:|\n",
			l.say("objective.outcome"), l.say("objective.objective"), l.say("objective.value"), l.say("objective.bound"),
			l.say("objective.limit"), l.say("objective.margin"), l.say("latency.samples"))
		for _, o := range r.Objectives {
			fmt.Fprintf(&b, "| %s %s | %s | %s | %s | %s | %s | %s |\n",
				markdownSign[o.Verdict], l.name("outcome.", o.Verdict.String()), markdownCode(o.Source), measured(l, o.Finding),
				bound(l, o), limit(l, o), margin(l, o), count(o.Samples))
		}
		b.WriteString("\n")
	}
	for _, f := range v.Faults {
		fmt.Fprintf(&b, "- %s **%s** — %s\n", markdownSign[f.Verdict], markdownText(faultName(f)), markdownText(faultLine(l, f)))
	}
	if len(v.Faults) > 0 {
		b.WriteString("\n")
	}
	if r.Checklist != nil {
		markdownChecklist(&b, l, *r.Checklist)
	}
	fmt.Fprintf(&b, "**%s**\n\n", l.say("section.next"))
	for i, n := range r.Next {
		fmt.Fprintf(&b, "%d. %s\n", i+1, markdownText(l.Word(n)))
	}
	fmt.Fprintf(&b, "\n%s\n", l.say("text.named", l.say("next.reproduce"), markdownCode(r.Reproduce)))
	_, err := io.WriteString(w, b.String())
	return err
}

func measured(l Language, f checklist.Finding) string {
	if f.Value == nil {
		return l.say("objective.unmeasured")
	}
	return l.Word(value(*f.Value, f.Unit))
}

// bound is how far off the value may be, towards its limit: ≤ 150 ms.
func bound(l Language, o Objective) string {
	if o.Bound == nil {
		return ""
	}
	sign := "≤ "
	if o.Bar.Floor {
		sign = "≥ "
	}
	return sign + l.Word(value(*o.Bound, o.Unit))
}

func limit(l Language, o Objective) string {
	return strings.TrimSpace(o.Declared.Op + " " + l.Word(value(o.Threshold, o.Unit)))
}

func interruptedText(l Language, i *Interruption) string {
	sentences := []string{l.say("interrupted.cut")}
	if i.By != "" {
		sentences[0] = l.say("interrupted.by", l.told(i.By))
	}
	if len(i.Unplayed) > 0 {
		sentences = append(sentences, l.say("interrupted.unplayed", l.join("text.list", i.Unplayed)))
	}
	return l.join("text.sentences", append(sentences, l.say("interrupted.rest")))
}

// faultLine sums a fault up: its sentence, and what was measured of it.
func faultLine(l Language, f checklist.Fault) string {
	var numbers []string
	add := func(id words.Phrase, v *float64) {
		if v != nil {
			numbers = append(numbers, l.say(id)+" "+l.Word(seconds(*v)))
		}
	}
	add("fault.detection", f.DetectionSeconds)
	add("fault.rto", f.RTOSeconds)
	add("fault.rpo", f.RPOSeconds)
	line := l.say("text.sentence", f.Why)
	if len(numbers) > 0 {
		line = l.say("text.sentences", line, l.say("text.sentence", l.join("text.list", numbers)))
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
