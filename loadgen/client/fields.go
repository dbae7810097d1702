package client

import (
	"bytes"
	"encoding/json"
	"strings"

	"github.com/launchgate/launchgate/internal/words"
)

// Least is how many tokens the smallest question to an API may ask for: OpenAI's
// responses take no fewer than 16.
func Least(api string) int {
	if api == APIResponses {
		return 16
	}
	return 4
}

// encode is the JSON of a request, with the fields that are put into all of the
// client's and then those of this one: any value, null to leave a field out, and
// "${name}" for what the field of that name would have held.
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
		before["max_tokens"] = tokens // by either name
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

// filled is a value with every "${name}" in it replaced.
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
			return false, nil // left out where it is false
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

// secrets are never told, should a service repeat them.
type secrets []string

// leastSecret is how long a secret has to be to be looked for: a shorter one would
// be found in words.
const leastSecret = 6

func (s secrets) hide(said []byte) []byte {
	for _, secret := range s {
		if len(secret) >= leastSecret && bytes.Contains(said, []byte(secret)) {
			said = bytes.ReplaceAll(said, []byte(secret), []byte("[secret]"))
		}
	}
	return said
}
