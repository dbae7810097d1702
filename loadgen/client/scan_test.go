package client

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// oracle reads the same object by encoding/json. It shares with the scanner only the
// functions for the meaning of a value (says, set, count).
func oracle(b []byte) (c chunk, ok bool) {
	top, ok := fields(b)
	if !ok {
		return c, false
	}
	c.choices, c.usage = oracleChoices(top["choices"]), oracleUsage(top["usage"])
	c.err, c.object, c.kind, c.delta = top["error"], top["object"], top["type"], top["delta"]
	c.item = oracleItem(top["item"])
	c.whole = oracleResponse(top)
	if r, ok := fields(top["response"]); ok {
		c.response = oracleResponse(r)
	}
	return c, true
}

type object = map[string]json.RawMessage

func fields(b []byte) (object, bool) {
	if !json.Valid(b) || strings.TrimLeft(string(b), " \t\r\n")[0] != '{' {
		return nil, false
	}
	var m object
	return m, json.Unmarshal(b, &m) == nil
}

func elements(b []byte) []json.RawMessage {
	var l []json.RawMessage
	if json.Unmarshal(b, &l) != nil {
		return nil
	}
	return l
}

func oracleChoices(b []byte) (c choices) {
	for n, e := range elements(b) {
		m, ok := fields(e)
		if !ok {
			continue
		}
		delta, message := oracleFragment(m["delta"]), oracleFragment(m["message"])
		c.output = c.output || delta.output || message.output || says(m["text"])
		c.reasoning = c.reasoning || delta.reasoning || message.reasoning
		if c.finish == nil && set(m["finish_reason"]) {
			c.finish = m["finish_reason"]
		}
		if n == 0 {
			c.text, c.said = m["text"], delta
			if !says(delta.content) {
				c.said = message
			}
		}
	}
	return c
}

func oracleFragment(b []byte) (f fragment) {
	m, ok := fields(b)
	if !ok {
		return f
	}
	f.content = m["content"]
	some, thought := oracleContent(f.content)
	detail, thoughtDetail := oracleContent(m["reasoning_details"])
	f.output = some || says(m["refusal"]) || oracleTools(m["tool_calls"]) || oracleTools(m["function_call"])
	f.reasoning = thought || detail || thoughtDetail || says(m["reasoning_content"]) || says(m["reasoning"]) || says(m["thinking"])
	return f
}

// oracleContent is whether a content is not empty, and whether it has reasoning.
func oracleContent(b []byte) (some, thought bool) {
	if len(b) == 0 || b[0] != '[' {
		return says(b), false
	}
	for _, e := range elements(b) {
		p, ok := fields(e)
		if !ok {
			some = some || e[0] == '"' && says(e)
			continue
		}
		for _, key := range []string{"thinking", "reasoning", "summary"} {
			inner, deeper := oracleContent(p[key])
			thought = thought || inner || deeper
		}
		if thinks(p["type"]) {
			thought = thought || says(p["text"])
			continue
		}
		some = some || says(p["text"]) || says(p["refusal"])
	}
	return some, thought
}

func oracleTools(b []byte) bool {
	if m, ok := fields(b); ok {
		function, isObject := fields(m["function"])
		return says(m["name"]) || says(m["arguments"]) || isObject && oracleTool(function)
	}
	for _, e := range elements(b) {
		if m, ok := fields(e); ok && oracleTool(m) {
			return true
		}
	}
	return false
}

func oracleTool(m object) bool {
	function, ok := fields(m["function"])
	return says(m["name"]) || says(m["arguments"]) || ok && oracleTool(function)
}

func oracleUsage(b []byte) usage {
	m, ok := fields(b)
	if !ok {
		return usage{}
	}
	u := usage{hasUsage: true, prompt: max(count(m["prompt_tokens"]), count(m["input_tokens"])), output: max(count(m["completion_tokens"]), count(m["output_tokens"]))}
	for _, details := range []string{"prompt_tokens_details", "input_tokens_details"} {
		if d, ok := fields(m[details]); ok && d["cached_tokens"] != nil && string(d["cached_tokens"]) != "null" {
			u.hasCached, u.cached = true, count(d["cached_tokens"])
		}
	}
	for _, details := range []string{"completion_tokens_details", "output_tokens_details"} {
		if d, ok := fields(m[details]); ok && d["reasoning_tokens"] != nil && string(d["reasoning_tokens"]) != "null" {
			u.reasoned = count(d["reasoning_tokens"])
		}
	}
	return u
}

