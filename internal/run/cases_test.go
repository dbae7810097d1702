package run

import (
	"bufio"
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/launchgate/launchgate/checklist"
	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/scenarios"
)

// The services of these cases are based on public bug reports of servers, gateways and
// load generators. A small gate is played against each, and the verdict is checked: a
// sound answer in an unusual form passes, and a bad answer that looks sound does not.

const (
	caseRate = 40
	caseFor  = 3
)

// oddGate is the gate of a case. It takes the URL, keys of the endpoint and keys of the
// workload.
const oddGate = `name: odd
seed: 7
target: {endpoint: {url: "%s", model: org/model-7b%s}}
warmup: {requests: 2}
scenarios:
  - name: steady
    workload: {max_tokens: 16, timeout: 8s%s}
    stages:
      - {name: main, for: %ds, rate: %d/s, arrivals: constant}
objectives:
  - error_rate in steady <= 5%%
  - p50(ttft) in steady <= 2s
  - p50(tpot) in steady <= 14ms
  - p50(latency) in steady <= 2s
`

// chunk is an event of a chat completion.
func chunk(content, finish string) string {
	if finish == "" {
		return fmt.Sprintf("data: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"choices\":[{\"index\":0,\"delta\":{\"content\":%q},\"finish_reason\":null}]}\n\n", content)
	}
	return fmt.Sprintf("data: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":%q}]}\n\n", finish)
}

const (
	caseUsage = "data: {\"id\":\"c\",\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":8,\"total_tokens\":17}}\n\n"
	caseDone  = "data: [DONE]\n\n"
	caseWait  = 2 * time.Millisecond
)

// events writes each event at its time.
func events(w http.ResponseWriter, each ...string) {
	if w.Header().Get("Content-Type") == "" {
		w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
	}
	for _, e := range each {
		time.Sleep(caseWait)
		_, _ = io.WriteString(w, e)
		w.(http.Flusher).Flush()
	}
}

// whole are the events of a sound answer of eight tokens.
func whole() []string {
	all := make([]string, 8, 11)
	for i := range all {
		all[i] = chunk(fmt.Sprintf(" w%d", i), "")
	}
	return append(all, chunk("", "stop"), caseUsage, caseDone)
}

// raw writes raw bytes, and closes the connection.
func raw(w http.ResponseWriter, answer ...string) {
	conn, buffered, err := w.(http.Hijacker).Hijack()
	if err != nil {
		return
	}
	defer conn.Close()
	for _, part := range answer {
		time.Sleep(caseWait)
		_, _ = buffered.WriteString(part)
		_ = buffered.Flush()
	}
}

func chunked(parts ...string) (all []string) {
	for _, p := range parts {
		all = append(all, fmt.Sprintf("%x\r\n%s\r\n", len(p), p))
	}
	return append(all, "0\r\n")
}

// oddCase is a service, the keys of its gate, and what is expected of the verdict.
type oddCase struct {
	name               string
	answer             func(w http.ResponseWriter, r *http.Request, n int64, body string)
	endpoint, workload string // more keys
	path               string // appended to the address
	// fails are the objectives that fail, the others pass. says is part of the verdict
	// or of the text of a failed request.
	fails  []string
	says   string
	share  [2]float64 // range of the error rate, if some requests fail
	class  string     // error class of the failures
	tokens int32      // tokens of each answer; 0: 8
	check  func(t *testing.T, v checklist.Verdict, r []recording.Request)
}

func always(parts ...string) func(http.ResponseWriter, *http.Request, int64, string) {
	return func(w http.ResponseWriter, _ *http.Request, _ int64, _ string) { events(w, parts...) }
}

// everyNth answers each n-th request with odd, and the others soundly.
func everyNth(every int64, odd func(w http.ResponseWriter)) func(http.ResponseWriter, *http.Request, int64, string) {
	return func(w http.ResponseWriter, _ *http.Request, n int64, _ string) {
		if n%every == 0 {
			odd(w)
			return
		}
		events(w, whole()...)
	}
}

func statusOf(code int, kind, body string, headers ...string) func(http.ResponseWriter) {
	return func(w http.ResponseWriter) {
		w.Header().Set("Content-Type", kind)
		for i := 0; i+1 < len(headers); i += 2 {
			w.Header().Set(headers[i], headers[i+1])
		}
		w.WriteHeader(code)
		_, _ = io.WriteString(w, body)
	}
}

func with(all []string, at int, event string) []string {
	out := append([]string(nil), all[:at]...)
	return append(append(out, event), all[at:]...)
}

var errorRate = []string{"error_rate"}

