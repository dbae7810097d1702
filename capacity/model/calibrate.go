package model

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/launchgate/launchgate/scenarios"
)

// Format of the file.
const Format = 1

// Model is a file that calibrate writes: a service's engine, how well it forecast what
// was held out, and the range in which it was calibrated.
type Model struct {
	Format  int       `json:"format"`
	Version string    `json:"version"` // of launchgate
	MadeAt  time.Time `json:"made_at"`
	Runs    []string  `json:"runs"`
	Service Service   `json:"service"`
	Engine  Engine    `json:"engine"`
	// Variants are the engines that were fitted without one stage each: how much the
	// parameters depend on single stages.
	Variants []Engine `json:"variants"`
	// HeldOut is how each stage was forecast by the variant that does not know it.
	HeldOut []HeldOut `json:"held_out"`
	// Errors are the typical relative errors of these forecasts, by measure, as the
	// logarithm of the ratio. A latency that is small anyway counts with 10 ms more (TTFT)
	// or 1 ms more (TPOT).
	Errors map[string]float64 `json:"errors"`
	Other  Other              `json:"other_kind"`
	Range  Range              `json:"range"`
	// Workload is that of the recordings, and Lengths are tokens of its prompts (without
	// those from a cache) and answers, in pairs.
	Workload json.RawMessage `json:"workload"`
	Lengths  [][2]int        `json:"lengths"`
	// Template is how many tokens a prompt has besides those that a gate asks for; -1 if
	// that is not known, because the prompts had no given length.
	Template int `json:"template_tokens"`
	// LeftOut are parts of the recordings that the model is not made of.
	LeftOut []string `json:"left_out,omitempty"`
}

// HeldOut is a forecast of a stage that the model was not fitted to.
type HeldOut struct {
	Run      string   `json:"run"`
	Stage    string   `json:"stage"`
	Rate     float64  `json:"rate_per_second"` // that was drawn
	Measured Measured `json:"measured"`
	Forecast Measured `json:"forecast"`
}

// Other is the kind of engine that was fitted too and explains the stages worse. Misses
// are mean errors of quantiles of held-out stages.
type Other struct {
	Kind      string  `json:"kind,omitempty"`
	Miss      float64 `json:"miss,omitempty"`
	ChosenFor float64 `json:"miss_of_chosen"`
}

// Range is what the recordings cover; nothing is known beyond it.
type Range struct {
	Prompt   [2]int  `json:"prompt_tokens"` // the 1st and the 99th percentile
	Output   [2]int  `json:"output_tokens"`
	Rate     float64 `json:"rate_per_replica"` // the highest
	Together int     `json:"requests_at_once_per_replica"`
	Limit    bool    `json:"limit_reached"` // requests waited because a replica serves no more at once
}

// Calibrate fits a model to stages of recordings of one service.
func Calibrate(stages []Recorded, service Service, of scenarios.Scenario) (Model, error) {
	m := Model{Format: Format, Service: service, Template: -1}
	var err error
	if m.Workload, err = Workload(of); err != nil {
		return m, err
	}
	if len(stages) < leastStages {
		return m, fmt.Errorf("found %d stages that a model can be fitted to, expected at least %d at different rates, because one after the other is held out", len(stages), leastStages)
	}
	if slowest, fastest := ratesOf(stages); fastest < leastApart*slowest {
		return m, fmt.Errorf("found stages of %.3g to %.3g requests/s, expected rates of which the highest is %.1f times the lowest: else nothing shows what load costs", slowest, fastest, leastApart)
	}
	groups := grouped(stages)
	limit, most := seenLimit(groups, service.Replicas)
	m.Range = rangeOf(stages, service.Replicas, limit, most)
	if n := service.Settings.MaxBatchSize; n > 0 {
		limit = n // known
		m.Range.Limit = float64(m.Range.Together) >= 0.9*float64(n)
	}
	t := targetOf(groups, service.Replicas)
	slotted, ok := t.calibrateSlots(limit)
	batched := t.calibrateBatch(limit)
	best, other := batched, slotted
	if ok && slotted.miss < batched.miss {
		best, other = slotted, batched
	}
	m.Engine, m.Variants, m.Other.ChosenFor = best.whole, best.without, best.miss
	if ok {
		m.Other.Kind, m.Other.Miss = other.whole.Kind, other.miss
	}
	m.holdOut(t)
	for _, st := range stages {
		if !slices.Contains(m.Runs, st.Run) {
			m.Runs = append(m.Runs, st.Run)
		}
	}
	all := asks(stages)
	const kept = 2000
	rng := rand.New(rand.NewPCG(uint64(len(all)), 1))
	rng.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	for _, a := range all[:min(len(all), kept)] {
		m.Lengths = append(m.Lengths, [2]int{a.Prompt, a.Output})
	}
	if s := of.Workload.Synthetic; s != nil && len(of.Classes) == 0 && s.Prefixes == 0 {
		whole := 0.0
		for _, l := range m.Lengths {
			whole += (float64(l[0]) - float64(s.Tokens.Draw(rng))) / float64(len(m.Lengths))
		}
		m.Template = int(math.Round(max(0, whole)))
	}
	return m, nil
}

