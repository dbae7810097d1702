package client

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/launchgate/launchgate/internal/recording"
)

func TestSight(t *testing.T) {
	for _, tt := range []struct {
		text string
		want sight
	}{
		{"", nothing}, {"a", visible}, {" a", visible}, {"é", visible}, {"你", visible}, {"👩", visible}, {"\ufffd", visible}, {"\u0301", visible},
		{" ", blank}, {"\n\n", blank}, {"\t\r", blank}, {"\u00a0", blank}, {"\u3000", blank}, {"\u2028", blank}, {" \u200b", blank},
		{"\u200b", unseen}, {"\ufeff", unseen}, {"\u200d", unseen}, {"\u2060\u00ad", unseen}, {"\x00", unseen}, {"\x1b", unseen}, {"\u202e", unseen},
		{"\ufe0f", unseen}, {"\u2800", unseen}, {"\u3164", unseen}, {"\U000e0041", unseen}, {"\u200b.", visible}, {`\`, visible}, {`"`, visible}, {"/", visible},
	} {
		if got := sightOfText(tt.text); got != tt.want {
			t.Errorf("%q is %d, want %d", tt.text, got, tt.want)
		}
		asIs, err := json.Marshal(tt.text)
		if err != nil {
			t.Fatal(err)
		}
		escaped := `"`
		for _, r := range tt.text {
			if r > 0xffff {
				escaped += string(r)
			} else {
				escaped += fmt.Sprintf(`\u%04x`, r)
			}
		}
		for _, value := range []string{string(asIs), escaped + `"`} {
			if got := sightOf([]byte(value)); got != tt.want {
				t.Errorf("the JSON %s is %d, want %d", value, got, tt.want)
			}
		}
	}
	for value, want := range map[string]sight{"": nothing, "null": nothing, "[]": nothing, `"\/"`: visible, "5": visible, `"\b\f"`: unseen} {
		if got := sightOf([]byte(value)); got != want {
			t.Errorf("the JSON %s is %d, want %d", value, got, want)
		}
	}
}

// The first token is visible, and invisible characters do not shorten a gap between
// tokens.
func TestTheFirstTokenIsSeen(t *testing.T) {
	delta := func(texts ...string) (events []string) {
		for _, s := range texts {
			content, _ := json.Marshal(s)
			events = append(events, `{"choices":[{"delta":{"content":`+string(content)+`}}]}`)
		}
		return events
	}
	type seen struct {
		first, output, last, visible time.Duration
		chunks                       int
		tokens, firstTokens          int32
	}
	for _, tt := range []struct {
		says   string
		events []string // one every millisecond
		tokens int      // tokens of the usage; 0: no usage
		want   seen
	}{
		{"each chunk is text", delta("a", " b", " c"), 3, seen{1, 1, 3, 3, 3, 3, 1}},
		{"a zero-width space comes first", delta("\u200b", "a", " b"), 3, seen{2, 2, 3, 3, 2, 3, 2}},
		{"a byte order mark and a line break come first", delta("\ufeff", "\n", "a", " b"), 4, seen{3, 3, 4, 4, 2, 4, 3}},
		{"without usage the chunks are counted, seen or not", delta("\n", "a", " b"), 0, seen{2, 2, 3, 3, 2, 3, 2}},
		{"blanks in the middle are content", delta("a", " ", "b"), 3, seen{1, 1, 3, 3, 3, 3, 1}},
		{"characters without width are none", delta("a", "\u200b", "\u200b", "b"), 4, seen{1, 1, 4, 4, 2, 4, 1}},
		{"and the last blank is nothing that a reader sees", delta("a", "b", "\n", "\u200b"), 4, seen{1, 1, 3, 2, 3, 4, 1}},
		{"an answer of blanks is one", delta(" ", "\n"), 2, seen{1, 1, 2, 0, 2, 2, 1}},
		{"and so is one that nobody sees", delta("\u200d"), 1, seen{1, 1, 1, 0, 1, 1, 1}},
		{"a tool call is seen", []string{`{"choices":[{"delta":{"tool_calls":[{"function":{"name":"f"}}]}}]}`}, 1, seen{1, 1, 1, 1, 1, 1, 1}},
		{"blank output after reasoning is no first output", append([]string{`{"choices":[{"delta":{"reasoning_content":"hm"}}]}`}, delta("\n", "a")...), 3, seen{1, 3, 3, 3, 3, 3, 1}},
		{"parts are seen", []string{`{"choices":[{"delta":{"content":[{"type":"text","text":"\u200b"}]}}]}`, `{"choices":[{"delta":{"content":[{"type":"text","text":"a"}]}}]}`}, 2, seen{2, 2, 2, 2, 1, 2, 2}},
		{"responses too", []string{`{"type":"response.output_text.delta","delta":"\u200b"}`, `{"type":"response.output_text.delta","delta":"a"}`}, 2, seen{2, 2, 2, 2, 1, 2, 2}},
	} {
		t.Run(tt.says, func(t *testing.T) {
			row := recording.Request{Streamed: true, Due: 1, Sent: 1}
			s := &stream{row: &row, expect: 8}
			for i, e := range tt.events {
				s.event(event{data: []byte(e), at: time.Duration(i+1) * time.Millisecond})
			}
			if tt.tokens > 0 {
				s.event(event{data: fmt.Appendf(nil, `{"choices":[],"usage":{"completion_tokens":%d}}`, tt.tokens)})
			}
			s.event(event{data: []byte(`{"choices":[{"delta":{},"finish_reason":"stop"}]}`)})
			s.event(event{data: []byte("[DONE]")})
			row.End = time.Second
			s.close()
			got := seen{row.FirstToken, row.FirstOutput, row.LastToken, row.LastVisible, len(row.Chunks), row.OutputTokens, row.FirstChunkTokens}
			for _, at := range []*time.Duration{&tt.want.first, &tt.want.output, &tt.want.last, &tt.want.visible} {
				*at *= time.Millisecond
			}
			if got != tt.want || !row.OK() || row.FirstToken != row.Chunks[0] {
				t.Errorf("%+v (%s), want %+v", got, row.ErrorText, tt.want)
			}
		})
	}
}
