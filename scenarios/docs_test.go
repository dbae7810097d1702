package scenarios

import (
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"
)

// TestObjectivesDoc checks that docs/objectives.md agrees with the code: the
// grammar is the comment of ParseObjective, and the table is Metrics.
func TestObjectivesDoc(t *testing.T) {
	const path = "../docs/objectives.md"
	src, err := os.ReadFile("objective.go")
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	b.WriteString(`# Objectives

An objective is one promise on one line: a metric, where it is measured, and
its limit. Every report shows this text exactly as you wrote it.
[judging.md](judging.md) explains how an objective is decided.

` + "```" + `
p95(ttft) in burst <= 2s          a percentile of a scenario's requests
error_rate in steady/main <= 1%   a share, in one stage
rto(pod-kill) < 15s               the recovery time of a fault
p95(ttft) during pod-kill <= 5s   of the requests that met a fault
p95(ttft) outside faults <= 1s    of all other requests
goodput >= 10/s                   a rate over the whole run
p50(ttft) of cached <= 50% of that of fresh    one class of requests compared with another
` + "```" + `

## Grammar

` + "```\n")
	b.WriteString(grammarOf(t, string(src)))
	b.WriteString("```\n\n## Metrics\n\nThe metrics from `ttft` to `service_latency` have one value for each request. An\nobjective names a statistic of those values: `mean`, `min`, `max`, or `p` and a\npercentile.\n\n`bound` is how the confidence bound is computed: [judging.md](judging.md) explains\nthe methods. A `mean`, `min` or `max` has none. `needs` is what the gate must have.\n\n| metric | means | needs | bound | example |\n|---|---|---|---|---|\n")
	for _, distribution := range []bool{true, false} {
		for _, m := range Metrics() {
			if m.Distribution != distribution {
				continue
			}
			name := m.Name
			if m.Arg != NoArg {
				name += fmt.Sprintf("(%s)", m.Arg)
			}
			fmt.Fprintf(&b, "| `%s` | %s | %s | %s | `%s` |\n", name, m.Means, m.Needs, m.Bound, m.Example)
		}
	}
	if *update {
		if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil || string(got) != b.String() {
		t.Errorf("%s is not what the code says (%v): go test ./scenarios -run Doc -update", path, err)
	}
}

// grammarOf is the BNF in the comment of ParseObjective.
func grammarOf(t *testing.T, src string) string {
	t.Helper()
	var lines []string
	for line := range strings.Lines(src) {
		if text, ok := strings.CutPrefix(line, "//\t"); ok && strings.Contains(text, "=") {
			lines = append(lines, text)
		}
	}
	if len(lines) < 10 {
		t.Fatalf("only %d lines of grammar", len(lines))
	}
	return strings.Join(lines, "")
}

// TestGateDoc finds keys of a gate that docs/gate.md does not mention.
func TestGateDoc(t *testing.T) {
	doc, err := os.ReadFile("../docs/gate.md")
	if err != nil {
		t.Fatal(err)
	}
	seen := map[reflect.Type]bool{}
	var walk func(reflect.Type)
	walk = func(typ reflect.Type) {
		for typ.Kind() == reflect.Pointer || typ.Kind() == reflect.Slice {
			typ = typ.Elem()
		}
		if typ.Kind() != reflect.Struct || seen[typ] || typ == reflect.TypeFor[Objective]() {
			return
		}
		seen[typ] = true
		for i := range typ.NumField() {
			key, _, _ := strings.Cut(typ.Field(i).Tag.Get("yaml"), ",")
			if !strings.Contains(string(doc), "`"+key+"`") {
				t.Errorf("docs/gate.md does not tell of %s.%s", typ.Name(), key)
			}
			walk(typ.Field(i).Type)
		}
	}
	walk(reflect.TypeFor[Gate]())
}
