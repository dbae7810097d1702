package checklist

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/scenarios"
)

// A minute of 120 answers of 10 tokens, on three replicas and a spare one at
// $1.20 an hour: 1,200 tokens for 8 cents, a million for $66.67.
func TestCost(t *testing.T) {
	gate := func(objective string) scenarios.Gate {
		g := correctGate(t, objective)
		g.Target = scenarios.Target{Local: &scenarios.Local{Replicas: 3}}
		g.Cost = &scenarios.Cost{Price: &scenarios.Price{Name: "l4", OnDemand: 1.2, Reserved: 0.9, Spot: 0.4, Interruptions: 0.5, Date: "2026-11-01", Source: "a test"}}
		return g
	}
	sound := func(int, *recording.Request) {}
	v, err := Judge(gate("cost_per_million_output_tokens in s <= $70"), minute(sound))
	if err != nil {
		t.Fatal(err)
	}
	if f := v.Objectives[0]; f.Verdict != Pass || math.Abs(*f.Value-66.6667) > 0.01 || !strings.Contains(f.Why.String(), "4 × l4 at $1.2 per hour, prices of 2026-11-01") {
		t.Errorf("%+v", f)
	}
	// Half of the answers fail, so the good ones cost twice as much.
	v, err = Judge(gate("cost_per_million_output_tokens in s <= $70"), minute(func(i int, r *recording.Request) {
		if i%2 == 0 {
			r.Error = recording.ErrorTimeout
		}
	}))
	if err != nil {
		t.Fatal(err)
	}
	if f := v.Objectives[0]; f.Verdict != Fail || math.Abs(*f.Value-133.333) > 0.01 {
		t.Errorf("%+v", f)
	}
	c := v.Cost
	if c == nil || c.PaidReplicas != 4 || math.Abs(c.PerHour-4.8) > 1e-9 || len(c.Options) != 2 {
		t.Fatalf("%+v", c)
	}
	if spot := c.Options[1]; spot.Name != "spot" || spot.Verdict != Unproven || !strings.Contains(spot.Why.String(), "no scenario of this run injects spot-preemption") {
		t.Errorf("%+v", spot)
	}
	// There is no good answer.
	v, err = Judge(gate("cost_per_million_output_tokens in s <= $70"), minute(func(_ int, r *recording.Request) { r.Error = recording.ErrorTimeout }))
	if err != nil {
		t.Fatal(err)
	}
	if f := v.Objectives[0]; f.Verdict != Unproven || v.Cost.PerMillion != nil {
		t.Errorf("%+v, %+v", f, v.Cost)
	}
}

// A cost option is proven if the run shows that the service survives its fault.
func TestSpotIsProvenBySurvival(t *testing.T) {
	for _, tt := range []struct {
		faults []Fault
		want   Outcome
	}{
		{nil, Unproven},
		{[]Fault{{Kind: "pod-kill", Verdict: Pass}}, Unproven},
		{[]Fault{{Kind: "spot-preemption", Verdict: Pass}}, Pass},
		{[]Fault{{Kind: "spot-preemption", Verdict: Pass}, {Kind: "spot-preemption", Verdict: Fail}}, Fail},
	} {
		if got, why := survived(tt.faults, "spot-preemption"); got != tt.want || why.IsZero() {
			t.Errorf("%+v: %s, want %s", tt.faults, got, tt.want)
		}
	}
}

