package grammar

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/jsonschema-go/jsonschema"
)

// letters is a vocabulary of all bytes, with an end at 256.
type letters struct{}

func (letters) Bytes(id int32) string {
	if id > 255 {
		return ""
	}
	return string([]byte{byte(id)})
}
func (letters) IsControl(id int32) bool { return id > 255 }
func (letters) Ends(id int32) bool      { return id == 256 }

var vocabulary = NewVocabulary(letters{}, 257)

const person = `{"type":"object","properties":{"name":{"type":"string"},"age":{"type":"integer"},"tags":{"type":"array","items":{"enum":["a","bc",7,null]},"minItems":1,"maxItems":3},"ok":{"type":["boolean","null"]},"in":{"type":"object","properties":{"x":{"type":"number"}},"required":["x"]}},"required":["name","tags"],"additionalProperties":false}`

func TestTakes(t *testing.T) {
	for _, tt := range []struct {
		schema, text string
		takes, whole bool
	}{
		{"", `{"a": [1, -2.5e3, "x\n\u00e9é", true, null, {}]}`, true, true},
		{"", `{"a":`, true, false},
		{"", `[1]`, false, false},
		{"", `{"a":01}`, false, false},
		{"", `{"a":1,}`, false, false},
		{"", `{a:1}`, false, false},
		{"", `{"a":"\x"}`, false, false},
		{"", "{\"a\":\"\n\"}", false, false},
		{"", "{\"a\":\"\xff\"}", false, false},
		{"", `{} `, false, false},
		{"", "{" + strings.Repeat(" ", 20), false, false},
		{person, `{"name":"Ann","tags":["a",7]}`, true, true},
		{person, `{"tags":[null],"in":{"x":0.5},"name":"B","ok":false,"age":-3}`, true, true},
		{person, `{"name":"Ann"}`, false, false},
		{person, `{"name":"Ann","tags":[]}`, false, false},
		{person, `{"name":"Ann","tags":["b"]}`, false, false},
		{person, `{"name":"Ann","tags":["a","a","a","a"]}`, false, false},
		{person, `{"name":"Ann","name":"Ann"`, false, false},
		{person, `{"surname"`, false, false},
		{person, `{"age":1.5`, false, false},
		{person, `{"in":{}`, false, false},
		{`{"type":"number"}`, `12.5`, true, true},
		{`{"type":"number"}`, `12.`, true, false},
		{`{"const":"yes"}`, `"yes"`, true, true},
		{`{"type":"object","additionalProperties":{"type":"integer"}}`, `{"any":1,"other":2}`, true, true},
		{`{"type":"object","additionalProperties":{"type":"integer"}}`, `{"any":"x"`, false, false},
	} {
		j := Object(vocabulary).Start()
		if tt.schema != "" {
			f, err := Schema(vocabulary, json.RawMessage(tt.schema))
			if err != nil {
				t.Fatal(err)
			}
			j = f.Start()
		}
		m := j.at
		takes := m.take(tt.text)
		if takes != tt.takes || takes && m.complete() != tt.whole {
			t.Errorf("%s: takes %v, complete %v", tt.text, takes, m.complete())
		}
	}
}

func TestSchemasThatCannotBeObeyed(t *testing.T) {
	for _, s := range []string{`{"type":"dog"}`, `{"pattern":"a+"}`, `{"anyOf":[{}]}`, `{"enum":[]}`, `{"required":["x"]}`, `{"minItems":3,"maxItems":1}`, `[]`, `false`, ``, `{"properties":{"a":{"$ref":"#"}}}`} {
		if _, err := Schema(vocabulary, json.RawMessage(s)); err == nil {
			t.Errorf("%s was taken", s)
		} else {
			t.Log(err)
		}
	}
}

// write writes a random answer, byte by byte of the allowed ones, and ends it
// when it may.
func write(t *testing.T, j *JSON, r *rand.Rand) string {
	t.Helper()
	var b strings.Builder
	for range 5000 {
		if j.Allows(256) && (b.Len() > 200 || r.IntN(2) == 0) {
			return b.String()
		}
		var may []int32
		for id := range int32(256) {
			if j.Allows(id) {
				may = append(may, id)
			}
		}
		if len(may) == 0 {
			if j.Allows(256) {
				return b.String()
			}
			t.Fatalf("nothing may follow %q", b.String())
		}
		id := may[r.IntN(len(may))]
		for _, close := range []int32{'"', '}', ']'} { // otherwise strings would continue for ever
			if j.Allows(close) && r.IntN(3) == 0 {
				id = close
			}
		}
		j.Accept(id)
		b.WriteByte(byte(id))
	}
	return "" // too long, which is not wrong
}

