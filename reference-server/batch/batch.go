// Package batch is the contract of one engine step: all data that a model gets
// for the step, and nothing else. The scheduler fills a Batch and the model
// computes it. Neither knows the other.
package batch

// Batch is the tokens of one step. T tokens of several sequences lie one after
// the other: decoding sequences bring one token each, prefilling ones a chunk.
type Batch struct {
	Tokens    []int32   // (T) token ids
	Positions []int32   // (T) position of each token in its sequence
	Slots     []int32   // (T) where its key and value are written: block·BlockSize + offset
	Tables    [][]int32 // (T) the block table of its sequence, shared by the sequence's tokens
	Outputs   []int32   // (R) indexes of the tokens whose next-token logits are wanted
}

// Reset empties the batch and keeps its memory.
func (b *Batch) Reset() {
	b.Tokens, b.Positions, b.Slots, b.Tables, b.Outputs = b.Tokens[:0], b.Positions[:0], b.Slots[:0], b.Tables[:0], b.Outputs[:0]
}
