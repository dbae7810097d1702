package grammar

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/launchgate/launchgate/internal/flaws"
)

// kinds is a set of JSON types.
type kinds int

const (
	object kinds = 1 << iota
	array
	str
	number
	integer
	boolean
	null
	anything = object | array | str | number | integer | boolean | null
)

var kindNames = map[string]kinds{"object": object, "array": array, "string": str, "number": number | integer, "integer": integer, "boolean": boolean, "null": null}

const (
	maxProperties = 64        // of one object; a bit set has the written ones
	maxNesting    = maxDepth  // of schemas that ask for one another
	maxSchema     = 256 << 10 // bytes
	maxSchemas    = 4096      // in total
	maxLiterals   = 4096      // of all enums
	maxItems      = 1 << 20   // an array of more could never be written
)

// schema is a compiled JSON Schema.
type schema struct {
	id       int // number within its form; 0: any value
	kinds    kinds
	literals []string // enum or const: the JSON texts that are possible, sorted; empty: all

	names    []string  // properties, quoted as JSON, in order
	values   []*schema // of the properties
	required uint64    // bit set over names
	closed   bool      // no other properties
	others   *schema   // of other properties
	items    *schema
	min, max int // items; max < 0: any number
}

var free = func() *schema {
	s := &schema{kinds: anything, max: -1}
	s.others, s.items = s, s
	return s
}()

// known are the supported keywords and the annotations, which have no effect.
var (
	known   = []string{"type", "properties", "required", "additionalProperties", "items", "enum", "const", "minItems", "maxItems"}
	telling = []string{"title", "description", "default", "examples", "$schema", "$id", "$comment", "deprecated", "strict"}
)

// compiler reads a JSON Schema, within bounds.
type compiler struct{ schemas, literals int }

