package checklist

import (
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/scenarios"
)

// evidence is what one reading of a recording leaves to judge by.
type evidence struct {
	gate    scenarios.Gate
	rec     *recording.Recording
	stages  map[[2]string]*samples // by scenario and stage
	spans   map[[2]string]span     // of stages, where they were played to their end
	started map[string]bool        // scenarios
	ended   map[string]bool
	probes  map[string][]probe // by scenario
	faults  []*faultLife
}

// span is a stretch of the run.
type span struct{ from, to time.Duration }

func (s span) seconds() float64 { return (s.to - s.from).Seconds() }

// probe is what is kept of a probe.
type probe struct {
	due, end time.Duration
	ok       bool
}

// samples are the load requests of a stage. Latencies are in seconds and of
// requests that succeeded: one that failed has none, and is counted where
// failures count (error_rate, attainment, goodput).
type samples struct {
	due, errors, notSent, attained int64
	tokens                         int64
	values                         map[string][]float32 // ttft, ttfo, tpot, latency, service_ttft, service_latency
	icl                            histogram
	lags                           []float32
}

func newSamples() *samples { return &samples{values: map[string][]float32{}} }

// gather reads the recording once.
func gather(gate scenarios.Gate, rec *recording.Recording) (*evidence, error) {
	e := &evidence{
		gate: gate, rec: rec, stages: map[[2]string]*samples{}, spans: map[[2]string]span{},
		started: map[string]bool{}, ended: map[string]bool{}, probes: map[string][]probe{},
	}
	e.marks()
	e.faults = faultLives(gate, rec)
	for r, err := range rec.Requests {
		if err != nil {
			return nil, fmt.Errorf("the recording cannot be read: %w", err)
		}
		switch r.Kind {
		case recording.KindProbe:
			if r.Error != recording.ErrorCancelled {
				e.probes[r.Scenario] = append(e.probes[r.Scenario], probe{r.Due, r.End, r.OK()})
			}
		case recording.KindLoad:
			e.load(&r)
		}
	}
	for _, p := range e.probes {
		slices.SortFunc(p, func(a, b probe) int { return int(a.due - b.due) })
	}
	e.recover()
	return e, nil
}

// marks finds out what was played, and when.
func (e *evidence) marks() {
	begun := map[string]time.Duration{}
	for _, o := range e.rec.Observations {
		switch o.Name {
		case recording.ObsScenarioStarted:
			e.started[o.Subject] = true
		case recording.ObsScenarioEnded:
			e.ended[o.Subject] = true
		case recording.ObsStageStarted:
			begun[o.Subject] = o.At
		case recording.ObsStageEnded:
			if from, ok := begun[o.Subject]; ok {
				e.spans[splitStage(o.Subject)] = span{from, o.At}
			}
		case recording.ObsInterrupted:
			// The scenario under way then was cut short, whatever it still said.
			for _, s := range e.gate.Scenarios {
				if !e.complete(s.Name) {
					delete(e.ended, s.Name)
				}
			}
		}
	}
}

func splitStage(subject string) [2]string {
	for i := range subject {
		if subject[i] == '/' {
			return [2]string{subject[:i], subject[i+1:]}
		}
	}
	return [2]string{subject, ""}
}

// complete reports whether every stage of a scenario was played to its end.
func (e *evidence) complete(scenario string) bool {
	s := e.scenario(scenario)
	if s == nil || !e.ended[scenario] {
		return false
	}
	for _, st := range s.Stages {
		if _, ok := e.spans[[2]string{scenario, st.Name}]; !ok {
			return false
		}
	}
	return true
}

func (e *evidence) scenario(name string) *scenarios.Scenario {
	for i := range e.gate.Scenarios {
		if e.gate.Scenarios[i].Name == name {
			return &e.gate.Scenarios[i]
		}
	}
	return nil
}

// load takes a load request into account.
func (e *evidence) load(r *recording.Request) {
	key := [2]string{r.Scenario, r.Stage}
	s := e.stages[key]
	if s == nil {
		s = newSamples()
		e.stages[key] = s
	}
	s.due++
	if r.Sent > 0 {
		s.lags = append(s.lags, float32((r.Sent - r.Due).Seconds()))
	}
	if r.Error == recording.ErrorNotSent {
		s.notSent++
	}
	for _, f := range e.faults {
		f.request(r)
	}
	if !r.OK() {
		s.errors++
		return
	}
	s.tokens += int64(r.OutputTokens)
	for name, v := range latenciesOf(r) {
		s.values[name] = append(s.values[name], float32(v))
	}
	for i := 1; i < len(r.Chunks); i++ {
		s.icl.add((r.Chunks[i] - r.Chunks[i-1]).Seconds())
	}
	if e.attains(r) {
		s.attained++
	}
}

