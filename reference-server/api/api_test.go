package api

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/launchgate/launchgate/reference-server/access"
	"github.com/launchgate/launchgate/reference-server/device"
	"github.com/launchgate/launchgate/reference-server/engine"
)

const model = "tiny"

// serving is a server over the default model, and its engine.
func serving(t *testing.T, c engine.Config) (*httptest.Server, *engine.Pool, *engine.Engine) {
	t.Helper()
	c.Path, c.Name = "../models/default/default.gguf", model
	pool := newPool(t, c)
	if err := pool.Load(); err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(New(pool, access.Policy{}, quiet).Handler())
	t.Cleanup(func() { srv.Close(); pool.Close() })
	return srv, pool, pool.Loaded()[0]
}

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

func newPool(t *testing.T, configs ...engine.Config) *engine.Pool {
	t.Helper()
	pool, err := engine.NewPool(configs, quiet)
	if err != nil {
		t.Fatal(err)
	}
	return pool
}

func post(t *testing.T, url, body string) (*http.Response, []byte) {
	t.Helper()
	resp, err := http.Post(url, "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, b
}

type whole struct {
	Object  string
	Model   string
	Choices []struct {
		Text         string
		Message      struct{ Role, Content string }
		Delta        *struct{ Role, Content string }
		FinishReason *string `json:"finish_reason"`
	}
	Usage *struct {
		Prompt  int `json:"prompt_tokens"`
		Output  int `json:"completion_tokens"`
		Total   int `json:"total_tokens"`
		Details struct {
			Cached int `json:"cached_tokens"`
		} `json:"prompt_tokens_details"`
	}
	Error *struct{ Message, Type, Code string }
}

// stream reads server-sent events until [DONE].
func stream(t *testing.T, url, body string) (chunks []whole, done bool) {
	t.Helper()
	resp, err := http.Post(url, "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if ct := resp.Header.Get("Content-Type"); resp.StatusCode != 200 || ct != "text/event-stream" {
		t.Fatalf("%s, %s", resp.Status, ct)
	}
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		data, ok := strings.CutPrefix(lines.Text(), "data: ")
		if !ok {
			if lines.Text() != "" {
				t.Errorf("the line %q is no event", lines.Text())
			}
			continue
		}
		if data == "[DONE]" {
			done = true
			continue
		}
		var c whole
		if err := json.Unmarshal([]byte(data), &c); err != nil {
			t.Fatalf("%q: %v", data, err)
		}
		chunks = append(chunks, c)
	}
	return chunks, done
}

const ask = `{"model":"tiny","messages":[{"role":"user","content":"Tell me about the sea."}],"max_tokens":24,"temperature":0`

// A streamed answer has the same text as a whole one, with the role first, the
// finish reason once and the usage last.
func TestStreamedAndWholeAgree(t *testing.T) {
	srv, _, _ := serving(t, engine.Config{})
	_, b := post(t, srv.URL+"/v1/chat/completions", ask+"}")
	var w whole
	if err := json.Unmarshal(b, &w); err != nil {
		t.Fatal(err)
	}
	if w.Object != "chat.completion" || w.Model != model || len(w.Choices) != 1 || w.Choices[0].Message.Role != "assistant" || w.Usage.Output != 24 || *w.Choices[0].FinishReason != "length" {
		t.Errorf("%s", b)
	}
	chunks, done := stream(t, srv.URL+"/v1/chat/completions", ask+`,"stream":true,"stream_options":{"include_usage":true}}`)
	if !done || len(chunks) < 10 {
		t.Fatalf("%d chunks, done %v", len(chunks), done)
	}
	var text strings.Builder
	finished := 0
	for i, c := range chunks[:len(chunks)-1] {
		if c.Object != "chat.completion.chunk" || len(c.Choices) != 1 || c.Choices[0].Delta == nil || c.Usage != nil {
			t.Errorf("chunk %d: %+v", i, c)
			continue
		}
		if (c.Choices[0].Delta.Role == "assistant") != (i == 0) {
			t.Errorf("chunk %d has the role %q", i, c.Choices[0].Delta.Role)
		}
		if c.Choices[0].FinishReason != nil {
			finished++
		}
		text.WriteString(c.Choices[0].Delta.Content)
	}
	last := chunks[len(chunks)-1]
	if len(last.Choices) != 0 || last.Usage == nil || last.Usage.Output != 24 || last.Usage.Total != last.Usage.Prompt+24 {
		t.Errorf("the last chunk is %+v", last)
	}
	if finished != 1 {
		t.Errorf("%d finish reasons", finished)
	}
	if text.String() != w.Choices[0].Message.Content || text.Len() < 20 {
		t.Errorf("streamed %v, whole %q", text.String(), w.Choices[0].Message.Content)
	}
	if last.Usage.Details.Cached == 0 {
		t.Log("the prompt is shorter than a block, so nothing of it was cached")
	}
}

