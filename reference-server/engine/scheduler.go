package engine

import (
	"slices"

	"github.com/launchgate/launchgate/reference-server/batch"
	"github.com/launchgate/launchgate/reference-server/tensor"
)

// scheduler decides what each step computes. It is two queues and a budget:
// running sequences hold blocks, waiting ones hold none.
//
// Fairness: a step first gives every running sequence that decodes its one
// token, then the rest of its token budget to prompts in the order they
// arrived, in chunks, so that a long prompt does not stall the others' tokens.
// Waiting sequences are taken in the order they arrived. When blocks run out
// the sequence that arrived last gives its own up and goes to the head of the
// waiting; the one that arrived first is never preempted, so that it ends, and
// with it, one after the other, all do.
type scheduler struct {
	blocks    *blocks
	maxBatch  int // sequences in a step
	maxTokens int // tokens in a step
	running   []*sequence
	waiting   []*sequence
	preempted int64
	refused   []*sequence // by the last step: they would not fit if they were alone

	// Of the step under way; kept, so that a step allocates nothing.
	budget int
	step   []share
	turns  []*sequence
}

// share is a sequence's part of a step: n of its pending tokens.
type share struct {
	seq *sequence
	n   int
}

// schedule fills b with the next step and returns whose tokens are in it. It is
// empty when there is nothing to do.
func (s *scheduler) schedule(b *batch.Batch) []share {
	s.budget, s.step, s.refused = s.maxTokens, s.step[:0], s.refused[:0]
	before := s.preempted
	for _, decoding := range []bool{true, false} {
		s.turns = append(s.turns[:0], s.running...) // running changes when one is preempted
		for _, seq := range s.turns {
			if seq.decoding() == decoding && slices.Contains(s.running, seq) {
				s.plan(seq)
			}
		}
	}
	for len(s.waiting) > 0 && len(s.running) < s.maxBatch && s.budget > 0 && s.preempted == before {
		seq := s.waiting[0]
		if !s.admit(seq) {
			if len(s.running) > 0 {
				break
			}
			// Nothing runs and it does not fit: the device has no memory for it.
			s.refused = append(s.refused, seq)
			s.waiting = slices.Delete(s.waiting, 0, 1)
			continue
		}
		s.waiting = slices.Delete(s.waiting, 0, 1)
		s.running = append(s.running, seq)
		s.plan(seq)
	}
	// A sequence may have been preempted after it was planned.
	s.step = slices.DeleteFunc(s.step, func(sh share) bool { return len(sh.seq.table)*tensor.BlockSize < sh.seq.computed+sh.n })
	b.Reset()
	for _, sh := range s.step {
		sh.add(b)
	}
	return s.step
}

// plan gives a sequence its part of what is left of the step's budget.
func (s *scheduler) plan(seq *sequence) {
	if seq.full() {
		return // its last token is being computed
	}
	n := min(seq.pending(), s.budget)
	if n > 0 && s.reserve(seq, n) {
		s.step = append(s.step, share{seq, n})
		s.budget -= n
	}
}

// admit takes up what the cache knows of the sequence, if there is room for
// all of the rest.
func (s *scheduler) admit(seq *sequence) bool {
	// At least one token must be computed, for there to be logits.
	seq.table, seq.chain = s.blocks.match(seq.tokens[:len(seq.tokens)-1])
	seq.computed = len(seq.table) * tensor.BlockSize
	if seq.short(seq.pending()) > s.blocks.available() {
		seq.drop(s.blocks)
		return false
	}
	if len(seq.tokens) == seq.prompt {
		seq.reused = seq.computed
	}
	return true
}

// reserve takes the blocks for n more tokens of seq, from sequences that
// arrived later if it must.
func (s *scheduler) reserve(seq *sequence, n int) bool {
	for seq.short(n) > 0 {
		if id, ok := s.blocks.take(); ok {
			seq.table = append(seq.table, id)
			continue
		}
		last := s.running[len(s.running)-1]
		s.preempt(last)
		if last == seq {
			return false
		}
	}
	return true
}

// preempt gives up a running sequence's blocks.
func (s *scheduler) preempt(seq *sequence) {
	seq.drop(s.blocks)
	s.running = s.running[:len(s.running)-1]
	s.waiting = slices.Insert(s.waiting, 0, seq)
	s.preempted++
}

// remove forgets a sequence that has ended.
func (s *scheduler) remove(seq *sequence) {
	if i := slices.Index(s.running, seq); i >= 0 {
		seq.drop(s.blocks)
		s.running = slices.Delete(s.running, i, i+1)
	}
	if i := slices.Index(s.waiting, seq); i >= 0 {
		s.waiting = slices.Delete(s.waiting, i, i+1)
	}
}

// add puts the share's tokens into the batch.
func (sh share) add(b *batch.Batch) {
	seq := sh.seq
	for pos := seq.computed; pos < seq.computed+sh.n; pos++ {
		b.Tokens = append(b.Tokens, seq.tokens[pos])
		b.Positions = append(b.Positions, int32(pos))
		b.Slots = append(b.Slots, seq.table[pos/tensor.BlockSize]*tensor.BlockSize+int32(pos%tensor.BlockSize))
		b.Tables = append(b.Tables, seq.table)
	}
	if sh.n == seq.pending() {
		b.Outputs = append(b.Outputs, int32(len(b.Tokens)-1))
	}
}
