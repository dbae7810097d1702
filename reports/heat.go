package reports

import (
	"fmt"
	"html/template"
	"math"
	"strings"
	"time"
)

// Heat is the distribution of a latency over time. It shows two clusters of
// requests where a percentile hides them.
type Heat struct {
	Metric        string // ttft | icl
	From, To      float64
	Low, High     float64 // seconds, of the lowest and highest row
	Columns, Rows int
	Most          int64   // in the fullest cell
	Cells         []int64 // column by column, the lowest row first
}

const (
	heatColumns = 96
	heatRows    = 24
	heatShades  = 6
	heatHeight  = 190.0
)

// heats are the maps of what was measured between two bins.
func (w *window) heats(t Timeline) []Heat {
	var maps []Heat
	for _, m := range []struct {
		metric string
		of     func(*bin) *sketch
	}{{"ttft", func(b *bin) *sketch { return &b.ttft }}, {"icl", func(b *bin) *sketch { return &b.icl }}} {
		if h, ok := w.heat(m.metric, t, m.of); ok {
			maps = append(maps, h)
		}
	}
	return maps
}

func (w *window) heat(metric string, t Timeline, of func(*bin) *sketch) (Heat, bool) {
	var all sketch
	for i := w.first; i <= w.last; i++ {
		all.merge(of(&w.bins[i]))
	}
	if all.n == 0 {
		return Heat{}, false
	}
	// A row is a share of a decade, so that rows mean the same everywhere.
	low, high := max(all.lo, time.Microsecond).Seconds(), max(all.hi, time.Microsecond).Seconds()
	if high < 2*low { // all much the same: not stretched over the whole height
		low, high = low/math.Sqrt2, high*math.Sqrt2
	}
	wide := (t.Bins + heatColumns - 1) / heatColumns
	h := Heat{Metric: metric, From: t.Start, Low: low, High: high, Columns: (t.Bins + wide - 1) / wide, Rows: heatRows}
	h.To = t.Start + float64(h.Columns*wide)*t.Width
	h.Cells = make([]int64, h.Columns*h.Rows)
	for i := w.first; i <= w.last; i++ {
		s := of(&w.bins[i])
		column := (i - w.first) / wide
		for b, n := range s.counts {
			if n > 0 {
				h.Cells[column*h.Rows+h.row(middle(b).Seconds())] += n
			}
		}
	}
	for _, n := range h.Cells {
		h.Most = max(h.Most, n)
	}
	return h, true
}

func (h Heat) row(v float64) int {
	at := math.Log(v/h.Low) / math.Log(h.High/h.Low) * float64(h.Rows)
	return min(max(int(at), 0), h.Rows-1)
}

// shade of a cell, 1 the lightest: by the logarithm, so that the few slow ones
// are seen beside the many.
func (h Heat) shade(n int64) int {
	if h.Most == 1 {
		return heatShades
	}
	return 1 + int(math.Log(float64(n))/math.Log(float64(h.Most))*(heatShades-1)+0.5)
}

// heatSVG draws a map as one path for each shade.
func heatSVG(l Language, h Heat, faults []FaultSpan) template.HTML {
	return onBoth(wideCanvas, func(c canvas) string { return h.draw(l, faults, c) })
}

func (h Heat) draw(l Language, faults []FaultSpan, c canvas) string {
	a := axes{left: chartLeft, right: c.width - chartRight, top: plotTop, bottom: heatHeight - plotBottom, x0: h.From, x1: h.To}
	rise := (a.bottom - a.top) / float64(h.Rows)
	wide := (a.right - a.left) / float64(h.Columns)
	y := func(v float64) float64 {
		return a.bottom - math.Log(v/h.Low)/math.Log(h.High/h.Low)*(a.bottom-a.top)
	}
	var d drawing
	d.begin(c, "heat", heatHeight, l.say("latency.heat.of", l.name("metric.", h.Metric)))
	for _, f := range faults {
		from, to := a.x(max(f.From, h.From)), a.x(min(f.To, h.To))
		d.tag(`<rect class="shade" x="%s" y="%s" width="%s" height="%s"/>`, px(from), px(a.top), px(max(to-from, leastSegment)), px(a.bottom-a.top))
	}
	for _, v := range decades(h.Low, h.High) {
		d.tag(`<path class="grid" d="M%s %sH%s"/>`, px(a.left), px(y(v)), px(a.right))
		d.text(a.left-8, y(v)+4, "tick", "end", l.Word(value(v, "s")))
	}
	for _, v := range timeTicks(h.From, h.To, c.ticks) {
		d.text(a.x(v), a.bottom+16, "tick", "middle", clock(v))
	}
	shades := make([]strings.Builder, heatShades+1)
	for column := range h.Columns {
		for r := range h.Rows {
			if n := h.Cells[column*h.Rows+r]; n > 0 {
				fmt.Fprintf(&shades[h.shade(n)], "M%s %sh%sv%sh-%sz", px(a.left+float64(column)*wide), px(a.bottom-float64(r+1)*rise), px(wide), px(rise), px(wide))
			}
		}
	}
	for i := range shades {
		if shades[i].Len() > 0 {
			d.tag(`<path class="heat-%d" d="%s"/>`, i, shades[i].String())
		}
	}
	d.WriteString(`</svg>`)
	return d.String()
}

// decades are the 1, 2 and 5 of every power of ten between two values, or the
// tens alone where that would be many.
func decades(low, high float64) (ticks []float64) {
	steps := []float64{1, 2, 5}
	if high/low > 200 {
		steps = steps[:1]
	}
	for p := math.Floor(math.Log10(low)); p <= math.Ceil(math.Log10(high)); p++ {
		for _, s := range steps {
			if v := s * math.Pow(10, p); v >= low && v <= high {
				ticks = append(ticks, v)
			}
		}
	}
	return ticks
}
