package client

import (
	"encoding/json"
	"unicode/utf8"
)

// chunk is the part of a JSON object that the state machine needs. The object is an
// event of a stream, or a whole answer. Slices are unparsed JSON, valid as long as the
// input is; nil stands for a missing field.
type chunk struct {
	choices  choices // of chat and completions
	usage    usage
	err      []byte
	object   []byte
	kind     []byte   // the type: of a responses event, or "error"
	delta    []byte   // of a responses event
	item     item     // that a responses event adds
	response response // in the last events of responses
	whole    response // the same fields at the top level: an answer of responses that was not streamed
}

// choices are all choices of a chunk. Requests for several choices are rare; then they
// count together.
type choices struct {
	output, reasoning bool
	seen              sight    // the visibility of text and reasoning together
	size              int      // bytes of text
	said              fragment // of the first choice
	text              []byte   // completions: of the first choice
	finish            []byte   // the first finish reason that is set
}

// fragment is a piece of an answer.
type fragment struct {
	content           []byte
	output, reasoning bool
	seen              sight // the visibility of text and reasoning together
	size              int   // bytes of text
}

type usage struct {
	hasUsage       bool
	prompt, output int32
	hasCached      bool
	cached         int32 // tokens of the prompt
	reasoned       int32 // tokens of the output
}

// response is an answer of the responses API.
type response struct {
	status     []byte
	err        []byte
	incomplete []byte // the reason of incomplete_details
	usage      usage
	output     items
}

// item is a piece of the output of the responses API.
type item struct {
	kind, name      []byte
	output, thought bool
	said            []byte // the text of its first part
}

// items are the output of an answer that was not streamed.
type items struct {
	output, reasoning bool
	said              []byte
}

// maxDepth is that of encoding/json, so that both accept the same JSON.
const maxDepth = 10000

// scanner reads JSON in one pass, without allocations. Every method starts at the first
// byte of what it reads, and is false if that is not JSON. If a field occurs twice, the
// last one counts. A value of another type than the API's is ignored.
type scanner struct {
	b     []byte
	i     int
	depth int
}

// scanChunk reads an object; ok is false if b is not exactly one.
func scanChunk(b []byte) (c chunk, ok bool) {
	s := scanner{b: b}
	s.space()
	if s.peek() != '{' {
		return c, false
	}
	for key, more := s.first(); more; key, more = s.next() {
		switch string(key) {
		case "choices":
			c.choices, ok = s.choices()
		case "usage":
			c.usage, ok = s.usage()
			c.whole.usage = c.usage
		case "error":
			c.err, ok = s.value()
			c.whole.err = c.err
		case "object":
			c.object, ok = s.value()
		case "type":
			c.kind, ok = s.value()
		case "delta":
			c.delta, ok = s.value()
		case "item":
			c.item, ok = s.item()
		case "response":
			c.response, ok = s.response()
		default:
			ok = s.responseField(key, &c.whole)
		}
		if !ok {
			return c, false
		}
	}
	if !s.closed('}') {
		return c, false
	}
	s.space()
	return c, s.i == len(b)
}

func (s *scanner) choices() (c choices, ok bool) {
	if s.peek() != '[' {
		return c, s.skip()
	}
	n := 0
	for more := s.firstElement(); more; more = s.nextElement() {
		if ok := s.choice(&c, n == 0); !ok {
			return c, false
		}
		n++
	}
	return c, s.closed(']')
}

func (s *scanner) choice(c *choices, first bool) (ok bool) {
	if s.peek() != '{' {
		return s.skip()
	}
	var delta, message fragment
	var text, finish []byte
	for key, more := s.first(); more; key, more = s.next() {
		switch string(key) {
		case "delta":
			delta, ok = s.fragment()
		case "message":
			message, ok = s.fragment()
		case "text":
			text, ok = s.value()
		case "finish_reason":
			finish, ok = s.value()
		default:
			ok = s.skip()
		}
		if !ok {
			return false
		}
	}
	c.output = c.output || delta.output || message.output || says(text)
	c.reasoning = c.reasoning || delta.reasoning || message.reasoning
	c.size += delta.size + message.size + len(text)
	c.seen = max(c.seen, delta.seen, message.seen, sightOf(text))
	if c.finish == nil && set(finish) {
		c.finish = finish
	}
	if first {
		c.text, c.said = text, delta
		if !says(delta.content) {
			c.said = message
		}
	}
	return s.closed('}')
}

