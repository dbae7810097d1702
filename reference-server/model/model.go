// Package model is the forward pass of the Llama family: Llama 1 to 3, SmolLM2,
// Mistral, and Qwen 2 and 3 with their biases and norms. It turns the tokens of
// a batch.Batch into next-token logits with the operations of a tensor.Backend.
package model

import (
	"fmt"

	"github.com/launchgate/launchgate/reference-server/batch"
	"github.com/launchgate/launchgate/reference-server/tensor"
	"github.com/launchgate/launchgate/reference-server/weights"
)

// Model is the weights in a backend's memory, with room for the activations of
// one step.
type Model struct {
	Config
	Bytes int64         // of weights, as the backend keeps them
	KV    tensor.KVType // type of the caches that are made for it

	program    tensor.Program // computes steps: a compiled one, or Forward's
	back       tensor.Backend // computes one operation at a time; nil if the program is compiled
	load       tensor.Loader
	embedding  tensor.Matrix
	layers     []layer
	outputNorm tensor.Vector
	output     tensor.Matrix // the embedding, if the model ties the two

	x, normed, q, k, v, attended, gate, up, down tensor.Buffer // (tokens, …)
	last, logits                                 tensor.Buffer // (outputs, …)
}

type layer struct {
	attnNorm, ffnNorm   tensor.Vector
	q, k, v, o          tensor.Matrix
	qBias, kBias, vBias tensor.Vector // Qwen 2; nil elsewhere
	qNorm, kNorm        tensor.Vector // Qwen 3; nil elsewhere
	gate, up, down      tensor.Matrix
}

// New loads a model's weights in the given format, with room for steps of so
// many tokens and outputs. It calls progress with the share that is loaded;
// progress may be nil.
func New(w *weights.Model, back tensor.Backend, f tensor.Format, tokens, outputs int, progress func(done float64)) (*Model, error) {
	m, l, err := load(w, back, f, progress)
	if err != nil {
		return nil, err
	}
	m.back, m.program = back, &forward{m: m}
	m.room(l, tokens, outputs)
	return m, l.err
}

// Compile is New for a backend that computes whole steps. The backend may use
// spare bytes beyond the weights to be faster. If it is to be deterministic, what it
// computes of a token does not depend on the rest of the step.
func Compile(w *weights.Model, on tensor.Compiler, f tensor.Format, a tensor.Activations, deterministic bool, tokens, outputs int, spare int64, progress func(done float64)) (*Model, error) {
	m, _, err := load(w, on, f, progress)
	if err != nil {
		return nil, err
	}
	n := tensor.Net{
		Embedding: m.embedding, Output: m.output, OutputNorm: m.outputNorm, Width: m.Width, FFN: m.FFN, Vocab: m.Vocab, Context: m.Context,
		Attention: tensor.Attention{Heads: m.Heads, KVHeads: m.KVHeads, HeadDim: m.HeadDim}, Epsilon: m.Epsilon, Rotation: m.Rotation, Tokens: tokens, Outputs: outputs, Spare: spare, Activations: a, Deterministic: deterministic,
	}
	for _, l := range m.layers {
		n.Layers = append(n.Layers, tensor.NetLayer{
			AttnNorm: l.attnNorm, FFNNorm: l.ffnNorm, Q: l.q, K: l.k, V: l.v, O: l.o, QBias: l.qBias, KBias: l.kBias, VBias: l.vBias,
			QNorm: l.qNorm, KNorm: l.kNorm, Gate: l.gate, Up: l.up, Down: l.down,
		})
	}
	m.layers = nil // the program has them
	m.program, err = on.Compile(n)
	return m, err
}

// load copies the weights to a backend's memory.
func load(w *weights.Model, to tensor.Loader, f tensor.Format, progress func(done float64)) (*Model, *loader, error) {
	c, err := ReadConfig(w)
	if err != nil {
		return nil, nil, err
	}
	l := &loader{w: w, back: to, format: f}
	m := &Model{Config: c, load: to, layers: make([]layer, c.Layers)}
	m.embedding = l.matrix("token_embd.weight", c.Vocab, c.Width)
	m.output = m.embedding
	if _, own := w.Tensors["output.weight"]; own {
		m.output = l.matrix("output.weight", c.Vocab, c.Width)
	}
	m.outputNorm = l.vector("output_norm.weight", c.Width)
	for i := range m.layers {
		m.layers[i] = l.layer(i, c)
		if progress != nil {
			progress(float64(i+1) / float64(c.Layers))
		}
	}
	m.Bytes = l.bytes
	return m, l, l.err
}

