// Package grammar constrains an answer to JSON, of any shape or of a schema. It
// says for every token whether it may come next. It is a pushdown automaton
// over bytes: a token may come next if the automaton accepts all of its bytes.
package grammar

import (
	"encoding/json"
	"errors"
	"fmt"
	"sort"
	"strings"

	"github.com/launchgate/launchgate/internal/flaws"
)

// Form is the form that an answer must have. It is parsed once for all answers
// to a request, which may be written at the same time.
type Form struct {
	vocabulary *Vocabulary
	schema     *schema
	masks      masks
}

// Object is one JSON object of any shape.
func Object(v *Vocabulary) *Form {
	return &Form{vocabulary: v, schema: &schema{kinds: object, max: -1, others: free, items: free, id: 1}}
}

// Schema is JSON of a schema. Unsupported keywords are errors.
func Schema(v *Vocabulary, raw json.RawMessage) (*Form, error) {
	if len(raw) == 0 {
		return nil, errors.New("the schema is missing")
	}
	if len(raw) > maxSchema && !flaws.On("quadratic-schema") && !flaws.On("engine-blocks") {
		return nil, fmt.Errorf("the schema has %d bytes; up to %d are possible", len(raw), maxSchema)
	}
	s, err := new(compiler).compile(raw, 0)
	if err != nil {
		return nil, err
	}
	return &Form{vocabulary: v, schema: s}, nil
}

// Start begins an answer.
func (f *Form) Start() *JSON { return &JSON{form: f, at: start(f.schema)} }

// JSON constrains one answer. It implements sample.Constraint.
type JSON struct {
	form *Form
	at   machine
	try  machine // reused, so that Allows allocates nothing
}

// Allows reports whether a token may come next: one whose bytes continue the
// JSON, or the end token once the JSON is complete.
func (j *JSON) Allows(id int32) bool {
	v := j.form.vocabulary
	if v.Ends(id) {
		return j.at.complete()
	}
	text := v.Bytes(id)
	if text == "" || v.IsControl(id) {
		return false
	}
	j.try.become(&j.at)
	return j.try.take(text)
}

// Accept takes the token that came.
func (j *JSON) Accept(id int32) {
	if v := j.form.vocabulary; !v.Ends(id) {
		j.at.take(v.Bytes(id))
	}
}

const (
	maxDepth  = 24 // of nested objects and arrays in a schema
	maxBlanks = 8  // in a row, so that a model does not write blanks for ever
	maxDigits = 20 // of a number, likewise

	maxExponent = 2 // digits, as in a float64

	maxStack = 2 * maxDepth // the depth of values without a schema
)

// what is the kind of a frame.
type what int

const (
	inValue   what = iota // before a value
	inLiteral             // one of candidates, of which at bytes are written
	inString
	inKey // a property's name, as a string
	inNumber
	inObject
	inArray
)

// frame is one unfinished value or part of one. The frames that contain it are
// below it on the stack.
type frame struct {
	what       what
	schema     *schema
	state      int
	candidates uint64   // inKey: set of the names that it may still be
	literals   []string // inLiteral: all, sorted; those that it may still be are …
	from, to   int      // … between these
	at         int      // bytes written of a literal, name or number
	seen       uint64   // inObject: properties that are there
	count      int      // inArray: number of elements, as far as it matters
	rest       int      // inString: bytes or hex digits that must follow; inNumber: digits of the exponent; inObject: which name was read, from 1
}

// machine is the automaton.
type machine struct {
	stack  []frame
	blanks int
}

func start(s *schema) machine { return machine{stack: []frame{{what: inValue, schema: s}}} }

// become copies o into m and reuses m's memory.
func (m *machine) become(o *machine) {
	m.stack, m.blanks = append(m.stack[:0], o.stack...), o.blanks
}

// complete reports whether nothing is missing any more.
func (m *machine) complete() bool {
	return len(m.stack) == 0 || len(m.stack) == 1 && m.stack[0].what == inNumber && numberEnds(m.stack[0].state)
}

// take continues with bytes and reports whether it accepted all of them.
func (m *machine) take(text string) bool {
	for i := range len(text) {
		if !m.step(text[i]) {
			return false
		}
	}
	return true
}

func (m *machine) top() *frame { return &m.stack[len(m.stack)-1] }
func (m *machine) pop()        { m.stack = m.stack[:len(m.stack)-1] }
func (m *machine) push(f frame) bool {
	m.stack = append(m.stack, f)
	return len(m.stack) < maxStack
}