func TestCompletions(t *testing.T) {
	srv, _, e := serving(t, engine.Config{})
	var byText, byTokens, byList whole
	_, b := post(t, srv.URL+"/v1/completions", `{"prompt":"Once upon a time","max_tokens":12,"temperature":0}`)
	if err := json.Unmarshal(b, &byText); err != nil || byText.Object != "text_completion" || byText.Choices[0].Text == "" {
		t.Fatalf("%s %v", b, err)
	}
	ids, _ := json.Marshal(e.Tokenize("Once upon a time"))
	_, b = post(t, srv.URL+"/v1/completions", fmt.Sprintf(`{"prompt":%s,"max_tokens":12,"temperature":0}`, ids))
	_ = json.Unmarshal(b, &byTokens)
	_, b = post(t, srv.URL+"/v1/completions", `{"prompt":["Once upon a time"],"max_tokens":12,"temperature":0}`)
	_ = json.Unmarshal(b, &byList)
	if byTokens.Choices[0].Text != byText.Choices[0].Text || byList.Choices[0].Text != byText.Choices[0].Text {
		t.Errorf("%q, %q and %q", byText.Choices[0].Text, byTokens.Choices[0].Text, byList.Choices[0].Text)
	}
	chunks, done := stream(t, srv.URL+"/v1/completions", `{"prompt":"Once upon a time","max_tokens":12,"temperature":0,"stream":true}`)
	text := ""
	for _, c := range chunks {
		text += c.Choices[0].Text
	}
	if !done || text != byText.Choices[0].Text {
		t.Errorf("streamed %q (done %v), whole %q", text, done, byText.Choices[0].Text)
	}
}

// Content may be a list of text parts, and unknown keys are no error.
func TestParts(t *testing.T) {
	srv, _, _ := serving(t, engine.Config{})
	_, plain := post(t, srv.URL+"/v1/chat/completions", ask+"}")
	_, parts := post(t, srv.URL+"/v1/chat/completions", `{"user":"u","metadata":{},"messages":[{"role":"user","content":[{"type":"text","text":"Tell me "},{"type":"text","text":"about the sea."}]}],"max_completion_tokens":24,"temperature":0}`)
	var a, b whole
	_ = json.Unmarshal(plain, &a)
	_ = json.Unmarshal(parts, &b)
	if a.Choices[0].Message.Content != b.Choices[0].Message.Content {
		t.Errorf("%s\n%s", plain, parts)
	}
}

func TestErrorsAreOpenAIs(t *testing.T) {
	srv, _, _ := serving(t, engine.Config{MaxSequence: 128})
	chat := "/v1/chat/completions"
	for _, tt := range []struct {
		name, path, body string
		status           int
		says             string
	}{
		{"no JSON", chat, `{`, 400, "JSON"},
		{"no messages", chat, `{}`, 400, "messages"},
		{"an unknown role", chat, `{"messages":[{"role":"pirate","content":"x"}]}`, 400, "pirate"},
		{"an image", chat, `{"messages":[{"role":"user","content":[{"type":"image_url"}]}]}`, 400, "image_url"},
		{"another model", chat, `{"model":"gpt-9","messages":[{"role":"user","content":"x"}]}`, 404, "gpt-9"},
		{"no answers", chat, `{"n":0,"messages":[{"role":"user","content":"x"}]}`, 400, "n is 0"},
		{"a huge n", chat, `{"n":1000000000,"messages":[{"role":"user","content":"x"}]}`, 400, "n is"},
		{"tools", chat, `{"tools":[{}],"messages":[{"role":"user","content":"x"}]}`, 400, "tools"},
		{"a form that is none", chat, `{"response_format":{"type":"xml"},"messages":[{"role":"user","content":"x"}]}`, 400, "xml"},
		{"a schema that cannot be obeyed", chat, `{"response_format":{"type":"json_schema","json_schema":{"schema":{"pattern":"a"}}},"messages":[{"role":"user","content":"x"}]}`, 400, "pattern"},
		{"too many logprobs", chat, `{"logprobs":true,"top_logprobs":50,"messages":[{"role":"user","content":"x"}]}`, 400, "50"},
		{"no tokens", chat, `{"max_tokens":0,"messages":[{"role":"user","content":"x"}]}`, 400, "max_tokens"},
		{"too hot", chat, `{"temperature":9,"messages":[{"role":"user","content":"x"}]}`, 400, "temperature"},
		{"an empty stop", chat, `{"stop":[""],"messages":[{"role":"user","content":"x"}]}`, 400, "stop"},
		{"too long", "/v1/completions", `{"prompt":"` + strings.Repeat("word ", 400) + `"}`, 400, "maximum is 128"},
		{"a token that is none", "/v1/completions", `{"prompt":[5,99999]}`, 400, "99999"},
		{"no prompt", "/v1/completions", `{}`, 400, "prompt"},
		{"a body that is too large", chat, `{"x":"` + strings.Repeat("x", maxBody) + `"}`, 413, "larger"},
		{"a path that is none", "/v2/chat", `{}`, 404, "/v1/chat/completions"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			resp, b := post(t, srv.URL+tt.path, tt.body)
			var w whole
			if err := json.Unmarshal(b, &w); err != nil || w.Error == nil {
				t.Fatalf("%s %s", resp.Status, b)
			}
			if resp.StatusCode != tt.status || !strings.Contains(w.Error.Message, tt.says) || w.Error.Type == "" || w.Error.Code == "" {
				t.Errorf("%s: %s", resp.Status, b)
			}
		})
	}
}

