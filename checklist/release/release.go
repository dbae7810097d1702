// Package release checks a go-live checklist against its evidence. A verdict is about
// one run, but whether a service may be launched also depends on tests, a scan, a
// runbook and people. Evidence is a run, a file, or a statement that a person has
// signed and that expires. An item without evidence stays open.
package release

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/scenarios"
)

// Checklist is the content of a release.yaml.
type Checklist struct {
	Name    string `yaml:"name"`
	Signers string `yaml:"signers"` // OpenSSH's allowed_signers file: who may sign statements
	Items   []Item `yaml:"items"`

	dir string // the folder of its files
}

// Item is one line of the checklist.
type Item struct {
	ID     string  `yaml:"id"`
	Name   string  `yaml:"name"`
	Checks []Check `yaml:"checks"`
}

// Check is a part of an item, with one kind of evidence.
type Check struct {
	ID        string `yaml:"id"`
	Name      string `yaml:"name"`
	Promise   string `yaml:"promise"`   // a metric, such as ttft or rto(node-loss)
	Tests     string `yaml:"tests"`     // a JUnit file
	Scan      string `yaml:"scan"`      // a SARIF file
	Document  string `yaml:"document"`  // a text with the date of its last review
	Statement string `yaml:"statement"` // a signed file
	Within    Age    `yaml:"within"`    // largest age of the evidence; 0: any
}

// Age is a duration that may have days, as in 90d.
type Age time.Duration

// UnmarshalText reads an age.
func (a *Age) UnmarshalText(text []byte) error {
	if days, ok := strings.CutSuffix(string(text), "d"); ok {
		if n, err := strconv.Atoi(days); err == nil && n > 0 && n < 100_000 {
			*a = Age(time.Duration(n) * 24 * time.Hour)
			return nil
		}
	}
	if d, err := time.ParseDuration(string(text)); err == nil && d > 0 {
		*a = Age(d)
		return nil
	}
	return fmt.Errorf("found %q, expected an age such as 7d or 12h", text)
}

// String formats an age as it is parsed.
func (a Age) String() string {
	if day := 24 * time.Hour; time.Duration(a)%day == 0 {
		return fmt.Sprintf("%dd", time.Duration(a)/day)
	}
	return time.Duration(a).String()
}

// Load reads a checklist; its files are in the same folder.
func Load(path string) (Checklist, error) {
	src, err := os.ReadFile(path)
	if err != nil {
		return Checklist{}, fmt.Errorf("the checklist: %w", err)
	}
	return Parse(path, filepath.Dir(path), src)
}

// Parse parses a checklist whose files are in dir. Errors name the file and, if known,
// the line.
func Parse(name, dir string, src []byte) (Checklist, error) {
	c := Checklist{dir: dir}
	if err := yaml.NewDecoder(bytes.NewReader(src), yaml.Strict()).Decode(&c); err != nil && !errors.Is(err, io.EOF) {
		var at yaml.Error
		if errors.As(err, &at) && at.GetToken() != nil {
			return Checklist{}, fmt.Errorf("%s:%d: %s", name, at.GetToken().Position.Line, at.GetMessage())
		}
		return Checklist{}, fmt.Errorf("%s: %w", name, err)
	}
	if err := c.validate(); err != nil {
		return Checklist{}, fmt.Errorf("%s: %w", name, err)
	}
	return c, nil
}

var (
	idPattern      = regexp.MustCompile(`^[a-z0-9][a-z0-9-]*$`)
	promisePattern = regexp.MustCompile(`^([a-z_]+)(?:\(([a-z0-9_-]+)\))?$`)
)

func (c Checklist) validate() error {
	if len(c.Items) == 0 {
		return errors.New("items: found none, expected at least one")
	}
	seen := map[string]bool{}
	for i, item := range c.Items {
		at := fmt.Sprintf("items[%d]", i)
		if !idPattern.MatchString(item.ID) || seen[item.ID] {
			return fmt.Errorf("%s.id: found %q, expected lower-case letters, digits and dashes that no other item has", at, item.ID)
		}
		seen[item.ID] = true
		if len(item.Checks) == 0 {
			return fmt.Errorf("%s (%s): found no checks; an item without any would be done from the start", at, item.ID)
		}
		for j, check := range item.Checks {
			id := item.ID + "/" + check.ID
			if !idPattern.MatchString(check.ID) || seen[id] {
				return fmt.Errorf("%s.checks[%d].id: found %q, expected lower-case letters, digits and dashes that no other check of %s has", at, j, check.ID, item.ID)
			}
			seen[id] = true
			if err := check.validate(); err != nil {
				return fmt.Errorf("%s: %w", id, err)
			}
			if check.Statement != "" && c.Signers == "" {
				return fmt.Errorf("%s asks for a signed statement, and signers names no file of those who may sign", id)
			}
		}
	}
	return nil
}

