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

// mostExpected bounds the room allocated before the first chunk.
const mostExpected = 1024

// stream reads the events of one answer. It is a state machine:
//
//	opened ──▶ answering ──▶ finished ──▶ done
//	   │           │            │
//	   └───────────┴────────────┴──▶ failed
//
// With the protocol of chat and completions it enters a state when:
//
//	opened      the headers came; role-only, empty and usage chunks do not count
//	answering   a visible fragment came: of text, reasoning, a refusal or a tool
//	            call; this is the first token. Blanks and characters without width
//	            before it do not count, unless nothing else comes
//	finished    a choice has its finish reason; more text may still follow
//	done        [DONE] came
//	failed      an in-band error came, or data that is not the protocol
//
// With that of responses, whose events have types, it does so when:
//
//	answering   a non-empty delta of any kind came, or an item with the name of a
//	            tool to call
//	done        response.completed or response.incomplete came: finish reason,
//	            usage and end are one event, and [DONE] need not follow
//	failed      response.failed, response.cancelled or error came
//
// An answer ends in state done or failed, however long the body goes on: later data is
// counted, and is no part of the answer. It succeeds in state done with at least one
// token, and with a finish reason that the workload allows. Comments and keep-alives
// change nothing. Lines outside the protocol are quoted in the error if the answer has
// no end.
type stream struct {
	row      *recording.Request
	answer   *strings.Builder // collects the text, if it is needed
	expect   int              // the limit of tokens, to allocate room for their times
	finish   []string         // the accepted finish reasons
	done     bool
	failed   bool
	after    int    // events after the end
	cut      bool   // the connection broke before the answer had ended
	left     bool   // the body stayed open after the answer
	words    []byte // lines outside the protocol
	secrets  secrets
	counts   int32  // tokens of the latest usage
	any      pieces // chunks of any kind
	output   pieces // chunks of output
	prompt   int32
	hasUsage bool // whether there was a usage
	// reasoned is how many of counts were reasoning, visible or not.
	reasoned int32
	// lead are the times of the chunks before the first visible one, and began is the
	// time of the first chunk of output, visible or not.
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

// stray takes a line outside the protocol, such as a bare error text in the stream.
func (s *stream) stray(line []byte) {
	if room := maxExcerpt - len(s.words); room > 0 {
		s.words = append(append(s.words, line[:min(room, len(line))]...), '\n')
	}
}

// saying appends the service's text outside the protocol to a text of ours.
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

// finish is the finish reason of an answer of the responses API, in the words of the
// older APIs.
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
	if u.hasUsage {
		s.hasUsage, s.prompt, s.counts = true, u.prompt, max(s.counts, u.output)
		s.row.CachedReported, s.row.CachedTokens = u.hasCached, u.cached
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

// finish decodes a finish reason: a string, or another value that some servers send.
func finish(value []byte) string {
	switch string(value) { // no allocation for the usual ones
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

// pieces describes how an answer is split into chunks. The first piece ends with the
// first visible chunk.
type pieces struct {
	chunks      int
	size        int   // bytes of text in all
	first, head piece // first: up to the first visible chunk; head: the very first chunk
	seen        bool  // whether there was a visible chunk
}

// piece is a beginning of an answer.
type piece struct {
	chunks int
	size   int
	counts int32 // tokens so far, if the server sends usage in every chunk
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

// firstTokens is how many of the tokens were in the first piece: the server's own
// count; one per chunk if there are as many chunks as tokens; or otherwise the piece's
// share of the text, rounded up. It is 0, not known, if the pieces have no text. If
// nothing of the answer is visible, its first chunk is the first piece.
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

// token takes a chunk of content with so many bytes of text. An invisible chunk is no
// first token. Characters without width do not count as a token later either.
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

// settle completes the times of an answer without visible text, or without output: a
// model may answer only with blanks, and a short answer may be one.
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

// close sets the result of the answer when its body has ended without an error.
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

// brokeOff fails an answer with a finish reason that is not accepted.
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
	if s.hasUsage && s.counts > 0 {
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

// refusal is the error of an answer with a status other than 2xx, in the service's own
// words. A limited or shed request, which may be repeated later, has another class than
// one that failed.
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
