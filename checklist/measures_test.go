package checklist

import (
	"testing"

	"github.com/launchgate/launchgate/scenarios"
)

// Every metric of the grammar has exactly one measure.
func TestEveryMetricHasAMeasure(t *testing.T) {
	declared := scenarios.Metrics()
	if len(declared) != len(measures) {
		t.Errorf("%d metrics are declared and %d measured", len(declared), len(measures))
	}
	for i, m := range measures {
		if i < len(declared) && declared[i].Name != m.metric {
			t.Errorf("the measure of %s stands where that of %s should", m.metric, declared[i].Name)
		}
		if (m.of == nil) == (m.strike == nil) {
			t.Errorf("%s has to be decided by one function: over a scope, or for each strike of a fault", m.metric)
		}
		if i < len(declared) && declared[i].Bound == "" {
			t.Errorf("%s does not declare how it is bounded (scenarios.Unbounded, if it is not)", m.metric)
		}
		if i < len(declared) && (m.strike != nil) != (declared[i].Arg == scenarios.FaultArg) {
			t.Errorf("%s is declared with the argument %q", m.metric, declared[i].Arg)
		}
	}
}
