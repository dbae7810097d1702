package reports

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/launchgate/launchgate/checklist"
)

// Matrix sets the runs of one gate side by side, one for each combination of values. It
// is matrix.json.
type Matrix struct {
	Language Language    `json:"-"`
	Gate     string      `json:"gate"`
	Axes     []string    `json:"axes"`
	Runs     []MatrixRun `json:"runs"`
	At       time.Time   `json:"at"`
	Version  string      `json:"version"`
}

// MatrixRun is one run with its settings.
type MatrixRun struct {
	Settings map[string]string `json:"settings"`
	Folder   string            `json:"folder"`
	ExitCode int               `json:"exit_code"`
	Verdict  checklist.Verdict `json:"verdict"`
	Error    string            `json:"error,omitempty"` // there is no recording that could be judged
}

// worst orders exit codes from the best to the worst.
var worst = []int{checklist.ExitPass, checklist.ExitUnproven, checklist.ExitFail, checklist.ExitInvalid, checklist.ExitCouldNotRun, checklist.ExitInterrupted}

// ExitCode is that of the worst run.
func (m Matrix) ExitCode() int {
	code := 0
	for _, r := range m.Runs {
		if slices.Index(worst, r.ExitCode) > slices.Index(worst, code) {
			code = r.ExitCode
		}
	}
	return code
}

// matrixRow is one objective over all runs.
type matrixRow struct {
	Source string
	Cells  []matrixCell
}

type matrixCell struct {
	Outcome checklist.Outcome
	Value   string
}

func (m Matrix) rows() []matrixRow {
	var rows []matrixRow
	for i, run := range m.Runs {
		for _, f := range run.Verdict.Objectives {
			at := slices.IndexFunc(rows, func(r matrixRow) bool { return r.Source == f.Source })
			if at < 0 {
				at = len(rows)
				rows = append(rows, matrixRow{Source: f.Source, Cells: make([]matrixCell, len(m.Runs))})
			}
			rows[at].Cells[i] = matrixCell{f.Verdict, Measured(m.Language, f)}
		}
	}
	return rows
}

// head is what the columns of the runs are called, without their settings.
func (m Matrix) head(r MatrixRun) string {
	return m.Language.name("outcome.", r.Verdict.Verdict.String())
}

// MatrixTerminal tells the runs in a table; dir is where its page lies.
func MatrixTerminal(w io.Writer, m Matrix, dir string) error {
	l := m.Language
	var b strings.Builder
	fmt.Fprintf(&b, "\n%s\n\n", l.say("matrix.title", m.Gate, count(int64(len(m.Runs)))))
	for _, r := range m.Runs {
		fmt.Fprintf(&b, "%s  %s\n", pad(m.head(r), 9), printable(m.settingsOf(r)))
		for _, f := range r.Verdict.Objectives {
			fmt.Fprintf(&b, "           %s  %s  %s\n", pad(l.name("outcome.", f.Verdict.String()), 9), pad(printable(f.Source), 40), Measured(l, f))
		}
		if r.Error != "" {
			fmt.Fprintf(&b, "           %s\n", printable(r.Error))
		}
	}
	fmt.Fprintf(&b, "\n%s  %s\n", l.say("terminal.report"), printable(filepath.Join(dir, "matrix.html")))
	_, err := io.WriteString(w, b.String())
	return err
}

func (m Matrix) settingsOf(r MatrixRun) string {
	var all []string
	for _, axis := range m.Axes {
		all = append(all, axis+"="+r.Settings[axis])
	}
	return strings.Join(all, ", ")
}

//go:embed page/matrix.html.tmpl
var matrixTemplate string

// MatrixHTML writes the page that sets the runs side by side.
func MatrixHTML(w io.Writer, m Matrix) error {
	t, err := template.New("matrix").Funcs(template.FuncMap{"say": m.Language.sayID}).Parse(matrixTemplate)
	if err != nil {
		return err
	}
	return t.Execute(w, struct {
		Matrix
		Rows   []matrixRow
		Count  string
		Worst  checklist.Outcome
		Icon   template.URL
		Style  template.CSS
		Policy template.HTML
	}{m, m.rows(), count(int64(len(m.Runs))), m.worstOutcome(), pageIcon, template.CSS(pageStyle), template.HTML(policy(pageStyle))})
}

// worstOutcome is the outcome of the worst run.
func (m Matrix) worstOutcome() checklist.Outcome {
	outcome := checklist.Pass
	for _, o := range []checklist.Outcome{checklist.Unproven, checklist.Fail, checklist.Invalid} {
		if slices.ContainsFunc(m.Runs, func(r MatrixRun) bool { return r.Verdict.Verdict == o }) {
			outcome = o
		}
	}
	if len(m.Runs) == 0 {
		return checklist.Unproven
	}
	return outcome
}
