package reports

import (
	_ "embed"
	"fmt"
	"html"
	"html/template"
	"io"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/launchgate/launchgate/loadgen/capacity"
)

// Capacity is capacity.json: what a search for the highest rate found, and how.
type Capacity struct {
	Gate       string    `json:"gate"`
	Scenario   string    `json:"scenario"`
	Target     string    `json:"target"`
	Objectives []string  `json:"objectives"`
	Seed       uint64    `json:"seed"`
	At         time.Time `json:"at"`
	Version    string    `json:"version"`
	Command    []string  `json:"command"`
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
	p := capacityPage{
		Capacity: c, Icon: pageIcon, Style: template.CSS(pageStyle), Line: CapacityLine(c.Result), Sorted: c.Curve(),
		Policy: template.HTML("default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; style-src " + sourceHash(pageStyle)),
		Charts: capacityCharts(c.Result), Shell: commandLine(c.Command),
	}
	t, err := template.New("capacity").Funcs(template.FuncMap{
		"rate":    perSecondText,
		"seconds": func(v *float64) string { return optional(v, seconds) },
		"number":  func(v *float64) string { return optional(v, func(v float64) string { return value(v, "count") }) },
		"perSecond": func(v *float64) string {
			return optional(v, perSecondText)
		},
	}).Parse(capacityTemplate)
	if err != nil {
		return err
	}
	return t.Execute(w, p)
}

func optional(v *float64, say func(float64) string) string {
	if v == nil {
		return "–"
	}
	return say(*v)
}

func perSecondText(v float64) string { return fmt.Sprintf("%.3g/s", v) }

// CapacityLine is the result in a sentence.
func CapacityLine(r capacity.Result) string {
	switch {
	case !r.Found:
		return "No rate is known to hold"
	case r.High == 0:
		return fmt.Sprintf("At least %s hold", perSecondText(r.Low))
	}
	return fmt.Sprintf("%s hold, %s do not", perSecondText(r.Low), perSecondText(r.High))
}

// curve is a line of a capacity chart.
type curve struct {
	name, color string
	dash        int
	of          func(capacity.Point) *float64
}

func capacityCharts(r capacity.Result) []capacityChart {
	offered := func(p capacity.Point) *float64 { return &p.Rate }
	return []capacityChart{
		capacityChartOf(r, "Goodput", "Requests a second that met every limit. On the dotted line all that were offered do.", "per_second",
			curve{"goodput", "blue", 0, func(p capacity.Point) *float64 { return p.GoodputPerSecond }}, curve{"offered", "muted", 2, offered}),
		capacityChartOf(r, "Time to first token", "From when a request was due, so a queue shows.", "s",
			curve{"p50", "teal", 0, func(p capacity.Point) *float64 { return p.TTFTP50 }}, curve{"p95", "violet", 1, func(p capacity.Point) *float64 { return p.TTFTP95 }}),
		capacityChartOf(r, "Time per output token", "After the first.", "s",
			curve{"p50", "teal", 0, func(p capacity.Point) *float64 { return p.TPOTP50 }}, curve{"p95", "violet", 1, func(p capacity.Point) *float64 { return p.TPOTP95 }}),
		capacityChartOf(r, "Output tokens a second", "Of complete answers.", "count",
			curve{"tokens", "blue", 0, func(p capacity.Point) *float64 { return p.TokensPerSecond }}),
	}
}

// capacityChartOf draws values against the rate. Tries that were ended early have no
// values: they are marks at the foot.
func capacityChartOf(r capacity.Result, title, about, unit string, curves ...curve) capacityChart {
	c := capacityChart{Title: title, About: about}
	points := r.Curve()
	a := axes{left: chartLeft, right: smallWidth - chartRight, top: plotTop, bottom: smallHeight - plotBottom, logX: true, x0: math.Inf(1)}
	for _, p := range points {
		a.x0, a.x1 = min(a.x0, p.Rate), max(a.x1, p.Rate)
		for _, l := range curves {
			if v := l.of(p); v != nil {
				a.y1 = max(a.y1, *v)
			}
		}
	}
	if len(points) == 0 {
		a.x0, a.x1 = 1, 2
	}
	a.x0, a.x1, a.y1 = a.x0/1.15, a.x1*1.15, ceiling(a.y1*1.02)
	var d drawing
	d.tag(`<svg class="chart" viewBox="0 0 %s %s" role="img" aria-label="%s">`, px(smallWidth), px(smallHeight), html.EscapeString(title+" by rate"))
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
		d.text(a.left-8, a.y(v)+4, "tick", "end", value(v, unit))
	}
	for _, t := range rateTicks(a) {
		d.tag(`<path class="grid" d="M%s %sV%s"/>`, px(a.x(t)), px(a.top), px(a.bottom))
		d.text(a.x(t), a.bottom+16, "tick", "middle", perSecondText(t))
	}
	for _, l := range curves {
		var path strings.Builder
		for _, p := range points {
			v := l.of(p)
			if v == nil || p.Outcome == capacity.Saturated {
				continue
			}
			letter := "L"
			if path.Len() == 0 {
				letter = "M"
			}
			fmt.Fprintf(&path, "%s%s %s", letter, px(a.x(p.Rate)), px(a.y(*v)))
			d.tag(`<circle class="dot c-%s" cx="%s" cy="%s" r="2.5"/>`, l.color, px(a.x(p.Rate)), px(a.y(*v)))
		}
		d.tag(`<path class="line dash-%d c-%s" d="%s"/>`, l.dash, l.color, path.String())
		c.Lines = append(c.Lines, ChartLine{Label: l.name, Color: l.color, Dash: l.dash})
	}
	for _, p := range points {
		if p.Outcome == capacity.Saturated {
			d.text(a.x(p.Rate), a.bottom-4, "tick bad", "middle", "×")
		}
	}
	d.WriteString(`</svg>`)
	c.SVG = template.HTML(d.String())
	return c
}

// rateTicks are round rates within the axes.
func rateTicks(a axes) (ticks []float64) {
	for e := math.Floor(math.Log10(a.x0)); e <= math.Log10(a.x1); e++ {
		for _, m := range []float64{1, 2, 5} {
			if at := m * math.Pow(10, e); at >= a.x0 && at <= a.x1 {
				ticks = append(ticks, at)
			}
		}
	}
	for len(ticks) > 7 {
		ticks = slices.DeleteFunc(ticks, func(t float64) bool { return slices.Index(ticks, t)%2 == 1 })
	}
	return ticks
}
