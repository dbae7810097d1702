// Package ci tells the result of a run to the CI system that launchgate runs in.
package ci

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/launchgate/launchgate/checklist"
	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/reports"
	"github.com/launchgate/launchgate/scenarios"
)

const (
	// maxAnnotations is how many GitHub shows of one kind for a step.
	maxAnnotations = 10
	// maxSummary is how much GitHub takes of a step's summary; of more it shows
	// nothing.
	maxSummary = 1 << 20
)

// GitHub is a step of a GitHub Actions job.
type GitHub struct {
	// Commands is where the workflow commands go: the standard output of the step.
	Commands io.Writer
	// Summary and Output are the files whose contents become the summary and the
	// outputs of the step; empty: there is none.
	Summary, Output string
	// Workspace is the folder that the names of files are relative to.
	Workspace string
}

// InGitHub is the step that this process runs in, by its environment.
func InGitHub(getenv func(string) string, commands io.Writer) (GitHub, bool) {
	g := GitHub{Commands: commands, Summary: getenv("GITHUB_STEP_SUMMARY"), Output: getenv("GITHUB_OUTPUT"), Workspace: getenv("GITHUB_WORKSPACE")}
	return g, getenv("GITHUB_ACTIONS") == "true"
}

// Outputs are the outputs of the step.
type Outputs struct {
	Verdict  string // pass, fail, unproven or invalid; could-not-run
	ExitCode int
	Dir      string // the run folder; empty: there is none
	Report   string // the page for people
}

// Judged tells a judged run: its summary, its outputs, and an annotation for each
// thing that is wrong, on its line of the gate's file.
func (g GitHub) Judged(r reports.Report, dir, gate string, exitCode int) error {
	var summary strings.Builder
	if err := reports.Markdown(&summary, r); err != nil {
		return err
	}
	g.annotate(gate, problems(r, linesOf(gate)))
	dir, err := filepath.Abs(dir)
	return errors.Join(err, g.summarize(summary.String()),
		g.output(Outputs{Verdict: r.Verdict.Verdict.String(), ExitCode: exitCode, Dir: dir, Report: filepath.Join(dir, reports.HTMLFile)}))
}

// Failed tells that a gate could not be played.
func (g GitHub) Failed(why error, gate string, exitCode int) error {
	var found []problem
	var listed scenarios.Problems
	if errors.As(why, &listed) {
		for _, p := range listed {
			found = append(found, problem{level: "error", title: "launchgate: the gate is not valid", line: p.Line, column: p.Column, text: strings.TrimPrefix(p.Path+": "+p.Text, ": ")})
		}
	} else {
		found = []problem{{level: "error", title: "launchgate could not run", line: 1, text: why.Error()}}
	}
	g.annotate(gate, found)
	const could = "could-not-run"
	return errors.Join(
		g.summarize(fmt.Sprintf("## 🚫 launchgate could not run\n\n%s\n", fenced(why.Error()))),
		g.output(Outputs{Verdict: could, ExitCode: exitCode}))
}

// Compared tells the result of a comparison with a baseline.
func (g GitHub) Compared(verdict, text, dir string, exitCode int) error {
	dir, err := filepath.Abs(dir)
	return errors.Join(err, g.summarize(fmt.Sprintf("## launchgate: %s\n\n%s\n", verdict, fenced(text))),
		g.output(Outputs{Verdict: verdict, ExitCode: exitCode, Dir: dir, Report: filepath.Join(dir, "compare.html")}))
}

// problem is one annotation. Line 0 is none.
type problem struct {
	level        string // error | warning
	title        string
	line, column int
	text         string
}

// levels are those of annotations. Nothing that is not proven is a mere notice.
var levels = map[checklist.Outcome]string{checklist.Fail: "error", checklist.Invalid: "error", checklist.Unproven: "warning"}