// Size is how much memory a model's weights take in a format.
func Size(w *weights.Model, f tensor.Format) int64 {
	var sum float64
	for _, s := range w.Tensors {
		per := 4.0 // vectors stay float32
		if s.Rows > 1 {
			per = f.Bytes()
		}
		sum += float64(s.Rows) * float64(s.Cols) * per
	}
	return int64(sum)
}

// WorkingSize is about how many bytes of buffers a model needs for steps of so many
// tokens and answers.
func (c Config) WorkingSize(tokens, outputs int) int64 {
	heads, kv := c.Heads*c.HeadDim, c.KVHeads*c.HeadDim
	return 4 * (int64(tokens)*int64(3*c.Width+2*heads+2*kv+2*c.FFN) + int64(outputs)*int64(c.Width+c.Vocab))
}

// KVBlockBytes is the memory of one block of a cache of a type, whose full type has so
// many bytes for each number.
func (c Config) KVBlockBytes(t tensor.KVType, full int) int64 {
	return int64(c.Layers) * int64(c.KVHeads) * 2 * tensor.BlockSize * int64(t.Bytes(c.HeadDim, full))
}

func (m *Model) room(l *loader, tokens, outputs int) {
	buffer := func(n, width int) (b tensor.Buffer) {
		if l.err == nil {
			b, l.err = m.back.NewBuffer(n, width)
		}
		return b
	}
	heads, kv := m.Heads*m.HeadDim, m.KVHeads*m.HeadDim
	m.x, m.normed, m.down = buffer(tokens, m.Width), buffer(tokens, m.Width), buffer(tokens, m.Width)
	m.q, m.attended, m.k, m.v = buffer(tokens, heads), buffer(tokens, heads), buffer(tokens, kv), buffer(tokens, kv)
	m.gate, m.up = buffer(tokens, m.FFN), buffer(tokens, m.FFN)
	m.last, m.logits = buffer(outputs, m.Width), buffer(outputs, m.Vocab)
}

// loader loads tensors by name and remembers the first error.
type loader struct {
	w      *weights.Model
	back   tensor.Loader
	format tensor.Format
	bytes  int64
	err    error
}

func (l *loader) stored(name string, rows, cols int) (tensor.Stored, bool) {
	s, ok := l.w.Tensors[name]
	switch {
	case l.err != nil:
		return s, false
	case !ok:
		l.err = fmt.Errorf("the model lacks the tensor %s", name)
	case s.Rows != rows || s.Cols != cols:
		l.err = fmt.Errorf("tensor %s is %d×%d, and the model's metadata says %d×%d", name, s.Rows, s.Cols, rows, cols)
	}
	return s, l.err == nil
}

func (l *loader) matrix(name string, rows, cols int) (m tensor.Matrix) {
	if s, ok := l.stored(name, rows, cols); ok {
		if m, l.err = l.back.Load(s, l.format); l.err == nil {
			l.bytes += m.Bytes()
		}
	}
	return m
}

func (l *loader) vector(name string, n int) (v tensor.Vector) {
	if s, ok := l.stored(name, 1, n); ok {
		v, l.err = l.back.LoadVector(s)
		l.bytes += int64(4 * n)
	}
	return v
}

// optional is a vector that some architectures have.
func (l *loader) optional(name string, n int) tensor.Vector {
	if _, ok := l.w.Tensors[name]; !ok {
		return nil
	}
	return l.vector(name, n)
}

func (l *loader) layer(i int, c Config) layer {
	name := func(s string) string { return fmt.Sprintf("blk.%d.%s", i, s) }
	heads, kv := c.Heads*c.HeadDim, c.KVHeads*c.HeadDim
	return layer{
		attnNorm: l.vector(name("attn_norm.weight"), c.Width),
		ffnNorm:  l.vector(name("ffn_norm.weight"), c.Width),
		q:        l.matrix(name("attn_q.weight"), heads, c.Width),
		k:        l.matrix(name("attn_k.weight"), kv, c.Width),
		v:        l.matrix(name("attn_v.weight"), kv, c.Width),
		o:        l.matrix(name("attn_output.weight"), c.Width, heads),
		qBias:    l.optional(name("attn_q.bias"), heads),
		kBias:    l.optional(name("attn_k.bias"), kv),
		vBias:    l.optional(name("attn_v.bias"), kv),
		qNorm:    l.optional(name("attn_q_norm.weight"), c.HeadDim),
		kNorm:    l.optional(name("attn_k_norm.weight"), c.HeadDim),
		gate:     l.matrix(name("ffn_gate.weight"), c.FFN, c.Width),
		up:       l.matrix(name("ffn_up.weight"), c.FFN, c.Width),
		down:     l.matrix(name("ffn_down.weight"), c.Width, c.FFN),
	}
}