// Workload is what a scenario's requests ask for, in a form in which two of them can be
// compared.
func Workload(of scenarios.Scenario) (json.RawMessage, error) {
	w := of.Workload
	w.Timeout, w.APIKeyEnv = 0, ""
	return json.Marshal(struct {
		Workload scenarios.Workload `json:"workload"`
		Classes  []scenarios.Class  `json:"classes,omitempty"`
		Vary     []scenarios.Factor `json:"vary,omitempty"`
	}{w, of.Classes, of.Vary})
}

// LengthsOf returns how to draw the tokens of a prompt and its answer for a scenario: as
// they were in the recordings, if it asks for the same, or else as the scenario says.
func (m Model) LengthsOf(s scenarios.Scenario) (func(*rand.Rand) (prompt, output int), error) {
	asked, err := Workload(s)
	if err != nil {
		return nil, err
	}
	var known bytes.Buffer
	if err := json.Compact(&known, m.Workload); err != nil {
		return nil, err
	}
	if bytes.Equal(known.Bytes(), asked) {
		return func(rng *rand.Rand) (int, int) {
			l := m.Lengths[rng.IntN(len(m.Lengths))]
			return l[0], l[1]
		}, nil
	}
	w := s.Workload
	if m.Template < 0 || w.Synthetic == nil || w.Synthetic.Prefixes > 0 || len(s.Classes)+len(s.Vary) > 0 || !w.IgnoreEOS {
		return nil, fmt.Errorf("scenario %s asks for other prompts or answers than the recordings, so that their lengths in tokens are not known; give the recordings and this scenario synthetic prompts and ignore_eos, or record this workload", s.Name)
	}
	return func(rng *rand.Rand) (int, int) {
		return w.Synthetic.Tokens.Draw(rng) + m.Template, w.MaxTokens.Draw(rng)
	}, nil
}

// engines are that of all stages, and the variants.
func (m Model) engines() []Engine { return append([]Engine{m.Engine}, m.Variants...) }

// WithLimit is the model of a service whose replicas serve another number of requests at
// once.
func (m Model) WithLimit(n int) (Model, error) {
	if n < 1 {
		return m, fmt.Errorf("found a batch size of %d, expected 1 or more", n)
	}
	m.Engine.Limit = n
	m.Variants = slices.Clone(m.Variants)
	for i := range m.Variants {
		m.Variants[i].Limit = n
	}
	m.Range.Limit = float64(n) <= moreAtOnce*float64(m.Range.Together)
	return m, nil
}

// grouped are the stages that followed one another in a scenario of a run.
func grouped(stages []Recorded) (groups [][]Recorded) {
	scenario := func(r Recorded) string { s, _, _ := strings.Cut(r.Stage, "/"); return r.Run + " " + s }
	for i, st := range stages {
		if i == 0 || scenario(st) != scenario(stages[i-1]) {
			groups = append(groups, nil)
		}
		groups[len(groups)-1] = append(groups[len(groups)-1], st)
	}
	return groups
}

func rangeOf(stages []Recorded, replicas, limit, most int) (r Range) {
	var prompt, output []int
	for _, st := range stages {
		r.Rate = max(r.Rate, st.rate()/float64(replicas))
	}
	for _, a := range asks(stages) {
		prompt, output = append(prompt, a.Prompt), append(output, a.Output)
	}
	slices.Sort(prompt)
	slices.Sort(output)
	at := func(sorted []int, q float64) int { return sorted[int(q*float64(len(sorted)-1))] }
	r.Prompt, r.Output = [2]int{at(prompt, 0.01), at(prompt, 0.99)}, [2]int{at(output, 0.01), at(output, 0.99)}
	r.Together, r.Limit = int(math.Ceil(float64(most)/float64(replicas))), limit > 0
	return r
}

