package engine

import (
	"github.com/launchgate/launchgate/reference-server/backend/cuda"
	"github.com/launchgate/launchgate/reference-server/device"
	"github.com/launchgate/launchgate/reference-server/model"
	"github.com/launchgate/launchgate/reference-server/tensor"
	"github.com/launchgate/launchgate/reference-server/weights"
)

// loadOnGPU loads the weights and compiles the model. The model and the cache
// together stay within the configured fraction of the memory that is free now.
func (e *Engine) loadOnGPU(w *weights.Model, format tensor.Format, activations tensor.Activations) (room int64, err error) {
	g := e.cfg.GPU
	before, err := g.Free()
	if err != nil {
		return 0, err
	}
	budget := int64(e.cfg.Fraction * float64(before))
	if e.cfg.GPUBytes > 0 {
		budget = min(budget, e.cfg.GPUBytes)
	}
	e.gpu = g.NewModel()
	e.backend = e.gpu
	need := model.Size(w, storedOnGPU(format))
	if e.cfg.Dummy {
		if err := e.fits(w, budget, before, g.Total); err != nil {
			return 0, err
		}
	}
	if need > budget {
		return 0, &device.OutOfMemoryError{Name: "the weights of " + e.cfg.Name, Asked: need, Free: budget, Total: g.Total}
	}
	if e.model, err = model.Compile(w, e.gpu, format, activations, e.cfg.Deterministic, e.cfg.MaxTokens, e.cfg.MaxBatch, (budget-need)/3, e.cfg.Progress); err != nil {
		return 0, e.outOfMemory("the weights of ", need, err)
	}
	// What others take of the GPU meanwhile, such as a replica that starts too, is not
	// this model's.
	return budget - e.gpu.Taken(), nil
}

// storedOnGPU is the format in which a GPU keeps weights of a format: 16 bits at most.
func storedOnGPU(f tensor.Format) tensor.Format {
	if f == tensor.FormatF32 {
		return tensor.FormatF16
	}
	return f
}

// outOfMemory is the device's out-of-memory error for a failed allocation.
func (e *Engine) outOfMemory(what string, asked int64, err error) error {
	if !cuda.OutOfMemory(err) {
		return err
	}
	free, _ := e.cfg.GPU.Free()
	return &device.OutOfMemoryError{Name: what + e.cfg.Name, Asked: asked, Free: free, Total: e.cfg.GPU.Total}
}

// newKV makes the cache. If another program has taken GPU memory meanwhile, the
// cache is smaller.
func (e *Engine) newKV(blocks int) (tensor.KV, error) {
	for {
		kv, err := e.model.NewKV(blocks)
		if err == nil || !cuda.OutOfMemory(err) {
			return kv, err
		}
		if blocks /= 2; blocks == 0 {
			return nil, e.outOfMemory("the KV cache of ", e.model.KVBlockBytes(), err)
		}
	}
}
