package engine

import (
	"math"
	"time"

	"github.com/launchgate/launchgate/reference-server/backend/cuda"
	"github.com/launchgate/launchgate/reference-server/batch"
	"github.com/launchgate/launchgate/reference-server/device"
	"github.com/launchgate/launchgate/reference-server/model"
	"github.com/launchgate/launchgate/reference-server/sample"
	"github.com/launchgate/launchgate/reference-server/tensor"
	"github.com/launchgate/launchgate/reference-server/weights"
)

// steps computes whole steps, and up to two at once: a compiled model.
type steps interface {
	Start(b *batch.Batch, kv tensor.KV, picks []tensor.Pick) error
	Wait() (tensor.Done, error)
}

// flight is a step under way. What its sequences will have is noted when it
// begins, so that the step after it can be scheduled: their computed tokens, and
// a token that is not yet known.
type flight struct {
	shares []awaited
	picks  []tensor.Pick
	tokens int
	slow   bool // the host picks from logits, before which nothing can be begun
	back   bool // it was begun while another was under way, or right after one
}

// awaited is a sequence's part of a step under way.
type awaited struct {
	seq *sequence
	at  int // of its tokens the one that is picked; 0: none is, its prompt goes on
}

// loadOnGPU loads the weights and compiles the model. What it takes, and the
// cache, stay within the fraction of what is free now.
func (e *Engine) loadOnGPU(w *weights.Model, format tensor.Format, activations tensor.Activations) (room int64, err error) {
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
	e.gpu = g.NewModel()
	e.backend = e.gpu
	need := model.Size(w, stored)
	if need > budget {
		return 0, &device.OutOfMemoryError{Name: "the weights of " + e.cfg.Name, Asked: need, Free: budget, Total: g.Total}
	}
	if e.model, err = model.Compile(w, e.gpu, format, activations, e.cfg.MaxTokens, e.cfg.MaxBatch, (budget-need)/3, e.cfg.Progress); err != nil {
		return 0, e.outOfMemory("the weights of ", need, err)
	}
	e.steps = e.model
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

// stepAhead begins a step, and then settles the one before, which ran meanwhile:
// the device always has the next step when it has ended one.
func (e *Engine) stepAhead(began time.Time) {
	busy := e.flying != nil
	if busy && e.flying.slow {
		e.land(began)
	}
	before := e.flying
	e.flying = nil
	next := e.takeOff(busy)
	if before != nil {
		e.flying = before
		e.land(began)
	}
	e.flying = next
	if before == nil && next == nil {
		e.note(began, Stats{})
		e.deliver()
	}
}

// takeOff schedules a step and begins it; nil: there is nothing to do.
func (e *Engine) takeOff(busy bool) *flight {
	shares := e.schedule()
	if len(shares) == 0 {
		return nil
	}
	f := &flight{tokens: len(e.batch.Tokens), back: busy}
	for _, sh := range shares {
		a := awaited{seq: sh.seq}
		if sh.n == sh.seq.pending() {
			a.at = len(sh.seq.tokens)
			p := pick(sh.seq.sampler)
			f.picks, f.slow = append(f.picks, p), f.slow || p.Logits
		}
		f.shares = append(f.shares, a)
	}
	if err := e.steps.Start(&e.batch, e.kv, f.picks); err != nil {
		e.fail(f, err)
		return nil
	}
	row := 0
	for i, sh := range shares {
		sh.seq.computed += sh.n
		if f.shares[i].at > 0 {
			sh.seq.tokens = append(sh.seq.tokens, tensor.Picked(row))
			row++
		}
	}
	return f
}

// land waits for the step under way, and settles and tells what came of it.
func (e *Engine) land(began time.Time) {
	f := e.flying
	e.flying = nil
	done, err := e.steps.Wait()
	if err != nil {
		e.fail(f, err)
		return
	}
	seen := Stats{Steps: 1, StepTokens: int64(f.tokens)}
	if f.back {
		seen.IdleSeconds = done.Idle.Seconds()
	}
	row := 0
	for _, a := range f.shares {
		seq := a.seq
		if a.at == 0 {
			seq.settle(e.sched.blocks)
			continue
		}
		id, logits := done.IDs[row], done.Logits[row]
		row++
		if seq.over { // it ended with the token before, or its client gave it up
			continue
		}
		picked := sample.Picked{ID: id}
		if logits != nil {
			picked = seq.sampler.Next(logits)
		}
		if a.at == seq.prompt {
			seen.PromptTokens += int64(seq.prompt)
			seen.CachedTokens += int64(seq.reused)
		}
		seen.OutputTokens++
		seq.tokens[a.at] = picked.ID
		seq.settle(e.sched.blocks)
		e.tell(e.take(seq, picked, a.at+1))
	}
	e.note(began, seen)
	e.deliver()
}

// fail ends the requests of a step that could not be computed.
func (e *Engine) fail(f *flight, err error) {
	for _, a := range f.shares {
		if seq := a.seq; !seq.over {
			seq.over = true
			e.sched.remove(seq)
			e.outbox = append(e.outbox, delivery{seq.stream, Event{Err: err}})
		}
	}
	e.note(time.Now(), Stats{})
	e.deliver()
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
