package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"unicode/utf8"
)

// A body is read strictly, so that a gateway in front, which bills, reads it
// the same way. A name occurs once in its object and is spelled exactly, text
// is UTF-8, and nothing follows the value. Unknown names are ignored.
const (
	maxDepth = 256     // of nested objects and lists
	maxNames = 1 << 17 // of all objects of a body; they are kept in memory while reading
)

// decodeStrict reads a body into a struct.
func decodeStrict(body []byte, v any) error {
	if !utf8.Valid(body) {
		return errors.New("the body is not UTF-8, as JSON must be")
	}
	if err := checkNames(body); err != nil {
		return err
	}
	return fill(body, reflect.ValueOf(v).Elem(), "")
}

// checkNames reads JSON once. It checks that it is valid, not too deep, and has
// no name twice in an object.
func checkNames(body []byte) error {
	depth, names := 0, 0
	inString, escaped := false, false
	for _, b := range body { // before the decoder, which is partly recursive
		switch {
		case escaped:
			escaped = false
		case inString:
			escaped, inString = b == '\\', b != '"'
		case b == '"':
			inString = true
		case b == '{' || b == '[':
			if depth++; depth > maxDepth {
				return fmt.Errorf("the JSON is nested deeper than %d", maxDepth)
			}
		case b == '}' || b == ']':
			depth--
		case b == ':':
			names++
		}
	}
	if names > maxNames {
		return fmt.Errorf("the JSON has %d names; up to %d are possible", names, maxNames)
	}
	if !json.Valid(body) {
		var nothing any
		return fmt.Errorf("the body is not JSON: %w", json.Unmarshal(body, &nothing))
	}
	return uniqueNames(body)
}

// uniqueNames returns an error if a name is twice in an object of valid JSON.
func uniqueNames(body []byte) error {
	type scope struct {
		seen map[string]bool // nil: a list
		name bool            // the next string is a name
	}
	var stack []scope
	for at := 0; at < len(body); {
		switch b := body[at]; b {
		case '{':
			stack = append(stack, scope{map[string]bool{}, true})
		case '[':
			stack = append(stack, scope{})
		case '}', ']':
			stack = stack[:len(stack)-1]
		case ',':
			if top := &stack[len(stack)-1]; top.seen != nil {
				top.name = true
			}
		case '"':
			end := stringEnd(body, at)
			if len(stack) > 0 && stack[len(stack)-1].name {
				top := &stack[len(stack)-1]
				top.name = false
				name := unquote(body[at:end])
				if top.seen[name] {
					return fmt.Errorf("the name %.60q stands twice in one object; which of them is meant cannot be known", name)
				}
				top.seen[name] = true
			}
			at = end
			continue
		}
		at++
	}
	return nil
}

// stringEnd is the end of the string that begins at at.
func stringEnd(body []byte, at int) int {
	for at++; body[at] != '"'; at++ {
		if body[at] == '\\' {
			at++
		}
	}
	return at + 1
}

func unquote(quoted []byte) string {
	var s string
	_ = json.Unmarshal(quoted, &s) // it is valid
	return s
}

// member is a name of an object with its value.
type member struct {
	name  string
	value json.RawMessage
}

// members are the members of a valid object in their order.
func members(raw json.RawMessage) (list []member) {
	each(raw, func(name string, value json.RawMessage) { list = append(list, member{name, value}) })
	return list
}

// elements are the elements of a valid list.
func elements(raw json.RawMessage) (list []json.RawMessage) {
	each(raw, func(_ string, value json.RawMessage) { list = append(list, value) })
	return list
}

