package checklist

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/scenarios"
)

// evidence is what is kept of a recording after reading it once; the verdict is based
// on it.
type evidence struct {
	gate   scenarios.Gate
	rec    *recording.Recording
	limits []scenarios.Objective // the limits that a single request has to meet to count as good
	stages map[stageID]*samples
	scopes map[stageID]*samples // merged and sorted, made on first use
	played map[stageID]span     // stages that were played to their end

	started     map[string]bool     // scenarios
	ended       map[string]bool     // scenarios
	probes      map[string][]probe  // by scenario, in the order they were due
	canaries    map[string][]canary // that were answered, by scenario
	timelines   [perRequest]bool    // latencies whose values are kept in time
	batched     [perRequest]bool    // latencies whose values are kept by batches
	gaps        bool                // an objective is about the gaps between chunks
	evens       map[stageID]bool    // whether a stage's load is the same all the time
	rates       bool                // whether results are tallied by second
	records     map[string]*records // records of the durability test, by scenario
	faults      []*faultLife
	windows     bool               // an objective distinguishes requests that met a fault
	answers     int                // complete answers
	uncounted   int                // complete answers without a number of tokens from the service
	calm        map[string]*values // response times of the requests that met no fault, by scenario with faults
	growth      bool               // an objective is about icl_growth
	wantLate    map[string]bool    // scenarios with an objective of late_for_some
	late        map[string][]lateRow
	twins       map[string][]twin            // answered twins, by scenario
	looked      map[string][]looked          // inspected answers to the load, by scenario
	served      map[string]map[int64]*served // how users were served, by scenario and second of the run's clock
	wantsHealth bool                         // an objective is about the health check

	tool     string // that made the run, if it was not launchgate
	dueKnown bool   // the tool's file says when requests were due
}

// stageID names the requests of one class in one stage that met the same faults. An
// empty field stands for all stages, scenarios, classes or faults.
type stageID struct{ scenario, stage, class, met string }

// outside is the value of met for requests that met no fault. For others, met lists
// the kinds between slashes.
const outside = "/"

// scopeOf is the scope of an objective.
func scopeOf(o scenarios.Objective) stageID {
	id := stageID{o.Scenario, o.Stage, o.Class, ""}
	switch {
	case o.During != "":
		id.met = "/" + o.During + "/"
	case o.Outside:
		id.met = outside
	}
	return id
}

// span is a stage on the run's clock, and how many requests were due in it.
type span struct {
	from, to time.Duration
	offered  int64
}

// probe is what is kept of a probe.
type probe struct {
	seq       int64
	due, end  time.Duration
	answered  bool
	cancelled bool // the scenario ended while it was under way
}

// samples are the load requests of one or several stages. Only successful requests have
// latencies. Failed requests count in error_rate, attainment and goodput.
type samples struct {
	due, errors, notSent, attained int64
	refused                        int64  // of errors: refused with a Retry-After
	cacheReported, prompt, cached  int64  // complete answers with a report on cached tokens; their prompt tokens, and how many of these were cached
	tokens, goodTokens             int64  // of all complete answers, and of those that met every limit
	exact, wrongLength             int64  // complete answers that should have an exact number of tokens
	ends, falseEnds                int64  // complete answers with a limit, and how many of them end in another way than they say
	texts                          []text // of the others, if their text was inspected
	values                         [perRequest]values
	timeline                       [perRequest][]timed // if an objective asks for it
	parts                          map[stageID]*parts  // of stages with a constant load
	flow                           flow
	icl                            histogram
	lags                           values
	seconds                        map[int64]*tally // by second of the run's clock in which requests were due, if an objective asks for it
}

// The latencies of which a request has one value each, in seconds.
const (
	ttft = iota
	ttfo
	tpot
	maxICL
	iclGrowth
	endDelay
	latency
	serviceTTFT
	serviceLatency
	perRequest
)

