package client

import (
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/launchgate/launchgate/internal/recording"
)

func newTestStream() *stream { return &stream{row: &recording.Request{}} }

// made makes a client from a configuration that cannot fail.
func made(cfg Config) *Client {
	c, err := New(cfg)
	if err != nil {
		panic(err)
	}
	return c
}

var hi = []Message{{"user", "Hi"}}

var prompt = Prompt{API: APIChat, Messages: hi, MaxTokens: 8, Stream: true, Timeout: 5 * time.Second}

// do sends one prompt to a handler.
func do(t *testing.T, p Prompt, h http.HandlerFunc) recording.Request {
	t.Helper()
	srv := httptest.NewServer(h)
	defer srv.Close()
	return made(Config{BaseURL: srv.URL, Model: "m"}).Do(context.Background(), p, recording.NewClock(), 1)
}

func sse(body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
		_, _ = io.WriteString(w, body)
	}
}

// want is the first line of a fixture: what must be read from it, as JSON.
type want struct {
	Chunks     int    `json:"chunks"`
	Tokens     int32  `json:"tokens"`
	From       string `json:"from"`
	Prompt     int32  `json:"prompt"`
	FirstChunk int32  `json:"first_chunk"`
	Finish     string `json:"finish"`
	Reasoning  bool   `json:"reasoning"` // the first token is not the first output
	Reasoned   int32  `json:"reasoned"`  // tokens of reasoning
	Error      string `json:"error"`
	Says       string `json:"says"`
}

// TestFixtures replays the streams of real servers. The first line of a file is the
// expected result, the rest is the body as it came.
func TestFixtures(t *testing.T) {
	files, err := filepath.Glob("testdata/*.sse")
	if err != nil || len(files) < 10 {
		t.Fatalf("%d fixtures, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".sse"), func(t *testing.T) {
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			head, body, _ := strings.Cut(string(b), "\n")
			var w want
			if err := json.Unmarshal([]byte(head), &w); err != nil {
				t.Fatal(err)
			}
			row := do(t, prompt, sse(body))
			overHTTP := w
			overHTTP.Reasoning = row.FirstOutput != row.FirstToken // over HTTP all may have come in one read
			check(t, row, overHTTP)
			check(t, byteByByte(body), w)
			if row.OK() && (row.FirstByte < row.Sent || row.FirstToken < row.FirstByte || row.LastToken < row.FirstToken || row.End < row.LastToken) {
				t.Errorf("the times are out of order: %+v", row)
			}
		})
	}
}

// byteByByte reads a body in reads of one byte, each at its own time.
func byteByByte(body string) recording.Request {
	s := newTestStream()
	p := &eventParser{emit: s.event, stray: s.stray}
	for i := range len(body) {
		if err := p.feed([]byte{body[i]}, time.Duration(i+1)); err != nil {
			panic(err)
		}
	}
	p.end(time.Duration(len(body) + 1))
	s.close()
	return *s.row
}

func check(t *testing.T, r recording.Request, w want) {
	t.Helper()
	if w.FirstChunk == 0 && w.Chunks > 0 {
		w.FirstChunk = 1
	}
	got := want{len(r.Chunks), r.OutputTokens, r.TokensFrom, r.PromptTokens, r.FirstChunkTokens, r.FinishReason, r.FirstToken > 0 && r.FirstOutput != r.FirstToken, r.ReasoningTokens, r.Error, w.Says}
	if got != w || !strings.Contains(r.ErrorText, w.Says) {
		t.Errorf("read  %+v (%s)\nwant  %+v", got, r.ErrorText, w)
	}
}

