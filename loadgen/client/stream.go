package client

import (
	"bytes"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/internal/words"
)

// mostExpected bounds the room that is made before anything came to fill it.
const mostExpected = 1024

// stream reads the events of one answer. It is a state machine:
//
//	opened ──▶ answering ──▶ finished ──▶ done
//	   │           │            │
//	   └───────────┴────────────┴──▶ failed
//
// The protocol of chat and completions moves it so:
//
//	opened      the headers came; role-only, empty and usage chunks do not count
//	answering   a fragment that a reader sees came: of text, reasoning, a refusal
//	            or a tool call; this is the first token. Blanks and characters
//	            without width that come before it do not count, unless nothing else
//	            comes
//	finished    a choice told its finish reason; more text may still follow it
//	done        [DONE] came
//	failed      an error came in band, or something that is not the protocol
//
// and that of responses, whose events have types, so:
//
//	answering   a delta that is not empty came, of whatever kind, or an item with
//	            the name of a tool to call
//	done        response.completed or response.incomplete came: finish reason,
//	            usage and end are one event, and no [DONE] need follow
//	failed      response.failed, response.cancelled or error came
//
// An answer ends in state done or failed, however long the body goes on: what
// comes then is counted and no part of it. It succeeds in state done with at least
// one token, and with a finish reason that the workload allows. Comments and
// keep-alives change nothing; lines that are no part of the protocol are the
// service's words, should the answer have no end.
type stream struct {
	row       *recording.Request
	answer    *strings.Builder // takes the text, where somebody wants it
	expect    int              // tokens, at most: room for their times
	finish    []string         // the finish reasons that are no error
	done      bool
	failed    bool
	after     int    // events after the end
	cut       bool   // the connection broke before the answer had ended
	left      bool   // the body did not end with the answer
	words     []byte // lines that are no part of the protocol
	secrets   secrets
	counts    int32  // of usage, the latest told
	any       pieces // chunks of any kind
	output    pieces // those of output
	prompt    int32
	usageTold bool // usage was told at all
	// reasoned is how many of counts were reasoning, whether anybody saw it or not.
	reasoned int32
	// lead are the times of the chunks before the first that a reader sees, and
	// began when the first of output came, seen or not.
	lead  []time.Duration
	began time.Duration
}

// event takes the next event of the stream.
func (s *stream) event(e event) {
	data := bytes.TrimSpace(e.data)
	switch {
	case string(data) == "[DONE]":
		s.done = true
	case s.over():
		s.after++
	case e.name == "error":
		s.fail(recording.ErrorInBand, "the stream sent an error: %s", errorText(s.secrets.hide(data)))
	case len(data) == 0:
	default:
		c, ok := scanChunk(data)
		if !ok {
			s.fail(recording.ErrorProtocol, "an event of the stream is not JSON, or not an object: %s", clip(string(s.secrets.hide(data))))
			return
		}
		s.chunk(c, e.at, data)
	}
}

// over reports whether the answer has ended.
func (s *stream) over() bool { return s.done || s.failed }

// stray takes a line that is no part of the protocol, such as an error that was
// written into the stream as it is.
func (s *stream) stray(line []byte) {
	if room := maxExcerpt - len(s.words); room > 0 {
		s.words = append(append(s.words, line[:min(room, len(line))]...), '\n')
	}
}

// saying is what the service said beside the protocol, after a text of ours.
func (s *stream) saying(ours words.Phrase, args ...any) words.Sentence {
	said := words.Say(ours, args...)
	if len(s.words) == 0 {
		return said
	}
	return words.Say("%s: %s", said, errorText(s.secrets.hide(s.words)))
}

func (s *stream) chunk(c chunk, at time.Duration, data []byte) {
	if set(c.err) || string(c.object) == `"error"` || string(c.kind) == `"error"` {
		s.fail(recording.ErrorInBand, "the stream sent an error: %s", errorText(s.secrets.hide(data)))
		return
	}
	if bytes.HasPrefix(c.kind, responseKind) {
		s.responseEvent(c, at, data)
		return
	}
	if string(c.kind) == `"message_stop"` {
		s.done = true
		return
	}
	s.usage(c.usage)
	if c.choices.output || c.choices.reasoning {
		s.token(at, c.choices.output, c.choices.seen, c.choices.size)
	}
	s.keep(c.choices.text)
	s.keep(c.choices.said.content)
	if c.choices.finish != nil {
		s.row.FinishReason = finish(c.choices.finish)
	}
}

var (
	responseKind  = []byte(`"response.`)
	reasoningKind = []byte(`"response.reasoning`)
	deltaKind     = []byte(`.delta"`)
)

