// Package engine is the inference engine: requests come in as token ids and go
// out as streams of text. One loop for all backends schedules a step, lets the
// backend compute it, and processes the result. Sequences join and leave at
// every step (continuous batching, Yu et al. 2022). Keys and values are in
// blocks that sequences with a common beginning share (paged attention, Kwon et
// al. 2023).
package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"runtime"
	"sync"
	"time"

	"github.com/launchgate/launchgate/internal/flaws"
	"github.com/launchgate/launchgate/internal/tokenizer"
	"github.com/launchgate/launchgate/reference-server/backend/cpu"
	"github.com/launchgate/launchgate/reference-server/backend/cuda"
	"github.com/launchgate/launchgate/reference-server/batch"
	"github.com/launchgate/launchgate/reference-server/device"
	"github.com/launchgate/launchgate/reference-server/grammar"
	"github.com/launchgate/launchgate/reference-server/model"
	"github.com/launchgate/launchgate/reference-server/sample"
	"github.com/launchgate/launchgate/reference-server/tensor"
	"github.com/launchgate/launchgate/reference-server/weights"
)

// Config says which model to serve and how. Zero values mean the defaults.
type Config struct {
	Path         string // a GGUF file or a Hugging Face folder
	Dummy        bool   // Path is a shape, and the weights are random
	Tokenizer    string // a model whose tokenizer a shape without one uses
	Name         string // what the model is called; the file's name by default
	Quantization string // none, fp16 or int8
	Threads      int
	MaxBatch     int    // sequences computed together
	MaxTokens    int    // tokens computed in one step
	MaxSequence  int    // tokens a sequence may have, at most the model's context
	MaxQueue     int    // requests that may wait
	KVBytes      int64  // memory for the KV cache
	KVCache      string // how keys and values are kept: auto or int8
	Activations  string // what a GPU multiplies int8 weights by for prompts: auto, 16, int8 or fp8
	// Deterministic makes answers of the same prompt, settings and seed the same to the
	// last bit, whatever else is computed beside them. On the CPU they always are.
	Deterministic bool
	NoPrefix      bool // do not reuse the cache of prompts with the same beginning
	SharePrefix   bool // reuse it across tenants too, which reveals to tenants what others ask
	// Device is the device whose memory is claimed; nil: memory is not
	// accounted for.
	Device *device.Device
	// Fraction of the device's memory that is free at the start which the
	// weights and the cache may take.
	Fraction float64
	// GPUBytes of a GPU are the most that the weights and the cache may take; 0: as
	// Fraction says.
	GPUBytes int64
	// GPU is the GPU that computes, with its own memory; nil: the CPU computes.
	GPU *cuda.GPU
	// Progress is called with the share of the model that is loaded.
	Progress func(done float64)
}

// The defaults of Config.
const (
	DefaultQuantization = "int8"
	DefaultMaxBatch     = 32
	DefaultMaxTokens    = 128
	DefaultMaxSequence  = 4096
	DefaultMaxQueue     = 128
	DefaultKVBytes      = 256 << 20
	DefaultKVCache      = "auto"
	DefaultActivations  = "auto"
	DefaultFraction     = 0.9
)

func (c Config) withDefaults() Config {
	or(&c.Name, weights.Name(c.Path))
	or(&c.Quantization, DefaultQuantization)
	or(&c.Threads, runtime.GOMAXPROCS(0))
	or(&c.MaxBatch, DefaultMaxBatch)
	or(&c.MaxTokens, DefaultMaxTokens)
	or(&c.MaxSequence, DefaultMaxSequence)
	or(&c.MaxQueue, DefaultMaxQueue)
	or(&c.KVBytes, DefaultKVBytes)
	or(&c.KVCache, DefaultKVCache)
	or(&c.Activations, DefaultActivations)
	or(&c.Fraction, DefaultFraction)
	// A step has room for the token of every sequence and some of a prompt.
	c.MaxTokens = max(c.MaxTokens, c.MaxBatch+tensor.BlockSize)
	return c
}

