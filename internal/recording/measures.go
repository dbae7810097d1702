package recording

import (
	"encoding/json"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/launchgate/launchgate/internal/words"
)

// Success, TTFT, TPOT and the other measures of a request are defined here only: the
// judge, the report, the stop conditions and the client all use these functions.
// METRICS.md defines them in words.

// OK reports whether the request succeeded.
func (r *Request) OK() bool { return r.Failure() == "" }

// Failure is the class of the failure, one of the Error constants; empty on success.
// Usually the client has recorded it. A row without a recorded failure has failed
// too if it has no end or, for a streamed answer, no token.
func (r *Request) Failure() string {
	switch {
	case r.Error != "":
		return r.Error
	case r.Sent <= 0:
		return ErrorNotSent
	case r.End < r.Sent:
		return ErrorTruncated
	case r.Streamed && r.FirstToken <= 0:
		return ErrorEmpty
	}
	return ""
}

// Fail says why the request did not succeed.
func (r *Request) Fail(class string, why words.Sentence) {
	said := why.Written()
	r.Error, r.ErrorText, r.ErrorSaid = class, said.Text, ""
	if said.Phrase == "" {
		return
	}
	said.Text = "" // it has a column of its own
	if b, err := json.Marshal(said); err == nil {
		r.ErrorSaid = string(b)
	}
}

// Why is the sentence that Fail was given.
func (r *Request) Why() words.Sentence {
	said := words.Written{}
	if r.ErrorSaid != "" && json.Unmarshal([]byte(r.ErrorSaid), &said) != nil {
		said = words.Written{}
	}
	said.Text = r.ErrorText
	return said.Sentence()
}

// FailureText words the failure; it is empty for a success.
func (r *Request) FailureText() words.Sentence {
	switch {
	case r.ErrorText != "" || r.OK() || r.Error != "":
		return r.Why()
	case r.Failure() == ErrorEmpty:
		return words.Say("the answer has no text, although its usage reports tokens")
	case r.Failure() == ErrorTruncated:
		return words.Say("the recording has no end time of the answer")
	}
	return words.Say("the recording has no send time of the request")
}

// RefusedInOrder reports whether a failed request was refused with 429 or 503 and a
// Retry-After.
func (r *Request) RefusedInOrder() bool {
	return (r.Error == ErrorLimited || r.Error == ErrorShed) && r.RetryAfter > 0
}

// TTFT is the time to first token: from when the request was due to the first visible
// fragment. Like every latency it exists only for successful requests. An answer that
// was not streamed has none.
func (r *Request) TTFT() (time.Duration, bool) {
	return r.FirstToken - r.Due, r.FirstToken > 0 && r.OK()
}

// TTFO is the time to first output: TTFT without reasoning.
func (r *Request) TTFO() (time.Duration, bool) {
	return r.FirstOutput - r.Due, r.FirstOutput > 0 && r.OK()
}

// ServiceTTFT is TTFT from the time at which the request was sent.
func (r *Request) ServiceTTFT() (time.Duration, bool) {
	return r.FirstToken - r.Sent, r.FirstToken > 0 && r.OK()
}

// EndDelay is the time from the last visible fragment to the end of the answer: how
// long the client waits although it has all of the text. An answer that was not
// streamed has none.
func (r *Request) EndDelay() (time.Duration, bool) {
	from := r.LastVisible
	if from == 0 {
		from = r.LastToken
	}
	return r.End - from, r.FirstToken > 0 && from > 0 && r.OK()
}

// MaxICL is the longest gap between two chunks of the answer; an answer of one chunk
// has none.
func (r *Request) MaxICL() (time.Duration, bool) {
	longest := r.MaxGap
	r.EachGap(func(gap, _ time.Duration) { longest = max(longest, gap) })
	return longest, longest > 0 && r.OK()
}

// leastGrowth is how many chunks an answer needs so that its thirds can be compared.
const leastGrowth = 13

// ICLGrowth is how much longer the gaps between chunks are in the last third of the
// answer than in the first: the difference of their medians, 0 at the least. An answer
// with few chunks, or without chunk times, has none.
func (r *Request) ICLGrowth() (time.Duration, bool) {
	if len(r.Chunks) < leastGrowth || !r.OK() {
		return 0, false
	}
	gaps := make([]time.Duration, 0, len(r.Chunks))
	r.EachGap(func(gap, _ time.Duration) { gaps = append(gaps, gap) })
	third := len(gaps) / 3
	first, last := gaps[:third], gaps[len(gaps)-third:]
	slices.Sort(first)
	slices.Sort(last)
	return max(last[third/2]-first[third/2], 0), true
}

