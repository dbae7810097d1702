package reports

import (
	"cmp"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tsenart/vegeta/v12/lib/plot"

	"github.com/launchgate/launchgate/checklist"
	"github.com/launchgate/launchgate/checklist/release"
	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/internal/words"
)

//go:embed page/page.html.tmpl
var pageTemplate string

//go:embed page/page.css
var pageStyle string

//go:embed page/page.js
var pageScript string

const pageIcon = "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E%3Cpath fill='none' stroke='%23888' stroke-width='2' d='M2 14V6a6 6 0 0 1 12 0v8M8 14V6'/%3E%3C/svg%3E"

// page is what the template sees beside the report.
type page struct {
	Report      Report
	Policy      string
	Icon        template.URL
	Style       template.CSS
	Script      template.JS
	Data        data
	Word        string // the verdict
	Sentence    string
	Also        []string
	Sections    []string
	Facts       []pair
	Environment []pair
	Files       []pair
	Definitions []string
	Charts      []Chart
	Scenarios   []ChartLine
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
		Policy: "default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; style-src " +
			sourceHash(style) + "; script-src " + sourceHash(script),
		Icon: pageIcon, Style: template.CSS(style), Script: template.JS(script),
		Word:        word(r),
		Sentence:    headline(r),
		Sections:    []string{"objectives", "timeline", "faults", "latency", "requests", "client", "environment", "definitions"},
		Facts:       facts(r),
		Environment: environment(r),
		Definitions: definitions,
		Charts:      charts(r.Distributions),
		Scenarios:   scenarioKeys(r.Distributions),
	}
	if !r.UnderWay {
		p.Also = also(r.Language, r.Verdict)
	}
	for _, name := range sortedKeys(r.Environment.Files) {
		p.Files = append(p.Files, pair{name, r.Environment.Files[name]})
	}
	p.Data = chartData(r, p.Charts)
	t, err := template.New("page").Funcs(functions(r)).Parse(pageTemplate)
	if err != nil {
		return err
	}
	return t.Execute(w, p)
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

func sourceHash(content string) string {
	hash := sha256.Sum256([]byte(content))
	return "'sha256-" + base64.StdEncoding.EncodeToString(hash[:]) + "'"
}

func word(r Report) string {
	if r.UnderWay {
		return r.Language.say("outcome.under-way")
	}
	return r.Language.name("outcome.", r.Verdict.Verdict.String())
}

func headline(r Report) string {
	if r.UnderWay {
		return r.Language.say("sentence.under-way")
	}
	if len(r.Verdict.Why) > 0 && !r.Verdict.Why[0].IsZero() {
		return r.Language.Word(r.Verdict.Why[0])
	}
	return r.Language.name("sentence.", r.Verdict.Verdict.String())
}

// asides is what else the verdict says where objectives and faults have lines of
// their own: what was left out, and warnings.
func asides(l Language, v checklist.Verdict) []string {
	var said []string
	for _, why := range v.Why[min(1, len(v.Why)):] {
		text := why.String()
		told := slices.ContainsFunc(v.Objectives, func(f checklist.Finding) bool { return strings.HasPrefix(text, f.Source+": ") }) ||
			slices.ContainsFunc(v.Faults, func(f checklist.Fault) bool { return strings.HasPrefix(text, f.Kind+" of "+f.Target+": ") })
		if !told {
			said = append(said, l.Word(why))
		}
	}
	return said
}

// also is what else the verdict says, without the objectives that the page
// lists right below it.
func also(l Language, v checklist.Verdict) []string {
	var said []string
	listed := int64(0)
	for i, why := range v.Why {
		ofObjective := slices.ContainsFunc(v.Objectives, func(f checklist.Finding) bool { return strings.HasPrefix(why.String(), f.Source+": ") })
		switch {
		case i == 0:
		case ofObjective:
			listed++
		default:
			said = append(said, l.Word(why))
		}
	}
	switch {
	case listed == 1:
		said = append(said, l.say("also.one"))
	case listed > 1:
		said = append(said, l.say("also.many", count(listed)))
	}
	return said
}

