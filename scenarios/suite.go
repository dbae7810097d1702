package scenarios

import (
	"context"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/ginkgo/v2/formatter"
	"github.com/onsi/gomega"
)

// Suite is a gate as a Ginkgo suite: a scenario is an ordered container that
// acts once, an objective is a spec that judges. Ginkgo gives the order, the
// focus and the interruption; the verdict stays the checklist's.
type Suite struct {
	Gate  Gate
	Focus []string // Ginkgo's --focus: regular expressions over "scenario objective"
	// Act plays one scenario and records it.
	Act func(ctx context.Context, s Scenario) error
	// Scan makes the gate's security scan, where it has one, when the scenarios are
	// over.
	Scan func(ctx context.Context) error
	// Judge judges what is recorded so far. What it returns tells of each objective
	// nil when it is proven to hold, and otherwise why not. It is called once for
	// each scenario that has objectives, and once for those of the whole run.
	Judge func() (func(o Objective) error, error)
	// Out receives Ginkgo's own report, and JUnit names the file for its JUnit.
	Out   io.Writer
	JUnit string
}

// Selects reports whether a focus selects any spec of the gate, by the rules
// of Ginkgo: a regular expression over the names of the gate, the scenario and
// the spec. An expression that does not compile is an error.
func (g Gate) Selects(focus []string) (bool, error) {
	if len(focus) == 0 {
		return true, nil
	}
	for _, f := range focus {
		re, err := regexp.Compile(f)
		if err != nil {
			return false, fmt.Errorf("focus %q is not a regular expression: %w", f, err)
		}
		if slices.ContainsFunc(g.specs(), re.MatchString) {
			return true, nil
		}
	}
	return false, nil
}

// Plays reports whether a focus selects any spec of a scenario, so that it is played.
func (g Gate) Plays(scenario string, focus []string) bool {
	if len(focus) == 0 {
		return true
	}
	of := strings.Join([]string{g.Name, "gate", scenario, ""}, " ")
	for _, f := range focus {
		re, err := regexp.Compile(f)
		if err == nil && slices.ContainsFunc(g.specs(), func(name string) bool { return strings.HasPrefix(name, of) && re.MatchString(name) }) {
			return true
		}
	}
	return false
}

// specs are the full names of the gate's specs.
func (g Gate) specs() []string {
	var names []string
	for _, sc := range g.Scenarios {
		names = append(names, strings.Join([]string{g.Name, "gate", sc.Name, playedSpec}, " "))
	}
	if g.Scan != nil {
		names = append(names, strings.Join([]string{g.Name, "gate", wholeRun, scannedSpec}, " "))
	}
	for _, o := range g.Objectives {
		container := o.Scenario
		if container == "" {
			container = wholeRun
		}
		names = append(names, strings.Join([]string{g.Name, "gate", container, o.Source}, " "))
	}
	return names
}

const (
	playedSpec  = "is played to its end"
	wholeRun    = "whole run"
	scannedSpec = "is scanned to its end"
)

// Run plays the suite. Ginkgo allows one suite per process, so this is called
// once.
func (s Suite) Run() {
	s.declare()

	suite, reporter := ginkgo.GinkgoConfiguration()
	suite.FocusStrings = s.Focus
	suite.RandomSeed = int64(s.Gate.Seed)
	reporter.NoColor = true
	reporter.JUnitReport = s.JUnit
	formatter.ColorableStdOut, formatter.ColorableStdErr = s.Out, s.Out
	gomega.RegisterFailHandler(ginkgo.Fail)
	ginkgo.RunSpecs(ignoreFail{}, s.Gate.Name, suite, reporter)
}

// declare lays out the tree. The scenarios run in the order of the gate.
func (s Suite) declare() {
	ginkgo.Describe("gate", ginkgo.Ordered, ginkgo.ContinueOnFailure, func() {
		for _, sc := range s.Gate.Scenarios {
			ginkgo.Context(sc.Name, func() { s.declareScenario(sc) })
		}
		whole := objectivesOf(s.Gate, "")
		if len(whole) > 0 || s.Gate.Scan != nil {
			ginkgo.Context(wholeRun, func() {
				s.declareScan()
				s.declareObjectives(whole)
			})
		}
	})
}

func (s Suite) declareScenario(sc Scenario) {
	var acted error
	ginkgo.BeforeAll(func(ctx ginkgo.SpecContext) { acted = s.Act(ctx, sc) })
	ginkgo.It(playedSpec, func() {
		gomega.Expect(acted).NotTo(gomega.HaveOccurred())
	})
	s.declareObjectives(objectivesOf(s.Gate, sc.Name))
}

func (s Suite) declareScan() {
	if s.Gate.Scan == nil {
		return
	}
	var scanned error
	ginkgo.BeforeAll(func(ctx ginkgo.SpecContext) { scanned = s.Scan(ctx) })
	ginkgo.It(scannedSpec, func() {
		gomega.Expect(scanned).NotTo(gomega.HaveOccurred())
	})
}

func (s Suite) declareObjectives(objectives []Objective) {
	judged := sync.OnceValues(s.Judge)
	for _, o := range objectives {
		ginkgo.It(o.Source, func() {
			verdict, err := judged()
			gomega.Expect(err).NotTo(gomega.HaveOccurred())
			gomega.Expect(verdict(o)).To(gomega.Succeed())
		})
	}
}

// objectivesOf lists the objectives judged after a scenario; "" lists those of
// the whole run.
func objectivesOf(g Gate, scenario string) []Objective {
	var of []Objective
	for _, o := range g.Objectives {
		if o.Scenario == scenario {
			of = append(of, o)
		}
	}
	return of
}

// ignoreFail is the testing.T that Ginkgo wants: whether the gate passes is the
// verdict's to say.
type ignoreFail struct{}

func (ignoreFail) Fail() {}