// fragment reads a delta or a message. Servers have many names for reasoning.
func (s *scanner) fragment() (f fragment, ok bool) {
	if s.peek() != '{' {
		return f, s.skip()
	}
	var reasoningContent, reasoning, thinking, refusal []byte
	var tools, function bool
	var content, details parts
	for key, more := s.first(); more; key, more = s.next() {
		switch string(key) {
		case "content":
			f.content, content, ok = s.content()
		case "thinking":
			thinking, ok = s.value()
		case "reasoning_details":
			_, details, ok = s.content()
		case "reasoning_content":
			reasoningContent, ok = s.value()
		case "reasoning":
			reasoning, ok = s.value()
		case "refusal":
			refusal, ok = s.value()
		case "tool_calls":
			tools, ok = s.tools()
		case "function_call":
			function, ok = s.tools()
		default:
			ok = s.skip()
		}
		if !ok {
			return f, false
		}
	}
	f.output = content.some || says(refusal) || tools || function
	f.reasoning = content.thought || details.some || details.thought || says(reasoningContent) || says(reasoning) || says(thinking)
	f.seen = max(content.seen, details.seen, sightOf(refusal), sightOf(reasoningContent), sightOf(reasoning), sightOf(thinking))
	if tools || function {
		f.seen = visible
	}
	f.size = len(f.content) + len(refusal) + max(len(reasoningContent), len(reasoning), len(thinking))
	return f, s.closed('}')
}

// content reads a text, or a list of parts, some of which may be the model's reasoning.
func (s *scanner) content() (value []byte, p parts, ok bool) {
	start := s.i
	if s.peek() == '[' {
		p, ok = s.parts()
	} else if ok = s.skip(); ok {
		p.some, p.seen = says(s.b[start:s.i]), sightOf(s.b[start:s.i])
	}
	return s.b[start:s.i], p, ok
}

// tools reads a tool call or a list of them, and reports whether one is not empty.
func (s *scanner) tools() (some, ok bool) {
	switch s.peek() {
	case '{':
		return s.tool()
	case '[':
	default:
		return false, s.skip()
	}
	for more := s.firstElement(); more; more = s.nextElement() {
		if s.peek() != '{' {
			if !s.skip() {
				return false, false
			}
			continue
		}
		one, ok := s.tool()
		if !ok {
			return false, false
		}
		some = some || one
	}
	return some, s.closed(']')
}

func (s *scanner) tool() (some, ok bool) {
	var name, arguments []byte
	var function bool
	for key, more := s.first(); more; key, more = s.next() {
		switch string(key) {
		case "name":
			name, ok = s.value()
		case "arguments":
			arguments, ok = s.value()
		case "function":
			if function = false; s.peek() == '{' {
				function, ok = s.tool()
			} else {
				ok = s.skip()
			}
		default:
			ok = s.skip()
		}
		if !ok {
			return false, false
		}
	}
	return function || says(name) || says(arguments), s.closed('}')
}

// usage reads a usage with the keys of chat and completions, or of responses.
func (s *scanner) usage() (u usage, ok bool) {
	if s.peek() != '{' {
		return u, s.skip()
	}
	var prompt, completion, input, output, cached, reasoned []byte
	for key, more := s.first(); more; key, more = s.next() {
		switch string(key) {
		case "prompt_tokens":
			prompt, ok = s.value()
		case "completion_tokens":
			completion, ok = s.value()
		case "input_tokens":
			input, ok = s.value()
		case "output_tokens":
			output, ok = s.value()
		case "prompt_tokens_details", "input_tokens_details":
			var of []byte
			if of, ok = s.detail("cached_tokens"); of != nil {
				cached = of
			}
		case "completion_tokens_details", "output_tokens_details":
			var of []byte
			if of, ok = s.detail("reasoning_tokens"); of != nil {
				reasoned = of
			}
		default:
			ok = s.skip()
		}
		if !ok {
			return u, false
		}
	}
	return usage{true, max(count(prompt), count(input)), max(count(completion), count(output)), cached != nil, count(cached), count(reasoned)}, s.closed('}')
}

// detail is a number in the details of a usage: how many tokens of the prompt came from
// a cache, or how many of the output were reasoning. It is nil if the number is
// missing.
func (s *scanner) detail(name string) (tokens []byte, ok bool) {
	if s.peek() != '{' {
		return nil, s.skip()
	}
	for key, more := s.first(); more; key, more = s.next() {
		if string(key) != name {
			ok = s.skip()
		} else if tokens, ok = s.value(); string(tokens) == "null" {
			tokens = nil
		}
		if !ok {
			return nil, false
		}
	}
	return tokens, s.closed('}')
}

func (s *scanner) response() (r response, ok bool) {
	if s.peek() != '{' {
		return r, s.skip()
	}
	for key, more := s.first(); more; key, more = s.next() {
		switch string(key) {
		case "usage":
			r.usage, ok = s.usage()
		case "error":
			r.err, ok = s.value()
		default:
			ok = s.responseField(key, &r)
		}
		if !ok {
			return r, false
		}
	}
	return r, s.closed('}')
}