var oddCases = []oddCase{
	// Bad answers with a good status.
	{name: "abort", answer: everyNth(2, func(w http.ResponseWriter) {
		events(w, chunk("a", ""), chunk("b", ""), chunk("", "abort"), caseUsage, caseDone)
	}), fails: errorRate, share: [2]float64{0.4, 0.6}, class: recording.ErrorFinish, says: "abort"},
	{name: "finish reason null to the end", answer: everyNth(4, func(w http.ResponseWriter) { events(w, chunk("a", ""), caseUsage, caseDone) }),
		fails: errorRate, share: [2]float64{0.15, 0.35}, class: recording.ErrorTruncated},
	{name: "empty but billed", answer: everyNth(4, func(w http.ResponseWriter) { events(w, chunk("", ""), chunk("", "stop"), caseUsage, caseDone) }),
		fails: errorRate, share: [2]float64{0.15, 0.35}, class: recording.ErrorEmpty},
	{name: "error in the middle of a stream", answer: everyNth(4, func(w http.ResponseWriter) {
		events(w, chunk("a", ""), "data: {\"error\":{\"message\":\"CUDA out of memory\"}}\n\n", caseDone)
	}), fails: errorRate, share: [2]float64{0.15, 0.35}, class: recording.ErrorInBand, says: "CUDA out of memory"},
	{name: "error object beside choices", answer: everyNth(4, func(w http.ResponseWriter) {
		events(w, chunk("a", ""), "data: {\"choices\":[],\"error\":{\"code\":502,\"message\":\"upstream died\"}}\n\n", chunk("", "stop"), caseDone)
	}), fails: errorRate, share: [2]float64{0.15, 0.35}, class: recording.ErrorInBand, says: "upstream died"},
	{name: "error event", answer: everyNth(4, func(w http.ResponseWriter) {
		events(w, chunk("a", ""), "event: error\ndata: {\"message\":\"engine is dead\"}\n\n")
	}), fails: errorRate, share: [2]float64{0.15, 0.35}, class: recording.ErrorInBand, says: "engine is dead"},
	{name: "bare JSON in a stream", answer: everyNth(3, func(w http.ResponseWriter) {
		events(w, `{"error": {"message": "Service Unavailable: no worker"}}`)
	}), fails: errorRate, share: [2]float64{0.2, 0.45}, says: "Service Unavailable: no worker"},
	{name: "a page with 200", answer: everyNth(4, statusOf(200, "text/html", "<!doctype html><html><title>Sign in</title></html>")),
		fails: errorRate, share: [2]float64{0.15, 0.35}, class: recording.ErrorProtocol, says: "Sign in"},
	{name: "nothing with 200", answer: everyNth(4, statusOf(200, "text/event-stream", "")), fails: errorRate, share: [2]float64{0.15, 0.35}},
	{name: "204", answer: everyNth(4, func(w http.ResponseWriter) { w.WriteHeader(204) }), fails: errorRate, share: [2]float64{0.15, 0.35}},
	{name: "a redirect", answer: everyNth(4, statusOf(307, "text/plain", "", "Location", "/elsewhere")), fails: errorRate, share: [2]float64{0.15, 0.35}, class: recording.ErrorStatus, says: "/elsewhere"},
	{name: "a redirect for good", answer: everyNth(4, statusOf(308, "text/plain", "", "Location", "https://127.0.0.1:1/v1/")), fails: errorRate, share: [2]float64{0.15, 0.35}, class: recording.ErrorStatus, says: "https://127.0.0.1:1/v1/"},
	{name: "too many", answer: everyNth(4, statusOf(429, "application/json", `{"error":{"message":"slow down"}}`, "Retry-After", "1")), fails: errorRate, share: [2]float64{0.15, 0.35}, class: recording.ErrorLimited, says: "slow down",
		check: func(t *testing.T, _ checklist.Verdict, rows []recording.Request) {
			for _, r := range rows {
				if !r.OK() && !r.RefusedInOrder() {
					t.Errorf("%+v is not refused in order", r)
				}
			}
		}},
	{name: "broken off", answer: everyNth(4, func(w http.ResponseWriter) {
		raw(w, append([]string{"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"}, chunked(whole()[:4]...)[:4]...)...)
	}), fails: errorRate, share: [2]float64{0.15, 0.35}, class: recording.ErrorTruncated},
	{name: "words that paint over a terminal", answer: everyNth(4, statusOf(400, "application/json", `{"error":{"message":"\u001b[2Jquota\u0000 \u202egone"}}`)),
		fails: errorRate, share: [2]float64{0.15, 0.35}, says: `\x1b[2Jquota\x00 \u202egone`},

	// Sound answers in unusual forms.
	{name: "sound", answer: always(whole()...)},
	{name: "usage with every chunk", answer: always(strings.ReplaceAll(strings.Join(whole(), ""), `"finish_reason":null}]`, `"finish_reason":null}],"usage":{"prompt_tokens":9,"completion_tokens":1}`))},
	{name: "usage null with every chunk", answer: always(strings.ReplaceAll(strings.Join(whole(), ""), `"finish_reason":null}]`, `"finish_reason":null}],"usage":null`))},
	{name: "no usage", answer: always(append(whole()[:9:9], caseDone)...), check: func(t *testing.T, v checklist.Verdict, _ []recording.Request) {
		if !strings.Contains(fmt.Sprint(v.Why), "usage") {
			t.Errorf("nothing is said of the usage: %v", v.Why)
		}
	}},
	{name: "usage in the chunk of the end", answer: always(append(whole()[:8:8], strings.Replace(chunk("", "stop"), `"stop"}]`, `"stop"}],"usage":{"completion_tokens":8}`, 1), caseDone)...)},
	{name: "the end with the last token", answer: always(append(whole()[:7:7], strings.Replace(chunk("z", ""), "null", `"length"`, 1), caseUsage, caseDone)...)},
	{name: "an empty finish reason until the end", answer: always(eachOf(whole(), func(e string) string { return strings.ReplaceAll(e, "null", `""`) })...)},
	{name: "CRLF", answer: always(eachOf(whole(), func(e string) string { return strings.ReplaceAll(e, "\n", "\r\n") })...)},
	{name: "CR", answer: always(eachOf(whole(), func(e string) string { return strings.ReplaceAll(e, "\n", "\r") })...)},
	{name: "comments, ids and retries", answer: always(eachOf(whole(), func(e string) string { return ": keep-alive\n\nid: 7\nretry: 100\nevent: message\n" + e })...)},
	{name: "data of several lines", answer: always(eachOf(whole(), func(e string) string { return strings.Replace(e, `,"choices"`, "\ndata: ,\"choices\"", 1) })...)},
	{name: "no blank behind the colon", answer: always(eachOf(whole(), func(e string) string { return strings.Replace(e, "data: ", "data:", 1) })...)},
	{name: "a byte order mark", answer: always(with(whole(), 0, "\xef\xbb\xbf")...)},
	{name: "the last line without its end", answer: always(append(whole()[:10:10], "data: [DONE]")...)},
	{name: "letters cut in two", answer: func(w http.ResponseWriter, _ *http.Request, _ int64, _ string) {
		var parts []string
		for _, e := range whole() {
			e = strings.Replace(e, " w", "狗é", 1)
			half := strings.Index(e, "狗") + 2
			parts = append(parts, e[:max(half, 1)], e[max(half, 1):])
		}
		events(w, parts...)
	}},
	{name: "parts of content", answer: always(eachOf(whole(), func(e string) string {
		if i := strings.Index(e, `"content":`); i > 0 {
			j := strings.Index(e[i:], "}") + i
			return e[:i] + `"content":[{"type":"text","text":` + e[i+len(`"content":`):j] + "}]" + e[j:]
		}
		return e
	})...)},
	{name: "the role first, content null", answer: always(with(whole(), 0, "data: {\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":null},\"finish_reason\":null}]}\n\n")...)},
	{name: "a chunk of a filter first", answer: always(with(whole(), 0, "data: {\"choices\":[],\"prompt_filter_results\":[{\"prompt_index\":0}]}\n\n")...)},
	{name: "tool calls without text", answer: func(w http.ResponseWriter, _ *http.Request, _ int64, _ string) {
		call := func(args string) string {
			return fmt.Sprintf("data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":null,\"tool_calls\":[{\"index\":0,\"id\":\"t\",\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":%q}}]},\"finish_reason\":null}]}\n\n", args)
		}
		events(w, call("{"), call("\"a\""), call(":1"), call("}"), chunk("", "tool_calls"), caseUsage, caseDone)
	}},
	{name: "gzip", answer: func(w http.ResponseWriter, _ *http.Request, _ int64, _ string) {
		w.Header().Set("Content-Type", "text/event-stream")
		w.Header().Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(w)
		for _, e := range whole() {
			time.Sleep(caseWait)
			_, _ = io.WriteString(z, e)
			_ = z.Flush()
			w.(http.Flusher).Flush()
		}
		_ = z.Close()
	}},
	{name: "a connection for each", answer: func(w http.ResponseWriter, _ *http.Request, _ int64, _ string) {
		w.Header().Set("Connection", "close")
		events(w, whole()...)
	}},
	{name: "HTTP/1.0", answer: func(w http.ResponseWriter, _ *http.Request, _ int64, _ string) {
		raw(w, append([]string{"HTTP/1.0 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"}, whole()...)...)
	}},
	{name: "trailers and extensions of chunks", answer: func(w http.ResponseWriter, _ *http.Request, _ int64, _ string) {
		parts := chunked(whole()...)
		parts[0] = strings.Replace(parts[0], "\r\n", ";a=b\r\n", 1)
		raw(w, append(append([]string{"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\nTrailer: X-Checksum\r\n\r\n"}, parts...), "X-Checksum: 1\r\n\r\n")...)
	}},
	{name: "an answer in one piece where a stream was asked for", answer: everyNth(4, statusOf(200, "application/json",
		`{"choices":[{"index":0,"message":{"role":"assistant","content":"a b"},"finish_reason":"stop"}],"usage":{"prompt_tokens":9,"completion_tokens":8}}`)),
		fails: errorRate, share: [2]float64{0.15, 0.35}, says: "stream"},
	{name: "the end lingers", answer: func(w http.ResponseWriter, r *http.Request, _ int64, _ string) {
		events(w, whole()...)
		select {
		case <-r.Context().Done():
		case <-time.After(4 * time.Second):
		}
	}},
	{name: "an interim answer first", answer: func(w http.ResponseWriter, _ *http.Request, _ int64, _ string) {
		w.Header().Set("Link", "</style.css>; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
		events(w, whole()...)
	}},

	// Text that a reader does not see.
	{name: "hidden reasoning", answer: func(w http.ResponseWriter, _ *http.Request, _ int64, _ string) {
		for i := range 8 {
			time.Sleep(20 * time.Millisecond)
			events(w, chunk(fmt.Sprintf(" w%d", i), ""))
		}
		events(w, chunk("", "stop"), "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":408,\"completion_tokens_details\":{\"reasoning_tokens\":400}}}\n\n", caseDone)
	}, fails: []string{"p50(tpot)"}, tokens: 8},

	// The request that is sent is the one that the gate asks for.
	{name: "a base path", path: "/v1beta/openai/", answer: func(w http.ResponseWriter, r *http.Request, _ int64, _ string) {
		if r.URL.Path != "/v1beta/openai/chat/completions" {
			http.NotFound(w, r)
			return
		}
		events(w, whole()...)
	}},
	{name: "Azure", path: "/openai/deployments/gpt-4o", endpoint: `, query: {api-version: "2024-10-21"}, headers: {api-key: "${CASE_KEY}"}`, answer: func(w http.ResponseWriter, r *http.Request, _ int64, _ string) {
		if r.URL.RequestURI() != "/openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21" || r.Header.Get("api-key") != "secret" {
			statusOf(401, "application/json", `{"error":{"message":"no key or version"}}`)(w)
			return
		}
		events(w, whole()...)
	}},
	{name: "max_completion_tokens", workload: `, fields: {max_completion_tokens: "${max_tokens}", max_tokens: null, temperature: null}`, answer: func(w http.ResponseWriter, _ *http.Request, _ int64, body string) {
		if strings.Contains(body, `"max_tokens"`) || strings.Contains(body, "temperature") || !strings.Contains(body, `"max_completion_tokens":`) {
			statusOf(400, "application/json", `{"error":{"message":"Unsupported parameter"}}`)(w)
			return
		}
		events(w, whole()...)
	}},
	{name: "a model with a slash", answer: func(w http.ResponseWriter, r *http.Request, _ int64, body string) {
		if !strings.Contains(body, `"model":"org/model-7b"`) {
			http.NotFound(w, r)
			return
		}
		events(w, whole()...)
	}},
	{name: "responses of sixteen tokens at the least", workload: ", api: responses", answer: func(w http.ResponseWriter, _ *http.Request, _ int64, body string) {
		if !strings.Contains(body, `"max_output_tokens":16`) {
			statusOf(400, "application/json", `{"error":{"message":"Expected a value >= 16"}}`)(w)
			return
		}
		var all []string
		for range 8 {
			all = append(all, "event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"delta\":\" a\"}\n\n")
		}
		events(w, append(all, "event: response.completed\ndata: {\"type\":\"response.completed\",\"response\":{\"status\":\"completed\",\"usage\":{\"input_tokens\":9,\"output_tokens\":8}}}\n\n")...)
	}},
	{name: "a model that is still loading", answer: func() func(http.ResponseWriter, *http.Request, int64, string) {
		return func(w http.ResponseWriter, _ *http.Request, n int64, _ string) {
			if n <= 2 {
				statusOf(503, "application/json", `{"error":{"message":"Loading model","type":"unavailable_error","code":503}}`)(w)
				return
			}
			events(w, whole()...)
		}
	}()},
}

