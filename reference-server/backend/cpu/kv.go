package cpu

import (
	"fmt"
	"math"

	"github.com/launchgate/launchgate/reference-server/tensor"
)

const size = tensor.BlockSize

// kv holds for every layer, block and KV head the keys (dim, 16) and then the
// values (16, dim). Where they are int8, keys are (16, dim) too, and each row has
// a scale: (layer, block, KV head, keys and values, 16).
type kv struct {
	data                        []float32
	int8                        []int8
	scale                       []float32 // of int8
	blocks, layers, heads, head int
}

func (c *kv) Blocks() int  { return c.blocks }
func (c *kv) Bytes() int64 { return int64(len(c.data)+len(c.scale))*4 + int64(len(c.int8)) }

// block is the number of floats of a block in a layer.
func (c *kv) block() int { return c.heads * c.head * size * 2 }

// layer is where a layer begins.
func (c *kv) layer(l int) []float32 { return c.data[l*c.blocks*c.block():] }

// NewKV makes a cache.
func (b *Backend) NewKV(t tensor.KVType, blocks, layers, kvHeads, headDim int) (tensor.KV, error) {
	c := &kv{blocks: blocks, layers: layers, heads: kvHeads, head: headDim}
	if blocks < 1 || blocks > math.MaxInt32/size {
		return nil, fmt.Errorf("a KV cache of %d blocks is not possible", blocks)
	}
	if t == tensor.KVInt8 {
		c.int8, c.scale = make([]int8, blocks*layers*c.block()), make([]float32, blocks*layers*kvHeads*size*2)
		for i := 0; i < len(c.int8); i += 4096 {
			c.int8[i] = 0
		}
		return c, nil
	}
	c.data = make([]float32, blocks*layers*c.block())
	// Every page is touched now. If the process may not have the memory, it
	// ends at its start and not under load. And no answer waits until the
	// kernel zeroes pages.
	for i := 0; i < len(c.data); i += 1024 {
		c.data[i] = 0
	}
	return c, nil
}

// Store writes keys and values to the step's slots.
func (b *Backend) Store(cache tensor.KV, layer int, k, v tensor.Buffer) {
	c, keys, values := cache.(*kv), k.(*buffer), v.(*buffer)
	if c.int8 != nil {
		for t, slot := range b.step.Slots {
			for h := range c.heads {
				c.narrow(c.row(layer, int(slot)/size, h, 0)+int(slot)%size, keys.row(t)[h*c.head:(h+1)*c.head])
				c.narrow(c.row(layer, int(slot)/size, h, 1)+int(slot)%size, values.row(t)[h*c.head:(h+1)*c.head])
			}
		}
		return
	}
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

// row is the first of the 16 int8 rows of a block's keys (0) or values (1).
func (c *kv) row(layer, block, head, which int) int {
	return (((layer*c.blocks+block)*c.heads+head)*2 + which) * size
}

// narrow stores a row as int8 with a scale.
func (c *kv) narrow(row int, v []float32) {
	var top float32
	for _, x := range v {
		top = max(top, float32(math.Abs(float64(x))))
	}
	var inverse float32
	if top > 0 {
		inverse = 127 / top
	}
	for i, x := range v {
		c.int8[row*c.head+i] = int8(math.RoundToEven(float64(x * inverse)))
	}
	c.scale[row] = top / 127
}

// widen writes a KV head's first n positions to dst as the float blocks that
// attend reads, one after the other.
func (c *kv) widen(dst []float32, layer, head int, table []int32, n int) {
	block := 2 * size * c.head
	for i := range n {
		keys := c.row(layer, int(table[i/size]), head, 0) + i%size
		to, k, v := dst[i/size*block:], c.int8[keys*c.head:], c.int8[(keys+size)*c.head:]
		kScale, vScale := c.scale[keys], c.scale[keys+size]
		for d := range c.head {
			to[d*size+i%size] = float32(k[d]) * kScale
			to[(size+i%size)*c.head+d] = float32(v[d]) * vScale
		}
	}
}

// attention is the attention of the step's tokens in one layer.
type attention struct {
	dst, q *buffer
	kv     *kv
	shape  tensor.Attention
}

// Attend computes the heads of every token and divides them among threads. It
// reads more than it computes, so it is divided at a smaller size than a
// product.
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
	var base []float32
	if c.int8 == nil {
		base = c.layer(a.Layer)
	}
	share := a.Heads / a.KVHeads
	scale := float32(1 / math.Sqrt(float64(a.HeadDim)))
	for i := from; i < to; i++ {
		t, h := i/a.KVHeads, i%a.KVHeads
		n := int(b.step.Positions[t]) + 1
		b.scores[thread] = grown(b.scores[thread], (n+size-1)/size*size)
		table, block := b.step.Tables[t], c.block()
		var keys []float32
		if c.int8 == nil {
			keys = base[h*c.head*size*2:]
		} else {
			block = 2 * size * c.head
			w := &b.widened[thread]
			for len(w.table) < (n+size-1)/size {
				w.table = append(w.table, int32(len(w.table)))
			}
			w.data = grown(w.data, len(w.table)*block)
			c.widen(w.data, a.Layer, h, table, n)
			keys, table = w.data, w.table
		}
		at, end := h*share*a.HeadDim, (h+1)*share*a.HeadDim
		b.attend(d.row(t)[at:end], q.row(t)[at:end], share, a.HeadDim, keys, keys[c.head*size:], block, table, n, scale, b.scores[thread])
	}
}
