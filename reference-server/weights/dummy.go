package weights

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/launchgate/launchgate/reference-server/tensor"
)

// maxDummyVocab is the largest vocabulary of a described shape; that of a file is as
// large as the file.
const maxDummyVocab = 1 << 22

// Dummy is a model of a shape with random weights, which take no memory until a
// backend draws them. The shape is a name such as llama-70b, a config.json, or the
// folder of one. The model has the tokenizer of the folder; where there is none, that
// of another model, with more tokens up to the vocabulary of the shape.
func Dummy(shape, tokenizer string) (*Model, error) {
	m := &Model{Path: shape, Meta: Meta{}, Tensors: map[string]tensor.Stored{}}
	cfg, dir, err := readShape(shape)
	if err != nil {
		return nil, err
	}
	if err := cfg.describe(m); err != nil {
		return nil, fmt.Errorf("shape %s: %w", shape, err)
	}
	if err := cfg.draw(m); err != nil {
		return nil, fmt.Errorf("shape %s: %w", shape, err)
	}
	if dir != "" {
		err := describeTokenizer(dir, m.Meta)
		if err == nil {
			return m, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("shape %s: %w", shape, err)
		}
	}
	if err := m.borrow(tokenizer, cfg.Vocab); err != nil {
		return nil, fmt.Errorf("shape %s: %w", shape, err)
	}
	return m, nil
}

// readShape reads the shape; dir is the folder that may have its tokenizer.
func readShape(shape string) (cfg hfConfig, dir string, err error) {
	st, err := os.Stat(shape)
	if errors.Is(err, fs.ErrNotExist) {
		if cfg, ok := shapes[shape]; ok {
			return cfg, "", nil
		}
		return cfg, "", fmt.Errorf("the shape %q of random weights is not known; expected one of %s, a config.json, or a folder with one",
			shape, strings.Join(slices.Sorted(maps.Keys(shapes)), ", "))
	}
	if err != nil {
		return cfg, "", fmt.Errorf("shape: %w", err)
	}
	file := shape
	if st.IsDir() {
		dir, file = shape, filepath.Join(shape, "config.json")
	}
	if err := readJSON(file, &cfg); err != nil {
		return cfg, "", fmt.Errorf("shape %s: %w; expected the config.json of a model", shape, err)
	}
	return cfg, dir, nil
}

// draw describes the tensors of the shape, after describe has completed it.
func (c hfConfig) draw(m *Model) error {
	for _, n := range []struct {
		key     string
		v, most int
	}{
		{"vocab_size", c.Vocab, maxDummyVocab}, {"hidden_size", c.Hidden, MaxWidth}, {"intermediate_size", c.FFN, MaxFFN}, {"num_hidden_layers", c.Layers, MaxLayers},
	} {
		if n.v < 1 || n.v > n.most {
			return fmt.Errorf("%s: found %d, expected a number from 1 to %d", n.key, n.v, n.most)
		}
	}
	architecture, err := m.Meta.Architecture()
	if err != nil {
		return err
	}
	matrix := func(name string, rows, cols int) {
		m.Tensors[name] = tensor.Stored{Name: name, Type: tensor.Random, Rows: rows, Cols: cols}
	}
	vector := func(name string, n int, v float32) {
		m.Tensors[name] = tensor.Stored{Name: name, Type: tensor.F32, Rows: 1, Cols: n, Data: repeated(v, n)}
	}
	matrix("token_embd.weight", c.Vocab, c.Hidden)
	if !c.Tied {
		matrix("output.weight", c.Vocab, c.Hidden)
	}
	vector("output_norm.weight", c.Hidden, 1)
	for i := range c.Layers {
		name := func(s string) string { return fmt.Sprintf("blk.%d.%s", i, s) }
		vector(name("attn_norm.weight"), c.Hidden, 1)
		vector(name("ffn_norm.weight"), c.Hidden, 1)
		matrix(name("attn_q.weight"), c.Heads*c.HeadDim, c.Hidden)
		matrix(name("attn_k.weight"), c.KVHeads*c.HeadDim, c.Hidden)
		matrix(name("attn_v.weight"), c.KVHeads*c.HeadDim, c.Hidden)
		matrix(name("attn_output.weight"), c.Hidden, c.Heads*c.HeadDim)
		matrix(name("ffn_gate.weight"), c.FFN, c.Hidden)
		matrix(name("ffn_up.weight"), c.FFN, c.Hidden)
		matrix(name("ffn_down.weight"), c.Hidden, c.FFN)
		switch architecture.Name {
		case "qwen2":
			vector(name("attn_q.bias"), c.Heads*c.HeadDim, 0)
			vector(name("attn_k.bias"), c.KVHeads*c.HeadDim, 0)
			vector(name("attn_v.bias"), c.KVHeads*c.HeadDim, 0)
		case "qwen3":
			vector(name("attn_q_norm.weight"), c.HeadDim, 1)
			vector(name("attn_k_norm.weight"), c.HeadDim, 1)
		}
	}
	return nil
}

func repeated(v float32, n int) []byte {
	b := make([]byte, 0, 4*n)
	for range n {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(v))
	}
	return b
}

// borrow takes the tokenizer of another model. Tokens that the shape has beyond it
// stand for a word each, and no prompt has them.
func (m *Model) borrow(from string, vocab int) error {
	other, err := Open(from)
	if err != nil {
		return err
	}
	defer other.Close()
	for key, v := range other.Meta {
		if strings.HasPrefix(key, "tokenizer.") || key == SplitKey || key == NFCKey {
			m.Meta[key] = v
		}
	}
	const tokens, types = "tokenizer.ggml.tokens", "tokenizer.ggml.token_type"
	all := slices.Clone(other.Meta.Strings(tokens))
	if len(all) > vocab {
		return fmt.Errorf("it has a vocabulary of %d tokens, and the tokenizer that is used for it has %d: put its own tokenizer.json beside its config.json", vocab, len(all))
	}
	kinds := make([]int64, 0, vocab)
	for _, t := range other.Meta.Ints(types) {
		kinds = append(kinds, int64(t))
	}
	const normal = 1
	for len(kinds) > 0 && len(kinds) < vocab {
		kinds = append(kinds, normal)
	}
	for n := len(all); n < vocab; n++ {
		all = append(all, fmt.Sprintf("Ġw%d", n)) // Ġ is the space of byte-level BPE
	}
	m.Meta[tokens] = all
	if len(kinds) > 0 {
		m.Meta[types] = kinds
	}
	return nil
}
