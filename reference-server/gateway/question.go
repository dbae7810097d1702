package gateway

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/maphash"
	"net/http"
	"strconv"
	"strings"
)

// A completion request is decoded once, by strict rules, and the replica gets the
// decoded form. If gateway and replica could read a request differently (which of
// two equal names counts, whether "Stream" is "stream"), the bill could differ from
// what was computed.

// question is a completion request as far as the gateway needs it.
type question struct {
	body    []byte
	fields  []field // of the object, as they were sent
	changed bool

	stream     bool
	background bool
	answers    int // requested answers: n of each prompt
	most       int // tokens of each; 0 if the request does not say
}

// field is a name and its value, as JSON.
type field struct {
	name  string
	value []byte
}

// completes reports whether requests to a path are completion requests.
func completes(path string) bool {
	return path == "/v1/chat/completions" || path == "/v1/completions" || path == "/v1/responses"
}

// numbers are the fields with the amount of work: answers and tokens.
var numbers = []string{"n", "best_of", "max_tokens", "max_completion_tokens", "max_output_tokens"}

// decode parses a completion request. If the body is not a JSON object for any
// parser, q is nil and the replica refuses it.
func decode(path string, body []byte) (q *question, no *refusal) {
	start := bytes.TrimLeft(body, " \t\r\n")
	if len(start) == 0 || start[0] != '{' && ' ' < start[0] && start[0] <= '~' {
		return nil, nil
	}
	if err := syntax(body); err != nil {
		return nil, malformed("the body is no JSON object: %v", err)
	}
	q = &question{body: body, answers: 1}
	if q.fields, no = fieldsOf(body); no != nil {
		return nil, no
	}
	if no := q.plainNames("", q.fields); no != nil {
		return nil, no
	}
	for name, at := range map[string]*bool{"stream": &q.stream, "background": &q.background} {
		if no := truth(name, q.value(name), at); no != nil {
			return nil, no
		}
	}
	if options := q.value("stream_options"); len(options) > 0 && options[0] == '{' {
		inner, no := fieldsOf(options)
		if no == nil {
			no = q.plainNames("stream_options.", inner)
		}
		for _, f := range inner {
			var is bool
			if no == nil && strings.HasPrefix(f.name, "include_") {
				no = truth("stream_options."+f.name, f.value, &is)
			}
		}
		if no != nil {
			return nil, no
		}
	}
	for _, name := range numbers {
		n, no := number(name, q.value(name))
		if no != nil {
			return nil, no
		}
		if name == "n" || name == "best_of" {
			q.answers = max(q.answers, n)
		} else {
			q.most = max(q.most, n)
		}
	}
	if path == "/v1/completions" {
		q.answers *= prompts(q.value("prompt"))
	}
	return q, nil
}

// work is the number of single-answer requests that a request counts as.
func (q *question) work() int {
	if q == nil {
		return 1
	}
	return max(1, q.answers)
}

func malformed(format string, args ...any) *refusal {
	return &refusal{http.StatusBadRequest, "malformed", fmt.Sprintf(format, args...)}
}

// syntax reports what is wrong with JSON.
func syntax(body []byte) error {
	if json.Valid(body) {
		return nil
	}
	var raw json.RawMessage
	err := json.Unmarshal(body, &raw)
	var at *json.SyntaxError
	if errors.As(err, &at) {
		return fmt.Errorf("%w, at byte %d", err, at.Offset)
	}
	return err
}

// plainNames refuses field names in another spelling than the API's, because some
// parsers accept them all the same.
func (q *question) plainNames(of string, fields []field) *refusal {
	for _, f := range fields {
		if f.name == "" || strings.Trim(f.name, "abcdefghijklmnopqrstuvwxyz0123456789_") != "" {
			return malformed("the name %q is not one of the API's: they have lower-case letters, digits and _ only", cut(of+f.name, 80))
		}
	}
	return nil
}

func truth(name string, value []byte, is *bool) *refusal {
	switch string(value) {
	case "true":
		*is = true
	case "", "false", "null":
	default:
		return malformed("%s: found %s, expected true or false", name, cut(string(value), 40))
	}
	return nil
}

// number reads an integer; 0 if there is none.
func number(name string, value []byte) (int, *refusal) {
	if len(value) == 0 || string(value) == "null" {
		return 0, nil
	}
	n, err := strconv.ParseInt(string(value), 10, 32)
	if err != nil {
		return 0, malformed("%s: found %s, expected a whole number of 32 bits", name, cut(string(value), 40))
	}
	return int(n), nil
}

