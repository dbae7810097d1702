package client

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/launchgate/launchgate/internal/recording"
)

// stream reads the events of one answer. It is a state machine:
//
//	opened ──▶ answering ──▶ finished ──▶ done
//	   │           │            │
//	   └───────────┴────────────┴──▶ failed
//
// opened      the headers came; role-only, empty and usage chunks do not count
// answering   a fragment that is not empty came: of text, reasoning, a refusal
//
//	or a tool call; this is the first token
//
// finished    a choice told its finish reason; more text may still follow it
// done        [DONE] came
// failed      an error came in band, or something that is not the protocol
//
// An answer succeeds when the body ends in state done with at least one token.
// Comments and keep-alives change nothing.
type stream struct {
	row    *recording.Request
	answer *strings.Builder // takes the text, where somebody wants it
	done   bool
	failed bool
	counts int32 // of usage, the latest told
	prompt int32
	told   bool // usage was told at all
}

// chunk is what the OpenAI protocol and its relatives send: a part of an answer
// when streamed, all of it when not.
type chunk struct {
	Choices []struct {
		Delta        *fragment       `json:"delta"`
		Message      *fragment       `json:"message"`
		Text         string          `json:"text"`
		FinishReason json.RawMessage `json:"finish_reason"`
	} `json:"choices"`
	Usage *struct {
		Prompt     int32 `json:"prompt_tokens"`
		Completion int32 `json:"completion_tokens"`
	} `json:"usage"`
	Error   json.RawMessage `json:"error"`
	Object  string          `json:"object"`
	Message string          `json:"message"` // vLLM's and SGLang's errors, with object "error"
	Type    string          `json:"type"`
}

// fragment is a piece of an answer. Reasoning has two names in the field.
type fragment struct {
	Content          text            `json:"content"`
	ReasoningContent text            `json:"reasoning_content"`
	Reasoning        text            `json:"reasoning"`
	Refusal          text            `json:"refusal"`
	ToolCalls        json.RawMessage `json:"tool_calls"`
	FunctionCall     json.RawMessage `json:"function_call"`
}

// text is a string, null, or something that is no text here.
type text string

func (t *text) UnmarshalJSON(b []byte) error {
	var s string
	if json.Unmarshal(b, &s) == nil {
		*t = text(s)
	} else if s := string(b); s != "null" && s != "[]" && s != "{}" {
		*t = text(s) // a list of parts: not empty, and that is all that counts
	}
	return nil
}

// tool reports whether a tool call has a piece in it that is not empty.
func tool(raw json.RawMessage) bool {
	if len(raw) == 0 {
		return false
	}
	type call struct {
		Function struct{ Name, Arguments string } `json:"function"`
		Name     string                           `json:"name"`
		Args     string                           `json:"arguments"`
	}
	var calls []call
	if json.Unmarshal(raw, &calls) != nil {
		var one call
		if json.Unmarshal(raw, &one) != nil {
			return false
		}
		calls = []call{one}
	}
	for _, c := range calls {
		if c.Function.Name+c.Function.Arguments+c.Name+c.Args != "" {
			return true
		}
	}
	return false
}

// event takes the next event of the stream.
func (s *stream) event(e event) {
	data := bytes.TrimSpace(e.data)
	switch {
	case s.failed:
	case string(data) == "[DONE]":
		s.done = true
	case e.name == "error":
		s.fail(recording.ErrorInBand, "the stream sent an error: "+errorText(data))
	case len(data) == 0:
	default:
		var c chunk
		if err := json.Unmarshal(data, &c); err != nil {
			s.fail(recording.ErrorProtocol, fmt.Sprintf("an event of the stream is not JSON (%v): %s", err, clip(string(data))))
			return
		}
		s.chunk(c, e.at, data)
	}
}

func (s *stream) chunk(c chunk, at time.Duration, data []byte) {
	if set(c.Error) || c.Object == "error" || c.Type == "error" {
		s.fail(recording.ErrorInBand, "the stream sent an error: "+errorText(data))
		return
	}
	if c.Usage != nil {
		s.told, s.prompt, s.counts = true, c.Usage.Prompt, max(s.counts, c.Usage.Completion)
	}
	output, reasoning := c.fragments()
	if output || reasoning {
		s.token(at, output)
	}
	s.keep(c)
	if reason := c.finish(); reason != "" {
		s.row.FinishReason = reason
	}
}