// perRequestLatencies are the metrics of these latencies, and where each comes from.
var perRequestLatencies = [perRequest]struct {
	metric string
	of     func(*recording.Request) (time.Duration, bool)
}{
	ttft:           {"ttft", (*recording.Request).TTFT},
	ttfo:           {"ttfo", (*recording.Request).TTFO},
	tpot:           {"tpot", (*recording.Request).TPOT},
	maxICL:         {"max_icl", (*recording.Request).MaxICL},
	iclGrowth:      {"icl_growth", (*recording.Request).ICLGrowth},
	endDelay:       {"end_delay", (*recording.Request).EndDelay},
	latency:        {"latency", (*recording.Request).Latency},
	serviceTTFT:    {"service_ttft", (*recording.Request).ServiceTTFT},
	serviceLatency: {"service_latency", (*recording.Request).ServiceLatency},
}

// asksFor reports whether an objective has a latency as its metric or its argument.
func asksFor(gate scenarios.Gate, latency int) bool {
	name := perRequestLatencies[latency].metric
	return slices.ContainsFunc(gate.Objectives, func(o scenarios.Objective) bool { return o.Metric == name || o.Arg == name })
}

// latencyOf is the latency of a metric, if the metric is a latency.
func latencyOf(metric string) (latency int, ok bool) {
	for i, l := range perRequestLatencies {
		if l.metric == metric {
			return i, true
		}
	}
	return 0, false
}

// latencies are those of one request; NaN if it has none, such as the TTFT of an answer
// that was not streamed, or the TPOT of a single token.
type latencies [perRequest]float64

// evidenceOf has the evidence from the observations of stages and scenarios, but
// nothing from the requests yet.
func evidenceOf(gate scenarios.Gate, rec *recording.Recording) *evidence {
	e := &evidence{
		gate: gate, rec: rec, limits: requestLimits(gate), stages: map[stageID]*samples{}, scopes: map[stageID]*samples{},
		played: map[stageID]span{}, started: map[string]bool{}, ended: map[string]bool{}, probes: map[string][]probe{},
		twins: map[string][]twin{}, looked: map[string][]looked{}, served: map[string]map[int64]*served{}, wantsHealth: gate.AsksForHealth(),
		canaries: map[string][]canary{}, records: map[string]*records{}, timelines: wantsTimeline(gate), batched: wantsParts(gate), evens: map[stageID]bool{}, gaps: wantsGaps(gate), rates: wantsRates(gate), calm: map[string]*values{},
		wantLate: wantsLate(gate), late: map[string][]lateRow{}, growth: asksFor(gate, iclGrowth),
	}
	e.readMarks()
	return e
}

// gather reads the recording once.
func gather(gate scenarios.Gate, rec *recording.Recording) (*evidence, error) {
	e := evidenceOf(gate, rec)
	e.faults = faultLives(gate, rec)
	e.windows = slices.ContainsFunc(gate.Objectives, func(o scenarios.Objective) bool { return o.Outside || o.During != "" })
	if err := e.readProbes(); err != nil {
		return nil, err
	}
	for r, err := range rec.Requests {
		if err != nil {
			return nil, fmt.Errorf("the recording cannot be read: %w", err)
		}
		switch r.Kind {
		case recording.KindCanary:
			if r.OK() {
				e.canaries[r.Scenario] = append(e.canaries[r.Scenario], canaryOf(&r))
			}
		case recording.KindTwin:
			if r.OK() {
				e.twins[r.Scenario] = append(e.twins[r.Scenario], twinOf(&r))
			}
		case recording.KindWrite:
			e.recordsOf(r.Scenario).write(&r)
		case recording.KindRead:
			of := e.recordsOf(r.Scenario)
			if of.read[r.Seq] = r.Error; r.Error != "" {
				of.why[r.Seq] = r.Why()
			}
		case recording.KindLoad:
			e.load(&r)
		}
	}
	for _, r := range e.records {
		slices.SortFunc(r.acked, func(a, b record) int { return cmp.Compare(a.at, b.at) })
	}
	for _, l := range e.faults {
		l.keep(e)
	}
	for _, g := range rec.Gaps {
		for id, s := range e.stages { // the chunks in the recording are counted too
			if id.scenario == g.Scenario && id.stage == g.Stage && id.class == g.Class {
				s.icl = histogram{}
			}
		}
		s := e.stage(stageID{g.Scenario, g.Stage, g.Class, ""})
		for _, bar := range g.Distribution() {
			s.icl.addN(float64(bar.To)/1e9, bar.Count)
		}
	}
	return e, nil
}

