package scenarios

import (
	"bytes"
	"encoding"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Marshal writes a gate as YAML that Parse reads back as the same gate. Keys
// are in the order of the types, and what is left out in Go is left out here.
func Marshal(g Gate) ([]byte, error) {
	var e encoder
	e.mapping(reflect.ValueOf(g), "")
	return e.out.Bytes(), e.err
}

// encoder writes the types of a gate. The YAML library's own encoder leaves
// some texts unquoted that then read as something else.
type encoder struct {
	out bytes.Buffer
	err error
}

// mapping writes the fields of a struct, one a line, each after indent.
func (e *encoder) mapping(v reflect.Value, indent string) {
	for i, key := range keysOf(v.Type()) {
		field := v.Field(i)
		if !required(v.Type().Field(i)) && field.IsZero() {
			continue
		}
		e.entry(key, field, indent)
	}
}

func (e *encoder) entry(key string, v reflect.Value, indent string) {
	if v.Kind() == reflect.Pointer {
		v = v.Elem()
	}
	fmt.Fprintf(&e.out, "%s%s:", indent, key)
	if text, ok := e.scalar(v); ok {
		fmt.Fprintf(&e.out, " %s\n", text)
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		if mark := e.out.Len(); e.block(func() { e.mapping(v, indent+"  ") }) {
			e.rewrite(mark, " {}\n")
		}
	case reflect.Slice:
		if mark := e.out.Len(); e.block(func() { e.list(v, indent+"  ") }) {
			e.rewrite(mark, " []\n")
		}
	case reflect.Map:
		if mark := e.out.Len(); e.block(func() { e.texts(v, indent+"  ") }) {
			e.rewrite(mark, " {}\n")
		}
	default:
		e.err = fmt.Errorf("write the gate: %s has a type with no YAML form, %s", key, v.Type())
	}
}

// block writes what is inside a key, and reports whether that was nothing.
func (e *encoder) block(write func()) (empty bool) {
	e.out.WriteByte('\n')
	before := e.out.Len()
	write()
	return e.out.Len() == before
}

func (e *encoder) rewrite(from int, text string) {
	e.out.Truncate(from)
	e.out.WriteString(text)
}

func (e *encoder) list(v reflect.Value, indent string) {
	for i := range v.Len() {
		if text, ok := e.scalar(v.Index(i)); ok {
			fmt.Fprintf(&e.out, "%s- %s\n", indent, text)
			continue
		}
		start := e.out.Len()
		e.mapping(v.Index(i), indent+"  ")
		copy(e.out.Bytes()[start+len(indent):], "-") // the first key stands beside the dash
	}
}

func (e *encoder) texts(v reflect.Value, indent string) {
	keys := v.MapKeys()
	slices.SortFunc(keys, func(a, b reflect.Value) int { return strings.Compare(a.String(), b.String()) })
	for _, key := range keys {
		e.entry(e.text(key.String()), v.MapIndex(key), indent)
	}
}

func (e *encoder) scalar(v reflect.Value) (string, bool) {
	if field, ok := v.Interface().(Field); ok {
		return field.JSON(), true
	}
	if writer, ok := v.Interface().(encoding.TextMarshaler); ok {
		text, err := writer.MarshalText()
		if err != nil {
			e.err = err
		}
		if l, ok := v.Interface().(Lengths); ok && l.kind == "fixed" {
			return string(text), true // a bare number, as it was written
		}
		if _, ok := v.Interface().(Devices); ok {
			return string(text), true // a list, or a word
		}
		return e.text(string(text)), true
	}
	switch v.Kind() {
	case reflect.String:
		return e.text(v.String()), true
	case reflect.Bool:
		return strconv.FormatBool(v.Bool()), true
	case reflect.Int:
		return strconv.FormatInt(v.Int(), 10), true
	case reflect.Uint64:
		return strconv.FormatUint(v.Uint(), 10), true
	case reflect.Float64:
		return plain(v.Float()), true
	}
	return "", false
}

// plainText is what may stand without quotes: it begins with a letter or is a
// quantity or a path, and holds nothing that YAML gives a meaning. The words
// that YAML reads as something else are in wordValues.
var plainText = regexp.MustCompile(`^([A-Za-z/][A-Za-z0-9 _.,/()<>=%$'?!;-]*|[0-9.]+(/[smh]|h|m|s|ms|us|ns)[0-9a-z.]*)$`)

var wordValues = regexp.MustCompile(`^(?i:true|false|null|yes|no|on|off|y|n)$`)

func (e *encoder) text(s string) string {
	if !utf8.ValidString(s) {
		e.err = fmt.Errorf("write the gate: %s is not UTF-8", quoted(s))
	}
	if plainText.MatchString(s) && !wordValues.MatchString(s) && !strings.HasSuffix(s, " ") {
		return s
	}
	return strconv.Quote(s)
}
