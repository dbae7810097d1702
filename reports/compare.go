package reports

import (
	_ "embed"
	"fmt"
	"html"
	"html/template"
	"io"
	"math"
	"path/filepath"
	"strings"
	"time"

	"github.com/launchgate/launchgate/checklist"
	"github.com/launchgate/launchgate/internal/words"
)

// Comparison is compare.json: what changed from base to head.
type Comparison struct {
	Language Language       `json:"-"`
	Gate     string         `json:"gate"`
	Base     string         `json:"base"`
	Head     string         `json:"head"`
	How      words.Sentence `json:"how"` // the blocks were measured
	At       time.Time      `json:"at"`
	Version  string         `json:"version"`
	Command  []string       `json:"command"`
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
	l := c.Language
	p := comparePage{
		Comparison: c, Icon: pageIcon, Style: template.CSS(pageStyle), Shell: commandLine(c.Command),
		Policy: template.HTML(policy(pageStyle)),
	}
	t, err := template.New("compare").Funcs(template.FuncMap{
		"say":      l.sayID,
		"options":  options,
		"note":     l.Word,
		"sentence": l.sentence,
		"value":    func(v float64, unit string) string { return l.Word(value(v, unit)) },
		"change":   func(v float64, unit string) string { return l.Word(changeText(v, unit)) },
		"interval": func(d checklist.Difference) template.HTML { return intervalSVG(c, d) },
		"p":        func(p float64) string { return fmt.Sprintf("%.2g", p) },
		"tone":     func(c checklist.Change) string { return changeTones[c] },
	}).Parse(compareTemplate)
	if err != nil {
		return err
	}
	return t.Execute(w, p)
}

var changeTones = map[checklist.Change]string{
	checklist.Regression: "fail", checklist.Improvement: "pass", checklist.Same: "pass", checklist.Undecided: "unproven",
}

// changeText writes a change of a metric.
func changeText(v float64, unit string) words.Sentence {
	if unit == "ratio" {
		return words.Say("unit.points", v*100)
	}
	return words.Say("unit.change", v*100)
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
		html.EscapeString(c.Language.say("compare.interval", changeText(d.Low, d.Unit), changeText(d.High, d.Unit))))
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

// CompareTerminal tells a comparison to a person at a terminal; dir is where
// its page lies, if it was written.
func CompareTerminal(w io.Writer, c Comparison, dir string) error {
	l := c.Language
	var b strings.Builder
	fmt.Fprintf(&b, "\n%s\n\n", l.say("text.sentence", l.say("text.named", l.name("compare.", string(c.Change)), c.Why)))
	row := func(cells ...string) {
		fmt.Fprintf(&b, "%s %s %s %s  %s\n", pad(cells[0], 14), padLeft(cells[1], 12), padLeft(cells[2], 12), padLeft(cells[3], 12), cells[4])
	}
	row("", l.say("compare.column.base"), l.say("compare.column.head"), l.say("compare.column.change"), l.say("compare.column.interval"))
	for _, d := range c.Differences {
		interval := l.say("compare.interval", changeText(d.Low, d.Unit), changeText(d.High, d.Unit))
		row(d.Metric, l.Word(value(d.Base, d.Unit)), l.Word(value(d.Head, d.Unit)), l.Word(changeText(d.Effect, d.Unit)), interval+"  "+l.name("change.", string(d.Change)))
	}
	fmt.Fprintf(&b, "\n%s\n", l.Word(c.How))
	if dir != "" {
		fmt.Fprintf(&b, "\n%s  %s\n", l.say("terminal.report"), filepath.Join(dir, "compare.html"))
	}
	_, err := io.WriteString(w, b.String())
	return err
}
