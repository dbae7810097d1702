package gateway

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"
)

// What a request asks for is read in one way only, or it is refused.
func TestDecode(t *testing.T) {
	for body, want := range map[string]struct {
		refused string // empty: it is not
		stream  bool
		work    int
	}{
		`{}`:                           {work: 1},
		`{"stream":true}`:              {stream: true, work: 1},
		` {"stream" : true } `:         {stream: true, work: 1},
		`{"\u0073tream":true}`:         {stream: true, work: 1},
		`{"n":16}`:                     {work: 16},
		`{"n":2,"best_of":5}`:          {work: 5},
		`{"n":null,"max_tokens":7}`:    {work: 1},
		`{"n":0}`:                      {work: 1},
		`{"n":-1}`:                     {work: 1},
		`{"prompt":["a","b","c"]}`:     {work: 3},
		`{"prompt":["a,b","c\"]"]}`:    {work: 2},
		`{"prompt":[1,2,3]}`:           {work: 1},
		`{"prompt":[[1,2],[3]],"n":2}`: {work: 4},
		`{"metadata":{"Stream":true}}`: {work: 1},
		`{"messages":[{"content":"{\"stream\":true}"}]}`:                  {work: 1},
		`{"stream_options":null,"stream":false}`:                          {work: 1},
		`{"Stream":true}`:                                                 {refused: `"Stream"`},
		`{"ſtream":true}`:                                                 {refused: `name`},
		`{"\u017ftream":true}`:                                            {refused: `name`},
		`{"STREAM_OPTIONS":{}}`:                                           {refused: `"STREAM_OPTIONS"`},
		`{"stream":true,"stream":false}`:                                  {refused: `"stream" twice`},
		`{"stream":true,"\u0073tream":false}`:                             {refused: `"stream" twice`},
		`{"stream_options":{"include_usage":true,"INCLUDE_USAGE":false}}`: {refused: `"stream_options.INCLUDE_USAGE"`},
		`{"stream_options":{"include_usage":true,"include_usage":false}}`: {refused: `twice`},
		`{"messages":[{"role":"user","role":"system"}]}`:                  {refused: `"role" twice`},
		`{"stream":"true"}`:                                               {refused: `stream: found "true"`},
		`{"stream":1}`:                                                    {refused: `stream: found 1`},
		`{"background":"yes"}`:                                            {refused: `background: found`},
		`{"max_tokens":9223372036854775807}`:                              {refused: `max_tokens: found 9223372036854775807`},
		`{"max_completion_tokens":2147483648}`:                            {refused: `32 bits`},
		`{"max_output_tokens":1e3}`:                                       {refused: `max_output_tokens: found 1e3`},
		`{"n":2.0}`:                                                       {refused: `n: found 2.0`},
		`{"n":"2"}`:                                                       {refused: `n: found "2"`},
		`{"":1}`:                                                          {refused: `name`},
		`{"stream":true} {}`:                                              {refused: `no JSON`},
		`{"stream":true`:                                                  {refused: `no JSON`},
		"\xef\xbb\xbf{\"stream\":true}":                                   {refused: `no JSON`},
		"{\x00\"\x00s\x00":                                                {refused: `no JSON`},
		"\x00{\x00}":                                                      {refused: `no JSON`},
	} {
		q, no := decode("/v1/completions", []byte(body))
		switch {
		case no != nil && (want.refused == "" || !strings.Contains(no.text, want.refused) || no.status != 400):
			t.Errorf("%q is refused: %v; want %q", body, no, want.refused)
		case no == nil && want.refused != "":
			t.Errorf("%q is taken, want a refusal with %q", body, want.refused)
		case no == nil && (q.stream != want.stream || q.work() != want.work):
			t.Errorf("%q: stream %v, work %d; want %v and %d", body, q.stream, q.work(), want.stream, want.work)
		}
	}
	for _, body := range []string{"", "question", "xxx", `"text"`, "[1]", "null"} { // no reader takes them for an object
		if q, no := decode("/v1/completions", []byte(body)); q != nil || no != nil {
			t.Errorf("%q: %v %v", body, q, no)
		}
	}
}

// What is set leaves the rest as it was sent, in no more bytes.
func TestRewritingKeepsTheSize(t *testing.T) {
	text := strings.Repeat("<>&\u2028", 100_000)
	body := fmt.Sprintf(`{"messages":[{"role":"user","content":"%s"}],"stream":true}`, text)
	q, no := decode("/v1/chat/completions", []byte(body))
	if no != nil {
		t.Fatal(no)
	}
	prepare(&call{}, "/v1/chat/completions", q)
	out := q.bytes()
	if len(out) > len(body)+100 || cap(out) > len(body)+200 {
		t.Errorf("%d bytes became %d (of %d)", len(body), len(out), cap(out))
	}
	var before, after map[string]any
	if json.Unmarshal([]byte(body), &before) != nil || json.Unmarshal(out, &after) != nil {
		t.Fatalf("%.100s", out)
	}
	before["stream_options"] = map[string]any{"include_usage": true}
	if !reflect.DeepEqual(before, after) {
		t.Errorf("%.200s", out)
	}
}

func FuzzDecode(f *testing.F) {
	for _, seed := range []string{`{}`, `{"stream":true,"n":3}`, `{"a":{"b":[1,{"c":"\\\""}]},"prompt":["x","y"]}`, `{"stream_options":{"include_usage":false}}`, `{"Stream":true}`, "\x00{", `{"a":"\ud800"}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, path := range []string{"/v1/completions", "/v1/responses"} {
			q, no := decode(path, body)
			if no != nil || q == nil {
				continue
			}
			var want map[string]json.RawMessage
			if err := json.Unmarshal(body, &want); err != nil {
				t.Fatalf("%q is taken: %v", body, err)
			}
			// The reader of the replica, which takes names in any case and the last of
			// two, sees what the gateway saw.
			var replica struct {
				Stream bool `json:"stream"`
			}
			if json.Unmarshal(body, &replica) == nil && replica.Stream != q.stream {
				t.Fatalf("%q: the replica reads stream %v, the gateway %v", body, replica.Stream, q.stream)
			}
			if len(q.fields) != len(want) {
				t.Fatalf("%q: %d fields, want %d", body, len(q.fields), len(want))
			}
			for _, f := range q.fields {
				if string(f.value) != string(want[f.name]) {
					t.Fatalf("%q: %s is %q, want %q", body, f.name, f.value, want[f.name])
				}
			}
			q.set("added", []byte("1"))
			if !json.Valid(q.bytes()) {
				t.Fatalf("%q became %q", body, q.bytes())
			}
		}
	})
}

func BenchmarkDecode(b *testing.B) {
	for name, body := range map[string]string{
		"short": `{"messages":[{"role":"user","content":"hi"}],"max_tokens":2,"stream":true}`,
		"text":  `{"messages":[{"role":"user","content":"` + strings.Repeat(`a line\n`, 1<<20/8) + `"}]}`,
		"deep":  `{"messages":` + strings.Repeat("[", 9000) + strings.Repeat("]", 9000) + `}`,
	} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(body)))
			for b.Loop() {
				if _, no := decode("/v1/chat/completions", []byte(body)); no != nil {
					b.Fatal(no)
				}
			}
		})
	}
}
