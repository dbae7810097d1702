package engine

import (
	"container/list"
	"encoding/binary"
	"hash/maphash"

	"github.com/launchgate/launchgate/reference-server/tensor"
)

// blocks hands out the KV cache, block by block. A block is free, held by one
// or more sequences, or kept: held by none, but full and known by its contents,
// so that a prompt that begins the same way can take it up again. Kept blocks
// are given away when free ones run out, the least recently used first.
//
// What must hold: every block is in exactly one of free, kept and held; a held
// block's count is the number of tables it is in; contents that are known lead
// to a block that holds them.
type blocks struct {
	held  []int32 // by block: how many sequences hold it
	free  []int32
	kept  *list.List         // of block ids, the least recently used first
	place []*list.Element    // by block: its place in kept
	known map[contents]int32 // full blocks by what they hold
	holds []contents         // by block: what it holds, 0 when not known
	seed  maphash.Seed       // of contents: of this process, so that nobody can aim at a collision
	reuse bool               // whether contents are remembered
}

// contents identify a full block: a hash over its tokens and all before them.
type contents uint64

func newBlocks(n int, reuse bool) *blocks {
	b := &blocks{
		held: make([]int32, n), kept: list.New(), place: make([]*list.Element, n),
		known: map[contents]int32{}, holds: make([]contents, n), seed: maphash.MakeSeed(), reuse: reuse,
	}
	for i := n - 1; i >= 0; i-- {
		b.free = append(b.free, int32(i))
	}
	return b
}

// available counts the blocks that could be handed out.
func (b *blocks) available() int { return len(b.free) + b.kept.Len() }

// used is the share of blocks that sequences hold.
func (b *blocks) used() float64 { return 1 - float64(b.available())/float64(len(b.held)) }

// take hands out a block for new contents.
func (b *blocks) take() (int32, bool) {
	if n := len(b.free); n > 0 {
		id := b.free[n-1]
		b.free = b.free[:n-1]
		b.held[id] = 1
		return id, true
	}
	oldest := b.kept.Front()
	if oldest == nil {
		return 0, false
	}
	id := oldest.Value.(int32)
	b.unkeep(id)
	b.forget(id)
	b.held[id] = 1
	return id, true
}

// release takes back a sequence's blocks. The last block of a prefix is the
// least useful, so it is let go first.
func (b *blocks) release(table []int32) {
	for i := len(table) - 1; i >= 0; i-- {
		id := table[i]
		if b.held[id]--; b.held[id] > 0 {
			continue
		}
		if b.holds[id] != 0 {
			b.place[id] = b.kept.PushBack(id)
		} else {
			b.free = append(b.free, id)
		}
	}
}

// match takes up the known blocks that tokens begin with.
func (b *blocks) match(tokens []int32) (table []int32, chain []contents) {
	var before contents
	for len(tokens) >= tensor.BlockSize {
		before = b.hash(before, tokens[:tensor.BlockSize])
		id, ok := b.known[before]
		if !ok {
			break
		}
		if b.held[id] == 0 {
			b.unkeep(id)
		}
		b.held[id]++
		table, chain = append(table, id), append(chain, before)
		tokens = tokens[tensor.BlockSize:]
	}
	return table, chain
}

// fill makes known what a block holds, now that it is full.
func (b *blocks) fill(id int32, before contents, tokens []int32) contents {
	c := b.hash(before, tokens)
	if _, there := b.known[c]; !there && b.reuse {
		b.known[c], b.holds[id] = id, c
	}
	return c
}

func (b *blocks) hash(before contents, tokens []int32) contents {
	var buf [8 + 4*tensor.BlockSize]byte
	binary.LittleEndian.PutUint64(buf[:], uint64(before))
	for i, t := range tokens {
		binary.LittleEndian.PutUint32(buf[8+4*i:], uint32(t))
	}
	return contents(maphash.Bytes(b.seed, buf[:]) | 1) // 0 means not known
}

func (b *blocks) unkeep(id int32) {
	b.kept.Remove(b.place[id])
	b.place[id] = nil
}

func (b *blocks) forget(id int32) {
	delete(b.known, b.holds[id])
	b.holds[id] = 0
}
