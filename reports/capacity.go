package reports

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"math"
	"path/filepath"
	"strings"
	"time"

	"github.com/launchgate/launchgate/capacity"
	"github.com/launchgate/launchgate/checklist"
	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/scenarios"
)

// Capacity is capacity.json: what a search for the highest rate found, and how.
type Capacity struct {
	Language   Language  `json:"-"`
	Gate       string    `json:"gate"`
	Scenario   string    `json:"scenario"`
	Target     string    `json:"target"`
	Objectives []string  `json:"objectives"`
	Seed       uint64    `json:"seed"`
	At         time.Time `json:"at"`
	Version    string    `json:"version"`
	Command    []string  `json:"command"`
	// AtLeast is the rate that was asked about, and Decision the answer, if one was.
	AtLeast  float64           `json:"at_least_per_second,omitempty"`
	Decision capacity.Decision `json:"decision,omitempty"`
	Broken   bool              `json:"broken,omitempty"` // the search ended by an error or an interruption
	capacity.Result
}

//go:embed page/capacity.html.tmpl
var capacityTemplate string

// capacityPage is what the template sees beside the result.
type capacityPage struct {
	Capacity
	Policy template.HTML
	Icon   template.URL
	Style  template.CSS
	Line   string
	Sorted []capacity.Point
	Charts []capacityChart
	Shell  string
}

type capacityChart struct {
	Title, About string
	SVG          template.HTML
	Lines        []ChartLine
}

// CapacityHTML writes the result of a search as one file that fetches nothing
// and runs nothing.
func CapacityHTML(w io.Writer, c Capacity) error {
	l := c.Language
	p := capacityPage{
		Capacity: c, Icon: pageIcon, Style: template.CSS(pageStyle), Line: CapacityLine(c), Sorted: c.Curve(),
		Policy: template.HTML(policy(pageStyle)),
		Charts: capacityCharts(c.Language, c.Result), Shell: commandLine(c.Command),
	}
	t, err := template.New("capacity").Funcs(template.FuncMap{
		"say":     l.sayID,
		"options": options,
		"note":    l.Word,
		"rate":    perSecondText,
		"seconds": func(v *float64) string { return optional(v, func(v float64) string { return l.Word(seconds(v)) }) },
		"number":  func(v *float64) string { return optional(v, digits) },
		"perSecond": func(v *float64) string {
			return optional(v, perSecondText)
		},
	}).Parse(capacityTemplate)
	if err != nil {
		return err
	}
	return t.Execute(w, p)
}

func optional(v *float64, write func(float64) string) string {
	if v == nil {
		return "–"
	}
	return write(*v)
}

func perSecondText(v float64) string { return digits(v) + "/s" }

// CapacityLine is the result in a sentence.
func CapacityLine(c Capacity) string {
	l, r := c.Language, c.Result
	switch {
	case c.Decision == capacity.Yes:
		return l.say("capacity.yes", perSecondText(c.AtLeast))
	case c.Decision == capacity.No:
		return l.say("capacity.no", perSecondText(c.AtLeast))
	case c.Decision == capacity.Undecided:
		return l.say("capacity.undecided", perSecondText(c.AtLeast))
	case !r.Found:
		return l.say("capacity.unknown")
	case r.High == 0:
		return l.say("capacity.least", perSecondText(r.Low))
	}
	return l.say("capacity.between", perSecondText(r.Low), perSecondText(r.High), perSecondText(r.Best))
}

// CapacityExit is the exit code of a search: whether a rate was found, or what was
// decided about the rate that was asked about.
func CapacityExit(c Capacity) int {
	switch {
	case c.Decision == capacity.Undecided:
		return checklist.ExitUnproven
	case c.Decision == capacity.No, c.Decision == "" && !c.Found:
		return checklist.ExitFail
	}
	return checklist.ExitPass
}

