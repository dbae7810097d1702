package client

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/internal/words"
)

const (
	// answerFor is the timeout of requests that need no generation.
	answerFor = 10 * time.Second
	// listenFor is how long to wait for a service at an address where nothing listens.
	listenFor = 5 * time.Second
	// askAgain is the interval at which a service that is not ready is asked again.
	askAgain = 500 * time.Millisecond
	// mostModels is how many of the listed models are tried and named.
	mostModels = 5
)

// Patience is how long to wait for a service that does not serve yet.
type Patience struct {
	// Ready is how long the service may take until it serves. 0: the timeout of the
	// prompt while it says that it is not ready or is slow to answer, and a few seconds
	// while nothing listens.
	Ready time.Duration
	// Tell receives what is being waited for.
	Tell func(format words.Phrase, args ...any)
}

// Preflight checks that the service answers, with one request like p, as small as its
// API allows. It chooses the model if none is given, and finds out the protocol. It
// waits for a service that says that it is not ready yet. Its error is a sentence for
// the person who typed the address.
func (c *Client) Preflight(ctx context.Context, p Prompt, patience ...Patience) error {
	wait := Patience{}
	if len(patience) > 0 {
		wait = patience[0]
	}
	p.Timeout = max(p.Timeout, wait.Ready)
	p.Finish = recording.OrEnd(p.Finish)
	began, explanation := time.Now(), ""
	for {
		err := c.attempt(ctx, p)
		if err == nil || ctx.Err() != nil {
			return context.Cause(ctx)
		}
		var early *notYet
		if !errors.As(err, &early) {
			return err
		}
		most := cmp.Or(wait.Ready, early.waits(p.Timeout))
		if time.Since(began) >= most {
			return words.Errorf("%s (after %s; set ready_timeout in target.endpoint to wait longer)", err, most)
		}
		if wait.Tell != nil && explanation != early.says.String() {
			wait.Tell("not ready yet: %s; retrying for up to %s", early.says, most)
			explanation = early.says.String()
		}
		select {
		case <-ctx.Done():
		case <-time.After(askAgain):
		}
	}
}

// notYet is the error of a service that may be ready later.
type notYet struct {
	says   words.Sentence
	absent bool // nothing listens
	error
}

func (e *notYet) Unwrap() error { return e.error }

func (e *notYet) waits(timeout time.Duration) time.Duration {
	if e.absent {
		return min(listenFor, timeout)
	}
	return timeout
}

// later wraps the error of a service that may be ready later, and returns any other
// error as it is.
func later(row recording.Request, failed, explanation error) error {
	switch {
	case errors.Is(failed, syscall.ECONNREFUSED):
		return &notYet{row.Why(), true, explanation}
	case row.Status == http.StatusBadGateway || row.Status == http.StatusGatewayTimeout: // the service behind the gateway may be starting
		return &notYet{row.Why(), true, explanation}
	case row.Status == http.StatusServiceUnavailable || row.Status >= 400 && loads.MatchString(row.ErrorText):
		return &notYet{row.Why(), false, explanation}
	}
	return explanation
}

var loads = regexp.MustCompile(`(?i)\b(loading|load) (the |a |your )?(model|weights)|model\b.{0,80}\b(loading|not (yet )?(ready|loaded))|(starting|warming) up|initiali[sz]ing|not ready yet`)

// attempt asks once: for the models, if the model is not known, and then one small
// request.
func (c *Client) attempt(ctx context.Context, p Prompt) error {
	if c.cfg.Model != "" || p.Model != "" || c.rpc != nil { // gRPC has a default model
		return c.first(ctx, p, nil)
	}
	models, err := c.models(ctx, max(answerFor, p.Timeout))
	var unlisted *noList
	if errors.As(err, &unlisted) { // some need no name: Azure has it in the path, others have a single model
		if c.first(ctx, p, nil) == nil {
			return nil
		}
	}
	if err != nil {
		return err
	}
	for i, name := range models[:min(len(models), mostModels)] {
		c.cfg.Model = name
		if err = c.first(ctx, p, models); err == nil {
			return nil
		}
		var other *notThisModel
		if !errors.As(err, &other) || i == min(len(models), mostModels)-1 {
			break
		}
	}
	c.cfg.Model = "" // reset until a model answers
	return err
}

// noList is the error of a service that does not list its models.
type noList struct{ error }

func (e *noList) Unwrap() error { return e.error }

// notThisModel is the error of a model that does not answer such requests, when another
// model may.
type notThisModel struct{ error }

func (e *notThisModel) Unwrap() error { return e.error }