// responseEvent takes an event of the responses API.
func (s *stream) responseEvent(c chunk, at time.Duration, data []byte) {
	switch string(c.kind) {
	case `"response.output_text.delta"`:
		if says(c.delta) {
			s.token(at, true, sightOf(c.delta), len(c.delta))
			s.keep(c.delta)
		}
	case `"response.output_item.added"`:
		if c.item.calls() {
			s.token(at, true, visible, 0)
		}
	case `"response.completed"`, `"response.incomplete"`, `"response.done"`:
		s.usage(c.response.usage)
		s.row.FinishReason = c.response.finish()
		s.done = true
	case `"response.failed"`, `"response.cancelled"`, `"response.error"`:
		s.usage(c.response.usage)
		s.fail(recording.ErrorInBand, "the stream sent an error: %s", s.responseError(c, data))
	default:
		if bytes.HasSuffix(c.kind, deltaKind) && says(c.delta) {
			s.token(at, !bytes.HasPrefix(c.kind, reasoningKind), sightOf(c.delta), len(c.delta))
		}
	}
}

func (s *stream) responseError(c chunk, data []byte) string {
	if set(c.response.err) {
		return errorText(s.secrets.hide(append(append([]byte(`{"error":`), c.response.err...), '}')))
	}
	return clip(string(s.secrets.hide(data)))
}

// finish is the reason for which an answer of the responses API ended, in the
// words of the older APIs.
func (r response) finish() string {
	if string(r.status) == `"completed"` {
		return "stop"
	}
	switch reason := text(r.incomplete); reason {
	case "max_output_tokens", "max_tokens":
		return "length"
	case "":
		return clipTo(text(r.status), maxName)
	default:
		return clipTo(reason, maxName)
	}
}

func (s *stream) usage(u usage) {
	if u.usageTold {
		s.usageTold, s.prompt, s.counts = true, u.prompt, max(s.counts, u.output)
		s.row.CachedTold, s.row.CachedTokens = u.cacheTold, u.cached
		s.reasoned = max(s.reasoned, u.reasoned)
	}
}

// keep adds text to the answer.
func (s *stream) keep(value []byte) {
	switch {
	case s.answer == nil:
	case len(value) > 0 && value[0] == '[':
		s.answer.WriteString(textOfParts(value))
	default:
		s.answer.WriteString(text(value))
	}
}

// finish is a finish reason: a string, or what some send in its place.
func finish(value []byte) string {
	switch string(value) { // no garbage for the usual ones
	case `"stop"`:
		return "stop"
	case `"length"`:
		return "length"
	}
	if value[0] == '"' {
		return clipTo(text(value), maxName)
	}
	return clipTo(string(value), maxName)
}

// pieces are how an answer is cut into chunks. The first piece ends with the first
// chunk that a reader sees.
type pieces struct {
	chunks      int
	size        int   // bytes of text in all
	first, head piece // to the first chunk that a reader sees; the very first
	seen        bool  // there was one that a reader sees
}

// piece is a beginning of an answer.
type piece struct {
	chunks int
	size   int
	counts int32 // tokens so far, of a server that tells usage in every chunk
}

func (p *pieces) add(size int, counts int32, seen bool) {
	if !p.seen {
		p.first = piece{p.first.chunks + 1, p.first.size + size, counts}
		p.seen = seen
	}
	if p.chunks == 0 {
		p.head = p.first
	}
	p.chunks++
	p.size += size
}

// firstTokens is how many of so many tokens were in the first piece: as the
// server says, one for each chunk where there is a chunk for each token, and
// otherwise by the piece's share of the text, rounded up. It is 0, not known, where
// the pieces have no text that could be weighed. Where nobody sees any of an
// answer, its first chunk is the first piece.
func (p pieces) firstTokens(tokens int32) int32 {
	first := p.first
	if !p.seen {
		first = p.head
	}
	chunks := int32(first.chunks)
	switch {
	case p.chunks == 0:
		return 0
	case first.counts > 0:
		return first.counts
	case tokens <= int32(p.chunks):
		return min(chunks, max(tokens, 1))
	case first.size == 0 || p.size == 0:
		return 0
	}
	share := int32(math.Ceil(float64(tokens) * float64(first.size) / float64(p.size)))
	return min(max(share, chunks), tokens-int32(p.chunks)+chunks)
}

// token notes a chunk of content, with so many bytes of text. What a reader does
// not see is no first token, and characters without width are no sign of life
// later either.
func (s *stream) token(at time.Duration, output bool, seen sight, size int) {
	r := s.row
	s.any.add(size, s.counts, seen == visible)
	if output {
		s.output.add(size, 0, seen == visible)
		if s.began == 0 {
			s.began = at
		}
	}
	switch {
	case seen == visible:
	case r.FirstToken == 0:
		s.lead = append(s.lead, at)
		return
	case seen == unseen:
		return
	}
	if r.FirstToken == 0 {
		r.FirstToken = at
		r.Chunks = make([]time.Duration, 0, min(s.expect, mostExpected))
	}
	if seen == visible {
		r.LastVisible = at
		if output && r.FirstOutput == 0 {
			r.FirstOutput = at
		}
	}
	r.LastToken = at
	r.Chunks = append(r.Chunks, at)
}