func or[T comparable](v *T, otherwise T) {
	var zero T
	if *v == zero {
		*v = otherwise
	}
}

// Engine serves one model. Run computes; everything else may be called from
// any goroutine.
type Engine struct {
	cfg     Config
	info    Info
	backend backend
	gpu     *cuda.Model // the backend, if it is a GPU
	model   *model.Model
	kv      tensor.KV
	tok     *tokenizer.Tokenizer
	chat    *tokenizer.Template
	noChat  error // why chat is nil
	maxSeq  int
	claims  []*device.Claim

	wake chan struct{}

	mu       sync.Mutex
	arrived  []*sequence // submitted, not yet seen by Run
	picked   []picked    // likewise, by the pickers
	crowd    crowd
	draining bool
	stopped  bool
	stats    Stats
	stepping time.Time // when the step under way began; zero between steps

	sched  scheduler // used by Run only
	batch  batch.Batch
	outbox []delivery
	gone   []*sequence
	steps  steps // computes the steps
	flying *flight
	// landed is when the step before ended, and perToken how long one takes for each
	// of its tokens.
	landed   time.Time
	perToken time.Duration
	asked    int // sequences whose next token is being picked beside the steps
	pickers  pickers
	words    *grammar.Vocabulary
}

// backend is what a model is loaded on.
type backend interface {
	Name() string
	Close()
}

// Info is what is served.
type Info struct {
	Model         string
	Architecture  string
	Backend       string
	Quantization  string
	WeightBytes   int64
	KVCache       string
	KVBytes       int64
	KVTokens      int
	Deterministic bool // answers do not depend on what is computed beside them
	MaxSequence   int
	Vocabulary    int
	Loaded        time.Time
	LoadTook      time.Duration
}

// Stats are counters since the start, and gauges.
type Stats struct {
	Waiting, Running int     // requests
	KVUsed           float64 // share of the cache that sequences hold
	KVBlocks         int     // of the cache at its largest
	KVInUse          int     // blocks that sequences hold
	KVClaimed        int     // blocks that the device has given memory for
	KVLeaked         int     // blocks held when nothing ran: a bug of the engine
	OutOfMemory      int64   // claims that the device denied
	Requests         int64
	PromptTokens     int64
	CachedTokens     int64 // prompt tokens that came from the cache
	OutputTokens     int64
	Preemptions      int64
	Steps            int64
	StepTokens       int64
	StepSeconds      float64
	IdleSeconds      float64 // part of them in which the GPU had no work between two steps
}

// Open loads the model. Close releases it after Run has returned.
func Open(c Config) (*Engine, error) {
	c = c.withDefaults()
	began := time.Now()
	format, err := tensor.ParseFormat(c.Quantization)
	if err != nil {
		return nil, err
	}
	cache, err := tensor.ParseKVType(c.KVCache)
	if err != nil {
		return nil, err
	}
	activations, err := tensor.ParseActivations(c.Activations)
	if err != nil {
		return nil, err
	}
	if c.Deterministic && activations > tensor.Activations16 {
		return nil, fmt.Errorf("activations of %s are for steps with prompts alone, so answers would depend on what else is computed: leave them at auto with --deterministic", activations)
	}
	if c.GPU == nil && activations != tensor.ActivationsAuto {
		return nil, fmt.Errorf("activations of %s are for a GPU, and the CPU computes: leave them at auto", activations)
	}
	w, err := c.open()
	if err != nil {
		return nil, err
	}
	defer w.Close() // the backend has copied the weights
	e := &Engine{cfg: c, wake: make(chan struct{}, 1)}
	if err := e.load(w, format, cache, activations); err != nil {
		e.Close()
		return nil, fmt.Errorf("model %s: %w", c.Path, err)
	}
	e.info.Loaded, e.info.LoadTook = time.Now(), time.Since(began)
	return e, nil
}

// open reads the model, or describes one of random weights.
func (c Config) open() (*weights.Model, error) {
	if c.Dummy {
		return weights.Dummy(c.Path, c.Tokenizer)
	}
	return weights.Open(c.Path)
}

