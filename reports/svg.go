package reports

import (
	"fmt"
	"html"
	"html/template"
	"math"
	"strconv"
	"strings"
)

// The charts a reader sees without JavaScript, on paper, and until uPlot has
// drawn the same data. Colours are classes, so that the page's theme decides.

// drawing is a small SVG under construction. Text is escaped as it is added;
// everything else is a number or a word of this file.
type drawing struct{ strings.Builder }

func (d *drawing) tag(format string, args ...any) { fmt.Fprintf(d, format, args...) }

func (d *drawing) text(x, y float64, class, anchor, s string) {
	d.tag(`<text x="%s" y="%s" class="%s" text-anchor="%s">%s</text>`, px(x), px(y), class, anchor, html.EscapeString(s))
}

func px(v float64) string {
	return strings.TrimSuffix(strconv.FormatFloat(v, 'f', 1, 64), ".0")
}

const (
	chartLeft    = 64.0
	chartRight   = 12.0
	panelHeight  = 132.0
	plotTop      = 8.0
	plotBottom   = 22.0
	stripHeight  = 58.0
	smallHeight  = 220.0
	storyWidth   = 520.0
	barWidth     = 168.0
	leastSegment = 1.5 // pixels: what happened is seen, however short
)

// A canvas is a width that a chart is drawn for. A drawing is scaled with the
// window, its text too, so a chart that a telephone has to show is drawn twice;
// the page's style shows the one that fits.
type canvas struct {
	width float64 // units, about as many as there are pixels
	ticks int     // moments on the axis of time, at the most
	class string
}

var (
	wideCanvas   = canvas{1120, 12, "at-wide"}
	halfCanvas   = canvas{540, 6, "at-wide"} // one of two charts in a row
	narrowCanvas = canvas{360, 5, "at-narrow"}
)

// onBoth draws a chart for a wide window and for a narrow one.
func onBoth(wide canvas, draw func(canvas) string) template.HTML {
	return template.HTML(draw(wide) + draw(narrowCanvas))
}

// begin opens a drawing of a height.
func (d *drawing) begin(c canvas, class string, height float64, label string) {
	d.tag(`<svg class="%s" viewBox="0 0 %s %s" role="img" aria-label="%s">`, strings.TrimSpace("chart "+class+" "+c.class), px(c.width), px(height), html.EscapeString(label))
}

// axes map values to pixels.
type axes struct {
	left, right, top, bottom float64 // pixels
	x0, x1, y0, y1           float64 // values
	logX                     bool
}

func (a axes) x(v float64) float64 {
	from, to := a.x0, a.x1
	if a.logX {
		v, from, to = math.Log10(v), math.Log10(from), math.Log10(to)
	}
	return a.left + (v-from)/(to-from)*(a.right-a.left)
}

func (a axes) y(v float64) float64 { return a.bottom - (v-a.y0)/(a.y1-a.y0)*(a.bottom-a.top) }

// ceiling is a round number at or above v that divides into quarters or fifths.
func ceiling(v float64) float64 {
	if v <= 0 || math.IsInf(v, 0) {
		return 1
	}
	scale := math.Pow(10, math.Floor(math.Log10(v)))
	for _, m := range []float64{1, 1.2, 1.6, 2, 2.4, 3, 4, 5, 6, 8, 10} {
		if m*scale >= v*(1-1e-9) {
			return m * scale
		}
	}
	return 10 * scale
}

// top is the largest value of a panel, and at least the unit's smallest scale
// worth drawing.
func (p Panel) top() float64 {
	most := 0.0
	for _, s := range p.Series {
		for _, v := range s.Data {
			if !math.IsNaN(v) {
				most = max(most, v)
			}
		}
	}
	switch {
	case p.Unit == "ratio" && most > 0.5 && most <= 1:
		return 1
	case p.Unit == "count" && most < 10:
		return 2 * max(math.Ceil(most*1.05/2), 1) // half of it is a whole number, too
	case most == 0:
		return 1
	case p.Unit == "bytes":
		unit := math.Pow(1024, math.Floor(math.Log(max(most, 1))/math.Log(1024)))
		return ceiling(most*1.05/unit) * unit
	}
	return ceiling(most * 1.05)
}