// responseField reads the fields that only the responses API has.
func (s *scanner) responseField(key []byte, r *response) (ok bool) {
	switch string(key) {
	case "status":
		r.status, ok = s.value()
	case "incomplete_details":
		r.incomplete, ok = s.incomplete()
	case "output":
		r.output, ok = s.items()
	default:
		ok = s.skip()
	}
	return ok
}

func (s *scanner) incomplete() (reason []byte, ok bool) {
	if s.peek() != '{' {
		return nil, s.skip()
	}
	for key, more := s.first(); more; key, more = s.next() {
		if string(key) == "reason" {
			reason, ok = s.value()
		} else {
			ok = s.skip()
		}
		if !ok {
			return nil, false
		}
	}
	return reason, s.closed('}')
}

func (s *scanner) items() (all items, ok bool) {
	if s.peek() != '[' {
		return all, s.skip()
	}
	for more := s.firstElement(); more; more = s.nextElement() {
		one, ok := s.item()
		if !ok {
			return all, false
		}
		all.reasoning = all.reasoning || one.thought
		if string(one.kind) == `"reasoning"` {
			all.reasoning = all.reasoning || one.output
			continue
		}
		all.output = all.output || one.output || one.calls()
		if all.said == nil {
			all.said = one.said
		}
	}
	return all, s.closed(']')
}

// calls reports whether an item is a call of a tool, with its name.
func (i item) calls() bool { return says(i.name) }

func (s *scanner) item() (i item, ok bool) {
	if s.peek() != '{' {
		return i, s.skip()
	}
	var content, summary parts
	for key, more := s.first(); more; key, more = s.next() {
		switch string(key) {
		case "type":
			i.kind, ok = s.value()
		case "name":
			i.name, ok = s.value()
		case "content":
			content, ok = s.parts()
		case "summary":
			summary, ok = s.parts()
		default:
			ok = s.skip()
		}
		if !ok {
			return i, false
		}
	}
	i.output, i.thought, i.said = content.some || summary.some, content.thought || summary.thought, content.said
	return i, s.closed('}')
}

// parts are the content of an item or a message.
type parts struct {
	some    bool   // text, or a refusal, or what has no name here
	thought bool   // reasoning of the model
	seen    sight  // the visibility of both
	said    []byte // the first text
}

func (s *scanner) parts() (p parts, ok bool) {
	if s.peek() != '[' {
		return p, s.skip()
	}
	for more := s.firstElement(); more; more = s.nextElement() {
		if s.peek() != '{' {
			value, ok := s.value()
			if !ok {
				return p, false
			}
			if value[0] == '"' {
				p.some, p.seen = p.some || says(value), max(p.seen, sightOf(value))
			}
			continue
		}
		var kind, text, refusal []byte
		var thinking, reasoning, summary parts
		for key, more := s.first(); more; key, more = s.next() {
			switch string(key) {
			case "type":
				kind, ok = s.value()
			case "text":
				text, ok = s.value()
			case "refusal":
				refusal, ok = s.value()
			case "thinking":
				_, thinking, ok = s.content()
			case "reasoning":
				_, reasoning, ok = s.content()
			case "summary":
				_, summary, ok = s.content()
			default:
				ok = s.skip()
			}
			if !ok {
				return p, false
			}
		}
		if !s.closed('}') {
			return p, false
		}
		for _, of := range [...]parts{thinking, reasoning, summary} {
			p.thought, p.seen = p.thought || of.some || of.thought, max(p.seen, of.seen)
		}
		p.seen = max(p.seen, sightOf(text), sightOf(refusal))
		if thinks(kind) {
			p.thought = p.thought || says(text)
			continue
		}
		p.some = p.some || says(text) || says(refusal)
		if p.said == nil && says(text) {
			p.said = text
		}
	}
	return p, s.closed(']')
}

// says reports whether a value is not empty: a string or a list of parts with content.
func says(value []byte) bool {
	switch string(value) {
	case "", `""`, "null", "[]", "{}":
		return false
	}
	return true
}

// set reports whether a field has a value.
func set(value []byte) bool {
	switch string(value) {
	case "", `""`, "null":
		return false
	}
	return true
}

// count reads a number of tokens; any other value is 0.
func count(value []byte) int32 {
	var n int32
	for _, c := range value {
		if c < '0' || c > '9' || n > 1<<27 {
			return 0
		}
		n = n*10 + int32(c-'0')
	}
	return n
}

// text decodes a JSON string; any other value is the empty text.
func text(value []byte) string {
	if len(value) < 2 || value[0] != '"' {
		return ""
	}
	inner := value[1 : len(value)-1]
	if plain(inner) {
		return string(inner)
	}
	var s string
	if json.Unmarshal(value, &s) != nil {
		return ""
	}
	return s
}

