package loadgen

import (
	"math"

	"github.com/launchgate/launchgate/scenarios"
)

// RequestsOf estimates the most requests that an objective can be about; false if that
// is not known before the run.
func RequestsOf(gate scenarios.Gate, plans []*Plan, o scenarios.Objective) (int64, bool) {
	var sum float64
	for i, s := range gate.Scenarios {
		if o.Scenario != "" && o.Scenario != s.Name {
			continue
		}
		var of, all float64
		for _, c := range s.Mix() {
			all += c.Weight
			if o.Class == "" || o.Class == c.Name {
				of += c.Weight
			}
		}
		for _, st := range plans[i].Stages {
			if o.Stage != "" && o.Stage != st.Name {
				continue
			}
			n, known := plans[i].Most(st)
			if !known && of > 0 {
				return 0, false
			}
			sum += float64(n) * of / all
		}
	}
	return int64(math.Round(sum)), true
}
