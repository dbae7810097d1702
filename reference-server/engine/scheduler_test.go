package engine

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/launchgate/launchgate/reference-server/batch"
	"github.com/launchgate/launchgate/reference-server/tensor"
)

// arrival is a request to the scheduler only. A fake model writes its tokens.
type arrival struct {
	*sequence
	number int // in the order of arrival
}

// Thousands of random arrivals, ends, cancels and refusals of memory, on caches
// of every size, with a model that only makes up tokens. After every step:
//
//   - no block is leaked, lost or counted wrongly (blocks.check);
//   - no two tokens write one slot, and none writes a block that two sequences
//     hold: what is shared is only read;
//   - the step keeps to its budget and its batch;
//   - sequences run in the order they arrived, and none waits while a later one
//     runs and it could too: the first to arrive is always in the step.
//
// In the end all have ended and the cache is empty.
func TestSchedulerKeepsItsPromises(t *testing.T) {
	var preempted, reused, refused int64
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 9))
		deny := 0
		var claim func(int) error
		if seed%3 == 0 { // another process takes and frees memory
			claim = func(int) error {
				if r.IntN(4) == 0 {
					deny++
					return errors.New("no memory")
				}
				return nil
			}
		}
		s := scheduler{blocks: newBlocks(8+r.IntN(60), seed%5 != 1, claim), maxBatch: 1 + r.IntN(10)}
		s.maxTokens = s.maxBatch + 1 + r.IntN(80)
		longest := (len(s.blocks.held) - 1) * tensor.BlockSize
		w := walk{t: t, r: r, s: &s, longest: min(longest, 300)}
		for step := 0; step < 400 || len(s.running)+len(s.waiting) > 0; step++ {
			if step > 20_000 {
				t.Fatalf("seed %d: %d run and %d wait for ever", seed, len(s.running), len(s.waiting))
			}
			w.step(step < 400)
			s.blocks.denied = s.blocks.denied.Add(-denialLast) // time passes
		}
		if s.blocks.inUse() != 0 {
			t.Fatalf("seed %d: %d blocks are held by nobody", seed, s.blocks.inUse())
		}
		preempted, reused, refused = preempted+s.preempted, reused+w.reused, refused+w.refused
	}
	t.Logf("%d preemptions, %d tokens reused, %d refused", preempted, reused, refused)
	if preempted == 0 || reused == 0 {
		t.Error("the walks missed preemption or reuse")
	}
}

// walk is one random history.
type walk struct {
	t               *testing.T
	r               *rand.Rand
	s               *scheduler
	longest         int
	arrived         []arrival
	reused, refused int64
}

func (w *walk) step(arrivals bool) {
	for arrivals && w.r.IntN(3) == 0 {
		w.arrive()
	}
	if all := append(slices.Clone(w.s.running), w.s.waiting...); len(all) > 0 && w.r.IntN(12) == 0 {
		w.s.remove(all[w.r.IntN(len(all))]) // its client went away
	}
	var b batch.Batch
	shares := w.s.schedule(&b)
	w.refused += int64(len(w.s.refused))
	w.check(shares, &b)
	for _, sh := range slices.Clone(shares) {
		whole := sh.n == sh.seq.pending()
		sh.seq.computed += sh.n
		sh.seq.settle(w.s.blocks)
		if !whole {
			continue
		}
		sh.seq.tokens = append(sh.seq.tokens, int32(w.r.IntN(3)))
		if len(sh.seq.tokens) >= sh.seq.limit || w.r.IntN(40) == 0 {
			w.s.remove(sh.seq)
		}
	}
	w.checkBlocks()
}

// arrive adds a request that begins like one of a few others.
func (w *walk) arrive() {
	n := 1 + w.r.IntN(w.longest-1)
	seq := &sequence{prompt: n, stream: newStream(context.Background())}
	for i := range n {
		seq.tokens = append(seq.tokens, int32(w.r.IntN(2)*i/40))
	}
	if w.r.IntN(2) == 0 {
		for i := range seq.tokens {
			seq.tokens[i] = int32(i / 16)
		}
	}
	seq.limit = min(w.longest, n+1+w.r.IntN(80))
	w.arrived = append(w.arrived, arrival{seq, len(w.arrived)})
	w.s.arrive(seq)
}

func (w *walk) number(seq *sequence) int {
	return slices.IndexFunc(w.arrived, func(a arrival) bool { return a.sequence == seq })
}

func (w *walk) check(shares []share, b *batch.Batch) {
	w.t.Helper()
	s := w.s
	if len(b.Tokens) > s.maxTokens || len(s.running) > s.maxBatch {
		w.t.Fatalf("%d tokens of %d sequences, allowed %d and %d", len(b.Tokens), len(s.running), s.maxTokens, s.maxBatch)
	}
	slots := map[int32]bool{}
	for i, slot := range b.Slots {
		block := slot / tensor.BlockSize
		if slots[slot] || s.blocks.held[block] != 1 {
			w.t.Fatalf("slot %d is written twice, or its block is held %d times", slot, s.blocks.held[block])
		}
		slots[slot] = true
		if at := b.Positions[i] / tensor.BlockSize; b.Tables[i][at] != block {
			w.t.Fatalf("position %d is written to block %d, and its table says %d", b.Positions[i], block, b.Tables[i][at])
		}
	}
	for i := 1; i < len(s.running); i++ {
		if w.number(s.running[i-1]) > w.number(s.running[i]) {
			w.t.Fatal("sequences run out of the order they arrived in")
		}
	}
	if len(s.running) > 0 && !slices.ContainsFunc(shares, func(sh share) bool { return sh.seq == s.running[0] }) {
		w.t.Fatal("the sequence that arrived first is not in the step")
	}
	for _, sh := range shares {
		w.reused += int64(sh.seq.reused)
		sh.seq.reused = 0
	}
}

func (w *walk) checkBlocks() {
	w.t.Helper()
	var tables [][]int32
	for _, seq := range w.s.running {
		tables = append(tables, seq.table)
	}
	for _, seq := range w.s.waiting {
		if len(seq.table) > 0 || seq.computed > 0 {
			w.t.Fatal("a waiting sequence holds blocks")
		}
	}
	w.s.blocks.check(w.t, tables)
}