// first sends the smallest request that the API allows. If that is refused or has no
// room for an answer, it sends one as large as the load's.
func (c *Client) first(ctx context.Context, p Prompt, models []string) error {
	small := p
	small.MaxTokens = min(p.MaxTokens, Least(p.API))
	row, failed := c.tried(ctx, small)
	tooSmall := row.Status == http.StatusBadRequest || row.Status == http.StatusUnprocessableEntity || row.Error == recording.ErrorEmpty || row.Error == recording.ErrorFinish
	if tooSmall && small.MaxTokens < p.MaxTokens && ctx.Err() == nil {
		if whole, err := c.tried(ctx, p); whole.OK() || row.Error == recording.ErrorEmpty || row.Error == recording.ErrorFinish {
			row, failed = whole, err
		}
	}
	if row.OK() {
		return nil
	}
	explanation := c.explain(ctx, p, row, failed)
	if len(models) > 0 {
		names := models[:min(len(models), mostModels)]
		explanation = words.Errorf("%s; the requested model is %q, one of %d listed models (%s); choose another with --model", explanation, c.Model(), len(models), clip(strings.Join(names, ", ")))
		if row.Status == http.StatusBadRequest || row.Status == http.StatusNotFound || row.Status == http.StatusUnprocessableEntity || row.Status == http.StatusMethodNotAllowed {
			return &notThisModel{explanation}
		}
	}
	return later(row, failed, explanation)
}

// tried sends one request and finds out the protocol.
func (c *Client) tried(ctx context.Context, p Prompt) (recording.Request, error) {
	traced := httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(got httptrace.GotConnInfo) { c.protocol = c.spoken(got.Conn) }})
	prepared, err := c.Prepare(p)
	if err != nil {
		var row recording.Request
		fail(&row, recording.ErrorNotSent, "%s", err)
		return row, err
	}
	return prepared.by.send(traced, prepared, recording.NewClock(), 1, nil)
}

// Protocol is the protocol that Preflight found; empty for gRPC.
func (c *Client) Protocol() words.Sentence { return c.protocol }

func (c *Client) spoken(conn net.Conn) words.Sentence {
	secured, ok := conn.(*tls.Conn)
	switch {
	case !ok && c.cfg.HTTP == "2":
		return words.Say("HTTP/2 without TLS")
	case !ok:
		return words.Say("HTTP/1.1 without TLS")
	}
	state := secured.ConnectionState()
	version := "HTTP/1.1"
	if state.NegotiatedProtocol == "h2" {
		version = "HTTP/2"
	}
	return words.Say("%s over %s", version, tls.VersionName(state.Version))
}

// explain turns a failed request into an error that says what was asked, what came and
// what to do about it.
func (c *Client) explain(ctx context.Context, p Prompt, row recording.Request, failed error) error {
	asked := c.base
	if path, known := paths[p.API]; known && row.Status != 0 {
		asked = "POST " + c.api + path
	}
	switch {
	case row.Error == recording.ErrorNotSent:
		return words.Errorf("%s: nothing was sent: %s", c.base, row.Why())
	case row.Error == recording.ErrorConnect:
		return words.Errorf("%s: no answer: %s (%s)", c.base, row.Why(), c.advice(ctx, failed))
	case row.Error == recording.ErrorTimeout:
		return words.Errorf("%s: no answer within %s (the timeout of the workload; set ready_timeout in target.endpoint to wait longer for the first answer)", c.base, p.Timeout)
	case row.Status == http.StatusUnauthorized || row.Status == http.StatusForbidden:
		return words.Errorf("%s: %s (name the environment variable that holds the key: --api-key-env, or a header in target.endpoint such as api-key: ${AZURE_KEY})", asked, row.Why())
	case row.Status == http.StatusNotFound && c.Model() == "" && !strings.HasSuffix(c.api, "/v1"):
		return words.Errorf("%s: %s (a path in the address is used unchanged; does it lack /v1 at the end? The service lists no model either; name one with --model)", asked, row.Why())
	case row.Status == http.StatusNotFound && c.Model() == "":
		return words.Errorf("%s: %s (does the address end before /v1? The service lists no model either; name one with --model)", asked, row.Why())
	case row.Status == http.StatusNotFound && !strings.HasSuffix(c.api, "/v1"):
		return words.Errorf("%s: %s (is %q a model of this service? A path in the address is used unchanged; does it lack /v1 at the end?)", asked, row.Why(), c.Model())
	case row.Status == http.StatusNotFound:
		return words.Errorf("%s: %s (is %q a model of this service? Does the address end before /v1?)", asked, row.Why(), c.Model())
	case row.Status == http.StatusBadRequest && parameter.MatchString(row.ErrorText):
		return words.Errorf("%s: %s (use fields in the workload or in target.endpoint to rename, add or remove parameters, such as fields: {max_completion_tokens: \"${max_tokens}\", max_tokens: null, temperature: null})", asked, row.Why())
	case row.Status >= 300 && row.Status < 400:
		return words.Errorf("%s: %s (launchgate does not follow redirects, because two requests would be measured as one; use the address that it redirects to)", asked, row.Why())
	case row.Status >= 400 && strings.Contains(row.ErrorText, "HTTPS") && strings.HasPrefix(c.base, "http://"):
		return words.Errorf("%s: %s (the port uses TLS; use an https:// address)", asked, row.Why())
	}
	return words.Errorf("%s: %s", asked, row.Why())
}

