package engine

import (
	"github.com/launchgate/launchgate/reference-server/tokenizer"
	"github.com/launchgate/launchgate/reference-server/weights"
)

// newTokenizer builds the tokenizer that a model's metadata describes.
func newTokenizer(m weights.Meta) (*tokenizer.Tokenizer, error) {
	const key = "tokenizer.ggml."
	kind := m.String(key+"model", "")
	return tokenizer.New(tokenizer.Config{
		Model:  kind,
		Pre:    m.String(key+"pre", ""),
		Split:  m.Strings(weights.SplitKey),
		Tokens: m.Strings(key + "tokens"),
		Types:  m.Ints(key + "token_type"),
		Merges: m.Strings(key + "merges"),
		Scores: m.Floats(key + "scores"),
		BOS:    m.Int(key+"bos_token_id", -1),
		EOS:    m.Int(key+"eos_token_id", -1),
		EOT:    m.Int(key+"eot_token_id", -1),
		// SentencePiece models begin with BOS and a space unless they say otherwise.
		AddBOS:         m.Bool(key+"add_bos_token", kind == "llama"),
		AddSpacePrefix: m.Bool(key+"add_space_prefix", kind == "llama"),
		Template:       m.String("tokenizer.chat_template", ""),
	})
}

// Message is one turn of a chat.
type Message = tokenizer.Message

// ChatPrompt is the prompt that a chat becomes by the model's own template.
func (e *Engine) ChatPrompt(messages []Message) ([]int32, error) {
	if e.noChat != nil {
		return nil, e.noChat
	}
	text, err := e.chat.Render(messages)
	if err != nil {
		return nil, err
	}
	return e.tok.Encode(text, true), nil
}

// Tokenize is the prompt that plain text becomes.
func (e *Engine) Tokenize(text string) []int32 { return e.tok.Encode(text, false) }

// Detokenize is the text of ids, control tokens left out.
func (e *Engine) Detokenize(ids []int32) string { return e.tok.Decode(ids) }