func (m *machine) step(b byte) bool {
	if len(m.stack) == 0 {
		return false
	}
	f := m.top()
	if f.what == inNumber && !numberGoesOn(f, b) {
		// A number ends at the byte that follows it.
		if !numberEnds(f.state) || len(m.stack) == 1 {
			return false
		}
		m.pop()
		f = m.top()
	}
	switch f.what {
	case inNumber:
		return true // numberGoesOn has gone on
	case inString, inKey:
		return m.stringStep(f, b)
	case inLiteral:
		return m.literalStep(f, b)
	}
	if b == ' ' || b == '\n' || b == '\t' || b == '\r' {
		m.blanks++
		before := len(m.stack) == 1 && f.what == inValue // the answer has not begun
		return m.blanks <= maxBlanks && !before
	}
	m.blanks = 0
	switch f.what {
	case inObject:
		return m.objectStep(f, b)
	case inArray:
		return m.arrayStep(f, b)
	}
	return m.valueStep(f, b)
}

// valueStep begins a value by its first byte.
func (m *machine) valueStep(f *frame, b byte) bool {
	s := f.schema
	if len(s.literals) > 0 {
		*f = oneOf(s, s.literals)
		return m.literalStep(f, b)
	}
	begin := func(k kinds, next frame) bool {
		if s.kinds&k == 0 {
			return false
		}
		next.schema = s
		*f = next
		return true
	}
	switch {
	case b == '{':
		return begin(object, frame{what: inObject})
	case b == '[':
		return begin(array, frame{what: inArray})
	case b == '"':
		return begin(str, frame{what: inString})
	case b == '-' || b >= '0' && b <= '9':
		return begin(number|integer, frame{what: inNumber}) && numberGoesOn(f, b)
	case b == 't' || b == 'f':
		return begin(boolean, oneOf(s, truths)) && m.literalStep(f, b)
	case b == 'n':
		return begin(null, oneOf(s, nulls)) && m.literalStep(f, b)
	}
	return false
}

// literalStep continues one of several texts. No text is the beginning of
// another, except for numbers, where the longer one then cannot be written.
func (m *machine) literalStep(f *frame, b byte) bool {
	if flaws.On("engine-blocks") {
		return m.literalStepSlowly(f, b)
	}
	left := f.literals[f.from:f.to]
	from := f.from + sort.Search(len(left), func(i int) bool { return left[i][f.at] >= b })
	to := f.from + sort.Search(len(left), func(i int) bool { return left[i][f.at] > b })
	if from == to {
		return false
	}
	f.from, f.to, f.at = from, to, f.at+1
	if len(f.literals[from]) == f.at { // the shortest comes first
		m.pop()
	}
	return true
}

// literalStepSlowly is a planted flaw: it checks all literals for every byte of
// every token.
func (m *machine) literalStepSlowly(f *frame, b byte) bool {
	var left []string
	for _, l := range f.literals {
		if f.at < len(l) && l[f.at] == b {
			left = append(left, l)
		}
	}
	if len(left) == 0 {
		return false
	}
	f.literals, f.at = left, f.at+1
	for _, l := range left {
		if len(l) == f.at {
			m.pop()
			return true
		}
	}
	return true
}

var truths, nulls = []string{"false", "true"}, []string{"null"}

// oneOf is a frame before one of some sorted texts.
func oneOf(s *schema, literals []string) frame {
	return frame{what: inLiteral, schema: s, literals: literals, to: len(literals)}
}

// States of a string; rest counts what must follow.
const (
	plain = iota
	escaped
	hexDigits
	continuation // of a rune in UTF-8
)

// stringStep continues a string or the name of a property.
func (m *machine) stringStep(f *frame, b byte) bool {
	if f.what == inKey && f.candidates != 0 {
		return m.nameStep(f, b)
	}
	switch f.state {
	case escaped:
		f.state = plain
		if b == 'u' {
			f.state, f.rest = hexDigits, 4
			return true
		}
		return strings.IndexByte(`"\/bfnrt`, b) >= 0
	case hexDigits, continuation:
		if f.state == hexDigits && !isHex(b) || f.state == continuation && b&0xc0 != 0x80 {
			return false
		}
		if f.rest--; f.rest == 0 {
			f.state = plain
		}
		return true
	}
	switch {
	case b == '"':
		m.endString()
		return true
	case b == '\\':
		f.state = escaped
		return true
	case b < 0x20:
		return false
	case b >= 0x80:
		switch {
		case b >= 0xf0 && b <= 0xf4:
			f.rest = 3
		case b >= 0xe0 && b <= 0xef:
			f.rest = 2
		case b >= 0xc2 && b <= 0xdf:
			f.rest = 1
		default:
			f.rest = 0
		}
		f.state = continuation
		return f.rest > 0
	}
	return true
}