// kindFit is a kind of engine fitted to all stages, and to all but one each.
type kindFit struct {
	whole   Engine
	without []Engine
	miss    float64 // of the stages held out
}

func (t target) stages() (all []Recorded) {
	for _, g := range t.group {
		all = append(all, g...)
	}
	return all
}

func (t target) calibrateSlots(limit int) (f kindFit, ok bool) {
	if f.whole, ok = t.fitSlots(limit); !ok {
		return f, false
	}
	stages := t.stages()
	for _, st := range stages {
		part := t
		part.leave = st.key()
		e, fits := part.fitSlots(limit)
		if !fits {
			return f, false
		}
		f.without = append(f.without, e)
		f.miss += t.only(st).miss(e) / float64(len(stages))
	}
	return f, true
}

const (
	looksAll  = 300
	looksPart = 120
)

func (t target) calibrateBatch(limit int) (f kindFit) {
	f.whole = t.fitBatch(limit, nil, looksAll)
	stages := t.stages()
	f.without = make([]Engine, len(stages))
	misses := make([]float64, len(stages))
	var fits sync.WaitGroup
	for i, st := range stages {
		fits.Go(func() {
			part := t
			part.leave = st.key()
			f.without[i] = part.fitBatch(limit, &f.whole, looksPart)
			misses[i] = t.only(st).miss(f.without[i])
		})
	}
	fits.Wait()
	for _, m := range misses {
		f.miss += m / float64(len(misses))
	}
	return f
}

// only is the target that judges one stage; the others are simulated, for their backlog.
func (t target) only(st Recorded) target {
	t.alone, t.leave = st.key(), ""
	return t
}

// replays is how often a stage is simulated, where chance takes part.
const replays = 20

// holdOut forecasts each stage by the engine that does not know it.
func (m *Model) holdOut(t target) {
	squares, counts := map[string]float64{}, map[string]float64{}
	at := 0
	for i, g := range t.group {
		for _, st := range g {
			e := m.Variants[at]
			at++
			logs := map[string]float64{}
			spread := map[string]float64{}
			times := replays
			if e.Kind == Batch {
				times = 1 // its answers are not drawn
			}
			for n := range times {
				answers := e.Serve(t.asks[i], t.copies, rand.New(rand.NewPCG(uint64(n), 7)))
				for name, v := range measure(rows(t.asks[i], answers), st.start, st.Seconds, nil) {
					l := scale(name, v)
					logs[name] += l / float64(times)
					spread[name] += l * l / float64(times)
				}
			}
			h := HeldOut{Run: st.Run, Stage: st.Stage, Rate: st.rate(), Forecast: Measured{}, Measured: measure(st.Requests, st.start, st.Seconds, nil)}
			for name, l := range logs {
				h.Forecast[name] = unscale(name, l)
				if v, ok := h.Measured[name]; ok && v > 0 {
					chance := max(0, spread[name]-l*l)
					squares[name] += max(0, math.Pow(scale(name, v)-l, 2)-chance)
					counts[name]++
				}
			}
			m.HeldOut = append(m.HeldOut, h)
		}
	}
	m.Errors = map[string]float64{}
	const least = 0.02 // a measurement is not repeated more exactly than that
	for name, s := range squares {
		m.Errors[name] = max(least, math.Sqrt(s/counts[name]))
	}
}

// small is what a latency may be wrong by without anybody noticing: errors and bands are
// relative to the latency and this time together.
func small(name string) float64 {
	switch name {
	case TTFT50, TTFT95:
		return 0.01
	case TPOT50, TPOT95:
		return 0.001
	}
	return 0
}

func scale(name string, v float64) float64   { return math.Log(max(v, 0) + max(small(name), 1e-9)) }
func unscale(name string, v float64) float64 { return max(0, math.Exp(v)-small(name)) }

