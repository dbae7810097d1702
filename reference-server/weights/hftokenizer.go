package weights

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// SplitKey has the expressions by which byte-level BPE splits text, if the
// model gives expressions instead of a name.
const SplitKey = "launchgate.tokenizer.split"

// Token types, as in GGUF.
const (
	tokenNormal  = 1
	tokenControl = 3
	tokenUser    = 4
	tokenByte    = 6
)

// hfTokenizer is the part of tokenizer.json that is read.
type hfTokenizer struct {
	Added []struct {
		ID      int    `json:"id"`
		Content string `json:"content"`
		Special bool   `json:"special"`
	} `json:"added_tokens"`
	Normalizer   *hfStep `json:"normalizer"`
	PreTokenizer *hfStep `json:"pre_tokenizer"`
	Post         *hfPost `json:"post_processor"`
	Model        struct {
		Type         string          `json:"type"`
		Vocab        map[string]int  `json:"vocab"`
		Merges       json.RawMessage `json:"merges"`
		ByteFallback bool            `json:"byte_fallback"`
	} `json:"model"`
}

// hfPost says which tokens are put around a text, such as the first one.
type hfPost struct {
	Type       string   `json:"type"`
	Processors []hfPost `json:"processors"`
	Single     []struct {
		Special *struct {
			ID string `json:"id"`
		} `json:"SpecialToken"`
	} `json:"single"`
}

// first is the token with which every text begins, if there is one.
func (p *hfPost) first() (string, bool) {
	if p == nil {
		return "", false
	}
	if p.Type == "TemplateProcessing" && len(p.Single) > 0 && p.Single[0].Special != nil {
		return p.Single[0].Special.ID, true
	}
	for _, q := range p.Processors {
		if id, ok := q.first(); ok {
			return id, true
		}
	}
	return "", false
}

// hfStep is a normalizer or pre-tokenizer, or a sequence of them.
type hfStep struct {
	Type       string   `json:"type"`
	Normalizer []hfStep `json:"normalizers"`
	Pre        []hfStep `json:"pretokenizers"`
	UseRegex   *bool    `json:"use_regex"`
	Individual bool     `json:"individual_digits"`
	Scheme     string   `json:"prepend_scheme"`
	AddPrefix  bool     `json:"add_prefix_space"`
	Pattern    struct {
		Regex string `json:"Regex"`
	} `json:"pattern"`
}

func (s *hfStep) steps() []hfStep {
	if s == nil {
		return nil
	}
	if s.Type == "Sequence" {
		return append(s.Normalizer, s.Pre...)
	}
	return []hfStep{*s}
}

// describeTokenizer turns tokenizer.json and tokenizer_config.json into GGUF's
// keys.
func describeTokenizer(dir string, meta Meta) error {
	var t hfTokenizer
	if err := readJSON(filepath.Join(dir, "tokenizer.json"), &t); err != nil {
		return err
	}
	if t.Model.Type != "BPE" {
		return fmt.Errorf("tokenizer.json: model type %q is not known; BPE is", t.Model.Type)
	}
	merges, err := t.merges()
	if err != nil {
		return fmt.Errorf("tokenizer.json: merges: %w", err)
	}
	tokens, types, err := t.vocabulary()
	if err != nil {
		return fmt.Errorf("tokenizer.json: %w", err)
	}
	meta["tokenizer.ggml.tokens"], meta["tokenizer.ggml.token_type"] = tokens, types
	if t.Model.ByteFallback {
		meta["tokenizer.ggml.model"] = "llama"
		meta["tokenizer.ggml.scores"] = t.scores(tokens, merges)
		meta["tokenizer.ggml.add_space_prefix"] = t.prefixesSpace()
	} else {
		meta["tokenizer.ggml.model"] = "gpt2"
		meta["tokenizer.ggml.merges"] = merges
		meta[SplitKey] = t.splits()
	}
	if err := describeSpecials(dir, tokens, meta); err != nil {
		return err
	}
	if first, ok := t.Post.first(); ok {
		if id := slices.Index(tokens, first); id >= 0 {
			meta["tokenizer.ggml.bos_token_id"], meta["tokenizer.ggml.add_bos_token"] = int64(id), true
		}
	}
	return nil
}

// merges are written as "left right" or as pairs.
func (t hfTokenizer) merges() ([]string, error) {
	var lines []string
	if json.Unmarshal(t.Model.Merges, &lines) == nil {
		return lines, nil
	}
	var pairs [][2]string
	if err := json.Unmarshal(t.Model.Merges, &pairs); err != nil {
		return nil, err
	}
	lines = nil // they are pairs, not lines
	for _, p := range pairs {
		lines = append(lines, p[0]+" "+p[1])
	}
	return lines, nil
}

func (t hfTokenizer) vocabulary() (tokens []string, types []int64, err error) {
	n := 0
	for _, id := range t.Model.Vocab {
		n = max(n, id+1)
	}
	for _, a := range t.Added {
		n = max(n, a.ID+1)
	}
	if count := len(t.Model.Vocab) + len(t.Added); n > 2*count+1024 {
		return nil, nil, fmt.Errorf("there are %d tokens, and one has the id %d", count, n-1)
	}
	tokens, types = make([]string, n), make([]int64, n)
	for i := range types {
		types[i] = tokenNormal
	}
	for s, id := range t.Model.Vocab {
		if id < 0 {
			return nil, nil, fmt.Errorf("token %q has the id %d", s, id)
		}
		tokens[id] = s
		if t.Model.ByteFallback && len(s) == 6 && strings.HasPrefix(s, "<0x") {
			types[id] = tokenByte
		}
	}
	for _, a := range t.Added {
		if a.ID < 0 {
			return nil, nil, fmt.Errorf("added token %q has the id %d", a.Content, a.ID)
		}
		tokens[a.ID], types[a.ID] = a.Content, tokenUser
		if a.Special {
			types[a.ID] = tokenControl
		}
	}
	return tokens, types, nil
}

// scores make the best-ranked merge the one with the highest score.
func (t hfTokenizer) scores(tokens, merges []string) []float64 {
	rank := make(map[string]int, len(merges))
	for i, m := range merges {
		joined := strings.Replace(m, " ", "", 1)
		if _, there := rank[joined]; !there {
			rank[joined] = i
		}
	}
	scores := make([]float64, len(tokens))
	for id, s := range tokens {
		scores[id] = -float64(len(merges))
		if r, ok := rank[s]; ok {
			scores[id] = -float64(r)
		}
	}
	return scores
}

func (t hfTokenizer) prefixesSpace() bool {
	for _, s := range t.Normalizer.steps() {
		if s.Type == "Prepend" {
			return true
		}
	}
	for _, s := range t.PreTokenizer.steps() {
		if s.Type == "Metaspace" && (s.Scheme == "first" || s.Scheme == "always" || s.Scheme == "" && s.AddPrefix) {
			return true
		}
	}
	return false
}

// gpt2Split is the expression of ByteLevel (Radford et al. 2019).
const gpt2Split = `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`

func (t hfTokenizer) splits() []string {
	var out []string
	for _, s := range t.PreTokenizer.steps() {
		switch {
		case s.Type == "Split" && s.Pattern.Regex != "":
			out = append(out, s.Pattern.Regex)
		case s.Type == "Digits" && s.Individual:
			out = append(out, `\p{N}`)
		case s.Type == "ByteLevel" && (s.UseRegex == nil || *s.UseRegex):
			out = append(out, gpt2Split)
		}
	}
	return out
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
