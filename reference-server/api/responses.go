package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/launchgate/launchgate/reference-server/engine"
)

// Background responses are kept for a limited time after they have ended, and
// their number is limited. A client that never fetches its answers must not
// fill the memory.
const (
	responsesKept = 1000
	responseKept  = time.Hour

	// The OpenAI API's bounds.
	maxMetadata      = 16
	maxMetadataName  = 64
	maxMetadataValue = 512
)

// responsesRequest is the body of POST /v1/responses. Unsupported keys that
// would change the answer are refused.
type responsesRequest struct {
	Model        string            `json:"model"`
	Input        json.RawMessage   `json:"input"` // a text, or a list of messages
	Instructions string            `json:"instructions"`
	MaxTokens    *int              `json:"max_output_tokens"`
	Temperature  *float64          `json:"temperature"`
	TopP         *float64          `json:"top_p"`
	Stream       bool              `json:"stream"`
	Background   bool              `json:"background"`
	Metadata     map[string]string `json:"metadata"`
	Tools        json.RawMessage   `json:"tools"`
	Previous     string            `json:"previous_response_id"`
}

// chat is the same request as a chat completion.
func (q responsesRequest) chat() (request, error) {
	switch {
	case len(q.Tools) > 0 && string(q.Tools) != "null" && string(q.Tools) != "[]":
		return request{}, errors.New("tools are not supported")
	case q.Previous != "":
		return request{}, errors.New("previous_response_id is not supported; send the earlier turns as input")
	case len(q.Metadata) > maxMetadata:
		return request{}, fmt.Errorf("metadata has %d names; up to %d are possible", len(q.Metadata), maxMetadata)
	case q.Stream && q.Background:
		return request{}, errors.New("a background response cannot be streamed here; poll it")
	}
	for name, value := range q.Metadata { // the metadata is kept with a background response
		if len(name) > maxMetadataName || len(value) > maxMetadataValue {
			return request{}, fmt.Errorf("metadata: a name has up to %d bytes and its text up to %d", maxMetadataName, maxMetadataValue)
		}
	}
	c := request{Model: q.Model, MaxTokens: q.MaxTokens, Temperature: q.Temperature, TopP: q.TopP}
	add := func(role string, content json.RawMessage) { c.Messages = append(c.Messages, message{role, content}) }
	if q.Instructions != "" {
		text, _ := json.Marshal(q.Instructions)
		add("system", text)
	}
	switch kindOf(q.Input) {
	case '"':
		add("user", q.Input)
		return c, nil
	case '[':
	default:
		return c, errors.New("input must be a text or a list of messages")
	}
	var input struct {
		Items []item `json:"input"`
	}
	if err := fill(q.Input, reflect.ValueOf(&input).Elem().Field(0), "input"); err != nil {
		return c, err
	}
	for i, it := range input.Items {
		if it.Type != "" && it.Type != "message" {
			return c, fmt.Errorf("input[%d] is of type %.40q; message is possible", i, it.Type)
		}
		add(it.Role, it.Content)
	}
	return c, nil
}

// item is one element of an input list.
type item struct {
	Type    string          `json:"type"`
	Role    string          `json:"role"`
	Content json.RawMessage `json:"content"`
}

// response is an answer, under way or ended, that GET /v1/responses/{id}
// returns.
type response struct {
	mu       sync.Mutex
	id       string
	tenant   string // whose it is
	model    string
	created  time.Time
	metadata map[string]string
	stop     context.CancelFunc // of a background response
	status   string             // queued, in_progress, completed, incomplete, failed, cancelled
	text     strings.Builder
	usage    engine.Usage
	problem  *problem
	reason   string // why it is incomplete
	ended    time.Time
}

// take adds an event, and reports whether it was the last.
func (r *response) take(ev engine.Event) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.status == "cancelled":
	case ev.Err != nil:
		p := problemOf(ev.Err)
		r.status, r.problem = "failed", &p
	case ev.Finish == engine.FinishLength:
		r.status, r.reason = "incomplete", "max_output_tokens"
	case ev.Finish != "":
		r.status = "completed"
	default:
		r.status = "in_progress"
	}
	r.text.WriteString(ev.Text)
	if ev.Usage != (engine.Usage{}) {
		r.usage = ev.Usage
	}
	last := ev.Err != nil || ev.Finish != ""
	if last {
		r.ended = time.Now()
	}
	return last
}

// message is the output message of the response.
func (r *response) message(text string) map[string]any {
	status := "completed"
	if r.status == "in_progress" || r.status == "incomplete" {
		status = r.status
	}
	return map[string]any{"id": "msg_" + r.id, "type": "message", "role": "assistant", "status": status, "content": []any{outputText(text)}}
}

