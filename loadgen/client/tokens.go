package client

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"

	"github.com/launchgate/launchgate/internal/words"
)

// ErrNoTokenizer is of a service that counts no tokens for its clients.
var ErrNoTokenizer = words.Errorf("the service has no /tokenize")

// tokenizeRequest asks in the words of all who answer at once: vLLM, SGLang and
// the bundled service read model and prompt, llama.cpp content, TGI inputs.
type tokenizeRequest struct {
	Model   string `json:"model,omitempty"`
	Prompt  string `json:"prompt"`
	Content string `json:"content"`
	Inputs  string `json:"inputs"`
}

// CountTokens asks the service's own tokenizer how many tokens a text has.
// Tokens that it adds at the beginning of every text are counted with it.
func (c *Client) CountTokens(ctx context.Context, text string) (int, error) {
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
	// Counting twice harms nobody, so it may be asked again where the service has
	// closed a kept connection without a word, as llama.cpp does after a stream.
	// An empty key says so to the transport, and nothing to the service.
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
	if resp.StatusCode != http.StatusOK {
		return 0, ErrNoTokenizer
	}
	return tokensOf(b)
}

// tokensOf reads the answers of the field: a count (vLLM, SGLang, the bundled
// service), an object with the tokens (llama.cpp), or the tokens alone (TGI).
func tokensOf(b []byte) (int, error) {
	var list []json.RawMessage
	if json.Unmarshal(b, &list) == nil && len(list) > 0 {
		return len(list), nil
	}
	var answer struct {
		Count  *int              `json:"count"`
		Tokens []json.RawMessage `json:"tokens"`
	}
	switch err := json.Unmarshal(b, &answer); {
	case err != nil || answer.Count == nil && len(answer.Tokens) == 0:
		return 0, ErrNoTokenizer
	case answer.Count != nil && *answer.Count > 0:
		return *answer.Count, nil
	}
	return len(answer.Tokens), nil
}