// plain reports whether a JSON string has no escapes, so that its inside is the text.
func plain(inner []byte) bool {
	for _, c := range inner {
		if c == '\\' {
			return false
		}
	}
	return utf8.Valid(inner)
}

func (s *scanner) space() {
	for s.i < len(s.b) {
		switch s.b[s.i] {
		case ' ', '\t', '\r', '\n':
			s.i++
		default:
			return
		}
	}
}

// peek is the next byte, 0 at the end.
func (s *scanner) peek() byte {
	if s.i < len(s.b) {
		return s.b[s.i]
	}
	return 0
}

// take steps over a byte that has to be the next one.
func (s *scanner) take(c byte) bool {
	if s.peek() != c {
		return false
	}
	s.i++
	return true
}

// first enters an object and steps to the value of its first field; next steps to that
// of the following field. They end at the brace, or at invalid JSON; closed
// distinguishes the two.
func (s *scanner) first() (key []byte, more bool) {
	s.i++
	s.depth++
	s.space()
	if s.depth > maxDepth || s.peek() != '"' {
		return nil, false
	}
	return s.key()
}

func (s *scanner) next() (key []byte, more bool) {
	s.space()
	if s.peek() != ',' {
		return nil, false
	}
	s.i++
	s.space()
	if s.peek() != '"' {
		s.i = len(s.b) // a comma without a field after it
		return nil, false
	}
	return s.key()
}

func (s *scanner) key() (key []byte, more bool) {
	start := s.i
	if !s.str() {
		s.i = len(s.b)
		return nil, false
	}
	key = s.b[start+1 : s.i-1]
	s.space()
	if !s.take(':') {
		s.i = len(s.b)
		return nil, false
	}
	s.space()
	if !plain(key) {
		key = []byte(text(s.b[start : start+len(key)+2]))
	}
	return key, true
}

// firstElement and nextElement step through an array as first and next do through an
// object.
func (s *scanner) firstElement() bool {
	s.i++
	s.depth++
	s.space()
	return s.depth <= maxDepth && s.i < len(s.b) && s.peek() != ']'
}

func (s *scanner) nextElement() bool {
	s.space()
	if s.peek() != ',' {
		return false
	}
	s.i++
	s.space()
	return true // if no value follows the comma, reading it will fail
}

// closed leaves an object or an array at its end.
func (s *scanner) closed(c byte) bool {
	ok := s.depth <= maxDepth && s.take(c)
	s.depth--
	return ok
}

// value steps over a value and returns it.
func (s *scanner) value() ([]byte, bool) {
	start := s.i
	if !s.skip() {
		return nil, false
	}
	return s.b[start:s.i], true
}

// skip steps over a value.
func (s *scanner) skip() bool {
	switch c := s.peek(); c {
	case '"':
		return s.str()
	case '{':
		for _, more := s.first(); more; _, more = s.next() {
			if !s.skip() {
				return false
			}
		}
		return s.closed('}')
	case '[':
		for more := s.firstElement(); more; more = s.nextElement() {
			if !s.skip() {
				return false
			}
		}
		return s.closed(']')
	case 't':
		return s.word("true")
	case 'f':
		return s.word("false")
	case 'n':
		return s.word("null")
	default:
		return s.number()
	}
}

func (s *scanner) word(w string) bool {
	if len(s.b)-s.i < len(w) || string(s.b[s.i:s.i+len(w)]) != w {
		return false
	}
	s.i += len(w)
	return true
}

// str steps over a string.
func (s *scanner) str() bool {
	b := s.b
	for i := s.i + 1; i < len(b); i++ {
		switch c := b[i]; {
		case c == '"':
			s.i = i + 1
			return true
		case c == '\\':
			if i++; i == len(b) {
				return false
			}
			switch b[i] {
			case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
			case 'u':
				if len(b)-i < 5 || !hex(b[i+1]) || !hex(b[i+2]) || !hex(b[i+3]) || !hex(b[i+4]) {
					return false
				}
				i += 4
			default:
				return false
			}
		case c < ' ':
			return false
		}
	}
	return false
}

func hex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

// number steps over a number: -?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?
func (s *scanner) number() bool {
	s.take('-')
	if !s.take('0') && !s.digits() {
		return false
	}
	if s.take('.') && !s.digits() {
		return false
	}
	if c := s.peek(); c == 'e' || c == 'E' {
		s.i++
		if !s.take('+') {
			s.take('-')
		}
		return s.digits()
	}
	return true
}

func (s *scanner) digits() bool {
	start := s.i
	for c := s.peek(); '0' <= c && c <= '9'; c = s.peek() {
		s.i++
	}
	return s.i > start
}
