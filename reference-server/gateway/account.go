package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/launchgate/launchgate/reference-server/ledger"
)

const maxAnswer = 64 << 20 // bytes of an answer that comes whole

// prepare rewrites a completion request: it asks for the usage that the ledger
// needs, and shortens the answer where the service is overloaded. A body that
// is not a JSON object is left to the replica to refuse.
func prepare(c *call, path string, body []byte) []byte {
	limit := "max_tokens"
	if path == "/v1/responses" {
		limit = "max_output_tokens"
	} else if path != "/v1/chat/completions" && path != "/v1/completions" {
		return body
	}
	var q map[string]json.RawMessage
	if json.Unmarshal(body, &q) != nil || q == nil {
		return body
	}
	changed := false
	if c.shortened > 0 {
		for _, name := range []string{"max_tokens", "max_completion_tokens", "max_output_tokens"} {
			var asked int
			if json.Unmarshal(q[name], &asked) == nil && asked > 0 {
				limit = name
			}
		}
		var asked int
		if json.Unmarshal(q[limit], &asked) != nil || asked == 0 || asked > c.shortened {
			q[limit], changed = fmt.Append(nil, c.shortened), true
		}
	}
	if string(q["stream"]) == "true" && limit != "max_output_tokens" {
		options := map[string]json.RawMessage{}
		// Options that are no object are left alone: the replica refuses them.
		if raw := q["stream_options"]; (len(raw) == 0 || json.Unmarshal(raw, &options) == nil) && string(options["include_usage"]) != "true" {
			if options == nil {
				options = map[string]json.RawMessage{}
			}
			options["include_usage"] = json.RawMessage("true")
			q["stream_options"], _ = json.Marshal(options)
			c.hideUsage, changed = true, true
		}
	}
	if !changed {
		return body
	}
	out, err := json.Marshal(q)
	if err != nil {
		return body
	}
	return out
}

// told is what an answer, or an event of one, tells of its usage.
type told struct {
	Model string `json:"model"`
	Usage *struct {
		Prompt     int64 `json:"prompt_tokens"`
		Completion int64 `json:"completion_tokens"`
		Input      int64 `json:"input_tokens"`
		Output     int64 `json:"output_tokens"`
	} `json:"usage"`
	Choices  []json.RawMessage `json:"choices"`
	Response *told             `json:"response"` // of the Responses API's events
}

// account writes down what an answer used before its end reaches the client:
// a client that saw the end can rely on the record.
func (g *guard) account(resp *http.Response) error {
	c, ok := resp.Request.Context().Value(callKey{}).(*call)
	if !ok {
		return nil
	}
	resp.Header.Del("X-Request-Id") // the gateway's own stands already
	if resp.StatusCode != http.StatusOK || resp.Request.Method != http.MethodPost || resp.Request.URL.Path == "/tokenize" {
		return nil
	}
	if isStream(resp) {
		// The usage may be hidden, so the length is not the replica's.
		resp.Header.Del("Content-Length")
		resp.ContentLength = -1
		resp.Body = &accounted{body: resp.Body, g: g, c: c, buf: make([]byte, 16<<10)}
		return nil
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	resp.Body.Close()
	if err != nil {
		return fmt.Errorf("the answer broke off: %w", err)
	}
	if len(body) > maxAnswer {
		return refusal{http.StatusBadGateway, "answer_too_large", fmt.Sprintf("the answer is larger than %d bytes", maxAnswer)}
	}
	var t told
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

var errNotKept = refusal{http.StatusServiceUnavailable, "usage_not_kept", "the usage of the answer could not be stored, so the answer is withheld"}

// used answers what a request of the caller's tenant is billed, by the
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

func (g *guard) keep(c *call, t told) error {
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

// accounted passes whole events on as they come, and the last one only once
// the usage is kept.
type accounted struct {
	body io.ReadCloser
	g    *guard
	c    *call
	buf  []byte
	in   []byte // of an event that has not ended
	out  []byte // may go to the client
	err  error
	all  []byte // that went there, where the answer may be given again
	used *told
}

func (a *accounted) Read(p []byte) (int, error) {
	for len(a.out) == 0 {
		if a.err != nil {
			return 0, a.err
		}
		n, err := a.body.Read(a.buf)
		a.in = append(a.in, a.buf[:n]...)
		a.pass()
		if err != nil && a.err == nil {
			a.err = err
			a.out, a.in = append(a.out, a.in...), nil
		}
		a.remember()
	}
	n := copy(p, a.out)
	a.out = a.out[n:]
	return n, nil
}

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
		end := bytes.Index(a.in, []byte("\n\n"))
		if end < 0 {
			return
		}
		event := a.in[:end+2]
		a.in = a.in[end+2:]
		keep, err := a.see(event)
		if err != nil {
			data, _ := json.Marshal(errorBody("server_error", errNotKept.code, errNotKept.text))
			a.out, a.err, a.in = fmt.Appendf(a.out, "data: %s\n\n", data), errNotKept, nil
			return
		}
		if keep {
			a.out = append(a.out, event...)
		}
	}
}

// see looks into an event for the usage, and reports whether the client is to
// have it.
func (a *accounted) see(event []byte) (pass bool, err error) {
	if !bytes.Contains(event, []byte(`"usage":{`)) {
		return true, nil
	}
	at := bytes.Index(event, []byte("data:"))
	if at < 0 {
		return true, nil
	}
	var t told
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
	return !(a.c.hideUsage && len(t.Choices) == 0), a.g.keep(a.c, t)
}

func (a *accounted) Close() error { return a.body.Close() }
