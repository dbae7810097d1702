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

// ExitCode is that of the worst run. A matrix without a run was interrupted before the
// first.
func (m Matrix) ExitCode() int {
	if len(m.Runs) == 0 {
		return checklist.ExitInterrupted
	}
	code := 0
	for _, r := range m.Runs {
		if slices.Index(worst, known(r.ExitCode)) > slices.Index(worst, code) {
			code = known(r.ExitCode)
		}
	}
	return code
}

// known is an exit code of launchgate. Any other, such as that of a run that was killed,
// is as bad as a run that could not be made.
func known(code int) int {
	if slices.Contains(worst, code) {
		return code
	}
	return checklist.ExitCouldNotRun
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

// matrixTable sets some of the runs side by side: as many as a sheet of paper has room
// for.
type matrixTable struct {
	Runs []MatrixRun
	Rows []matrixRow
}

const runsOfATable = 5

func (m Matrix) tables() (all []matrixTable) {
	for runs := range slices.Chunk(m.Runs, runsOfATable) {
		all = append(all, matrixTable{runs, m.rows(runs)})
	}
	return all
}

func (m Matrix) rows(runs []MatrixRun) []matrixRow {
	var rows []matrixRow
	for i, run := range runs {
		for _, f := range run.Verdict.Objectives {
			at := slices.IndexFunc(rows, func(r matrixRow) bool { return r.Source == f.Source })
			if at < 0 {
				at = len(rows)
				rows = append(rows, matrixRow{Source: f.Source, Cells: make([]matrixCell, len(runs))})
			}
			rows[at].Cells[i] = matrixCell{f.Verdict, Measured(m.Language, f)}
		}
	}
	return rows
}

// outcomes are the outcomes of the exit codes. A run that could not be made, or was not
// played to its end, has none.
var outcomes = map[int]checklist.Outcome{checklist.ExitPass: checklist.Pass, checklist.ExitFail: checklist.Fail, checklist.ExitInvalid: checklist.Invalid}

// Outcome is that of the exit code, for its colour.
func (r MatrixRun) Outcome() checklist.Outcome { return outcomes[r.ExitCode] }

// outcomeWord words an exit code, as the heading of the page and of each run.
func (m Matrix) outcomeWord(code int) string {
	switch code {
	case checklist.ExitPass, checklist.ExitFail, checklist.ExitUnproven, checklist.ExitInvalid:
		return m.Language.name("outcome.", outcomes[code].String())
	case checklist.ExitInterrupted:
		return m.Language.say("outcome.interrupted")
	}
	return m.Language.say("outcome.could-not-run")
}

// MatrixTerminal tells the runs in a table; dir is where its page lies.
func MatrixTerminal(w io.Writer, m Matrix, dir string) error {
	l := m.Language
	var b strings.Builder
	fmt.Fprintf(&b, "\n%s\n\n", l.say("matrix.title", m.Gate, count(int64(len(m.Runs)))))
	for _, r := range m.Runs {
		fmt.Fprintf(&b, "%s  %s\n", pad(m.outcomeWord(r.ExitCode), 13), printable(m.settingsOf(r)))
		for _, f := range r.Verdict.Objectives {
			fmt.Fprintf(&b, "               %s  %s  %s\n", pad(l.name("outcome.", f.Verdict.String()), 9), pad(printable(f.Source), 40), Measured(l, f))
		}
		if r.Error != "" {
			fmt.Fprintf(&b, "               %s\n", printable(r.Error))
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
	t, err := template.New("matrix").Funcs(template.FuncMap{"say": m.Language.sayID, "outcome": m.outcomeWord, "inc": func(n int) int { return n + 1 }}).Parse(matrixTemplate)
	if err != nil {
		return err
	}
	return t.Execute(w, struct {
		Matrix
		Tables []matrixTable
		Count  string
		Worst  checklist.Outcome // that of the exit code
		Icon   template.URL
		Style  template.CSS
		Policy template.HTML
	}{m, m.tables(), count(int64(len(m.Runs))), outcomes[m.ExitCode()], pageIcon, template.CSS(pageStyle), template.HTML(policy(pageStyle))})
}
