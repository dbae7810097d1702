package tokenizer

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
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
		Prefix       string          `json:"continuing_subword_prefix"`
		Suffix       string          `json:"end_of_word_suffix"`
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
	AddPrefix  *bool    `json:"add_prefix_space"`
	Behavior   string   `json:"behavior"`
	Invert     bool     `json:"invert"`
	Pattern    struct {
		Regex  string `json:"Regex"`
		String string `json:"String"`
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

// Most bytes of a tokenizer.json; the largest in use have about 35 MB.
const maxFile = 64 << 20

// ReadFile reads a tokenizer.json of Hugging Face. unread lists the steps of the file
// that New would leave out: with one of them, some texts get other tokens than the
// file means.
func ReadFile(path string) (c Config, unread []string, err error) {
	b, err := readBounded(path)
	if err != nil {
		return c, nil, err
	}
	var t hfTokenizer
	if err := json.Unmarshal(b, &t); err != nil {
		return c, nil, fmt.Errorf("tokenizer.json: %w", err)
	}
	if t.Model.Type != "BPE" {
		return c, nil, fmt.Errorf("tokenizer.json: model type %q is not known; BPE is", t.Model.Type)
	}
	c = Config{Model: "gpt2", BOS: -1, EOS: -1, EOT: -1}
	if c.Merges, err = t.merges(); err != nil {
		return c, nil, fmt.Errorf("tokenizer.json: merges: %w", err)
	}
	if c.Tokens, c.Types, err = t.vocabulary(); err != nil {
		return c, nil, fmt.Errorf("tokenizer.json: %w", err)
	}
	if t.Model.ByteFallback {
		c.Model, c.Scores, c.AddSpacePrefix = "llama", t.scores(c.Tokens, c.Merges), t.prefixesSpace()
	}
	unread = t.describe(&c)
	if first, ok := t.Post.first(); ok {
		if id := slices.Index(c.Tokens, first); id >= 0 {
			c.BOS, c.AddBOS = id, true
		}
	}
	return c, unread, nil
}

func readBounded(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	switch st, err := f.Stat(); {
	case err != nil:
		return nil, err
	case st.IsDir():
		return nil, fmt.Errorf("it is a folder; name the file tokenizer.json in it")
	case !st.Mode().IsRegular():
		return nil, fmt.Errorf("it is not a regular file")
	}
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(b) > maxFile {
		err = fmt.Errorf("it has more than %d MiB; no tokenizer.json is that large", maxFile>>20)
	}
	return b, err
}

// Open reads a tokenizer.json and refuses one with which texts would get other tokens
// than the file means.
func Open(path string) (*Tokenizer, error) {
	c, unread, err := ReadFile(path)
	if err != nil {
		return nil, err
	}
	if len(unread) > 0 {
		return nil, fmt.Errorf("it has %s, which cannot be applied, so its counts would be wrong", strings.Join(unread, " and "))
	}
	t, err := New(c)
	if err != nil {
		return nil, err
	}
	for b := range 256 {
		of := string(toRune[b])
		if t.spm {
			of = fmt.Sprintf("<0x%02X>", b)
		}
		if _, has := t.ids[of]; !has {
			return nil, fmt.Errorf("its vocabulary has no token %s for the byte %d, so it is not a byte-level BPE, nor a BPE with all bytes to fall back to", of, b)
		}
	}
	return t, nil
}

// describe fills in how text is normalized and split, and lists what it leaves out.
func (t hfTokenizer) describe(c *Config) (unread []string) {
	leave := func(kind string, s hfStep, what string) {
		if what != "" {
			what = " with " + what
		}
		unread = append(unread, fmt.Sprintf("the %s %.40q%s", kind, s.Type, what))
	}
	if t.Model.Prefix != "" || t.Model.Suffix != "" {
		unread = append(unread, "a BPE that marks the beginnings or ends of words")
	}
	for _, s := range t.Normalizer.steps() {
		switch {
		case s.Type == "NFC":
			c.NFC = true
		case t.Model.ByteFallback && s.Type == "Prepend", t.Model.ByteFallback && s.Type == "Replace" && s.Pattern.String == " ":
		default:
			leave("normalizer", s, "")
		}
	}
	byteLevel := false
	for _, s := range t.PreTokenizer.steps() {
		switch {
		case t.Model.ByteFallback && s.Type == "Metaspace":
		case t.Model.ByteFallback && s.Type == "Split" && s.Pattern.String == " ": // the normalizer leaves no blank
		case t.Model.ByteFallback:
			leave("pre-tokenizer", s, "")
		case s.Type == "Split" && s.Pattern.Regex != "":
			c.Split = append(c.Split, s.Pattern.Regex)
			// Removed with invert keeps the matches: the expressions in use match everything.
			if isolated := s.Behavior == "Isolated" && !s.Invert; !isolated && (s.Behavior != "Removed" || !s.Invert) {
				leave("pre-tokenizer", s, "the behavior "+s.Behavior)
			}
		case s.Type == "Digits" && s.Individual:
			c.Split = append(c.Split, `\p{N}`)
		case s.Type == "Digits":
			c.Split = append(c.Split, `\p{N}+`)
		case s.Type == "ByteLevel":
			byteLevel = true
			if s.UseRegex == nil || *s.UseRegex {
				c.Split = append(c.Split, gpt2Split)
			}
			if s.AddPrefix == nil || *s.AddPrefix {
				leave("pre-tokenizer", s, "add_prefix_space")
			}
		default:
			leave("pre-tokenizer", s, "")
		}
	}
	if !t.Model.ByteFallback && !byteLevel {
		unread = append(unread, "no pre-tokenizer ByteLevel")
	}
	return unread
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

func (t hfTokenizer) vocabulary() (tokens []string, types []int, err error) {
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
	tokens, types = make([]string, n), make([]int, n)
	for i := range types {
		types[i] = TypeNormal
	}
	for s, id := range t.Model.Vocab {
		if id < 0 {
			return nil, nil, fmt.Errorf("token %q has the id %d", s, id)
		}
		tokens[id] = s
		if t.Model.ByteFallback && len(s) == 6 && strings.HasPrefix(s, "<0x") {
			types[id] = TypeByte
		}
	}
	for _, a := range t.Added {
		if a.ID < 0 {
			return nil, nil, fmt.Errorf("added token %q has the id %d", a.Content, a.ID)
		}
		tokens[a.ID], types[a.ID] = a.Content, TypeUser
		if a.Special {
			types[a.ID] = TypeControl
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
		if s.Type == "Metaspace" && (s.Scheme == "first" || s.Scheme == "always" || s.Scheme == "" && s.AddPrefix != nil && *s.AddPrefix) {
			return true
		}
	}
	return false
}