// readProbes finds when users were served again after each fault. It runs first,
// because the time at which a fault ends decides which requests met it.
func (e *evidence) readProbes() error {
	if len(e.faults) == 0 {
		return nil
	}
	for r, err := range e.rec.Requests {
		if err != nil {
			return fmt.Errorf("the recording cannot be read: %w", err)
		}
		if r.Kind == recording.KindProbe {
			s := e.scenario(r.Scenario)
			e.probes[r.Scenario] = append(e.probes[r.Scenario], probe{r.Seq, r.Due, r.End,
				s != nil && s.Probe != nil && r.Answered(time.Duration(s.Probe.Timeout)), r.Error == recording.ErrorCancelled})
			for _, l := range e.faults {
				l.probe(&r, e.probes[r.Scenario][len(e.probes[r.Scenario])-1])
			}
		}
	}
	for _, p := range e.probes {
		slices.SortFunc(p, func(a, b probe) int { return cmp.Compare(a.due, b.due) })
	}
	for _, l := range e.faults {
		l.recover(e)
	}
	return nil
}

// met names the kinds of the faults that a request met.
func (e *evidence) met(r *recording.Request) string {
	if !e.windows {
		return ""
	}
	kinds := outside
	for _, l := range e.faults {
		if l.metBy(r) && !strings.Contains(kinds, "/"+l.Kind+"/") {
			kinds += l.Kind + "/"
		}
	}
	return kinds
}

// readMarks finds out what was played, and when.
func (e *evidence) readMarks() {
	begun := map[string]span{}
	for _, o := range e.rec.Observations {
		switch o.Name {
		case recording.ObsScenarioStarted:
			e.started[o.Subject] = true
		case recording.ObsScenarioEnded:
			e.ended[o.Subject] = true
		case recording.ObsImported:
			e.tool, e.dueKnown = o.Subject, o.Value == 1
		case recording.ObsReadBack:
			r := e.recordsOf(o.Subject)
			r.readBack, r.due = true, int64(o.Value)
		case recording.ObsStageStarted:
			begun[o.Subject] = span{from: o.At, offered: int64(o.Value)}
		case recording.ObsStageEnded:
			if s, ok := begun[o.Subject]; ok && o.At > s.from {
				s.to = o.At
				s.offered = max(s.offered, int64(o.Value)) // how many requests users send is known only at the end
				scenario, stage, _ := strings.Cut(o.Subject, "/")
				e.played[stageID{scenario, stage, "", ""}] = s
			}
		}
	}
}

// complete reports whether a scenario was played to its end.
func (e *evidence) complete(scenario string) bool {
	s := e.scenario(scenario)
	if s == nil || !e.started[scenario] || !e.ended[scenario] {
		return false
	}
	return !slices.ContainsFunc(s.Stages, func(st scenarios.Stage) bool {
		_, played := e.played[stageID{scenario, st.Name, "", ""}]
		return !played
	})
}

func (e *evidence) scenario(name string) *scenarios.Scenario {
	for i := range e.gate.Scenarios {
		if e.gate.Scenarios[i].Name == name {
			return &e.gate.Scenarios[i]
		}
	}
	return nil
}

func (e *evidence) stage(id stageID) *samples {
	s := e.stages[id]
	if s == nil {
		s = &samples{}
		e.stages[id] = s
	}
	return s
}

