package reports

import (
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"io"
	"strings"

	"github.com/tsenart/vegeta/v12/lib/plot"

	"github.com/launchgate/launchgate/checklist"
	"github.com/launchgate/launchgate/checklist/release"
	"github.com/launchgate/launchgate/internal/words"
)

//go:embed page/*.tmpl page/sections/*.tmpl
var templates embed.FS

//go:embed page/page.css
var pageStyle string

//go:embed page/page.js
var pageScript string

const pageIcon = "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E%3Cpath fill='none' stroke='%23888' stroke-width='2' d='M2 14V6a6 6 0 0 1 12 0v8M8 14V6'/%3E%3C/svg%3E"

// page is what the template sees beside the report.
type page struct {
	Report   Report
	Policy   string
	Icon     template.URL
	Style    template.CSS
	Script   template.JS
	Data     data
	Word     string   // the verdict
	Listed   []string // the sections of the navigation
	Sections []*pageSection
}

// pageSection is a section of the page, written.
type pageSection struct {
	ID     string
	Own    bool // the heading is in Body
	Body   template.HTML
	Beside *pageSection // stands to its right
}

// sectionData is what the template of a section sees.
type sectionData struct {
	Report Report
	Data   any // by the section's view
}

type pair struct{ Name, Value string }

// HTML writes the report as one file that fetches nothing: its policy allows
// the styles and the script it carries, by their hashes, and nothing else.
func HTML(w io.Writer, r Report) error {
	style, script, err := assets()
	if err != nil {
		return err
	}
	p := page{
		Report: r,
		Policy: policy(style) + "; script-src " + sourceHash(script), Icon: pageIcon, Style: template.CSS(style), Script: template.JS(script),
		Word: word(r), Data: chartData(r, charts(r.Distributions)),
	}
	t, err := template.New("page.html.tmpl").Funcs(functions(r)).ParseFS(templates, "page/page.html.tmpl", "page/stories.html.tmpl", "page/sections/*.tmpl")
	if err != nil {
		return err
	}
	if err := p.write(t, r); err != nil {
		return err
	}
	return t.Execute(w, p)
}

// write writes the sections, and puts those that stand beside another there.
func (p *page) write(t *template.Template, r Report) error {
	byID := map[string]*pageSection{}
	for _, s := range r.shown() {
		if s.lacks[inHTML] != "" {
			continue
		}
		seen := sectionData{Report: r}
		if s.view != nil {
			seen.Data = s.view(r)
		}
		var body strings.Builder
		if err := t.ExecuteTemplate(&body, s.id+".html.tmpl", seen); err != nil {
			return err
		}
		written := &pageSection{ID: s.id, Own: s.own, Body: template.HTML(body.String())}
		byID[s.id] = written
		if !s.unlisted {
			p.Listed = append(p.Listed, s.id)
		}
		if s.besides != "" && byID[s.besides] != nil {
			byID[s.besides].Beside = written
		} else {
			p.Sections = append(p.Sections, written)
		}
	}
	return nil
}

// assets are the page's own style and script with uPlot's before them.
func assets() (style, script string, err error) {
	css, err := uPlotAsset("uPlot.min.css")
	if err != nil {
		return "", "", err
	}
	js, err := uPlotAsset("uPlot.min.js")
	if err != nil {
		return "", "", err
	}
	return css + "\n" + pageStyle, js + "\n" + pageScript, nil
}

func uPlotAsset(name string) (string, error) {
	file, err := plot.Assets.Open(name)
	if err != nil {
		return "", fmt.Errorf("vegeta's module should carry %s: %w", name, err)
	}
	defer file.Close()
	content, err := io.ReadAll(file)
	return string(content), err
}

// policy lets a page fetch nothing and have one style.
func policy(style string) string {
	return "default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; style-src " + sourceHash(style)
}

func sourceHash(content string) string {
	hash := sha256.Sum256([]byte(content))
	return "'sha256-" + base64.StdEncoding.EncodeToString(hash[:]) + "'"
}

