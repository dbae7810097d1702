package recording

import (
	"testing"
	"time"
)

const ms = time.Millisecond

// whole is an answer of 11 tokens in as many chunks, 10 ms apart.
func whole(change func(*Request)) *Request {
	r := &Request{
		Streamed: true, Due: 1000 * ms, Sent: 1001 * ms, FirstByte: 1002 * ms, FirstToken: 1100 * ms, FirstOutput: 1100 * ms,
		LastToken: 1200 * ms, End: 1201 * ms, OutputTokens: 11, FirstChunkTokens: 1, TokensFrom: "usage", FinishReason: "stop",
	}
	change(r)
	return r
}

func TestWhatASuccessIs(t *testing.T) {
	for _, tt := range []struct {
		name    string
		change  func(*Request)
		failure string
		hasText bool // whether there is a failure text
	}{
		{"a whole answer", func(*Request) {}, "", false},
		{"what the client says", func(r *Request) { r.Error, r.ErrorText = ErrorShed, "503" }, ErrorShed, true},
		{"billed, and without text", func(r *Request) { r.FirstToken, r.FirstOutput, r.LastToken = 0, 0, 0 }, ErrorEmpty, true},
		{"whole, and not streamed", func(r *Request) { r.Streamed, r.FirstToken, r.FirstOutput = false, 0, 0 }, "", false},
		{"without an end", func(r *Request) { r.End = 0 }, ErrorTruncated, true},
		{"never sent", func(r *Request) { r.Sent, r.End = 0, 0 }, ErrorNotSent, true},
	} {
		r := whole(tt.change)
		if got := r.Failure(); got != tt.failure || r.OK() != (tt.failure == "") || (!r.FailureText().IsZero()) != tt.hasText {
			t.Errorf("%s: %q (%q), want %q", tt.name, got, r.FailureText(), tt.failure)
		}
		if _, ok := r.TTFT(); ok && !r.OK() {
			t.Errorf("%s: it failed and has a TTFT", tt.name)
		}
	}
}

func TestWhatATPOTIs(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*Request)
		want   time.Duration // 0: none
	}{
		{"a chunk for each token", func(*Request) {}, 10 * ms},
		{"five tokens in the first chunk", func(r *Request) { r.FirstChunkTokens = 6 }, 20 * ms},
		{"nobody knows how many in the first chunk", func(r *Request) { r.FirstChunkTokens = 0 }, 0},
		{"one chunk", func(r *Request) { r.LastToken = r.FirstToken }, 0},
		{"one token", func(r *Request) { r.OutputTokens = 1 }, 0},
		{"hidden reasoning", func(r *Request) { r.OutputTokens, r.ReasoningTokens = 511, 500 }, 10 * ms},
		{"reasoning that is streamed and counted", func(r *Request) {
			r.FirstToken, r.OutputTokens, r.ReasoningTokens = 1010*ms, 16, 5
		}, 10 * ms},
		{"reasoning that is streamed and not counted", func(r *Request) { r.FirstOutput = 1150 * ms }, 10 * ms},
		{"nothing but reasoning", func(r *Request) { r.ReasoningTokens, r.FirstOutput = 11, 0 }, 0},
		{"a failure", func(r *Request) { r.Error = ErrorTruncated }, 0},
	} {
		if got, ok := whole(tt.change).TPOT(); got != tt.want || ok != (tt.want > 0) {
			t.Errorf("%s: %s, %v; want %s", tt.name, got, ok, tt.want)
		}
	}
	if n := whole(func(r *Request) { r.ReasoningTokens = 4 }).VisibleTokens(); n != 7 {
		t.Errorf("%d visible tokens of 11 with 4 of reasoning", n)
	}
}

func TestMayEnd(t *testing.T) {
	for _, tt := range []struct {
		reason  string
		allowed []string
		may     bool
	}{
		{"stop", nil, true}, {"length", nil, true}, {"tool_calls", nil, true}, {"function_call", nil, true},
		{"eos_token", nil, true}, {"end_turn", nil, true}, {"MAX_TOKENS", nil, true}, {"STOP", nil, true}, {"max_output_tokens", nil, true},
		{"abort", nil, false}, {"error", nil, false}, {"content_filter", nil, false}, {"cancelled", nil, false}, {"", nil, false},
		{"insufficient_system_resource", nil, false}, {"xyz", nil, false},
		{"length", []string{"stop"}, false}, {"stop", []string{"stop"}, true}, {"eos_token", []string{"stop"}, true},
		{"content_filter", []string{"stop", "content_filter"}, true}, {"max_tokens", []string{"length"}, true}, {"tool_calls", []string{"stop", "length"}, false},
	} {
		if got := MayEnd(tt.reason, tt.allowed); got != tt.may {
			t.Errorf("%q where %v are allowed: %v", tt.reason, tt.allowed, got)
		}
	}
}