func oracleResponse(m object) (r response) {
	r.status, r.err, r.usage = m["status"], m["error"], oracleUsage(m["usage"])
	if d, ok := fields(m["incomplete_details"]); ok {
		r.incomplete = d["reason"]
	}
	for _, e := range elements(m["output"]) {
		i := oracleItem(e)
		r.output.reasoning = r.output.reasoning || i.thought
		if string(i.kind) == `"reasoning"` {
			r.output.reasoning = r.output.reasoning || i.output
			continue
		}
		r.output.output = r.output.output || i.output || says(i.name)
		if r.output.said == nil {
			r.output.said = i.said
		}
	}
	return r
}

func oracleItem(b []byte) (i item) {
	m, ok := fields(b)
	if !ok {
		return i
	}
	i.kind, i.name = m["type"], m["name"]
	for _, list := range []string{"content", "summary"} {
		if len(elements(m[list])) == 0 {
			continue
		}
		some, thought := oracleContent(m[list])
		i.output, i.thought = i.output || some, i.thought || thought
		for _, e := range elements(m[list]) {
			p, ok := fields(e)
			if list == "content" && ok && i.said == nil && says(p["text"]) && !thinks(p["type"]) {
				i.said = p["text"]
			}
		}
	}
	return i
}

// same compares what the state machine uses.
func same(t *testing.T, b []byte) {
	t.Helper()
	got, ok := scanChunk(b)
	want, valid := oracle(b)
	if ok != valid {
		t.Fatalf("%q is an object: scanner %t, encoding/json %t", b, ok, valid)
	}
	if ok && shown(got) != shown(want) {
		t.Fatalf("%q\nscanner       %s\nencoding/json %s", b, shown(got), shown(want))
	}
}

func shown(c chunk) string {
	type list []any
	response := func(r response) list {
		return list{string(r.status), string(r.err), string(r.incomplete), r.usage.hasUsage, r.usage.prompt, r.usage.output, r.output.output, r.output.reasoning, string(r.output.said)}
	}
	b, err := json.Marshal(list{
		c.choices.output, c.choices.reasoning, string(c.choices.text), string(c.choices.said.content), string(c.choices.finish),
		c.usage.hasUsage, c.usage.prompt, c.usage.output, c.usage.hasCached, c.usage.cached, c.usage.reasoned, string(c.err), string(c.object), string(c.kind), string(c.delta),
		string(c.item.kind), string(c.item.name), c.item.output, c.item.thought, string(c.item.said), response(c.response), response(c.whole),
	})
	if err != nil {
		panic(err)
	}
	return string(b)
}

