package checklist

import (
	"math"
	"time"

	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/scenarios"
)

// Cost is what the service costs under the load of the run. All replicas, also the
// spare ones, are paid for all of the time. So the price of the good answers includes
// headroom, failed requests and answers that came too late.
type Cost struct {
	Instance     string  `json:"instance"`
	PricesOf     string  `json:"prices_of"` // date of the price list
	Source       string  `json:"source"`
	PaidReplicas int     `json:"paid_replicas"`
	PerHour      float64 `json:"usd_per_hour"` // of all of them, at on-demand prices
	// PerMillion is the cost of a million output tokens of answers that met every
	// limit, over the scenarios without faults; nil if there are no such tokens.
	PerMillion *float64     `json:"usd_per_million_output_tokens"`
	PerRequest *float64     `json:"usd_per_request"` // of a request that met every limit
	Options    []CostOption `json:"options"`
	// Doubts are what a reader must know of the prices.
	Doubts []words.Sentence `json:"doubts,omitempty"`
}

// CostOption is a cheaper way to buy the same capacity. It is proven if the run shows
// that the service survives the faults that come with it.
type CostOption struct {
	Name       string         `json:"name"`
	PerMillion *float64       `json:"usd_per_million_output_tokens"`
	Saving     float64        `json:"saving_ratio"`
	Verdict    Outcome        `json:"verdict"`
	Why        words.Sentence `json:"why"`
}

// perMillion is the cost of a million good tokens, at a price per hour.
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
		f.Why = words.Say("the gate gives no price for a replica, so the cost is unknown")
		return
	}
	f.Samples = s.attained
	v := perMillion(float64(replicas)*float64(price.OnDemand), e.seconds(scopeOf(o)), s.goodTokens)
	if v == nil {
		f.Why = words.Say("no answer met every limit, so there is no cost per token within the limits")
		return
	}
	f.decide(*v, o)
	f.Why = words.Say("%s (%d × %s at %s per hour, prices of %s; %d tokens within the limits in %s)", f.Why, replicas, price.Name, price.OnDemand, price.Date, s.goodTokens,
		time.Duration(e.seconds(scopeOf(o))*float64(time.Second)).Round(time.Second))
}

// costs sums up what the service costs; nil if the gate has no price.
func (e *evidence) costs(faults []Fault) *Cost {
	replicas, price, err := e.gate.Paid()
	if err != nil {
		return nil
	}
	c := &Cost{Instance: price.Name, PricesOf: price.Date, Source: price.Source, PaidReplicas: replicas, PerHour: float64(replicas) * float64(price.OnDemand),
		Doubts: PriceDoubts(price, e.rec.Environment.StartedAt)}
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
		option("reserved", float64(price.Reserved), Pass, words.Say("the same machines, with a commitment to pay for them longer"))
	}
	if price.Spot > 0 {
		// A preempted machine is replaced, and the replacement is paid for while it
		// starts. Requests that are lost with it are paid for too, and give no good tokens.
		dollars := float64(price.Spot)
		verdict, why := survived(faults, "spot-preemption")
		if price.Interruptions > 0 {
			perHour := float64(replicas) * float64(price.Interruptions)
			starts, loses := words.Say("how long a new one needs to become ready is not known"), words.Say("what a reclaim loses is not known")
			start, started := e.coldStart()
			if started {
				starts = words.Say("a new one needs %.1f s to become ready", start)
				dollars *= 1 + float64(price.Interruptions)*start/3600
			}
			lost, counted := e.lostTo("spot-preemption", faults)
			if counted {
				loses = words.Say("a reclaim made %.3g requests fail or miss a limit", lost)
				if attained > 0 && seconds > 0 {
					dollars /= max(1-lost*perHour/(float64(attained)/seconds*3600), leastKept)
				}
			}
			if verdict == Pass && !(started && counted) {
				verdict = Unproven // the saving is smaller by what is not known
			}
			why = words.Say("%s; %s of them are reclaimed per hour; %s; %s", why, price.Interruptions, starts, loses)
		} else {
			why = words.Say("%s; the price book does not say how many of them are reclaimed per hour, so nothing is deducted for it", why)
			if verdict == Pass {
				verdict = Unproven
			}
		}
		option("spot", dollars, verdict, why)
	}
	if price.Autoscaling > 0 {
		verdict, why := e.scaled()
		option("autoscaling", float64(price.OnDemand)*(1-float64(price.Autoscaling)), verdict, why)
	}
	if price.SecondProvider > 0 {
		verdict, why := survived(faults, "node-loss")
		option("second provider", float64(price.OnDemand)*(1-float64(price.SecondProvider)), verdict, words.Say("%s, as if one of the two is gone", why))
	}
	return c
}

