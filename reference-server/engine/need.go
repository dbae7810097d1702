package engine

import (
	"fmt"

	"github.com/launchgate/launchgate/reference-server/device"
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
	w, err := c.open()
	if err != nil {
		return n, err
	}
	defer w.Close()
	if n, err = c.need(w, onGPU); err != nil {
		return n, fmt.Errorf("model %s: %w", c.Path, err)
	}
	return n, nil
}

// need is what an engine with this model needs.
func (c Config) need(w *weights.Model, onGPU bool) (n Need, err error) {
	format, err := tensor.ParseFormat(c.Quantization)
	if err != nil {
		return n, err
	}
	cache, err := tensor.ParseKVType(c.KVCache)
	if err != nil {
		return n, err
	}
	shape, err := model.ReadConfig(w)
	if err != nil {
		return n, err
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

// fits refuses a model, before its weights are loaded, that needs more than the part of
// the device's free memory that it may take.
func (e *Engine) fits(w *weights.Model, budget, free, total int64) error {
	n, err := e.cfg.need(w, e.cfg.GPU != nil)
	if err != nil || n.Sum() <= budget {
		return err
	}
	const mib = 1 << 20
	return &device.OutOfMemoryError{
		Name: n.Model, Asked: n.Sum(), Free: free, Total: total,
		Sum: fmt.Sprintf("%d MiB of weights, %d of working memory and %d for the keys and values of one sequence of %d tokens make %d, and of the free memory it may take %d; take a smaller model or quantization, a shorter --max-sequence-length, or a device with more memory",
			n.Weights/mib, n.Working/mib, n.Cache/mib, e.cfg.MaxSequence, n.Sum()/mib, budget/mib),
	}
}
