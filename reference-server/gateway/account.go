package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/launchgate/launchgate/reference-server/ledger"
)

const maxAnswer = 64 << 20 // bytes of an answer that is not streamed

// prepare rewrites a completion request: it asks for the usage that the ledger
// needs, and shortens the answer where the service is overloaded.
func prepare(c *call, path string, q *question) {
	if c.shortened > 0 {
		shorten(q, path, c.shortened)
	}
	if !q.stream || path == "/v1/responses" { // whose last event has it anyway
		return
	}
	options := q.value("stream_options")
	with := []byte(`{"include_usage":true}`)
	switch {
	case len(options) == 0 || string(options) == "null":
	case options[0] == '{':
		inner, _ := fieldsOf(options) // it was read before
		o := question{fields: inner}
		if string(o.value("include_usage")) == "true" {
			return
		}
		o.set("include_usage", []byte("true"))
		with = o.bytes()
	default:
		return // the replica refuses options that are no object
	}
	q.set("stream_options", with)
	c.hideUsage = true
}

// shorten lowers every field that bounds the length of the answer to most.
func shorten(q *question, path string, most int) {
	asked := false
	for _, name := range []string{"max_tokens", "max_completion_tokens", "max_output_tokens"} {
		n, _ := number(name, q.value(name)) // it was read before
		if asked = asked || n > 0; n > most {
			q.set(name, strconv.AppendInt(nil, int64(most), 10))
		}
	}
	switch {
	case asked:
	case path == "/v1/responses":
		q.set("max_output_tokens", strconv.AppendInt(nil, int64(most), 10))
	default:
		q.set("max_tokens", strconv.AppendInt(nil, int64(most), 10))
	}
}

// reported is the usage that an answer, or an event of one, reports.
type reported struct {
	Model    string            `json:"model"`
	Usage    *tokens           `json:"usage"`
	Choices  []json.RawMessage `json:"choices"`
	Response *reported         `json:"response"` // of the Responses API's events
}

// tokens is the usage in the field names of either API.
type tokens struct {
	Prompt     int64 `json:"prompt_tokens"`
	Completion int64 `json:"completion_tokens"`
	Input      int64 `json:"input_tokens"`
	Output     int64 `json:"output_tokens"`
}