// odd are objects that scanners often get wrong.
var odd = []string{
	`{}`, `{"choices":[]}`, `{"choices":{}}`, `{"choices":null,"usage":null}`, ``, ` `, `null`, `[]`, `1`, `"a"`, `{"a":1}x`, `{"a":1,}`, `{,}`, `{"a"}`, `{"a":}`,
	`{"choices":[{"delta":{"content":"a"}},]}`, `{"choices":[,]}`, "\t{ \"choices\" : [ { \"delta\" : { \"content\" : \"a\" } , \"finish_reason\" : \"stop\" } ] }\r\n",
	`{"\u0063hoices":[{"text":"x"}]}`, `{"choices":[{"text":"x"}],"choices":[]}`, `{"choices":[{"delta":{"content":"x"},"delta":{}}]}`,
	`{"choices":[{"delta":{"content":[{"type":"text"}]}}]}`, `{"choices":[{"delta":{"content":"\ud800"}}]}`, `{"choices":[{"delta":{"content":"\u12"}}]}`, `{"a":"\x"}`, "{\"a\":\"\x01\"}", "{\"a\":\"\xff\"}", "{\"\xff\":1}",
	`{"choices":[{"delta":{"tool_calls":[{"function":{"name":"f"}},3]}}]}`, `{"choices":[{"delta":{"tool_calls":{"function":{"arguments":{"a":1}}}}}]}`, `{"choices":[{"delta":{"tool_calls":[{"function":{"name":"f"},"function":3}]}}]}`,
	`{"usage":{"prompt_tokens":01}}`, `{"usage":{"prompt_tokens":-0,"completion_tokens":1e3}}`, `{"usage":{"completion_tokens":99999999999}}`, `{"a":-}`, `{"a":1.}`, `{"a":1e}`, `{"a":+1}`, `{"a":0.5e-7}`, `{"a":tru}`, `{"a":nul`,
	`{"type":"response.completed","response":{"status":"completed","usage":{"input_tokens":3,"output_tokens":4},"output":[{"type":"message","content":[{"type":"output_text","text":"hi"}]}]}}`,
	`{"object":"response","status":"incomplete","incomplete_details":{"reason":"max_output_tokens"},"output":[{"type":"reasoning","summary":[{"text":"a"}]},{"type":"function_call","name":"f"}]}`,
	`{"choices":[{"delta":{"content":[{"type":"thinking","thinking":[{"type":"text","text":"Hm"}]},{"type":"text","text":"Hi"}]}}]}`, `{"choices":[{"delta":{"content":[{"type":"text","text":""},"a",3,[]],"reasoning_details":[{"type":"reasoning.encrypted","data":"x"}]}}]}`,
	`{"choices":[{"message":{"content":[{"type":"reasoning","summary":[{"type":"summary_text","text":"a"}]}],"thinking":"b"}}]}`, `{"choices":[{"delta":{"content":[{"type":"thinking","thinking":"a","thinking":""}]}}]}`,
	`{"usage":{"completion_tokens":510,"completion_tokens_details":{"reasoning_tokens":500}}}`, `{"usage":{"output_tokens":3,"output_tokens_details":{"reasoning_tokens":null},"completion_tokens_details":[]}}`,
	`{"item":{"type":"function_call","name":"f","name":""}}`, `{"error":""}`, `{"error":{"message":"x"}}`,
	strings.Repeat(`{"a":`, 9999) + `{}` + strings.Repeat(`}`, 9999), strings.Repeat(`{"a":`, 10000) + `{}` + strings.Repeat(`}`, 10000), `{"a":` + strings.Repeat(`[`, 10000) + strings.Repeat(`]`, 10000) + `}`, `{"a":` + strings.Repeat(`[`, 9999) + strings.Repeat(`]`, 9999) + `}`,
}

// payloads are the data of all fixtures' events.
func payloads(t testing.TB) []string {
	files, err := filepath.Glob("testdata/*.sse")
	if err != nil || len(files) < 10 {
		t.Fatalf("%d fixtures, %v", len(files), err)
	}
	var all []string
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		_, body, _ := strings.Cut(string(b), "\n")
		p := &eventParser{emit: func(e event) { all = append(all, string(e.data)) }}
		if err := p.feed([]byte(body), 1); err != nil {
			t.Fatal(err)
		}
		p.end(1)
	}
	return all
}

func TestScannerAgreesWithEncodingJSON(t *testing.T) {
	for _, text := range append(payloads(t), odd...) {
		same(t, []byte(text))
		for i := range min(len(text), 400) { // cut anywhere, or with a byte removed
			same(t, []byte(text[:i]))
			same(t, []byte(text[:i]+text[i+1:]))
		}
	}
}

func FuzzScanner(f *testing.F) {
	for _, text := range append(payloads(f), odd...) {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, b []byte) { same(t, b) })
}

func TestTextOfJSON(t *testing.T) {
	for value, want := range map[string]string{`"a"`: "a", `"a\n\u00e9\ud83d\ude00"`: "a\né😀", "\"\xff\"": "\uFFFD", `3`: "", `null`: "", `[]`: "", `""`: ""} {
		if got := text([]byte(value)); got != want {
			t.Errorf("%s is %q, want %q", value, got, want)
		}
	}
}

// Reading a content chunk allocates nothing.
func TestChunksMakeNoGarbage(t *testing.T) {
	line := []byte(vllmChunk + "\n\n")
	s := newTestStream()
	s.expect = 1024
	p := &eventParser{emit: s.event}
	if err := p.feed(line, 1); err != nil { // the first allocates the buffers
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(500, func() { _ = p.feed(line, 2) }); n != 0 {
		t.Errorf("%v allocations a chunk, want none", n)
	}
	if len(s.row.Chunks) < 500 || s.failed {
		t.Fatalf("%d chunks, %s", len(s.row.Chunks), s.row.ErrorText)
	}
}
