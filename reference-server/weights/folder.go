package weights

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"

	"github.com/launchgate/launchgate/reference-server/tensor"
)

// openFolder reads a Hugging Face folder (config.json, safetensors files,
// tokenizer.json) and describes it with GGUF's keys, so that both sources look
// the same to a model.
func openFolder(dir string) (*Model, error) {
	m := &Model{Path: dir, Meta: Meta{}, Tensors: map[string]tensor.Stored{}}
	var cfg hfConfig
	if err := readJSON(filepath.Join(dir, "config.json"), &cfg); err != nil {
		return nil, err
	}
	if err := cfg.describe(m); err != nil {
		return nil, fmt.Errorf("config.json: %w", err)
	}
	if err := describeTokenizer(dir, m.Meta); err != nil {
		return nil, err
	}
	if err := m.openShards(dir); err != nil {
		return nil, errors.Join(err, m.Close())
	}
	return m, nil
}

// hfConfig is the part of config.json that is read.
type hfConfig struct {
	ModelType string  `json:"model_type"`
	Hidden    int     `json:"hidden_size"`
	FFN       int     `json:"intermediate_size"`
	Layers    int     `json:"num_hidden_layers"`
	Heads     int     `json:"num_attention_heads"`
	KVHeads   int     `json:"num_key_value_heads"`
	HeadDim   int     `json:"head_dim"`
	Context   int     `json:"max_position_embeddings"`
	Eps       float64 `json:"rms_norm_eps"`
	Theta     float64 `json:"rope_theta"`
	Vocab     int     `json:"vocab_size"`
	Window    int     `json:"sliding_window"`
	UseWindow *bool   `json:"use_sliding_window"`
	Act       string  `json:"hidden_act"`
	Tied      bool    `json:"tie_word_embeddings"` // read for random weights alone; files have the output or not
	Scaling   *hfRope `json:"rope_scaling"`
	Rope      *hfRope `json:"rope_parameters"` // newer files keep the base and its scaling here
}

// hfRope is how RoPE is scaled.
type hfRope struct {
	Type     string  `json:"type"`
	RopeType string  `json:"rope_type"`
	Factor   float64 `json:"factor"`
	Low      float64 `json:"low_freq_factor"`
	High     float64 `json:"high_freq_factor"`
	Original float64 `json:"original_max_position_embeddings"`
	Theta    float64 `json:"rope_theta"`
}

// Bounds of a model. What claims more is damaged, and is refused before memory is taken
// for it.
const (
	MaxLayers  = 1 << 12
	MaxWidth   = 1 << 17
	MaxFFN     = 1 << 20
	MaxHeads   = 1 << 12
	MaxHeadDim = 1024
)

// describe gives the model the keys that a GGUF file has, and completes c where
// config.json leaves something out.
func (c *hfConfig) describe(m *Model) error {
	entry, err := architectureOf(c.ModelType)
	if err != nil {
		return err
	}
	arch := entry.Name
	if c.Act != "" && c.Act != "silu" {
		return fmt.Errorf("hidden_act %q is not known; silu is", c.Act)
	}
	if c.Heads < 1 || c.Hidden < 1 {
		return fmt.Errorf("num_attention_heads %d and hidden_size %d must be above 0", c.Heads, c.Hidden)
	}
	if c.KVHeads == 0 {
		c.KVHeads = c.Heads
	}
	if c.HeadDim == 0 {
		c.HeadDim = c.Hidden / c.Heads
	}
	// The factors of RoPE and random weights are sized by these before the model checks them.
	if c.Heads > MaxHeads || c.KVHeads < 1 || c.KVHeads > c.Heads || c.HeadDim < 1 || c.HeadDim > MaxHeadDim {
		return fmt.Errorf("%d heads with %d KV heads of %d dimensions cannot be computed; expected at most %d heads, from 1 to as many KV heads, and from 1 to %d dimensions", c.Heads, c.KVHeads, c.HeadDim, MaxHeads, MaxHeadDim)
	}
	if c.Scaling == nil {
		c.Scaling = c.Rope
	}
	if c.Theta == 0 && c.Scaling != nil {
		c.Theta = c.Scaling.Theta
	}
	if c.Theta == 0 {
		c.Theta = 10000
	}
	set := func(key string, v any) { m.Meta[arch+"."+key] = v }
	m.Meta["general.architecture"] = arch
	m.Meta["launchgate.rope.halves"] = true // not permuted, as GGUF files of Llama are
	set("block_count", int64(c.Layers))
	set("embedding_length", int64(c.Hidden))
	set("feed_forward_length", int64(c.FFN))
	set("attention.head_count", int64(c.Heads))
	set("attention.head_count_kv", int64(c.KVHeads))
	set("attention.key_length", int64(c.HeadDim))
	set("attention.layer_norm_rms_epsilon", c.Eps)
	set("context_length", int64(c.Context))
	set("rope.freq_base", c.Theta)
	if c.Window > 0 && (c.UseWindow == nil || *c.UseWindow) {
		set("attention.sliding_window", int64(c.Window))
	}
	return c.scaling(m, set)
}