func (e *Engine) load(w *weights.Model, format tensor.Format, cache tensor.KVType, activations tensor.Activations) error {
	var err error
	if e.tok, err = newTokenizer(w.Meta); err != nil {
		return err
	}
	e.words = grammar.NewVocabulary(e.tok, len(e.tok.Tokens))
	e.chat, e.noChat = e.tok.ChatTemplate()
	room, err := e.loadModel(w, format, activations)
	if err != nil {
		return err
	}
	e.model.KV = cache
	if len(e.tok.Tokens) > e.model.Vocab {
		return fmt.Errorf("the tokenizer has %d tokens and the model %d", len(e.tok.Tokens), e.model.Vocab)
	}
	e.maxSeq = min(e.cfg.MaxSequence, e.model.Context)
	count := int(min(e.cfg.KVBytes, room) / e.model.KVBlockBytes())
	count = min(count, e.cfg.MaxBatch*((e.maxSeq+tensor.BlockSize-1)/tensor.BlockSize)*2) // more blocks could never be used
	if need := e.model.KVBlockBytes(); count < 1 && room < need {
		return &device.OutOfMemoryError{Name: "the KV cache of " + e.cfg.Name, Asked: need, Free: max(0, room), Total: e.memory()}
	}
	if count < 1 {
		return fmt.Errorf("the KV cache may have %d bytes, and one block of %d tokens needs %d", e.cfg.KVBytes, tensor.BlockSize, e.model.KVBlockBytes())
	}
	e.maxSeq = min(e.maxSeq, count*tensor.BlockSize)
	if e.kv, err = e.newKV(count); err != nil {
		return err
	}
	e.steps = e.model
	if err := e.model.Warm(e.kv); err != nil {
		return e.outOfMemory("the steps of ", 0, err)
	}
	count = e.kv.Blocks()
	e.maxSeq = min(e.maxSeq, count*tensor.BlockSize)
	claim, err := e.claimKV()
	if err != nil {
		return err
	}
	e.sched = scheduler{blocks: newBlocks(count, !e.cfg.NoPrefix, claim), maxBatch: e.cfg.MaxBatch, maxTokens: e.cfg.MaxTokens}
	e.sched.blocks.shared = e.cfg.SharePrefix
	if claim != nil {
		if err := e.sched.blocks.grow(); err != nil {
			return err
		}
	}
	e.info = Info{
		Model: e.cfg.Name, Architecture: e.model.Architecture, Backend: e.backend.Name(), Quantization: format.String(),
		WeightBytes: e.model.Bytes, KVCache: cache.String(), KVBytes: e.kv.Bytes(), KVTokens: count * tensor.BlockSize, MaxSequence: e.maxSeq, Vocabulary: e.model.Vocab,
		Deterministic: e.cfg.GPU == nil || e.cfg.Deterministic,
	}
	return nil
}

// loadModel loads the weights and returns how much memory is left for the
// cache.
func (e *Engine) loadModel(w *weights.Model, format tensor.Format, activations tensor.Activations) (room int64, err error) {
	if e.cfg.GPU != nil {
		return e.loadOnGPU(w, format, activations)
	}
	if e.cfg.Dummy && e.cfg.Device != nil {
		u, err := e.cfg.Device.Usage()
		if err != nil {
			return 0, err
		}
		if err := e.fits(w, int64(e.cfg.Fraction*float64(u.Free())), u.Free(), u.Total); err != nil {
			return 0, err
		}
	}
	processor := cpu.New(e.cfg.Threads)
	e.backend = processor
	if room, err = e.claimWeights(model.Size(w, format)); err != nil {
		return 0, err
	}
	e.model, err = model.New(w, processor, format, e.cfg.MaxTokens, e.cfg.MaxBatch, e.cfg.Progress)
	return room, err
}

// memory is how much the device has.
func (e *Engine) memory() int64 {
	if e.cfg.GPU != nil {
		return e.cfg.GPU.Total
	}
	u, _ := e.cfg.Device.Usage()
	return u.Total
}