// TestAnswersThatAreNone covers answers that are not a stream of the protocol.
func TestAnswersThatAreNone(t *testing.T) {
	plain := prompt
	plain.Stream = false
	jsonAnswer := func(body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprint(w, body)
		}
	}
	for _, tt := range []struct {
		name  string
		p     Prompt
		h     http.HandlerFunc
		class string
		says  string
	}{
		{"HTML", prompt, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			fmt.Fprint(w, "<html>Welcome to nginx!</html>")
		}, recording.ErrorProtocol, "HTML"},
		{"401", prompt, func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(401)
			fmt.Fprint(w, `{"error":{"message":"no key"}}`)
		}, recording.ErrorStatus, "no key"},
		{"429", prompt, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "7")
			w.WriteHeader(429)
			fmt.Fprint(w, `{"error":{"message":"too many requests with this API key"}}`)
		}, recording.ErrorLimited, "too many requests with this API key (Retry-After: 7)"},
		{"503 without a word", prompt, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) }, recording.ErrorShed, "503"},
		{"500 with plain text", prompt, func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "boom", 500) }, recording.ErrorStatus, "boom"},
		{"a redirect", prompt, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/login", http.StatusFound) }, recording.ErrorStatus, "302"},
		{"whole where a stream was asked for", prompt, jsonAnswer(`{"choices":[{"message":{"content":"x"},"finish_reason":"stop"}]}`), recording.ErrorProtocol, "does not stream"},
		{"an error with status 200", prompt, jsonAnswer(`{"error":"overloaded"}`), recording.ErrorInBand, "overloaded"},
		{"a whole answer", plain, jsonAnswer(`{"choices":[{"message":{"content":"x"},"finish_reason":"stop"}],"usage":{"completion_tokens":1}}`), "", ""},
		{"a whole answer that is empty", plain, jsonAnswer(`{"choices":[{"message":{"content":""},"finish_reason":"stop"}]}`), recording.ErrorEmpty, "empty"},
		{"a whole answer without a reason", plain, jsonAnswer(`{"choices":[{"message":{"content":"x"}}]}`), recording.ErrorTruncated, "finish reason"},
		{"not JSON", plain, jsonAnswer(`Hello`), recording.ErrorProtocol, "not JSON"},
		{"cut before the answer", prompt, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, recording.ErrorConnect, ""},
		{"cut in the middle", prompt, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/event-stream")
			fmt.Fprint(w, "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n")
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}, recording.ErrorTruncated, "ended early, after 1 chunks"},
		{"gzip that is none", prompt, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			w.Header().Set("Content-Type", "text/event-stream")
			fmt.Fprint(w, "data: x\n\n")
		}, recording.ErrorProtocol, "gzip"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			row := do(t, tt.p, tt.h)
			if row.Error != tt.class || !strings.Contains(row.ErrorText, tt.says) {
				t.Errorf("%q (%s), want %q with %q", row.Error, row.ErrorText, tt.class, tt.says)
			}
			if row.Sent == 0 || row.End == 0 {
				t.Errorf("no times: %+v", row)
			}
		})
	}
}

// The Retry-After of the service is read in both forms that HTTP has.
func TestRetryAfter(t *testing.T) {
	for after, want := range map[string]time.Duration{
		"": 0, "7": 7 * time.Second, "soon": 0, "-1": 0, "99999999999999999999": 0,
		time.Now().Add(time.Hour).UTC().Format(http.TimeFormat): time.Hour,
		"Mon, 02 Jan 2006 15:04:05 GMT":                         0,
	} {
		row := do(t, prompt, func(w http.ResponseWriter, _ *http.Request) {
			if after != "" {
				w.Header().Set("Retry-After", after)
			}
			w.WriteHeader(429)
		})
		if row.RetryAfter > want || row.RetryAfter < want-5*time.Second || row.Status != 429 || row.OK() {
			t.Errorf("Retry-After %q: %s, want %s", after, row.RetryAfter, want)
		}
		if after != "" && !strings.Contains(row.ErrorText, after) {
			t.Errorf("%q does not tell %q", row.ErrorText, after)
		}
	}
}

func TestGzip(t *testing.T) {
	row := do(t, prompt, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		w.Header().Set("Content-Type", "text/event-stream")
		z := gzip.NewWriter(w)
		fmt.Fprint(z, "data: {\"choices\":[{\"delta\":{\"content\":\"a\"},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n")
		z.Close()
	})
	check(t, row, want{Chunks: 1, Tokens: 1, From: "chunks", Finish: "stop"})
}

func TestGivenUp(t *testing.T) {
	slow := func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprint(w, "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n")
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	}
	silent := func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body); <-r.Context().Done() }
	short := prompt
	short.Timeout = 50 * time.Millisecond
	for name, h := range map[string]http.HandlerFunc{"in the middle": slow, "before the answer": silent} {
		if row := do(t, short, h); row.Error != recording.ErrorTimeout {
			t.Errorf("timeout %s: %q (%s)", name, row.Error, row.ErrorText)
		}
		srv := httptest.NewServer(h)
		ctx, cancel := context.WithCancel(context.Background())
		time.AfterFunc(50*time.Millisecond, cancel)
		if row := made(Config{BaseURL: srv.URL}).Do(ctx, prompt, recording.NewClock(), 1); row.Error != recording.ErrorCancelled {
			t.Errorf("the run ended %s: %q (%s)", name, row.Error, row.ErrorText)
		}
		srv.Close()
	}
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone.Close()
	if row := made(Config{BaseURL: "http://" + gone.Addr().String()}).Do(context.Background(), prompt, recording.NewClock(), 1); row.Error != recording.ErrorConnect || !strings.Contains(row.ErrorText, "refused") {
		t.Errorf("nobody there: %q (%s)", row.Error, row.ErrorText)
	}
}

