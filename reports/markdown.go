package reports

import (
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
	for _, s := range r.shown() {
		if s.markdown != nil {
			s.markdown(&b, r)
		}
	}
	_, err := io.WriteString(w, strings.TrimRight(b.String(), "\n")+"\n")
	return err
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
