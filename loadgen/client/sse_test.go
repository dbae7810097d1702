package client

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// parse feeds text in the given pieces and returns the events, as name=data.
func parse(t testing.TB, pieces ...string) []string {
	t.Helper()
	var got []string
	p := &eventParser{emit: func(e event) { got = append(got, e.name+"="+string(e.data)) }}
	for i, s := range pieces {
		if err := p.feed([]byte(s), time.Duration(i+1)); err != nil {
			t.Fatal(err)
		}
	}
	p.end(time.Duration(len(pieces)))
	return got
}

func TestEvents(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		want       []string
	}{
		{"one", "data: a\n\n", []string{"=a"}},
		{"two", "data: a\n\ndata: b\n\n", []string{"=a", "=b"}},
		{"CRLF", "data: a\r\n\r\ndata: b\r\n\r\n", []string{"=a", "=b"}},
		{"CR", "data: a\r\rdata: b\r\r", []string{"=a", "=b"}},
		{"no space after the colon", "data:a\n\n", []string{"=a"}},
		{"only the first space goes", "data:  a\n\n", []string{"= a"}},
		{"lines are joined", "data: a\ndata: b\n\n", []string{"=a\nb"}},
		{"comments and keep-alives", ": ping\n\n:\n\ndata: a\n: pong\n\n", []string{"=a"}},
		{"a name", "event: error\ndata: a\n\ndata: b\n\n", []string{"error=a", "=b"}},
		{"other fields", "id: 7\nretry: 10\nfoo\ndata: a\n\n", []string{"=a"}},
		{"an empty event", "data\n\n", []string{"="}},
		{"a name without data", "event: ping\n\ndata: a\n\n", []string{"=a"}},
		{"a byte order mark", "\xef\xbb\xbfdata: a\n\n", []string{"=a"}},
		{"no blank line at the end", "data: a\n\ndata: [DONE]\n", []string{"=a", "=[DONE]"}},
		{"no line end at the end", "data: a\n\ndata: [DONE]", []string{"=a", "=[DONE]"}},
		{"many blank lines", "\n\n\ndata: a\n\n\n\n", []string{"=a"}},
		{"nothing", "", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := parse(t, tt.text); !slices.Equal(got, tt.want) {
				t.Errorf("%q, want %q", got, tt.want)
			}
			for at := range tt.text { // split anywhere
				if got := parse(t, tt.text[:at], tt.text[at:]); !slices.Equal(got, tt.want) {
					t.Errorf("split at %d: %q, want %q", at, got, tt.want)
				}
			}
			if got := parse(t, strings.Split(tt.text, "")...); tt.text != "" && !slices.Equal(got, tt.want) {
				t.Errorf("byte by byte: %q, want %q", got, tt.want)
			}
		})
	}
}

// The time of an event is that of its last byte, and not of the later read that
// completes it.
func TestEventsAreStampedByTheirLastByte(t *testing.T) {
	var at []time.Duration
	p := &eventParser{emit: func(e event) { at = append(at, e.at) }}
	for i, s := range []string{"data: a\n", "\nda", "ta: b\n\n", "data: c\n\ndata: d\n\n"} {
		if err := p.feed([]byte(s), time.Duration(i)); err != nil {
			t.Fatal(err)
		}
	}
	if want := []time.Duration{1, 2, 3, 3}; !slices.Equal(at, want) {
		t.Errorf("%v, want %v", at, want)
	}
}

func TestEventWithoutEnd(t *testing.T) {
	p := &eventParser{emit: func(event) {}}
	chunk := make([]byte, 1<<20)
	for range 20 {
		if err := p.feed(chunk, 0); err != nil {
			return
		}
	}
	t.Error("20 MiB without a line's end were taken")
}

// The result does not depend on where the stream is split into reads.
func FuzzSplit(f *testing.F) {
	f.Add("data: a\r\n\r\n: x\ndata: b\n\n", 3, 9)
	f.Add("event: e\rdata: a\r\rdata", 1, 8)
	f.Fuzz(func(t *testing.T, text string, a, b int) {
		a, b = min(max(a, 0), len(text)), min(max(b, 0), len(text))
		if a > b {
			a, b = b, a
		}
		whole, cut := parse(t, text), parse(t, text[:a], text[a:b], text[b:])
		if !slices.Equal(whole, cut) {
			t.Fatalf("whole %q, cut %q", whole, cut)
		}
	})
}

// Content chunks as vLLM, OpenAI and the responses API send them.
const (
	vllmChunk     = `data: {"id":"chatcmpl-0b1f6c2a4d5e4f708192a3b4c5d6e7f8","object":"chat.completion.chunk","created":1764000000,"model":"meta-llama/Llama-3.1-8B-Instruct","choices":[{"index":0,"delta":{"content":" word"},"logprobs":null,"finish_reason":null,"token_ids":null}]}`
	openAIChunk   = `data: {"id":"chatcmpl-CLn0aXvq8J9f3k2mNo4pQrStUvWxY","object":"chat.completion.chunk","created":1764000000,"model":"gpt-4o-mini-2024-07-18","service_tier":"default","system_fingerprint":"fp_560af6e559","choices":[{"index":0,"delta":{"content":" word"},"logprobs":null,"finish_reason":null}],"usage":null,"obfuscation":"k3JvQ2"}`
	responseChunk = "event: response.output_text.delta\n" + `data: {"type":"response.output_text.delta","sequence_number":7,"item_id":"msg_68a1b2c3d4e5f6","output_index":0,"content_index":0,"delta":" word","logprobs":[],"obfuscation":"k3JvQ2"}`
)

// BenchmarkEvents measures how fast one core parses events in memory.
func BenchmarkEvents(b *testing.B) {
	for name, line := range map[string]string{"vllm": vllmChunk, "openai": openAIChunk, "responses": responseChunk} {
		text := []byte(strings.Repeat(line+"\n\n", 1000))
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			s := newTestStream()
			s.expect = 1024
			p := &eventParser{emit: s.event}
			for b.Loop() {
				for piece := range slices.Chunk(text, 4<<10) {
					if err := p.feed(piece, 1); err != nil {
						b.Fatal(err)
					}
				}
				if len(s.row.Chunks) != 1000 || s.failed {
					b.Fatalf("%d chunks, %s", len(s.row.Chunks), s.row.ErrorText)
				}
				s.row.Chunks = s.row.Chunks[:0]
			}
			b.ReportMetric(float64(b.N)*1000/b.Elapsed().Seconds(), "events/s")
		})
	}
}
