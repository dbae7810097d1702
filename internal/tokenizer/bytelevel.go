package tokenizer

import (
	"container/heap"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/dlclark/regexp2"
)

// How byte-level BPE splits text before merging, by the name GGUF gives it.
// The expressions are those the models were trained with; they look ahead, so
// Go's regexp cannot run them.
const (
	gpt2Split = `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`
	llama3    = `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
	qwen2     = `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
)

var splits = map[string][]string{
	"":          {gpt2Split},
	"default":   {gpt2Split},
	"gpt-2":     {gpt2Split},
	"gpt2":      {gpt2Split},
	"smollm":    {`\p{N}`, gpt2Split},
	"llama-bpe": {llama3},
	"llama3":    {llama3},
	"qwen2":     {qwen2},
}

// initBytes prepares byte-level BPE (Radford et al. 2019): every byte is
// written as a printable rune, and pairs are merged by rank.
func (t *Tokenizer) initBytes() error {
	exprs := t.Split
	if len(exprs) == 0 {
		named, ok := splits[t.Pre]
		if !ok {
			return fmt.Errorf("pre-tokenizer %q is not known; gpt-2, smollm, llama-bpe and qwen2 are", t.Pre)
		}
		exprs = named
	}
	for _, e := range exprs {
		re, err := regexp2.Compile(e, regexp2.None)
		if err != nil {
			return fmt.Errorf("the pre-tokenizer's expression %q: %w", e, err)
		}
		re.MatchTimeout = 10 * time.Second
		t.split = append(t.split, re)
	}
	t.ranks = make(map[pair]int, len(t.Merges))
	for i, m := range t.Merges {
		left, right, ok := strings.Cut(m, " ")
		if !ok {
			return fmt.Errorf("merge %d is %q, and must be two tokens with a space between", i, m)
		}
		t.ranks[pair{left, right}] = i
	}
	for id, s := range t.Tokens {
		t.bytes[id] = unprintable(s)
	}
	return nil
}

// words splits text at the matches of the first expression and keeps the parts
// between them. It splits each part by the other expressions, and then joins
// the symbols of each word.
func (e *encoding) words(text string, by []*regexp2.Regexp) {
	if len(by) == 0 {
		if e.goesOn() {
			e.merge(printable(text))
		}
		return
	}
	runes, at := []rune(text), 0
	m, err := by[0].FindRunesMatch(runes)
	for ; m != nil && err == nil && e.goesOn(); m, err = by[0].FindNextMatch(m) {
		if m.Index > at {
			e.words(string(runes[at:m.Index]), by[1:])
		}
		e.words(string(runes[m.Index:m.Index+m.Length]), by[1:])
		at = m.Index + m.Length
	}
	if err != nil && e.err == nil {
		e.err = fmt.Errorf("the text could not be split into words: %w", err)
	}
	if at < len(runes) && e.err == nil {
		e.words(string(runes[at:]), by[1:])
	}
}

// merge joins the symbols of a word: first the pair with the best rank, and of
// equal ranks the leftmost. A word may be the whole text, so the time must not
// grow with the square of its length.
func (e *encoding) merge(word string) {
	t := e.t
	if id, ok := t.ids[word]; ok {
		e.add(id)
		return
	}
	syms := make([]symbol, 0, len(word))
	for i, r := range word {
		syms = append(syms, symbol{word[i : i+utf8.RuneLen(r)], len(syms) - 1, len(syms) + 1})
	}
	syms[len(syms)-1].next = -1
	var queue candidates
	offer := func(l, r int) {
		if l < 0 || r < 0 {
			return
		}
		if rank, ok := t.ranks[pair{syms[l].text, syms[r].text}]; ok {
			heap.Push(&queue, candidate{l, r, syms[l].text + syms[r].text, -float64(rank)})
		}
	}
	e.joinAll(syms, &queue, offer)
	for i := 0; i >= 0 && e.goesOn(); i = syms[i].next {
		e.ids = t.appendSymbol(e.ids, syms[i].text)
	}
}

func (t *Tokenizer) appendSymbol(ids []int32, s string) []int32 {
	if id, ok := t.ids[s]; ok {
		return append(ids, id)
	}
	for _, r := range s { // a merge whose result is not in the vocabulary
		if id, ok := t.ids[string(r)]; ok {
			ids = append(ids, id)
		}
	}
	return ids
}

// GPT-2's table of printable runes for bytes: those of Latin-1 that print
// stand for themselves, the others follow from U+0100 on.
var toRune, toByte = func() (to [256]rune, from map[rune]byte) {
	from = make(map[rune]byte, 256)
	next := rune(256)
	for b := range 256 {
		r := rune(b)
		if !(b >= '!' && b <= '~' || b >= 0xa1 && b <= 0xac || b >= 0xae) {
			r, next = next, next+1
		}
		to[b], from[r] = r, byte(b)
	}
	return to, from
}()

func printable(s string) string {
	var b strings.Builder
	for i := range len(s) {
		b.WriteRune(toRune[s[i]])
	}
	return b.String()
}

func unprintable(s string) string {
	b := make([]byte, 0, len(s))
	for _, r := range s {
		if c, ok := toByte[r]; ok {
			b = append(b, c)
		} else {
			b = append(b, string(r)...)
		}
	}
	return string(b)
}