// NewKV makes a cache for this model.
func (m *Model) NewKV(blocks int) (tensor.KV, error) {
	return m.load.NewKV(m.KV, blocks, m.Layers, m.KVHeads, m.HeadDim)
}

// KVBlockBytes is the memory of one block of the cache. Its numbers are
// float32, or of the type that a compiled model uses.
func (m *Model) KVBlockBytes() int64 {
	bytes := 4
	if on, ok := m.load.(tensor.Compiler); ok {
		bytes = on.KVBytes()
	}
	return m.Config.KVBlockBytes(m.KV, bytes)
}

// Forward computes one step and returns the logits (outputs, vocab) of the
// tokens in b.Outputs, valid until the next call.
func (m *Model) Forward(b *batch.Batch, kv tensor.KV) []float32 {
	t := m.back
	t.Begin(tensor.Step(*b))
	t.Embed(m.x, m.embedding)
	for i, l := range m.layers {
		m.attend(i, l, kv)
		t.RMSNorm(m.normed, m.x, l.ffnNorm, m.Epsilon)
		t.MatMul(m.gate, l.gate, m.normed)
		t.MatMul(m.up, l.up, m.normed)
		t.SwiGLU(m.gate, m.up)
		t.MatMul(m.down, l.down, m.gate)
		t.Add(m.x, m.down)
	}
	t.Select(m.last, m.x)
	t.RMSNorm(m.last, m.last, m.outputNorm, m.Epsilon)
	t.MatMul(m.logits, m.output, m.last)
	return t.Read(m.logits)
}

// Warm does the work that is needed once before the first step.
func (m *Model) Warm(kv tensor.KV) error { return m.program.Warm(kv) }

// Picks reports whether a step picks tokens itself, or leaves that to the host.
func (m *Model) Picks() bool { return m.back == nil }

// Start begins a step and returns while it runs. Wait returns the tokens that
// the step picked. tensor.Program has the rules.
func (m *Model) Start(b *batch.Batch, kv tensor.KV, picks []tensor.Pick) error {
	return m.program.Start(tensor.Step(*b), kv, picks)
}

// Wait waits for the oldest step that was begun.
func (m *Model) Wait() (tensor.Done, error) { return m.program.Wait() }

// forward computes a step one operation at a time, when Wait is called. The
// host does all picks, so there is never a second step under way.
type forward struct {
	m    *Model
	step tensor.Step
	kv   tensor.KV
	done tensor.Done
}

func (f *forward) Warm(tensor.KV) error { return nil }

func (f *forward) Start(s tensor.Step, kv tensor.KV, _ []tensor.Pick) error {
	f.step, f.kv = s, kv
	return nil
}

func (f *forward) Wait() (tensor.Done, error) {
	b := batch.Batch(f.step)
	logits, vocab := f.m.Forward(&b, f.kv), f.m.Vocab
	f.done.IDs, f.done.Logits = f.done.IDs[:0], f.done.Logits[:0]
	for row := range len(b.Outputs) {
		f.done.IDs, f.done.Logits = append(f.done.IDs, 0), append(f.done.Logits, logits[row*vocab:(row+1)*vocab])
	}
	return f.done, nil
}

// attend computes the attention of the step's tokens to their sequences and
// adds it to x.
func (m *Model) attend(i int, l layer, kv tensor.KV) {
	t := m.back
	t.RMSNorm(m.normed, m.x, l.attnNorm, m.Epsilon)
	t.MatMul(m.q, l.q, m.normed)
	t.MatMul(m.k, l.k, m.normed)
	t.MatMul(m.v, l.v, m.normed)
	for _, b := range []struct {
		x    tensor.Buffer
		bias tensor.Vector
	}{{m.q, l.qBias}, {m.k, l.kBias}, {m.v, l.vBias}} {
		if b.bias != nil {
			t.AddBias(b.x, b.bias)
		}
	}
	if l.qNorm != nil {
		t.RMSNorm(m.q, m.q, l.qNorm, m.Epsilon)
	}
	if l.kNorm != nil {
		t.RMSNorm(m.k, m.k, l.kNorm, m.Epsilon)
	}
	t.RoPE(m.q, m.Rotation)
	t.RoPE(m.k, m.Rotation)
	t.Store(kv, i, m.k, m.v)
	t.Attend(m.attended, m.q, kv, tensor.Attention{Layer: i, Heads: m.Heads, KVHeads: m.KVHeads, HeadDim: m.HeadDim})
	t.MatMul(m.down, l.o, m.attended)
	t.Add(m.x, m.down)
}