// What spot instances cost includes the start of replacements and the requests lost with
// a reclaimed one. Of what the run does not show, nothing is deducted, and nothing proven.
func TestSpotCountsWhatItLoses(t *testing.T) {
	sound := func(int, *recording.Request) {}
	started := []recording.Observation{
		{At: 2 * time.Second, Name: recording.ObsProcessStarted, Subject: "a"},
		{At: 38 * time.Second, Name: recording.ObsReplicaReady, Subject: "a", Value: 1},
	}
	gate := correctGate(t, "error_rate in s <= 5%")
	gate.Target = scenarios.Target{Local: &scenarios.Local{Replicas: 3}}
	gate.Cost = &scenarios.Cost{Price: &scenarios.Price{Name: "l4", OnDemand: 1, Spot: 0.5, Interruptions: 0.5, Date: "2026-11-01", Source: "a test"}}
	for name, tt := range map[string]struct {
		all    []recording.Observation
		says   string
		saving float64
	}{
		"an unknown start": {nil, "how long a new one needs to become ready is not known; what a reclaim loses is not known", 0.5},
		"a start of 36 s":  {started, "a new one needs 36.0 s to become ready; what a reclaim loses is not known", 1 - 0.5*1.005},
	} {
		v, err := Judge(gate, minute(sound, tt.all...))
		if err != nil {
			t.Fatal(err)
		}
		if spot := v.Cost.Options[0]; spot.Verdict != Unproven || math.Abs(spot.Saving-tt.saving) > 1e-9 || !strings.Contains(spot.Why.String(), tt.says) {
			t.Errorf("%s: %+v, expected a saving of %v and %q", name, spot, tt.saving, tt.says)
		}
	}
}

// What a preemption loses are the requests of its scenario that did not meet the limits.
func TestLostToAFault(t *testing.T) {
	rec := minute(func(i int, r *recording.Request) {
		if i < 6 {
			r.Error = recording.ErrorTimeout
		}
	})
	e, err := gather(correctGate(t, "error_rate in s <= 5%"), rec)
	if err != nil {
		t.Fatal(err)
	}
	at := new(1.0)
	for name, tt := range map[string]struct {
		faults []Fault
		want   float64
		known  bool
	}{
		"no fault":                {nil, 0, false},
		"two preemptions":         {[]Fault{{Scenario: "s", Kind: "spot-preemption", InEffectAt: at}, {Scenario: "s", Kind: "spot-preemption", InEffectAt: at}}, 3, true},
		"one never was in effect": {[]Fault{{Scenario: "s", Kind: "spot-preemption"}}, 0, false},
		"another fault beside it": {[]Fault{{Scenario: "s", Kind: "spot-preemption", InEffectAt: at}, {Scenario: "s", Kind: "pod-kill", InEffectAt: at}}, 0, false},
	} {
		if got, known := e.lostTo("spot-preemption", tt.faults); got != tt.want || known != tt.known {
			t.Errorf("%s: %v, known: %v; expected %v, %v", name, got, known, tt.want, tt.known)
		}
	}
}

func TestPriceDoubts(t *testing.T) {
	at := time.Date(2026, 11, 29, 0, 0, 0, 0, time.UTC)
	for _, tt := range []struct {
		price scenarios.Price
		says  string
	}{
		{scenarios.Price{OnDemand: 1, Reserved: 0.9, Date: "2026-11-01"}, ""},
		{scenarios.Price{OnDemand: 1, Date: "2026-08-01"}, "more than 90 days"},
		{scenarios.Price{OnDemand: 1}, "no date"},
		{scenarios.Price{OnDemand: 1, Reserved: 1.1, Date: "2026-11-01"}, "the reserved price ($1.1) is above"},
	} {
		var all []string
		for _, s := range PriceDoubts(tt.price, at) {
			all = append(all, s.String())
		}
		if got := strings.Join(all, "; "); (tt.says == "") != (got == "") || !strings.Contains(got, tt.says) {
			t.Errorf("%+v: found %q, expected %q", tt.price, got, tt.says)
		}
	}
}

