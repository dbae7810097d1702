package reports

import (
	"encoding/json"
	"fmt"
	"io"
	"path/filepath"

	"github.com/launchgate/launchgate/checklist"
	"github.com/launchgate/launchgate/internal/durable"
	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/scenarios"
)

// The files of a report, in the folder of the recording.
const (
	VerdictFile  = "verdict.json"
	HTMLFile     = "report.html"
	JUnitFile    = "junit.xml"
	MarkdownFile = "summary.md"
	SARIFFile    = "results.sarif" // where there was a security scan
)

// file is one of them, and what writes it.
type file struct {
	name  string
	write func(io.Writer) error
}

// WriteAll writes the verdict and every form of the report into dir. Each file
// is replaced as a whole, so that a reader never finds half of one, and
// verdict.json is replaced last: if it is new, the others are new too. It returns
// the report.
func WriteAll(dir string, gate scenarios.Gate, rec *recording.Recording, v checklist.Verdict, lang Language) (Report, error) {
	r, err := Build(gate, rec, v)
	if err != nil {
		return Report{}, err
	}
	r.Language = lang
	if r.Checklist, err = keptChecklist(dir); err != nil {
		return Report{}, err
	}
	r.Next = next(r) // an open checklist comes before a launch
	forms := []file{
		{HTMLFile, func(w io.Writer) error { return HTML(w, r) }},
		{JUnitFile, func(w io.Writer) error { return JUnit(w, r) }},
		{MarkdownFile, func(w io.Writer) error { return Markdown(w, r) }},
	}
	if len(r.Scan) > 0 {
		forms = append(forms, file{SARIFFile, func(w io.Writer) error { return SARIF(w, r) }})
	}
	for _, f := range append(forms, file{VerdictFile, func(w io.Writer) error { return Verdict(w, v) }}) {
		if err := Replace(filepath.Join(dir, f.name), f.write); err != nil {
			return Report{}, fmt.Errorf("write the report: %w", err)
		}
	}
	return r, nil
}

// Verdict writes verdict.json.
func Verdict(w io.Writer, v checklist.Verdict) error {
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false) // objectives are full of < and >
	return encoder.Encode(v)
}

// Replace writes a file of a report as a whole.
func Replace(path string, write func(io.Writer) error) error {
	return durable.Replace(path, 0o644, write)
}