// each calls visit for every direct member of a valid object or list.
func each(raw json.RawMessage, visit func(name string, value json.RawMessage)) {
	depth, from, name, isName := 0, -1, "", false
	end := func(at int) {
		if from >= 0 {
			visit(name, json.RawMessage(bytes.TrimSpace(raw[from:at])))
		}
		from, name = -1, ""
	}
	for at := 0; at < len(raw); at++ {
		b := raw[at]
		switch {
		case b == '{' || b == '[':
			if depth++; depth == 1 {
				isName = b == '{'
				continue
			}
		case b == '}' || b == ']':
			if depth--; depth == 0 {
				end(at)
				return
			}
		case depth == 1 && b == ',':
			end(at)
			isName = raw[firstByte(raw)] == '{'
			continue
		case depth == 1 && b == ':' && from < 0:
			continue
		case b == '"':
			last := stringEnd(raw, at)
			if depth == 1 && isName {
				name, isName = unquote(raw[at:last]), false
				at = last - 1
				continue
			}
			if from < 0 {
				from = at
			}
			at = last - 1
			continue
		case b == ' ' || b == '\n' || b == '\r' || b == '\t':
			continue
		}
		if from < 0 {
			from = at
		}
	}
}

// firstByte is where a value begins after blanks.
func firstByte(raw []byte) int {
	at := 0
	for at < len(raw)-1 && strings.IndexByte(" \n\r\t", raw[at]) >= 0 {
		at++
	}
	return at
}

// kindOf is the first byte of a value, which determines its type; 0 if there is
// none.
func kindOf(raw json.RawMessage) byte {
	if len(raw) == 0 {
		return 0
	}
	return raw[firstByte(raw)]
}

var rawType = reflect.TypeFor[json.RawMessage]()

// fill decodes valid JSON into v by the exact names of its fields.
func fill(raw json.RawMessage, v reflect.Value, path string) error {
	switch {
	case v.Type() == rawType:
		v.Set(reflect.ValueOf(raw))
		return nil
	case kindOf(raw) == 'n':
		return nil // null counts as absent
	case v.Kind() == reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		return fill(raw, v.Elem(), path)
	case v.Kind() == reflect.Struct:
		if kindOf(raw) != '{' {
			return expected(path, raw, "an object")
		}
		return fillStruct(raw, v, path)
	case v.Kind() == reflect.Slice && v.Type().Elem().Kind() == reflect.Struct:
		if kindOf(raw) != '[' {
			return expected(path, raw, "a list")
		}
		list := elements(raw)
		v.Set(reflect.MakeSlice(v.Type(), len(list), len(list)))
		for i, one := range list {
			if err := fill(one, v.Index(i), fmt.Sprintf("%s[%d]", path, i)); err != nil {
				return err
			}
		}
		return nil
	}
	if err := json.Unmarshal(raw, v.Addr().Interface()); err != nil {
		return expected(path, raw, wordFor(v.Type()))
	}
	return nil
}

func fillStruct(raw json.RawMessage, v reflect.Value, path string) error {
	fields := map[string]int{}
	for i := range v.NumField() {
		fields[v.Type().Field(i).Tag.Get("json")] = i
	}
	for _, m := range members(raw) {
		i, known := fields[m.name]
		if !known {
			for name := range fields {
				if strings.EqualFold(name, m.name) {
					return fmt.Errorf("the name %.60q is not known; %q is", m.name, name)
				}
			}
			continue
		}
		at := m.name
		if path != "" {
			at = path + "." + m.name
		}
		if err := fill(m.value, v.Field(i), at); err != nil {
			return err
		}
	}
	return nil
}

// expected is the error for a value of the wrong type. It quotes only the
// beginning of the value.
func expected(path string, raw json.RawMessage, want string) error {
	if path == "" {
		path = "the body"
	}
	found := map[byte]string{'{': "an object", '[': "a list", '"': "a text", 't': "true", 'f': "false"}[kindOf(raw)]
	if found == "" {
		found = fmt.Sprintf("%.40s", raw)
	}
	return fmt.Errorf("%s: found %s, expected %s", path, found, want)
}

func wordFor(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.String:
		return "a text"
	case reflect.Int, reflect.Int64, reflect.Int32:
		return "a whole number within 64 bits"
	case reflect.Float64:
		return "a number"
	case reflect.Slice:
		return "a list of token ids"
	case reflect.Map:
		return "an object of texts"
	}
	return "something else"
}
