package weights

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/launchgate/launchgate/internal/tokenizer"
)

// Keys of what tokenizer.json says and GGUF has no key for.
const (
	SplitKey = "launchgate.tokenizer.split" // the expressions by which byte-level BPE splits text, if not a name
	NFCKey   = "launchgate.tokenizer.nfc"   // whether text is brought to Unicode's form NFC first
)

// describeTokenizer turns tokenizer.json and tokenizer_config.json into GGUF's
// keys. Steps of the file that the tokenizer does not know are left out.
func describeTokenizer(dir string, meta Meta) error {
	c, _, err := tokenizer.ReadFile(filepath.Join(dir, "tokenizer.json"))
	if err != nil {
		return err
	}
	types := make([]int64, len(c.Types))
	for id, t := range c.Types {
		types[id] = int64(t)
	}
	meta["tokenizer.ggml.model"] = c.Model
	meta["tokenizer.ggml.tokens"], meta["tokenizer.ggml.token_type"] = c.Tokens, types
	meta[NFCKey] = c.NFC
	if c.Model == "llama" {
		meta["tokenizer.ggml.scores"], meta["tokenizer.ggml.add_space_prefix"] = c.Scores, c.AddSpacePrefix
	} else {
		meta["tokenizer.ggml.merges"], meta[SplitKey] = c.Merges, c.Split
	}
	if err := describeSpecials(dir, c.Tokens, meta); err != nil {
		return err
	}
	if c.AddBOS {
		meta["tokenizer.ggml.bos_token_id"], meta["tokenizer.ggml.add_bos_token"] = int64(c.BOS), true
	}
	return nil
}

// describeSpecials reads which tokens begin and end, and the chat template.
func describeSpecials(dir string, tokens []string, meta Meta) error {
	var cfg struct {
		BOS      json.RawMessage `json:"bos_token"`
		EOS      json.RawMessage `json:"eos_token"`
		AddBOS   *bool           `json:"add_bos_token"`
		Template json.RawMessage `json:"chat_template"`
	}
	if err := readJSON(filepath.Join(dir, "tokenizer_config.json"), &cfg); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	ids := make(map[string]int, len(tokens))
	for id, s := range tokens {
		ids[s] = id
	}
	if id, ok := ids[tokenText(cfg.BOS)]; ok && len(cfg.BOS) > 0 {
		meta["tokenizer.ggml.bos_token_id"] = int64(id)
	}
	if id, ok := ids[tokenText(cfg.EOS)]; ok && len(cfg.EOS) > 0 {
		meta["tokenizer.ggml.eos_token_id"] = int64(id)
	}
	if cfg.AddBOS != nil {
		meta["tokenizer.ggml.add_bos_token"] = *cfg.AddBOS
	}
	if s := template(cfg.Template); s != "" {
		meta["tokenizer.chat_template"] = s
	}
	if b, err := os.ReadFile(filepath.Join(dir, "chat_template.jinja")); err == nil {
		meta["tokenizer.chat_template"] = string(b)
	}
	return nil
}

// tokenText reads a token that is written as a string or as an object.
func tokenText(raw json.RawMessage) string {
	var s string
	if json.Unmarshal(raw, &s) == nil {
		return s
	}
	var o struct {
		Content string `json:"content"`
	}
	_ = json.Unmarshal(raw, &o) // neither: there is none
	return o.Content
}

// template reads a chat template that is one string, or a list with one called
// default.
func template(raw json.RawMessage) string {
	var s string
	if json.Unmarshal(raw, &s) == nil {
		return s
	}
	var list []struct{ Name, Template string }
	_ = json.Unmarshal(raw, &list) // neither: there is none
	for _, t := range list {
		if t.Name == "default" {
			return t.Template
		}
	}
	return ""
}
