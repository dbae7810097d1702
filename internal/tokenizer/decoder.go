package tokenizer

import (
	"strings"
	"unicode/utf8"
)

// Decoder turns a stream of ids into text. A token may end in the middle of a
// rune; its bytes are held back until the rune is whole, so that every piece of
// text is valid UTF-8.
type Decoder struct {
	t    *Tokenizer
	held []byte
}

// Decoder starts a stream.
func (t *Tokenizer) Decoder() *Decoder { return &Decoder{t: t} }

// Next is the text that id completes, empty when it completes none.
func (d *Decoder) Next(id int32) string {
	if d.t.IsControl(id) {
		return ""
	}
	bytes := d.t.Bytes(id)
	if len(d.held) == 0 && utf8.ValidString(bytes) {
		return bytes // nearly every token is complete UTF-8, and its text exists already
	}
	d.held = append(d.held, bytes...)
	whole := len(d.held) - unfinished(d.held)
	text := strings.ToValidUTF8(string(d.held[:whole]), "\uFFFD")
	d.held = append(d.held[:0], d.held[whole:]...)
	return text
}

// Rest is the text that was held back, at the end of the stream.
func (d *Decoder) Rest() string {
	text := strings.ToValidUTF8(string(d.held), "\uFFFD")
	d.held = d.held[:0]
	return text
}

// unfinished counts the bytes at the end of b that begin a rune and could be
// completed by more.
func unfinished(b []byte) int {
	for n := 1; n <= min(3, len(b)); n++ {
		if tail := b[len(b)-n:]; utf8.RuneStart(tail[0]) {
			if !utf8.FullRune(tail) {
				return n
			}
			return 0
		}
	}
	return 0
}