// scaling turns rope_scaling into GGUF's keys: a linear factor, or a factor for
// every frequency (Llama 3.1).
func (c hfConfig) scaling(m *Model, set func(string, any)) error {
	if c.Scaling == nil {
		return nil
	}
	kind := c.Scaling.RopeType
	if kind == "" {
		kind = c.Scaling.Type
	}
	switch kind {
	case "", "default":
	case "linear":
		set("rope.scaling.type", "linear")
		set("rope.scaling.factor", c.Scaling.Factor)
	case "llama3":
		data := make([]byte, 0, c.HeadDim*2)
		for _, f := range c.llama3Factors() {
			data = binary.LittleEndian.AppendUint32(data, math.Float32bits(f))
		}
		m.Tensors["rope_freqs.weight"] = tensor.Stored{Name: "rope_freqs.weight", Type: tensor.F32, Rows: 1, Cols: c.HeadDim / 2, Data: data}
	default:
		return fmt.Errorf("rope_scaling %q is not known; linear and llama3 are", kind)
	}
	return nil
}

// llama3Factors are the divisors of the frequencies: factor for long waves, 1
// for short ones, and a value between for those between (Llama 3.1, as in
// transformers' modeling_rope_utils.py).
func (c hfConfig) llama3Factors() []float32 {
	s := c.Scaling
	factors := make([]float32, c.HeadDim/2)
	for i := range factors {
		wave := 2 * math.Pi * math.Pow(c.Theta, float64(2*i)/float64(c.HeadDim))
		switch {
		case wave < s.Original/s.High:
			factors[i] = 1
		case wave > s.Original/s.Low:
			factors[i] = float32(s.Factor)
		default:
			smooth := (s.Original/wave - s.Low) / (s.High - s.Low)
			factors[i] = float32(1 / ((1-smooth)/s.Factor + smooth))
		}
	}
	return factors
}

// openShards maps the safetensors files and renames their tensors.
func (m *Model) openShards(dir string) error {
	a, err := m.Meta.Architecture()
	if err != nil {
		return err
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.safetensors"))
	if err != nil {
		return err
	}
	if len(files) == 0 {
		return errors.New("there is no *.safetensors file in it")
	}
	var unmaps []func() error
	m.close = func() (err error) {
		for _, unmap := range unmaps {
			err = errors.Join(err, unmap())
		}
		return err
	}
	for _, file := range files {
		b, unmap, err := mapFile(file)
		if err != nil {
			return err
		}
		unmaps = append(unmaps, unmap)
		stored, err := parseSafetensors(b)
		if err != nil {
			return fmt.Errorf("%s: %w", filepath.Base(file), err)
		}
		for name, s := range stored {
			if to, ok := a.ggufName(name); ok {
				m.Tensors[to] = s
			}
		}
	}
	return m.missingShards(dir, a)
}

// missingShards is the error for files that the index names and that do not
// exist.
func (m *Model) missingShards(dir string, a Architecture) error {
	var index struct {
		WeightMap map[string]string `json:"weight_map"`
	}
	err := readJSON(filepath.Join(dir, "model.safetensors.index.json"), &index)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for name, file := range index.WeightMap {
		if to, ok := a.ggufName(name); ok {
			if _, there := m.Tensors[to]; !there {
				return fmt.Errorf("tensor %q is missing: the index says it lies in %s", name, file)
			}
		}
	}
	return nil
}

func readJSON(path string, v any) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("%s: %w", filepath.Base(path), err)
	}
	return nil
}
