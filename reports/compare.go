package reports

import (
	_ "embed"
	"fmt"
	"html"
	"html/template"
	"io"
	"math"
	"time"

	"github.com/launchgate/launchgate/checklist"
)

// Comparison is compare.json: what changed from base to head.
type Comparison struct {
	Gate    string    `json:"gate"`
	Base    string    `json:"base"`
	Head    string    `json:"head"`
	How     string    `json:"how"` // the blocks were measured
	At      time.Time `json:"at"`
	Version string    `json:"version"`
	Command []string  `json:"command"`
	checklist.Comparison
}

//go:embed page/compare.html.tmpl
var compareTemplate string

type comparePage struct {
	Comparison
	Policy template.HTML
	Icon   template.URL
	Style  template.CSS
	Shell  string
}

// CompareHTML writes a comparison as one file that fetches nothing and runs
// nothing.
func CompareHTML(w io.Writer, c Comparison) error {
	p := comparePage{
		Comparison: c, Icon: pageIcon, Style: template.CSS(pageStyle), Shell: commandLine(c.Command),
		Policy: template.HTML("default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; style-src " + sourceHash(pageStyle)),
	}
	t, err := template.New("compare").Funcs(template.FuncMap{
		"value":    func(v float64, unit string) string { return value(v, unit) },
		"change":   changeText,
		"interval": func(d checklist.Difference) template.HTML { return intervalSVG(c, d) },
		"p":        func(p float64) string { return fmt.Sprintf("%.2g", p) },
		"headline": func() string { return changeHeadlines[c.Change] },
		"tone":     func(c checklist.Change) string { return changeTones[c] },
	}).Parse(compareTemplate)
	if err != nil {
		return err
	}
	return t.Execute(w, p)
}

var changeHeadlines = map[checklist.Change]string{
	checklist.Regression: "Worse", checklist.Improvement: "Better", checklist.Same: "The same", checklist.Undecided: "Undecided",
}

var changeTones = map[checklist.Change]string{
	checklist.Regression: "fail", checklist.Improvement: "pass", checklist.Same: "pass", checklist.Undecided: "unproven",
}

// changeText writes a change of a metric.
func changeText(v float64, unit string) string {
	if unit == "ratio" {
		return fmt.Sprintf("%+.2g points", v*100)
	}
	return fmt.Sprintf("%+.1f %%", v*100)
}

// intervalSVG draws an effect and its interval around no change; all of one
// kind on one scale.
func intervalSVG(c Comparison, d checklist.Difference) template.HTML {
	most := 0.0
	for _, o := range c.Differences {
		if (o.Unit == "ratio") == (d.Unit == "ratio") {
			most = max(most, math.Abs(o.Low), math.Abs(o.High))
		}
	}
	if most == 0 {
		most = 0.01
	}
	a := axes{left: 4, right: 236, x0: -most * 1.1, x1: most * 1.1}
	var g drawing
	g.tag(`<svg class="chart interval" viewBox="0 0 240 20" role="img" aria-label="%s">`,
		html.EscapeString(changeText(d.Low, d.Unit)+" to "+changeText(d.High, d.Unit)))
	g.tag(`<path class="grid" d="M%s 1V19"/>`, px(a.x(0)))
	color := map[checklist.Change]string{checklist.Regression: "bad", checklist.Improvement: "teal"}[d.Change]
	if color == "" {
		color = "muted"
	}
	g.tag(`<path class="line c-%s" d="M%s 10H%s"/>`, color, px(a.x(d.Low)), px(max(a.x(d.High), a.x(d.Low)+leastSegment)))
	g.tag(`<path class="line c-%s" d="M%s 4V16"/>`, color, px(a.x(d.Effect)))
	g.WriteString(`</svg>`)
	return template.HTML(g.String())
}

// CompareTerminal tells a comparison to a person at a terminal.
func CompareTerminal(w io.Writer, c Comparison) error {
	if _, err := fmt.Fprintf(w, "\n%s: %s.\n\n%-14s %12s %12s %12s  %s\n", changeHeadlines[c.Change], c.Why, "", "base", "head", "change", "interval"); err != nil {
		return err
	}
	for _, d := range c.Differences {
		if _, err := fmt.Fprintf(w, "%-14s %12s %12s %12s  %s to %s  %s\n", d.Metric, value(d.Base, d.Unit), value(d.Head, d.Unit),
			changeText(d.Effect, d.Unit), changeText(d.Low, d.Unit), changeText(d.High, d.Unit), d.Change); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintf(w, "\n%s\n", c.How)
	return err
}
