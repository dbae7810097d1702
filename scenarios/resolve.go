package scenarios

import (
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"
)

// What a gate that leaves it out gets. docs/gate.md tells each to the reader.
const (
	DefaultReplicas     = 3
	DefaultReadyTimeout = Duration(time.Minute)
	DefaultQuantization = "int8"
	DefaultKeyClass     = "standard"
	DefaultWarmup       = 8
	DefaultAPI          = APIChat
	DefaultMaxTokens    = 48
	DefaultChunks       = ChunksAll
	DefaultShape        = ShapeLinear
	DefaultTimeout      = Duration(30 * time.Second)
	DefaultArrivals     = ArrivalsPoisson
	DefaultVictim       = VictimBusiest
	DefaultWithin       = Duration(30 * time.Second)

	DefaultCanaryEvery     = Duration(500 * time.Millisecond)
	DefaultCanaryMaxTokens = 24

	DefaultTwinsEvery     = Duration(250 * time.Millisecond)
	DefaultTwinsMaxTokens = 48
	DefaultTwinsFor       = Duration(20 * time.Second)

	DefaultDurabilityEvery     = Duration(250 * time.Millisecond)
	DefaultDurabilityMaxTokens = 16 // the fewest that OpenAI takes
	DefaultDurabilityTimeout   = Duration(5 * time.Second)
	DefaultDurabilityWithin    = Duration(time.Minute)

	DefaultStopWithin   = Duration(10 * time.Second)
	DefaultStopRequests = 20

	DefaultProbeEvery       = Duration(100 * time.Millisecond)
	DefaultProbeConsecutive = 3
	DefaultProbeMaxTokens   = 4
	DefaultProbeTimeout     = Duration(2 * time.Second)

	DefaultProbeMaxTokensOfResponses = 16 // the fewest that OpenAI takes
)

// Resolved is the gate with everything it leaves out filled in, so that it says
// by itself what a run of it did. A seed of 0 stays, for the run to draw one.
func (g Gate) Resolved() Gate {
	if g.Target.Local != nil {
		local := *g.Target.Local
		or(&local.Replicas, DefaultReplicas)
		or(&local.ReadyTimeout, DefaultReadyTimeout)
		local.Models = maps.Clone(local.Models)
		for name, m := range local.Models {
			or(&m.Quantization, DefaultQuantization)
			local.Models[name] = m
		}
		local.Gateway.Keys = maps.Clone(local.Gateway.Keys)
		for variable, k := range local.Gateway.Keys {
			or(&k.Class, DefaultKeyClass)
			local.Gateway.Keys[variable] = k
		}
		if !local.Monitoring.Disabled {
			or(&local.Monitoring.Shorten, 1)
		}
		g.Target.Local = &local
	}
	if g.Target.Endpoint != nil {
		endpoint := g.Target.Endpoint.resolved()
		g.Target.Endpoint = &endpoint
	}
	if g.Target.Kubernetes != nil {
		kubernetes := g.Target.Kubernetes.resolved()
		g.Target.Kubernetes = &kubernetes
	}
	or(&g.Warmup.Requests, DefaultWarmup)
	or(&g.Chunks, DefaultChunks)
	if g.Stop != nil {
		stop := *g.Stop
		or(&stop.Within, DefaultStopWithin)
		or(&stop.Requests, DefaultStopRequests)
		g.Stop = &stop
	}
	if g.Scan != nil {
		g.Scan = g.Scan.resolved()
	}
	g.Profiles, g.Objectives = g.expanded()
	g.Scenarios = slices.Clone(g.Scenarios)
	for i, s := range g.Scenarios {
		g.Scenarios[i] = s.resolved()
	}
	g.Objectives = slices.Clone(g.Objectives)
	for i, o := range g.Objectives {
		g.Objectives[i].Scenario = g.scenarioOf(o)
	}
	return g
}