// claimWeights claims memory for the weights and returns how much is left for
// the cache.
func (e *Engine) claimWeights(bytes int64) (room int64, err error) {
	if e.cfg.Device == nil {
		return math.MaxInt64, nil
	}
	u, err := e.cfg.Device.Usage()
	if err != nil {
		return 0, err
	}
	c, err := e.cfg.Device.Claim("the weights of "+e.cfg.Name, bytes)
	if err != nil {
		return 0, err
	}
	e.claims = append(e.claims, c)
	return int64(e.cfg.Fraction*float64(u.Free())) - bytes, nil
}

// claimKV returns the function with which the cache claims memory as it grows.
func (e *Engine) claimKV() (func(blocks int) error, error) {
	if e.cfg.Device == nil || e.cfg.GPU != nil { // a GPU's cache is allocated at once
		return nil, nil
	}
	c, err := e.cfg.Device.Claim("the KV cache of "+e.cfg.Name, 0)
	if err != nil {
		return nil, err
	}
	e.claims = append(e.claims, c)
	return func(blocks int) error {
		err := c.Resize(int64(blocks) * e.model.KVBlockBytes())
		if err != nil {
			e.mu.Lock()
			e.stats.OutOfMemory++
			e.mu.Unlock()
		}
		return err
	}, nil
}

// Close ends the backend's threads and gives the device's memory back.
func (e *Engine) Close() {
	if e.backend != nil {
		e.backend.Close()
	}
	for _, c := range e.claims {
		_ = c.Release() // void at the latest when this process ends
	}
}

// Info describes the served model.
func (e *Engine) Info() Info { return e.info }

// Stats returns the current statistics.
func (e *Engine) Stats() Stats {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := e.stats
	s.Waiting += len(e.arrived)
	return s
}

// Stalled is how long the step under way has taken: a healthy engine needs far
// less than a second.
func (e *Engine) Stalled() time.Duration {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.stepping.IsZero() {
		return 0
	}
	return time.Since(e.stepping)
}

// Request asks for an answer to a prompt.
type Request struct {
	Caller    Caller // for whom
	Prompt    []int32
	MaxTokens int // of the answer; 0 leaves it to the context
	Sampling  sample.Params
	Stop      []string
	IgnoreEOS bool            // do not stop at the model's end token, for measurements
	JSON      bool            // the answer must be a JSON object …
	Schema    json.RawMessage // … or JSON of this schema

	form *grammar.Form // the parsed JSON or Schema
}

// ErrDraining is returned while the engine finishes what it has before it stops.
var ErrDraining = errors.New("the server is stopping and takes no new requests")

// ErrFault ends a request at which the engine failed.
var ErrFault = errors.New("the server failed at this request; others are not affected")

// ErrNoMemory ends requests for which the device has no memory and nothing else
// can free any.
var ErrNoMemory = errors.New("the device is out of memory, so there is no KV cache for this request; try again when others have ended, or with a shorter prompt")

// QueueFullError says that too many requests wait, and when to try again.
type QueueFullError struct {
	Waiting    int
	RetryAfter time.Duration
}

func (e *QueueFullError) Error() string {
	return fmt.Sprintf("%d requests wait already, and more may not; try again in %s", e.Waiting, e.RetryAfter)
}

// TooLongError says that a prompt does not fit.
type TooLongError struct {
	Prompt, Max int
	More        bool // the prompt was not counted to its end
}

func (e *TooLongError) Error() string {
	or := ""
	if e.More {
		or = " or more"
	}
	return fmt.Sprintf("the prompt has %d tokens%s; with at least one for the answer, this server's maximum is %d", e.Prompt, or, e.Max)
}

// Submit queues a request. When ctx ends the request is given up.
func (e *Engine) Submit(ctx context.Context, r Request) (*Stream, error) {
	return e.submit(ctx, r, nil)
}

