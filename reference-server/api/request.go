package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"reflect"
	"strings"

	"github.com/launchgate/launchgate/internal/flaws"
	"github.com/launchgate/launchgate/reference-server/engine"
	"github.com/launchgate/launchgate/reference-server/sample"
)

const (
	maxStops    = 16      // stop strings of a request
	maxAnswers  = 16      // answers to a request: its n
	maxLogprobs = 20      // alternatives to a token
	maxStop     = 256     // bytes of a stop string, because each is searched in every token's text
	maxCount    = 1 << 30 // of tokens and the like; a larger number is a mistake
)

// request is the body of both kinds of completion. Unsupported keys that would
// change the answer are refused. Other unknown keys are ignored, because
// clients send many.
type request struct {
	Model         string          `json:"model"`
	Messages      []message       `json:"messages"`
	Prompt        json.RawMessage `json:"prompt"`
	Stream        bool            `json:"stream"`
	StreamOptions *struct {
		IncludeUsage bool `json:"include_usage"`
	} `json:"stream_options"`
	MaxTokens           *int            `json:"max_tokens"`
	MaxCompletionTokens *int            `json:"max_completion_tokens"`
	Temperature         *float64        `json:"temperature"`
	TopP                *float64        `json:"top_p"`
	TopK                int             `json:"top_k"`
	Seed                *int64          `json:"seed"`
	Stop                json.RawMessage `json:"stop"`
	Frequency           float64         `json:"frequency_penalty"`
	Presence            float64         `json:"presence_penalty"`
	IgnoreEOS           bool            `json:"ignore_eos"`

	MinP           float64         `json:"min_p"`
	Repetition     float64         `json:"repetition_penalty"`
	N              *int            `json:"n"`
	Logprobs       json.RawMessage `json:"logprobs"`     // a boolean for chats, a number for completions
	TopLogprobs    int             `json:"top_logprobs"` // of chats
	ResponseFormat *struct {
		Type   string          `json:"type"`
		Schema json.RawMessage `json:"json_schema"`
	} `json:"response_format"`

	BestOf *int            `json:"best_of"`
	Tools  json.RawMessage `json:"tools"`
	Echo   bool            `json:"echo"`
	Suffix string          `json:"suffix"`
}

type message struct {
	Role    string          `json:"role"`
	Content json.RawMessage `json:"content"`
}

// readRequest reads and checks a body.
func readRequest(w http.ResponseWriter, r *http.Request) (request, error) {
	var q request
	if err := readJSON(w, r, &q); err != nil {
		return q, err
	}
	return q, q.unsupported()
}

func readJSON(w http.ResponseWriter, r *http.Request, v any) error {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	var large *http.MaxBytesError
	if errors.As(err, &large) {
		return problem{http.StatusRequestEntityTooLarge, "too_large", fmt.Sprintf("the body is larger than %d bytes", maxBody), 0}
	}
	if err != nil {
		return errors.New("the body could not be read to its end")
	}
	return decodeStrict(body, v)
}

// unsupported names the first unsupported key that the request has.
func (q request) unsupported() error {
	set := func(raw json.RawMessage) bool {
		s := strings.TrimSpace(string(raw))
		return s != "" && s != "null" && s != "false" && s != "[]" && s != "0"
	}
	switch {
	case q.N != nil && (*q.N < 1 || *q.N > maxAnswers):
		return fmt.Errorf("n is %d; 1 to %d answers to a request are possible", *q.N, maxAnswers)
	case q.BestOf != nil && *q.BestOf != 1:
		return fmt.Errorf("best_of is %d; only 1 is possible", *q.BestOf)
	case set(q.Tools):
		return errors.New("tools are not supported")
	case q.Echo:
		return errors.New("echo is not supported")
	case q.Suffix != "":
		return errors.New("suffix is not supported")
	}
	return nil
}

// engineRequest is the engine's form of the request.
func (q request) engineRequest(prompt []int32) (engine.Request, error) {
	r := engine.Request{
		Prompt: prompt, IgnoreEOS: q.IgnoreEOS,
		Sampling: sample.Params{Temperature: 1, TopK: q.TopK, MinP: q.MinP, Seed: rand.Uint64(), Repetition: q.Repetition, Frequency: q.Frequency, Presence: q.Presence},
	}
	var err error
	if r.Sampling.Logprobs, r.Sampling.Top, err = q.logprobs(); err != nil {
		return r, err
	}
	if err := q.format(&r); err != nil {
		return r, err
	}
	for _, n := range []*int{q.MaxTokens, q.MaxCompletionTokens} {
		if n == nil {
			continue
		}
		if *n < 1 || *n > maxCount && !flaws.On("panic-on-max-tokens") {
			return r, fmt.Errorf("max_tokens is %d; 1 to %d are possible", *n, maxCount)
		}
		r.MaxTokens = *n
	}
	if q.Temperature != nil {
		r.Sampling.Temperature = *q.Temperature
	}
	if q.TopP != nil {
		r.Sampling.TopP = *q.TopP
	}
	if q.Seed != nil {
		r.Sampling.Seed = uint64(*q.Seed)
	}
	r.Stop, err = stops(q.Stop)
	return r, err
}