// compile reads a schema. Unsupported keywords are errors, because an answer
// that only seems to satisfy its schema is worse than none. Schemas that no
// answer could satisfy are errors too.
func (c *compiler) compile(raw json.RawMessage, depth int) (*schema, error) {
	if depth > maxNesting {
		return nil, fmt.Errorf("the schema is nested deeper than %d", maxNesting)
	}
	switch string(bytes.TrimSpace(raw)) {
	case "", "true", "{}":
		return free, nil
	case "false":
		return nil, errors.New("the schema false allows nothing")
	}
	if c.schemas++; c.schemas > maxSchemas {
		return nil, fmt.Errorf("the schema is of more than %d schemas", maxSchemas)
	}
	var m map[string]json.RawMessage
	if err := json.Unmarshal(raw, &m); err != nil || m == nil {
		return nil, errors.New("the schema is not a JSON object")
	}
	for k := range m {
		if !slices.Contains(known, k) && !slices.Contains(telling, k) {
			return nil, fmt.Errorf("the schema's keyword %.40q cannot be obeyed; %s can", k, strings.Join(known, ", "))
		}
	}
	s := &schema{id: c.schemas, kinds: anything, max: -1, others: free, items: free}
	for _, read := range []func(*compiler, map[string]json.RawMessage, int) error{s.types, s.enum, s.properties, s.array} {
		if err := read(c, m, depth); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func (s *schema) types(_ *compiler, m map[string]json.RawMessage, _ int) error {
	raw, ok := m["type"]
	if !ok {
		if _, has := m["properties"]; has {
			s.kinds = object
		}
		return nil
	}
	var names []string
	var one string
	if json.Unmarshal(raw, &one) == nil {
		names = []string{one}
	} else if err := json.Unmarshal(raw, &names); err != nil {
		return errors.New("the schema's type must be a name or a list of names")
	}
	s.kinds = 0
	for _, n := range names {
		k, ok := kindNames[n]
		if !ok {
			return fmt.Errorf("the schema's type %.40q is not known", n)
		}
		s.kinds |= k
	}
	if s.kinds == 0 {
		return errors.New("the schema's type is an empty list, which allows nothing")
	}
	return nil
}

// enum keeps the literals as compact JSON: strings, numbers, booleans and null.
func (s *schema) enum(c *compiler, m map[string]json.RawMessage, _ int) error {
	var list []json.RawMessage
	if raw, ok := m["const"]; ok {
		list = []json.RawMessage{raw}
	} else if raw, ok := m["enum"]; ok {
		if err := json.Unmarshal(raw, &list); err != nil || len(list) == 0 {
			return errors.New("the schema's enum must be a list of at least one value")
		}
	}
	if c.literals += len(list); c.literals > maxLiterals && !flaws.On("engine-blocks") {
		return fmt.Errorf("the schema has more than %d values to choose from in its enums", maxLiterals)
	}
	for _, raw := range list {
		var b bytes.Buffer
		if err := json.Compact(&b, raw); err != nil {
			return err
		}
		if s.kinds&kindsOf(b.String()) != 0 {
			s.literals = append(s.literals, b.String())
		}
	}
	if len(list) > 0 && len(s.literals) == 0 {
		return errors.New("the schema's enum or const has no value of the schema's type, so it allows nothing")
	}
	slices.Sort(s.literals)
	s.literals = slices.Compact(s.literals)
	return nil
}

// kindsOf are the types of a value.
func kindsOf(literal string) kinds {
	switch literal[0] {
	case '{':
		return object
	case '[':
		return array
	case '"':
		return str
	case 't', 'f':
		return boolean
	case 'n':
		return null
	}
	if f, err := strconv.ParseFloat(literal, 64); err == nil && f == math.Trunc(f) {
		return number | integer
	}
	return number
}

func (s *schema) properties(c *compiler, m map[string]json.RawMessage, depth int) error {
	if raw, ok := m["properties"]; ok {
		names, values, err := ordered(raw)
		if err != nil {
			return err
		}
		for i, name := range names {
			value, err := c.compile(values[i], depth+1)
			if err != nil {
				return fmt.Errorf("%.40s: %w", name, err)
			}
			quoted, _ := json.Marshal(name)
			s.names, s.values = append(s.names, string(quoted)), append(s.values, value)
		}
	}
	var required []string
	if raw, ok := m["required"]; ok {
		if err := json.Unmarshal(raw, &required); err != nil {
			return errors.New("the schema's required must be a list of names")
		}
	}
	for _, name := range required {
		quoted, _ := json.Marshal(name)
		i := slices.Index(s.names, string(quoted))
		if i < 0 {
			return fmt.Errorf("the schema requires %.40q, which is not among its properties", name)
		}
		s.required |= 1 << i
	}
	switch raw := m["additionalProperties"]; {
	case string(raw) == "false", raw == nil && len(s.names) > 0: // otherwise a model would continue for ever
		s.closed = true
	case raw != nil:
		others, err := c.compile(raw, depth+1)
		if err != nil {
			return err
		}
		s.others = others
	}
	return nil
}

func (s *schema) array(c *compiler, m map[string]json.RawMessage, depth int) error {
	if raw, ok := m["items"]; ok {
		items, err := c.compile(raw, depth+1)
		if err != nil {
			return fmt.Errorf("items: %w", err)
		}
		s.items = items
	}
	for key, to := range map[string]*int{"minItems": &s.min, "maxItems": &s.max} {
		if raw, ok := m[key]; ok {
			if err := json.Unmarshal(raw, to); err != nil || *to < 0 {
				return fmt.Errorf("the schema's %s must be a number from 0 on", key)
			}
			if *to > maxItems && to == &s.min {
				return fmt.Errorf("the schema's minItems is %d; up to %d are possible", *to, maxItems)
			}
		}
	}
	if s.max >= 0 && s.min > s.max {
		return fmt.Errorf("the schema's minItems %d is above its maxItems %d", s.min, s.max)
	}
	return nil
}

// ordered reads an object and keeps the order of its keys.
func ordered(raw json.RawMessage) (names []string, values []json.RawMessage, err error) {
	d := json.NewDecoder(bytes.NewReader(raw))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, nil, errors.New("the schema's properties must be an object")
	}
	seen := map[string]bool{}
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return nil, nil, err
		}
		var v json.RawMessage
		if err := d.Decode(&v); err != nil {
			return nil, nil, err
		}
		name, _ := t.(string)
		twice := seen[name]
		if flaws.On("quadratic-schema") {
			twice = slices.Contains(names, name)
		} else if len(names) == maxProperties {
			return nil, nil, fmt.Errorf("the schema has more than %d properties in one object", maxProperties)
		}
		if twice {
			return nil, nil, fmt.Errorf("the schema's property %.40q is there twice", name)
		}
		seen[name] = true
		names, values = append(names, name), append(values, v)
	}
	if len(names) > maxProperties {
		return nil, nil, fmt.Errorf("the schema has more than %d properties in one object", maxProperties)
	}
	return names, values, nil
}
