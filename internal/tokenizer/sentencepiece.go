package tokenizer

import (
	"container/heap"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// space is how SentencePiece writes a space inside a piece.
const space = "▁"

// initPieces prepares SentencePiece-style BPE (Kudo and Richardson 2018):
// pieces are merged by score, and what no piece covers is written in bytes.
func (t *Tokenizer) initPieces() error {
	if len(t.Scores) != len(t.Tokens) {
		return fmt.Errorf("the vocabulary has %d tokens and %d scores", len(t.Tokens), len(t.Scores))
	}
	t.spm = true
	for id, s := range t.Tokens {
		if t.typeOf(id) == TypeByte {
			b, err := strconv.ParseUint(strings.TrimSuffix(strings.TrimPrefix(s, "<0x"), ">"), 16, 8)
			if err != nil {
				return fmt.Errorf("byte token %d is %q, and must be like <0x0A>", id, s)
			}
			t.bytes[id] = string([]byte{byte(b)})
			continue
		}
		t.bytes[id] = strings.ReplaceAll(s, space, " ")
	}
	return nil
}

// symbol is a stretch of the text in a linked list.
type symbol struct {
	text       string
	prev, next int
}

// candidate is a pair of neighbours that could be merged.
type candidate struct {
	left, right int
	text        string
	score       float64
}

type candidates []candidate

func (c candidates) Len() int { return len(c) }
func (c candidates) Less(i, j int) bool {
	return c[i].score > c[j].score || c[i].score == c[j].score && c[i].left < c[j].left
}
func (c candidates) Swap(i, j int) { c[i], c[j] = c[j], c[i] }
func (c *candidates) Push(x any)   { *c = append(*c, x.(candidate)) }
func (c *candidates) Pop() any {
	old := *c
	last := old[len(old)-1]
	*c = old[:len(old)-1]
	return last
}

func (e *encoding) pieces(text string) {
	t := e.t
	if t.AddSpacePrefix && (len(e.ids) == 0 || int(e.ids[len(e.ids)-1]) == t.BOS) {
		text = " " + text
	}
	text = strings.ReplaceAll(text, " ", space)
	var syms []symbol
	for i := 0; i < len(text); {
		_, n := utf8.DecodeRuneInString(text[i:])
		syms = append(syms, symbol{text[i : i+n], len(syms) - 1, len(syms) + 1})
		i += n
	}
	syms[len(syms)-1].next = -1
	var queue candidates
	offer := func(l, r int) {
		if l < 0 || r < 0 {
			return
		}
		joined := syms[l].text + syms[r].text
		if id, ok := t.ids[joined]; ok {
			heap.Push(&queue, candidate{l, r, joined, t.Scores[id]})
		}
	}
	e.joinAll(syms, &queue, offer)
	for i := 0; i >= 0 && e.goesOn(); i = syms[i].next {
		e.ids = t.appendPiece(e.ids, syms[i].text)
	}
}

// joinAll joins neighbours, the best candidate first, until none is left. offer
// adds a pair that could be joined to the queue.
func (e *encoding) joinAll(syms []symbol, queue *candidates, offer func(left, right int)) {
	for i := range len(syms) - 1 {
		offer(i, i+1)
	}
	for queue.Len() > 0 && e.goesOn() {
		c := heap.Pop(queue).(candidate)
		l, r := &syms[c.left], &syms[c.right]
		if l.text == "" || r.text == "" || l.next != c.right || len(l.text)+len(r.text) != len(c.text) {
			continue // one side was joined with another neighbour meanwhile
		}
		l.text, r.text = c.text, ""
		l.next = r.next
		if l.next >= 0 {
			syms[l.next].prev = c.left
		}
		offer(l.prev, c.left)
		offer(c.left, l.next)
	}
}

func (t *Tokenizer) appendPiece(ids []int32, piece string) []int32 {
	if id, ok := t.ids[piece]; ok {
		return append(ids, id)
	}
	for i := range len(piece) {
		if id, ok := t.ids[fmt.Sprintf("<0x%02X>", piece[i])]; ok {
			ids = append(ids, id)
		}
	}
	return ids
}
