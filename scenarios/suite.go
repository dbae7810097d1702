package scenarios

import (
	"context"
	"io"

	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/ginkgo/v2/formatter"
	"github.com/onsi/ginkgo/v2/types"
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
	// Judge returns nil when the objective is proven to hold by what is recorded
	// so far, and otherwise why not.
	Judge func(o Objective) error
	// Finish is called when every scenario was played, before the objectives of
	// the whole run are judged.
	Finish func()
	// Out receives Ginkgo's own report.
	Out io.Writer
}

// Run plays the suite. Ginkgo allows one suite per process, so this is called
// once.
func (s Suite) Run() types.Report {
	var report types.Report
	ginkgo.ReportAfterSuite("keep the report", func(r ginkgo.Report) { report = r })
	s.declare()

	suite, reporter := ginkgo.GinkgoConfiguration()
	suite.FocusStrings = s.Focus
	suite.RandomSeed = int64(s.Gate.Seed)
	reporter.NoColor = true
	formatter.ColorableStdOut, formatter.ColorableStdErr = s.Out, s.Out
	gomega.RegisterFailHandler(ginkgo.Fail)
	ginkgo.RunSpecs(ignoreFail{}, s.Gate.Name, suite, reporter)
	return report
}

// declare lays out the tree. The scenarios run in the order of the gate.
func (s Suite) declare() {
	ginkgo.Describe("gate", ginkgo.Ordered, ginkgo.ContinueOnFailure, func() {
		for _, sc := range s.Gate.Scenarios {
			ginkgo.Context(sc.Name, func() { s.declareScenario(sc) })
		}
		whole := objectivesOf(s.Gate, "")
		if len(whole) > 0 {
			ginkgo.Context("whole run", func() {
				ginkgo.BeforeAll(s.Finish)
				s.declareObjectives(whole)
			})
		}
	})
}

func (s Suite) declareScenario(sc Scenario) {
	var acted error
	ginkgo.BeforeAll(func(ctx ginkgo.SpecContext) { acted = s.Act(ctx, sc) })
	ginkgo.It("is played to its end", func() {
		gomega.Expect(acted).NotTo(gomega.HaveOccurred())
	})
	s.declareObjectives(objectivesOf(s.Gate, sc.Name))
}

func (s Suite) declareObjectives(objectives []Objective) {
	for _, o := range objectives {
		ginkgo.It(o.Source, func() {
			gomega.Expect(s.Judge(o)).To(gomega.Succeed())
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

// ignoreFail is the testing.T that Ginkgo wants: whether specs failed is read
// from its report.
type ignoreFail struct{}

func (ignoreFail) Fail() {}
