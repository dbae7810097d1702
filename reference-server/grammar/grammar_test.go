package grammar

import (
	"encoding/json"
	"math/rand/v2"
	"strings"
	"testing"

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
		j := Object(letters{})
		if tt.schema != "" {
			var err error
			if j, err = Schema(letters{}, json.RawMessage(tt.schema)); err != nil {
				t.Fatal(err)
			}
		}
		m := j.at.clone()
		takes := m.take(tt.text)
		if takes != tt.takes || takes && m.complete() != tt.whole {
			t.Errorf("%s: takes %v, complete %v", tt.text, takes, m.complete())
		}
	}
}

func TestSchemasThatCannotBeObeyed(t *testing.T) {
	for _, s := range []string{`{"type":"dog"}`, `{"pattern":"a+"}`, `{"anyOf":[{}]}`, `{"enum":[]}`, `{"required":["x"]}`, `{"minItems":3,"maxItems":1}`, `[]`, `false`, ``, `{"properties":{"a":{"$ref":"#"}}}`} {
		if _, err := Schema(letters{}, json.RawMessage(s)); err == nil {
			t.Errorf("%s was taken", s)
		} else {
			t.Log(err)
		}
	}
}

// write lets chance write an answer, byte by byte among those allowed, and
// leaving off when it may.
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
		for _, close := range []int32{'"', '}', ']'} { // or strings would go on for ever
			if j.Allows(close) && r.IntN(3) == 0 {
				id = close
			}
		}
		j.Accept(id)
		b.WriteByte(byte(id))
	}
	return "" // too long to end; not wrong
}

// Whatever chance writes within the constraint is JSON and fits the schema, by
// another's judgement.
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
		j, err := Schema(letters{}, json.RawMessage(person))
		if err != nil {
			t.Fatal(err)
		}
		text := write(t, j, r)
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
		if text := write(t, Object(letters{}), r); text != "" {
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
		j, err := Schema(letters{}, schema)
		if err != nil {
			return
		}
		m := j.at.clone()
		if m.take(string(text)) && m.complete() && !json.Valid(text) {
			t.Fatalf("%s took %q, which is not JSON", schema, text)
		}
	})
}