// SubmitAll queues n answers to a request, or none of them. Each has its own
// seed. Each is as much work as a separate request, and counts as one.
func (e *Engine) SubmitAll(ctx context.Context, r Request, n int) ([]*Stream, error) {
	if err := e.check(&r); err != nil {
		return nil, err
	}
	seqs := make([]*sequence, n)
	one := &asked{}
	for i := range seqs {
		seqs[i] = e.sequence(ctx, r, nil)
		seqs[i].request = one
		r.Sampling.Seed++
	}
	if err := e.enqueue(seqs...); err != nil {
		return nil, err
	}
	streams := make([]*Stream, n)
	for i, seq := range seqs {
		streams[i] = seq.stream
	}
	return streams, nil
}

// submit is Submit that also calls wrote, which may be nil, with every token of
// the answer.
func (e *Engine) submit(ctx context.Context, r Request, wrote func(id int32)) (*Stream, error) {
	if err := e.check(&r); err != nil {
		return nil, err
	}
	seq := e.sequence(ctx, r, wrote)
	if err := e.enqueue(seq); err != nil {
		return nil, err
	}
	return seq.stream, nil
}

// check returns an error if a request cannot be computed. It also parses the
// form that the answer must have.
func (e *Engine) check(r *Request) (err error) {
	if len(r.Prompt) == 0 {
		return errors.New("the prompt is empty; it must have at least one token")
	}
	if len(r.Prompt)+1 > e.maxSeq {
		return &TooLongError{Prompt: len(r.Prompt), Max: e.maxSeq}
	}
	if err := e.checkIDs(r.Prompt); err != nil {
		return fmt.Errorf("the prompt: %w", err)
	}
	if r.MaxTokens < 0 {
		return fmt.Errorf("max_tokens is %d; 1 and more are possible", r.MaxTokens)
	}
	if err := r.Sampling.Check(); err != nil {
		return err
	}
	r.form, err = e.form(r)
	return err
}

// sequence is an answer that is to be computed.
func (e *Engine) sequence(ctx context.Context, r Request, wrote func(id int32)) *sequence {
	limit := e.maxSeq
	if r.MaxTokens > 0 {
		limit = len(r.Prompt) + min(limit-len(r.Prompt), r.MaxTokens) // the sum could overflow
	}
	if flaws.On("panic-on-max-tokens") && len(r.Prompt)+r.MaxTokens < 0 {
		limit = len(r.Prompt) + r.MaxTokens
	}
	if r.form != nil {
		r.Sampling.Constraint = r.form.Start()
	}
	return &sequence{
		tokens: append(make([]int32, 0, min(limit, len(r.Prompt)+64)), r.Prompt...), prompt: len(r.Prompt), limit: limit, caller: r.Caller,
		sampler: sample.New(r.Sampling, r.Prompt), text: &stopper{stops: r.Stop}, decoder: e.tok.Decoder(),
		ignoreEOS: r.IgnoreEOS, logprobs: r.Sampling.Logprobs, stream: newStream(ctx), wrote: wrote,
	}
}

// form is the form that the answer to a request must have; nil: any.
func (e *Engine) form(r *Request) (*grammar.Form, error) {
	switch {
	case len(r.Schema) > 0:
		return grammar.Schema(e.words, r.Schema)
	case r.JSON:
		return grammar.Object(e.words), nil
	}
	return nil, nil
}

// enqueue accepts all of a request's sequences, or none.
func (e *Engine) enqueue(seqs ...*sequence) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.draining || e.stopped {
		return ErrDraining
	}
	more := len(seqs)
	if flaws.On("n-not-counted") {
		more = 1
	}
	if n := e.stats.Waiting + len(e.arrived); n > 0 && n+more > e.cfg.MaxQueue {
		if n+more > 2*e.cfg.MaxQueue || !e.crowd.with(e.arrived).yields(seqs[0].caller, more) {
			return &QueueFullError{n, e.retryAfter()}
		}
	}
	e.arrived = append(e.arrived, seqs...)
	e.stats.Requests += int64(len(seqs))
	e.wakeUp()
	return nil
}