// CapacityJUnit writes the result as the only case of a suite.
func CapacityJUnit(w io.Writer, c Capacity) error {
	kase := junitCase{Name: c.Language.say("capacity.question"), Class: c.Gate + "." + c.Scenario, Output: CapacityLine(c)}
	problem := &junitProblem{Type: "capacity", Message: CapacityLine(c), Text: c.Language.Word(c.Why)}
	switch exit := CapacityExit(c); {
	case c.Broken || exit == checklist.ExitUnproven:
		kase.Error = problem
	case exit == checklist.ExitFail:
		kase.Failure = problem
	}
	suites := junitSuites{Name: "launchgate capacity " + c.Gate, Suites: []junitSuite{{Name: "capacity", Cases: []junitCase{kase}}}}
	return suites.write(w, c.At)
}

// CapacityMarkdown writes the result for the summary of a CI job.
func CapacityMarkdown(w io.Writer, c Capacity) error {
	l := c.Language
	var b strings.Builder
	fmt.Fprintf(&b, "## %s\n\n%s\n\n", markdownText(CapacityLine(c)), markdownText(l.say("text.sentence", c.Why)))
	for _, o := range c.Objectives {
		fmt.Fprintf(&b, "- %s\n", markdownCode(o))
	}
	fmt.Fprintf(&b, "\n| %s | %s | %s |\n| ---: | --- | --- |\n", l.say("capacity.rate"), l.say("capacity.outcome"), l.say("capacity.why"))
	for _, p := range c.Curve() {
		fmt.Fprintf(&b, "| %s | %s | %s |\n", perSecondText(p.Rate), l.name("capacity.", string(p.Outcome)), markdownText(l.Word(p.Why)))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// CapacityTerminal tells a result to a person at a terminal; dir is where its
// page lies.
func CapacityTerminal(w io.Writer, c Capacity, dir string) error {
	l := c.Language
	var b strings.Builder
	fmt.Fprintf(&b, "\n%s\n%s\n\n", CapacityLine(c), l.say("text.sentence", c.Why))
	row := func(cells ...string) {
		fmt.Fprintf(&b, "%s  %s", padLeft(cells[0], 10), pad(cells[1], 9))
		for i, width := range []int{10, 10, 9, 9, 9} {
			fmt.Fprintf(&b, "  %s", padLeft(cells[2+i], width))
		}
		b.WriteString("\n")
	}
	row(l.say("capacity.column.rate"), "", l.say("capacity.goodput.line"), l.say("capacity.column.tokens"), "TTFT p95", "TPOT p50", "TPOT p95")
	number := digits
	milliseconds := func(v float64) string { return l.Word(seconds(v)) }
	for _, p := range c.Curve() {
		row(scenarios.Rate(p.Rate).String(), l.name("capacity.", string(p.Outcome)), optional(p.GoodputPerSecond, func(v float64) string { return number(v) + "/s" }),
			optional(p.TokensPerSecond, number), optional(p.TTFTP95, milliseconds), optional(p.TPOTP50, milliseconds), optional(p.TPOTP95, milliseconds))
	}
	fmt.Fprintf(&b, "\n%s  %s\n", l.say("terminal.report"), filepath.Join(dir, "capacity.html"))
	_, err := io.WriteString(w, b.String())
	return err
}

// curve is a line of a capacity chart, named by a phrase.
type curve struct {
	name  words.Phrase
	color string
	dash  int
	of    func(capacity.Point) *float64
}

func capacityCharts(l Language, r capacity.Result) []capacityChart {
	offered := func(p capacity.Point) *float64 {
		if p.Drawn > 0 {
			return &p.Drawn // the same time as that of the goodput
		}
		return &p.Rate
	}
	return []capacityChart{
		capacityChartOf(l, r, "goodput", "per_second",
			curve{"capacity.goodput.line", "blue", 0, func(p capacity.Point) *float64 { return p.GoodputPerSecond }}, curve{"series.offered", "muted", 2, offered}),
		capacityChartOf(l, r, "ttft", "s",
			curve{"series.p50", "teal", 0, func(p capacity.Point) *float64 { return p.TTFTP50 }}, curve{"series.p95", "violet", 1, func(p capacity.Point) *float64 { return p.TTFTP95 }}),
		capacityChartOf(l, r, "tpot", "s",
			curve{"series.p50", "teal", 0, func(p capacity.Point) *float64 { return p.TPOTP50 }}, curve{"series.p95", "violet", 1, func(p capacity.Point) *float64 { return p.TPOTP95 }}),
		capacityChartOf(l, r, "tokens", "count",
			curve{"capacity.tokens.line", "blue", 0, func(p capacity.Point) *float64 { return p.TokensPerSecond }}),
	}
}

// capacityChartOf draws values against the rate. Tries that were ended early have no
// values: they are marks at the foot.
func capacityChartOf(l Language, r capacity.Result, id, unit string, curves ...curve) capacityChart {
	c := capacityChart{Title: l.name("capacity.", id), About: l.name("capacity.", id+".about")}
	for _, line := range curves {
		c.Lines = append(c.Lines, ChartLine{Label: l.say(line.name), Color: line.color, Dash: line.dash})
	}
	c.SVG = onBoth(halfCanvas, func(on canvas) string { return capacitySVG(l, r, c.Title, unit, curves, on) })
	return c
}

func capacitySVG(l Language, r capacity.Result, title, unit string, curves []curve, on canvas) string {
	points := r.Curve()
	a := axes{left: chartLeft, right: on.width - chartRight, top: plotTop, bottom: smallHeight - plotBottom, logX: true, x0: math.Inf(1)}
	for _, p := range points {
		a.x0, a.x1 = min(a.x0, p.Rate), max(a.x1, p.Rate)
		for _, line := range curves {
			if v := line.of(p); v != nil {
				a.y1 = max(a.y1, *v)
			}
		}
	}
	if len(points) == 0 {
		a.x0, a.x1 = 1, 2
	}
	a.x0, a.x1, a.y1 = a.x0/1.15, a.x1*1.15, ceiling(a.y1*1.02)
	var d drawing
	d.begin(on, "", smallHeight, l.say("capacity.chart", title))
	if r.Found {
		high := r.High
		if high == 0 {
			high = r.Low
		}
		d.tag(`<rect class="shade" x="%s" y="%s" width="%s" height="%s"/>`, px(a.x(r.Low)), px(a.top), px(max(a.x(high)-a.x(r.Low), leastSegment)), px(a.bottom-a.top))
	}
	for i := 0; i <= 4; i++ {
		v := a.y1 * float64(i) / 4
		d.tag(`<path class="grid" d="M%s %sH%s"/>`, px(a.left), px(a.y(v)), px(a.right))
		d.text(a.left-8, a.y(v)+4, "tick", "end", l.Word(value(v, unit)))
	}
	for _, t := range rateTicks(a, on.ticks+1) {
		d.tag(`<path class="grid" d="M%s %sV%s"/>`, px(a.x(t)), px(a.top), px(a.bottom))
		d.text(a.x(t), a.bottom+16, "tick", "middle", perSecondText(t))
	}
	for _, line := range curves {
		var path strings.Builder
		for _, p := range points {
			v := line.of(p)
			if v == nil || p.Outcome == capacity.Saturated {
				continue
			}
			letter := "L"
			if path.Len() == 0 {
				letter = "M"
			}
			fmt.Fprintf(&path, "%s%s %s", letter, px(a.x(p.Rate)), px(a.y(*v)))
			d.tag(`<circle class="dot c-%s" cx="%s" cy="%s" r="2.5"/>`, line.color, px(a.x(p.Rate)), px(a.y(*v)))
		}
		d.tag(`<path class="line dash-%d c-%s" d="%s"/>`, line.dash, line.color, path.String())
	}
	for _, p := range points {
		if p.Outcome == capacity.Saturated {
			d.text(a.x(p.Rate), a.bottom-4, "tick bad", "middle", "×")
		}
	}
	d.WriteString(`</svg>`)
	return d.String()
}

// rateTicks are round rates within the axes.
func rateTicks(a axes, most int) (ticks []float64) {
	for e := math.Floor(math.Log10(a.x0)); e <= math.Log10(a.x1); e++ {
		for _, m := range []float64{1, 2, 5} {
			if at := m * math.Pow(10, e); at >= a.x0 && at <= a.x1 {
				ticks = append(ticks, at)
			}
		}
	}
	for len(ticks) > most {
		var fewer []float64
		for i := 0; i < len(ticks); i += 2 {
			fewer = append(fewer, ticks[i])
		}
		ticks = fewer
	}
	return ticks
}