func eachOf(all []string, f func(string) string) []string {
	out := make([]string, len(all))
	for i, e := range all {
		out[i] = f(e)
	}
	return out
}

// oddServer lists its models and answers as its case does.
func oddServer(c oddCase) *httptest.Server {
	var asked atomic.Int64
	return httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(bufio.NewReader(r.Body))
		if strings.HasSuffix(r.URL.Path, "/models") {
			_, _ = io.WriteString(w, `{"object":"list","data":[{"id":"org/model-7b","object":"model"}]}`)
			return
		}
		if r.Method != http.MethodPost {
			http.NotFound(w, r)
			return
		}
		n := asked.Add(1)
		if c.class+c.says != "" && n <= 3 { // the preflight and warm-up requests are answered soundly
			events(w, whole()...)
			return
		}
		c.answer(w, r, n, string(body))
	}))
}

func TestOddServices(t *testing.T) {
	if testing.Short() {
		t.Skip("plays fifty gates of 3 s, ten at a time")
	}
	t.Setenv("CASE_KEY", "secret")
	dir := t.TempDir()
	var mu sync.Mutex
	slots := make(chan struct{}, 10)
	var all sync.WaitGroup
	for _, c := range oddCases {
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			srv := oddServer(c)
			defer srv.Close()
			defer srv.CloseClientConnections()
			v, rows, err := playOdd(t, srv.URL+c.path, filepath.Join(dir, strings.ReplaceAll(c.name, "/", "-")), c)
			mu.Lock()
			defer mu.Unlock()
			t.Run(c.name, func(t *testing.T) {
				if err != nil {
					t.Fatal(err)
				}
				c.judged(t, v, rows)
			})
		})
	}
	all.Wait()
}