// retryAfter guesses when the queue will be empty: its length times the
// computing time that requests have taken so far.
func (e *Engine) retryAfter() time.Duration {
	answered := max(1, e.stats.Requests-int64(e.stats.Waiting+e.stats.Running))
	guess := time.Duration(e.stats.StepSeconds / float64(answered) * float64(e.stats.Waiting) * float64(time.Second))
	return min(max(guess.Round(time.Second), time.Second), 30*time.Second)
}

func (e *Engine) wakeUp() {
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

// Drain refuses new requests. Run returns when the last one is answered.
func (e *Engine) Drain() {
	e.mu.Lock()
	e.draining = true
	e.mu.Unlock()
	e.wakeUp()
}

// Run computes until ctx ends, or after Drain until all requests are answered.
// Unanswered requests end with ErrDraining.
func (e *Engine) Run(ctx context.Context) {
	e.pickers.start(e.hear)
	defer e.stop()
	for ctx.Err() == nil {
		todo := e.takeArrived()
		if todo && (e.step() || e.asked == 0) {
			continue
		}
		if !todo {
			e.checkIdle()
			if e.drained() {
				return
			}
		}
		var look <-chan time.Time // ticks to check whether a client has left, while everything waits for the pickers
		if e.asked > 0 {
			look = time.After(lookEvery)
		}
		select {
		case <-ctx.Done():
		case <-e.wake:
		case <-look:
		}
	}
}

const lookEvery = 50 * time.Millisecond

// hear receives a token that a picker has picked.
func (e *Engine) hear(p picked) {
	e.mu.Lock()
	e.picked = append(e.picked, p)
	e.mu.Unlock()
	e.wakeUp()
}

// takeArrived moves new requests to the scheduler, and tokens that were picked to
// their sequences. It reports whether there is something to do.
func (e *Engine) takeArrived() bool {
	e.mu.Lock()
	arrived, tokens := e.arrived, e.picked
	e.arrived, e.picked = nil, nil
	e.mu.Unlock()
	for _, seq := range arrived {
		e.sched.arrive(seq)
	}
	for _, seq := range e.sched.overflow(e.cfg.MaxQueue) {
		seq.over = true
		e.outbox = append(e.outbox, delivery{seq.stream, Event{Err: &QueueFullError{len(e.sched.waiting), overflowRetry}}})
	}
	var seen Stats
	for _, p := range tokens {
		e.takePicked(p, &seen)
	}
	if len(e.outbox) > 0 {
		e.note(time.Now(), seen)
		e.deliver()
	}
	return len(e.sched.waiting)+len(e.sched.running) > 0 || e.flying != nil
}

// overflowRetry is the Retry-After of a request that was removed from a full
// queue.
const overflowRetry = 5 * time.Second

// takePicked adds a token that was picked beside the steps.
func (e *Engine) takePicked(p picked, seen *Stats) {
	seq := p.seq
	seq.picking = false
	e.asked--
	if seq.over {
		return
	}
	if p.err != nil {
		e.end(seq, p.err)
		return
	}
	seq.tokens = append(seq.tokens, p.token.ID)
	e.guarded(seq, func() { e.written(seq, p.token, len(seq.tokens), seen) })
}

// checkIdle records leaked blocks: those that are held although there is no
// sequence.
func (e *Engine) checkIdle() {
	e.mu.Lock()
	e.stats.KVLeaked = e.sched.blocks.inUse()
	e.mu.Unlock()
}

func (e *Engine) drained() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.draining && len(e.arrived) == 0
}

func (e *Engine) stop() {
	if e.flying != nil {
		e.land(time.Now())
	}
	e.pickers.stop()
	e.deliver()
	e.mu.Lock()
	e.stopped = true
	rest := e.arrived
	e.arrived = nil
	e.mu.Unlock()
	for _, seq := range append(append(rest, e.sched.running...), e.sched.waiting...) {
		seq.stream.put(Event{Err: ErrDraining})
	}
}

// delivery is an event for a stream.
type delivery struct {
	to *Stream
	ev Event
}

