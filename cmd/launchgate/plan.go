package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/launchgate/launchgate/capacity"
	"github.com/launchgate/launchgate/capacity/model"
	"github.com/launchgate/launchgate/checklist"
	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/internal/version"
	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/loadgen/trace"
	"github.com/launchgate/launchgate/reports"
	"github.com/launchgate/launchgate/scenarios"
)

// planFlags are the flags of launchgate plan.
type planFlags struct {
	runFlags
	modelFile, gateFile, scenario, profile string
	rate                                   scenarios.Rate
	traceFile, growth, survive             string
	perNode, gpus                          int
	prices, instance                       string
}

func planCommand(out io.Writer, c *console) *cobra.Command {
	f := planFlags{runFlags: runFlags{console: c}}
	cmd := &cobra.Command{
		Use:   "plan --model MODEL.json (--rate RATE | --trace FILE) --gate GATE.yaml",
		Short: "Plan how many replicas a demand needs, what they cost, and until when they suffice",
		Long: `Plan finds how many replicas hold the objectives of a gate under a demand, also while
some are lost, by simulating them with a model that calibrate made. It tells GPUs,
dollars, headroom and the date on which the plan runs out, each with its interval, and
writes plan.json and plan.html into a folder. It sends no request.

The demand is a rate, or the busiest time of a trace (Azure, BurstGPT, Mooncake).
docs/capacity-planning.md says how it is computed and what it rests on.`,
		Example: `  launchgate plan --model model.json --rate 200/s --growth 8%/month --survive node-loss --gate my-gate.yaml
  launchgate plan --model model.json --trace day.csv --prices prices.yaml --instance gpu-large --gate my-gate.yaml`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			doc, err := f.plan()
			if err != nil {
				return err
			}
			dir := f.out
			if dir == "" {
				dir = freshFolder("plan-" + doc.Gate)
			}
			if err := os.MkdirAll(dir, 0o755); err != nil {
				return err
			}
			if err := writeFiles(dir, map[string]func(io.Writer) error{
				"plan.json": func(w io.Writer) error { return printJSON(w, doc) },
				"plan.html": func(w io.Writer) error { return reports.PlanHTML(w, doc) },
			}); err != nil {
				return err
			}
			if f.asJSON {
				return printJSON(out, doc)
			}
			return reports.PlanTerminal(out, doc, dir)
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&f.modelFile, "model", "model.json", "the `file` that calibrate wrote")
	fl.StringVar(&f.gateFile, "gate", "", "the `gate` whose objectives have to hold")
	fl.StringVar(&f.scenario, "scenario", "", "the `scenario` whose workload and objectives to use (default the gate's first without faults)")
	fl.StringVar(&f.profile, "profile", "", "use this ready-made `set` of objectives in place of the gate's")
	fl.Var((*rateFlag)(&f.rate), "rate", "the `rate` at the busiest time")
	fl.StringVar(&f.traceFile, "trace", "", "a recorded load, in place of --rate: the `file` of a trace")
	fl.StringVar(&f.growth, "growth", "0%/month", "by how much the demand grows, such as 8%/month or 50%/year")
	fl.StringVar(&f.survive, "survive", "none", "the loss that the objectives have to survive: none or node-loss")
	fl.IntVar(&f.perNode, "per-node", 1, "how many replicas a node holds, and node-loss takes")
	fl.IntVar(&f.gpus, "gpus", -1, "how many GPUs a replica takes (default: as in the recordings, if they say it)")
	fl.StringVar(&f.prices, "prices", "", "the `file` of a price book (default: that of the gate's cost)")
	fl.StringVar(&f.instance, "instance", "", "the instance of the price book that a replica runs on (default: that of the gate's cost)")
	fl.StringVar(&f.out, "out", "", "the `folder` to write (default runs/<time>-plan-<gate>)")
	fl.StringArrayVar(&f.set, "set", nil, "set a `NAME=VALUE` of the gate, as for run")
	languageFlag(cmd, &f.lang)
	jsonFlag(cmd, &f.asJSON, "the plan")
	_ = cmd.MarkFlagRequired("gate")
	return cmd
}

// growthOf reads a growth such as 8%/month, as a share per month.
func growthOf(s string) (float64, error) {
	share, unit, _ := strings.Cut(s, "/")
	number, isShare := strings.CutSuffix(share, "%")
	v, err := strconv.ParseFloat(number, 64)
	if err != nil || !isShare || unit != "month" && unit != "year" || !(v >= 0) || v > 1000 {
		return 0, fmt.Errorf("--growth: found %q, expected a growth such as 8%%/month or 50%%/year", s)
	}
	if unit == "year" {
		return math.Pow(1+v/100, 1./12) - 1, nil
	}
	return v / 100, nil
}