func TestColdStart(t *testing.T) {
	e := &evidence{rec: recording.InMemory(nil, nil, []recording.Observation{
		{At: time.Second, Name: recording.ObsProcessStarted, Subject: "a"},
		{At: 3 * time.Second, Name: recording.ObsReplicaReady, Subject: "a", Value: 1},
		{At: 4 * time.Second, Name: recording.ObsProcessStarted, Subject: "b"},
		{At: 5 * time.Second, Name: recording.ObsReplicaReady, Subject: "b", Value: 1},
		{At: 9 * time.Second, Name: recording.ObsReplicaReady, Subject: "b", Value: 1},
	})}
	if got, known := e.coldStart(); got != 2 || !known {
		t.Errorf("%v s, known: %v; want 2 and true", got, known)
	}
	e = &evidence{rec: recording.InMemory(nil, nil, nil)}
	if got, known := e.coldStart(); known {
		t.Errorf("%v s, want an unknown start", got)
	}
}

// Energy is the difference between the readings of each device at the beginning and at
// the end of a scenario. Without readings it is missing, and not zero.
func TestEnergy(t *testing.T) {
	gate := correctGate(t, "error_rate in s <= 5%")
	sound := func(int, *recording.Request) {}
	at := func(s int, device string, joules float64) recording.Observation {
		return recording.Observation{At: time.Duration(s) * time.Second, Name: recording.ObsEnergy, Subject: device, Value: joules}
	}
	v, err := Judge(gate, minute(sound, at(2, "a", 1000), at(2, "b", 50), at(30, "a", 1300), at(59, "a", 1600), at(59, "b", 650), at(200, "a", 9999)))
	if err != nil {
		t.Fatal(err)
	}
	if e := v.Energy; e == nil || e.Joules != 1200 || e.Devices != 2 || e.OutputTokens != 1200 || e.PerOutputToken != 1 || e.PerGoodToken != 1 {
		t.Errorf("%+v", e)
	}
	for name, rec := range map[string]*recording.Recording{"nobody tells": minute(sound), "told once": minute(sound, at(30, "a", 1000))} {
		if v, err = Judge(gate, rec); err != nil || v.Energy != nil {
			t.Errorf("%s: %+v, %v", name, v.Energy, err)
		}
	}
}

// Autoscaling is proven only if a replica was seen to join under load, and no objective
// failed meanwhile.
func TestAutoscalingIsProvenByScaling(t *testing.T) {
	ready := func(s int, n float64) recording.Observation {
		return recording.Observation{At: time.Duration(s) * time.Second, Name: recording.ObsReplicasReady, Value: n}
	}
	sound := func(int, *recording.Request) {}
	broken := func(i int, r *recording.Request) {
		if i%2 == 0 {
			r.Error = recording.ErrorTimeout
		}
	}
	for name, tt := range map[string]struct {
		rec  *recording.Recording
		want Outcome
	}{
		"no replica joined":           {minute(sound, ready(1, 3), ready(30, 3)), Unproven},
		"one came back":               {minute(sound, ready(1, 3), ready(20, 2), ready(30, 3)), Unproven},
		"one joined":                  {minute(sound, ready(1, 2), ready(30, 3)), Pass},
		"one joined, and it was felt": {minute(broken, ready(1, 2), ready(30, 3)), Fail},
		"one joined afterwards":       {minute(sound, ready(1, 2), ready(300, 3)), Unproven},
	} {
		gate := correctGate(t, "error_rate in s <= 5%")
		gate.Target = scenarios.Target{Local: &scenarios.Local{Replicas: 3}}
		gate.Cost = &scenarios.Cost{Price: &scenarios.Price{Name: "l4", OnDemand: 1, Autoscaling: 0.3, SecondProvider: 0.25, Date: "2026-11-01", Source: "a test"}}
		v, err := Judge(gate, tt.rec)
		if err != nil {
			t.Fatal(err)
		}
		scaling, second := v.Cost.Options[0], v.Cost.Options[1]
		if scaling.Name != "autoscaling" || math.Abs(scaling.Saving-0.3) > 1e-9 || scaling.Verdict != tt.want {
			t.Errorf("%s: %+v, want %s", name, scaling, tt.want)
		}
		if second.Verdict != Unproven || math.Abs(second.Saving-0.25) > 1e-9 {
			t.Errorf("%+v", second)
		}
	}
}
