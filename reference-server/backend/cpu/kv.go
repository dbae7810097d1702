package cpu

import (
	"fmt"
	"math"

	"github.com/launchgate/launchgate/reference-server/tensor"
)

const size = tensor.BlockSize

// kv holds for every layer, block and KV head the keys (dim, 16) and then the
// values (16, dim). The memory is touched when it is first written.
type kv struct {
	data                        []float32
	blocks, layers, heads, head int
}

func (c *kv) Blocks() int  { return c.blocks }
func (c *kv) Bytes() int64 { return int64(len(c.data)) * 4 }

// block is the number of floats of a block in a layer.
func (c *kv) block() int { return c.heads * c.head * size * 2 }

// layer is where a layer begins.
func (c *kv) layer(l int) []float32 { return c.data[l*c.blocks*c.block():] }

// NewKV makes a cache.
func (b *Backend) NewKV(blocks, layers, kvHeads, headDim int) (tensor.KV, error) {
	c := &kv{blocks: blocks, layers: layers, heads: kvHeads, head: headDim}
	if blocks < 1 || blocks > math.MaxInt32/size {
		return nil, fmt.Errorf("a KV cache of %d blocks is not possible", blocks)
	}
	c.data = make([]float32, blocks*layers*c.block())
	// Every page is touched now: a process that may not have the memory ends at
	// its start and not under load, and no answer waits for the kernel's zeros.
	for i := 0; i < len(c.data); i += 1024 {
		c.data[i] = 0
	}
	return c, nil
}

// Store writes keys and values to the step's slots.
func (b *Backend) Store(cache tensor.KV, layer int, k, v tensor.Buffer) {
	c, keys, values := cache.(*kv), k.(*buffer), v.(*buffer)
	base := c.layer(layer)
	for t, slot := range b.step.Slots {
		at := base[int(slot)/size*c.block():]
		i := int(slot) % size
		kr, vr := keys.row(t), values.row(t)
		for h := range c.heads {
			head := at[h*c.head*size*2:]
			for d := range c.head {
				head[d*size+i] = kr[h*c.head+d]
			}
			copy(head[c.head*size+i*c.head:], vr[h*c.head:(h+1)*c.head])
		}
	}
}

// attention is one layer's, of the step's tokens.
type attention struct {
	dst, q *buffer
	kv     *kv
	shape  tensor.Attention
}

// Attend computes the heads of every token, which are shared out among threads.
// It reads more than it computes, so it is shared out sooner than a product.
func (b *Backend) Attend(dst, q tensor.Buffer, cache tensor.KV, a tensor.Attention) {
	d, queries := dst.(*buffer), q.(*buffer)
	d.rows = queries.rows
	b.wrote(d)
	var macs int
	for _, p := range b.step.Positions {
		macs += 2 * (int(p) + 1) * a.Heads * a.HeadDim
	}
	b.attention = attention{d, queries, cache.(*kv), a}
	b.shared(4*macs, queries.rows*a.KVHeads, b.attending)
}

// attendHeads computes a stretch of all tokens' KV heads.
func (b *Backend) attendHeads(thread, from, to int) {
	d, q, c, a := b.attention.dst, b.attention.q, b.attention.kv, b.attention.shape
	base := c.layer(a.Layer)
	share := a.Heads / a.KVHeads
	scale := float32(1 / math.Sqrt(float64(a.HeadDim)))
	for i := from; i < to; i++ {
		t, h := i/a.KVHeads, i%a.KVHeads
		n := int(b.step.Positions[t]) + 1
		b.scores[thread] = grown(b.scores[thread], (n+size-1)/size*size)
		keys := base[h*c.head*size*2:]
		at, end := h*share*a.HeadDim, (h+1)*share*a.HeadDim
		b.attend(d.row(t)[at:end], q.row(t)[at:end], share, a.HeadDim, keys, keys[c.head*size:], c.block(), b.step.Tables[t], n, scale, b.scores[thread])
	}
}