// A full queue answers 429 with Retry-After, and a stopping one 503. Requests
// under way end.
func TestPressure(t *testing.T) {
	srv, pool, _ := serving(t, engine.Config{MaxBatch: 1, MaxQueue: 1, Threads: 1})
	long := strings.Replace(ask, `"max_tokens":24`, `"max_tokens":900,"ignore_eos":true`, 1) + `,"stream":true}`
	results := make(chan int, 8)
	for range 8 {
		go func() {
			resp, err := http.Post(srv.URL+"/v1/chat/completions", "application/json", strings.NewReader(long))
			if err != nil {
				results <- 0
				return
			}
			defer resp.Body.Close()
			_, _ = io.Copy(io.Discard, resp.Body)
			if resp.StatusCode == 429 && resp.Header.Get("Retry-After") == "" {
				results <- -1
				return
			}
			results <- resp.StatusCode
		}()
	}
	seen := map[int]int{}
	for range 8 {
		seen[<-results]++
	}
	if seen[200] < 1 || seen[429] < 1 || seen[200]+seen[429] != 8 {
		t.Errorf("answers by status: %v", seen)
	}
	pool.Drain()
	if resp, b := post(t, srv.URL+"/v1/chat/completions", ask+"}"); resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "" {
		t.Errorf("while stopping: %s %s", resp.Status, b)
	}
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b)
}

func TestReadyTellsTheTruth(t *testing.T) {
	s := New(newPool(t, engine.Config{Path: "unloaded.gguf"}), access.Policy{}, quiet)
	loading := httptest.NewServer(s.Handler())
	defer loading.Close()
	if code, body := get(t, loading.URL+"/ready"); code != 503 || !strings.Contains(body, "being loaded") {
		t.Errorf("while loading: %d %s", code, body)
	}
	if code, _ := get(t, loading.URL+"/health"); code != 200 {
		t.Errorf("health while loading: %d", code)
	}
	if resp, _ := post(t, loading.URL+"/v1/chat/completions", `{"messages":[{"role":"user","content":"Hi"}]}`); resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "" {
		t.Errorf("a request while loading: %s", resp.Status)
	}
	srv, ready, _ := serving(t, engine.Config{})
	if code, body := get(t, srv.URL+"/ready"); code != 200 || !strings.Contains(body, model) {
		t.Errorf("ready: %d %s", code, body)
	}
	if code, body := get(t, srv.URL+"/v1/models"); code != 200 || !strings.Contains(body, `"id":"tiny"`) {
		t.Errorf("models: %d %s", code, body)
	}
	if code, _ := get(t, srv.URL+"/v1/models/other"); code != 404 {
		t.Errorf("another model: %d", code)
	}
	ready.Drain()
	if code, _ := get(t, srv.URL+"/ready"); code != 503 {
		t.Errorf("while stopping: %d", code)
	}
}

