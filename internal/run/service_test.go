package run

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// question is a request to a planted service.
type question struct {
	n         int64 // its number among all requests
	prompt    string
	maxTokens int
	since     time.Duration // time since the service's start

	api         string // chat or completions
	key         string // the key of the client
	whole       bool   // not streamed
	fresh       bool   // the first on its connection
	temperature float64
	beside      int64 // other requests that are being answered
	crowd       bool  // other requests came within the last half second
}

// answer is how the service answers: soundly, until a defect changes it.
type answer struct {
	status  int
	kind    string          // the content type
	raw     string          // the body, in place of everything below
	tokens  []string        // each in a chunk of its own
	wait    []time.Duration // before each
	role    bool            // a chunk with the role alone comes at once
	buffer  bool            // nothing is flushed before the end
	cut     int             // the connection is closed after so many tokens; 0: never
	inBand  int             // an error is sent after so many tokens; 0: never
	finish  string
	done    bool   // [DONE] is sent
	of      string // the prompt
	usage   int
	prompt  int // tokens of the prompt in usage
	noUsage bool
	hang    bool // there is no answer at all
}

// planted is a service with at most one flaw. Its answers are derived from the prompt,
// so that the same question has the same answer.
type planted struct {
	defect func(s *planted, q question, a *answer)
	// before is called before each answer, and may wait.
	before func(s *planted, q question)
	slots  chan struct{} // limit of concurrent answers; nil: none

	started time.Time
	asked   atomic.Int64
	under   atomic.Int64                  // being answered
	answers []*answer                     // earlier answers, the newest last: at most 200
	health  func(since time.Duration) int // the status of /health; nil: 200
	alters  func(n int, o map[string]any) // changes a background response after it has been acknowledged
	latest  []time.Time                   // times of requests, the newest last: at most 4
	echoes  bool                          // answers begin with the mark of their prompt
	without []string                      // paths that the service lacks
	memory  atomic.Int64                  // memory that it reports
	mu      sync.Mutex
	cache   map[string]bool
	last    []string // tokens of the previous answer
	free    time.Time
	// These are for background responses. loses says which of them it forgets after it
	// has acknowledged them; none means that it has no background responses.
	records map[string]any
	written int
	loses   func(n int) bool
	none    bool
	counts  func(n int) int // what /tokenize makes of the true number of tokens; nil: that number
	file    bool            // its gate names the file of its tokenizer
	bare    bool            // it has neither /tokenize nor /metrics
	// replicas is how many replicas it reports as ready after a time; nil: it reports
	// none.
	replicas func(since time.Duration) int
}

const (
	firstWait = 15 * time.Millisecond
	tokenWait = 4 * time.Millisecond
)

func newPlanted() *planted {
	s := &planted{started: time.Now(), cache: map[string]bool{}, records: map[string]any{}, replicas: func(time.Duration) int { return 3 }}
	s.memory.Store(200 << 20)
	return s
}

var vocabulary = strings.Fields("the a one two red blue small big house tree river bird dog cat sun moon walks runs sings sleeps under over beside slowly quickly today and then")

// sound is the answer of a service without a flaw.
func sound(q question) *answer {
	h := fnv.New64a()
	_, _ = io.WriteString(h, q.prompt)
	rng := rand.New(rand.NewPCG(h.Sum64(), 1))
	if q.temperature > 0 {
		rng = rand.New(rand.NewPCG(h.Sum64(), uint64(q.n)))
	}
	a := &answer{status: http.StatusOK, kind: "text/event-stream", role: true, finish: "length", done: true, usage: q.maxTokens, prompt: len(strings.Fields(q.prompt)) + 5}
	for i := range q.maxTokens {
		a.tokens = append(a.tokens, " "+vocabulary[rng.IntN(len(vocabulary))])
		a.wait = append(a.wait, tokenWait)
		if i == 0 {
			a.wait[0] = firstWait
		}
	}
	return a
}

