package api

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
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

func (s *Server) chat(w http.ResponseWriter, r *http.Request) {
	s.complete(w, r, true, request.chatPrompt)
}

func (s *Server) completion(w http.ResponseWriter, r *http.Request) {
	s.complete(w, r, false, request.promptTokens)
}

// complete handles a request: it reads it, submits it, and sends the answer.
func (s *Server) complete(w http.ResponseWriter, r *http.Request, chat bool, prompt func(request, context.Context, *engine.Engine) ([]int32, error)) {
	a := answer{chat: chat, created: time.Now().Unix(), began: time.Now()}
	a.id = newID("cmpl-")
	if chat {
		a.id = "chat" + a.id
	}
	w.Header().Set("X-Request-Id", a.id)
	counted := s.accounts.open(r)
	defer counted.close()
	status := "ok"
	traced, span := startSpan(r, a)
	r = r.WithContext(traced)
	defer func() { s.metrics.answered(a, status); endSpan(span, a, status) }()
	refuse := func(err error) {
		p := problemOf(err)
		status = strconv.Itoa(p.status)
		s.log.Debug("refused", "id", a.id, "status", p.status, "code", p.code) // the text may quote the request
		fail(w, p)
	}

	q, err := readRequest(w, r)
	if err != nil {
		refuse(err)
		return
	}
	e, release, err := s.use(r, q.Model)
	if err != nil {
		refuse(err)
		return
	}
	defer release()
	a.model = e.Info().Model
	a.includeUsage = q.StreamOptions != nil && q.StreamOptions.IncludeUsage
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel() // ends the rest of n answers if one fails
	streams, tokens, err := submit(ctx, q, e, prompt)
	if err != nil {
		refuse(err)
		return
	}
	w.Header().Set(HeaderPrompt, strconv.Itoa(tokens))
	parts := merge(ctx, streams, counted)
	if q.Stream {
		err = s.sendStream(ctx, w, parts, len(streams), a)
	} else {
		err = s.sendWhole(ctx, w, parts, len(streams), a)
	}
	cancel()
	for range parts { // until every reader of a stream has ended
	}
	if err != nil {
		status = "error"
		if r.Context().Err() != nil {
			status = "cancelled"
		}
		s.log.Info("not answered to the end", "id", a.id, "status", status, "why", err)
	}
}

// newID names an answer.
func newID(kind string) string {
	return kind + strings.ToLower(rand.Text()) // random, because whoever knows it may read a background response
}

// submit queues one sequence for each requested answer, each with its own seed.
// tokens is the number of prompt tokens.
func submit(ctx context.Context, q request, e *engine.Engine, prompt func(request, context.Context, *engine.Engine) ([]int32, error)) (streams []*engine.Stream, tokens int, err error) {
	ids, err := prompt(q, ctx, e)
	if err != nil {
		return nil, 0, err
	}
	req, err := q.engineRequest(ids)
	if err != nil {
		return nil, 0, err
	}
	req.Caller = callerOf(ctx)
	streams, err = e.SubmitAll(ctx, req, q.answers())
	return streams, len(ids), err
}

// part is an event of one of the answers to a request.
type part struct {
	index int
	engine.Event
}

// lastWord is how long the engine may take to report the usage of an answer
// that its client gave up. The engine checks before each step.
const lastWord = 2 * time.Second

// merge reads all answers into one channel, which closes when all have ended,
// and counts their usage.
func merge(ctx context.Context, streams []*engine.Stream, counted *account) <-chan part {
	parts := make(chan part)
	var readers sync.WaitGroup
	for i, stream := range streams {
		readers.Go(func() {
			for {
				ev, err := stream.Next(ctx)
				if err != nil {
					ev = engine.Event{Err: err}
					leave(stream, i, counted)
				}
				counted.saw(i, ev.Usage)
				parts <- part{i, ev}
				if ev.Err != nil || ev.Finish != "" {
					return
				}
			}
		})
	}
	go func() { readers.Wait(); close(parts) }()
	return parts
}

// leave reads an abandoned answer to its end, to get its usage.
func leave(stream *engine.Stream, i int, counted *account) {
	if counted == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), lastWord)
	defer cancel()
	for {
		ev, err := stream.Next(ctx)
		if err != nil {
			return
		}
		counted.saw(i, ev.Usage)
		if ev.Err != nil || ev.Finish != "" {
			return
		}
	}
}

// sum adds the usage of an answer. The common prompt counts once.
func sum(total, u engine.Usage) engine.Usage {
	return engine.Usage{Prompt: u.Prompt, Cached: max(total.Cached, u.Cached), Output: total.Output + u.Output}
}

// sendWhole answers with one JSON object.
func (s *Server) sendWhole(ctx context.Context, w http.ResponseWriter, parts <-chan part, n int, a answer) error {
	texts, logprobs, finishes := make([]strings.Builder, n), make([][]engine.Logprob, n), make([]string, n)
	var total engine.Usage
	first := true
	for p := range parts {
		if p.Err != nil {
			fail(w, problemOf(p.Err))
			return p.Err
		}
		if first {
			s.metrics.firstToken(a)
			spanFirstToken(ctx)
			first = false
		}
		texts[p.index].WriteString(p.Text)
		logprobs[p.index] = append(logprobs[p.index], p.Logprobs...)
		if p.Finish != "" {
			finishes[p.index] = p.Finish
			total = sum(total, p.Usage)
		}
	}
	var choices []any
	for i := range n {
		choices = append(choices, a.choice(i, texts[i].String(), logprobs[i], finishes[i]))
	}
	s.metrics.tokens(a, total)
	spanUsage(ctx, total)
	writeJSON(w, http.StatusOK, map[string]any{
		"id": a.id, "object": strings.TrimSuffix(a.kind(), ".chunk"), "created": a.created, "model": a.model, "choices": choices, "usage": usage(total),
	})
	return nil
}

