package engine

import (
	"math"
	"time"

	"github.com/launchgate/launchgate/internal/flaws"
	"github.com/launchgate/launchgate/reference-server/batch"
	"github.com/launchgate/launchgate/reference-server/sample"
	"github.com/launchgate/launchgate/reference-server/tensor"
)

// steps computes steps. It can have two under way if it picks tokens itself.
type steps interface {
	Picks() bool
	Start(b *batch.Batch, kv tensor.KV, picks []tensor.Pick) error
	Wait() (tensor.Done, error)
}

// flight is a step under way. When it begins, its sequences already count its
// tokens as computed and get a token that is not yet known. So the step after
// it can be scheduled.
type flight struct {
	shares []awaited
	picks  []tensor.Pick
	tokens int
	began  time.Time
	slow   bool // the host picks from logits, and no step can begin before that
	back   bool // it began while another was under way, or right after one
}

// awaited is a sequence's share of a step under way.
type awaited struct {
	seq *sequence
	at  int // index of the token that is picked; 0: none, because the prompt continues
}

// step begins a step and processes the result of the one before. If two steps
// can be under way, it begins the new one first, so that the device always has
// the next step. It reports whether there was anything to do.
func (e *Engine) step() bool {
	began := time.Now()
	e.mu.Lock()
	e.stepping = began
	e.mu.Unlock()
	busy := e.flying != nil
	if busy && e.flying.slow {
		e.land(began)
		e.takeArrived() // requests that arrived meanwhile are in the next step
	}
	e.dropCancelled()
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
	return busy || next != nil
}

// takeOff schedules a step and begins it. It returns nil if there is nothing to
// do.
func (e *Engine) takeOff(busy bool) *flight {
	shares := e.schedule()
	if len(shares) == 0 {
		return nil
	}
	f := &flight{tokens: len(e.batch.Tokens), began: time.Now(), back: busy, slow: !e.steps.Picks()}
	for _, sh := range shares {
		a := awaited{seq: sh.seq}
		if sh.n == sh.seq.pending() {
			a.at = len(sh.seq.tokens)
			p := tensor.Pick{Logits: true}
			if e.steps.Picks() {
				p = pick(sh.seq.sampler)
			}
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

// schedule fills the batch with the next step.
func (e *Engine) schedule() []share {
	shares := e.sched.schedule(&e.batch)
	for _, seq := range e.sched.refused {
		e.outbox = append(e.outbox, delivery{seq.stream, Event{Err: ErrNoMemory}})
	}
	return shares
}

// land waits for the step under way, processes its result and sends the events.
func (e *Engine) land(began time.Time) {
	f := e.flying
	e.flying = nil
	done, err := e.steps.Wait()
	if err != nil {
		e.fail(f, err)
		return
	}
	e.pace(f)
	seen := Stats{Steps: 1, StepTokens: int64(f.tokens)}
	if f.back && !f.slow {
		seen.IdleSeconds = done.Idle.Seconds()
	}
	row := 0
	for _, a := range f.shares {
		if a.at == 0 {
			a.seq.settle(e.sched.blocks)
			continue
		}
		id, logits := done.IDs[row], done.Logits[row]
		row++
		if a.seq.over { // it ended with the token before, or its client left
			continue
		}
		a.seq.settle(e.sched.blocks)
		e.guarded(a.seq, func() { e.landOne(a, id, logits, &seen) })
	}
	e.note(began, seen)
	e.deliver()
}

const (
	// sharedStep is about how long a step takes while several tenants are served:
	// a newcomer waits for the rest of the step under way, and for the one in which
	// it has its first token.
	sharedStep = 20 * time.Millisecond
	// fewestShared is the fewest tokens of prompts that such a step may have: with
	// fewer, reading the weights costs more than computing with them.
	fewestShared = 32
)

// pace measures how long a step takes for each of its tokens, and sets how many a
// step may have while several tenants are served.
func (e *Engine) pace(f *flight) {
	ended := time.Now()
	if f.tokens >= fewestShared { // a step of few tokens tells more of the weights
		each := ended.Sub(later(f.began, e.landed)) / time.Duration(f.tokens)
		if e.perToken > 0 {
			each = (3*e.perToken + each) / 4
		}
		e.perToken = each
		e.sched.shared = min(max(fewestShared, int(sharedStep/max(1, each))), e.cfg.MaxTokens)
	}
	e.landed = ended
}

func later(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

// landOne adds a sequence's token: the device's pick, or one from the logits.
func (e *Engine) landOne(a awaited, id int32, logits []float32, seen *Stats) {
	seq := a.seq
	if logits != nil && seq.sampler.Constrained() && !flaws.On("engine-blocks") {
		seq.tokens = seq.tokens[:a.at] // without the token, until it is known
		e.asked++
		e.pickers.ask(seq, logits)
		return
	}
	picked := sample.Picked{ID: id}
	if logits != nil {
		var err error
		if picked, err = seq.sampler.Next(logits); err != nil {
			e.end(seq, err)
			return
		}
	}
	seq.tokens[a.at] = picked.ID
	e.written(seq, picked, a.at+1, seen)
}

// written counts and sends token n-1 of a sequence.
func (e *Engine) written(seq *sequence, picked sample.Picked, n int, seen *Stats) {
	if n-1 == seq.prompt {
		seen.PromptTokens += int64(seq.prompt)
		seen.CachedTokens += int64(seq.reused)
	}
	seen.OutputTokens++
	e.tell(e.take(seq, picked, n))
}

// guarded calls work. If it panics, only this sequence ends, with an error.
func (e *Engine) guarded(seq *sequence, work func()) {
	defer func() {
		if recover() != nil {
			e.end(seq, ErrFault)
		}
	}()
	work()
}

// end ends a sequence with an error.
func (e *Engine) end(seq *sequence, err error) {
	if seq.over {
		return
	}
	seq.over = true
	e.sched.remove(seq)
	e.outbox = append(e.outbox, delivery{seq.stream, Event{Err: err}})
}

// fail ends the requests of a step that could not be computed.
func (e *Engine) fail(f *flight, err error) {
	for _, a := range f.shares {
		e.end(a.seq, err)
	}
	e.note(time.Now(), Stats{})
	e.deliver()
}

// pick says how a device picks a sequence's next token. The device does not
// pick if the request has penalties, a form or log-probabilities.
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