// The request follows the OpenAI API.
func TestRequest(t *testing.T) {
	for _, tt := range []struct {
		name, path, body string
		p                Prompt
	}{
		{"a streamed chat", "/v1/chat/completions", `{"model":"m","messages":[{"role":"system","content":"Be kind."},{"role":"user","content":"Hi"}],"max_tokens":8,"temperature":0.5,"stream":true,"stream_options":{"include_usage":true}}`,
			Prompt{API: APIChat, Messages: []Message{{"system", "Be kind."}, {"user", "Hi"}}, MaxTokens: 8, Temperature: 0.5, Stream: true, Timeout: time.Second}},
		{"a whole completion", "/v1/completions", `{"model":"m","prompt":"Hi","max_tokens":8,"temperature":0,"stream":false}`,
			Prompt{API: APICompletions, Messages: hi, MaxTokens: 8, Timeout: time.Second}},
		{"a streamed response of a tenant", "/v1/responses", `{"model":"n","input":[{"role":"user","content":"Hi"}],"max_output_tokens":8,"temperature":0,"ignore_eos":true,"stream":true,"store":false}`,
			Prompt{API: APIResponses, Model: "n", Messages: hi, MaxTokens: 8, IgnoreEOS: true, Stream: true, Timeout: time.Second}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var path, body, auth, own string
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				b, _ := io.ReadAll(r.Body)
				path, body, auth, own = r.URL.Path, string(b), r.Header.Get("Authorization"), r.Header.Get("X-Own")
				w.Header().Set("X-Launchgate-Replica", "replica-7")
				w.Header().Set("X-Launchgate-Retries", "1")
			}))
			defer srv.Close()
			c := made(Config{BaseURL: srv.URL + "/v1/", Model: "m", APIKey: "secret", Headers: map[string]string{"X-Own": "1"}})
			row := c.Do(context.Background(), tt.p, recording.NewClock(), 1)
			if path != tt.path || body != tt.body || auth != "Bearer secret" || own != "1" {
				t.Errorf("%s %s (%s, %s), want %s %s", path, body, auth, own, tt.path, tt.body)
			}
			if row.Replica != "replica-7" || row.Retries != 1 {
				t.Errorf("%+v", row)
			}
		})
	}
}

// The golden server sends known tokens at known times; the expected times are the
// server's own, taken at each write.
func TestTimesAreTheServers(t *testing.T) {
	clock := recording.NewClock()
	var sent []time.Duration
	const n = 12
	row := func() recording.Request {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/event-stream")
			w.(http.Flusher).Flush()
			for i := range n {
				time.Sleep(time.Duration(5+i*3) * time.Millisecond)
				fmt.Fprint(w, "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n")
				sent = append(sent, clock.Now())
				w.(http.Flusher).Flush()
			}
			fmt.Fprint(w, "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n")
		}))
		defer srv.Close()
		return made(Config{BaseURL: srv.URL}).Do(context.Background(), prompt, clock, clock.Now())
	}()
	if !row.OK() || len(row.Chunks) != n {
		t.Fatalf("%d chunks: %s", len(row.Chunks), row.ErrorText)
	}
	const bound = 5 * time.Millisecond // a loaded machine wakes threads late; an idle one is within 0.1 ms
	for i, at := range row.Chunks {
		if late := at - sent[i]; late < 0 || late > bound {
			t.Errorf("chunk %d was sent at %s and stamped %s later", i, sent[i], late)
		}
	}
}

func TestPreflight(t *testing.T) {
	good := "data: {\"choices\":[{\"delta\":{\"content\":\"a\"},\"finish_reason\":\"length\"}]}\n\ndata: [DONE]\n\n"
	serve := func(models string, chat http.HandlerFunc) *httptest.Server {
		mux := http.NewServeMux()
		mux.HandleFunc("/v1/models", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, models) })
		mux.HandleFunc("/v1/chat/completions", chat)
		srv := httptest.NewServer(mux)
		t.Cleanup(srv.Close)
		return srv
	}
	c := made(Config{BaseURL: serve(`{"data":[{"id":"first"},{"id":"second"}]}`, sse(good)).URL})
	if err := c.Preflight(context.Background(), prompt); err != nil || c.Model() != "first" {
		t.Errorf("model %q, %v", c.Model(), err)
	}
	for _, tt := range []struct {
		name, models string
		chat         http.HandlerFunc
		says         string
	}{
		{"no model", `{"data":[]}`, sse(good), "--model"},
		{"models are HTML", `<html>`, sse(good), "list of models"},
		{"401", `{"data":[{"id":"m"}]}`, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(401) }, "--api-key-env"},
		{"404", `{"data":[{"id":"m"}]}`, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(404) }, "/v1"},
		{"no stream", `{"data":[{"id":"m"}]}`, sse(""), "before it sent anything"},
	} {
		err := made(Config{BaseURL: serve(tt.models, tt.chat).URL}).Preflight(context.Background(), prompt)
		if err == nil || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: %v, which should say %q", tt.name, err, tt.says)
		}
	}
}
