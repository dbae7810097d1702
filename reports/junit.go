package reports

import (
	"encoding/xml"
	"io"
	"strings"

	"github.com/launchgate/launchgate/checklist"
	"github.com/launchgate/launchgate/internal/words"
)

// JUnit has no word for doubt. What failed is a failure; what is unproven or
// invalid is an error, because a test that is skipped counts as green. Skipped is
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

// JUnit writes a suite for the verdict and the client, one for each scenario's
// objectives, and one for the faults. Its first case is the verdict itself, so
// that the file is green exactly when the exit code is 0.
func JUnit(w io.Writer, r Report) error {
	v, l := r.Verdict, r.Language
	suites := junitSuites{Name: "launchgate " + r.Gate}
	client := checklist.Pass
	if !v.Client.Valid {
		client = checklist.Invalid
	}
	suites.add("run", r, []junitCase{
		junitResult("verdict", r.Gate, v.Verdict, headline(r), lines(l, v.Why)),
		junitResult("client", r.Gate, client, l.Word(v.Client.Why), l.Word(v.Client.Why)),
	})
	var names []string
	cases := map[string][]junitCase{}
	for _, o := range r.Objectives {
		f, name := o.Finding, "objectives"
		if f.Scenario != "" {
			name = "objectives: " + f.Scenario
		}
		if cases[name] == nil {
			names = append(names, name)
		}
		result := junitResult(f.Source, r.Gate+"."+orDefault(f.Scenario, "run"), f.Verdict, l.Word(f.Why), findingLine(l, o))
		if f.Waived {
			result.Skipped, result.Error = result.Error, nil
		}
		cases[name] = append(cases[name], result)
	}
	for _, name := range names {
		suites.add(name, r, cases[name])
	}
	var faults []junitCase
	for _, f := range v.Faults {
		faults = append(faults, junitResult(faultName(f), r.Gate+"."+f.Scenario, f.Verdict, l.Word(f.Why), l.Word(f.Why)))
	}
	if len(faults) > 0 {
		suites.add("faults", r, faults)
	}
	if _, err := io.WriteString(w, xml.Header); err != nil {
		return err
	}
	encoder := xml.NewEncoder(w)
	encoder.Indent("", "  ")
	if err := encoder.Encode(suites); err != nil {
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

func (s *junitSuites) add(name string, r Report, cases []junitCase) {
	suite := junitSuite{Name: name, Tests: len(cases), Cases: cases}
	if t := r.Environment.StartedAt; !t.IsZero() {
		suite.Timestamp = t.UTC().Format("2006-01-02T15:04:05")
	}
	for _, c := range cases {
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
	s.Suites = append(s.Suites, suite)
}

func findingLine(l Language, o Objective) string {
	got := measured(l, o.Finding)
	if o.Bound != nil {
		got = l.say("junit.bound", got, bound(l, o))
	}
	return l.say("junit.finding", got, value(o.Threshold, o.Unit), samples(l, o.Samples), o.Why)
}

func orDefault(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

func lines(l Language, said []words.Sentence) string {
	var all []string
	for _, s := range said {
		all = append(all, l.Word(s))
	}
	return strings.Join(all, "\n")
}