func playOdd(t *testing.T, url, dir string, c oddCase) (v checklist.Verdict, rows []recording.Request, err error) {
	gate, err := scenarios.Parse("gate.yaml", fmt.Appendf(nil, oddGate, url, c.endpoint, c.workload, caseFor, caseRate))
	if err != nil {
		return v, nil, err
	}
	if err := Run(t.Context(), Options{Gate: gate, Dir: dir, Version: "test", Tell: func(Progress) {}}); err != nil {
		return v, nil, err
	}
	rec, err := recording.Open(dir)
	if err != nil {
		return v, nil, err
	}
	for r, err := range rec.Requests {
		if err != nil {
			return v, nil, err
		}
		if r.Kind == recording.KindLoad {
			rows = append(rows, r)
		}
	}
	v, err = checklist.Judge(gate, rec)
	return v, rows, err
}

// judged checks the verdict on the service. Objectives of time are not checked on a
// busy machine, except those that the defect should fail.
func (c oddCase) judged(t *testing.T, v checklist.Verdict, rows []recording.Request) {
	failed, said := 0, fmt.Sprint(v.Why)
	for _, r := range rows {
		if !r.OK() {
			failed++
			said += fmt.Sprintf(" %s: %s", r.Error, r.Why())
			if c.class != "" && r.Error != c.class {
				t.Errorf("request %d failed as %s (%s), want %s", r.Seq, r.Error, r.ErrorText, c.class)
				break
			}
			continue
		}
		want := c.tokens
		if want == 0 {
			want = 8
		}
		if r.VisibleTokens() != want {
			t.Errorf("request %d has %d tokens from %s, want %d", r.Seq, r.VisibleTokens(), r.TokensFrom, want)
			break
		}
	}
	share := float64(failed) / float64(len(rows))
	if len(rows) != caseRate*caseFor || share < c.share[0] || share > c.share[1] {
		t.Errorf("%d of %d failed (%.600s)", failed, len(rows), said)
	}
	if !strings.Contains(said, c.says) {
		t.Errorf("it is said: %.600s; want %q", said, c.says)
	}
	for _, f := range v.Objectives {
		name, _, _ := strings.Cut(f.Source, " ")
		fails := false
		for _, want := range c.fails {
			fails = fails || want == name
		}
		if fails != (f.Verdict == checklist.Fail) && v.Client.Valid && (fails || name == "error_rate") {
			t.Errorf("%s: %s: %s", f.Source, f.Verdict, f.Why)
		}
	}
	if c.check != nil {
		c.check(t, v, rows)
	}
}