// scaleOf labels n equal steps of an axis from zero to its top, all in the unit
// of the top's label.
func scaleOf(l Language, top float64, unit string, n int) []string {
	write := func(v float64) string { return l.Word(value(v, unit)) }
	in := func(name string, size float64) {
		write = func(v float64) string { return digits(v/size) + " " + name }
	}
	switch {
	case unit == "s" && top < 0.9995e-3:
		in("µs", 1e-6)
	case unit == "s" && top < 0.9995:
		in("ms", 1e-3)
	case unit == "s" && top < 99.95:
		in("s", 1)
	case unit == "bytes":
		i := min(max(int(math.Log2(top)/10), 0), len(byteUnits)-1)
		in(byteUnits[i], math.Pow(1024, float64(i)))
	}
	labels := []string{"0"}
	for i := 1; i <= n; i++ {
		labels = append(labels, write(top*float64(i)/float64(n)))
	}
	return labels
}

// timeTicks are round moments within the timeline.
func timeTicks(from, to float64, most int) []float64 {
	step := 1.0
	for _, s := range []float64{1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400} {
		step = s
		if (to-from)/s <= float64(most) {
			break
		}
	}
	step *= math.Ceil((to - from) / step / 60) // a run of a year still has few
	var ticks []float64
	for t := math.Ceil(from/step) * step; t <= to; t += step {
		ticks = append(ticks, t)
	}
	return ticks
}

func (t Timeline) End() float64 { return t.Start + float64(t.Bins)*t.Width }

func (t Timeline) axes(c canvas) axes {
	return axes{left: chartLeft, right: c.width - chartRight, top: plotTop, bottom: panelHeight - plotBottom, x0: t.Start, x1: t.End(), y1: 1}
}

// panelSVG draws one panel of the timeline.
func panelSVG(l Language, t Timeline, p Panel) template.HTML {
	return onBoth(wideCanvas, func(c canvas) string { return p.draw(l, t, c) })
}

func (p Panel) draw(l Language, t Timeline, c canvas) string {
	a := t.axes(c)
	a.y1 = p.top()
	var d drawing
	d.begin(c, "", panelHeight, l.say("timeline.chart", l.name("panel.", p.ID)))
	d.faults(a, t)
	d.scale(a, p.scale(l))
	for _, v := range timeTicks(t.Start, t.End(), c.ticks) {
		d.text(a.x(v), a.bottom+16, "tick", "middle", clock(v))
	}
	for i, s := range p.Series {
		switch s.Shape {
		case "bars":
			d.tag(`<path class="bars c-%s" d="%s"/>`, s.Color, barPath(a, t, s))
		case "step":
			d.tag(`<path class="line c-%s" d="%s"/>`, s.Color, stepPath(a, t, s))
		case "band":
			if i > 0 {
				d.tag(`<path class="area c-%s" d="%s"/>`, s.Color, bandPath(a, t, s, p.Series[i-1]))
			}
			d.tag(`<path class="line c-%s" d="%s"/>`, s.Color, linePath(a, t, s))
		case "line":
			d.tag(`<path class="line c-%s" d="%s"/>`, s.Color, linePath(a, t, s))
		}
	}
	d.WriteString(`</svg>`)
	return d.String()
}

// scale labels the axis of a panel at nought, in the middle and at its top.
func (p Panel) scale(l Language) []string { return scaleOf(l, p.top(), p.Unit, 2) }

// scale draws the lines of an axis with their labels.
func (d *drawing) scale(a axes, labels []string) {
	for i, label := range labels {
		y := a.bottom - (a.bottom-a.top)*float64(i)/float64(len(labels)-1)
		d.tag(`<path class="grid" d="M%s %sH%s"/>`, px(a.left), px(y), px(a.right))
		d.text(a.left-8, y+4, "tick", "end", label)
	}
}

// stripSVG names the stages and the faults above the panels, with each fault's
// marks and the time the service needed to recover. A stage too short for its
// name has its number, and the list below has them all.
func stripSVG(l Language, t Timeline) template.HTML {
	return onBoth(wideCanvas, func(c canvas) string { return t.strip(l, c) })
}