// plan reads what is asked, and answers it.
func (f planFlags) plan() (doc reports.Plan, err error) {
	m, err := readModel(f.modelFile)
	if err != nil {
		return doc, err
	}
	gate, err := one(f.gate([]string{f.gateFile}))
	if err != nil {
		return doc, err
	}
	single, err := capacity.Try{Scenario: f.scenario, Profile: f.profile, Rate: max(f.rate, 1), Lasts: time.Minute}.Of(gate)
	if err != nil {
		return doc, err
	}
	judged, not := forecastable(single)
	if len(judged) == 0 {
		return doc, errors.New("found no objective that a model can forecast, expected at least one of ttft, tpot or latency over all requests")
	}
	d, mean, err := f.demand(m, single, judged)
	if err != nil {
		return doc, err
	}
	price, err := f.price(gate)
	if err != nil {
		return doc, err
	}
	doc = reports.Plan{Language: f.lang, Gate: gate.Name, Scenario: single.Scenarios[0].Name, Model: f.modelFile, Runs: m.Runs, Service: m.Service,
		At: time.Now().UTC().Truncate(time.Second), Version: version.Short(), Command: os.Args, Rate: d.Rate, Trace: f.traceFile,
		Growth: d.Growth, Survive: f.survive, Fit: m.HeldOut}
	for _, s := range judged {
		doc.Objectives = append(doc.Objectives, s.Objective.Source)
	}
	for _, source := range not {
		doc.Warnings = append(doc.Warnings, words.Kept{Sentence: words.Say("a model cannot forecast %s, so the plan does not know whether it holds", source)})
	}
	if doc.Size, err = m.Size(d); err != nil {
		return doc, err
	}
	doc.GPUs = gpusOf(m.Service, doc.Needed, doc.Replicas, f.gpus)
	if months := doc.Months; months != nil {
		at := func(v float64) time.Time { return doc.At.Add(time.Duration(min(v, 1200) * float64(model.Month))) }
		doc.RunsOut = &reports.Dates{Best: at(months.Best), Low: at(months.Low), High: at(months.High)}
	}
	if price != nil {
		doc.Cost = costOf(*price, doc, mean)
		for _, doubt := range checklist.PriceDoubts(*price, doc.At) {
			doc.Warnings = append(doc.Warnings, words.Kept{Sentence: doubt})
		}
	}
	doc.Curve, err = curveOf(m, d, doc)
	doc.Warnings = append(doc.Warnings, warningsOf(m, doc)...)
	doc.Assumptions = assumptionsOf(m, doc)
	return doc, err
}

// demand is what is asked of a plan, and the mean rate as a share of the busiest.
func (f planFlags) demand(m model.Model, single scenarios.Gate, judged []checklist.Score) (d model.Demand, mean float64, err error) {
	d = model.Demand{Rate: float64(f.rate), Good: checklist.Good(single), Holds: holdsAll(judged)}
	if d.Growth, err = growthOf(f.growth); err != nil {
		return d, 0, err
	}
	switch {
	case f.survive == "node-loss" && f.perNode >= 1:
		d.Lost = f.perNode
	case f.survive != "none":
		return d, 0, fmt.Errorf("--survive: found %q with %d replicas per node, expected none, or node-loss with 1 or more", f.survive, f.perNode)
	}
	if (f.rate > 0) == (f.traceFile != "") {
		return d, 0, errors.New("found both or none of --rate and --trace, expected one of them")
	}
	if f.traceFile != "" {
		t, err := trace.Load(f.traceFile, "")
		if err != nil {
			return d, 0, err
		}
		var busiest []trace.Request
		busiest, d.Rate, mean = busiestOf(t.Requests)
		d.Draw, d.Pattern = replaying(busiest, d.Rate), len(busiest)
		return d, mean, nil
	}
	lengths, err := m.LengthsOf(single.Scenarios[0])
	if err != nil {
		return d, 0, err
	}
	d.Draw = func(rate, seconds float64, seed uint64) (asks []model.Ask) {
		rng := rand.New(rand.NewPCG(seed, 41))
		for at := rng.ExpFloat64() / rate; at < seconds; at += rng.ExpFloat64() / rate {
			p, o := lengths(rng)
			asks = append(asks, model.Ask{Due: at, Prompt: p, Output: o})
		}
		return asks
	}
	return d, 1, nil
}

// forecast are the latencies that a model forecasts.
var forecast = []string{"ttft", "service_ttft", "tpot", "latency", "service_latency"}

