package reports

import (
	"cmp"
	"math"
	"slices"

	"github.com/launchgate/launchgate/checklist"
	"github.com/launchgate/launchgate/scenarios"
)

// Objective is a finding with how near it came to its limit.
type Objective struct {
	checklist.Finding
	Declared scenarios.Objective // zero where the gate no longer has it
	// Margin is the share of the limit (of a share that must be reached: of what
	// it leaves) that was left over, negative where it was missed; nil where nothing was measured or the limit is zero.
	Margin *float64
	Bar    Bar
}

// Bar places an objective on a track from 0 to 1 with its limit at barLimit.
type Bar struct {
	Value *float64 // nil: nothing was measured
	Bound *float64 // how far the value may be off, with 99 % confidence
	Over  bool     // the value lies beyond the end of the track
	Floor bool     // the value must reach the limit instead of staying below
}

// barLimit leaves room on the track for values half as large again.
const barLimit = 2.0 / 3

var severity = map[checklist.Outcome]int{checklist.Fail: 0, checklist.Invalid: 1, checklist.Unproven: 2, checklist.Pass: 3}

// objectives puts what decided the verdict first: failed, invalid, unproven,
// passed, and within each the order of the gate.
func objectives(gate scenarios.Gate, v checklist.Verdict) []Objective {
	var rows []Objective
	for _, f := range v.Objectives {
		row := Objective{Finding: f}
		if i := slices.IndexFunc(gate.Objectives, func(o scenarios.Objective) bool { return o.Source == f.Source }); i >= 0 {
			row.Declared = gate.Objectives[i]
		}
		row.place()
		rows = append(rows, row)
	}
	slices.SortStableFunc(rows, func(a, b Objective) int {
		return cmp.Compare(severity[a.Verdict], severity[b.Verdict])
	})
	return rows
}

func (o *Objective) place() {
	o.Bar.Floor = o.Declared.Op == ">=" || o.Declared.Op == ">"
	if o.Value == nil || math.IsNaN(*o.Value) {
		return
	}
	o.Bar.Value, o.Bar.Over = along(*o.Value, o.Threshold)
	if o.Bound != nil {
		o.Bar.Bound, _ = along(*o.Bound, o.Threshold)
	}
	if o.Threshold == 0 {
		return
	}
	margin := (o.Threshold - *o.Value) / math.Abs(o.Threshold)
	if o.Bar.Floor {
		margin = -margin
	}
	if o.Bar.Floor && o.Unit == scenarios.UnitRatio && o.Declared.Than == (scenarios.Than{}) && margin > 0 {
		// Of an attainment of at least 90 %, a tenth may be missed, and what is left
		// of that tenth is the margin: at 100 % all of it.
		margin = (*o.Value - o.Threshold) / (1 - o.Threshold)
	}
	if o.Declared.Op == "==" {
		margin = -math.Abs(margin)
	}
	o.Margin = &margin
}

// along is where a value lies on a track whose limit lies at barLimit.
func along(value, limit float64) (*float64, bool) {
	at := value / limit * barLimit
	if limit == 0 {
		at = barLimit
		if value > 0 {
			at = 1
		}
	}
	clipped := min(max(at, 0), 1)
	return &clipped, at > 1
}