var parameter = regexp.MustCompile(`(?i)max_completion_tokens|unsupported (parameter|value)|unrecognized|unknown (parameter|field|argument)|extra (fields|inputs)|not (supported|permitted|allowed)|unexpected keyword`)

// models asks for the served models, which may take some time: a service that answers
// one request after another tells them only when the one before is done. Models that do
// not generate text come last.
func (c *Client) models(ctx context.Context, within time.Duration) ([]string, error) {
	limited, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	address := c.api + "/models"
	req, err := http.NewRequestWithContext(limited, http.MethodGet, address+c.query, nil)
	if err != nil {
		return nil, words.Errorf("%q is not an address: %s", c.cfg.BaseURL, err)
	}
	c.header(req)
	resp, err := c.transport.RoundTrip(req)
	if err != nil {
		var row recording.Request
		fail(&row, class(ctx, limited, err), "%s", why(err))
		return nil, later(row, err, c.explain(ctx, Prompt{Timeout: within}, row, err))
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	var netErr net.Error
	if errors.As(err, &netErr) && netErr.Timeout() {
		return nil, words.Errorf("GET %s: no complete answer within %s; set the model with --model", address, within)
	}
	b = c.hidden.hide(b)
	if resp.StatusCode != http.StatusOK {
		row := recording.Request{Status: int32(resp.StatusCode)}
		kind, why := refusal(&row, resp, b)
		fail(&row, kind, "%s", why)
		explanation := c.explain(ctx, Prompt{}, row, nil)
		switch resp.StatusCode {
		case http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusNotImplemented:
			return nil, &noList{words.Errorf("GET %s: %s: the service lists no models there and does not answer without a model name; set the model with --model (and check the address)", address, row.Why())}
		}
		return nil, later(row, nil, explanation)
	}
	names, ok := modelsIn(b)
	if !ok {
		kind := resp.Header.Get("Content-Type")
		explanation := words.Errorf("GET %s returned %s, expected the JSON list of models: %s; set the model with --model", address, named(kind, b), excerpt(b))
		if strings.HasPrefix(kind, "text/event-stream") { // a service that takes every request for a prompt
			return nil, &noList{explanation}
		}
		return nil, explanation
	}
	if len(names) == 0 {
		return nil, words.Errorf("GET %s lists no model; set one with --model", address)
	}
	slices.SortStableFunc(names, func(a, b string) int { return cmp.Compare(otherWork(a), otherWork(b)) })
	return names, nil
}

// modelsIn are the names in a list of models, in the known formats: {"data": [{"id":
// …}]} (OpenAI), a bare list (Together), {"models": [{"name": …}]} (Ollama), or names
// alone. It is false for anything else.
func modelsIn(b []byte) (names []string, ok bool) {
	b = bytes.TrimPrefix(bytes.TrimSpace(b), byteOrderMark)
	var list []json.RawMessage
	if json.Unmarshal(b, &list) != nil {
		var in struct {
			Data   []json.RawMessage `json:"data"`
			Models []json.RawMessage `json:"models"`
		}
		if json.Unmarshal(b, &in) != nil || in.Data == nil && in.Models == nil {
			return nil, false
		}
		list = append(in.Data, in.Models...)
	}
	for _, entry := range list {
		var name string
		if json.Unmarshal(entry, &name) != nil {
			var of struct {
				ID    string `json:"id"`
				Name  string `json:"name"`
				Model string `json:"model"`
			}
			_ = json.Unmarshal(entry, &of) // an entry of another type has no name
			name = cmp.Or(of.ID, of.Name, of.Model)
		}
		if name = strings.TrimSpace(name); name != "" && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names, true
}

var notForAnswers = regexp.MustCompile(`(?i)embed|rerank|whisper|\btts\b|\bbge\b|\bgte\b|\be5\b|moderation|dall-e|stable-diffusion|\bclip\b|transcri|speech`)

// otherWork is 1 for a model whose name says that it does not generate text (embedding,
// reranking and so on), and otherwise 0.
func otherWork(name string) int {
	if notForAnswers.MatchString(name) {
		return 1
	}
	return 0
}
