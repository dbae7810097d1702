package scenarios

import (
	"bytes"
	"encoding/json"
	"flag"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	yaml "github.com/goccy/go-yaml"
	"github.com/google/jsonschema-go/jsonschema"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// The schema for editors is made from the types, their comments and the
// accepted words, so that it cannot become outdated.
func TestTheSchemaIsOfTheTypes(t *testing.T) {
	want, err := json.MarshalIndent(schemaOfGate(t), "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	want = append(want, '\n')
	if *update {
		if err := os.WriteFile("gate.schema.json", want, 0o644); err != nil {
			t.Fatal(err)
		}
	} else if !bytes.Equal(want, Schema()) {
		t.Error("gate.schema.json is not of the types any more; go test ./scenarios -run Schema -update")
	}
}

func schemaOfGate(t *testing.T) *jsonschema.Schema {
	t.Helper()
	text := func(pattern, example, description string) *jsonschema.Schema {
		return &jsonschema.Schema{Type: "string", Pattern: pattern, Examples: []any{example}, Description: description}
	}
	rate := text(`^([0-9]+(\.[0-9]+)?/[smh]|0+(\.0+)?)$`, "8/s", "A rate of requests: 8/s, 90/m or 0.5/s.")
	rate.Types, rate.Type = []string{"string", "number"}, ""
	rate.Maximum = new(0.0) // as a number, without a unit
	lengths := text(lengthsPattern, "lognormal(512, 300)", "A number of tokens: 128, uniform(64, 256), lognormal(512, 300) or empirical(12, 40, 900).")
	lengths.Types, lengths.Type = []string{"string", "integer"}, ""
	devices := &jsonschema.Schema{Description: "auto, cpu, or a list of GPUs such as [0, 1].", Examples: []any{"auto"}, AnyOf: []*jsonschema.Schema{
		{Type: "string", Pattern: devicesPattern},
		{Type: "array", Items: &jsonschema.Schema{Type: "integer", Minimum: new(0.0), Maximum: new(float64(maxGPU))}, UniqueItems: true, MinItems: new(1)},
	}}
	objective := text(objectivePattern(), "p95(ttft) <= 2s", objectiveHelp())
	schema, err := jsonschema.For[Gate](&jsonschema.ForOptions{TypeSchemas: map[reflect.Type]*jsonschema.Schema{
		reflect.TypeFor[Duration]():  text(durationPattern.String(), "30s", "A duration: 30s, 1m30s or 250ms."),
		reflect.TypeFor[Offset]():    text("^-?"+durationPattern.String()[1:], "-90s", "A time forwards or back: 90s or -90s."),
		reflect.TypeFor[Rate]():      rate,
		reflect.TypeFor[Size]():      text(sizePattern.String(), "64KiB", "A size in bytes: 64KiB, 16MiB or 2GiB."),
		reflect.TypeFor[Share]():     text(sharePattern.String(), "20%", "A share: 20%."),
		reflect.TypeFor[Objective](): objective,
		reflect.TypeFor[Lengths]():   lengths,
		reflect.TypeFor[Field]():     {},
		reflect.TypeFor[Devices]():   devices,
		reflect.TypeFor[Setting]():   {Types: []string{"string", "number"}},
		reflect.TypeFor[Dollars]():   text(dollarsPattern, "$0.80", "US dollars an hour: $0.80."),
	}})
	if err != nil {
		t.Fatal(err)
	}
	describeFields(schema, reflect.TypeFor[Gate](), commentsOf(t, "gate.go", "cost.go", "scan.go"))
	schema.Schema = "https://json-schema.org/draft/2020-12/schema"
	schema.Title = "A launch gate"
	schema.Properties["include"].Types, schema.Properties["include"].Type = []string{"array", "string"}, ""

	scenario := schema.Properties["scenarios"].Items
	class := scenario.Properties["classes"].Items
	for _, workload := range []*jsonschema.Schema{scenario.Properties["workload"], class.Properties["workload"]} {
		oneWordOf(workload.Properties["api"], APIChat, APICompletions, APIResponses, APIGRPC)
		oneWordOf(workload.Properties["connection"].Properties["http"], "1.1", "2")
	}
	stage := scenario.Properties["stages"].Items
	oneWordOf(stage.Properties["arrivals"], ArrivalsEven, ArrivalsPoisson, ArrivalsGamma)
	oneWordOf(stage.Properties["shape"], ShapeLinear, ShapeSteps, ShapeSpike, ShapeSine)
	oneWordOf(schema.Properties["target"].Properties["endpoint"].Properties["http"], "1.1", "2")
	oneWordOf(schema.Properties["target"].Properties["local"].Properties["models"].AdditionalProperties.Properties["quantization"], "none", "fp16", "int8")
	schema.Properties["chunks"].Pattern = `^(all|none|1/[1-9][0-9]{0,6})$`
	needs := func(key string) *jsonschema.Schema { return &jsonschema.Schema{Required: []string{key}} }
	rates := &jsonschema.Schema{AnyOf: []*jsonschema.Schema{needs("rate"), needs("to")}} // a ramp may begin at rate 0
	load := []*jsonschema.Schema{rates, needs("trace"), needs("users"), needs("in_flight")}
	stage.OneOf = append(slices.Clone(load), &jsonschema.Schema{Not: &jsonschema.Schema{AnyOf: load}})
	scenario.AnyOf = []*jsonschema.Schema{ // a stage may have no load of its own where the workload has in_flight
		{Required: []string{"workload"}, Properties: map[string]*jsonschema.Schema{"workload": needs("in_flight")}},
		{Properties: map[string]*jsonschema.Schema{"stages": {Items: &jsonschema.Schema{AnyOf: load}}}},
	}
	schema.AnyOf = []*jsonschema.Schema{needs("objectives"), needs("profiles")}
	schema.OneOf = []*jsonschema.Schema{needs("scenarios"), {Required: []string{"scan"}, Properties: map[string]*jsonschema.Schema{"scenarios": {Not: &jsonschema.Schema{}}}}}
	for _, list := range []string{"only", "skip"} {
		oneWordOf(schema.Properties["scan"].Properties[list].Items, ScanChecks...)
	}
	fault := scenario.Properties["faults"].Items
	oneWordOf(fault.Properties["kind"], FaultKinds...)
	oneWordOf(fault.Properties["cut"], CutSilent, CutReset)
	oneWordOf(fault.Properties["release"], ReleaseCorruptModel, ReleaseErroring, ReleaseSlow, ReleaseBadConfig)
	fault.Properties["target"].Pattern = `^(` + VictimBusiest + `|` + VictimRandom + `|replica-[0-9]{1,4})$`
	for _, name := range []*jsonschema.Schema{schema.Properties["name"], scenario.Properties["name"],
		class.Properties["name"], stage.Properties["name"]} {
		name.Pattern, name.MaxLength = namePattern.String(), new(maxName)
	}
	for _, list := range []*jsonschema.Schema{schema.Properties["scenarios"], schema.Properties["objectives"], scenario.Properties["stages"]} {
		list.MinItems = new(1)
	}
	schema.Properties["target"].MinProperties = new(1)
	schema.Properties["target"].MaxProperties = new(1)
	return schema
}

func oneWordOf(s *jsonschema.Schema, words ...string) {
	for _, word := range words {
		s.Enum = append(s.Enum, word)
	}
}

// objectivePattern lets an editor find a metric that does not exist. The
// grammar itself is ParseObjective's.
func objectivePattern() string {
	return `^\s*((mean|min|max|p[0-9.]+)\s*\(\s*(` + strings.Join(metricNames(distribution), "|") +
		`)\s*\)|(` + strings.Join(metricNames(single), "|") + `)(\s*\([^)]*\))?)[\sa-zA-Z0-9_/-]*(<=|<|>=|>|==|within)`
}

func objectiveHelp() string {
	var lines []string
	for _, m := range Metrics() {
		lines = append(lines, m.Example+": "+string(m.Means))
	}
	return "A promise, such as:\n" + strings.Join(lines, "\n")
}

// describeFields puts the comments of the Go types into their schema. It
// removes null, which Go's slices and pointers allow and a gate does not.
func describeFields(s *jsonschema.Schema, t reflect.Type, comments map[string]string) {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	notNull(s)
	if t.Kind() == reflect.Slice {
		describeFields(s.Items, t.Elem(), comments)
	}
	if t.Kind() == reflect.Map && s.AdditionalProperties != nil {
		describeFields(s.AdditionalProperties, t.Elem(), comments)
	}
	if t.Kind() != reflect.Struct || s.Properties == nil {
		return
	}
	if s.Description == "" {
		s.Description = comments[t.Name()]
	}
	for i, key := range keysOf(t) {
		property := s.Properties[key]
		field := t.Field(i).Name
		if comment := comments[t.Name()+"."+field]; comment != "" {
			if rest, found := strings.CutPrefix(comment, field+" "); found {
				comment = key + " " + rest // the reader knows the key, not the Go name
			}
			property.Description = strings.TrimSpace(comment + " " + property.Description)
		}
		describeFields(property, t.Field(i).Type, comments)
	}
}

func notNull(s *jsonschema.Schema) {
	var types []string
	for _, name := range s.Types {
		if name != "null" {
			types = append(types, name)
		}
	}
	if s.Types = types; len(types) == 1 {
		s.Type, s.Types = types[0], nil
	}
}

// commentsOf are the comments of the types and fields in Go files, in one
// line each, by Type and Type.Field.
func commentsOf(t *testing.T, paths ...string) map[string]string {
	t.Helper()
	comments := make(map[string]string)
	for _, path := range paths {
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		addComments(comments, file)
	}
	return comments
}

func addComments(comments map[string]string, file *ast.File) {
	oneLine := func(groups ...*ast.CommentGroup) string {
		var words []string
		for _, group := range groups {
			words = append(words, strings.Fields(group.Text())...)
		}
		return strings.Join(words, " ")
	}
	for _, decl := range file.Decls {
		types, ok := decl.(*ast.GenDecl)
		if !ok || types.Tok != token.TYPE {
			continue
		}
		spec := types.Specs[0].(*ast.TypeSpec)
		comments[spec.Name.Name] = oneLine(types.Doc)
		fields, ok := spec.Type.(*ast.StructType)
		if !ok {
			continue
		}
		for _, field := range fields.Fields.List {
			for _, name := range field.Names {
				comments[spec.Name.Name+"."+name.Name] = oneLine(field.Doc, field.Comment)
			}
		}
	}
}

// The schema and Parse agree on a gate, as far as a schema can check it: if the
// editor shows no error, launchgate must not report one.
func TestTheSchemaAgreesWithParse(t *testing.T) {
	var schema jsonschema.Schema
	if err := json.Unmarshal(Schema(), &schema); err != nil {
		t.Fatal(err)
	}
	resolved, err := schema.Resolve(nil)
	if err != nil {
		t.Fatal(err)
	}
	gates := map[string]string{"starter": string(Starter("x.json"))}
	for _, gate := range Gates() {
		src, err := Marshal(gate)
		if err != nil {
			t.Fatal(err)
		}
		gates[gate.Name] = string(src)
	}
	replace := func(old, with string) string {
		changed := strings.Replace(minimal, old, with, 1)
		if changed == minimal {
			t.Fatalf("%q is not in the minimal gate", old)
		}
		return changed
	}
	gates["minimal"] = minimal
	gates["unknown key"] = replace("seed:", "sed:")
	gates["missing key"] = replace("    for: 5s\n", "")
	gates["unknown metric"] = replace("error_rate", "eror_rate")
	gates["no unit"] = replace("5s", "5")
	gates["bad rate"] = replace("2/s", "2 per second")
	gates["bad name"] = replace("name: s", "name: s s")
	gates["two targets"] = replace("local: {}", "local: {}\n  endpoint: {url: 'http://127.0.0.1:1'}")
	gates["no target"] = replace("  local: {}", "  {}")
	gates["no objectives"] = replace("  - error_rate <= 5%", "  []")
	gates["null list"] = replace("  - error_rate <= 5%", "")
	gates["bare rate"] = replace("2/s", "2.5")
	gates["unknown arrivals"] = replace("2/s", "2/s\n    arrivals: uniform")
	gates["unknown fault"] = replace("2/s", "2/s\n  faults: [{kind: kill, at: 1s}]")
	gates["neither rate nor users"] = replace("rate: 2/s", "arrivals: poisson")
	gates["rate and users"] = replace("2/s", "2/s\n    users: 3")
	gates["users"] = replace("rate: 2/s", "users: 3")
	gates["lengths"] = replace("  stages:", "  workload: {max_tokens: 'uniform(1, 5)', synthetic: {tokens: 40}}\n  stages:")
	gates["bad lengths"] = replace("  stages:", "  workload: {max_tokens: 'normal(1, 5)'}\n  stages:")
	gates["a class"] = replace("  stages:", "  classes: [{name: a, workload: {api: responses}}]\n  stages:")
	gates["a class of no name"] = replace("  stages:", "  classes: [{weight: 2}]\n  stages:")
	gates["a profile alone"] = replace("objectives:\n  - error_rate <= 5%", "profiles: [mlperf-llama-2-70b-server]")
	gates["chunks"] = replace("seed: 1", "chunks: 1/10")
	gates["bad chunks"] = replace("seed: 1", "chunks: some")
	gates["fault of a wrong target"] = replace("2/s", "2/s\n  faults: [{kind: pod-kill, at: 1s, target: pod-1}]")
	for name, src := range gates {
		var value any
		if err := yaml.Unmarshal([]byte(src), &value); err != nil {
			t.Fatal(name, err)
		}
		_, parseErr := Parse("gate.yaml", []byte(src))
		schemaErr := resolved.Validate(jsonValue(t, value))
		if (parseErr == nil) != (schemaErr == nil) {
			t.Errorf("%s: Parse says %v and the schema %v of\n%s", name, parseErr, schemaErr, src)
		}
	}
}

const minimal = `name: g
seed: 1
target:
  local: {}
scenarios:
- name: s
  stages:
  - name: m
    for: 5s
    rate: 2/s
objectives:
  - error_rate <= 5%
`

// jsonValue is a value as decoded JSON, for the schema.
func jsonValue(t *testing.T, value any) any {
	t.Helper()
	text, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	var out any
	if err := json.Unmarshal(text, &out); err != nil {
		t.Fatal(err)
	}
	return out
}
