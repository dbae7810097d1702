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

func (t *Tokenizer) encodeBytes(ids []int32, text string) []int32 {
	words := []string{text}
	for _, re := range t.split {
		words = splitAll(re, words)
	}
	for _, w := range words {
		ids = t.merge(ids, printable(w))
	}
	return ids
}

// splitAll cuts every word at the matches of re; what lies between matches
// stays a word of its own.
func splitAll(re *regexp2.Regexp, words []string) []string {
	var out []string
	for _, w := range words {
		runes, at := []rune(w), 0
		m, _ := re.FindRunesMatch(runes)
		for m != nil {
			if m.Index > at {
				out = append(out, string(runes[at:m.Index]))
			}
			out = append(out, string(runes[m.Index:m.Index+m.Length]))
			at = m.Index + m.Length
			m, _ = re.FindNextMatch(m)
		}
		if at < len(runes) {
			out = append(out, string(runes[at:]))
		}
	}
	return out
}

// merge joins the symbols of a word, the best-ranked pair first; of equal ranks
// the leftmost. A word may be the whole text, so that time must not grow with
// the square of its length.
func (t *Tokenizer) merge(ids []int32, word string) []int32 {
	if id, ok := t.ids[word]; ok {
		return append(ids, id)
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
	joinAll(syms, &queue, offer)
	for i := 0; i >= 0; i = syms[i].next {
		ids = t.appendSymbol(ids, syms[i].text)
	}
	return ids
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