// scaled reports whether a replica joined under load in a scenario without faults
// whose objectives held, which is the evidence that autoscaling is possible.
func (e *evidence) scaled() (Outcome, words.Sentence) {
	for _, s := range e.gate.Scenarios {
		if len(s.Faults) > 0 || !e.complete(s.Name) {
			continue
		}
		from, to := e.scenarioTime(s.Name)
		before, most := math.NaN(), 0.0
		for _, o := range e.rec.Observations {
			switch {
			case o.Name != recording.ObsReplicasReady || o.At > to:
			case o.At <= from || math.IsNaN(before):
				before = o.Value
			default:
				most = max(most, o.Value)
			}
		}
		if !(most > before) {
			continue
		}
		for _, o := range e.gate.Objectives {
			if o.Scenario != "" && o.Scenario != s.Name || o.Unit == scenarios.UnitUSD {
				continue
			}
			if f := e.judge(o); f.Verdict != Pass && !f.Waived {
				return f.Verdict, words.Say("replicas joined under the load of %s, and %s does not hold", s.Name, f.Source)
			}
		}
		return Pass, words.Say("%s became %d under the load of %s, and its objectives held", words.Count(int64(before), "1 replica", "%d replicas"), int(most), s.Name)
	}
	return Unproven, words.Say("no replica joined under load in this run")
}

// Energy is what the devices used in the scenarios without faults.
type Energy struct {
	Joules         float64 `json:"joules"`
	Devices        int     `json:"devices"`
	OutputTokens   int64   `json:"output_tokens"` // of all complete answers
	PerOutputToken float64 `json:"joules_per_output_token"`
	PerGoodToken   float64 `json:"joules_per_good_token,omitempty"` // of answers that met every limit
}

// energy is nil if no device reported its energy from the beginning of a scenario to
// its end.
func (e *evidence) energy() *Energy {
	var sum Energy
	var good int64
	devices := map[string]bool{}
	for _, s := range e.gate.Scenarios {
		if len(s.Faults) > 0 || !e.complete(s.Name) {
			continue
		}
		from, to := e.scenarioTime(s.Name)
		first, last := map[string]float64{}, map[string]float64{}
		for _, o := range e.rec.Observations {
			if o.Name != recording.ObsEnergy || o.At < from || o.At > to {
				continue
			}
			if _, seen := first[o.Subject]; !seen {
				first[o.Subject] = o.Value
			}
			last[o.Subject] = o.Value
		}
		used := 0.0
		for device, v := range last {
			if v > first[device] {
				used += v - first[device]
				devices[device] = true
			}
		}
		if used == 0 {
			continue
		}
		of := e.within(stageID{scenario: s.Name})
		sum.Joules += used
		sum.OutputTokens += of.tokens
		good += of.goodTokens
	}
	if sum.Devices = len(devices); sum.Devices == 0 || sum.OutputTokens == 0 {
		return nil
	}
	sum.PerOutputToken = sum.Joules / float64(sum.OutputTokens)
	if good > 0 {
		sum.PerGoodToken = sum.Joules / float64(good)
	}
	return &sum
}

// survived reports whether a run shows that the service survives a kind of fault.
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

// leastKept is the share of good requests that preemptions leave at the least, so that a
// service that loses all of them still has a price.
const leastKept = 0.01

// lostTo is how many requests a fault of a kind made fail or miss a limit, on average:
// those of the scenarios with faults of that kind alone. It is false if there are none.
func (e *evidence) lostTo(kind string, faults []Fault) (lost float64, known bool) {
	of := map[string]int{}
	mixed := map[string]bool{}
	for _, f := range faults {
		if f.Kind != kind {
			mixed[f.Scenario] = true
		} else if f.InEffectAt != nil {
			of[f.Scenario]++
		}
	}
	n := 0
	for scenario, faults := range of {
		if mixed[scenario] || !e.complete(scenario) {
			continue
		}
		s := e.within(stageID{scenario: scenario})
		lost += float64(s.due - s.attained)
		n += faults
	}
	if n == 0 {
		return 0, false
	}
	return lost / float64(n), true
}

// oldPrices is the age from which prices are warned of.
const oldPrices = 90 * 24 * time.Hour

// PriceDoubts are what a reader must know of a price at a time.
func PriceDoubts(price scenarios.Price, at time.Time) (all []words.Sentence) {
	if date, err := time.Parse(time.DateOnly, price.Date); err != nil {
		all = append(all, words.Say("the prices have no date, so nobody knows how old they are"))
	} else if at.Sub(date) > oldPrices {
		all = append(all, words.Say("the prices are of %s, which was more than 90 days before", price.Date))
	}
	if price.Reserved > price.OnDemand {
		all = append(all, words.Say("the reserved price (%s) is above the price on demand (%s), so check the price book", price.Reserved.String(), price.OnDemand.String()))
	}
	return all
}

// coldStart is the longest time, in seconds, that a replica took from its start until
// the gateway would route to it. It is false if no replica was seen to start.
func (e *evidence) coldStart() (longest float64, known bool) {
	began := map[string]time.Duration{}
	for _, o := range e.rec.Observations {
		switch {
		case o.Name == recording.ObsProcessStarted:
			began[o.Subject] = o.At
		case o.Name == recording.ObsReplicaReady && o.Value == 1:
			if at, ok := began[o.Subject]; ok {
				longest, known = max(longest, (o.At-at).Seconds()), true
				delete(began, o.Subject)
			}
		}
	}
	return longest, known
}