// Latency is from when the request was due to the end of its answer.
func (r *Request) Latency() (time.Duration, bool) { return r.End - r.Due, r.OK() }

// ServiceLatency is Latency from the time at which the request was sent.
func (r *Request) ServiceLatency() (time.Duration, bool) { return r.End - r.Sent, r.OK() }

// Waited is the time to the first part of the answer: its first token or, for an
// answer that is not streamed, its end.
func (r *Request) Waited() (time.Duration, bool) {
	if wait, ok := r.TTFT(); ok {
		return wait, true
	}
	return r.Latency()
}

// Answered reports whether a probe was answered in full and in time: within its
// timeout from when it was due.
func (r *Request) Answered(timeout time.Duration) bool { return r.OK() && r.End-r.Due <= timeout }

// UnderWay reports whether a request was due before a moment and had not ended by then.
// A request without an end is under way from its due time on.
func (r *Request) UnderWay(at time.Duration) bool { return r.Due <= at && (r.End == 0 || r.End >= at) }

// VisibleTokens are the tokens of the answer without hidden reasoning.
func (r *Request) VisibleTokens() int32 { return max(0, r.OutputTokens-max(0, r.ReasoningTokens)) }

// TPOT is the time per output token after the first chunk with output, whose tokens
// count towards the time before it. Reasoning is not output if the service counts its
// tokens. If the service streams reasoning without a count, all tokens count, from the
// first of any kind.
//
// An answer of one token, or of one chunk, has no TPOT. Neither has an answer whose
// first chunk has an unknown number of tokens: an unknown number is never guessed in
// the service's favour.
func (r *Request) TPOT() (time.Duration, bool) {
	from, tokens := r.FirstToken, r.OutputTokens
	if r.ReasoningTokens > 0 {
		from, tokens = r.FirstOutput, r.VisibleTokens()
	}
	rest := tokens - r.FirstChunkTokens
	if from <= 0 || r.LastToken <= from || r.FirstChunkTokens < 1 || rest < 1 || !r.OK() {
		return 0, false
	}
	return time.Duration(math.Round(float64(r.LastToken-from) / float64(rest))), true
}

// EachGap calls take for every gap between two chunks of a successful request whose
// times are kept, with the end of the gap.
func (r *Request) EachGap(take func(gap, at time.Duration)) {
	if !r.OK() {
		return
	}
	for i := 1; i < len(r.Chunks); i++ {
		take(r.Chunks[i]-r.Chunks[i-1], r.Chunks[i])
	}
}

// Ends are the finish reasons of a complete answer, in the words of the chat API.
var Ends = []string{"stop", "length", "tool_calls", "function_call"}

// endWords are the words of other APIs and servers for these.
var endWords = map[string]string{
	"eos": "stop", "eos_token": "stop", "stop_sequence": "stop", "stop_token": "stop", "end_turn": "stop", "complete": "stop", "completed": "stop",
	"max_tokens": "length", "max_output_tokens": "length", "max_new_tokens": "length", "model_length": "length",
	"tool_use": "tool_calls",
}

// EndOf translates a finish reason to the words of Ends. It is empty if the service
// broke the answer off (abort, error, content_filter), or the word is unknown.
func EndOf(reason string) string {
	word := strings.ToLower(strings.TrimSpace(reason))
	if slices.Contains(Ends, word) {
		return word
	}
	return endWords[word]
}

// OrEnd are the finish reasons allowed for requests beside a workload's load: a short
// question may end at its length, whatever the workload allows.
func OrEnd(allowed []string) []string {
	if len(allowed) == 0 {
		return nil
	}
	return slices.Concat(Ends, allowed)
}

// MayEnd reports whether an answer may end with a finish reason, given those that the
// workload allows (all of Ends if it names none). A workload may also name a service's
// own word.
func MayEnd(reason string, allowed []string) bool {
	if len(allowed) == 0 {
		return EndOf(reason) != ""
	}
	return slices.Contains(allowed, reason) || EndOf(reason) != "" && slices.Contains(allowed, EndOf(reason))
}