// forecastable divides the objectives of a gate into those of a latency that a model
// forecasts, over all requests, and the others.
func forecastable(gate scenarios.Gate) (judged []checklist.Score, not []string) {
	known := map[string]bool{}
	for _, s := range checklist.Scores(gate) {
		if s.Speed && s.Objective.Class == "" && slices.Contains(forecast, s.Objective.Metric) {
			judged, known[s.Objective.Source] = append(judged, s), true
		}
	}
	for _, o := range gate.Objectives {
		if !known[o.Source] {
			not = append(not, o.Source)
		}
	}
	return judged, not
}

// holdsAll reports whether requests hold every objective. One that no request counts for,
// such as tpot of answers of one token, does not hold.
func holdsAll(scores []checklist.Score) func([]recording.Request) bool {
	return func(all []recording.Request) bool {
		for _, s := range scores {
			over, of := 0.0, 0.0
			for i := range all {
				o, n := s.Of(&all[i])
				over, of = over+o, of+n
			}
			if of == 0 || over/of > s.Most() {
				return false
			}
		}
		return len(all) > 0
	}
}

// A plan has to hold the busiest window of a trace. Where ten minutes have more requests
// than mostInWindow, the window is halved until they are fewer: all of them are simulated
// each time.
const (
	longestWindow = 10 * time.Minute
	mostInWindow  = 6000
)

// busiestOf are the requests of the busiest window of a trace, their rate, and the mean
// rate of the whole trace as a share of it.
func busiestOf(all []trace.Request) (busiest []trace.Request, rate, mean float64) {
	window := longestWindow
	for busiest = busiestIn(all, window); len(busiest) > mostInWindow; busiest = busiestIn(all, window) {
		window /= 2
	}
	span := all[len(all)-1].At
	rate = float64(len(busiest)) / max(min(window, span).Seconds(), 1)
	return busiest, rate, float64(len(all)) / max(span.Seconds(), 1) / rate
}

func busiestIn(all []trace.Request, window time.Duration) (busiest []trace.Request) {
	first := 0
	for i := range all {
		for all[i].At-all[first].At >= window {
			first++
		}
		if i-first+1 > len(busiest) {
			busiest = all[first : i+1]
		}
	}
	return busiest
}

// replaying draws the requests of a trace again and again, faster or slower.
func replaying(busiest []trace.Request, at float64) func(rate, seconds float64, seed uint64) []model.Ask {
	return func(rate, seconds float64, _ uint64) (asks []model.Ask) {
		whole := float64(len(busiest)) / rate
		speed := rate / at
		for n := 0; float64(n)*whole < seconds; n++ {
			for _, r := range busiest {
				due := float64(n)*whole + (r.At-busiest[0].At).Seconds()/speed
				if due < seconds {
					asks = append(asks, model.Ask{Due: due, Prompt: r.Input, Output: r.Output})
				}
			}
		}
		slices.SortStableFunc(asks, func(a, b model.Ask) int { return cmp.Compare(a.Due, b.Due) })
		return asks
	}
}

// gpusOf is how many GPUs the replicas take; nil if it is not known.
func gpusOf(s model.Service, needed model.Counts, planned, each int) *model.Counts {
	if each < 0 {
		devices := map[string]bool{}
		for _, d := range s.Devices {
			if !strings.HasPrefix(d, "cuda") {
				return nil
			}
			devices[d] = true
		}
		if len(devices) == 0 || len(devices)%s.Replicas != 0 {
			return nil
		}
		each = len(devices) / s.Replicas
	}
	return &model.Counts{Best: each * planned, Low: each * needed.Low, High: each * needed.High}
}

// price is that of a replica; nil if there is none.
func (f planFlags) price(gate scenarios.Gate) (*scenarios.Price, error) {
	if f.instance == "" && gate.Cost != nil {
		f.instance = gate.Cost.Instance
	}
	switch {
	case f.prices != "":
		price, err := scenarios.ReadPrice(f.prices, f.instance)
		return &price, err
	case gate.Cost != nil && gate.Cost.Price != nil && (f.instance == "" || f.instance == gate.Cost.Price.Name):
		return gate.Cost.Price, nil
	case f.instance != "":
		return nil, fmt.Errorf("found --instance %s and no price for it, expected --prices, or a gate whose cost names it", f.instance)
	}
	return nil, nil
}

