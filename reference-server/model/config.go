package model

import (
	"fmt"
	"math"

	"github.com/launchgate/launchgate/reference-server/tensor"
	"github.com/launchgate/launchgate/reference-server/weights"
)

// Config is the shape of a model, read from its metadata.
type Config struct {
	Architecture string
	Layers       int
	Width        int // of the residual stream
	Heads        int
	KVHeads      int
	HeadDim      int
	FFN          int
	Vocab        int
	Context      int // tokens a sequence may have
	Epsilon      float32
	Rotation     tensor.Rotation
}

// ReadConfig reads the shape of a model and checks what it claims.
func ReadConfig(w *weights.Model) (c Config, err error) {
	architecture, err := w.Meta.Architecture()
	if err != nil {
		return c, err
	}
	c.Architecture = architecture.Name
	key := func(k string) string { return c.Architecture + "." + k }
	for _, n := range []struct {
		to   *int
		key  string
		high int
	}{
		{&c.Layers, "block_count", weights.MaxLayers}, {&c.Width, "embedding_length", weights.MaxWidth}, {&c.Heads, "attention.head_count", weights.MaxHeads},
		{&c.FFN, "feed_forward_length", weights.MaxFFN}, {&c.Context, "context_length", 1 << 24},
	} {
		if *n.to, err = w.Meta.NeedInt(key(n.key), 1, n.high); err != nil {
			return c, err
		}
	}
	c.KVHeads = w.Meta.Int(key("attention.head_count_kv"), c.Heads)
	c.HeadDim = w.Meta.Int(key("attention.key_length"), c.Width/c.Heads)
	c.Epsilon = float32(w.Meta.Float(key("attention.layer_norm_rms_epsilon"), 1e-5))
	if window := w.Meta.Int(key("attention.sliding_window"), 0); window > 0 {
		c.Context = min(c.Context, window) // within its window, sliding attention equals full attention
	}
	embedding, ok := w.Tensors["token_embd.weight"]
	if !ok {
		return c, fmt.Errorf("the model has no token embeddings (token_embd.weight)")
	}
	c.Vocab = embedding.Rows
	if err := c.check(); err != nil {
		return c, err
	}
	return c, c.rotation(w)
}

// check refuses shapes that do not fit together, or that the kernels cannot
// compute, which work on 16 numbers at a time.
func (c Config) check() error {
	switch {
	case c.KVHeads < 1 || c.Heads%c.KVHeads != 0:
		return fmt.Errorf("%d heads cannot share %d KV heads", c.Heads, c.KVHeads)
	case c.HeadDim < 16 || c.HeadDim%16 != 0 || c.HeadDim > weights.MaxHeadDim:
		return fmt.Errorf("heads of %d dimensions cannot be computed; multiples of 16 up to %d can", c.HeadDim, weights.MaxHeadDim)
	case c.Width%16 != 0 || c.FFN%16 != 0:
		return fmt.Errorf("widths of %d and %d cannot be computed; multiples of 16 can", c.Width, c.FFN)
	}
	return nil
}

// rotation computes RoPE's inverse frequencies (Su et al. 2021) with the
// model's scaling.
func (c *Config) rotation(w *weights.Model) error {
	key := func(k string) string { return c.Architecture + "." + k }
	if n := w.Meta.Int(key("rope.dimension_count"), c.HeadDim); n != c.HeadDim {
		return fmt.Errorf("RoPE over %d of %d dimensions cannot be computed; over all of them it can", n, c.HeadDim)
	}
	factor := 1.0
	switch kind := w.Meta.String(key("rope.scaling.type"), "none"); kind {
	case "none", "":
	case "linear":
		factor = w.Meta.Float(key("rope.scaling.factor"), 1)
	default:
		return fmt.Errorf("RoPE scaling %q cannot be computed; linear and Llama 3's can", kind)
	}
	base := w.Meta.Float(key("rope.freq_base"), 10000)
	divide := make([]float32, c.HeadDim/2)
	if s, ok := w.Tensors["rope_freqs.weight"]; ok {
		if s.Rows != 1 || s.Cols != len(divide) {
			return fmt.Errorf("rope_freqs.weight has %d×%d factors, and must have %d", s.Rows, s.Cols, len(divide))
		}
		s.Row(divide, 0)
	} else {
		for i := range divide {
			divide[i] = 1
		}
	}
	c.Rotation.Inverse = make([]float32, len(divide))
	for i := range divide {
		c.Rotation.Inverse[i] = float32(math.Pow(base, -float64(2*i)/float64(c.HeadDim)) / factor / float64(divide[i]))
	}
	architecture, err := w.Meta.Architecture()
	c.Rotation.Halves = architecture.Halves || w.Meta.Bool("launchgate.rope.halves", false)
	return err
}