// account writes the usage of an answer to the ledger before the end of the answer
// reaches the client. A client that saw the end can rely on the record.
func (g *guard) account(resp *http.Response) error {
	c, ok := resp.Request.Context().Value(callKey{}).(*call)
	if !ok {
		return nil
	}
	resp.Header.Del("X-Request-Id") // the gateway has set its own
	prompt, err := strconv.ParseInt(resp.Header.Get(headerPrompt), 10, 32)
	if err != nil {
		prompt = c.size / bytesOfToken
	}
	if resp.StatusCode != http.StatusOK || resp.Request.Method != http.MethodPost || resp.Request.URL.Path == "/tokenize" {
		return nil
	}
	if isStream(resp) {
		// The usage may be hidden, so the length is not the replica's.
		resp.Header.Del("Content-Length")
		resp.ContentLength = -1
		a := &accounted{body: resp.Body, g: g, c: c, ctx: resp.Request.Context(), buf: make([]byte, 16<<10), prompt: prompt}
		if planted("shed-by-open-streams") {
			resp.Body = a
			return nil
		}
		resp.Body = ahead(a, resp.Body)
		return nil
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	resp.Body.Close()
	if err != nil {
		return fmt.Errorf("the answer broke off: %w", err)
	}
	if len(body) > maxAnswer { // it was computed all the same
		if u, err := g.usedOf(c); err == nil && u != (tokens{}) && !c.unbilled {
			_ = g.keep(c, reported{Model: c.model, Usage: &u}) // it is logged
		}
		return refusal{http.StatusBadGateway, "answer_too_large", fmt.Sprintf("the answer is larger than %d bytes", maxAnswer)}
	}
	var t reported
	if json.Unmarshal(body, &t) == nil && t.Usage != nil {
		if err := g.keep(c, t); err != nil {
			return errNotKept
		}
		if c.cacheAs != nil {
			g.cache.put(&answer{*c.cacheAs, resp.Header.Get("Content-Type"), body, t})
		}
	}
	resp.Body = io.NopCloser(bytes.NewReader(body))
	return nil
}

// headerPrompt is the header in which a replica gives the length of the prompt
// before the answer begins. Without it, bytesOfToken bytes are taken for one token.
const (
	headerPrompt = "X-Launchgate-Prompt-Tokens"
	bytesOfToken = 4
)

var errNotKept = refusal{http.StatusServiceUnavailable, "usage_not_kept", "the usage of the answer could not be stored, so the answer is withheld"}

// used serves the billed usage of a request of the caller's tenant, by the
// X-Request-Id of its answer.
func (g *Gateway) used(w http.ResponseWriter, r *http.Request) {
	c, id := r.Context().Value(callKey{}).(*call), r.PathValue("id")
	ctx, cancel := context.WithTimeout(r.Context(), ledgerWithin)
	defer cancel()
	u, err := g.guard.ledger.UsageOf(ctx, id)
	switch {
	case errors.Is(err, ledger.ErrNotFound), err == nil && u.Tenant != c.key.Tenant:
		g.fail(w, refusal{http.StatusNotFound, "usage_not_found", fmt.Sprintf("no usage of a request %q is known", id)})
	case err != nil:
		g.fail(w, refusal{http.StatusServiceUnavailable, "ledger_unavailable", "the ledger does not answer"})
	default:
		writeJSON(w, http.StatusOK, map[string]any{
			"id": id, "object": "usage", "created": u.At.Unix(), "model": u.Model,
			"usage": map[string]any{"prompt_tokens": u.Prompt, "completion_tokens": u.Output, "total_tokens": u.Prompt + u.Output},
		})
	}
}

func (g *guard) keep(c *call, t reported) error {
	u := t.Usage
	record := ledger.Usage{Request: c.id, Tenant: c.key.Tenant, Key: c.key.ID, Model: t.Model, Prompt: u.Prompt + u.Input, Output: u.Completion + u.Output, At: time.Now()}
	// The client may leave; what was computed is counted all the same.
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	err := g.ledger.AddUsage(ctx, record)
	if err != nil {
		g.log.Error("usage is not kept", "request", c.id, "why", err)
		return err
	}
	g.spend(c.key.Tenant, record.Prompt+record.Output)
	return nil
}

// accounted passes whole events on as they come, but the last one only after the
// usage is in the ledger. If the client leaves or the stream breaks off, the tokens
// computed until then are billed.
type accounted struct {
	body   io.ReadCloser
	g      *guard
	c      *call
	ctx    context.Context // of the client's request
	buf    []byte
	in     []byte // of an event that has not ended
	out    []byte // may go to the client
	err    error
	all    []byte    // all that went to the client, kept only if the cache may give the answer again
	used   *reported // the last report in the answer
	kept   bool
	prompt int64 // tokens, as far as that is known before the end
	parts  int64 // events with a part of the answer: each is a token at the least
}

func (a *accounted) Read(p []byte) (int, error) {
	for len(a.out) == 0 {
		if a.err != nil {
			return 0, a.err
		}
		n, err := a.body.Read(a.buf)
		a.in = append(a.in, a.buf[:n]...)
		a.pass()
		if len(a.in) > maxEvent && err == nil && a.err == nil {
			err = fmt.Errorf("an event of the answer is longer than %d bytes", maxEvent)
		}
		if err != nil && a.err == nil {
			a.err = err
			if errors.Is(err, io.EOF) && a.settle() != nil {
				a.withhold()
			} else {
				a.out, a.in = append(a.out, a.in...), nil
			}
		}
		a.remember()
	}
	n := copy(p, a.out)
	a.out = a.out[n:]
	return n, nil
}

// maxEvent bounds an event, which is buffered until its end comes.
const maxEvent = 8 << 20

// remember keeps a whole answer that may be given again.
func (a *accounted) remember() {
	if a.c.cacheAs == nil || len(a.all) > answerMost {
		return
	}
	a.all = append(a.all, a.out...)
	if errors.Is(a.err, io.EOF) && a.used != nil && bytes.HasSuffix(a.all, []byte("data: [DONE]\n\n")) {
		a.g.cache.put(&answer{*a.c.cacheAs, "text/event-stream", bytes.Clone(a.all), *a.used})
	}
}

// pass moves whole events on.
func (a *accounted) pass() {
	for a.err == nil {
		end := endOfEvent(a.in)
		if end < 0 {
			return
		}
		event := a.in[:end]
		a.in = a.in[end:]
		keep, err := a.see(event)
		if err != nil {
			a.withhold()
			return
		}
		if keep {
			a.out = append(a.out, event...)
		}
	}
}

// endOfEvent is the index after the blank line that ends an event, or -1 if the
// event has not ended.
func endOfEvent(b []byte) int {
	end := bytes.Index(b, []byte("\n\n"))
	if end >= 0 {
		end += 2
	}
	if other := bytes.Index(b, []byte("\n\r\n")); other >= 0 && (end < 0 || other+3 < end) {
		end = other + 3
	}
	return end
}

// withhold ends the stream with an error event in place of its last event.
func (a *accounted) withhold() {
	data, _ := json.Marshal(errorBody("server_error", errNotKept.code, errNotKept.text))
	a.out, a.err, a.in = fmt.Appendf(a.out, "data: %s\n\n", data), errNotKept, nil
}

// see reads the usage from an event, and reports whether the event goes to the
// client.
func (a *accounted) see(event []byte) (pass bool, err error) {
	if bytes.HasPrefix(event, []byte("data: [DONE]")) {
		return true, a.settle()
	}
	if !bytes.Contains(event, []byte(`"usage":{`)) {
		if partOfAnswer(event) {
			a.parts++
		}
		return true, nil
	}
	at := bytes.Index(event, []byte("data:"))
	if at < 0 {
		return true, nil
	}
	var t reported
	if json.Unmarshal(bytes.TrimSpace(event[at+len("data:"):]), &t) != nil {
		return true, nil
	}
	if t.Response != nil {
		t = *t.Response
	}
	if t.Usage == nil {
		return true, nil
	}
	a.used = &t
	if len(t.Choices) > 0 { // some services report it with every part
		if partOfAnswer(event) {
			a.parts++
		}
		return true, nil
	}
	return !a.c.hideUsage, a.settle()
}

// partOfAnswer reports whether an event has text of the answer, or of a call in
// it, that is not empty.
func partOfAnswer(event []byte) bool {
	for _, name := range [][]byte{[]byte(`"content":"`), []byte(`"text":"`), []byte(`"delta":"`), []byte(`"reasoning_content":"`), []byte(`"arguments":"`)} {
		if at := bytes.Index(event, name); at >= 0 && at+len(name) < len(event) && event[at+len(name)] != '"' {
			return true
		}
	}
	return false
}

// settle writes the usage to the ledger, once.
func (a *accounted) settle() error {
	if a.kept || a.c.unbilled {
		return nil
	}
	t := reported{Model: a.c.model}
	if a.used != nil {
		t = *a.used
	}
	if t.Usage == nil && planted("usage-only-at-end") {
		return nil
	}
	if t.Usage == nil || t.Usage.Completion+t.Usage.Output < a.parts && !a.ended() {
		t.Usage = &tokens{Prompt: a.prompt, Completion: a.parts}
		if a.ctx != nil && a.ctx.Err() != nil {
			if u, err := a.g.usedOf(a.c); err == nil && u.Completion >= a.parts {
				t.Usage = &u
			}
		}
	}
	a.kept = true // also after a failure, which is an error and is not retried
	return a.g.keep(a.c, t)
}

// ended reports whether the replica has sent the usage of the whole answer.
func (a *accounted) ended() bool { return a.used != nil && len(a.used.Choices) == 0 }

// Close ends the answer and bills what was computed of it.
func (a *accounted) Close() error {
	broke := a.err != nil && !errors.Is(a.err, io.EOF) && a.ctx != nil && a.ctx.Err() == nil
	err := a.body.Close()
	if !(broke && a.parts == 0) && !planted("usage-only-at-end") { // a client that got nothing is not billed
		_ = a.settle() // it is logged
	}
	return err
}