func (s *planted) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	if record, is := strings.CutPrefix(r.URL.Path, "/v1/responses"); is && !s.none {
		s.record(w, strings.TrimPrefix(record, "/"), body)
		return
	}
	if slices.Contains(s.without, r.URL.Path) {
		http.NotFound(w, r)
		return
	}
	if s.bare && (r.URL.Path == "/tokenize" || r.URL.Path == "/metrics") {
		http.NotFound(w, r)
		return
	}
	switch r.URL.Path {
	case "/ready":
		if s.replicas == nil {
			http.NotFound(w, r)
			return
		}
		fmt.Fprintf(w, `{"status":"ready","replicas":%d}`, s.replicas(time.Since(s.started)))
	case "/health":
		if s.health != nil {
			w.WriteHeader(s.health(time.Since(s.started)))
		}
		fmt.Fprint(w, "ok")
	case "/v1/models":
		fmt.Fprint(w, `{"data":[{"id":"planted"}]}`)
	case "/metrics":
		fmt.Fprintf(w, "# TYPE process_resident_memory_bytes gauge\nprocess_resident_memory_bytes %d\n", s.memory.Load())
	case "/tokenize":
		var q struct {
			Prompt string `json:"prompt"`
		}
		_ = json.Unmarshal(body, &q)
		n := len(strings.Fields(q.Prompt))
		if s.counts != nil {
			n = s.counts(n)
		}
		fmt.Fprintf(w, `{"count":%d}`, n)
	default:
		s.answer(w, r, body)
	}
}

// record stores a background response or, without a body, reads one back. Its answer is
// complete at once, because the test is only about whether it is kept.
func (s *planted) record(w http.ResponseWriter, id string, body []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	if id != "" {
		o, has := s.records[id]
		if !has {
			w.WriteHeader(http.StatusNotFound)
			o = map[string]any{"error": map[string]any{"message": "there is no response " + id}}
		}
		_ = json.NewEncoder(w).Encode(o)
		return
	}
	var q struct {
		Metadata  map[string]string          `json:"metadata"`
		MaxTokens int                        `json:"max_output_tokens"`
		Input     []struct{ Content string } `json:"input"`
	}
	_ = json.Unmarshal(body, &q)
	s.written++
	id = fmt.Sprintf("resp_%d", s.written)
	o := map[string]any{"id": id, "status": "queued", "background": true, "metadata": q.Metadata}
	_ = json.NewEncoder(w).Encode(o)
	if s.loses != nil && s.loses(s.written) {
		return
	}
	o["status"], o["output"] = "completed", []any{map[string]any{"content": []any{map[string]any{"type": "output_text", "text": strings.Join(sound(question{prompt: q.Input[0].Content, maxTokens: q.MaxTokens}).tokens, "")}}}}
	o["usage"] = map[string]any{"output_tokens": q.MaxTokens}
	if s.alters != nil {
		s.alters(s.written, o)
	}
	s.records[id] = o
}

// recordText is where the text of a background response is.
func recordText(o map[string]any) map[string]any {
	return o["output"].([]any)[0].(map[string]any)["content"].([]any)[0].(map[string]any)
}

func (s *planted) answer(w http.ResponseWriter, r *http.Request, body []byte) {
	var req struct {
		Messages    []struct{ Content string } `json:"messages"`
		Prompt      string                     `json:"prompt"`
		MaxTokens   int                        `json:"max_tokens"`
		Stream      bool                       `json:"stream"`
		Temperature float64                    `json:"temperature"`
	}
	if err := json.Unmarshal(body, &req); err != nil || len(req.Messages) == 0 && req.Prompt == "" {
		http.Error(w, "what?", http.StatusBadRequest)
		return
	}
	q := question{
		n: s.asked.Add(1), prompt: req.Prompt, maxTokens: req.MaxTokens, since: time.Since(s.started), api: "completions",
		key: r.Header.Get("Authorization"), whole: !req.Stream, temperature: req.Temperature, beside: s.under.Add(1) - 1,
	}
	defer s.under.Add(-1)
	s.mu.Lock()
	if s.latest = append(s.latest, time.Now()); len(s.latest) > 4 {
		s.latest = s.latest[1:]
		q.crowd = time.Since(s.latest[0]) < 500*time.Millisecond
	}
	s.mu.Unlock()
	if len(req.Messages) > 0 {
		q.api, q.prompt = "chat", req.Messages[len(req.Messages)-1].Content
	}
	if nth, ok := r.Context().Value(nthOfConnection{}).(*atomic.Int64); ok {
		q.fresh = nth.Add(1) == 1
	}
	if s.before != nil {
		s.before(s, q)
	}
	if s.slots != nil {
		select {
		case s.slots <- struct{}{}:
			defer func() { <-s.slots }()
		case <-r.Context().Done():
			return
		}
	}
	a := sound(q)
	if _, mark, has := strings.Cut(q.prompt, "(Reference: "); has && s.echoes && len(a.tokens) > 0 {
		a.tokens[0] = strings.SplitN(mark, ".", 2)[0] + ":"
	}
	if s.defect != nil {
		s.defect(s, q, a)
	}
	s.mu.Lock()
	kept := *a
	kept.of = q.prompt
	kept.tokens = slices.Clone(a.tokens)
	if s.answers = append(s.answers, &kept); len(s.answers) > 200 {
		s.answers = s.answers[1:]
	}
	s.mu.Unlock()
	if q.whole && a.raw == "" && !a.hang {
		s.sendWhole(w, r, q, a)
		return
	}
	s.send(w, r, q, a)
}