// resolved has the parameters that stand in the URL among the others, so that the
// URL is an address.
func (e Endpoint) resolved() Endpoint {
	address, query, has := strings.Cut(e.URL, "?")
	values, err := url.ParseQuery(query)
	if u, bad := url.Parse(e.URL); !has || err != nil || bad != nil || u.User != nil || u.Fragment != "" {
		return e // said of the URL
	}
	for name, v := range values {
		if holdsSecret(name, v[len(v)-1]) {
			return e
		}
	}
	e.URL, e.Query = address, maps.Clone(e.Query)
	if e.Query == nil {
		e.Query = map[string]string{}
	}
	for name, v := range values {
		if _, given := e.Query[name]; !given {
			e.Query[name] = v[len(v)-1]
		}
	}
	return e
}

// scenarioOf is the scenario that an objective is about: of one about alerts, where
// it names a kind of fault, the one that injects it.
func (g Gate) scenarioOf(o Objective) string {
	injects := func(s Scenario) bool {
		return slices.ContainsFunc(s.Faults, func(f Fault) bool { return f.Kind == o.Scenario })
	}
	named := func(s Scenario) bool { return s.Name == o.Scenario }
	if m, _ := MetricOf(o.Metric); m.Needs != NeedsMonitoring || slices.ContainsFunc(g.Scenarios, named) {
		return o.Scenario
	}
	first := slices.IndexFunc(g.Scenarios, injects)
	if first < 0 || slices.ContainsFunc(g.Scenarios[first+1:], injects) {
		return o.Scenario
	}
	return g.Scenarios[first].Name
}

func (s Scenario) resolved() Scenario {
	s.Classes = slices.Clone(s.Classes)
	for i, c := range s.Classes {
		or(&c.Weight, 1)
		c.Workload = c.Workload.over(s.Workload).resolved()
		s.Classes[i] = c
	}
	s.Workload = s.Workload.resolved()
	s.Vary = slices.Clone(s.Vary)
	for i, f := range s.Vary {
		s.Vary[i].Values = slices.Clone(f.Values)
		for j := range f.Values {
			or(&s.Vary[i].Values[j].Weight, 1)
			if w := &s.Vary[i].Values[j].Workload; w.Answer != 0 && w.MaxTokens.IsZero() {
				w.MaxTokens = Fixed(DefaultMaxTokens) // until the speed is measured
			}
		}
	}
	s.Stages = slices.Clone(s.Stages)
	for i := range s.Stages {
		if st := s.Stages[i]; st.Rate == 0 && st.To == nil && st.Trace == nil && st.Users == 0 {
			or(&s.Stages[i].InFlight, s.Workload.InFlight)
		}
		s.Stages[i] = s.Stages[i].resolved()
	}
	s.Faults = slices.Clone(s.Faults)
	for i := range s.Faults {
		if kind, known := FaultKindOf(s.Faults[i].Kind); kind.Replica || !known {
			or(&s.Faults[i].Target, DefaultVictim)
		}
		if kind, _ := FaultKindOf(s.Faults[i].Kind); slices.Contains(kind.May, "cut") {
			or(&s.Faults[i].Cut, CutSilent)
		}
		or(&s.Faults[i].Within, DefaultWithin)
		or(&s.Faults[i].Repeat, 1)
	}
	if s.Canary != nil {
		canary := *s.Canary
		or(&canary.Every, DefaultCanaryEvery)
		or(&canary.MaxTokens, DefaultCanaryMaxTokens)
		s.Canary = &canary
	}
	if s.Twins != nil {
		twins := *s.Twins
		or(&twins.Every, DefaultTwinsEvery)
		or(&twins.MaxTokens, DefaultTwinsMaxTokens)
		or(&twins.For, DefaultTwinsFor)
		s.Twins = &twins
	}
	if s.Durability != nil {
		durability := *s.Durability
		or(&durability.Every, DefaultDurabilityEvery)
		or(&durability.MaxTokens, DefaultDurabilityMaxTokens)
		or(&durability.Timeout, DefaultDurabilityTimeout)
		or(&durability.Within, DefaultDurabilityWithin)
		s.Durability = &durability
	}
	if s.Probe == nil && len(s.Faults) == 0 {
		return s
	}
	var probe Probe
	if s.Probe != nil {
		probe = *s.Probe
	}
	or(&probe.Every, DefaultProbeEvery)
	or(&probe.Consecutive, DefaultProbeConsecutive)
	if s.Mix()[0].Workload.API == APIResponses {
		or(&probe.MaxTokens, DefaultProbeMaxTokensOfResponses)
	}
	or(&probe.MaxTokens, DefaultProbeMaxTokens)
	or(&probe.Timeout, DefaultProbeTimeout)
	s.Probe = &probe
	return s
}