func (t Timeline) strip(l Language, c canvas) string {
	a := t.axes(c)
	rows := max(len(t.Faults), 1)
	height := stripHeight + float64(rows-1)*22
	var d drawing
	d.begin(c, "strip", height, l.say("timeline.stages"))
	for i, s := range t.Stages {
		from, to := a.x(max(s.From, a.x0)), a.x(min(s.To, a.x1))
		d.tag(`<rect class="stage" x="%s" y="4" width="%s" height="20" rx="4"/>`, px(from+1), px(max(to-from-2, leastSegment)))
		if name := s.fitting(to-from, i); name != "" {
			d.text((from+to)/2, 18, "stage-name", "middle", name)
		}
	}
	for i, f := range t.Faults {
		y := 34 + float64(i)*22
		from, to := a.x(f.From), a.x(f.To)
		d.tag(`<rect class="fault" x="%s" y="%s" width="%s" height="16" rx="3"/>`, px(from), px(y), px(max(to-from, leastSegment)))
		if f.RTO != nil {
			d.tag(`<path class="rto" d="M%s %sH%s"/>`, px(a.x(f.RTO.From)), px(y+8), px(a.x(f.RTO.To)))
		}
		for _, m := range f.Marks {
			d.tag(`<path class="mark" d="M%s %sv16"><title>%s</title></path>`, px(a.x(m.At)), px(y),
				html.EscapeString(l.name("mark.", m.State)+" "+clock(m.At)))
		}
		label := f.Label
		if f.RTO != nil {
			label += " · " + l.say("timeline.rto", seconds(f.RTO.To-f.RTO.From))
		}
		if f.Open {
			label += " · " + l.say("timeline.open")
		}
		switch wide := textWidth(label); {
		case to+8+wide < a.right:
			d.text(to+8, y+12, "fault-name", "start", label)
		case from-8-wide > 0:
			d.text(from-8, y+12, "fault-name", "end", label)
		default: // the list has what it is about
			d.text(from-8, y+12, "fault-name", "end", strconv.Itoa(len(t.Stages)+i+1))
		}
	}
	d.WriteString(`</svg>`)
	return d.String()
}

// textWidth is about how wide a text is drawn.
func textWidth(s string) float64 { return float64(columns(s)) * 6.5 }

// fitting is the longest of the stage's names that there is room for: with its
// scenario, alone, or its number in the list.
func (s StageSpan) fitting(room float64, i int) string {
	for _, name := range []string{s.Label, s.Stage, strconv.Itoa(i + 1)} {
		if room > textWidth(name)+8 {
			return name
		}
	}
	return ""
}

// numbered is a line of the list below the strip.
type numbered struct{ Name, When string }

// stripList are the stages and then the faults, by the numbers of the strip.
func stripList(t Timeline) []numbered {
	var list []numbered
	for _, s := range t.Stages {
		list = append(list, numbered{s.Label, clock(s.From) + " – " + clock(s.To)})
	}
	for _, f := range t.Faults {
		list = append(list, numbered{f.Label, clock(f.From) + " – " + clock(f.To)})
	}
	return list
}

// allNamed reports whether every stage has room for its name on a wide page.
func allNamed(t Timeline) bool {
	a := t.axes(wideCanvas)
	for i, s := range t.Stages {
		if name := s.fitting(a.x(min(s.To, a.x1))-a.x(max(s.From, a.x0)), i); name != s.Label && name != s.Stage {
			return false
		}
	}
	return true
}

func (d *drawing) faults(a axes, t Timeline) {
	for _, f := range t.Faults {
		from, to := a.x(f.From), a.x(f.To)
		d.tag(`<rect class="shade" x="%s" y="%s" width="%s" height="%s"/>`, px(from), px(a.top), px(max(to-from, leastSegment)), px(a.bottom-a.top))
		for _, m := range f.Marks {
			d.tag(`<path class="mark" d="M%s %sV%s"/>`, px(a.x(m.At)), px(a.top), px(a.bottom))
		}
	}
}

func (t Timeline) middle(i int) float64 { return t.Start + (float64(i)+0.5)*t.Width }

// linePath lifts the pen over gaps; a value alone between two gaps is drawn as
// a short dash, because a line of no length is not seen.
func linePath(a axes, t Timeline, s Series) string {
	var b strings.Builder
	pen := false
	for i, v := range s.Data {
		if math.IsNaN(v) {
			pen = false
			continue
		}
		alone := !pen && (i+1 == len(s.Data) || math.IsNaN(s.Data[i+1]))
		switch x, y := a.x(t.middle(i)), a.y(v); {
		case alone:
			fmt.Fprintf(&b, "M%s %sh3", px(x-1.5), px(y))
		case pen:
			fmt.Fprintf(&b, "L%s %s", px(x), px(y))
		default:
			fmt.Fprintf(&b, "M%s %s", px(x), px(y))
		}
		pen = true
	}
	return b.String()
}

