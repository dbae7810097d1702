package loadgen

import (
	"math"
	"strings"
	"testing"

	"github.com/launchgate/launchgate/scenarios"
)

// Each request draws a value of every factor, by its weight, and independently of the
// other factors and of the length of its answer.
func TestFactorsAreDrawnIndependently(t *testing.T) {
	value := func(name string, w scenarios.Workload) scenarios.Value {
		return scenarios.Value{Name: name, Workload: w}
	}
	g := scenarios.Gate{Scenarios: []scenarios.Scenario{{
		Name: "s", Stages: []scenarios.Stage{{Name: "m", For: seconds(400), Rate: 10}},
		Workload: scenarios.Workload{MaxTokens: lengths(t, "uniform(1, 100)")},
		Vary: []scenarios.Factor{
			{Name: "connection", Values: []scenarios.Value{{Name: "kept", Weight: 3}, value("new", scenarios.Workload{Connection: scenarios.Connection{New: true}})}},
			{Name: "system", Values: []scenarios.Value{value("none", scenarios.Workload{}), value("some", scenarios.Workload{System: "Be brief."})}},
		},
	}}}
	p := planOf(g.Resolved().Scenarios[0], 5)
	n, fresh, some, both, long := 0.0, 0.0, 0.0, 0.0, 0.0
	for i := range p.Requests() {
		q := p.Question(i)
		isNew, has := strings.Contains(q.Variant, "connection=new"), strings.HasSuffix(q.Variant, " system=some")
		if isNew != q.Prompt.Connection.New || has != (q.Prompt.Messages[0].Role == "system") {
			t.Fatalf("%s is %+v", q.Variant, q.Prompt)
		}
		n++
		if isNew {
			fresh++
			if q.Prompt.MaxTokens > 50 {
				long++
			}
		}
		if has {
			some++
		}
		if isNew && has {
			both++
		}
	}
	for _, tt := range []struct {
		says      string
		got, want float64
	}{{"new connections", fresh / n, 0.25}, {"system prompts", some / n, 0.5}, {"both", both / n, 0.125}, {"long answers on new connections", long / fresh, 0.5}} {
		if math.Abs(tt.got-tt.want) > 0.05 {
			t.Errorf("%s are %.3f of all, want %.3f", tt.says, tt.got, tt.want)
		}
	}
}

func lengths(t *testing.T, text string) (l scenarios.Lengths) {
	t.Helper()
	if err := l.UnmarshalText([]byte(text)); err != nil {
		t.Fatal(err)
	}
	return l
}