func facts(r Report) []pair {
	e, l := r.Environment, r.Language
	target := e.Target.URL
	if e.Target.Kind == "local" {
		target = l.say("fact.local", count(int64(e.Target.Replicas)))
	}
	list := []pair{
		{l.say("fact.target"), orUnknown(l, target)},
		{l.say("fact.model"), orUnknown(l, e.Target.Model)},
		{l.say("fact.started"), started(l, e.StartedAt)},
		{l.say("fact.measured"), l.Word(seconds(math.Round((r.To-r.From)*10) / 10))},
		{l.say("fact.requests"), l.say("fact.errors", count(r.Requests), count(r.Errors))},
	}
	if e := r.Verdict.Energy; e != nil {
		list = append(list, pair{l.say("fact.energy"), l.say("fact.joules", digits(e.PerOutputToken))})
	}
	if len(r.Verdict.Faults) == 0 {
		return append(list, pair{l.say("fact.faults"), l.say("fact.none")})
	}
	survived := 0
	for _, f := range r.Verdict.Faults {
		if f.Verdict == checklist.Pass {
			survived++
		}
	}
	return append(list, pair{l.say("fact.faults"), l.say("fact.faults.passed", count(int64(survived)), count(int64(len(r.Verdict.Faults))))})
}

func orUnknown(l Language, s string) string {
	if s == "" {
		return l.say("fact.unknown")
	}
	return s
}

// started is in UTC, so that the same folder reads the same everywhere.
func started(l Language, t time.Time) string {
	if t.IsZero() {
		return l.say("fact.unknown")
	}
	return t.UTC().Format("2006-01-02 15:04:05 UTC")
}

func environment(r Report) []pair {
	e, l := r.Environment, r.Language
	host := strings.TrimSpace(e.Host.CPU + " (" + e.Host.OS + "/" + e.Host.Arch + ", " + l.say("environment.cores", strconv.Itoa(e.Host.Cores)) + ")")
	list := []pair{
		{l.say("environment.version"), orUnknown(l, e.Version)},
		{l.say("environment.seed"), strconv.FormatUint(e.Seed, 10)},
		{l.say("environment.url"), orUnknown(l, e.Target.URL)},
		{l.say("environment.host"), host},
		{l.say("environment.go"), orUnknown(l, e.Host.Go)},
		{l.say("environment.command"), orUnknown(l, commandLine(e.Command))},
	}
	for _, told := range []pair{
		{l.say("environment.protocol"), e.Target.Protocol}, {l.say("environment.allowed"), e.Target.Allowance}, {l.say("environment.watched"), e.Target.Watched},
	} {
		if told.Value != "" {
			told.Value = l.told(told.Value)
			list = append(list, told)
		}
	}
	if e.Host.MemoryBytes > 0 {
		list = append(list, pair{l.say("environment.memory"), bytesOf(float64(e.Host.MemoryBytes))})
	}
	return list
}

