package reports

import (
	"bytes"
	"encoding/json"
	"os"
	"reflect"
	"testing"
	"time"

	"github.com/google/jsonschema-go/jsonschema"

	"github.com/launchgate/launchgate/internal/words"
)

// The schema of plan.json is made from the types, so that it cannot become outdated.
func TestPlanSchemaIsOfTheTypes(t *testing.T) {
	const file = "plan.schema.json"
	want, err := json.MarshalIndent(schemaOfPlan(t), "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	want = append(want, '\n')
	if *update {
		if err := os.WriteFile(file, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(have, want) {
		t.Errorf("%s is not of the types any more; go test ./reports -run PlanSchema -update", file)
	}
}

func schemaOfPlan(t *testing.T) *jsonschema.Schema {
	t.Helper()
	schema, err := jsonschema.For[Plan](&jsonschema.ForOptions{TypeSchemas: map[reflect.Type]*jsonschema.Schema{
		reflect.TypeFor[words.Kept](): {
			Description: "A sentence: its text, and where it can be worded in another language its phrase with arguments.",
			Type:        "object", Required: []string{"text"}, Properties: map[string]*jsonschema.Schema{"text": {Type: "string"}, "phrase": {Type: "string"}, "args": {Type: "array"}},
		},
		reflect.TypeFor[time.Time](): {Type: "string", Format: "date-time"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	schema.Schema = "https://json-schema.org/draft/2020-12/schema"
	schema.Title = "A capacity plan (plan.json)"
	return schema
}

// What is written holds to the schema, and what lacks a part or has another does not.
func TestPlansHoldToTheirSchema(t *testing.T) {
	text, err := os.ReadFile("plan.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	var schema jsonschema.Schema
	if err := json.Unmarshal(text, &schema); err != nil {
		t.Fatal(err)
	}
	resolved, err := schema.Resolve(nil)
	if err != nil {
		t.Fatal(err)
	}
	whole, small := aPlan(), aPlan()
	small.Cost, small.GPUs, small.RunsOut, small.Months, small.Curve, small.Warnings = nil, nil, nil, nil, nil, nil
	for name, tt := range map[string]struct {
		plan   Plan
		change func(map[string]any)
		holds  bool
	}{
		"every part":             {whole, func(map[string]any) {}, true},
		"no optional part":       {small, func(map[string]any) {}, true},
		"no replicas":            {whole, func(p map[string]any) { delete(p, "replicas") }, false},
		"a part that is unknown": {whole, func(p map[string]any) { p["nodes"] = 3.0 }, false},
		"a rate in words":        {whole, func(p map[string]any) { p["rate_per_second"] = "40/s" }, false},
		"a band without its end": {whole, func(p map[string]any) { delete(p["headroom_ratio"].(map[string]any), "high") }, false},
	} {
		written, err := json.Marshal(tt.plan)
		if err != nil {
			t.Fatal(err)
		}
		var read map[string]any
		if err := json.Unmarshal(written, &read); err != nil {
			t.Fatal(err)
		}
		tt.change(read)
		if err := resolved.Validate(read); (err == nil) != tt.holds {
			t.Errorf("%s: found %v, expected that it holds to the schema: %v", name, err, tt.holds)
		}
	}
}
