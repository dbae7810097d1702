package client

import (
	"bytes"
	"encoding/json"
	"strings"

	"github.com/launchgate/launchgate/internal/words"
)

// Least is the smallest limit of tokens that an API accepts: 16 for OpenAI's responses.
func Least(api string) int {
	if api == APIResponses {
		return 16
	}
	return 4
}

// encode makes the JSON of a request and sets the fields of the client and then those
// of this request. A field has any JSON value; null removes the field, and "${name}"
// stands for the value that the field of that name had.
func (c *Client) encode(content any, own map[string]string) ([]byte, error) {
	made, err := json.Marshal(content)
	if err != nil || len(c.cfg.Fields) == 0 && len(own) == 0 {
		return made, err
	}
	var before map[string]json.RawMessage
	if err := json.Unmarshal(made, &before); err != nil {
		return nil, err
	}
	after := make(map[string]json.RawMessage, len(before))
	for name, value := range before {
		after[name] = value
	}
	if tokens, has := before["max_output_tokens"]; has {
		before["max_tokens"] = tokens // under either name
	}
	for _, fields := range []map[string]string{c.cfg.Fields, own} {
		for name, value := range fields {
			if value == "null" {
				delete(after, name)
				continue
			}
			if after[name], err = filled(value, before); err != nil {
				return nil, words.Errorf("the field %s: %s", name, err)
			}
		}
	}
	return json.Marshal(after)
}

// filled replaces every "${name}" in a value.
func filled(value string, before map[string]json.RawMessage) (json.RawMessage, error) {
	if !strings.Contains(value, "${") {
		return json.RawMessage(value), nil
	}
	d := json.NewDecoder(strings.NewReader(value))
	d.UseNumber()
	var whole any
	if err := d.Decode(&whole); err != nil {
		return nil, err
	}
	whole, err := replaced(whole, before)
	if err != nil {
		return nil, err
	}
	return json.Marshal(whole)
}

func replaced(value any, before map[string]json.RawMessage) (any, error) {
	var err error
	switch v := value.(type) {
	case string:
		if !strings.HasPrefix(v, "${") || !strings.HasSuffix(v, "}") {
			return v, nil
		}
		name := v[2 : len(v)-1]
		if was, has := before[name]; has {
			return was, nil
		}
		switch name {
		case "ignore_eos":
			return false, nil // left out if it is false
		case "stream_options":
			return nil, nil
		}
		return nil, words.Errorf("found ${%s}, but requests to this API have no %s", name, name)
	case []any:
		for i := range v {
			if v[i], err = replaced(v[i], before); err != nil {
				return nil, err
			}
		}
	case map[string]any:
		for key := range v {
			if v[key], err = replaced(v[key], before); err != nil {
				return nil, err
			}
		}
	}
	return value, nil
}

// secrets are hidden if a service repeats them.
type secrets []string

// leastSecret is the shortest secret that is hidden: a shorter one may be part of an
// ordinary word.
const leastSecret = 6

func (s secrets) hide(said []byte) []byte {
	for _, secret := range s {
		if len(secret) >= leastSecret && bytes.Contains(said, []byte(secret)) {
			said = bytes.ReplaceAll(said, []byte(secret), []byte("[secret]"))
		}
	}
	return said
}