// logprobs reads the setting, which chats and completions write differently.
func (q request) logprobs() (want bool, top int, err error) {
	var truth *bool
	var count *int
	switch {
	case len(q.Logprobs) == 0:
	case json.Unmarshal(q.Logprobs, &truth) == nil:
		want, top = truth != nil && *truth, q.TopLogprobs
	case json.Unmarshal(q.Logprobs, &count) == nil && count != nil:
		want, top = true, *count
	default:
		return false, 0, errors.New("logprobs must be true or false for a chat, and a number for a completion")
	}
	if top < 0 || top > maxLogprobs {
		return false, 0, fmt.Errorf("logprobs of %d alternatives are asked for; 0 to %d are possible", top, maxLogprobs)
	}
	return want, top, nil
}

// format reads the format that the answer must have.
func (q request) format(r *engine.Request) error {
	if q.ResponseFormat == nil {
		return nil
	}
	switch q.ResponseFormat.Type {
	case "", "text":
	case "json_object":
		r.JSON = true
	case "json_schema":
		var form struct {
			Schema json.RawMessage `json:"schema"`
		}
		if kindOf(q.ResponseFormat.Schema) == '{' {
			if err := fillStruct(q.ResponseFormat.Schema, reflect.ValueOf(&form).Elem(), "json_schema"); err != nil {
				return err
			}
		}
		if r.JSON, r.Schema = true, form.Schema; len(r.Schema) == 0 {
			return errors.New("response_format json_schema has no json_schema.schema")
		}
	default:
		return fmt.Errorf("response_format %q is not supported; text, json_object and json_schema are", q.ResponseFormat.Type)
	}
	return nil
}

// answers is how many answers are asked for.
func (q request) answers() int {
	if q.N == nil {
		return 1
	}
	return *q.N
}

// stops reads a string, a list of strings, or nothing.
func stops(raw json.RawMessage) (list []string, err error) {
	switch kindOf(raw) {
	case 0, 'n':
		return nil, nil
	case '"':
		one := unquote(raw)
		if one == "" {
			return nil, nil
		}
		list = []string{one}
	case '[':
		many := elements(raw)
		if len(many) > maxStops {
			return nil, fmt.Errorf("stop has %d strings; up to %d are possible", len(many), maxStops)
		}
		for _, s := range many {
			if kindOf(s) != '"' {
				return nil, errors.New("stop must be a string or a list of strings")
			}
			if list = append(list, unquote(s)); list[len(list)-1] == "" {
				return nil, errors.New("stop has an empty string, which would end every answer at once")
			}
		}
	default:
		return nil, errors.New("stop must be a string or a list of strings")
	}
	for i, s := range list {
		if len(s) > maxStop {
			return nil, fmt.Errorf("the stop string %d has %d bytes; up to %d are possible", i, len(s), maxStop)
		}
	}
	return list, nil
}

// chatMessages reads the messages of a chat.
func (q request) chatMessages() ([]engine.Message, error) {
	if len(q.Messages) == 0 {
		return nil, errors.New("messages is empty; it must have at least one message")
	}
	if len(q.Messages) > engine.MaxMessages {
		return nil, fmt.Errorf("there are %d messages; up to %d are possible", len(q.Messages), engine.MaxMessages)
	}
	out := make([]engine.Message, len(q.Messages))
	for i, m := range q.Messages {
		switch m.Role {
		case "system", "user", "assistant", "developer":
		default:
			return nil, fmt.Errorf("messages[%d] has the role %q; system, user and assistant are possible", i, m.Role)
		}
		text, err := m.text()
		if err != nil {
			return nil, fmt.Errorf("messages[%d]: %w", i, err)
		}
		role := m.Role
		if role == "developer" { // the name of system for newer models
			role = "system"
		}
		out[i] = engine.Message{Role: role, Content: text}
	}
	return out, nil
}

// chatPrompt is the messages rendered with the model's template.
func (q request) chatPrompt(ctx context.Context, e *engine.Engine) ([]int32, error) {
	messages, err := q.chatMessages()
	if err != nil {
		return nil, err
	}
	return e.ChatPrompt(ctx, messages)
}

// text reads content that is a string or a list of text parts. The Responses
// API has another name for such parts.
func (m message) text() (string, error) {
	switch kindOf(m.Content) {
	case '"':
		return unquote(m.Content), nil
	case 'n': // null, as in a message of an assistant that only called tools
		return "", nil
	case '[':
	default:
		return "", errors.New("content must be a string or a list of text parts")
	}
	var b strings.Builder
	for _, raw := range elements(m.Content) {
		var p struct {
			Type string `json:"type"`
			Text string `json:"text"`
		}
		if err := fill(raw, reflect.ValueOf(&p).Elem(), "content"); err != nil {
			return "", err
		}
		if p.Type != "text" && p.Type != "input_text" && p.Type != "output_text" {
			return "", fmt.Errorf("a content part is of type %.40q; text is possible", p.Type)
		}
		b.WriteString(p.Text)
	}
	return b.String(), nil
}

// promptTokens reads a prompt: a string, token ids, or a list of one of them.
func (q request) promptTokens(ctx context.Context, e *engine.Engine) ([]int32, error) {
	prompt := q.Prompt
	if kindOf(prompt) == '[' {
		list := elements(prompt)
		if len(list) > 0 && (kindOf(list[0]) == '[' || kindOf(list[0]) == '"') {
			if len(list) != 1 {
				return nil, fmt.Errorf("prompt has %d prompts; only 1 in a request is possible", len(list))
			}
			prompt = list[0]
		}
	}
	switch kindOf(prompt) {
	case '"':
		return e.Prompt(ctx, unquote(prompt))
	case '[':
		var ids []int32
		if json.Unmarshal(prompt, &ids) == nil {
			return ids, nil
		}
	}
	return nil, errors.New("prompt must be a string or a list of token ids")
}
