package client

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"path/filepath"

	"github.com/launchgate/launchgate/internal/tokenizer"
	"github.com/launchgate/launchgate/internal/words"
)

// ErrNoTokenizer is for a service without an API for its tokenizer.
var ErrNoTokenizer = words.Errorf("the service has no /tokenize")

// absent reports whether a status means that the service lacks the path. Any other
// status except 200 is an error of a path that exists.
func absent(status int) bool {
	return status == http.StatusNotFound || status == http.StatusMethodNotAllowed || status == http.StatusNotImplemented
}

// tokenizeRequest has the keys of all servers at once: vLLM, SGLang and the bundled
// service read model and prompt, llama.cpp content, TGI inputs.
type tokenizeRequest struct {
	Model   string `json:"model,omitempty"`
	Prompt  string `json:"prompt"`
	Content string `json:"content"`
	Inputs  string `json:"inputs"`
}

// CountWith makes CountTokens count with the tokenizer of a file, and not with that of
// the service. It is called before the first count.
func (c *Client) CountWith(file string) (err error) {
	if c.tokenizer, err = tokenizer.Open(file); err != nil {
		return words.Errorf("the tokenizer file %s cannot be used: %s", file, err)
	}
	c.countedBy = words.Say("with the tokenizer file %s", filepath.Base(file))
	return nil
}

// CountedBy says which tokenizer CountTokens uses.
func (c *Client) CountedBy() words.Sentence {
	if c.tokenizer != nil {
		return c.countedBy
	}
	return words.Say("with the service's own tokenizer")
}

// CountTokens is how many tokens a text has by the tokenizer file, if there is one, and
// otherwise by the service's own tokenizer. The count includes tokens that are added at
// the beginning of every text. The error is ErrNoTokenizer only if there is no tokenizer
// at all; any other error says why it did not count.
func (c *Client) CountTokens(ctx context.Context, text string) (int, error) {
	if c.tokenizer != nil {
		return len(c.tokenizer.Encode(text, false)), nil
	}
	if c.rpc != nil {
		return 0, ErrNoTokenizer
	}
	limited, cancel := context.WithTimeout(ctx, answerFor)
	defer cancel()
	body, err := json.Marshal(tokenizeRequest{c.cfg.Model, text, text, text})
	if err != nil {
		return 0, err
	}
	req, err := http.NewRequestWithContext(limited, http.MethodPost, c.base+"/tokenize"+c.query, bytes.NewReader(body))
	if err != nil {
		return 0, err
	}
	c.header(req)
	req.Header.Set("Content-Type", "application/json")
	// Counting twice does no harm, so the request may be repeated if the service has
	// closed a kept connection, as llama.cpp does after a stream. A key of nil says so
	// to the transport and is not sent to the service.
	req.Header["Idempotency-Key"] = nil
	resp, err := c.transport.RoundTrip(req)
	if err != nil {
		return 0, words.Errorf("count tokens: %s", err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxWhole))
	if err != nil {
		return 0, words.Errorf("count tokens: %s", err)
	}
	switch {
	case absent(resp.StatusCode):
		return 0, words.Errorf("%s (%s)", ErrNoTokenizer, resp.Status)
	case resp.StatusCode != http.StatusOK:
		return 0, words.Errorf("POST /tokenize answers %s: %s", clip(resp.Status), errorText(c.hidden.hide(b[:min(len(b), maxExcerpt)])))
	}
	n, counts := tokensOf(b)
	if !counts {
		return 0, words.Errorf("%s (it answers %s)", ErrNoTokenizer, excerpt(c.hidden.hide(b[:min(len(b), maxExcerpt)])))
	}
	if n == 0 && text != "" {
		return 0, words.Errorf("POST /tokenize says that a text of %d bytes has no token", len(text))
	}
	return n, nil
}

// tokensOf reads the known formats of an answer: a count (vLLM, SGLang, the bundled
// service), an object with the tokens (llama.cpp), or the tokens alone (TGI).
func tokensOf(b []byte) (n int, counts bool) {
	var list []json.RawMessage
	if json.Unmarshal(b, &list) == nil {
		return len(list), true
	}
	var answer struct {
		Count  *int              `json:"count"`
		Tokens []json.RawMessage `json:"tokens"`
	}
	switch err := json.Unmarshal(b, &answer); {
	case err != nil || answer.Count == nil && answer.Tokens == nil:
		return 0, false
	case answer.Count != nil && *answer.Count > 0:
		return *answer.Count, true
	}
	return len(answer.Tokens), true
}