// nthOfConnection is the context key for the number of a request on its connection.
type nthOfConnection struct{}

// sendWhole sends an answer that is not streamed.
func (s *planted) sendWhole(w http.ResponseWriter, r *http.Request, q question, a *answer) {
	for _, wait := range a.wait {
		select {
		case <-time.After(wait):
		case <-r.Context().Done():
			return
		}
	}
	choice := map[string]any{"index": 0, "finish_reason": a.finish, "text": strings.Join(a.tokens, "")}
	if q.api == "chat" {
		choice["message"] = map[string]any{"role": "assistant", "content": choice["text"]}
		delete(choice, "text")
	}
	o := map[string]any{"choices": []any{choice}}
	if !a.noUsage {
		o["usage"] = map[string]any{"prompt_tokens": a.prompt, "completion_tokens": a.usage}
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(a.status)
	_ = json.NewEncoder(w).Encode(o)
}

// send streams an answer as vLLM does.
func (s *planted) send(w http.ResponseWriter, r *http.Request, q question, a *answer) {
	if a.hang {
		<-r.Context().Done()
		return
	}
	w.Header().Set("Content-Type", a.kind)
	w.WriteHeader(a.status)
	if a.raw != "" {
		_, _ = io.WriteString(w, a.raw)
		return
	}
	flush := func() {
		if !a.buffer {
			w.(http.Flusher).Flush()
		}
	}
	if a.role && q.api == "chat" {
		fmt.Fprint(w, "data: {\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"finish_reason\":null}]}\n\n")
		flush()
	}
	for i, token := range a.tokens {
		select {
		case <-time.After(a.wait[i]):
		case <-r.Context().Done():
			return
		}
		content, _ := json.Marshal(token)
		if q.api == "chat" {
			fmt.Fprintf(w, "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":%s},\"finish_reason\":null}]}\n\n", content)
		} else {
			fmt.Fprintf(w, "data: {\"choices\":[{\"index\":0,\"text\":%s,\"finish_reason\":null}]}\n\n", content)
		}
		flush()
		if a.cut == i+1 {
			if hijacker, ok := w.(http.Hijacker); ok {
				if conn, _, err := hijacker.Hijack(); err == nil {
					if tcp, ok := conn.(*net.TCPConn); ok {
						_ = tcp.SetLinger(0)
					}
					conn.Close()
				}
			}
			return
		}
		if a.inBand == i+1 {
			fmt.Fprint(w, "data: {\"error\":{\"message\":\"CUDA out of memory\",\"type\":\"server_error\"}}\n\ndata: [DONE]\n\n")
			return
		}
	}
	if a.finish != "" {
		fmt.Fprintf(w, "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":%q}]}\n\n", a.finish)
	}
	if !a.noUsage {
		fmt.Fprintf(w, "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":%d,\"completion_tokens\":%d}}\n\n", a.prompt, a.usage)
	}
	if a.done {
		fmt.Fprint(w, "data: [DONE]\n\n")
	}
}
