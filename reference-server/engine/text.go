package engine

import (
	"context"
	"errors"
	"fmt"

	"github.com/launchgate/launchgate/internal/tokenizer"
	"github.com/launchgate/launchgate/reference-server/weights"
)

// newTokenizer builds the tokenizer that a model's metadata describes.
func newTokenizer(m weights.Meta) (*tokenizer.Tokenizer, error) {
	architecture, err := m.Architecture()
	if err != nil {
		return nil, err
	}
	const key = "tokenizer.ggml."
	kind := m.String(key+"model", "")
	return tokenizer.New(tokenizer.Config{
		Model:  kind,
		Pre:    m.String(key+"pre", architecture.Pre),
		Split:  m.Strings(weights.SplitKey),
		Tokens: m.Strings(key + "tokens"),
		Types:  m.Ints(key + "token_type"),
		Merges: m.Strings(key + "merges"),
		Scores: m.Floats(key + "scores"),
		BOS:    m.Int(key+"bos_token_id", -1),
		EOS:    m.Int(key+"eos_token_id", -1),
		EOT:    m.Int(key+"eot_token_id", -1),
		// By default SentencePiece models begin with BOS and a space.
		AddBOS:         m.Bool(key+"add_bos_token", kind == "llama"),
		AddSpacePrefix: m.Bool(key+"add_space_prefix", kind == "llama"),
		NFC:            m.Bool(weights.NFCKey, false),
		Template:       m.String("tokenizer.chat_template", ""),
	})
}

// Message is one turn of a chat.
type Message = tokenizer.Message

// MaxMessages is how many a chat may have.
const MaxMessages = tokenizer.MaxMessages

// ChatPrompt is the prompt of a chat, rendered with the model's own template.
// It fails when ctx ends or the prompt is too long.
func (e *Engine) ChatPrompt(ctx context.Context, messages []Message) ([]int32, error) {
	if e.noChat != nil {
		return nil, e.noChat
	}
	ids, err := e.chat.Encode(ctx, messages, e.maxSeq)
	return ids, e.tooMany(err)
}

// Prompt is the prompt of plain text. It fails when ctx ends or the prompt is
// too long.
func (e *Engine) Prompt(ctx context.Context, text string) ([]int32, error) {
	ids, err := e.tok.EncodeWithin(ctx, text, false, e.maxSeq)
	return ids, e.tooMany(err)
}

// tooMany is the engine's error for a text with more tokens than fit.
func (e *Engine) tooMany(err error) error {
	if errors.Is(err, tokenizer.ErrTooMany) {
		return &TooLongError{e.maxSeq + 1, e.maxSeq, true}
	}
	return err
}

// Tokenize is Prompt for a trusted text of any length.
func (e *Engine) Tokenize(text string) []int32 { return e.tok.Encode(text, false) }

// Detokenize is the text of ids, control tokens left out.
func (e *Engine) Detokenize(ids []int32) (string, error) {
	if err := e.checkIDs(ids); err != nil {
		return "", err
	}
	return e.tok.Decode(ids), nil
}

// checkIDs returns an error for an id that the model does not have.
func (e *Engine) checkIDs(ids []int32) error {
	for _, id := range ids {
		if id < 0 || int(id) >= e.model.Vocab {
			return fmt.Errorf("found the token id %d; 0 to %d are possible", id, e.model.Vocab-1)
		}
	}
	return nil
}