func stepPath(a axes, t Timeline, s Series) string {
	var b strings.Builder
	pen, last := false, math.NaN()
	for i, v := range s.Data {
		if math.IsNaN(v) {
			pen = false
			continue
		}
		from, to, y := a.x(t.Start+float64(i)*t.Width), a.x(t.Start+float64(i+1)*t.Width), a.y(v)
		switch {
		case !pen:
			fmt.Fprintf(&b, "M%s %sH%s", px(from), px(y), px(to))
		case v != last:
			fmt.Fprintf(&b, "V%sH%s", px(y), px(to))
		default:
			fmt.Fprintf(&b, "H%s", px(to))
		}
		pen, last = true, v
	}
	return b.String()
}

func barPath(a axes, t Timeline, s Series) string {
	var b strings.Builder
	for i, v := range s.Data {
		if math.IsNaN(v) || v == 0 {
			continue
		}
		from, to := a.x(t.Start+float64(i)*t.Width), a.x(t.Start+float64(i+1)*t.Width)
		fmt.Fprintf(&b, "M%s %sV%sH%sV%sz", px(from), px(a.bottom), px(a.y(v)), px(max(to-0.5, from+leastSegment)), px(a.bottom))
	}
	return b.String()
}

// bandPath fills the space between two series where both were measured.
func bandPath(a axes, t Timeline, upper, lower Series) string {
	var b strings.Builder
	for from := 0; from < len(upper.Data); {
		to := from
		for to < len(upper.Data) && !math.IsNaN(upper.Data[to]) && !math.IsNaN(lower.Data[to]) {
			to++
		}
		for i := from; i < to; i++ {
			letter := "L"
			if i == from {
				letter = "M"
			}
			fmt.Fprintf(&b, "%s%s %s", letter, px(a.x(t.middle(i))), px(a.y(upper.Data[i])))
		}
		for i := to - 1; i >= from; i-- {
			fmt.Fprintf(&b, "L%s %s", px(a.x(t.middle(i))), px(a.y(lower.Data[i])))
		}
		if to > from {
			b.WriteString("z")
		}
		from = to + 1
	}
	return b.String()
}

// Colours and dashes of scenarios in the distributions: distinguishable without
// colour too.
var scenarioColors = []string{"blue", "violet", "teal", "ink", "muted"}

// Chart is one small chart of distributions: a curve for each scenario.
type Chart struct {
	Metric string
	Kind   string // curve | ecdf
	Lines  []ChartLine
}

// ChartLine is one scenario's curve.
type ChartLine struct {
	Label, Color string
	Dash         int
	Points       []Point
}

type tick struct {
	at    float64
	label string
}

func (c Chart) plot(on canvas) axes {
	return axes{left: chartLeft, right: on.width - chartRight, top: plotTop, bottom: smallHeight - plotBottom}
}

func (c Chart) curveAxes(on canvas) (axes, []tick) {
	a := c.plot(on)
	for _, line := range c.Lines {
		for _, p := range line.Points {
			a.x1, a.y1 = max(a.x1, p.X), max(a.y1, p.Y)
		}
	}
	a.x1, a.y1 = max(a.x1, 1), ceiling(a.y1*1.02)
	var ticks []tick
	for _, p := range []struct {
		q     float64
		label string
	}{{0, "p0"}, {0.5, "p50"}, {0.9, "p90"}, {0.99, "p99"}, {0.999, "p99.9"}, {0.9999, "p99.99"}, {0.99999, "p99.999"}} {
		if x := -math.Log10(1 - p.q); x <= a.x1+1e-9 && (x == 0 || a.x(x)-a.x(ticks[len(ticks)-1].at) > textWidth(p.label)) {
			ticks = append(ticks, tick{x, p.label})
		}
	}
	return a, ticks
}

func (c Chart) ecdfAxes(l Language, on canvas) (axes, []tick) {
	a := c.plot(on)
	a.logX, a.x0, a.x1, a.y1 = true, math.Inf(1), 0, 1
	for _, line := range c.Lines {
		for _, p := range line.Points {
			x := max(p.X, 1e-6)
			a.x0, a.x1 = min(a.x0, x), max(a.x1, x)
		}
	}
	a.x0, a.x1 = a.x0/1.05, a.x1*1.05
	var ticks []tick
	for _, of := range [][]float64{{1, 2, 5}, {1}} {
		ticks = nil
		for e := math.Floor(math.Log10(a.x0)); e <= math.Log10(a.x1); e++ {
			for _, m := range of {
				if at := m * math.Pow(10, e); at >= a.x0 && at <= a.x1 {
					ticks = append(ticks, tick{at, l.Word(seconds(at))})
				}
			}
		}
		if len(ticks) <= on.ticks {
			break
		}
	}
	if len(ticks) < 2 { // too narrow for decades
		ticks = nil
		for i := range 4 {
			at := a.x0 * math.Pow(a.x1/a.x0, (float64(i)+0.5)/4)
			ticks = append(ticks, tick{at, l.Word(seconds(at))})
		}
	}
	return a, ticks
}