func functions(r Report) template.FuncMap {
	l := r.Language
	return template.FuncMap{
		"clientNumbers": func(c checklist.Client) []clientNumber { return clientNumbers(l, c) },
		"dollars":       func(v float64) string { return l.Word(value(v, "usd")) },
		"maybeDollars": func(v *float64) string {
			if v == nil {
				return l.say("objective.unmeasured")
			}
			return l.Word(value(*v, "usd"))
		},
		"say":       l.sayID,
		"note":      l.Word,
		"short":     func(s words.Sentence) string { return shorten(l.Word(s), 400) },
		"value":     func(v float64, unit string) string { return l.Word(value(v, unit)) },
		"seconds":   func(v float64) string { return l.Word(seconds(v)) },
		"clock":     clock,
		"count":     count,
		"sentence":  l.sentence,
		"options":   options,
		"join":      func(s []string) string { return l.join("text.list", s) },
		"icon":      icon,
		"outcomeOf": func(s release.State) checklist.Outcome { return outcomeOf[s] },
		"state":     func(s release.State) string { return l.name("state.", s.String()) },
		"day":       day,
		"bar":       barSVG,
		"margin":    func(o Objective) string { return margin(l, o) },
		"samples":   func(n int64) string { return samples(l, n) },
		"meaning":   func(metric string) string { return meaning(l, metric) },
		"maybe": func(v *float64, unit string) any {
			if v == nil {
				return template.HTML(`<span class="none">` + template.HTMLEscapeString(l.say("objective.unmeasured")) + `</span>`)
			}
			return l.Word(value(*v, unit))
		},
		"bound":        func(o Objective) string { return bound(l, o) },
		"strip":        func(t Timeline) template.HTML { return stripSVG(l, t) },
		"numbered":     stripList,
		"allNamed":     allNamed,
		"panel":        func(t Timeline, p Panel) template.HTML { return panelSVG(l, t, p) },
		"chart":        func(c Chart) template.HTML { return c.draw(l) },
		"heat":         func(h Heat) template.HTML { return heatSVG(l, h, r.Timeline.Faults) },
		"blast":        func(b *checklist.Blast) []blastRow { return blastRows(l, *b) },
		"life":         life,
		"lasted":       lasted,
		"recoveryText": func(f Fault) string { return recoveryText(l, f) },
		"term":         func(o Objective) string { return term(l, o) },
		"reach":        reach,
		"watched":      func() bool { return r.Verdict.Alerts != nil },
		"alerts":       func() []alertRow { return alertRows(r) },
		"quantiles":    quantiles,
		"errorName":    func(name string) string { return l.Word(errorName(name)) },
		"stories":      func(s []Story) []storyRow { return storyRows(r, s) },
	}
}

// options cuts a command before each option, so that none is torn in two where
// its line is full.
func options(command string) []string {
	parts := strings.Split(command, " --")
	for i := range parts[1:] {
		parts[i+1] = "--" + parts[i+1]
	}
	return parts
}

func errorName(name string) words.Sentence {
	id := "error." + words.Phrase(name)
	if _, known := phrases[id]; known && name != "other" {
		return words.Say(id)
	}
	return words.Say("error.other")
}

// icon differs in its shape and not only in its colour.
func icon(o checklist.Outcome) template.HTML {
	shape := map[checklist.Outcome]string{
		checklist.Pass:     `<path d="m5.5 10.5 3 3 6-7"/>`,
		checklist.Fail:     `<path d="m6.5 6.5 7 7m0-7-7 7"/>`,
		checklist.Unproven: `<path d="M7.4 8a2.6 2.6 0 1 1 3.7 2.4c-.8.4-1.1.8-1.1 1.6m0 2.4v.1"/>`,
		checklist.Invalid:  `<path d="m5 15 10-10"/>`,
	}[o]
	return template.HTML(`<svg class="icon" viewBox="0 0 20 20" fill="none" stroke="currentColor" stroke-width="1.8" stroke-linecap="round" stroke-linejoin="round" aria-hidden="true"><circle cx="10" cy="10" r="8.6"/>` + shape + `</svg>`)
}