// load adds a load request.
func (e *evidence) load(r *recording.Request) {
	id := stageID{r.Scenario, r.Stage, r.Class, e.met(r)}
	s := e.stage(id)
	s.due++
	e.keepLate(r, id.met)
	e.look(r)
	e.serve(r)
	second := &tally{}
	if e.rates {
		second = s.second(int64(r.Due / time.Second))
	}
	second.due++
	e.flowOf(s, r)
	batch := e.partOf(s, r)
	if batch == nil {
		batch = &part{}
	}
	batch.due++
	if r.Sent > 0 {
		s.lags.add((r.Sent - r.Due).Seconds())
	}
	if r.Error == recording.ErrorNotSent {
		s.notSent++
	}
	calm := len(e.faults) > 0
	for _, l := range e.faults {
		l.request(r)
		calm = calm && !l.metBy(r)
	}
	if waited, ok := r.Waited(); calm && ok {
		if e.calm[r.Scenario] == nil {
			e.calm[r.Scenario] = &values{}
		}
		e.calm[r.Scenario].add(waited.Seconds())
	}
	if !r.OK() {
		s.errors++
		batch.errors++
		if r.RefusedInOrder() {
			s.refused++
			batch.refused++
		}
		return
	}
	e.answers++
	s.ended(r)
	if r.CachedReported {
		s.cacheReported++
		s.prompt += int64(r.PromptTokens)
		s.cached += int64(r.CachedTokens)
	}
	if r.TokensFrom != "usage" {
		e.uncounted++
	}
	s.tokens += int64(r.VisibleTokens())
	second.succeeded++
	second.tokens += int64(r.VisibleTokens())
	values := latenciesOf(r, e.growth)
	if r.AskedTokens > 0 {
		s.exact++
		batch.exact++
		if r.OutputTokens != r.AskedTokens {
			s.wrongLength++
			batch.wrongLength++
		}
	}
	for i, v := range values {
		if math.IsNaN(v) {
			continue
		}
		s.values[i].add(v)
		if e.batched[i] {
			batch.values[i].add(v)
		}
		if e.timelines[i] {
			s.timeline[i] = append(s.timeline[i], timed{r.Due.Seconds(), v})
		}
	}
	r.EachGap(func(gap, _ time.Duration) {
		s.icl.add(gap.Seconds())
		if e.gaps {
			batch.icl.add(gap.Seconds())
		}
	})
	if e.attains(r, id, values) {
		s.attained++
		second.attained++
		batch.attained++
		s.goodTokens += int64(r.VisibleTokens())
	}
}

func latenciesOf(r *recording.Request, growth bool) (v latencies) {
	for i := range v {
		v[i] = math.NaN()
		if i != iclGrowth || growth { // it has to sort, and few objectives need it
			v[i] = latencyIn(r, i)
		}
	}
	return v
}

// latencyIn is one latency of a request in seconds; NaN if it has none.
func latencyIn(r *recording.Request, latency int) float64 {
	if d, ok := perRequestLatencies[latency].of(r); ok {
		return d.Seconds()
	}
	return math.NaN()
}

// requestLimits are the objectives that a single request can meet or miss: for each
// metric and scope the loosest upper limit of a percentile or the maximum. Half of the
// requests may exceed the limit of a p50, so if there is a p99 too, its limit applies
// to each request. A limit of a mean applies to none.
func requestLimits(gate scenarios.Gate) []scenarios.Objective {
	var limits []scenarios.Objective
	for _, o := range gate.Objectives {
		if o.Quantile == 0 && o.Stat != "max" || o.Op != "<" && o.Op != "<=" || o.Than != (scenarios.Than{}) {
			continue
		}
		same := slices.IndexFunc(limits, func(l scenarios.Objective) bool {
			return l.Metric == o.Metric && scopeOf(l) == scopeOf(o)
		})
		switch {
		case same < 0:
			limits = append(limits, o)
		case o.Threshold > limits[same].Threshold:
			limits[same] = o
		}
	}
	return limits
}

// attains reports whether a successful request met every limit.
func (e *evidence) attains(r *recording.Request, id stageID, values latencies) bool {
	for _, o := range e.limits {
		if scopeOf(o).covers(id) && !meets(r, o, func(latency int) float64 { return values[latency] }) {
			return false
		}
	}
	return true
}

// meets reports whether a successful request met a limit; value gives its latencies. A
// missing value, such as the TPOT of an answer of one token, misses no limit.
func meets(r *recording.Request, o scenarios.Objective, value func(latency int) float64) bool {
	v := math.NaN()
	if of, ok := latencyOf(o.Metric); ok {
		v = value(of)
	} else if m, _ := scenarios.MetricOf(o.Metric); m.PerChunk {
		v = gapOf(r, o)
	}
	return math.IsNaN(v) || Holds(v, o)
}

