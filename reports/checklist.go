package reports

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/launchgate/launchgate/checklist"
	"github.com/launchgate/launchgate/checklist/release"
)

// ChecklistFile is the state of the go-live checklist when it was last checked
// against the evidence. It lies in the folder of the newest run.
const ChecklistFile = "checklist.json"

// outcomeOf maps the state of a checklist item to an outcome, for its colour.
var outcomeOf = map[release.State]checklist.Outcome{release.Open: checklist.Unproven, release.Done: checklist.Pass, release.Failed: checklist.Fail}

// KeepChecklist writes checklist.json into a run's folder.
func KeepChecklist(dir string, r release.Result) error {
	err := Replace(filepath.Join(dir, ChecklistFile), func(w io.Writer) error {
		encoder := json.NewEncoder(w)
		encoder.SetIndent("", "  ")
		encoder.SetEscapeHTML(false)
		return encoder.Encode(r)
	})
	if err != nil {
		return fmt.Errorf("keep the checklist: %w", err)
	}
	return nil
}

// keptChecklist is what KeepChecklist wrote, nil where nothing was.
func keptChecklist(dir string) (*release.Result, error) {
	path := filepath.Join(dir, ChecklistFile)
	content, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var r release.Result
	if err := json.Unmarshal(content, &r); err != nil {
		return nil, fmt.Errorf("%s: %w; launchgate checklist writes it anew", path, err)
	}
	return &r, nil
}

// ChecklistText writes a checklist for the terminal.
func ChecklistText(w io.Writer, r release.Result, l Language, color bool) error {
	p := paint{on: color}
	var b strings.Builder
	fmt.Fprintf(&b, "\n%s  %s\n", p.outcome(outcomeOf[r.State], strings.ToUpper(l.name("state.", r.State.String()))), printable(r.Name))
	for _, item := range r.Items {
		fmt.Fprintf(&b, "\n%s  %s\n", p.outcome(outcomeOf[item.State], pad(l.name("state.", item.State.String()), 6)), p.bold(printable(l.Word(item.Name.Sentence))))
		for _, c := range item.Checks {
			fmt.Fprintf(&b, "  %s  %s\n          %s\n", p.outcome(outcomeOf[c.State], pad(l.name("state.", c.State.String()), 6)),
				printable(l.Word(c.Name.Sentence)), p.dim(printable(l.Word(c.Why.Sentence))))
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// markdownChecklist is a list of its items, with what is missing of each.
func markdownChecklist(b *strings.Builder, report Report) {
	l, r := report.Language, *report.Checklist
	fmt.Fprintf(b, "**%s** %s\n\n", l.say("section.checklist"), l.name("state.", r.State.String()))
	for _, item := range r.Items {
		fmt.Fprintf(b, "- %s %s\n", markdownSign[outcomeOf[item.State]], markdownText(l.Word(item.Name.Sentence)))
		for _, c := range item.Checks {
			if c.State != release.Done {
				fmt.Fprintf(b, "  - %s %s\n", markdownSign[outcomeOf[c.State]], l.say("text.named", markdownText(l.Word(c.Name.Sentence)), markdownText(l.Word(c.Why.Sentence))))
			}
		}
	}
	b.WriteString("\n")
}
