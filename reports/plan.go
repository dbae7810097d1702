package reports

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"math"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/launchgate/launchgate/capacity/model"
	"github.com/launchgate/launchgate/internal/words"
)

// Plan is plan.json: how many replicas a demand needs, what they cost, and until when
// they suffice.
type Plan struct {
	Language   Language      `json:"-"`
	Gate       string        `json:"gate"`
	Scenario   string        `json:"scenario"`
	Objectives []string      `json:"objectives"`
	Model      string        `json:"model"` // the file
	Runs       []string      `json:"runs"`  // that the model was fitted to
	Service    model.Service `json:"service"`
	At         time.Time     `json:"at"`
	Version    string        `json:"version"`
	Command    []string      `json:"command"`
	Rate       float64       `json:"rate_per_second"`
	Trace      string        `json:"trace,omitempty"`
	Growth     float64       `json:"growth_per_month"`
	Survive    string        `json:"survive"`
	model.Size
	GPUs    *model.Counts `json:"gpus,omitempty"` // missing if it is not known what a replica takes
	RunsOut *Dates        `json:"runs_out,omitempty"`
	Cost    *PlanCost     `json:"cost,omitempty"`
	Curve   []PlanPoint   `json:"curve"`
	// Fit is how the model forecast stages that it did not know.
	Fit []model.HeldOut `json:"fit"`
	// Warnings are what a reader must know before the numbers are used, and Assumptions
	// what they rest on.
	Warnings    []words.Kept `json:"warnings"`
	Assumptions []words.Kept `json:"assumptions"`
}

// Dates is a date with its interval.
type Dates struct {
	Best time.Time `json:"best"`
	Low  time.Time `json:"low"`
	High time.Time `json:"high"`
}

// PlanCost is what the replicas cost.
type PlanCost struct {
	Instance string     `json:"instance"`
	PricesOf string     `json:"prices_of"`
	Source   string     `json:"source"`
	PerMonth model.Band `json:"usd_per_month"` // best: of the planned replicas
	// PerMillion is the cost of a million output tokens of answers within the limits, at
	// the demand, and AtCapacity at the highest rate that the plan holds.
	PerMillion model.Band   `json:"usd_per_million_good_tokens"`
	AtCapacity model.Band   `json:"usd_per_million_good_tokens_at_capacity"`
	Options    []PlanOption `json:"options,omitempty"`
}

// PlanOption is another way to buy the same instances.
type PlanOption struct {
	Name     string  `json:"name"`
	PerMonth float64 `json:"usd_per_month"`
	Saving   float64 `json:"saving_ratio"`
}

// PlanPoint is a forecast of the planned replicas, with none lost, at a rate.
type PlanPoint struct {
	Rate float64    `json:"rate_per_second"`
	TTFT model.Band `json:"ttft_p95_seconds"`
	TPOT model.Band `json:"tpot_p95_seconds"`
}

//go:embed page/plan.html.tmpl
var planTemplate string

type planPage struct {
	Plan
	Policy template.HTML
	Icon   template.URL
	Style  template.CSS
	Line   string
	Facts  []pair
	Charts []capacityChart
	Shell  string
}

func dollars(v float64) string {
	if v >= 100 {
		return "$" + grouped(strconv.FormatFloat(v, 'f', 0, 64))
	}
	return "$" + strconv.FormatFloat(v, 'f', 2, 64)
}

func day(t time.Time) string { return t.Format(time.DateOnly) }

// planLine is the plan in a sentence.
func planLine(p Plan) string {
	return p.Language.say("plan.line", p.Replicas, perSecondText(p.Rate))
}

// planFacts answer: with what, for how much money, surviving what, until when.
func planFacts(p Plan) []pair {
	l := p.Language
	with := l.say("plan.replicas", p.Replicas)
	if p.Needed.Low < p.Needed.High {
		with = l.say("plan.replicas.between", p.Replicas, p.Needed.Low, p.Needed.High)
	}
	facts := []pair{{l.say("plan.with"), with}}
	gpus := l.say("plan.gpus.unknown")
	if p.GPUs != nil {
		gpus = strconv.Itoa(p.GPUs.Best)
	}
	facts = append(facts, pair{l.say("plan.gpus"), gpus})
	if c := p.Cost; c != nil {
		facts = append(facts, pair{l.say("plan.month"), l.say("plan.band", dollars(c.PerMonth.Best), dollars(c.PerMonth.Low), dollars(c.PerMonth.High))},
			pair{l.say("plan.million"), l.say("plan.band", dollars(c.PerMillion.Best), dollars(c.PerMillion.Low), dollars(c.PerMillion.High))})
	} else {
		facts = append(facts, pair{l.say("plan.month"), l.say("plan.noprice")})
	}
	survives := l.say("plan.survives.nothing")
	if p.Lost > 0 {
		survives = l.say("plan.survives", p.Survive, p.Lost)
	}
	facts = append(facts, pair{l.say("plan.surviving"), survives},
		pair{l.say("plan.capacity"), l.say("plan.band", perSecondText(p.Capacity.Best), perSecondText(p.Capacity.Low), perSecondText(p.Capacity.High))},
		pair{l.say("plan.headroom"), l.say("plan.band", wholePercent(p.Headroom.Best), wholePercent(p.Headroom.Low), wholePercent(p.Headroom.High))})
	until := l.say("plan.never")
	if p.RunsOut != nil {
		until = l.say("plan.band", day(p.RunsOut.Best), day(p.RunsOut.Low), day(p.RunsOut.High))
	}
	return append(facts, pair{l.say("plan.until"), until})
}

func wholePercent(share float64) string { return fmt.Sprintf("%.0f %%", 100*share) }

