package release

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/launchgate/launchgate/internal/words"
)

// junit reads the results of tests, in the formats of Ginkgo, go-junit-report, pytest
// and Maven.
func junit(content []byte) found {
	var ran, failed, skipped int
	var first string
	var at time.Time
	decoder := xml.NewDecoder(bytes.NewReader(content))
	inside := 0 // nesting depth in a testcase
	bad, skip, name := false, false, ""
	for {
		token, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return found{Open, words.Say("it is not a JUnit file: %v", err), time.Time{}}
		}
		switch t := token.(type) {
		case xml.StartElement:
			switch {
			case inside > 0:
				inside++
				bad = bad || t.Name.Local == "failure" || t.Name.Local == "error"
				skip = skip || t.Name.Local == "skipped"
			case t.Name.Local == "testcase":
				inside, bad, skip, name = 1, false, false, attribute(t, "name")
			case t.Name.Local == "testsuite", t.Name.Local == "testsuites":
				if when, ok := moment(attribute(t, "timestamp")); ok && when.After(at) {
					at = when
				}
			}
		case xml.EndElement:
			if inside == 0 {
				continue
			}
			if inside--; inside > 0 {
				continue
			}
			switch {
			case bad:
				if failed++; failed == 1 {
					first = name
				}
			case skip:
				skipped++
			default:
				ran++
			}
		}
	}
	switch {
	case failed > 0:
		return found{Failed, words.Say("%d tests failed, the first: %s", failed, first), at}
	case ran == 0:
		return found{Open, words.Say("no test in it ran (%d were skipped)", skipped), at}
	}
	return found{Done, words.Say("%d tests passed, %d were skipped", ran, skipped), at}
}

func attribute(e xml.StartElement, name string) string {
	for _, a := range e.Attr {
		if a.Name.Local == name {
			return a.Value
		}
	}
	return ""
}

// moment parses the times in JUnit and SARIF files.
func moment(text string) (time.Time, bool) {
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02 15:04:05"} {
		if t, err := time.Parse(layout, text); err == nil {
			return t, true
		}
	}
	return time.Time{}, false
}

// scanLog is the part of a SARIF 2.1.0 file (OASIS 2020) that is read.
type scanLog struct {
	Runs []struct {
		Tool struct {
			Driver struct {
				Name  string `json:"name"`
				Rules []rule `json:"rules"`
			} `json:"driver"`
		} `json:"tool"`
		Invocations []struct {
			Successful *bool  `json:"executionSuccessful"`
			End        string `json:"endTimeUtc"`
		} `json:"invocations"`
		Results []struct {
			RuleID       string            `json:"ruleId"`
			RuleIndex    *int              `json:"ruleIndex"`
			Kind         string            `json:"kind"`
			Level        string            `json:"level"`
			Suppressions []json.RawMessage `json:"suppressions"`
			Properties   severity          `json:"properties"`
		} `json:"results"`
	} `json:"runs"`
}

type rule struct {
	ID         string   `json:"id"`
	Properties severity `json:"properties"`
	Default    struct {
		Level string `json:"level"`
	} `json:"defaultConfiguration"`
}

// severity is a CVSS score, in the form that code hosts use.
type severity struct {
	Score json.RawMessage `json:"security-severity"`
}

func (s severity) score() (float64, bool) {
	v, err := strconv.ParseFloat(strings.Trim(string(s.Score), `"`), 64)
	return v, err == nil
}

// highScore is the score from which CVSS 3 and 4 call a vulnerability high.
const highScore = 7.0

// sarif reads the results of a security scan. A result is high by its own score or that
// of its rule; if neither has one, an error counts as high.
func sarif(content []byte) found {
	var log scanLog
	if err := json.Unmarshal(content, &log); err != nil {
		return found{Open, words.Say("it is not a SARIF file: %v", err), time.Time{}}
	}
	if len(log.Runs) == 0 {
		return found{Open, words.Say("it contains no scan"), time.Time{}}
	}
	var at time.Time
	high, others := 0, 0
	first := ""
	for _, run := range log.Runs {
		for _, i := range run.Invocations {
			if i.Successful != nil && !*i.Successful {
				return found{Open, words.Say("the scan by %s did not succeed", run.Tool.Driver.Name), at}
			}
			if when, ok := moment(i.End); ok && when.After(at) {
				at = when
			}
		}
		for _, r := range run.Results {
			if len(r.Suppressions) > 0 || r.Kind != "" && r.Kind != "fail" {
				continue
			}
			level, score, scored := r.Level, 0.0, false
			if by := ruleOf(run.Tool.Driver.Rules, r.RuleID, r.RuleIndex); by != nil {
				if level == "" {
					level = by.Default.Level
				}
				score, scored = by.Properties.score()
			}
			if own, ok := r.Properties.score(); ok {
				score, scored = own, true
			}
			if scored && score >= highScore || !scored && level == "error" {
				if high++; high == 1 {
					first = r.RuleID
				}
			} else {
				others++
			}
		}
	}
	if high > 0 {
		return found{Failed, words.Say("%d findings of severity high or worse, the first: %s", high, first), at}
	}
	return found{Done, words.Say("no finding of severity high or worse, %d below", others), at}
}

func ruleOf(rules []rule, id string, index *int) *rule {
	if index != nil && *index >= 0 && *index < len(rules) {
		return &rules[*index]
	}
	for i := range rules {
		if rules[i].ID == id {
			return &rules[i]
		}
	}
	return nil
}

var reviewed = regexp.MustCompile(`(?im)^[^\w\n]*(?:last )?reviewed(?: on)?[:*_ ]+(\d{4}-\d{2}-\d{2})`)

// document reads the date on which a document was last reviewed.
func document(content []byte) found {
	newest := time.Time{}
	for _, m := range reviewed.FindAllSubmatch(content, -1) {
		if t, err := time.Parse(day, string(m[1])); err == nil && t.After(newest) {
			newest = t
		}
	}
	if newest.IsZero() {
		return found{Open, words.Say("no line gives the review date, such as “Reviewed: 2026-11-20”"), newest}
	}
	return found{Done, words.Say("reviewed on %s", newest.Format(day)), newest}
}
