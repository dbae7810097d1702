package scenarios

import (
	"bytes"
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"
)

// A suite judges once for each scenario, however many objectives it has, and once
// for those of the whole run. A process can have one suite.
func TestSuiteJudgesOnceForEachScenario(t *testing.T) {
	gate, err := Parse("gate.yaml", []byte(`
name: g
target: {endpoint: {url: "http://127.0.0.1:1"}}
scenarios:
  - {name: calm, stages: [{name: m, for: 9s, rate: 10/s}]}
  - {name: busy, stages: [{name: m, for: 9s, rate: 10/s}]}
  - {name: none, stages: [{name: m, for: 9s, rate: 10/s}]}
objectives:
  - p95(ttft) in calm <= 1s
  - error_rate in calm <= 1%
  - p95(ttft) in busy <= 1s
  - error_rate <= 1%
  - goodput >= 1/s
`))
	if err != nil {
		t.Fatal(err)
	}
	var happened []string
	var out bytes.Buffer
	Suite{
		Gate: gate, Out: &out, JUnit: filepath.Join(t.TempDir(), "junit.xml"),
		Act: func(_ context.Context, s Scenario) error { happened = append(happened, s.Name); return nil },
		Judge: func() (func(Objective) error, error) {
			happened = append(happened, "judged")
			return func(o Objective) error {
				if o.Metric == "goodput" {
					return errors.New("too little of it")
				}
				return nil
			}, nil
		},
	}.Run()
	if got, want := strings.Join(happened, " "), "calm judged busy judged none judged"; got != want {
		t.Errorf("%s, expected %s", got, want)
	}
	for _, want := range []string{"too little of it", "7 Passed", "1 Failed"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in the log:\n%s", want, out.String())
		}
	}
}
