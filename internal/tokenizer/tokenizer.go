// Package tokenizer turns text into the token ids of a model and back:
// byte-level BPE (GPT-2, SmolLM2, Llama 3, Qwen 2 and 3) and SentencePiece-style
// BPE (Llama 1 and 2, Mistral). Chat messages become text by the model's own
// Jinja template. The reference server answers with it, and the harness counts the
// tokens of other services with a tokenizer.json.
package tokenizer

import (
	"fmt"
	"strings"

	"github.com/dlclark/regexp2"
)

// Config is a vocabulary as a model file gives it.
type Config struct {
	Model  string   // gpt2 (byte-level BPE) or llama (SentencePiece)
	Pre    string   // how byte-level BPE splits text into words, by name
	Split  []string // or by the expressions themselves
	Tokens []string // by id
	Types  []int    // by id: one of the Type constants; empty means all normal
	Merges []string // byte-level BPE: "left right", best first
	Scores []float64
	BOS    int // -1: none
	EOS    int
	EOT    int // end of turn, if the model has one besides EOS; -1: none

	NFC            bool // text is brought to Unicode's form NFC first
	AddBOS         bool
	AddSpacePrefix bool
	Template       string // the chat template, Jinja
}

// Types of tokens, as in GGUF.
const (
	TypeNormal  = 1
	TypeUnknown = 2
	TypeControl = 3
	TypeUser    = 4
	TypeByte    = 6
)

// Tokenizer is safe for concurrent use.
type Tokenizer struct {
	Config
	ids      map[string]int32
	ranks    map[pair]int // byte-level BPE
	split    []*regexp2.Regexp
	specials *specials // control and user-defined tokens, by their text
	longest  int       // bytes of the longest token
	bytes    []string  // text of each id, as the bytes it stands for
	ends     map[int32]bool
	spm      bool
}

// endings are the names of control tokens that end a turn. Files often declare
// only one of the two that their model uses.
var endings = []string{"<|im_end|>", "<|eot_id|>", "<|end_of_text|>", "<|endoftext|>", "</s>", "<|end|>"}

type pair struct{ left, right string }

// New checks a vocabulary and builds a tokenizer.
func New(c Config) (*Tokenizer, error) {
	if len(c.Tokens) == 0 {
		return nil, fmt.Errorf("the model has no vocabulary")
	}
	if len(c.Types) != 0 && len(c.Types) != len(c.Tokens) {
		return nil, fmt.Errorf("the vocabulary has %d tokens and %d token types", len(c.Tokens), len(c.Types))
	}
	t := &Tokenizer{Config: c, longest: 1, ids: make(map[string]int32, len(c.Tokens)), bytes: make([]string, len(c.Tokens))}
	for id, s := range c.Tokens {
		if _, there := t.ids[s]; !there {
			t.ids[s] = int32(id)
		}
	}
	var err error
	switch c.Model {
	case "gpt2":
		err = t.initBytes()
	case "llama":
		err = t.initPieces()
	default:
		err = fmt.Errorf("tokenizer model %q is not known; gpt2 and llama are", c.Model)
	}
	if err != nil {
		return nil, err
	}
	t.specials = newSpecials()
	for id, s := range c.Tokens {
		if typ := t.typeOf(id); (typ == TypeControl || typ == TypeUser) && s != "" {
			t.specials.add(s, t.ids[s], typ == TypeControl)
			t.bytes[id] = s
		}
		t.longest = max(t.longest, len(t.bytes[id]))
	}
	t.ends = map[int32]bool{int32(c.EOS): true, int32(c.EOT): true}
	for _, s := range endings {
		if id, ok := t.ids[s]; ok && t.typeOf(int(id)) == TypeControl {
			t.ends[id] = true
		}
	}
	return t, nil
}

func (t *Tokenizer) typeOf(id int) int {
	if id >= len(t.Types) { // a model may have more rows than its tokenizer tokens
		return TypeNormal
	}
	return t.Types[id]
}

// IsControl reports whether an id is a control token, which is not text.
func (t *Tokenizer) IsControl(id int32) bool {
	return id >= 0 && t.typeOf(int(id)) == TypeControl
}

// Ends reports whether an id ends a generation.
func (t *Tokenizer) Ends(id int32) bool { return t.ends[id] }

// Bytes are the bytes a token stands for, possibly a part of a rune.
func (t *Tokenizer) Bytes(id int32) string {
	if id < 0 || int(id) >= len(t.bytes) {
		return ""
	}
	return t.bytes[id]
}

// Decode is the text of ids, without control tokens.
func (t *Tokenizer) Decode(ids []int32) string {
	var b strings.Builder
	for _, id := range ids {
		if !t.IsControl(id) {
			b.WriteString(t.Bytes(id))
		}
	}
	return b.String()
}