// A random answer within the constraint is JSON and fits the schema, according
// to another library.
func TestWhatIsAllowedFits(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	var js jsonschema.Schema
	if err := json.Unmarshal([]byte(person), &js); err != nil {
		t.Fatal(err)
	}
	resolved, err := js.Resolve(nil)
	if err != nil {
		t.Fatal(err)
	}
	ended := 0
	for range 300 {
		f, err := Schema(vocabulary, json.RawMessage(person))
		if err != nil {
			t.Fatal(err)
		}
		text := write(t, f.Start(), r)
		if text == "" {
			continue
		}
		ended++
		var v any
		if err := json.Unmarshal([]byte(text), &v); err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		if err := resolved.Validate(v); err != nil {
			t.Fatalf("%q: %v", text, err)
		}
	}
	for range 100 {
		if text := write(t, Object(vocabulary).Start(), r); text != "" {
			ended++
			if !json.Valid([]byte(text)) {
				t.Fatalf("%q", text)
			}
		}
	}
	if ended < 200 {
		t.Errorf("only %d answers came to an end", ended)
	}
}

func FuzzSchema(f *testing.F) {
	f.Add([]byte(person), []byte(`{"name":"x","tags":["a"]}`))
	f.Add([]byte(`{"enum":[1,12,"a"]}`), []byte(`12`))
	f.Fuzz(func(t *testing.T, schema, text []byte) {
		f, err := Schema(vocabulary, schema)
		if err != nil {
			return
		}
		j := f.Start()
		m := j.at
		mask := j.Mask()
		for id := range int32(257) {
			if Mask(mask).Has(id) != j.Allows(id) {
				t.Fatalf("%s: the token %d is in the mask or may come, and not both", schema, id)
			}
		}
		if m.take(string(text)) && m.complete() && !json.Valid(text) {
			t.Fatalf("%s took %q, which is not JSON", schema, text)
		}
	})
}

// words are tokens of several bytes, with an end.
type words []string

func (w words) Bytes(id int32) string {
	if int(id) >= len(w) {
		return ""
	}
	return w[id]
}
func (w words) IsControl(id int32) bool { return int(id) >= len(w) }
func (w words) Ends(id int32) bool      { return int(id) == len(w) }

// In every state the mask has exactly the allowed tokens.
func TestMaskIsWhatIsAllowed(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	w := words{`{"`, `{"na`, `name`, `"}`, `":`, `":"`, `"Ann"`, `,"`, `, `, ` `, `[`, `["a"`, `]`, `]}`, `}`, `1`, `12`, `-`, `.5`, `e3`, `true`, `tru`, `null`, `n`, `a`, `bc`, `\`, `\u00`, `é`, "\xc3", "\xa9", ``, `{"age":1,"name":"`}
	for b := range 256 {
		w = append(w, string([]byte{byte(b)}))
	}
	v := NewVocabulary(w, len(w)+2)
	for _, schema := range []string{person, `{"enum":["a","ab",1,12,null,true,{"x":[1]}]}`, `{"type":"array","items":{"type":"number"},"minItems":2}`, `{}`} {
		f, err := Schema(v, json.RawMessage(schema))
		if err != nil {
			t.Fatal(err)
		}
		for range 100 {
			j := f.Start()
			for range 30 {
				mask := Mask(j.Mask())
				var may []int32
				for id := range int32(len(w) + 2) {
					if mask.Has(id) != j.Allows(id) {
						t.Fatalf("%s: token %d (%q): in the mask %v, allowed %v", schema, id, w.Bytes(id), mask.Has(id), j.Allows(id))
					}
					if mask.Has(id) && !w.Ends(id) {
						may = append(may, id)
					}
				}
				if len(may) == 0 {
					break
				}
				j.Accept(may[r.IntN(len(may))])
			}
		}
	}
}

// Computing a mask takes at most as many steps as the vocabulary has bytes, for
// any number of values or names in a schema.
func TestMaskIsBounded(t *testing.T) {
	bytes := 0
	for _, e := range vocabulary.sorted {
		bytes += len(e.text)
	}
	for _, n := range []int{10, 1000, maxLiterals} {
		f, err := Schema(vocabulary, json.RawMessage(enum(n)))
		if err != nil {
			t.Fatal(err)
		}
		if _, steps := vocabulary.mask(&f.Start().at); steps > bytes {
			t.Errorf("%d values: %d steps for %d bytes", n, steps, bytes)
		}
	}
}

func enum(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `,"aaaaaaaaaaaa%05x"`, i)
	}
	return `{"enum":[` + b.String()[1:] + `]}`
}