func (c Check) validate() error {
	kinds := 0
	for _, evidence := range []string{c.Promise, c.Tests, c.Scan, c.Document, c.Statement} {
		if evidence != "" {
			kinds++
		}
	}
	if kinds != 1 {
		return fmt.Errorf("found %d kinds of evidence, expected one of promise, tests, scan, document and statement", kinds)
	}
	if c.Statement != "" && c.Within != 0 {
		return errors.New("a statement says itself when it expires; leave within out")
	}
	if c.Promise == "" {
		return nil
	}
	parts := promisePattern.FindStringSubmatch(c.Promise)
	if parts == nil {
		return fmt.Errorf("promise: found %q, expected a metric such as ttft or rto(node-loss)", c.Promise)
	}
	for _, m := range scenarios.Metrics() {
		if m.Name == parts[1] {
			if parts[2] != "" && m.Arg == scenarios.NoArg {
				return fmt.Errorf("promise: %s takes nothing in brackets", m.Name)
			}
			return nil
		}
	}
	return fmt.Errorf("promise: there is no metric %q; launchgate list objectives has them", parts[1])
}

// State of a check, of an item, or of the whole list. The zero value is open.
type State int

const (
	Open State = iota // no evidence, or none that is still valid
	Done
	Failed // the evidence shows a failure
)

var stateNames = [...]string{"open", "done", "failed"}

func (s State) String() string { return stateNames[s] }

// MarshalText writes the state as in checklist.json.
func (s State) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (s *State) UnmarshalText(b []byte) error {
	for i, name := range stateNames {
		if name == string(b) {
			*s = State(i)
			return nil
		}
	}
	return fmt.Errorf("%q is not a state; %s are", b, strings.Join(stateNames[:], ", "))
}

// of is the state of several parts: failed if one has failed, done if all are done.
func of(parts []State) State {
	all := Done
	for _, s := range parts {
		if s == Failed {
			return Failed
		}
		if s == Open {
			all = Open
		}
	}
	return all
}

// Result is checklist.json: the state of a checklist.
type Result struct {
	Name  string       `json:"name"`
	At    time.Time    `json:"at"` // when the evidence was checked
	State State        `json:"state"`
	Items []ItemResult `json:"items"`
}

// ItemResult is the state of an item.
type ItemResult struct {
	ID     string        `json:"id"`
	Name   words.Kept    `json:"name"`
	State  State         `json:"state"`
	Checks []CheckResult `json:"checks"`
}

// CheckResult is the state of a check, and the reason.
type CheckResult struct {
	ID    string     `json:"id"`
	Name  words.Kept `json:"name"`
	State State      `json:"state"`
	Why   words.Kept `json:"why"` // kept as a sentence, so that a report can translate it
}

// Hold checks the checklist against the evidence at a time.
func (c Checklist) Hold(now time.Time, runs []Run) Result {
	r := Result{Name: c.Name, At: now.UTC().Truncate(time.Second)}
	var items []State
	for _, item := range c.Items {
		held := ItemResult{ID: item.ID, Name: named(item.Name)}
		var states []State
		for _, check := range item.Checks {
			state, why := c.check(now, runs, item.ID+"/"+check.ID, check)
			held.Checks = append(held.Checks, CheckResult{check.ID, named(check.Name), state, words.Kept{Sentence: why}})
			states = append(states, state)
		}
		held.State = of(states)
		items = append(items, held.State)
		r.Items = append(r.Items, held)
	}
	r.State = of(items)
	return r
}

func (c Checklist) check(now time.Time, runs []Run, id string, check Check) (State, words.Sentence) {
	switch {
	case check.Promise != "":
		return kept(now, runs, check)
	case check.Tests != "":
		return c.read(now, check, check.Tests, junit)
	case check.Scan != "":
		return c.read(now, check, check.Scan, sarif)
	case check.Document != "":
		return c.read(now, check, check.Document, document)
	default:
		return c.statement(now, id, check.Statement)
	}
}

// read reads a file of evidence with a reader, and checks its age.
func (c Checklist) read(now time.Time, check Check, name string, reader func([]byte) found) (State, words.Sentence) {
	content, err := os.ReadFile(filepath.Join(c.dir, name))
	if errors.Is(err, os.ErrNotExist) {
		return Open, words.Say("%s does not exist", name)
	}
	if err != nil {
		return Open, words.Say("%s cannot be read: %v", name, err)
	}
	f := reader(content)
	if f.state != Done {
		return f.state, words.Say("%s: %s", name, f.why)
	}
	if f.at.IsZero() && check.Within != 0 {
		info, err := os.Stat(filepath.Join(c.dir, name))
		if err != nil {
			return Open, words.Say("%s cannot be read: %v", name, err)
		}
		f.at = info.ModTime()
	}
	if state, why := aged(now, f.at, check.Within); state != Done {
		return state, words.Say("%s: %s", name, why)
	}
	return Done, words.Say("%s: %s", name, f.why)
}

// found is the result of a file of evidence, and its date if it has one.
type found struct {
	state State
	why   words.Sentence
	at    time.Time
}

const day = time.DateOnly

// aged reports whether evidence is recent enough.
func aged(now, at time.Time, within Age) (State, words.Sentence) {
	switch {
	case at.After(now.Add(24 * time.Hour)): // a day of tolerance for time zones further east
		return Open, words.Say("its date is %s, which is in the future", at.Format(day))
	case within != 0 && now.Sub(at) > time.Duration(within):
		return Open, words.Say("its date is %s, and it may be at most %s old", at.Format(day), within)
	}
	return Done, words.Sentence{}
}
