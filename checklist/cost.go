package checklist

import (
	"time"

	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/scenarios"
)

// Cost is what a service costs as it was loaded: all replicas are paid for all
// of the time, and those kept for a failure with them, so that headroom, failed
// work and answers that came too late are part of the price of those that were
// good.
type Cost struct {
	Instance     string  `json:"instance"`
	PricesOf     string  `json:"prices_of"` // the date of the book
	Source       string  `json:"source"`
	PaidReplicas int     `json:"paid_replicas"`
	PerHour      float64 `json:"usd_per_hour"` // of all of them, on demand
	// PerMillion is for a million output tokens of answers that met every limit,
	// over the scenarios without faults; nil where there were none.
	PerMillion *float64     `json:"usd_per_million_output_tokens"`
	PerRequest *float64     `json:"usd_per_request"` // that met every limit
	Options    []CostOption `json:"options"`
}

// CostOption is another way to buy the same. It is proven when the run shows
// that the service survives what the option brings with it.
type CostOption struct {
	Name       string         `json:"name"`
	PerMillion *float64       `json:"usd_per_million_output_tokens"`
	Saving     float64        `json:"saving_ratio"`
	Verdict    Outcome        `json:"verdict"`
	Why        words.Sentence `json:"why"`
}

// perMillion is the cost of a million good tokens, at a price an hour.
func perMillion(perHour, seconds float64, tokens int64) *float64 {
	if tokens == 0 || seconds <= 0 {
		return nil
	}
	return new(perHour * seconds / 3600 / float64(tokens) * 1e6)
}

// cost decides an objective about money.
func (f *Finding) cost(o scenarios.Objective, e *evidence, s *samples) {
	replicas, price, err := e.gate.Paid()
	if err != nil {
		f.Why = words.Say("the gate does not say what a replica costs, so the cost is unknown")
		return
	}
	f.Samples = s.attained
	v := perMillion(float64(replicas)*float64(price.OnDemand), e.seconds(scopeOf(o)), s.goodTokens)
	if v == nil {
		f.Why = words.Say("no answer met every limit, so a good token has no price")
		return
	}
	f.decide(*v, o)
	f.Why = words.Say("%s (%d × %s at %s an hour, prices of %s; %d good tokens in %s)", f.Why, replicas, price.Name, price.OnDemand, price.Date, s.goodTokens,
		time.Duration(e.seconds(scopeOf(o))*float64(time.Second)).Round(time.Second))
}

// costs sums up what the service costs; nil where the gate names no price.
func (e *evidence) costs(faults []Fault) *Cost {
	replicas, price, err := e.gate.Paid()
	if err != nil {
		return nil
	}
	c := &Cost{Instance: price.Name, PricesOf: price.Date, Source: price.Source, PaidReplicas: replicas, PerHour: float64(replicas) * float64(price.OnDemand)}
	var seconds float64
	var tokens, attained int64
	for _, s := range e.gate.Scenarios {
		if len(s.Faults) > 0 || !e.complete(s.Name) {
			continue
		}
		scope := stageID{scenario: s.Name}
		of := e.within(scope)
		seconds, tokens, attained = seconds+e.seconds(scope), tokens+of.goodTokens, attained+of.attained
	}
	c.PerMillion = perMillion(c.PerHour, seconds, tokens)
	if attained > 0 {
		c.PerRequest = new(c.PerHour * seconds / 3600 / float64(attained))
	}
	option := func(name string, dollars float64, verdict Outcome, why words.Sentence) {
		c.Options = append(c.Options, CostOption{name, perMillion(float64(replicas)*dollars, seconds, tokens), 1 - dollars/float64(price.OnDemand), verdict, why})
	}
	if price.Reserved > 0 {
		option("reserved", float64(price.Reserved), Pass, words.Say("the same machines, with the promise to pay for them longer"))
	}
	if price.Spot > 0 {
		start := e.coldStart()
		// What is taken away is replaced, and the replacement is paid for while it
		// starts.
		dollars := float64(price.Spot) * (1 + float64(price.Interruptions)*start/3600)
		verdict, why := survived(faults, "spot-preemption")
		option("spot", dollars, verdict, words.Say("%s; %s of them are taken away in an hour, and a new one takes %.1f s to be ready", why, price.Interruptions, start))
	}
	return c
}

// survived reports whether a run shows that the service comes through a kind of
// fault.
func survived(faults []Fault, kind string) (Outcome, words.Sentence) {
	verdict, why := Unproven, words.Say("no scenario of this run injects %s", kind)
	for _, f := range faults {
		if f.Kind != kind {
			continue
		}
		if f.Verdict != Pass {
			return f.Verdict, words.Say("%s was not survived: %s", kind, f.Why)
		}
		verdict, why = Pass, words.Say("this run survived %s", kind)
	}
	return verdict, why
}

// coldStart is the longest that a replica took from its start until the gateway
// would route to it, in seconds; 0 where none was seen to start.
func (e *evidence) coldStart() (longest float64) {
	began := map[string]time.Duration{}
	for _, o := range e.rec.Observations {
		switch {
		case o.Name == recording.ObsProcessStarted:
			began[o.Subject] = o.At
		case o.Name == recording.ObsReplicaReady && o.Value == 1:
			if at, ok := began[o.Subject]; ok {
				longest = max(longest, (o.At - at).Seconds())
				delete(began, o.Subject)
			}
		}
	}
	return longest
}