// A schema that is too large is refused before it is compiled.
func TestSchemasAreBounded(t *testing.T) {
	var names strings.Builder
	for i := range 80000 {
		fmt.Fprintf(&names, `,"p%d":{}`, i)
	}
	var wide strings.Builder
	for i := range 60 {
		fmt.Fprintf(&wide, `,"p%d":{"properties":{"x":{"properties":{"y":{"minItems":1}}}}}`, i)
	}
	nested := func(n int, open, end string) string {
		return strings.Repeat(open, n) + `{"type":"null"}` + strings.Repeat(end, n)
	}
	for name, schema := range map[string]string{
		"values":             enum(maxLiterals + 1),
		"many values":        enum(100000),
		"properties":         `{"properties":{` + names.String()[1:] + `}}`,
		"few properties":     `{"properties":{` + names.String()[1:2000] + `}}`,
		"depth":              nested(maxNesting+1, `{"items":`, `}`),
		"depth of names":     nested(maxNesting+1, `{"required":["a"],"properties":{"a":`, `}}`),
		"depth of others":    nested(maxNesting+1, `{"additionalProperties":`, `}`),
		"items":              `{"type":"array","minItems":4611686018427387904}`,
		"no type":            `{"type":[]}`,
		"a value of no type": `{"type":"string","enum":[1,2]}`,
		"a number past all":  `{"minItems":1e400}`,
		"null":               `null`,
		"a name twice":       `{"properties":{"a":{},"a":{}}}`,
	} {
		began := time.Now()
		if _, err := Schema(vocabulary, json.RawMessage(schema)); err == nil {
			t.Errorf("%s: it was taken", name)
		} else if len(err.Error()) > 300 {
			t.Errorf("%s: the error has %d letters", name, len(err.Error()))
		}
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("%s: it took %s to refuse", name, took)
		}
	}
	if _, err := Schema(vocabulary, json.RawMessage(`{"properties":{`+wide.String()[1:]+`}}`)); err != nil {
		t.Errorf("a wide schema: %v", err)
	}
}

// Every accepted schema can be satisfied: a random answer never gets stuck.
func TestWhatIsTakenCanBeObeyed(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	deepest := strings.Repeat(`{"type":"object","required":["a"],"properties":{"a":`, maxNesting-2) + `{"type":"array","items":{"type":"object"},"minItems":2}` + strings.Repeat(`}}`, maxNesting-2)
	schemas := []string{deepest, strings.Repeat(`{"type":"array","minItems":1,"items":`, maxNesting) + `{"type":"string"}` + strings.Repeat(`}`, maxNesting)}
	for range 300 {
		schemas = append(schemas, anySchema(r, 0))
	}
	taken := 0
	for _, schema := range schemas {
		f, err := Schema(vocabulary, json.RawMessage(schema))
		if err != nil {
			continue
		}
		taken++
		write(t, f.Start(), r)
	}
	if taken < 200 {
		t.Errorf("only %d of %d schemas were taken", taken, len(schemas))
	}
	if _, err := Schema(vocabulary, json.RawMessage(deepest)); err != nil {
		t.Error(err)
	}
}

// anySchema is a random schema.
func anySchema(r *rand.Rand, depth int) string {
	inner := func() string { return anySchema(r, depth+1) }
	if depth > 5 {
		return `{"type":"integer"}`
	}
	switch r.IntN(9) {
	case 0:
		return `{}`
	case 1:
		return `{"type":["string","null"]}`
	case 2:
		return `{"enum":["a","ab",1,12,-3.5,null,true,[1,{}]]}`
	case 3:
		return fmt.Sprintf(`{"type":"array","items":%s,"minItems":%d,"maxItems":%d}`, inner(), r.IntN(2), 1+r.IntN(3))
	case 4:
		return fmt.Sprintf(`{"type":"object","additionalProperties":%s}`, inner())
	case 5:
		return `{"const":{"x":[1,2]}}`
	case 6:
		return `{"type":"number"}`
	}
	return fmt.Sprintf(`{"type":"object","properties":{"a":%s,"ab":%s,"é\"":%s},"required":["ab"]}`, inner(), inner(), inner())
}
