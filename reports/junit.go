package reports

import (
	"encoding/xml"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/launchgate/launchgate/checklist"
	"github.com/launchgate/launchgate/internal/words"
)

// JUnit has no outcome for unproven. A failed objective is a failure. An unproven or
// invalid one is an error, because skipped tests count as passed. Skipped is only
// what the gate itself waives.
type junitSuites struct {
	XMLName  xml.Name     `xml:"testsuites"`
	Name     string       `xml:"name,attr"`
	Tests    int          `xml:"tests,attr"`
	Failures int          `xml:"failures,attr"`
	Errors   int          `xml:"errors,attr"`
	Skipped  int          `xml:"skipped,attr,omitempty"`
	Suites   []junitSuite `xml:"testsuite"`
}

type junitSuite struct {
	Name      string      `xml:"name,attr"`
	Tests     int         `xml:"tests,attr"`
	Failures  int         `xml:"failures,attr"`
	Errors    int         `xml:"errors,attr"`
	Skipped   int         `xml:"skipped,attr,omitempty"`
	Timestamp string      `xml:"timestamp,attr,omitempty"`
	Cases     []junitCase `xml:"testcase"`
}

type junitCase struct {
	Name    string        `xml:"name,attr"`
	Class   string        `xml:"classname,attr"`
	Failure *junitProblem `xml:"failure"`
	Error   *junitProblem `xml:"error"`
	Skipped *junitProblem `xml:"skipped"`
	Output  string        `xml:"system-out,omitempty"`
}

type junitProblem struct {
	Type    string `xml:"type,attr"`
	Message string `xml:"message,attr"`
	Text    string `xml:",chardata"`
}

// junitRun is the suite of the run as a whole.
const junitRun = "run"

// JUnit writes the suites of the sections, a suite with all cases of its name.
func JUnit(w io.Writer, r Report) error {
	suites := junitSuites{Name: "launchgate " + r.Gate}
	for _, s := range r.shown() {
		if s.junit != nil {
			for _, suite := range s.junit(r) {
				suites.add(suite)
			}
		}
	}
	return suites.write(w, r.Environment.StartedAt)
}

// write sums up the suites of a run that began at a time, and writes them.
func (s *junitSuites) write(w io.Writer, at time.Time) error {
	for i := range s.Suites {
		s.count(&s.Suites[i], at)
	}
	if _, err := io.WriteString(w, xml.Header); err != nil {
		return err
	}
	encoder := xml.NewEncoder(w)
	encoder.Indent("", "  ")
	if err := encoder.Encode(s); err != nil {
		return err
	}
	_, err := io.WriteString(w, "\n")
	return err
}

func junitResult(name, class string, o checklist.Outcome, message, text string) junitCase {
	c := junitCase{Name: name, Class: class}
	problem := &junitProblem{Type: o.String(), Message: message, Text: text}
	switch o {
	case checklist.Pass:
		c.Output = text
	case checklist.Fail:
		c.Failure = problem
	default:
		c.Error = problem
	}
	return c
}

// add puts the cases of a suite with those that there are of its name.
func (s *junitSuites) add(suite junitSuite) {
	i := slices.IndexFunc(s.Suites, func(has junitSuite) bool { return has.Name == suite.Name })
	if i < 0 {
		s.Suites = append(s.Suites, suite)
		return
	}
	s.Suites[i].Cases = append(s.Suites[i].Cases, suite.Cases...)
}

// count sums up the cases of a suite.
func (s *junitSuites) count(suite *junitSuite, at time.Time) {
	suite.Tests = len(suite.Cases)
	if !at.IsZero() {
		suite.Timestamp = at.UTC().Format("2006-01-02T15:04:05")
	}
	for _, c := range suite.Cases {
		if c.Failure != nil {
			suite.Failures++
		}
		if c.Error != nil {
			suite.Errors++
		}
		if c.Skipped != nil {
			suite.Skipped++
		}
	}
	s.Tests += suite.Tests
	s.Failures += suite.Failures
	s.Errors += suite.Errors
	s.Skipped += suite.Skipped
}

func lines(l Language, said []words.Sentence) string {
	var all []string
	for _, s := range said {
		all = append(all, l.Word(s))
	}
	return strings.Join(all, "\n")
}
