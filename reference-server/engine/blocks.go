package engine

import (
	"container/list"
	"encoding/binary"
	"hash/maphash"
	"time"

	"github.com/launchgate/launchgate/internal/flaws"
	"github.com/launchgate/launchgate/reference-server/tensor"
)

// blocks hands out the KV cache, block by block. A block is free, held by one
// or more sequences, or kept: held by none, but full and known by its contents,
// so that a prompt that begins the same way can take it up again. When free
// ones run out the cache grows, as far as the device has memory; then kept
// blocks are given away, the least recently used first.
//
// Invariants: every block that the cache has grown to is in exactly one of
// free, kept and held. The count of a held block is the number of tables that
// contain it. An entry of known leads to a block with these contents.
type blocks struct {
	held  []int32 // by block: how many sequences hold it
	free  []int32
	kept  *list.List         // of block ids, the least recently used first
	place []*list.Element    // by block: its place in kept
	known map[contents]int32 // full blocks by what they hold
	holds []contents         // by block: what it holds, 0 when not known
	seed  maphash.Seed       // of the hash of contents; random, so that nobody can provoke a collision
	reuse bool               // whether contents are remembered

	shared bool // whether tenants share blocks

	usable int                    // blocks the cache has grown to, of len(held)
	claim  func(blocks int) error // memory for so many; nil: there is enough
	denied time.Time              // when there was not enough
}

// A cache grows by an eighth at a time. After the device had no memory, the
// cache waits before it asks again.
const (
	growths    = 8
	denialLast = 100 * time.Millisecond
)

// contents identify a full block: a hash of its tokens and of all tokens before
// them.
type contents uint64

func newBlocks(n int, reuse bool, claim func(blocks int) error) *blocks {
	b := &blocks{
		claim: claim,
		held:  make([]int32, n), kept: list.New(), place: make([]*list.Element, n),
		known: map[contents]int32{}, holds: make([]contents, n), seed: maphash.MakeSeed(), reuse: reuse,
	}
	if claim == nil {
		b.extend(n)
	}
	return b
}

// extend puts more blocks into use.
func (b *blocks) extend(to int) {
	for i := to - 1; i >= b.usable; i-- {
		b.free = append(b.free, int32(i))
	}
	b.usable = to
}

// grow claims memory for more blocks. Its error is that of the device.
func (b *blocks) grow() error {
	to := min(len(b.held), b.usable+max(1, len(b.held)/growths))
	if to == b.usable {
		return nil
	}
	if err := b.claim(to); err != nil {
		b.denied = time.Now()
		return err
	}
	b.extend(to)
	return nil
}

// mayGrow reports whether the cache may ask the device for more blocks.
func (b *blocks) mayGrow() bool {
	return b.usable < len(b.held) && time.Since(b.denied) > denialLast
}

// available counts the blocks that could be handed out, if the device has the
// memory for them.
func (b *blocks) available() int {
	n := len(b.free) + b.kept.Len()
	if b.mayGrow() {
		n += len(b.held) - b.usable
	}
	return n
}

// inUse counts the blocks that sequences hold.
func (b *blocks) inUse() int { return b.usable - len(b.free) - b.kept.Len() }

// take hands out a block for new contents.
func (b *blocks) take() (int32, bool) {
	if len(b.free) == 0 && b.mayGrow() {
		_ = b.grow() // on failure the kept blocks are used
	}
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
// least useful, so it is the first to be reused.
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

// root is the hash before the first block of a tenant's sequences. It differs
// for each tenant, so that no tenant finds the blocks of another one's prompts
// or learns from a hit that there was such a prompt.
func (b *blocks) root(tenant string) contents {
	if b.shared || tenant == "" || flaws.On("shared-prefix-cache") {
		return 0
	}
	return contents(maphash.String(b.seed, tenant) | 1)
}

// match takes the known blocks with which a tenant's tokens begin.
func (b *blocks) match(tenant string, tokens []int32) (table []int32, chain []contents) {
	before := b.root(tenant)
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

// fill records the contents of a block that has become full.
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