// latenciesOf are the latencies that a successful request has, in seconds.
// Those that a request does not have, such as the TTFT of an answer that was
// not streamed or the TPOT of one token, are absent, never zero.
func latenciesOf(r *recording.Request) map[string]float64 {
	v := map[string]float64{
		"latency":         (r.End - r.Due).Seconds(),
		"service_latency": (r.End - r.Sent).Seconds(),
	}
	if r.FirstToken > 0 {
		v["ttft"] = (r.FirstToken - r.Due).Seconds()
		v["service_ttft"] = (r.FirstToken - r.Sent).Seconds()
	}
	if r.FirstOutput > 0 {
		v["ttfo"] = (r.FirstOutput - r.Due).Seconds()
	}
	// METRICS: (LastToken − FirstToken) / (N − tokens in the first chunk), N ≥ 2.
	if rest := r.OutputTokens - max(1, r.FirstChunkTokens); r.FirstToken > 0 && r.OutputTokens >= 2 && rest > 0 {
		v["tpot"] = (r.LastToken - r.FirstToken).Seconds() / float64(rest)
	}
	return v
}

// attains reports whether a successful request met every latency objective
// that speaks of it.
func (e *evidence) attains(r *recording.Request) bool {
	var values map[string]float64
	for _, o := range e.gate.Objectives {
		if o.Stat == "" || o.Scenario != "" && o.Scenario != r.Scenario || o.Stage != "" && o.Stage != r.Stage {
			continue
		}
		if values == nil {
			values = latenciesOf(r)
		}
		v, has := values[o.Metric]
		if o.Metric == "icl" {
			v, has = gapOf(r, o)
		}
		if has && !holds(v, o) {
			return false
		}
	}
	return true
}

// gapOf is an objective's statistic over the gaps of one request.
func gapOf(r *recording.Request, o scenarios.Objective) (float64, bool) {
	var gaps []float32
	for i := 1; i < len(r.Chunks); i++ {
		gaps = append(gaps, float32((r.Chunks[i] - r.Chunks[i-1]).Seconds()))
	}
	if len(gaps) == 0 {
		return 0, false
	}
	slices.Sort(gaps)
	return statistic(gaps, o), true
}

// within is the samples of an objective's scope, of one stage or of several.
func (e *evidence) within(scenario, stage string) *samples {
	all := newSamples()
	for key, s := range e.stages {
		if scenario != "" && key[0] != scenario || stage != "" && key[1] != stage {
			continue
		}
		all.merge(s)
	}
	for _, v := range all.values {
		slices.Sort(v)
	}
	slices.Sort(all.lags)
	return all
}

func (s *samples) merge(o *samples) {
	s.due += o.due
	s.errors += o.errors
	s.notSent += o.notSent
	s.attained += o.attained
	s.tokens += o.tokens
	for name, v := range o.values {
		s.values[name] = append(s.values[name], v...)
	}
	s.icl.merge(&o.icl)
	s.lags = append(s.lags, o.lags...)
}

// seconds is how long load was offered in a scope.
func (e *evidence) seconds(scenario, stage string) float64 {
	var sum float64
	for _, s := range e.gate.Scenarios {
		for _, st := range s.Stages {
			if (scenario == "" || s.Name == scenario) && (stage == "" || st.Name == stage) {
				sum += e.spans[[2]string{s.Name, st.Name}].seconds()
			}
		}
	}
	return sum
}

// nearestRank is the quantile of sorted values: the smallest of them that at
// least the share q is not above.
func nearestRank(sorted []float32, q float64) float64 {
	return float64(sorted[rank(int64(len(sorted)), q)])
}

// rank is the index of a quantile among n sorted values.
func rank(n int64, q float64) int64 {
	return min(max(int64(math.Ceil(q*float64(n)-1e-9))-1, 0), n-1)
}

// histogram counts values in buckets 0.2 % wide: for gaps between chunks, of
// which a run has too many to keep.
type histogram struct {
	buckets []int64
	n       int64
	sum     float64
	low     float64
	high    float64
}

const (
	bucketBase  = 1.002
	bucketFirst = 1e-7 // seconds
)

func bucketOf(v float64) int {
	return max(0, int(math.Log(v/bucketFirst)/math.Log(bucketBase)))
}

func (h *histogram) add(v float64) {
	if v < bucketFirst {
		v = bucketFirst
	}
	b := bucketOf(v)
	for len(h.buckets) <= b {
		h.buckets = append(h.buckets, 0)
	}
	h.buckets[b]++
	if h.n == 0 || v < h.low {
		h.low = v
	}
	h.high = max(h.high, v)
	h.n++
	h.sum += v
}

func (h *histogram) merge(o *histogram) {
	for len(h.buckets) < len(o.buckets) {
		h.buckets = append(h.buckets, 0)
	}
	for i, c := range o.buckets {
		h.buckets[i] += c
	}
	if h.n == 0 || o.n > 0 && o.low < h.low {
		h.low = o.low
	}
	h.high = max(h.high, o.high)
	h.n += o.n
	h.sum += o.sum
}

// at is the value of a rank, within 0.2 %.
func (h *histogram) at(rank int64) float64 {
	for i, c := range h.buckets {
		if rank -= c; rank < 0 {
			return min(max(bucketFirst*math.Pow(bucketBase, float64(i)+0.5), h.low), h.high)
		}
	}
	return h.high
}