// settle takes an answer of which a reader sees nothing, or no output, as it came:
// a model may say nothing but blanks, and a short answer be one of them.
func (s *stream) settle() {
	r := s.row
	if n := len(s.lead); r.FirstToken == 0 && n > 0 {
		r.Chunks, r.FirstToken, r.LastToken = s.lead, s.lead[0], s.lead[n-1]
	}
	if r.FirstOutput == 0 {
		r.FirstOutput = s.began
	}
}

func (s *stream) fail(class string, why words.Phrase, args ...any) {
	s.failed = true
	fail(s.row, class, why, args...)
}

// close judges the answer when its body has ended without an error.
func (s *stream) close() {
	s.count()
	r := s.row
	switch {
	case s.failed:
	case !s.done && isError(s.words):
		s.fail(recording.ErrorInBand, "the stream sent an error: %s", errorText(s.secrets.hide(s.words)))
	case r.FinishReason == "" && len(r.Chunks) == 0 && !s.done:
		s.fail(recording.ErrorTruncated, "%s", s.saying("the stream ended before it sent anything"))
	case r.FinishReason == "":
		s.fail(recording.ErrorTruncated, "%s", s.saying("the stream ended early: %d chunks and no finish reason", len(r.Chunks)))
	case !s.done:
		s.fail(recording.ErrorTruncated, "%s", s.saying("the stream ended without [DONE]"))
	case s.brokeOff():
	case len(r.Chunks) == 0 && r.OutputTokens > 0:
		s.fail(recording.ErrorEmpty, "the answer has no text, although its usage reports %d tokens", r.OutputTokens)
	case len(r.Chunks) == 0:
		s.fail(recording.ErrorEmpty, "the answer has no tokens")
	}
}

// brokeOff fails an answer whose finish reason is not one with which it may end.
func (s *stream) brokeOff() bool {
	r := s.row
	if recording.MayEnd(r.FinishReason, s.finish) {
		return false
	}
	expected := s.finish
	if len(expected) == 0 {
		expected = recording.Ends
	}
	s.fail(recording.ErrorFinish, "the answer ended with the finish reason %q after %d chunks; expected %s", r.FinishReason, len(r.Chunks), strings.Join(expected, ", "))
	return true
}

// count takes the number of tokens from the usage, or else from the chunks.
func (s *stream) count() {
	r := s.row
	s.settle()
	r.PromptTokens = s.prompt
	if s.usageTold && s.counts > 0 {
		r.OutputTokens, r.TokensFrom = s.counts, "usage"
		r.ReasoningTokens = min(s.reasoned, s.counts)
	} else if len(r.Chunks) > 0 {
		r.OutputTokens, r.TokensFrom = int32(s.any.chunks), "chunks"
		r.ReasoningTokens = int32(s.any.chunks - s.output.chunks)
	}
	r.FirstChunkTokens = s.any.firstTokens(r.OutputTokens)
	if r.ReasoningTokens > 0 {
		r.FirstChunkTokens = s.output.firstTokens(r.VisibleTokens())
	}
}

// refusal is the error of an answer outside 2xx, in the service's own words. A
// client that may come back later is told apart from a service that is broken.
func refusal(row *recording.Request, resp *http.Response, body []byte) (kind string, why words.Sentence) {
	why = words.Say("%s: %s", resp.Status, errorText(body))
	if len(bytes.TrimSpace(body)) == 0 {
		why = words.Verbatim(resp.Status)
	}
	if to := resp.Header.Get("Location"); to != "" {
		why = words.Say("%s (it redirects to %s)", why, clip(to))
	}
	if after := resp.Header.Get("Retry-After"); after != "" {
		why = words.Say("%s (Retry-After: %s)", why, clip(after))
		if s, err := strconv.ParseUint(after, 10, 31); err == nil {
			row.RetryAfter = time.Duration(s) * time.Second
		} else if at, err := http.ParseTime(after); err == nil {
			row.RetryAfter = max(0, time.Until(at))
		}
	}
	return refusedWith(int32(resp.StatusCode)), why
}

func refusedWith(status int32) string {
	switch status {
	case http.StatusTooManyRequests:
		return recording.ErrorLimited
	case http.StatusServiceUnavailable:
		return recording.ErrorShed
	}
	return recording.ErrorStatus
}