// commandLine quotes arguments as a shell would need them.
func commandLine(args []string) string {
	var quoted []string
	for _, a := range args {
		if a == "" || strings.ContainsFunc(a, func(r rune) bool {
			return !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789@%+=:,./-_", r)
		}) {
			a = "'" + strings.ReplaceAll(a, "'", `'\''`) + "'"
		}
		quoted = append(quoted, a)
	}
	return strings.Join(quoted, " ")
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
		"told":      l.told,
		"note":      l.Word,
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
		"day":       func(t time.Time) string { return t.Format(time.DateOnly) },
		"bar":       barSVG,
		"margin":    func(o Objective) string { return margin(l, o) },
		"samples":   func(n int64) string { return samples(l, n) },
		"maybe": func(v *float64, unit string) any {
			if v == nil {
				return template.HTML(`<span class="none">` + template.HTMLEscapeString(l.say("objective.unmeasured")) + `</span>`)
			}
			return l.Word(value(*v, unit))
		},
		"bound":     func(o Objective) string { return bound(l, o) },
		"strip":     func(t Timeline) template.HTML { return stripSVG(l, t) },
		"panel":     func(t Timeline, p Panel) template.HTML { return panelSVG(l, t, p) },
		"chart":     func(c Chart) template.HTML { return c.draw(l) },
		"heat":      func(h Heat) template.HTML { return heatSVG(l, h, r.Timeline.Faults) },
		"blast":     func(b *checklist.Blast) []blastRow { return blastRows(l, *b) },
		"life":      life,
		"reach":     reach,
		"watched":   func() bool { return r.Verdict.Alerts != nil },
		"alerts":    func() []alertRow { return alertRows(r) },
		"quantiles": quantiles,
		"errorName": func(name string) string { return l.Word(errorName(name)) },
		"stories":   func(s []Story) []storyRow { return storyRows(r, s) },
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

// clientNumber is what the client said of itself, with the bound past which the
// run is invalid.
type clientNumber struct{ Name, Value, Bound string }

func clientNumbers(l Language, c checklist.Client) (numbers []clientNumber) {
	for _, n := range []struct {
		name, bound, unit string
		v                 *float64
	}{
		{l.say("client.lag") + " p50", "", "s", c.SendLagP50Seconds},
		{l.say("client.lag") + " p99", "send_lag_p99_seconds", "s", c.SendLagP99Seconds},
		{l.say("client.lag") + " " + l.say("latency.max"), "", "s", c.SendLagMaxSeconds},
		{l.say("client.offered"), "", "per_second", c.OfferedPerSecond},
		{l.say("client.achieved"), "", "per_second", c.AchievedPerSecond},
		{l.say("client.read"), "read_delay_p99_seconds", "s", c.ReadDelayP99Seconds},
		{l.say("client.gc"), "gc_pause_p99_seconds", "s", c.GCPauseP99Seconds},
		{l.say("client.sched"), "sched_delay_p99_seconds", "s", c.SchedDelayP99Seconds},
		{l.say("client.cpu"), "cpu_max_ratio", "ratio", c.CPUMaxRatio},
		{l.say("client.files"), "descriptors_max_ratio", "ratio", c.FilesRatio},
		{l.say("client.ports"), "ports_max_ratio", "ratio", c.PortsRatio},
	} {
		shown := clientNumber{Name: n.name, Value: "–"}
		if n.v != nil {
			shown.Value = l.Word(value(*n.v, n.unit))
		}
		if bound, has := c.Bounds[n.bound]; has {
			shown.Bound = l.say("client.bound", value(bound, n.unit))
		}
		numbers = append(numbers, shown)
	}
	return numbers
}

func samples(l Language, n int64) string {
	if n == 1 {
		return l.say("objective.sample")
	}
	return l.say("objective.samples", count(n))
}

// margin says how near an objective came, in words.
func margin(l Language, o Objective) string {
	switch {
	case o.Margin == nil && o.Value != nil && o.Verdict == checklist.Fail:
		return l.say("objective.missed", value(math.Abs(*o.Value-o.Threshold), o.Unit))
	case o.Margin == nil && o.Value != nil && *o.Value == o.Threshold, o.Margin != nil && *o.Margin == 0:
		return l.say("objective.exact")
	case o.Margin == nil:
		return ""
	case *o.Margin <= -1 && !o.Bar.Floor:
		return l.say("objective.times", digits(1-*o.Margin))
	case *o.Margin < 0:
		return l.say("objective.missed", percent(-*o.Margin))
	}
	return l.say("objective.spare", percent(*o.Margin))
}

func errorName(name string) words.Sentence {
	id := "error." + words.Phrase(name)
	if _, known := phrases[id]; known && name != "other" {
		return words.Say(id)
	}
	return words.Say("error.other")
}

// icon is told apart by its shape and not only by its colour.
func icon(o checklist.Outcome) template.HTML {
	shape := map[checklist.Outcome]string{
		checklist.Pass:     `<path d="m5.5 10.5 3 3 6-7"/>`,
		checklist.Fail:     `<path d="m6.5 6.5 7 7m0-7-7 7"/>`,
		checklist.Unproven: `<path d="M7.4 8a2.6 2.6 0 1 1 3.7 2.4c-.8.4-1.1.8-1.1 1.6m0 2.4v.1"/>`,
		checklist.Invalid:  `<path d="m5 15 10-10"/>`,
	}[o]
	return template.HTML(`<svg class="icon" viewBox="0 0 20 20" fill="none" stroke="currentColor" stroke-width="1.8" stroke-linecap="round" stroke-linejoin="round" aria-hidden="true"><circle cx="10" cy="10" r="8.6"/>` + shape + `</svg>`)
}

// step is one station of a fault's life.
type step struct {
	State   string
	Reached bool
	Failed  bool
	At      float64
	After   float64 // since the fault was injected
	Text    string
}

// life lists the stations in the order a fault goes through them, reached or
// not, and a failed step where it happened.
func life(f Fault) []step {
	var steps []step
	add := func(state, recorded string, at *float64) {
		s := step{State: state, Reached: at != nil}
		if at != nil {
			s.At = *at
			if f.InjectedAt != nil && *at > *f.InjectedAt {
				s.After = *at - *f.InjectedAt
			}
		}
		for _, seen := range f.Seen {
			if seen.State == recorded {
				s.Text = seen.Text
			}
		}
		steps = append(steps, s)
	}
	add("declared", recording.FaultDeclared, f.DeclaredAt)
	add("injected", recording.FaultInjected, f.InjectedAt)
	add("in_effect", recording.FaultInEffect, f.InEffectAt)
	if f.HeldAt != nil { // what is over at once is not held
		add("held", recording.FaultHeld, f.HeldAt)
	}
	add("reverted", recording.FaultReverted, f.RevertedAt)
	add("gone", recording.FaultGone, f.GoneAt)
	add("recovered", "", f.RecoveredAt)
	// Users may be served again before the replica is back, or after it.
	slices.SortStableFunc(steps, func(a, b step) int {
		if !a.Reached || !b.Reached {
			return 0
		}
		return cmp.Compare(a.At, b.At)
	})
	for _, seen := range f.Seen {
		if seen.State == recording.FaultFailed {
			steps = append(steps, step{State: "failed", Reached: true, Failed: true, At: seen.At.Seconds(), Text: seen.Text})
		}
	}
	return steps
}

// metricQuantiles is a row of the latency table.
type metricQuantiles struct {
	Metric string
	Of     *checklist.Quantiles
}

func quantiles(s checklist.Scenario) []metricQuantiles {
	return []metricQuantiles{{"ttft", s.TTFT}, {"tpot", s.TPOT}, {"icl", s.ICL}, {"latency", s.Latency}}
}

// storyRow is a story with its drawing and its words.
type storyRow struct {
	Story Story
	Chart template.HTML
	Told  string
}

func storyRows(r Report, stories []Story) []storyRow {
	scale := 0.0
	for _, s := range stories {
		scale = max(scale, s.Last())
	}
	var rows []storyRow
	for _, s := range stories {
		rows = append(rows, storyRow{Story: s, Chart: storySVG(s, max(scale, 1e-6)), Told: storyText(r, s)})
	}
	return rows
}

// storyText tells what happened, step by step, and says of a step that never
// came that it did not.
func storyText(r Report, s Story) string {
	l := r.Language
	said := []string{l.say("story.due", clock(s.Due))}
	tell := func(id words.Phrase, args ...any) { said = append(said, l.say(id, args...)) }
	if s.Sent == nil {
		tell("story.never_sent")
	} else {
		tell("story.sent", seconds(*s.Sent))
		if s.FirstByte != nil {
			tell("story.headers", seconds(*s.FirstByte))
		}
		if s.FirstToken != nil {
			tell("story.first", seconds(*s.FirstToken))
		} else {
			tell("story.no_token")
		}
		if s.Stall != nil {
			tell("story.chunks", count(int64(s.Chunks)), seconds(s.Stall.To-s.Stall.From), seconds(s.Stall.From))
		}
		if s.OutputTokens > 0 {
			tell("story.tokens", count(int64(s.OutputTokens)))
		}
		if s.End != nil {
			tell("story.end", seconds(*s.End))
		} else {
			tell("story.no_end")
		}
	}
	if s.Status != 0 {
		tell("story.status", strconv.Itoa(int(s.Status)))
	}
	if s.Finish != "" {
		tell("story.finish", s.Finish)
	}
	if s.Replica != "" {
		tell("story.replica", s.Replica)
	}
	if s.Retries > 0 {
		tell("story.retries", count(int64(s.Retries)))
	}
	if len(s.InFault) > 0 {
		tell("story.fault", r.faultLabels(s.InFault))
	}
	return l.join("text.sentences", said)
}
