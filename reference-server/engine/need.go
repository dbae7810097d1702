package engine

import (
	"fmt"

	"github.com/launchgate/launchgate/reference-server/model"
	"github.com/launchgate/launchgate/reference-server/tensor"
	"github.com/launchgate/launchgate/reference-server/weights"
)

// Need is what an engine needs of its device, in bytes, before it is opened.
type Need struct {
	Model   string `json:"model"`
	Weights int64  `json:"weights"`
	Working int64  `json:"working"` // about; buffers for a step
	Cache   int64  `json:"cache"`   // of one sequence of the greatest length, or all the cache there may be
}

// Sum is all of it.
func (n Need) Sum() int64 { return n.Weights + n.Working + n.Cache }

// NeedOf is what an engine with these settings would need, of a GPU or of the CPU. It
// reads the model's metadata alone.
func NeedOf(c Config, onGPU bool) (n Need, err error) {
	c = c.withDefaults()
	format, err := tensor.ParseFormat(c.Quantization)
	if err != nil {
		return n, err
	}
	cache, err := tensor.ParseKVType(c.KVCache)
	if err != nil {
		return n, err
	}
	w, err := weights.Open(c.Path)
	if err != nil {
		return n, err
	}
	defer w.Close()
	shape, err := model.ReadConfig(w)
	if err != nil {
		return n, fmt.Errorf("model %s: %w", c.Path, err)
	}
	full := 4
	if onGPU {
		full, format = 2, storedOnGPU(format)
	}
	blocks := (min(c.MaxSequence, shape.Context) + tensor.BlockSize - 1) / tensor.BlockSize
	n.Model, n.Weights, n.Working = c.Name, model.Size(w, format), shape.WorkingSize(c.MaxTokens, c.MaxBatch)
	n.Cache = min(c.KVBytes, int64(blocks)*shape.KVBlockBytes(cache, full))
	return n, nil
}