// deliver sends a step's events after the step is in the statistics. So a
// client that has read the end of an answer finds it in the statistics.
func (e *Engine) deliver() {
	for _, d := range e.outbox {
		d.to.put(d.ev)
	}
	e.outbox = e.outbox[:0]
}

// written is a token that was added to an answer and not yet sent.
type written struct {
	seq    *sequence
	picked sample.Picked
	usage  Usage
	ended  bool // the token ends the answer
	full   bool // there is no room for another
}

// take records token n-1 of a sequence as written.
func (e *Engine) take(seq *sequence, picked sample.Picked, n int) written {
	if seq.wrote != nil {
		seq.wrote(picked.ID)
	}
	w := written{
		seq: seq, picked: picked, usage: Usage{Prompt: seq.prompt, Cached: seq.reused, Output: n - seq.prompt},
		ended: e.tok.Ends(picked.ID) && !seq.ignoreEOS, full: n >= seq.limit,
	}
	if w.ended || w.full {
		e.sched.remove(seq)
	}
	return w
}

// tell puts the text of a token into the outbox. A stop string ends the answer
// here.
func (e *Engine) tell(w written) {
	seq := w.seq
	if seq.over {
		return
	}
	ev := Event{Tokens: 1, Usage: w.usage}
	if seq.logprobs {
		ev.Logprobs = append(ev.Logprobs, e.logprob(w.picked))
	}
	stopped := w.ended
	if !stopped {
		ev.Text, stopped = seq.text.next(seq.decoder.Next(w.picked.ID))
	}
	switch {
	case stopped:
		ev.Finish = FinishStop
	case w.full:
		ev.Finish = FinishLength
	}
	if ev.Finish == FinishLength || ev.Finish == FinishStop && e.tok.Ends(w.picked.ID) {
		tail, _ := seq.text.next(seq.decoder.Rest())
		ev.Text += tail + seq.text.rest()
	}
	e.outbox = append(e.outbox, delivery{seq.stream, ev})
	if ev.Finish != "" {
		seq.over = true
		e.sched.remove(seq)
	}
}

// logprob is a picked token with its text and its log-probability.
func (e *Engine) logprob(p sample.Picked) Logprob {
	l := Logprob{Text: e.tok.Bytes(p.ID), Logprob: p.Logprob}
	for _, c := range p.Top {
		l.Top = append(l.Top, Logprob{Text: e.tok.Bytes(c.ID), Logprob: c.Logprob})
	}
	return l
}

// dropCancelled forgets the requests that their clients gave up.
func (e *Engine) dropCancelled() {
	e.gone = e.gone[:0]
	for _, queue := range [2][]*sequence{e.sched.running, e.sched.waiting} {
		for _, seq := range queue {
			if seq.stream.ctx.Err() != nil {
				e.gone = append(e.gone, seq)
			}
		}
	}
	for _, seq := range e.gone {
		seq.over = true
		seq.stream.put(Event{Err: context.Cause(seq.stream.ctx), Usage: seq.used()})
		e.sched.remove(seq)
	}
}

// note adds a step to the statistics.
func (e *Engine) note(began time.Time, s Stats) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.stepping = time.Time{}
	t := &e.stats
	t.Waiting, t.Running = len(e.sched.waiting), len(e.sched.running)
	e.crowd = e.sched.crowd(e.cfg.MaxQueue)
	kv := e.sched.blocks
	t.KVBlocks, t.KVInUse, t.KVClaimed, t.Preemptions = len(kv.held), kv.inUse(), kv.usable, e.sched.preempted
	t.KVUsed = float64(t.KVInUse) / float64(t.KVBlocks)
	t.PromptTokens += s.PromptTokens
	t.CachedTokens += s.CachedTokens
	t.OutputTokens += s.OutputTokens
	t.Steps += s.Steps
	t.StepTokens += s.StepTokens
	t.IdleSeconds += s.IdleSeconds
	t.StepSeconds += time.Since(began).Seconds()
}
