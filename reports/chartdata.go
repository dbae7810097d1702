package reports

import (
	"html/template"
	"math"
	"strconv"
)

// data is what the page's script draws: the same numbers the inline charts
// were drawn from.
type data struct {
	Words    map[string]string `json:"words"`
	Timeline timelineData      `json:"timeline"`
	Charts   []lineData        `json:"charts"`
}

type timelineData struct {
	Start  float64     `json:"start"`
	Width  float64     `json:"width"`
	Bins   int         `json:"bins"`
	Panels []panelData `json:"panels"`
	Stages []spanData  `json:"stages"`
	Faults []faultData `json:"faults"`
}

type panelData struct {
	Unit   string       `json:"unit"`
	Top    float64      `json:"top"`
	Scale  []string     `json:"scale"` // labels from nought to the top
	Series []seriesData `json:"series"`
}

type seriesData struct {
	Label string  `json:"label"`
	Shape string  `json:"shape"`
	Color string  `json:"color"`
	Data  numbers `json:"data"`
}

type spanData struct {
	Label string  `json:"label"`
	From  float64 `json:"from"`
	To    float64 `json:"to"`
}

type faultData struct {
	spanData
	Marks []markData `json:"marks"`
}

type markData struct {
	Label string  `json:"label"`
	At    float64 `json:"at"`
}

type lineData struct {
	Kind  string      `json:"kind"`
	From  float64     `json:"from"`
	To    float64     `json:"to"`
	Top   float64     `json:"top"`
	Scale []string    `json:"scale"`
	Ticks []tickData  `json:"ticks"`
	Lines []curveData `json:"lines"`
}

type tickData struct {
	At    float64 `json:"at"`
	Label string  `json:"label"`
}

type curveData struct {
	Label string  `json:"label"`
	Color string  `json:"color"`
	Dash  int     `json:"dash"`
	X     numbers `json:"x"`
	Y     numbers `json:"y"`
}

// numbers are written with five significant digits, and null where nothing was
// measured, which a chart draws as a gap.
type numbers []float64

func (n numbers) MarshalJSON() ([]byte, error) {
	b := []byte{'['}
	for i, v := range n {
		if i > 0 {
			b = append(b, ',')
		}
		if math.IsNaN(v) || math.IsInf(v, 0) {
			b = append(b, "null"...)
			continue
		}
		b = strconv.AppendFloat(b, v, 'g', 5, 64)
	}
	return append(b, ']'), nil
}

func chartData(r Report, charts []Chart) data {
	t, l := r.Timeline, r.Language
	d := data{
		Words: map[string]string{
			"theme": l.say("page.theme", "%s"), "theme.auto": l.say("page.theme.auto"),
			"theme.light": l.say("page.theme.light"), "theme.dark": l.say("page.theme.dark"),
			"gap": l.say("timeline.gap"), "percent": l.say("unit.percent", "%s"), "minutes": l.say("unit.minutes", "", "%m", "%s"),
		},
		Timeline: timelineData{
			Start: t.Start, Width: t.Width, Bins: t.Bins,
			Panels: []panelData{}, Stages: []spanData{}, Faults: []faultData{},
		},
		Charts: []lineData{},
	}
	for _, p := range t.Panels {
		panel := panelData{Unit: p.Unit, Top: p.top(), Scale: p.scale(l)}
		for _, s := range p.Series {
			panel.Series = append(panel.Series, seriesData{l.name("series.", s.ID), s.Shape, s.Color, s.Data})
		}
		d.Timeline.Panels = append(d.Timeline.Panels, panel)
	}
	for _, s := range t.Stages {
		d.Timeline.Stages = append(d.Timeline.Stages, spanData(s.Span))
	}
	for _, f := range t.Faults {
		fault := faultData{spanData: spanData(f.Span), Marks: []markData{}}
		for _, m := range f.Marks {
			fault.Marks = append(fault.Marks, markData{l.name("mark.", m.State), m.At})
		}
		d.Timeline.Faults = append(d.Timeline.Faults, fault)
	}
	for _, c := range charts {
		d.Charts = append(d.Charts, c.data(l))
	}
	return d
}

// charts gives every metric a percentile curve and an ECDF, with a line for
// each scenario.
func charts(distributions []Distribution) []Chart {
	keys := scenarioKeys(distributions)
	var drawn []Chart
	for _, metric := range []string{"ttft", "tpot", "icl", "latency"} {
		curve, share := Chart{Metric: metric, Kind: "curve"}, Chart{Metric: metric, Kind: "ecdf"}
		for _, key := range keys {
			for _, d := range distributions {
				if d.Metric != metric || d.Scenario != key.Label {
					continue
				}
				line := key
				line.Points = d.Curve
				curve.Lines = append(curve.Lines, line)
				line.Points = d.ECDF
				share.Lines = append(share.Lines, line)
			}
		}
		if len(curve.Lines) > 0 {
			drawn = append(drawn, curve, share)
		}
	}
	return drawn
}

// scenarioKeys gives each scenario its colour and dash.
func scenarioKeys(distributions []Distribution) []ChartLine {
	var keys []ChartLine
	known := map[string]bool{}
	for _, d := range distributions {
		if known[d.Scenario] {
			continue
		}
		known[d.Scenario] = true
		i := len(keys)
		keys = append(keys, ChartLine{Label: d.Scenario, Color: scenarioColors[i%len(scenarioColors)], Dash: i % 4})
	}
	return keys
}

func (c Chart) axes(l Language, on canvas) (axes, []tick) {
	if c.Kind == "ecdf" {
		return c.ecdfAxes(l, on)
	}
	return c.curveAxes(on)
}

func (c Chart) draw(l Language) template.HTML {
	return onBoth(halfCanvas, func(on canvas) string { return c.svg(l, on) })
}

func (c Chart) data(l Language) lineData {
	a, ticks := c.axes(l, halfCanvas)
	d := lineData{Kind: c.Kind, From: a.x0, To: a.x1, Top: a.y1, Scale: c.scale(l, a), Ticks: []tickData{}}
	for _, t := range ticks {
		d.Ticks = append(d.Ticks, tickData{t.at, t.label})
	}
	for _, line := range c.Lines {
		curve := curveData{Label: line.Label, Color: line.Color, Dash: line.Dash}
		for _, p := range line.Points {
			curve.X = append(curve.X, max(p.X, a.x0))
			curve.Y = append(curve.Y, p.Y)
		}
		d.Lines = append(d.Lines, curve)
	}
	return d
}
