package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/launchgate/launchgate/reference-server/engine"
)

// answer is a completion under way.
type answer struct {
	chat         bool
	id           string
	created      int64
	model        string
	includeUsage bool
	began        time.Time
}

func (s *Server) chat(w http.ResponseWriter, r *http.Request, e *engine.Engine) {
	s.complete(w, r, e, true, func(q request) ([]int32, error) {
		messages, err := q.chatMessages()
		if err != nil {
			return nil, err
		}
		return e.ChatPrompt(messages)
	})
}

func (s *Server) completion(w http.ResponseWriter, r *http.Request, e *engine.Engine) {
	s.complete(w, r, e, false, func(q request) ([]int32, error) { return q.promptTokens(e) })
}

// complete is the life of a request: read, submit, and send what comes.
func (s *Server) complete(w http.ResponseWriter, r *http.Request, e *engine.Engine, chat bool, prompt func(request) ([]int32, error)) {
	a := answer{chat: chat, created: time.Now().Unix(), model: e.Info().Model, began: time.Now()}
	a.id = "cmpl-" + strconv.FormatUint(s.ids.Add(1), 36) + strconv.FormatInt(a.began.UnixNano(), 36)
	if chat {
		a.id = "chat" + a.id
	}
	w.Header().Set("X-Request-Id", a.id)
	status := "ok"
	defer func() { s.metrics.answered(a, status) }()

	q, stream, err := s.submit(w, r, e, prompt)
	if err != nil {
		p := problemOf(err)
		status = strconv.Itoa(p.status)
		s.log.Debug("refused", "id", a.id, "status", p.status, "why", p.text)
		fail(w, p)
		return
	}
	a.includeUsage = q.StreamOptions != nil && q.StreamOptions.IncludeUsage
	if q.Stream {
		err = s.sendStream(w, r.Context(), stream, a)
	} else {
		err = s.sendWhole(w, r.Context(), stream, a)
	}
	if err != nil {
		status = "error"
		if r.Context().Err() != nil {
			status = "cancelled"
		}
		s.log.Info("not answered to the end", "id", a.id, "status", status, "why", err)
	}
}

func (s *Server) submit(w http.ResponseWriter, r *http.Request, e *engine.Engine, prompt func(request) ([]int32, error)) (request, *engine.Stream, error) {
	q, err := readRequest(w, r, e)
	if err != nil {
		return q, nil, err
	}
	ids, err := prompt(q)
	if err != nil {
		return q, nil, err
	}
	req, err := q.engineRequest(ids)
	if err != nil {
		return q, nil, err
	}
	stream, err := e.Submit(r.Context(), req)
	return q, stream, err
}

// sendWhole answers with one JSON object.
func (s *Server) sendWhole(w http.ResponseWriter, ctx context.Context, stream *engine.Stream, a answer) error {
	var text strings.Builder
	for first := true; ; first = false {
		ev, err := next(ctx, stream)
		if err != nil {
			fail(w, problemOf(err))
			return err
		}
		if first {
			s.metrics.firstToken(a)
		}
		text.WriteString(ev.Text)
		if ev.Finish == "" {
			continue
		}
		s.metrics.tokens(a, ev.Usage)
		writeJSON(w, http.StatusOK, a.whole(text.String(), ev))
		return nil
	}
}

// sendStream answers with server-sent events: the role, a chunk for every
// token that has text, the finish reason, the usage if it was asked for, [DONE].
func (s *Server) sendStream(w http.ResponseWriter, ctx context.Context, stream *engine.Stream, a answer) error {
	out := &events{w: w, flush: http.NewResponseController(w)}
	for first := true; ; first = false {
		ev, err := next(ctx, stream)
		if err != nil && first {
			fail(w, problemOf(err)) // nothing was sent yet, so the status can tell
			return err
		}
		if err != nil {
			out.send(problemOf(err).body())
			return errors.Join(err, out.err)
		}
		if first {
			s.metrics.firstToken(a)
			out.begin()
			if a.chat {
				out.send(a.chunk(map[string]string{"role": "assistant", "content": ""}, "", "", nil))
			}
		}
		if ev.Text != "" {
			out.send(a.chunk(map[string]string{"content": ev.Text}, ev.Text, "", nil))
		}
		if ev.Finish != "" {
			s.metrics.tokens(a, ev.Usage)
			out.send(a.chunk(map[string]string{}, "", ev.Finish, nil))
			if a.includeUsage {
				out.send(a.chunk(nil, "", "", usage(ev.Usage)))
			}
			out.line("[DONE]")
			out.doFlush()
			return out.err
		}
		out.doFlush()
	}
}

// next is the next event, with its error as an error.
func next(ctx context.Context, stream *engine.Stream) (engine.Event, error) {
	ev, err := stream.Next(ctx)
	if err == nil {
		err = ev.Err
	}
	return ev, err
}

// events writes server-sent events and remembers the first error.
type events struct {
	w     http.ResponseWriter
	flush *http.ResponseController
	err   error
}

func (o *events) begin() {
	h := o.w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-cache")
	h.Set("X-Accel-Buffering", "no") // nginx in front would hold chunks back
	o.w.WriteHeader(http.StatusOK)
}

func (o *events) send(v any) {
	b, err := json.Marshal(v)
	if err != nil {
		o.err = errors.Join(o.err, err)
		return
	}
	o.line(string(b))
}

func (o *events) line(data string) {
	if o.err == nil {
		_, o.err = fmt.Fprintf(o.w, "data: %s\n\n", data)
	}
}

func (o *events) doFlush() {
	if o.err == nil {
		o.err = o.flush.Flush()
	}
}

// chunk is one event of a stream: delta for chats, text for completions; with
// usage and no delta it is the last one, which has no choices.
func (a answer) chunk(delta map[string]string, text, finish string, usage any) map[string]any {
	var reason any
	if finish != "" {
		reason = finish
	}
	choice := map[string]any{"index": 0, "finish_reason": reason}
	kind := "text_completion"
	if a.chat {
		kind, choice["delta"] = "chat.completion.chunk", delta
	} else {
		choice["text"] = text
	}
	choices := []any{choice}
	if usage != nil {
		choices = []any{}
	}
	c := map[string]any{"id": a.id, "object": kind, "created": a.created, "model": a.model, "choices": choices}
	if a.includeUsage {
		c["usage"] = usage
	}
	return c
}

func (a answer) whole(text string, ev engine.Event) map[string]any {
	choice := map[string]any{"index": 0, "finish_reason": ev.Finish}
	kind := "text_completion"
	if a.chat {
		kind, choice["message"] = "chat.completion", map[string]any{"role": "assistant", "content": text}
	} else {
		choice["text"] = text
	}
	return map[string]any{"id": a.id, "object": kind, "created": a.created, "model": a.model, "choices": []any{choice}, "usage": usage(ev.Usage)}
}

func usage(u engine.Usage) map[string]any {
	return map[string]any{
		"prompt_tokens": u.Prompt, "completion_tokens": u.Output, "total_tokens": u.Prompt + u.Output,
		"prompt_tokens_details": map[string]int{"cached_tokens": u.Cached},
	}
}