func outputText(text string) map[string]any {
	return map[string]any{"type": "output_text", "text": text, "annotations": []any{}}
}

// json is the response object of the OpenAI API.
func (r *response) json() map[string]any {
	r.mu.Lock()
	defer r.mu.Unlock()
	o := map[string]any{
		"id": r.id, "object": "response", "created_at": r.created.Unix(), "model": r.model, "status": r.status, "metadata": r.metadata,
		"background": r.stop != nil, "output": []any{}, "error": nil, "incomplete_details": nil, "usage": nil,
		"parallel_tool_calls": false, "tool_choice": "none", "tools": []any{}, "instructions": nil,
	}
	if r.text.Len() > 0 || r.status == "completed" {
		o["output"] = []any{r.message(r.text.String())}
	}
	if r.problem != nil {
		o["error"] = map[string]any{"code": r.problem.code, "message": r.problem.text}
	}
	if r.reason != "" {
		o["incomplete_details"] = map[string]any{"reason": r.reason}
	}
	if !r.ended.IsZero() {
		o["usage"] = map[string]any{
			"input_tokens": r.usage.Prompt, "input_tokens_details": map[string]any{"cached_tokens": r.usage.Cached},
			"output_tokens": r.usage.Output, "output_tokens_details": map[string]any{"reasoning_tokens": 0},
			"total_tokens": r.usage.Prompt + r.usage.Output,
		}
	}
	return o
}

// responses are the background responses that clients can fetch.
type responses struct {
	mu      sync.Mutex
	byID    map[string]*response
	order   []string // the oldest first
	running sync.WaitGroup
}

// keep stores a response and forgets old ones that have ended.
func (k *responses) keep(r *response) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	var order []string
	for _, id := range k.order {
		old := k.byID[id]
		old.mu.Lock()
		ended := !old.ended.IsZero()
		forget := ended && (time.Since(old.ended) > responseKept || len(k.order) >= responsesKept && len(order) == 0)
		old.mu.Unlock()
		if forget {
			delete(k.byID, id)
		} else {
			order = append(order, id)
		}
	}
	k.order = order
	if len(k.order) >= responsesKept {
		return problem{http.StatusTooManyRequests, "too_many_background", fmt.Sprintf("%d background responses are under way already", len(k.order)), 5 * time.Second}
	}
	k.order = append(k.order, r.id)
	k.byID[r.id] = r
	return nil
}

func (k *responses) get(r *http.Request) (*response, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	id := r.PathValue("id")
	if resp, ok := k.byID[id]; ok && resp.tenant == callerOf(r.Context()).Tenant {
		return resp, nil
	}
	return nil, problem{http.StatusNotFound, "response_not_found", fmt.Sprintf("there is no response %.80q; only background responses are stored, for an hour after they end and as long as this server lives", id), 0}
}

func (k *responses) forget(id string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.byID, id)
	for i, x := range k.order {
		if x == id {
			k.order = append(k.order[:i], k.order[i+1:]...)
			return
		}
	}
}

// respond serves POST /v1/responses.
func (s *Server) respond(w http.ResponseWriter, r *http.Request) {
	a := answer{chat: true, began: time.Now(), id: newID("resp_")}
	w.Header().Set("X-Request-Id", a.id)
	counted := s.accounts.open(r)
	defer counted.close()
	status := "ok"
	defer func() { s.metrics.answered(a, status) }()
	refuse := func(err error) {
		p := problemOf(err)
		status = fmt.Sprint(p.status)
		fail(w, p)
	}
	var q responsesRequest
	if err := readJSON(w, r, &q); err != nil {
		refuse(err)
		return
	}
	chat, err := q.chat()
	if err != nil {
		refuse(err)
		return
	}
	e, release, err := s.use(r, q.Model)
	if err != nil {
		refuse(err)
		return
	}
	a.model = e.Info().Model
	resp := &response{id: a.id, tenant: callerOf(r.Context()).Tenant, model: a.model, created: a.began, metadata: q.Metadata, status: "queued"}
	ctx, stop := r.Context(), context.CancelFunc(nil)
	if q.Background { // it continues after its client has left
		ctx, stop = context.WithCancel(context.WithoutCancel(ctx))
		resp.stop = stop
	}
	streams, tokens, err := submit(ctx, chat, e, request.chatPrompt)
	if err == nil && q.Background {
		err = s.responses.keep(resp)
	}
	if err != nil {
		if stop != nil {
			stop()
		}
		release()
		refuse(err)
		return
	}
	if q.Background {
		s.responses.running.Go(func() {
			defer release()
			defer stop()
			s.follow(resp, streams[0], a, nil)
		})
		writeJSON(w, http.StatusOK, resp.json())
		return
	}
	defer release()
	defer func() { counted.saw(0, resp.usage) }()
	w.Header().Set(HeaderPrompt, strconv.Itoa(tokens))
	if q.Stream {
		err = s.streamResponse(w, resp, streams[0], a)
	} else {
		err = s.follow(resp, streams[0], a, nil)
		if resp.problem != nil {
			fail(w, *resp.problem)
		} else {
			writeJSON(w, http.StatusOK, resp.json())
		}
	}
	if err != nil {
		status = "error"
	}
}