// prompts counts the prompts in the field prompt of the completions API: a text or
// a list of tokens is one; a list of texts or of lists is one for each element.
func prompts(value []byte) int {
	if len(value) == 0 || value[0] != '[' {
		return 1
	}
	inner := bytes.TrimLeft(value[1:], " \t\r\n")
	if len(inner) == 0 || inner[0] != '"' && inner[0] != '[' {
		return 1
	}
	n, depth := 1, 0
	for i := 0; i < len(value); i++ {
		switch value[i] {
		case '"':
			i = endOfString(value, i)
		case '[', '{':
			depth++
		case ']', '}':
			depth--
		case ',':
			if depth == 1 {
				n++
			}
		}
	}
	return n
}

// value is the value of a field; empty if there is no such field.
func (q *question) value(name string) []byte {
	for _, f := range q.fields {
		if f.name == name {
			return f.value
		}
	}
	return nil
}

func (q *question) set(name string, value []byte) {
	q.changed = true
	for i := range q.fields {
		if q.fields[i].name == name {
			q.fields[i].value = value
			return
		}
	}
	q.fields = append(q.fields, field{name, value})
}

// bytes is the request with the changed fields, in one copy. All else stays as it
// was sent; an encoder would escape some characters and make it longer.
func (q *question) bytes() []byte {
	if !q.changed {
		return q.body
	}
	size := 2
	for _, f := range q.fields {
		size += len(f.name) + len(f.value) + 4
	}
	out := append(make([]byte, 0, size), '{')
	for i, f := range q.fields {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(out, '"')
		out = append(out, f.name...) // plain: it needs no escapes
		out = append(out, '"', ':')
		out = append(out, f.value...)
	}
	return append(out, '}')
}

// nameSeed is for hashing names, so that a nameSet does not copy them.
var nameSeed = maphash.MakeSeed()

// nameSet is the names of an object, most of which have few.
type nameSet struct {
	few  [12]uint64
	n    int
	many map[uint64]struct{}
}

// add reports whether a name is new.
func (s *nameSet) add(name []byte) bool {
	h := maphash.Bytes(nameSeed, name)
	if s.many != nil {
		if _, is := s.many[h]; is {
			return false
		}
		s.many[h] = struct{}{}
		return true
	}
	for _, x := range s.few[:s.n] {
		if x == h {
			return false
		}
	}
	if s.n < len(s.few) {
		s.few[s.n] = h
		s.n++
		return true
	}
	s.many = map[uint64]struct{}{h: {}}
	for _, x := range s.few {
		s.many[x] = struct{}{}
	}
	return true
}

// fieldsOf reads the fields of a valid JSON object, and refuses a name that occurs
// twice in it or in an object within.
func fieldsOf(b []byte) ([]field, *refusal) {
	type level struct {
		object, name bool // of an object, before a name
		names        *nameSet
	}
	var (
		fields []field
		stack  []level
		free   []*nameSet // of objects that have ended
		began  int        // of the value of the last field
		inside bool       // of that value
	)
	ends := func(i int) {
		if inside && len(stack) == 1 {
			fields[len(fields)-1].value = bytes.TrimSpace(b[began:i])
			inside = false
		}
	}
	for i := 0; i < len(b); i++ {
		switch b[i] {
		case '{':
			names := &nameSet{}
			if n := len(free); n > 0 {
				names, free = free[n-1], free[:n-1]
				*names = nameSet{}
			}
			stack = append(stack, level{object: true, name: true, names: names})
		case '[':
			stack = append(stack, level{})
		case '}', ']':
			ends(i)
			if top := stack[len(stack)-1]; top.object {
				free = append(free, top.names)
			}
			stack = stack[:len(stack)-1]
		case ',':
			ends(i)
			top := &stack[len(stack)-1]
			top.name = top.object
		case ':':
			if len(stack) == 1 {
				began, inside = i+1, true
			}
			stack[len(stack)-1].name = false
		case '"':
			end := endOfString(b, i)
			if n := len(stack); n > 0 && stack[n-1].name {
				name := b[i+1 : end]
				if bytes.IndexByte(name, '\\') >= 0 || n == 1 {
					var plain string
					if err := json.Unmarshal(b[i:end+1], &plain); err != nil {
						return nil, malformed("a name cannot be read: %v", err)
					}
					name = []byte(plain)
				}
				if !stack[n-1].names.add(name) {
					return nil, malformed("an object has the name %q twice", cut(string(name), 80))
				}
				if n == 1 {
					fields = append(fields, field{name: string(name)})
				}
			}
			i = end
		}
	}
	return fields, nil
}

// endOfString is the end of the string that begins at i.
func endOfString(b []byte, i int) int {
	i++
	for quote := -1; ; {
		if quote < i {
			next := bytes.IndexByte(b[i:], '"')
			if next < 0 {
				return len(b) - 1
			}
			quote = i + next
		}
		escape := bytes.IndexByte(b[i:quote], '\\')
		if escape < 0 {
			return quote
		}
		i += escape + 2 // the escaped character may be a quote
	}
}