// sendStream answers with server-sent events: for every answer the role, a
// chunk for every token that has text and the finish reason; then the usage if
// it was asked for, and [DONE].
func (s *Server) sendStream(ctx context.Context, w http.ResponseWriter, parts <-chan part, n int, a answer) error {
	out := &events{w: w, flush: http.NewResponseController(w)}
	begun := make([]bool, n)
	var total engine.Usage
	last := a.began
	for p := range parts {
		if p.Err != nil && !out.begun {
			fail(w, problemOf(p.Err)) // nothing was sent yet, so the status can show the error
			return p.Err
		}
		if p.Err != nil {
			out.send(problemOf(p.Err).body())
			return errors.Join(p.Err, out.err)
		}
		if !out.begun {
			s.metrics.firstToken(a)
			spanFirstToken(ctx)
			out.begin()
		} else {
			s.metrics.gap(a, time.Since(last))
		}
		last = time.Now()
		if a.chat && !begun[p.index] {
			begun[p.index] = true
			out.send(a.chunk(p.index, map[string]any{"role": "assistant", "content": ""}, "", nil, ""))
		}
		if p.Text != "" || len(p.Logprobs) > 0 {
			out.send(a.chunk(p.index, map[string]any{"content": p.Text}, p.Text, p.Logprobs, ""))
		}
		if p.Finish != "" {
			total = sum(total, p.Usage)
			out.send(a.chunk(p.index, map[string]any{}, "", nil, p.Finish))
		}
		out.doFlush()
		if out.err != nil {
			return out.err
		}
	}
	s.metrics.tokens(a, total)
	spanUsage(ctx, total)
	if a.includeUsage {
		out.send(a.event([]any{}, usage(total)))
	}
	out.line("[DONE]")
	out.doFlush()
	return out.err
}

// events writes server-sent events and remembers the first error.
type events struct {
	w     http.ResponseWriter
	flush *http.ResponseController
	begun bool
	err   error
}

func (o *events) begin() {
	o.begun = true
	h := o.w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("X-Accel-Buffering", "no") // otherwise nginx would buffer chunks
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

func (a answer) kind() string {
	if a.chat {
		return "chat.completion.chunk"
	}
	return "text_completion"
}

// event is one event of a stream.
func (a answer) event(choices []any, usage any) map[string]any {
	e := map[string]any{"id": a.id, "object": a.kind(), "created": a.created, "model": a.model, "choices": choices}
	if a.includeUsage {
		e["usage"] = usage
	}
	return e
}

// chunk is a piece of one answer: delta for chats, text for completions.
func (a answer) chunk(index int, delta map[string]any, text string, logprobs []engine.Logprob, finish string) map[string]any {
	c := map[string]any{"index": index, "finish_reason": nil, "logprobs": a.logprobs(logprobs)}
	if finish != "" {
		c["finish_reason"] = finish
	}
	if a.chat {
		c["delta"] = delta
	} else {
		c["text"] = text
	}
	return a.event([]any{c}, nil)
}

// choice is one whole answer.
func (a answer) choice(index int, text string, logprobs []engine.Logprob, finish string) map[string]any {
	c := map[string]any{"index": index, "finish_reason": finish, "logprobs": a.logprobs(logprobs)}
	if a.chat {
		c["message"] = map[string]any{"role": "assistant", "content": text}
	} else {
		c["text"] = text
	}
	return c
}

// logprobs formats log-probabilities: chats list them by token, and completions
// in columns.
func (a answer) logprobs(list []engine.Logprob) any {
	if len(list) == 0 {
		return nil
	}
	if a.chat {
		var content []any
		for _, l := range list {
			top := []any{}
			for _, t := range l.Top {
				top = append(top, tokenLogprob(t))
			}
			one := tokenLogprob(l)
			one["top_logprobs"] = top
			content = append(content, one)
		}
		return map[string]any{"content": content}
	}
	tokens, values, tops := []string{}, []float64{}, []any{}
	for _, l := range list {
		top := map[string]float64{}
		for _, t := range l.Top {
			top[printable(t.Text)] = t.Logprob
		}
		tokens, values, tops = append(tokens, printable(l.Text)), append(values, l.Logprob), append(tops, top)
	}
	return map[string]any{"tokens": tokens, "token_logprobs": values, "top_logprobs": tops}
}

func tokenLogprob(l engine.Logprob) map[string]any {
	bytes := make([]int, len(l.Text)) // a []byte would be written in base64
	for i := range l.Text {
		bytes[i] = int(l.Text[i])
	}
	return map[string]any{"token": printable(l.Text), "logprob": l.Logprob, "bytes": bytes}
}

// printable is a token's bytes as valid text. A part of a rune is not valid.
func printable(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

func usage(u engine.Usage) map[string]any {
	return map[string]any{
		"prompt_tokens": u.Prompt, "completion_tokens": u.Output, "total_tokens": u.Prompt + u.Output,
		"prompt_tokens_details": map[string]int{"cached_tokens": u.Cached},
	}
}