// problems are what is wrong with a run, what decided the verdict first.
func problems(r reports.Report, lines scenarios.Lines) []problem {
	var found []problem
	l := r.Language
	add := func(o checklist.Outcome, name string, line int, why words.Sentence) {
		if level := levels[o]; level != "" {
			found = append(found, problem{level: level, title: fmt.Sprintf("launchgate: %s: %s", o, name), line: line, text: l.Word(why)})
		}
	}
	if !r.Verdict.Client.Valid {
		add(checklist.Invalid, "client", 1, r.Verdict.Client.Why)
	}
	for _, o := range r.Objectives {
		if !o.Waived {
			add(o.Verdict, o.Source, lines.Objective(o.Source), o.Why)
		}
	}
	for _, f := range r.Verdict.Faults {
		if slices.ContainsFunc(r.Objectives, func(o reports.Objective) bool { return o.Verdict == f.Verdict && o.Why.Same(f.Why) }) {
			continue // its objective says the same
		}
		add(f.Verdict, strings.TrimSpace(f.Kind+" "+f.Target), lines.Fault(f.ID), f.Why)
	}
	for _, c := range r.Scan {
		if c.Outcome == recording.ScanUnproven && !c.LeftOut {
			add(checklist.Unproven, "scan: "+c.Check, lines.Scan(), c.Why.Sentence)
		}
	}
	if len(found) == 0 && r.Verdict.Verdict != checklist.Pass && len(r.Verdict.Why) > 0 {
		add(r.Verdict.Verdict, r.Gate, 1, r.Verdict.Why[0])
	}
	return found
}

// annotate writes the first of the problems as workflow commands. GitHub shows
// ten of each level; the rest stands in the report.
func (g GitHub) annotate(gate string, found []problem) {
	written := map[string]int{}
	for _, p := range found {
		if written[p.level]++; written[p.level] > maxAnnotations {
			continue
		}
		var where []string
		if file := g.relative(gate); file != "" {
			where = append(where, "file="+property(file), fmt.Sprintf("line=%d", max(p.line, 1)))
			if p.column > 0 {
				where = append(where, fmt.Sprintf("col=%d", p.column))
			}
		}
		where = append(where, "title="+property(p.title))
		fmt.Fprintf(g.Commands, "::%s %s::%s\n", p.level, strings.Join(where, ","), message(p.text))
	}
}

// relative is the name of a file as GitHub knows it, from the root of the
// repository.
func (g GitHub) relative(file string) string {
	if file == "" || g.Workspace == "" {
		return filepath.ToSlash(file)
	}
	whole, err := filepath.Abs(file)
	if err != nil {
		return filepath.ToSlash(file)
	}
	if inside, err := filepath.Rel(g.Workspace, whole); err == nil && filepath.IsLocal(inside) {
		return filepath.ToSlash(inside)
	}
	return filepath.ToSlash(file)
}

// These escape what has a meaning in workflow commands.
var (
	messageEscapes  = strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A")
	propertyEscapes = strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A", ":", "%3A", ",", "%2C")
)

func message(s string) string  { return messageEscapes.Replace(s) }
func property(s string) string { return propertyEscapes.Replace(s) }

func (g GitHub) summarize(text string) error {
	if g.Summary == "" {
		return nil
	}
	if len(text) > maxSummary {
		text = text[:strings.LastIndexByte(text[:maxSummary-100], '\n')+1] + "\nThe rest of the summary is in summary.md of the run folder.\n"
	}
	return appendTo(g.Summary, text+"\n")
}

func (g GitHub) output(o Outputs) error {
	if g.Output == "" {
		return nil
	}
	var b strings.Builder
	for _, pair := range [][2]string{{"verdict", o.Verdict}, {"exit-code", fmt.Sprint(o.ExitCode)}, {"run", o.Dir}, {"report", o.Report}} {
		// A value may have any text, a line break and the name of another output
		// too, so its end is a word that nobody can know before.
		end := "end-" + rand.Text()
		fmt.Fprintf(&b, "%s<<%s\n%s\n%s\n", pair[0], end, pair[1], end)
	}
	return appendTo(g.Output, b.String())
}

func appendTo(path, text string) error {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("tell GitHub: %w", err)
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

// fenced is a block of text that no text can leave.
func fenced(text string) string {
	fence := "```"
	for strings.Contains(text, fence) {
		fence += "`"
	}
	return fence + "text\n" + strings.TrimRight(text, "\n") + "\n" + fence
}

func linesOf(gate string) scenarios.Lines {
	if gate == "" {
		return scenarios.LinesOf(nil)
	}
	src, err := os.ReadFile(gate)
	if err != nil {
		return scenarios.LinesOf(nil) // it was there when the run began
	}
	return scenarios.LinesOf(src)
}
