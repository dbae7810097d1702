package tokenizer

import (
	"context"
	"errors"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"

	"github.com/launchgate/launchgate/internal/flaws"
)

// ErrTooMany is returned for a text with more tokens than the limit.
var ErrTooMany = errors.New("the text has more tokens than are possible")

// TooLong reports whether so many bytes of text must be more than limit tokens,
// even if every token were the longest one.
func (t *Tokenizer) TooLong(bytes, limit int) bool {
	return bytes/t.longest > limit && !flaws.On("quadratic-tokens")
}

// Encode turns text into ids. With special, special tokens in the text become
// tokens; otherwise they are plain text. BOS is added if the model wants it.
func (t *Tokenizer) Encode(text string, special bool) []int32 {
	ids, _ := t.EncodeWithin(context.Background(), text, special, 4*len(text)+8) // no text has more tokens
	return ids
}

// EncodeWithin is Encode for a text that a client sent. It returns ErrTooMany
// as soon as there must be more than limit tokens, and ctx's error when the
// client has left. Its work is bounded by the limit and is linear in the length
// of the text.
func (t *Tokenizer) EncodeWithin(ctx context.Context, text string, special bool, limit int) ([]int32, error) {
	return t.encode(ctx, text, special, "", limit)
}

// encode does not parse a special token that has a mark in it or right after
// it, and removes the marks. An empty mark means none.
func (t *Tokenizer) encode(ctx context.Context, text string, special bool, mark string, limit int) ([]int32, error) {
	if mark == "" && t.TooLong(len(text), limit) {
		return nil, ErrTooMany // even if every token were the longest one
	}
	e := encoding{t: t, ctx: ctx, limit: limit}
	if t.AddBOS && t.BOS >= 0 && !(special && strings.HasPrefix(text, t.Tokens[t.BOS])) {
		e.ids = append(e.ids, int32(t.BOS))
	}
	if !special {
		e.plain(text)
		return e.ids, e.err
	}
	var plain strings.Builder
	from := 0
	for at := 0; at < len(text) && e.err == nil; {
		if mark != "" && strings.HasPrefix(text[at:], mark) {
			plain.WriteString(text[from:at])
			at += len(mark)
			from = at
			continue
		}
		if flaws.On("quadratic-tokens") {
			for special := range t.specials.endings {
				_ = strings.Index(text[at:], special)
			}
		}
		id, n := t.specials.at(text[at:])
		if n == 0 || mark != "" && strings.HasPrefix(text[at+n:], mark) {
			at++
			continue
		}
		plain.WriteString(text[from:at])
		e.plain(plain.String())
		plain.Reset()
		e.add(id)
		at += n
		from = at
	}
	if e.err == nil {
		plain.WriteString(text[from:])
		e.plain(plain.String())
	}
	return e.ids, e.err
}

// encoding is the state of encoding one text.
type encoding struct {
	t     *Tokenizer
	ctx   context.Context
	limit int
	ids   []int32
	err   error // why it was given up
	steps int
}

// checkEvery is after how many steps of work it checks whether the client has
// left.
const checkEvery = 4096

// goesOn counts a step of work and reports whether to continue.
func (e *encoding) goesOn() bool {
	if e.steps++; e.steps%checkEvery == 0 && e.err == nil && e.ctx.Err() != nil {
		e.err = context.Cause(e.ctx)
	}
	if e.err == nil && len(e.ids) > e.limit {
		e.err = ErrTooMany
	}
	return e.err == nil
}

func (e *encoding) add(id int32) {
	e.ids = append(e.ids, id)
	e.goesOn()
}

// plain encodes text without special tokens.
func (e *encoding) plain(text string) {
	if e.t.NFC && !norm.NFC.IsNormalString(text) {
		text = norm.NFC.String(text)
	}
	switch {
	case text == "" || e.err != nil:
	case e.t.spm:
		e.pieces(text)
	default:
		e.words(text, e.t.split)
	}
}

// specials are the special tokens of a template's text. They are found in one
// pass, which checks at each position as many bytes as the longest of them has.
type specials struct {
	root    *specialNode
	endings map[string]bool // every proper suffix of each
	longest int
}

type specialNode struct {
	next    map[byte]*specialNode
	id      int32
	is      bool // a token ends here
	control bool // it is a control token, not text
}

func newSpecials() *specials {
	return &specials{root: &specialNode{next: map[byte]*specialNode{}}, endings: map[string]bool{}}
}

func (s *specials) add(text string, id int32, control bool) {
	n := s.root
	for i := range len(text) {
		next := n.next[text[i]]
		if next == nil {
			next = &specialNode{next: map[byte]*specialNode{}}
			n.next[text[i]] = next
		}
		n = next
		if i > 0 {
			s.endings[text[i:]] = true
		}
	}
	if !n.is {
		n.id, n.is, n.control = id, true, control
	}
	s.longest = max(s.longest, len(text))
}

// at is the longest special token with which text begins. n is 0 if there is
// none.
func (s *specials) at(text string) (id int32, n int) {
	node := s.root
	for i := range len(text) {
		if node = node.next[text[i]]; node == nil {
			break
		}
		if node.is {
			id, n = node.id, i+1
		}
	}
	return id, n
}

// begins reports whether text begins with a special token, or could if more
// text followed.
func (s *specials) begins(text string) (whole, control, perhaps bool) {
	node := s.root
	for i := range len(text) {
		if node = node.next[text[i]]; node == nil {
			return whole, control, false
		}
		whole, control = whole || node.is, control || node.control
	}
	return whole, control, node != s.root
}

// shield puts a mark after the first character of every special token in a
// user's text, and of everything that could become one together with the
// template's text around it. With whole, it marks only complete control tokens.
func (s *specials) shield(text, mark string, whole bool) string {
	var b strings.Builder
	from := 0
	put := func(at int) {
		_, n := utf8.DecodeRuneInString(text[at:])
		b.WriteString(text[from : at+n])
		b.WriteString(mark)
		from = at + n
	}
	trimmed := len(strings.TrimRight(text, " \t\r\n"))
	lead := len(text) - len(strings.TrimLeft(text, " \t\r\n"))
	for at := range text {
		is, control, perhaps := s.begins(text[at:])
		if !perhaps && at < trimmed {
			_, _, perhaps = s.begins(text[at:trimmed])
		}
		switch {
		case whole && control, !whole && (is || perhaps):
			put(at)
		case !whole && (at == 0 || at == lead) && s.finishes(text[at:]):
			put(at)
		}
	}
	b.WriteString(text[from:])
	return b.String()
}

// finishes reports whether text begins with the rest of a special token.
func (s *specials) finishes(text string) bool {
	for n := 1; n <= min(s.longest, len(text)); n++ {
		if s.endings[text[:n]] {
			return true
		}
	}
	return false
}

// markFor is a rune that occurs in none of texts: a Unicode noncharacter, or
// one of private use if the texts contain all noncharacters.
func markFor(texts func(yield func(string) bool)) string {
	used := map[rune]bool{}
	for text := range texts {
		for _, r := range text {
			if r >= 0xfdd0 && r <= 0xfdef || r >= 0xf0000 {
				used[r] = true
			}
		}
	}
	for r := rune(0xfdd0); r <= 0xfdef; r++ {
		if !used[r] {
			return string(r)
		}
	}
	for r := rune(0xf0000); r < utf8.MaxRune; r++ {
		if !used[r] {
			return string(r)
		}
	}
	return ""
}