func (c Chart) scale(l Language, a axes) []string {
	if c.Kind == "ecdf" {
		return scaleOf(l, a.y1, "ratio", 4)
	}
	return scaleOf(l, a.y1, "s", 4)
}

func (c Chart) svg(l Language, on canvas) string {
	a, xTicks := c.axes(l, on)
	var d drawing
	d.begin(on, "", smallHeight, l.name("metric.", c.Metric)+": "+l.name("latency.", c.Kind))
	d.scale(a, c.scale(l, a))
	for _, t := range xTicks {
		d.tag(`<path class="grid" d="M%s %sV%s"/>`, px(a.x(t.at)), px(a.top), px(a.bottom))
		d.text(a.x(t.at), a.bottom+16, "tick", "middle", t.label)
	}
	for _, line := range c.Lines {
		d.tag(`<path class="line dash-%d c-%s" d="`, line.Dash, line.Color)
		for i, p := range line.Points {
			letter := "L"
			if i == 0 {
				letter = "M"
			}
			d.tag("%s%s %s", letter, px(a.x(max(p.X, a.x0))), px(a.y(p.Y)))
		}
		d.WriteString(`"/>`)
	}
	d.WriteString(`</svg>`)
	return d.String()
}

// barSVG is the track of an objective: how far the value came, and its limit.
func barSVG(o Objective) template.HTML {
	var d drawing
	d.tag(`<svg class="bar" viewBox="0 0 %s 20" aria-hidden="true">`, px(barWidth))
	d.tag(`<rect class="track" x="0" y="6" width="%s" height="8" rx="4"/>`, px(barWidth))
	if b := o.Bar; b.Value != nil {
		d.tag(`<rect class="fill o-%s" x="0" y="6" width="%s" height="8" rx="4"/>`, o.Verdict, px(max(*b.Value*barWidth, 3)))
		if b.Bound != nil && !b.Over {
			from, to := min(*b.Value, *b.Bound)*barWidth, max(*b.Value, *b.Bound)*barWidth
			d.tag(`<path class="bound" d="M%s 10H%sM%s 7v6"/>`, px(from), px(to), px(*b.Bound*barWidth))
		}
		if b.Over {
			d.tag(`<path class="over" d="M%s 6l5 4l-5 4"/>`, px(barWidth-8))
		}
	}
	d.tag(`<path class="limit" d="M%s 1v18"/></svg>`, px(barLimit*barWidth))
	return template.HTML(d.String())
}

// storySVG draws a request from the moment it was due; scale is the longest
// story beside it.
func storySVG(s Story, scale float64) template.HTML {
	at := func(v float64) float64 { return min(max(v/scale, 0), 1) * (storyWidth - 8) }
	var d drawing
	d.tag(`<svg class="story" viewBox="0 0 %s 16" preserveAspectRatio="none" aria-hidden="true">`, px(storyWidth))
	segment := func(class string, from, to float64) {
		d.tag(`<rect class="%s" x="%s" y="3" width="%s" height="10" rx="2"/>`, class, px(at(from)), px(max(at(to)-at(from), leastSegment)))
	}
	sent := s.Last()
	if s.Sent != nil {
		sent = *s.Sent
	}
	segment("wait", 0, sent)
	if s.Sent != nil {
		first := s.Last()
		if s.FirstToken != nil {
			first = *s.FirstToken
		}
		segment("prefill", sent, first)
		if s.FirstToken != nil {
			segment("decode", first, s.Last())
		}
	}
	if s.Stall != nil {
		segment("stall", s.Stall.From, s.Stall.To)
	}
	if s.Error != "" {
		d.tag(`<path class="broke" d="M%s 0v16"/>`, px(at(s.Last())+2))
	}
	d.WriteString(`</svg>`)
	return template.HTML(d.String())
}