// fragments tells what of a chunk counts as tokens.
func (c chunk) fragments() (output, reasoning bool) {
	for _, ch := range c.Choices {
		output = output || ch.Text != ""
		for _, f := range []*fragment{ch.Delta, ch.Message} {
			if f == nil {
				continue
			}
			output = output || f.Content != "" || f.Refusal != "" || tool(f.ToolCalls) || tool(f.FunctionCall)
			reasoning = reasoning || f.ReasoningContent != "" || f.Reasoning != ""
		}
	}
	return output, reasoning
}

// keep adds the text of a chunk to the answer, of the first choice alone.
func (s *stream) keep(c chunk) {
	if s.answer == nil || len(c.Choices) == 0 {
		return
	}
	ch := c.Choices[0]
	s.answer.WriteString(ch.Text)
	for _, f := range []*fragment{ch.Delta, ch.Message} {
		if f != nil {
			s.answer.WriteString(string(f.Content))
		}
	}
}

func (c chunk) finish() string {
	for _, ch := range c.Choices {
		if !set(ch.FinishReason) {
			continue
		}
		var reason string
		if json.Unmarshal(ch.FinishReason, &reason) != nil {
			reason = string(ch.FinishReason) // some send a number or an object
		}
		return reason
	}
	return ""
}

func set(raw json.RawMessage) bool {
	return len(raw) > 0 && string(raw) != "null" && string(raw) != `""`
}

// token notes a chunk of content.
func (s *stream) token(at time.Duration, output bool) {
	r := s.row
	if r.FirstToken == 0 {
		r.FirstToken = at
		r.FirstChunkTokens = max(1, s.counts) // servers that tell usage in every chunk tell this too
	}
	if output && r.FirstOutput == 0 {
		r.FirstOutput = at
	}
	r.LastToken = at
	r.Chunks = append(r.Chunks, at)
}

func (s *stream) fail(class, why string) {
	s.failed = true
	s.row.Error, s.row.ErrorText = class, clip(why)
}

// close judges the answer when its body has ended without an error.
func (s *stream) close() {
	s.count()
	r := s.row
	switch {
	case s.failed:
	case r.FinishReason == "" && len(r.Chunks) == 0 && !s.done:
		s.fail(recording.ErrorTruncated, "the stream ended before it sent anything")
	case r.FinishReason == "":
		s.fail(recording.ErrorTruncated, fmt.Sprintf("the stream ended in the middle: %d chunks and no finish reason", len(r.Chunks)))
	case !s.done:
		s.fail(recording.ErrorTruncated, "the stream ended without [DONE]")
	case r.OutputTokens < 1:
		s.fail(recording.ErrorEmpty, "the answer has no tokens")
	}
}

// count takes the number of tokens from the usage, or else from the chunks.
func (s *stream) count() {
	r := s.row
	r.PromptTokens = s.prompt
	if s.told && s.counts > 0 {
		r.OutputTokens, r.TokensFrom = s.counts, "usage"
	} else if len(r.Chunks) > 0 {
		r.OutputTokens, r.TokensFrom = int32(len(r.Chunks)), "chunks"
	}
}

// errorText finds the sentence in an error that was sent as JSON.
func errorText(data []byte) string {
	var e struct {
		Error   json.RawMessage `json:"error"`
		Message string          `json:"message"`
		Detail  json.RawMessage `json:"detail"`
	}
	if json.Unmarshal(data, &e) != nil {
		return clip(string(data))
	}
	var inner struct {
		Message string `json:"message"`
	}
	var plain string
	switch {
	case json.Unmarshal(e.Error, &inner) == nil && inner.Message != "":
		return clip(inner.Message)
	case json.Unmarshal(e.Error, &plain) == nil && plain != "":
		return clip(plain)
	case e.Message != "":
		return clip(e.Message)
	}
	return clip(string(data))
}

// clip keeps an error text to a line that a report can show.
func clip(s string) string {
	s = strings.Join(strings.Fields(strings.ToValidUTF8(s, "\uFFFD")), " ")
	const longest = 300
	if len(s) <= longest {
		return s
	}
	return strings.ToValidUTF8(s[:longest], "") + " …"
}