// PlanHTML writes the plan as one file that fetches nothing and runs nothing.
func PlanHTML(w io.Writer, p Plan) error {
	l := p.Language
	page := planPage{Plan: p, Icon: pageIcon, Style: template.CSS(pageStyle), Policy: template.HTML(policy(pageStyle)), Line: planLine(p),
		Facts: planFacts(p), Charts: planCharts(l, p), Shell: commandLine(p.Command)}
	t, err := template.New("plan").Funcs(template.FuncMap{
		"say": l.sayID, "options": options, "note": func(k words.Kept) string { return l.Word(k.Sentence) }, "rate": perSecondText,
		"seconds": func(v float64) string { return l.Word(seconds(v)) },
		"dollars": dollars, "percent": wholePercent, "number": digits, "ratio": ratioText,
		"off":  func(h model.HeldOut, name string) string { return ratioText(h.Forecast[name] / h.Measured[name]) },
		"of":   func(h model.HeldOut, name string) float64 { return h.Measured[name] },
		"base": filepath.Base,
	}).Parse(planTemplate)
	if err != nil {
		return err
	}
	return t.Execute(w, page)
}

// PlanTerminal tells the plan to a person at a terminal.
func PlanTerminal(w io.Writer, p Plan, dir string) error {
	l := p.Language
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n\n", planLine(p))
	for _, f := range planFacts(p) {
		fmt.Fprintf(&b, "%s  %s\n", pad(f.Name, 24), f.Value)
	}
	for _, warning := range p.Warnings {
		fmt.Fprintf(&b, "%s\n", l.say("plan.warning", warning.Sentence))
	}
	fmt.Fprintf(&b, "\n%s  %s\n", l.say("terminal.report"), filepath.Join(dir, "plan.html"))
	_, err := io.WriteString(w, b.String())
	return err
}

// planCharts are the demand over time against what the plan holds, and the latencies by
// rate, each with its band.
func planCharts(l Language, p Plan) []capacityChart {
	var charts []capacityChart
	chart := func(id, unit string, xs []float64, bands []model.Band, tick func(float64) string, capacity *model.Band) {
		c := capacityChart{Title: l.name("plan.", id), About: l.name("plan.", id+".about")}
		c.SVG = onBoth(halfCanvas, func(on canvas) string { return bandSVG(l, c.Title, unit, xs, bands, tick, capacity, on) })
		charts = append(charts, c)
	}
	if p.Months != nil {
		var xs []float64
		var demand []model.Band
		last := min(36, max(6, p.Months.High*1.15))
		for i := range 25 {
			m := last * float64(i) / 24
			r := p.Rate * math.Pow(1+p.Growth, m)
			xs, demand = append(xs, m), append(demand, model.Band{Best: r, Low: r, High: r})
		}
		chart("demand", "per_second", xs, demand, func(m float64) string { return day(p.At.Add(time.Duration(m * float64(model.Month)))) }, &p.Capacity)
	}
	var xs []float64
	var ttft, tpot []model.Band
	for _, point := range p.Curve {
		xs, ttft, tpot = append(xs, point.Rate), append(ttft, point.TTFT), append(tpot, point.TPOT)
	}
	if len(xs) > 1 {
		chart("ttft", "s", xs, ttft, perSecondText, nil)
		chart("tpot", "s", xs, tpot, perSecondText, nil)
	}
	return charts
}

// bandSVG draws a line with its band, and across it the band of what the plan holds.
func bandSVG(l Language, title, unit string, xs []float64, bands []model.Band, tick func(float64) string, capacity *model.Band, on canvas) string {
	a := axes{left: chartLeft, right: on.width - chartRight, top: plotTop, bottom: smallHeight - plotBottom, x0: xs[0], x1: xs[len(xs)-1]}
	for _, b := range bands {
		a.y1 = max(a.y1, b.Best*1.3, min(b.High, 4*b.Best))
	}
	if capacity != nil {
		a.y1 = max(a.y1, capacity.High)
	}
	a.y1 = ceiling(a.y1 * 1.02)
	clip := func(v float64) float64 { return max(a.top, a.y(min(v, a.y1))) }
	points := func(of func(model.Band) float64) (all []string) {
		for i, b := range bands {
			all = append(all, px(a.x(xs[i]))+" "+px(clip(of(b))))
		}
		return all
	}
	var d drawing
	d.begin(on, "", smallHeight, title)
	d.scale(a, scaleOf(l, a.y1, unit, 4))
	ticks := 3
	if on.width < halfCanvas.width {
		ticks = 2
	}
	for i := 0; i <= ticks; i++ {
		v := a.x0 + (a.x1-a.x0)*float64(i)/float64(ticks)
		anchor := "middle"
		if i == ticks {
			anchor = "end"
		}
		d.text(a.x(v), a.bottom+16, "tick", anchor, tick(v))
	}
	if capacity != nil {
		d.tag(`<rect class="shade" x="%s" y="%s" width="%s" height="%s"/>`, px(a.left), px(clip(capacity.High)), px(a.right-a.left), px(max(clip(capacity.Low)-clip(capacity.High), leastSegment)))
		d.tag(`<path class="line dash-2 c-muted" d="M%s %sH%s"/>`, px(a.left), px(clip(capacity.Best)), px(a.right))
	} else {
		low := points(func(b model.Band) float64 { return b.Low })
		slices.Reverse(low)
		around := append(points(func(b model.Band) float64 { return b.High }), low...)
		d.tag(`<path class="shade" d="M%sZ"/>`, strings.Join(around, "L"))
	}
	best := points(func(b model.Band) float64 { return b.Best })
	d.tag(`<path class="line dash-0 c-blue" d="M%s"/>`, strings.Join(best, "L"))
	d.WriteString(`</svg>`)
	return d.String()
}