func TestMetrics(t *testing.T) {
	c := engine.Config{Path: "../models/default/default.gguf", Name: model}
	var err error
	if c.Device, err = device.Open(filepath.Join(t.TempDir(), "d.json"), 1<<30); err != nil {
		t.Fatal(err)
	}
	pool := newPool(t, c)
	defer pool.Close()
	if err := pool.Load(); err != nil {
		t.Fatal(err)
	}
	s := New(pool, access.Policy{}, quiet)
	srv := httptest.NewServer(s.Handler())
	defer srv.Close()
	post(t, srv.URL+"/v1/chat/completions", ask+"}")
	post(t, srv.URL+"/v1/chat/completions", strings.Replace(ask, "temperature", "temperatur", 1)+`,"temperature":9}`)
	get(t, srv.URL+"/some/scanner.php")
	metrics := httptest.NewServer(s.Metrics())
	defer metrics.Close()
	_, text := get(t, metrics.URL)
	for _, line := range []string{
		`ai_requests_total{model="tiny",status="ok"} 1`,
		`ai_requests_total{model="tiny",status="400"} 1`,
		`ai_tokens_total{model="tiny",type="completion"} 24`,
		`ai_request_duration_seconds_count{model="tiny",operation="chat"} 2`,
		`ai_queue_size{model="tiny"} 0`,
		`ai_batch_size{model="tiny"} 0`,
		`ai_kv_blocks_used{model="tiny"} 0`,
		`nvidia_gpu_memory_total_bytes{gpu="0",kind="cpu"} 1.073741824e+09`,
		`inference_queue_size{model="tiny"} 0`,
		`http_requests_total{method="POST",path="POST /v1/chat/completions",status="200"} 1`,
		`http_requests_total{method="GET",path="other",status="404"} 1`,
	} {
		if !strings.Contains(text, line+"\n") {
			t.Errorf("the metrics lack %s", line)
		}
	}
}

// A client that goes away in the middle of its answer is noticed.
func TestClientThatGoesAway(t *testing.T) {
	srv, _, e := serving(t, engine.Config{})
	ctx, cancel := context.WithCancel(context.Background())
	body := strings.Replace(ask, `"max_tokens":24`, `"max_tokens":900,"ignore_eos":true`, 1) + `,"stream":true}`
	req, _ := http.NewRequestWithContext(ctx, http.MethodPost, srv.URL+"/v1/chat/completions", bytes.NewBufferString(body))
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	resp.Body.Close()
	for deadline := time.Now().Add(30 * time.Second); e.Stats().Running > 0; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the answer to nobody goes on")
		}
	}
}

// Several answers to one request: greedy ones are equal, drawn ones are not,
// streamed they carry their index, and the prompt counts once.
func TestSeveralAnswers(t *testing.T) {
	srv, _, _ := serving(t, engine.Config{})
	_, b := post(t, srv.URL+"/v1/chat/completions", ask+`,"n":3}`)
	var w whole
	if err := json.Unmarshal(b, &w); err != nil || len(w.Choices) != 3 || w.Usage.Output != 72 {
		t.Fatalf("%s %v", b, err)
	}
	if a := w.Choices; a[0].Message.Content != a[1].Message.Content || a[1].Message.Content != a[2].Message.Content {
		t.Errorf("greedy answers differ: %s", b)
	}
	drawn := strings.Replace(ask, `"temperature":0`, `"temperature":1,"seed":5,"n":2`, 1)
	_, b = post(t, srv.URL+"/v1/chat/completions", drawn+"}")
	if err := json.Unmarshal(b, &w); err != nil || w.Choices[0].Message.Content == w.Choices[1].Message.Content {
		t.Errorf("drawn answers are equal: %s", b)
	}
	resp, err := http.Post(srv.URL+"/v1/chat/completions", "application/json", strings.NewReader(drawn+`,"stream":true}`))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	texts := map[int]string{}
	for line := range strings.Lines(string(body)) {
		var c struct {
			Choices []struct {
				Index int
				Delta struct{ Content string }
			}
		}
		if data, ok := strings.CutPrefix(line, "data: "); ok && json.Unmarshal([]byte(data), &c) == nil && len(c.Choices) == 1 {
			texts[c.Choices[0].Index] += c.Choices[0].Delta.Content
		}
	}
	if texts[0] != w.Choices[0].Message.Content || texts[1] != w.Choices[1].Message.Content {
		t.Errorf("streamed %v, whole %q and %q", texts, w.Choices[0].Message.Content, w.Choices[1].Message.Content)
	}
}

