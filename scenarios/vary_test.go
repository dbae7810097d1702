package scenarios

import (
	"fmt"
	"strings"
	"testing"
)

const varied = `name: varied
target: {endpoint: {url: http://127.0.0.1:8000}}
scenarios:
  - name: mixed
    workload: {max_tokens: 8, connection: {http: "2"}}
    classes: [{name: a}, {name: b, weight: 3, workload: {max_tokens: 16}}]
    vary:
      - {name: connection, values: [{name: kept, weight: 3}, {name: new, workload: {connection: {new: true}}}]}
      - {name: system, values: [{name: none}, {name: some, workload: {system: Be brief.}}]}
    stages: [{name: main, for: 10s, rate: 8/s}]
objectives: [error_rate <= 5%]
`

// A scenario's load has a part for each combination of class and values, with
// the changes of all of them.
func TestMixOfFactors(t *testing.T) {
	g, err := Parse("gate.yaml", []byte(varied))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, p := range g.Resolved().Scenarios[0].Mix() {
		w := p.Workload
		got = append(got, fmt.Sprintf("%s %g %s: %s %q %v", p.Name, p.Weight, p.Variant, w.MaxTokens, w.System, w.Connection))
	}
	want := []string{
		`a 3 connection=kept system=none: 8 "" { 2 false}`, `a 3 connection=kept system=some: 8 "Be brief." { 2 false}`,
		`a 1 connection=new system=none: 8 "" { 2 true}`, `a 1 connection=new system=some: 8 "Be brief." { 2 true}`,
		`b 9 connection=kept system=none: 16 "" { 2 false}`, `b 9 connection=kept system=some: 16 "Be brief." { 2 false}`,
		`b 3 connection=new system=none: 16 "" { 2 true}`, `b 3 connection=new system=some: 16 "Be brief." { 2 true}`,
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("the parts are\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestBadFactors(t *testing.T) {
	many := "values: [" + strings.Repeat("{name: x%d}, ", 17) + "{name: last}]"
	for i := range 17 {
		many = strings.Replace(many, "%d", fmt.Sprint(i), 1)
	}
	for _, tt := range []struct{ from, to, want string }{
		{"{name: kept, weight: 3}, ", "", "gate.yaml:8:36: scenarios[0].vary[0].values: found 1, expected at least two values"},
		{"name: kept", "name: new", "a second time"},
		{"{name: system, ", "{name: connection, ", "a second time"},
		{"weight: 3}, {name: new", "weight: -1}, {name: new", "expected a number above 0"},
		{"system: Be brief.", "temperature: 5", "vary[1].values[1].workload.temperature: found 5, expected a number from 0 to 2"},
		{"system: Be brief.", "temprature: 1", "unknown key"},
		{"values: [{name: none}, {name: some, workload: {system: Be brief.}}]", many + "}\n      - {name: third, " + many, "found more than 256 combinations"},
	} {
		text := strings.Replace(varied, tt.from, tt.to, 1)
		if _, err := Parse("gate.yaml", []byte(text)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s in place of %s: %v, want %q", tt.to, tt.from, err, tt.want)
		}
	}
}