// DefaultConfidence is how sure a promise has to be to pass.
const DefaultConfidence = 0.99

// Sure is how sure a promise of the gate has to be to pass.
func (g Gate) Sure() float64 {
	if g.Confidence == 0 {
		return DefaultConfidence
	}
	return float64(g.Confidence)
}

// resolved streams, and asks at temperature 0, so that the same prompt is the
// same work in every run. The prompts are written out: a run of a gate that
// names none can be repeated after the default set has changed.
func (w Workload) resolved() Workload {
	or(&w.API, DefaultAPI)
	if w.Stream == nil {
		w.Stream = new(true)
	}
	if w.Temperature == nil {
		w.Temperature = new(float64(0))
	}
	if len(w.Prompts) == 0 && w.Dataset == "" && w.Synthetic == nil {
		w.Prompts = DefaultPrompts()
	}
	if w.MaxTokens.IsZero() {
		w.MaxTokens = Fixed(DefaultMaxTokens)
	}
	or(&w.Turns, 1)
	if w.Salt == nil {
		w.Salt = new(true)
	}
	or(&w.Timeout, DefaultTimeout)
	return w
}

// over is a class's workload with what it leaves out taken from the scenario's.
// What the prompts are made of is one choice: a class that makes its own takes
// none of the scenario's.
func (w Workload) over(base Workload) Workload {
	if len(w.Prompts) == 0 && w.Dataset == "" && w.Synthetic == nil {
		w.Prompts, w.Dataset, w.Synthetic = base.Prompts, base.Dataset, base.Synthetic
	}
	or(&w.API, base.API)
	or(&w.Model, base.Model)
	or(&w.APIKeyEnv, base.APIKeyEnv)
	or(&w.Connection, base.Connection)
	or(&w.Stream, base.Stream)
	or(&w.System, base.System)
	or(&w.Turns, base.Turns)
	if w.MaxTokens.IsZero() && w.Answer == 0 {
		w.MaxTokens, w.Answer = base.MaxTokens, base.Answer
	}
	or(&w.IgnoreEOS, base.IgnoreEOS)
	if len(w.Finish) == 0 {
		w.Finish = base.Finish
	}
	or(&w.Salt, base.Salt)
	or(&w.Marks, base.Marks)
	or(&w.Temperature, base.Temperature)
	w.Fields = merged(base.Fields, w.Fields)
	or(&w.Timeout, base.Timeout)
	return w
}

func (s Stage) resolved() Stage {
	if s.Trace != nil {
		trace := *s.Trace
		or(&trace.Speed, 1)
		s.Trace = &trace
	}
	if s.Trace == nil && s.Users == 0 {
		if s.Burstiness != 0 {
			or(&s.Arrivals, ArrivalsGamma)
		}
		or(&s.Arrivals, DefaultArrivals)
	}
	if s.To != nil {
		or(&s.Shape, DefaultShape)
	}
	return s
}

func or[T comparable](value *T, otherwise T) {
	var zero T
	if *value == zero {
		*value = otherwise
	}
}