func TestLogprobs(t *testing.T) {
	srv, _, _ := serving(t, engine.Config{})
	_, b := post(t, srv.URL+"/v1/chat/completions", strings.Replace(ask, `"max_tokens":24`, `"max_tokens":5,"logprobs":true,"top_logprobs":3`, 1)+"}")
	var w struct {
		Choices []struct {
			Message  struct{ Content string }
			Logprobs struct {
				Content []struct {
					Token   string
					Logprob float64
					Bytes   []byte
					Top     []struct {
						Token   string
						Logprob float64
					} `json:"top_logprobs"`
				}
			}
		}
	}
	if err := json.Unmarshal([]byte(strings.ReplaceAll(string(b), `"bytes":[`, `"ints":[`)), &w); err != nil {
		t.Fatalf("%s %v", b, err)
	}
	text := ""
	for _, c := range w.Choices[0].Logprobs.Content {
		text += c.Token
		if c.Logprob > 0 || len(c.Top) != 3 || c.Top[0].Token != c.Token || c.Top[0].Logprob != c.Logprob || c.Top[1].Logprob > c.Top[0].Logprob {
			t.Errorf("%+v", c)
		}
	}
	if text != w.Choices[0].Message.Content || len(w.Choices[0].Logprobs.Content) != 5 {
		t.Errorf("%q, want %q", text, w.Choices[0].Message.Content)
	}
}

// A small model that was not trained on JSON writes valid JSON.
func TestJSONAnswers(t *testing.T) {
	srv, _, _ := serving(t, engine.Config{})
	for _, format := range []string{
		`{"type":"json_schema","json_schema":{"name":"x","schema":{"type":"object","properties":{"animal":{"enum":["cat","dog"]},"legs":{"type":"integer"},"names":{"type":"array","items":{"enum":["Tom","Ben"]},"maxItems":2}},"required":["animal","legs","names"]}}}`,
		`{"type":"json_object"}`,
	} {
		done := 0
		for seed := range 5 {
			_, b := post(t, srv.URL+"/v1/chat/completions", strings.Replace(ask, `"max_tokens":24,"temperature":0`, fmt.Sprintf(`"max_tokens":200,"temperature":0.8,"seed":%d,"response_format":%s`, seed, format), 1)+"}")
			var w whole
			if err := json.Unmarshal(b, &w); err != nil || len(w.Choices) != 1 {
				t.Fatalf("%s %v", b, err)
			}
			text := w.Choices[0].Message.Content
			if *w.Choices[0].FinishReason != "stop" {
				continue // it was cut off by max_tokens
			}
			done++
			var v map[string]any
			if err := json.Unmarshal([]byte(text), &v); err != nil {
				t.Errorf("%q: %v", text, err)
			}
			t.Log(text)
		}
		if strings.Contains(format, "schema") && done < 3 {
			t.Errorf("only %d answers came to an end", done)
		}
	}
}

func TestTokenize(t *testing.T) {
	srv, _, e := serving(t, engine.Config{})
	_, b := post(t, srv.URL+"/tokenize", `{"prompt":"Once upon a time"}`)
	var got struct {
		Tokens []int32
		Count  int
	}
	if err := json.Unmarshal(b, &got); err != nil || got.Count != len(e.Tokenize("Once upon a time")) || got.Count != len(got.Tokens) {
		t.Errorf("%s %v", b, err)
	}
	tokens, _ := json.Marshal(got.Tokens)
	if _, b := post(t, srv.URL+"/detokenize", `{"tokens":`+string(tokens)+`}`); !strings.Contains(string(b), `"Once upon a time"`) {
		t.Errorf("%s", b)
	}
	if _, b := post(t, srv.URL+"/tokenize", `{"messages":[{"role":"user","content":"Hi"}]}`); !strings.Contains(string(b), `"count":`) {
		t.Errorf("%s", b)
	}
	if resp, b := post(t, srv.URL+"/detokenize", `{}`); resp.StatusCode != 400 {
		t.Errorf("%s %s", resp.Status, b)
	}
}

// The request's model chooses between two models behind one address. An unknown
// one is 404.
func TestTwoModels(t *testing.T) {
	path := "../models/default/default.gguf"
	pool := newPool(t, engine.Config{Path: path, Name: "a"}, engine.Config{Path: path, Name: "b", Quantization: "fp16"})
	if err := pool.Load(); err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(New(pool, access.Policy{}, quiet).Handler())
	defer func() { srv.Close(); pool.Close() }()
	for _, name := range []string{"a", "b"} {
		_, b := post(t, srv.URL+"/v1/chat/completions", strings.Replace(ask, "tiny", name, 1)+"}")
		var w whole
		if err := json.Unmarshal(b, &w); err != nil || w.Model != name {
			t.Errorf("%s %v", b, err)
		}
	}
	if _, body := get(t, srv.URL+"/v1/models"); !strings.Contains(body, `"id":"a"`) || !strings.Contains(body, `"id":"b"`) {
		t.Errorf("%s", body)
	}
}