func isHex(b byte) bool {
	return b >= '0' && b <= '9' || b >= 'a' && b <= 'f' || b >= 'A' && b <= 'F'
}

// endString leaves a string; after a name comes a colon and a value.
func (m *machine) endString() {
	key := m.top().what == inKey
	m.pop()
	if key {
		m.top().state = afterName
	}
}

// nameStep continues the name of a property that the object does not have yet.
func (m *machine) nameStep(f *frame, b byte) bool {
	var left uint64
	for i, name := range f.schema.names {
		if f.candidates&(1<<i) != 0 && f.at < len(name) && name[f.at] == b {
			left |= 1 << i
		}
	}
	if left == 0 {
		return false
	}
	f.candidates, f.at = left, f.at+1
	for i, name := range f.schema.names {
		if left&(1<<i) != 0 && len(name) == f.at {
			m.pop()
			o := m.top()
			o.state, o.seen, o.rest = afterName, o.seen|1<<i, i+1
			return true
		}
	}
	return true
}

// States of an object and of an array.
const (
	opened = iota
	afterName
	afterElement
	afterComma
)

func (m *machine) objectStep(f *frame, b byte) bool {
	s := f.schema
	unseen := (uint64(1)<<len(s.names) - 1) &^ f.seen
	switch {
	case b == '}' && (f.state == opened || f.state == afterElement) && s.required&^f.seen == 0:
		m.pop()
		return true
	case b == '"' && (f.state == opened || f.state == afterComma):
		key := frame{what: inKey, schema: s}
		if s.closed {
			if unseen == 0 {
				return false
			}
			key.candidates, key.at = unseen, 1
		}
		f.rest = 0
		return m.push(key)
	case b == ':' && f.state == afterName:
		value := s.others
		if f.rest > 0 {
			value = s.values[f.rest-1]
		}
		f.state = afterElement
		return m.push(frame{what: inValue, schema: value})
	case b == ',' && f.state == afterElement && (!s.closed || unseen != 0):
		f.state = afterComma
		return true
	}
	return false
}

func (m *machine) arrayStep(f *frame, b byte) bool {
	s := f.schema
	full := s.max >= 0 && f.count >= s.max
	switch {
	case b == ']' && (f.state == opened || f.state == afterElement) && f.count >= s.min:
		m.pop()
		return true
	case b == ',' && f.state == afterElement && !full:
		f.state = afterComma
		return true
	case (f.state == opened || f.state == afterComma) && !full:
		f.state = afterElement
		if s.max >= 0 || f.count < s.min { // beyond it makes no difference
			f.count++
		}
		return m.push(frame{what: inValue, schema: s.items}) && m.valueStep(m.top(), b)
	}
	return false
}

// States of a number.
const (
	nothing = iota
	sign
	zero
	whole
	dot
	fraction
	exponent
	exponentSign
	exponentDigits
)

func numberEnds(state int) bool {
	return state == zero || state == whole || state == fraction || state == exponentDigits
}

// numberGoesOn continues a number and reports whether it accepted the byte.
func numberGoesOn(f *frame, b byte) bool {
	digit, next := b >= '0' && b <= '9', -1
	fractions := f.schema.kinds&number != 0
	switch f.state {
	case nothing, sign:
		switch {
		case b == '-' && f.state == nothing:
			next = sign
		case b == '0':
			next = zero
		case digit:
			next = whole
		}
	case zero, whole:
		switch {
		case digit && f.state == whole:
			next = whole
		case b == '.' && fractions:
			next = dot
		case (b == 'e' || b == 'E') && fractions:
			next = exponent
		}
	case dot, fraction:
		switch {
		case digit:
			next = fraction
		case f.state == fraction && (b == 'e' || b == 'E'):
			next = exponent
		}
	case exponent:
		switch {
		case b == '+' || b == '-':
			next = exponentSign
		case digit:
			next = exponentDigits
		}
	case exponentSign, exponentDigits:
		if digit && f.rest < maxExponent {
			next = exponentDigits
		}
	}
	if next == exponentDigits {
		f.rest++
	}
	if next < 0 || f.at >= maxDigits && digit && numberEnds(next) && numberEnds(f.state) {
		return false
	}
	f.state, f.at = next, f.at+1
	return true
}