// follow reads an answer to its end and calls each, which may be nil, for every
// event.
func (s *Server) follow(resp *response, stream *engine.Stream, a answer, each func(engine.Event)) error {
	for first := true; ; first = false {
		// The engine ends the stream when the request's context does.
		ev, err := stream.Next(context.Background())
		if err != nil {
			ev = engine.Event{Err: err}
		}
		if first && ev.Err == nil {
			s.metrics.firstToken(a)
		}
		last := resp.take(ev)
		if each != nil {
			each(ev)
		}
		if last {
			if ev.Err == nil {
				s.metrics.tokens(a, ev.Usage)
			}
			return ev.Err
		}
	}
}

// streamResponse sends the events of the Responses API.
func (s *Server) streamResponse(w http.ResponseWriter, resp *response, stream *engine.Stream, a answer) error {
	out := &events{w: w, flush: http.NewResponseController(w)}
	out.begin()
	sequence := 0
	send := func(kind string, fields map[string]any) {
		fields["type"], fields["sequence_number"] = kind, sequence
		sequence++
		if out.err == nil {
			_, out.err = fmt.Fprintf(w, "event: %s\n", kind)
		}
		out.send(fields)
	}
	place := func(fields map[string]any) map[string]any {
		fields["item_id"], fields["output_index"], fields["content_index"] = "msg_"+resp.id, 0, 0
		return fields
	}
	send("response.created", map[string]any{"response": resp.json()})
	send("response.in_progress", map[string]any{"response": resp.json()})
	item := resp.message("")
	item["content"], item["status"] = []any{}, "in_progress"
	send("response.output_item.added", map[string]any{"output_index": 0, "item": item})
	send("response.content_part.added", place(map[string]any{"part": outputText("")}))
	out.doFlush()
	err := s.follow(resp, stream, a, func(ev engine.Event) {
		if ev.Text != "" {
			send("response.output_text.delta", place(map[string]any{"delta": ev.Text}))
			out.doFlush()
		}
	})
	if err != nil {
		send("response.failed", map[string]any{"response": resp.json()})
	} else {
		text := resp.text.String()
		send("response.output_text.done", place(map[string]any{"text": text}))
		send("response.content_part.done", place(map[string]any{"part": outputText(text)}))
		send("response.output_item.done", map[string]any{"output_index": 0, "item": resp.message(text)})
		send("response."+resp.status, map[string]any{"response": resp.json()})
	}
	out.doFlush()
	return errors.Join(err, out.err)
}

// getResponse serves GET /v1/responses/{id}.
func (s *Server) getResponse(w http.ResponseWriter, r *http.Request) {
	resp, err := s.responses.get(r)
	if err != nil {
		fail(w, problemOf(err))
		return
	}
	writeJSON(w, http.StatusOK, resp.json())
}

// cancelResponse stops a background response. One that has ended stays as it is.
func (s *Server) cancelResponse(w http.ResponseWriter, r *http.Request) {
	resp, err := s.responses.get(r)
	if err != nil {
		fail(w, problemOf(err))
		return
	}
	resp.mu.Lock()
	if resp.ended.IsZero() {
		resp.status, resp.ended = "cancelled", time.Now()
	}
	resp.mu.Unlock()
	resp.stop()
	writeJSON(w, http.StatusOK, resp.json())
}

// deleteResponse stops and forgets a background response.
func (s *Server) deleteResponse(w http.ResponseWriter, r *http.Request) {
	resp, err := s.responses.get(r)
	if err != nil {
		fail(w, problemOf(err))
		return
	}
	resp.stop()
	s.responses.forget(resp.id)
	writeJSON(w, http.StatusOK, map[string]any{"id": resp.id, "object": "response", "deleted": true})
}

// Wait returns when no background response is being computed. It is called
// after the pool is closed, which ends them.
func (s *Server) Wait() { s.responses.running.Wait() }
