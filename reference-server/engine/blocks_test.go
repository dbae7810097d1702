package engine

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/launchgate/launchgate/reference-server/tensor"
)

// check asserts the invariants of blocks (see its comment), given the tables of
// all sequences.
func (b *blocks) check(t *testing.T, tables [][]int32) {
	t.Helper()
	want := make([]int32, len(b.held))
	for _, table := range tables {
		for _, id := range table {
			want[id]++
		}
	}
	if !slices.Equal(want, b.held) {
		t.Fatalf("held %v, want %v", b.held, want)
	}
	places := make([]int, len(b.held))
	for _, id := range b.free {
		places[id]++
	}
	for el := b.kept.Front(); el != nil; el = el.Next() {
		id := el.Value.(int32)
		places[id]++
		if b.holds[id] == 0 {
			t.Fatalf("block %d is kept and nothing is known of it", id)
		}
	}
	for id, n := range places {
		if id >= b.usable && (n > 0 || b.held[id] > 0) {
			t.Fatalf("block %d is in use, and the cache has grown to %d", id, b.usable)
		}
		if id >= b.usable {
			continue
		}
		if held := b.held[id] > 0; held == (n == 1) || n > 1 {
			t.Fatalf("block %d is held %d times and lies %d times among the others", id, b.held[id], n)
		}
	}
	for c, id := range b.known {
		if b.holds[id] != c {
			t.Fatalf("contents %x lead to block %d, which holds %x", c, id, b.holds[id])
		}
	}
}

// The invariants hold over ten thousand random steps, in which sequences share
// beginnings, grow, end and find no room.
func TestBlocksKeepTheirInvariants(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	b := newBlocks(24, true, nil)
	type sequenceOf struct {
		seq    sequence
		target int
	}
	var live []*sequenceOf
	tables := func() (all [][]int32) {
		for _, s := range live {
			all = append(all, s.seq.table)
		}
		return all
	}
	hits, refused := 0, 0
	for range 10_000 {
		switch {
		case len(live) < 8 && r.IntN(3) == 0: // a new one: one of four beginnings, then its own
			s := &sequenceOf{target: 20 + r.IntN(120)}
			start := r.IntN(4)
			for i := range s.target {
				id := int32(start*1000 + i)
				if i > 50 {
					id = int32(r.IntN(100_000))
				}
				s.seq.tokens = append(s.seq.tokens, id)
			}
			s.seq.table, s.seq.chain = b.match("", s.seq.tokens[:len(s.seq.tokens)-1])
			s.seq.computed = len(s.seq.table) * tensor.BlockSize
			hits += len(s.seq.table)
			live = append(live, s)
		case len(live) > 0:
			i := r.IntN(len(live))
			s := live[i]
			n := min(1+r.IntN(30), s.seq.pending())
			for s.seq.short(n) > 0 {
				id, ok := b.take()
				if !ok {
					n = 0
					refused++
					break
				}
				s.seq.table = append(s.seq.table, id)
			}
			if n > 0 {
				s.seq.computed += n
				s.seq.settle(b)
			}
			if n == 0 || s.seq.pending() == 0 || r.IntN(20) == 0 {
				s.seq.drop(b)
				live = slices.Delete(live, i, i+1)
			}
		}
		b.check(t, tables())
	}
	if hits == 0 || refused == 0 {
		t.Errorf("%d blocks were reused and %d refused: the walk missed one of the two", hits, refused)
	}
}

// The same beginning is found again. Another one is not, even if it has equal
// blocks after different ones.
func TestMatchNeedsTheWholeBeginning(t *testing.T) {
	b := newBlocks(10, true, nil)
	fill := func(tokens []int32) {
		s := sequence{tokens: tokens}
		for s.short(len(tokens)) > 0 {
			id, _ := b.take()
			s.table = append(s.table, id)
		}
		s.computed += len(tokens)
		s.settle(b)
		s.drop(b)
	}
	blockOf := func(first int32) (out []int32) {
		for i := range int32(tensor.BlockSize) {
			out = append(out, first+i)
		}
		return out
	}
	one, two := blockOf(100), blockOf(200)
	fill(slices.Concat(one, two))
	for _, tt := range []struct {
		name   string
		tokens []int32
		want   int
	}{
		{"the same", slices.Concat(one, two), 2},
		{"the same and more", slices.Concat(one, two, one), 2},
		{"the first alone", one, 1},
		{"the second without the first", two, 0},
		{"too short for a block", one[:15], 0},
	} {
		table, _ := b.match("", tt.tokens)
		if len(table) != tt.want {
			t.Errorf("%s: %d blocks, want %d", tt.name, len(table), tt.want)
		}
		b.release(table)
	}
}