// gapOf is an objective's statistic over the gaps of one request. If only its longest
// gap is known, the longest is used, which can only make the result worse.
func gapOf(r *recording.Request, o scenarios.Objective) float64 {
	if len(r.Chunks) == 0 && r.MaxGap > 0 {
		return r.MaxGap.Seconds()
	}
	var gaps []float64
	r.EachGap(func(gap, _ time.Duration) { gaps = append(gaps, gap.Seconds()) })
	if len(gaps) == 0 {
		return math.NaN()
	}
	slices.Sort(gaps)
	if o.Stat == "max" {
		return gaps[len(gaps)-1]
	}
	return gaps[rank(int64(len(gaps)), o.Quantile)]
}

// covers reports whether a stage is in the scope.
func (id stageID) covers(stage stageID) bool {
	return (id.scenario == "" || id.scenario == stage.scenario) && (id.stage == "" || id.stage == stage.stage) &&
		(id.class == "" || id.class == stage.class) && id.meets(stage.met)
}

func (id stageID) meets(met string) bool {
	switch id.met {
	case "":
		return true
	case outside:
		return met == outside
	}
	return strings.Contains(met, id.met)
}

// within are the samples of a scope.
func (e *evidence) within(scope stageID) *samples {
	if all, ok := e.scopes[scope]; ok {
		return all
	}
	all := &samples{}
	for id, s := range e.stages {
		if scope.covers(id) {
			all.merge(s)
		}
	}
	e.scopes[scope] = all
	return all
}

func (s *samples) merge(o *samples) {
	s.due += o.due
	s.errors += o.errors
	s.notSent += o.notSent
	s.attained += o.attained
	s.tokens += o.tokens
	s.goodTokens += o.goodTokens
	s.exact += o.exact
	s.wrongLength += o.wrongLength
	s.ends += o.ends
	s.falseEnds += o.falseEnds
	s.texts = append(s.texts, o.texts...)
	s.refused += o.refused
	s.flow.arrived += o.flow.arrived
	s.flow.answered += o.flow.answered
	s.cacheReported += o.cacheReported
	s.prompt += o.prompt
	s.cached += o.cached
	for i := range o.values {
		s.values[i].merge(&o.values[i])
	}
	for id, p := range o.parts {
		if s.parts == nil {
			s.parts = map[stageID]*parts{}
		}
		if s.parts[id] == nil {
			s.parts[id] = new(parts)
		}
		s.parts[id].merge(p)
	}
	s.icl.merge(&o.icl)
	s.lags.merge(&o.lags)
	for at, t := range o.seconds {
		second := s.second(at)
		second.due += t.due
		second.attained += t.attained
		second.succeeded += t.succeeded
		second.tokens += t.tokens
	}
}

func (s *samples) second(at int64) *tally {
	if s.seconds == nil {
		s.seconds = map[int64]*tally{}
	}
	t := s.seconds[at]
	if t == nil {
		t = &tally{}
		s.seconds[at] = t
	}
	return t
}

// seconds is how long load was offered in a scope.
func (e *evidence) seconds(scope stageID) float64 {
	_, seconds := e.spans(scope)
	return seconds
}

// unrecorded is how many requests were due in a scope and are not in the recording.
// They could be the ones that failed.
func (e *evidence) unrecorded(scope stageID) (missing, offered int64) {
	scope.class, scope.met = "", "" // the class of a missing request is not known
	for id, s := range e.played {
		if !scope.covers(id) {
			continue
		}
		offered += s.offered
		missing += max(0, s.offered-e.within(id).due)
	}
	return missing, offered
}

// nearestRank is the quantile of sorted values: the smallest of them that the
// share q of all is not above.
func nearestRank(sorted []float64, q float64) float64 { return sorted[rank(int64(len(sorted)), q)] }

// rank is the index of a quantile among n sorted values.
func rank(n int64, q float64) int64 {
	return min(max(int64(math.Ceil(q*float64(n)-1e-9))-1, 0), n-1)
}

func mean(v []float64) float64 {
	var sum float64
	for _, x := range v {
		sum += x
	}
	return nanosecond(sum / float64(len(v)))
}

// nanosecond rounds seconds to the precision of the clock, so that a quotient equal to
// a limit does not exceed it.
func nanosecond(v float64) float64 { return math.Round(v*1e9) / 1e9 }