// costOf is what the replicas of a plan cost, with the mean rate as a share of the
// busiest.
func costOf(price scenarios.Price, doc reports.Plan, mean float64) *reports.PlanCost {
	hours := model.Month.Hours()
	monthly := func(n int, each scenarios.Dollars) float64 { return float64(n) * float64(each) * hours }
	c := &reports.PlanCost{Instance: price.Name, PricesOf: price.Date, Source: price.Source}
	c.PerMonth = model.Band{Best: monthly(doc.Replicas, price.OnDemand), Low: monthly(doc.Needed.Low, price.OnDemand), High: monthly(doc.Needed.High, price.OnDemand)}
	perHour := float64(doc.Replicas) * float64(price.OnDemand)
	million := func(tokens float64) float64 { return perHour / 3600 / max(tokens, 1e-9) * 1e6 }
	c.PerMillion = model.Band{Best: million(mean * doc.GoodTokens.Best), Low: million(mean * doc.GoodTokens.High), High: million(mean * doc.GoodTokens.Low)}
	c.AtCapacity = model.Band{Best: million(doc.AtCapacity.Best), Low: million(doc.AtCapacity.High), High: million(doc.AtCapacity.Low)}
	for name, each := range map[string]scenarios.Dollars{"reserved": price.Reserved, "spot": price.Spot} {
		if each > 0 {
			c.Options = append(c.Options, reports.PlanOption{Name: name, PerMonth: monthly(doc.Replicas, each), Saving: 1 - float64(each)/float64(price.OnDemand)})
		}
	}
	slices.SortFunc(c.Options, func(a, b reports.PlanOption) int { return strings.Compare(a.Name, b.Name) })
	return c
}

// curveOf forecasts the planned replicas at some rates up to what they hold.
func curveOf(m model.Model, d model.Demand, doc reports.Plan) (curve []reports.PlanPoint, err error) {
	for _, share := range []float64{0.2, 0.4, 0.6, 0.8, 0.9, 1} {
		rate := share * doc.Whole.Best
		seconds := d.Seconds(rate)
		load := model.Load{Stages: []model.Span{{Seconds: seconds}}, Draw: func(seed uint64) []model.Ask { return d.Draw(rate, seconds, seed) }}
		f, err := m.Forecast(load, doc.Replicas)
		if err != nil {
			return nil, err
		}
		if f[0].Refused == "" {
			curve = append(curve, reports.PlanPoint{Rate: rate, TTFT: f[0].Measures[model.TTFT95], TPOT: f[0].Measures[model.TPOT95]})
		}
	}
	return curve, nil
}

func warningsOf(m model.Model, doc reports.Plan) (all []words.Kept) {
	warn := func(s words.Sentence) { all = append(all, words.Kept{Sentence: s}) }
	if doc.Bounded {
		warn(words.Say("the recordings do not show how many requests a replica serves at once, so the plan stays below what they cover; a recording at a higher rate may need fewer replicas"))
	}
	if doc.Needed.Low < doc.Needed.High {
		warn(words.Say("by the errors of the model %d to %d replicas are needed; the plan has the most of them", doc.Needed.Low, doc.Needed.High))
	}
	if m.Service.Replicas != doc.Replicas {
		warn(words.Say("the number of replicas in the recordings is %d; that others are as fast, and that the gateway keeps up, is not measured", m.Service.Replicas))
	}
	return all
}

func assumptionsOf(m model.Model, doc reports.Plan) (all []words.Kept) {
	say := func(s words.Sentence) { all = append(all, words.Kept{Sentence: s}) }
	if doc.Trace != "" {
		say(words.Say("the demand is the busiest time of %s, again and again, at a rate that grows; lengths stay as they are", doc.Trace))
	} else {
		say(words.Say("requests arrive by chance (Poisson) at %.4g/s all of the time; their lengths are drawn from the workload", doc.Rate))
	}
	say(words.Say("a replica is simulated as in the recordings, fitted to %d stages up to %.4g/s per replica", len(m.HeldOut), m.Range.Rate))
	say(words.Say("replicas are alike, do not slow one another down, and each request goes to the one with the fewest under way"))
	if doc.Lost > 0 {
		say(words.Say("the objectives hold while %d of %d replicas are gone; the moment of the loss, with the requests that break off, is not simulated", doc.Lost, doc.Replicas))
	}
	say(words.Say("the model knows no failures: error rates are not forecast"))
	if doc.Cost != nil {
		say(words.Say("each replica runs on one %s all month, at the price on demand of %s (%s)", doc.Cost.Instance, doc.Cost.PricesOf, doc.Cost.Source))
	}
	if doc.RunsOut != nil {
		say(words.Say("the demand grows by %.3g %% each month without a pause", 100*doc.Growth))
	}
	return all
}
