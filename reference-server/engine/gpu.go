package engine

import (
	"math"
	"time"

	"github.com/launchgate/launchgate/reference-server/backend/cuda"
	"github.com/launchgate/launchgate/reference-server/device"
	"github.com/launchgate/launchgate/reference-server/model"
	"github.com/launchgate/launchgate/reference-server/sample"
	"github.com/launchgate/launchgate/reference-server/tensor"
	"github.com/launchgate/launchgate/reference-server/weights"
)

// deviceStep is what the engine keeps between steps of a GPU: the tokens that
// the last step picked are known, and so the next step begins; the text they
// make is worked out and sent while it runs.
type deviceStep struct {
	picks  []tensor.Pick
	wanted []bool    // of each share: whether a token is picked
	told   []written // taken, not yet told
	ended  time.Time // when the last step did
}

// loadOnGPU loads the weights and compiles the model. What it takes, and the
// cache, stay within the fraction of what is free now.
func (e *Engine) loadOnGPU(w *weights.Model, format tensor.Format) (room int64, err error) {
	g := e.cfg.GPU
	before, err := g.Free()
	if err != nil {
		return 0, err
	}
	budget := int64(e.cfg.Fraction * float64(before))
	stored := format
	if format == tensor.FormatF32 {
		stored = tensor.FormatF16 // a GPU keeps 16 bits at most
	}
	if need := model.Size(w, stored); need > budget {
		return 0, &device.OutOfMemoryError{Name: "the weights of " + e.cfg.Name, Asked: need, Free: budget, Total: g.Total}
	}
	e.gpu = g.NewModel()
	e.backend = e.gpu
	if e.model, err = model.Compile(w, e.gpu, format, e.cfg.MaxTokens, e.cfg.MaxBatch, e.cfg.Progress); err != nil {
		return 0, e.outOfMemory("the weights of ", model.Size(w, stored), err)
	}
	after, err := g.Free()
	return budget - (before - after), err
}

// outOfMemory tells in the device's terms that an allocation failed.
func (e *Engine) outOfMemory(what string, asked int64, err error) error {
	if !cuda.OutOfMemory(err) {
		return err
	}
	free, _ := e.cfg.GPU.Free()
	return &device.OutOfMemoryError{Name: what + e.cfg.Name, Asked: asked, Free: free, Total: e.cfg.GPU.Total}
}

// newKV makes the cache. Somebody else may have taken a GPU's memory since it
// was looked at: then a smaller cache will do.
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

// stepOnGPU computes a step. While it runs, what the step before wrote is told.
func (e *Engine) stepOnGPU(shares []share, began time.Time) {
	d := &e.device
	d.picks, d.wanted = d.picks[:0], d.wanted[:0]
	for _, sh := range shares {
		whole := sh.n == sh.seq.pending()
		d.wanted = append(d.wanted, whole)
		if whole {
			d.picks = append(d.picks, pick(sh.seq.sampler))
		}
	}
	seen := Stats{Steps: 1, StepTokens: int64(len(e.batch.Tokens))}
	err := e.model.Start(&e.batch, e.kv, d.picks)
	if !d.ended.IsZero() {
		seen.IdleSeconds = time.Since(d.ended).Seconds()
	}
	e.tellAll()
	e.deliver()
	if err != nil {
		e.fail(shares, err)
		return
	}
	ids, logits, err := e.model.Wait()
	if err != nil {
		e.fail(shares, err)
		return
	}
	d.ended = time.Now()
	e.settleOnGPU(shares, ids, logits, &seen)
	e.note(began, seen)
	if len(e.sched.running)+len(e.sched.waiting) == 0 {
		e.tellAll()
		e.deliver()
		d.ended = time.Time{} // from here on there is nothing to do
	}
}

// settleOnGPU takes the picked tokens. A sequence may have ended meanwhile, by a
// stop string in the text of the token before: then this one is dropped.
func (e *Engine) settleOnGPU(shares []share, ids []int32, logits [][]float32, seen *Stats) {
	row := 0
	for i, sh := range shares {
		seq, whole := sh.seq, e.device.wanted[i]
		if seq.over {
			if whole {
				row++
			}
			continue
		}
		first := len(seq.tokens) == seq.prompt
		seq.settle(e.sched.blocks, sh.n)
		if !whole {
			continue
		}
		picked := sample.Picked{ID: ids[row]}
		if logits[row] != nil {
			picked = seq.sampler.Next(logits[row])
		}
		row++
		if first {
			seen.PromptTokens += int64(seq.prompt)
			seen.CachedTokens += int64(seq.reused)
		}
		seen.OutputTokens++
		e.device.told = append(e.device.told, e.take(seq, picked))
	}
}

// fail ends the requests of a step that could not be computed.
func (e *Engine) fail(shares []share, err error) {
	for _, sh := range shares {
		if seq := sh.seq; !seq.over {
			seq.over = true
			e.sched.remove(seq)
			e.outbox = append(e.outbox, delivery{seq.stream, Event{Err: err}})
		}
	}
	e.note(time.Now(), Stats{})
	e.deliver()
}

// tellAll tells what was written by the step before.
func (e *Engine) tellAll() {
	for _, w := range e.device.told {
		e.tell(w)
	}
	e.device.told = e.device.told[:0]
}

// pick is how a GPU picks a sequence's next token: it does not where penalties,
// a form that the answer must have, or log-probabilities are asked for.
func pick(s *sample.Sampler) tensor.Pick {
	p, at, ok := s.Plain()
	if !ok {
		return tensor.Pick{Logits: true}
	}
	return tensor.Pick{
		Temperature: float32(p.Temperature), TopP: float32(p.TopP), MinP: float32(p.MinP), TopK: p.TopK,
		At: min(float32(at), math.Nextafter32(1, 0)),
	}
}