// Same reports why two recordings are not of the same service; empty if they are.
func (s Service) Same(o Service) string {
	differ := func(what string, a, b any) string {
		return fmt.Sprintf("the %s is %v in one recording and %v in another; a model is of one service", what, a, b)
	}
	switch {
	case s.Model != o.Model:
		return differ("model", s.Model, o.Model)
	case s.Replicas != o.Replicas:
		return differ("number of replicas", s.Replicas, o.Replicas)
	case s.Settings != o.Settings:
		return differ("set of settings", s.Settings, o.Settings)
	case kindOf(s.Devices) != kindOf(o.Devices):
		return differ("kind of device", kindOf(s.Devices), kindOf(o.Devices))
	case s.Host != o.Host:
		return differ("processor", s.Host, o.Host)
	}
	return ""
}

// kindOf is the kind of the devices: cpu, cuda, or empty if it is not known.
func kindOf(devices []string) string {
	if len(devices) == 0 {
		return ""
	}
	kind, _, _ := strings.Cut(devices[0], ":")
	return kind
}

// leastApart is how many times the lowest rate of the stages the highest has to be.
const leastApart = 1.2

// ratesOf are the lowest and the highest rate of stages, in requests/s.
func ratesOf(stages []Recorded) (lowest, highest float64) {
	lowest = math.Inf(1)
	for _, s := range stages {
		lowest, highest = min(lowest, s.rate()), max(highest, s.rate())
	}
	return lowest, highest
}

// Parse reads a model file.
func Parse(name string, r io.Reader) (Model, error) {
	var m Model
	d := json.NewDecoder(r)
	d.DisallowUnknownFields()
	if err := d.Decode(&m); err != nil {
		return m, fmt.Errorf("%s: %w; expected a model that launchgate calibrate wrote", name, err)
	}
	if err := m.check(); err != nil {
		return m, fmt.Errorf("%s: %w", name, err)
	}
	return m, nil
}

func (m Model) check() error {
	switch {
	case m.Format != Format:
		return fmt.Errorf("found format %d, expected %d; calibrate again with this version", m.Format, Format)
	case m.Service.Replicas < 1 || m.Service.Replicas > mostReplicas:
		return fmt.Errorf("found %d replicas, expected from 1 to %d", m.Service.Replicas, mostReplicas)
	case !(m.Range.Rate >= 0 && m.Range.Rate <= mostRate):
		return fmt.Errorf("found a rate of %v, expected from 0 to %d", m.Range.Rate, mostRate)
	case len(m.Variants) < leastStages || len(m.Lengths) == 0:
		return errors.New("found no variants or no lengths, expected those that calibrate writes")
	}
	for name, v := range m.Errors {
		if !(v >= 0 && v <= mostError) {
			return fmt.Errorf("found an error of %v for %s, expected from 0 to %d", v, name, mostError)
		}
	}
	for _, e := range m.engines() {
		if err := e.check(); err != nil {
			return err
		}
	}
	for _, l := range m.Lengths {
		if l[0] < 1 || l[1] < 1 || l[0] > mostLength || l[1] > mostLength {
			return fmt.Errorf("found a length of %d and %d tokens, expected from 1 to %d", l[0], l[1], mostLength)
		}
	}
	return nil
}

const (
	mostReplicas = 1000
	mostLength   = 10_000_000
	mostError    = 20      // of a logarithm
	mostBudget   = 1 << 20 // tokens of a step, and sequences at once
)

func (e Engine) check() error {
	if e.Kind != Batch && e.Kind != Slots {
		return fmt.Errorf("found an engine of kind %q, expected %s or %s", e.Kind, Batch, Slots)
	}
	if e.Kind == Batch && !(e.Step > 0 && e.Budget >= 1) || e.Kind == Slots && !(e.PerToken > 0) {
		return errors.New("found an engine whose steps take no time, expected costs above 0")
	}
	if !(e.Budget <= mostBudget) || e.Limit > mostBudget {
		return fmt.Errorf("found a step of %v tokens and %d requests at once, expected at most %d", e.Budget, e.Limit, mostBudget)
	}
	if e.Limit < 0 {
		return fmt.Errorf("found a limit of %d requests at once, expected 0 or more", e.Limit)
	}
	for _, v := range append([]float64{e.Overhead, e.PerPrompt, e.Step, e.PerSequence, e.PerContext, e.Budget, e.PerToken, e.Visible}, e.Spread...) {
		if !(v >= 0) || math.IsInf(v, 0) {
			return fmt.Errorf("found a cost of %v, expected 0 or more", v)
		}
	}
	return nil
}
