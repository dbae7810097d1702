//go:build linux

package cuda

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"
	"unsafe"

	"github.com/launchgate/launchgate/reference-server/tensor"
)

// program is a compiled model with memory for the activations of one step.
type program struct {
	m      *Model
	g      *GPU
	n      tensor.Net
	layers []layer
	norm   *vector // before the output
	embed  *matrix
	output *matrix
	freqs  ptr // RoPE's inverse frequencies

	// Activations. x, last and logits are float32, and the others 16 bits. In
	// products of 8 bits, h and act have 8 bits, gu has the int32 sums, and
	// scales has one scale for each token of a product's input.
	x, h, qkv, attended, gu, act, last, logits, ids ptr
	scales                                          ptr
	sums                                            int64 // bytes of gu
	wide                                            ptr   // int8 weights as 16 bits, for steps of many tokens, if no such copy is kept
	partial, done                                   ptr   // of attention split over the sequence
	work                                            ptr   // cuBLASLt's
	spare                                           int64 // bytes of the logits, which plan may overwrite

	in     input
	graphs map[int]uintptr // of decode steps, by padded batch

	flights          [3]flight // step n is in n % 3; two are under way, and the third has the end time of the one before
	started, awaited int       // steps
}

// flight is the data of one step under way.
type flight struct {
	host       []int32        // pinned: its input
	picked     unsafe.Pointer // pinned: its tokens
	begun, end uintptr        // events
	rows       int
	picks      []tensor.Pick
	got        []int32
	logits     [][]float32
}

// layer is a layer's weights, joined.
type layer struct {
	attnNorm, ffnNorm *vector
	qkv, o, gu, down  *matrix
	bias              ptr // of q, k and v; 0: none
	qNorm, kNorm      ptr
}

// input is the input of a step's kernels. It is contiguous, so that one copy
// transfers it. It has 32-bit words at fixed places, which are recorded in
// graphs.
type input struct {
	host                                                                      []int32 // pinned; of the step that is being begun
	device                                                                    ptr
	tokens, positions, slots, offsets, which, firsts, counts, outputs, picks_ int // where each begins
	tables                                                                    int
	words, rows                                                               int // at most; and outputs
	used                                                                      int // words of this step
}

// pickWords is the size of a Pick on the device.
const pickWords = 5

func (in *input) at(word int) ptr { return in.device.plus(int64(4 * word)) }

// Compile joins the weights and makes room for steps.
func (m *Model) Compile(n tensor.Net) (tensor.Program, error) {
	if n.Attention.HeadDim > 256 {
		return nil, fmt.Errorf("heads of %d dimensions cannot be computed on a GPU; up to 256 can", n.Attention.HeadDim)
	}
	p := &program{m: m, g: m.g, n: n, graphs: map[int]uintptr{}, norm: n.OutputNorm.(*vector), embed: n.Embedding.(*matrix), output: n.Output.(*matrix)}
	err := m.g.do(func() error {
		defer m.unstage() // everything is loaded
		for _, l := range n.Layers {
			if err := p.join(l); err != nil {
				return err
			}
		}
		return p.room()
	})
	if err != nil {
		return nil, err
	}
	return p, nil
}

func (p *program) join(l tensor.NetLayer) (err error) {
	of := func(m tensor.Matrix) *matrix { return m.(*matrix) }
	data := func(v tensor.Vector) ptr {
		if v == nil {
			return 0
		}
		return v.(*vector).data
	}
	j := layer{attnNorm: l.AttnNorm.(*vector), ffnNorm: l.FFNNorm.(*vector), o: of(l.O), down: of(l.Down), qNorm: data(l.QNorm), kNorm: data(l.KNorm)}
	if j.qkv, err = p.m.joined(of(l.Q), of(l.K), of(l.V)); err != nil {
		return err
	}
	if j.gu, err = p.m.joined(of(l.Gate), of(l.Up)); err != nil {
		return err
	}
	if l.QBias != nil || l.KBias != nil || l.VBias != nil {
		if j.bias, err = p.m.alloc(int64(4 * j.qkv.rows)); err != nil {
			return err
		}
		p.g.d.fill(j.bias, 0, uint64(4*j.qkv.rows), p.g.stream)
		at := j.bias
		for _, b := range []struct {
			v    tensor.Vector
			rows int
		}{{l.QBias, l.Q.Rows()}, {l.KBias, l.K.Rows()}, {l.VBias, l.V.Rows()}} {
			if b.v != nil {
				p.g.d.within(at, data(b.v), uint64(4*b.rows), p.g.stream)
			}
			at = at.plus(int64(4 * b.rows))
		}
	}
	p.layers = append(p.layers, j)
	return nil
}

// padded rounds tokens up to one of a few sizes, so that products need few
// plans and most steps need no planning.
func padded(tokens int) int {
	switch {
	case tokens <= 2:
		return tokens
	case tokens <= 4:
		return 4
	case tokens <= 8:
		return 8
	case tokens <= 128:
		return (tokens + 15) / 16 * 16
	case tokens <= 512:
		return (tokens + 63) / 64 * 64
	default:
		return (tokens + 255) / 256 * 256
	}
}

// room allocates for the largest step.
func (p *program) room() error {
	n, a := p.n, p.n.Attention
	tokens, outputs := int64(padded(n.Tokens)+4), int64(padded(n.Outputs)+4)
	heads, all := int64(a.Heads*a.HeadDim), int64((a.Heads+2*a.KVHeads)*a.HeadDim)
	if err := p.float8All(); err != nil {
		return err
	}
	widest, err := p.widenAll()
	if err != nil {
		return err
	}
	stretches := int64(2 * p.g.SMs)
	if n.Deterministic {
		stretches = int64(p.fixedStretches())
	}
	if p.sums = tokens * int64(n.FFN) * 4; p.eight() {
		p.sums = tokens * max(int64(n.FFN)*8, all*4, int64(n.Width)*4)
	}
	for _, b := range []struct {
		to    *ptr
		bytes int64
	}{
		{&p.x, tokens * int64(n.Width) * 4}, {&p.h, tokens * max(int64(n.Width)*2, heads)}, {&p.qkv, tokens * all * 2}, {&p.attended, tokens * heads * 2},
		{&p.gu, p.sums}, {&p.scales, tokens * 4}, {&p.act, tokens * int64(n.FFN) * 2}, {&p.last, outputs * int64(n.Width) * 4},
		{&p.logits, outputs * int64(n.Vocab) * 4}, {&p.ids, outputs * 4}, {&p.wide, widest},
		{&p.partial, stretches * 8 * int64(a.HeadDim+2) * 4}, {&p.done, stretches * 4}, {&p.work, ltWorkspace},
	} {
		if *b.to, err = p.m.alloc(b.bytes); err != nil {
			return fmt.Errorf("activations: %w", err)
		}
	}
	p.spare = outputs * int64(n.Vocab) * 4
	if err := p.g.d.check("cuMemsetD8Async", p.g.d.fill(p.done, 0, uint64(stretches*4), p.g.stream)); err != nil {
		return err
	}
	if p.freqs, err = p.m.floats(n.Rotation.Inverse); err != nil {
		return err
	}
	if err := p.in.room(p.m, int(tokens), int(outputs), (n.Context+tensor.BlockSize-1)/tensor.BlockSize); err != nil {
		return err
	}
	for i := range p.flights {
		if err := p.flights[i].room(p.m, p.in.words, int(outputs)); err != nil {
			return err
		}
	}
	return nil
}

func (f *flight) room(m *Model, words, outputs int) error {
	host, err := m.pin(4 * words)
	if err != nil {
		return err
	}
	f.host = unsafe.Slice((*int32)(host), words)
	if f.picked, err = m.pin(4 * outputs); err != nil {
		return err
	}
	if f.begun, err = m.event(); err != nil {
		return err
	}
	f.end, err = m.event()
	return err
}

// float8All keeps a float8 copy of the layers' int8 weights, if prompts are
// multiplied in float8.
func (p *program) float8All() (err error) {
	a := p.n.Activations
	if a >= tensor.ActivationsInt8 && !p.eight() {
		return fmt.Errorf("activations of %s are multiplied by int8 weights, of rows and columns that are multiples of 16, and this model's are not: leave --activations at auto", a)
	}
	if a != tensor.ActivationsFP8 {
		return nil
	}
	if p.g.lt == nil || p.g.lt.desc[typeE4M3] == 0 || p.g.major != 9 {
		return fmt.Errorf("activations of fp8 need a GPU of compute capability 9.0 and cuBLASLt of CUDA 12.9 or newer, and this is %s: leave --activations at auto", p.g.Describe())
	}
	for _, l := range p.layers {
		for _, w := range []*matrix{l.qkv, l.o, l.gu, l.down} {
			if w.float8, err = p.m.alloc(w.dataBytes()); err != nil {
				return fmt.Errorf("weights as float8: %w", err)
			}
			p.n.Spare -= w.dataBytes()
			p.float8(w)
		}
	}
	return nil
}

func (p *program) float8(w *matrix) {
	p.g.launch("float8", grid{x: int((w.dataBytes()/16 + 255) / 256), y: 1, threads: 256}, w.float8, w.data, w.dataBytes()/16)
}

// widenAll keeps a 16-bit copy of int8 weights if there is memory for it. Steps
// of many tokens need it, and would otherwise make it at every step. widest is
// the size of the largest matrix without a kept copy.
func (p *program) widenAll() (widest int64, err error) {
	var all []*matrix
	var sum int64
	for _, l := range p.layers {
		all = append(all, l.qkv, l.o, l.gu, l.down)
	}
	for _, w := range append(all, p.output) {
		if w.scale != 0 {
			widest, sum = max(widest, w.dataBytes()*2), sum+w.dataBytes()*2
		}
	}
	if sum == 0 || sum > p.n.Spare {
		return widest, nil
	}
	for _, w := range append(all, p.output) {
		if w.scale == 0 {
			continue
		}
		if w.wide, err = p.m.alloc(w.dataBytes() * 2); err != nil {
			return 0, fmt.Errorf("weights as 16 bits: %w", err)
		}
		p.widen(w.wide, w)
	}
	return 0, nil
}

func (in *input) room(m *Model, tokens, outputs, blocks int) (err error) {
	word := 0
	for _, f := range []struct {
		at *int
		n  int
	}{
		{&in.tokens, tokens}, {&in.positions, tokens}, {&in.slots, tokens}, {&in.offsets, tokens}, {&in.which, tokens}, {&in.firsts, tokens}, {&in.counts, tokens},
		{&in.outputs, outputs}, {&in.picks_, outputs * pickWords}, {&in.tables, outputs * blocks},
	} {
		*f.at = word
		word += f.n
	}
	in.words, in.rows = word, outputs
	in.device, err = m.alloc(int64(4 * word))
	return err
}

// plan says how the attention of a step's tokens is computed.
type plan struct {
	tokens  int // padded, in a graph
	rows    int
	singles int  // tokens that decode, or whose heads have no kernel for many
	tiles   int  // of up to 64 prompt tokens
	whole   bool // every token decodes, and the outputs are they
}

// tile is how many tokens of a prompt attend together.
const tile = 64

// write lays a step out in the input.
func (in *input) write(s tensor.Step, picks []tensor.Pick, flash bool) (plan, error) {
	n := len(s.Tokens)
	pl := plan{tokens: n, rows: len(s.Outputs)}
	copy(in.host[in.tokens:], s.Tokens)
	copy(in.host[in.positions:], s.Positions)
	copy(in.host[in.slots:], s.Slots)
	copy(in.host[in.outputs:], s.Outputs)
	in.used = in.tables
	for from := 0; from < n; {
		to := from + 1
		for to < n && sameTable(s.Tables[to], s.Tables[from]) && s.Positions[to] == s.Positions[to-1]+1 {
			to++
		}
		blocks := int(s.Positions[to-1])/tensor.BlockSize + 1
		if in.used+blocks > len(in.host) {
			return pl, fmt.Errorf("the step's block tables have more than %d entries", len(in.host)-in.tables)
		}
		for t := from; t < to; t++ {
			in.host[in.offsets+t] = int32(in.used - in.tables)
		}
		in.used += copy(in.host[in.used:], s.Tables[from][:blocks])
		if to-from == 1 || !flash {
			for t := from; t < to; t++ {
				in.host[in.which+pl.singles] = int32(t)
				pl.singles++
			}
		} else {
			for t := from; t < to; t += tile {
				in.host[in.firsts+pl.tiles], in.host[in.counts+pl.tiles] = int32(t), int32(min(tile, to-t))
				pl.tiles++
			}
		}
		from = to
	}
	pl.whole = pl.singles == n && pl.rows == n
	for i, t := range s.Outputs {
		pl.whole = pl.whole && int(t) == i
	}
	for i, p := range picks {
		in.pick(i, p)
	}
	return pl, nil
}

func sameTable(a, b []int32) bool {
	return len(a) == len(b) && unsafe.SliceData(a) == unsafe.SliceData(b)
}

func (in *input) pick(row int, p tensor.Pick) {
	at := in.host[in.picks_+row*pickWords:]
	for i, v := range []float32{p.Temperature, p.TopP, p.MinP, p.At} {
		at[i] = int32(math.Float32bits(v))
	}
	at[4] = int32(p.TopK)
}

// pad adds tokens that write nothing, attend to nothing and have no output.
func (in *input) pad(pl plan, to int) plan {
	for i := pl.tokens; i < to; i++ {
		in.host[in.tokens+i], in.host[in.positions+i], in.host[in.slots+i], in.host[in.offsets+i], in.host[in.which+i] = 0, 0, -1, 0, int32(i)
		if i < in.rows {
			in.host[in.outputs+i] = int32(i)
			in.pick(i, tensor.Pick{})
		}
	}
	pl.tokens, pl.rows, pl.singles = to, to, to
	return pl
}

// Start begins a step.
func (p *program) Start(s tensor.Step, cache tensor.KV, picks []tensor.Pick) error {
	if len(s.Outputs) > p.n.Outputs || len(s.Tokens) > p.n.Tokens {
		return fmt.Errorf("a step of %d tokens and %d outputs is more than %d and %d", len(s.Tokens), len(s.Outputs), p.n.Tokens, p.n.Outputs)
	}
	if p.started-p.awaited == 2 {
		return errors.New("two steps are under way already")
	}
	f := &p.flights[p.started%3]
	f.picks, f.rows, p.in.host = append(f.picks[:0], picks...), len(s.Outputs), f.host
	err := p.g.do(func() error {
		d := p.g.d
		pl, err := p.in.write(s, picks, p.flash())
		if err != nil {
			return err
		}
		decode := pl.whole && padded(pl.tokens) <= p.n.Outputs
		if decode {
			pl = p.in.pad(pl, padded(pl.tokens))
		}
		if err := errors.Join(d.check("cuEventRecord", d.eventRecord(f.begun, p.g.stream)),
			d.check("cuMemcpyHtoDAsync", d.toDevice(p.in.device, unsafe.Pointer(&f.host[0]), uint64(4*p.in.used), p.g.stream))); err != nil {
			return err
		}
		if decode {
			err = p.replay(pl, cache.(*kv))
		} else {
			p.compute(pl, cache.(*kv))
		}
		if f.rows > 0 {
			err = errors.Join(err, d.check("cuMemcpyDtoHAsync", d.toHost(f.picked, p.ids, uint64(4*f.rows), p.g.stream)))
		}
		return errors.Join(err, d.check("cuEventRecord", d.eventRecord(f.end, p.g.stream)))
	})
	if err == nil {
		p.started++
	}
	return err
}

// Wait waits for the oldest step that was begun.
func (p *program) Wait() (tensor.Done, error) {
	if p.awaited == p.started {
		return tensor.Done{}, errors.New("no step is under way")
	}
	f, before := &p.flights[p.awaited%3], &p.flights[(p.awaited+2)%3]
	f.logits = f.logits[:0]
	var idle float32
	err := p.g.do(func() error {
		d := p.g.d
		if err := d.check("cuEventSynchronize", d.eventSync(f.end)); err != nil {
			return err
		}
		if p.awaited > 0 {
			if err := d.check("cuEventElapsedTime", d.eventElapsed(&idle, before.end, f.begun)); err != nil {
				return err
			}
		}
		for row, pick := range f.picks {
			var logits []float32
			if pick.Logits {
				logits = make([]float32, p.n.Vocab)
				at := p.logits.plus(int64(row) * int64(p.n.Vocab) * 4)
				if err := d.check("cuMemcpyDtoHAsync", d.toHost(unsafe.Pointer(&logits[0]), at, uint64(4*p.n.Vocab), p.g.stream)); err != nil {
					return err
				}
			}
			f.logits = append(f.logits, logits)
		}
		if slices.ContainsFunc(f.picks, func(k tensor.Pick) bool { return k.Logits }) {
			return p.g.sync()
		}
		return nil
	})
	p.awaited++
	f.got = append(f.got[:0], unsafe.Slice((*int32)(f.picked), f.rows)...)
	return tensor.Done{IDs: f.got, Logits: f.logits, Idle: time.Duration(float64(idle) * 1e6)}, err
}

// replay computes a decode step with its graph, which is recorded at the first
// batch of this size. Without memory for a graph, the kernels are launched one
// by one.
func (p *program) replay(pl plan, cache *kv) error {
	d := p.g.d
	if g, ok := p.graphs[pl.tokens]; ok {
		err := d.check("cuGraphLaunch", d.graphLaunch(g, p.g.stream))
		if OutOfMemory(err) {
			p.compute(pl, cache)
			return nil
		}
		return err
	}
	p.compute(pl, cache) // loads kernels and makes plans, which is not possible during recording
	if err := errors.Join(p.g.err, d.check("cuStreamBeginCapture", d.capture(p.g.stream, 2))); err != nil {
		return err
	}
	p.compute(pl, cache)
	var g, graph uintptr
	err := errors.Join(p.g.err, d.check("cuStreamEndCapture", d.captureEnd(p.g.stream, &graph)))
	if err != nil {
		return err
	}
	defer d.graphDestroy(graph)
	err = d.check("cuGraphInstantiate", d.instantiate(&g, graph, 0))
	if err == nil {
		p.graphs[pl.tokens] = g
		p.m.graphs = append(p.m.graphs, g)
	}
	if OutOfMemory(err) {
		return nil
	}
	return err
}

// Warm computes padding in steps of all sizes, so that kernels are loaded,
// products planned and graphs recorded before the first request.
func (p *program) Warm(cache tensor.KV) error {
	return p.g.do(func() error {
		p.in.host = p.flights[0].host
		for n := 1; n <= p.n.Tokens; n = padded(n) + 1 {
			size := padded(n)
			pl := p.in.pad(plan{whole: true}, size)
			prompts := pl
			prompts.rows, prompts.whole = 1, false
			p.in.used = p.in.tables + 1
			p.in.host[p.in.tables] = 0
			if err := p.g.d.check("cuMemcpyHtoDAsync", p.g.d.toDevice(p.in.device, unsafe.Pointer(&p.in.host[0]), uint64(4*p.in.used), p.g.stream)); err != nil {
				return err
			}
			if size > p.n.Outputs || p.activations(prompts) > tensor.Activations16 {
				p.compute(prompts, cache.(*kv))
			}
			if size <= p.n.Outputs {
				if err := errors.Join(p.replay(pl, cache.(*kv)), p.replay(pl, cache.(*kv))); err != nil { // recorded, then brought to the device
					return err
				}
			}
			if err := errors.Join(p.g.err, p.g.sync()); err != nil { // the next step reuses this step's input
				return err
			}
		}
		return nil
	})
}

func (p *program) name(kernel string) string { return kernel + "_" + p.m.half }

// compute launches a step's kernels.
func (p *program) compute(pl plan, cache *kv) {
	n, in := p.n, &p.in
	p.few(pl)
	defer func() { p.g.slot = 0 }()
	embed := grid{x: pl.tokens, y: 1, threads: 256}
	if p.g.slot > 0 {
		embed.x = p.g.SMs
	}
	if p.embed.scale != 0 {
		p.g.launch("embed_i8", embed, p.x, p.embed.data, p.embed.scale, in.at(in.tokens), p.ids, n.Width, pl.tokens)
	} else {
		p.g.launch(p.name("embed"), embed, p.x, p.embed.data, in.at(in.tokens), p.ids, n.Width, pl.tokens)
	}
	multiply := p.multiply
	switch p.activations(pl) {
	case tensor.ActivationsInt8:
		multiply = p.multiplyInt8
	case tensor.ActivationsFP8:
		multiply = p.multiplyFP8
	}
	for i, l := range p.layers {
		if p.turns(pl, l, cache) {
			p.turn(pl, i, l, cache)
		} else {
			multiply(p.qkv, l.qkv, p.x, l.attnNorm, pl.tokens, store)
			p.ropeStore(pl, i, l, cache)
		}
		p.attend(pl, i, cache)
		multiply(p.x, l.o, p.attended, nil, pl.tokens, add)
		multiply(p.act, l.gu, p.x, l.ffnNorm, pl.tokens, swiglu)
		multiply(p.x, l.down, p.act, nil, pl.tokens, add)
	}
	if pl.rows == 0 {
		return // a prompt whose end is not yet reached
	}
	last := p.x
	if !pl.whole {
		last = p.last
		p.g.launch("gather", grid{x: pl.rows, y: 1, threads: 256}, last, p.x, in.at(in.outputs), n.Width)
	}
	p.multiply(p.logits, p.output, last, p.norm, pl.rows, float)
	p.g.launch("pick", grid{x: pl.rows, y: 1, threads: 1024}, p.ids, p.logits, in.at(in.picks_), n.Vocab)
}

// few decides how the kernels of a step share processors. If a step has so few
// tokens that gemv computes all of its products, every kernel has one block for
// each processor, with half of its shared memory. So two kernels are resident
// at once: one computes, and the next loads its weights and waits. If a kernel
// had fewer or smaller blocks, the next one could put several blocks on one
// processor, which would then take longer than the others.
func (p *program) few(pl plan) {
	p.g.slot = 0
	if p.g.major == 9 && pl.tokens <= gemvTokens && !p.n.Deterministic {
		p.g.slot = slotBytes
	}
}

// slotBytes is nearly half of the shared memory of a processor of Hopper.
const slotBytes = 112 << 10

// gemvs reports whether gemv multiplies by a matrix: whether its inputs have room.
func (p *program) gemvs(w *matrix, tokens int) bool {
	return tokens <= gemvTokens && !p.n.Deterministic && gemvBytes(4)+w.inputs(tokens) <= p.g.shared()
}

// inputs is the size of gemv's inputs in shared memory: 16 bits each, or three
// digits for several tokens and int8 weights.
func (w *matrix) inputs(tokens int) int {
	if w.scale != 0 && tokens > 1 {
		return 3 * tokens * (w.cols + 64)
	}
	return 2 * tokens * w.cols
}

// gemv returns the name of the kernel for a product and its launch size. Each
// thread has six loads of 16 bytes under way. With more, the few loads for
// which a kernel waits would queue behind those of weights.
func (p *program) gemv(w *matrix, tokens int, out outcome) (string, grid) {
	kind, room := p.m.half, p.g.shared()
	if w.scale != 0 {
		kind = "i8_" + kind
	}
	if p.g.slot > 0 {
		room = p.g.slot
	}
	stages, size := 6, grid{x: p.g.SMs, y: 1, threads: 512}
	if gemvBytes(stages)+w.inputs(tokens) > room {
		stages = 4
	}
	if large := out == swiglu || out == float; large && w.scale != 0 && tokens == 1 && w.cols <= 2048 {
		size.x *= 2 // for short rows, adding the sums takes as long as the products
	}
	size.shared = gemvBytes(stages) + w.inputs(tokens)
	return fmt.Sprintf("gemv%d_%s_%d_%s", stages, kind, tokens, out), size
}

func gemvBytes(stages int) int { return stages * 512 * 16 }

// turns reports whether the product for queries, keys and values also applies
// RoPE and stores keys and values.
func (p *program) turns(pl plan, l layer, cache *kv) bool {
	return p.gemvs(l.qkv, pl.tokens) && cache.keyScales == 0 && l.qNorm == 0 && l.kNorm == 0
}

// turn is multiply and ropeStore in one kernel.
func (p *program) turn(pl plan, i int, l layer, cache *kv) {
	a, in := p.n.Attention, &p.in
	keys, values, _, _ := cache.of(i)
	name, size := p.gemv(l.qkv, pl.tokens, turned)
	p.g.launch(name, size, p.qkv, l.qkv.data, l.qkv.scale, p.x, l.attnNorm.data, l.qkv.cols, p.n.Epsilon,
		keys, values, l.bias, p.freqs, in.at(in.positions), in.at(in.slots), a.Heads, a.KVHeads, a.HeadDim, p.halves())
}

// halves says which dimensions of a head RoPE rotates as a pair.
func (p *program) halves() int {
	if p.n.Rotation.Halves {
		return 1
	}
	return 0
}

func (p *program) ropeStore(pl plan, i int, l layer, cache *kv) {
	a, in := p.n.Attention, &p.in
	parts := 1 // with few tokens, several processors share the work of a head
	switch {
	case p.g.slot > 0:
		parts = (p.g.SMs + pl.tokens - 1) / pl.tokens
	case pl.tokens < p.g.SMs:
		parts = (a.Heads + 2*a.KVHeads + 7) / 8
	}
	keys, values, keyScales, valueScales := cache.of(i)
	p.g.launch("rope_store_"+cache.kind()+p.m.half, grid{x: pl.tokens, y: parts, threads: 256, shared: 4 * 9 * a.HeadDim},
		p.qkv, keys, values, keyScales, valueScales, l.bias, l.qNorm, l.kNorm, p.freqs, in.at(in.positions), in.at(in.slots),
		a.Heads, a.KVHeads, a.HeadDim, p.halves(), p.n.Epsilon)
}

// tiled reports whether there are kernels of attention on tensor cores.
func (p *program) tiled() bool { return p.n.Attention.HeadDim == 64 || p.n.Attention.HeadDim == 128 }

// flash reports whether a separate kernel computes prompts.
func (p *program) flash() bool { return p.tiled() && !p.n.Deterministic }

// attend computes the attention of the step's tokens to their sequences.
func (p *program) attend(pl plan, i int, cache *kv) {
	a, in := p.n.Attention, &p.in
	keys, values, keyScales, valueScales := cache.of(i)
	scale := float32(1 / math.Sqrt(float64(a.HeadDim)))
	if pl.tiles > 0 {
		shared := 5 * tile * (a.HeadDim + 8) * 2
		if cache.keyScales != 0 {
			shared = 4*tile*(a.HeadDim+16) + 4*tile*4
		}
		p.g.launch(fmt.Sprintf("%s_%d", "attend_prefill_"+cache.kind()+p.m.half, a.HeadDim), grid{x: pl.tiles, y: a.Heads, threads: 128, shared: shared},
			p.attended, p.qkv, keys, values, keyScales, valueScales, in.at(in.tables), in.at(in.offsets), in.at(in.positions), in.at(in.firsts), in.at(in.counts), a.Heads, a.KVHeads, scale)
	}
	if pl.singles == 0 {
		return
	}
	if p.n.Deterministic {
		p.attendFixed(pl, i, cache)
		return
	}
	share := a.Heads / a.KVHeads
	early := 0 // a sequence with several tokens in the step attends to what the step writes
	if p.flash() {
		early = 1
	}
	y := a.KVHeads * ((share + 7) / 8)
	if p.g.slot > 0 && (p.flash() || cache.keyScales != 0) && pl.singles*y <= p.g.SMs {
		warps := 8
		if a.HeadDim == 128 {
			warps = 4
		}
		p.g.launch(fmt.Sprintf("attend_few_%s%s_%d", cache.kind(), p.m.half, a.HeadDim), grid{x: p.g.SMs, y: 1, threads: 32 * warps, shared: slotBytes},
			p.attended, p.qkv, keys, values, keyScales, valueScales, in.at(in.tables), in.at(in.offsets), in.at(in.positions), in.at(in.slots), in.at(in.which), p.partial, p.done,
			a.Heads, a.KVHeads, scale, early, pl.singles, min(32, p.g.SMs/(pl.singles*y)))
		return
	}
	if cache.keyScales != 0 || p.flash() && share > 1 && pl.singles > attendWide {
		splits := max(1, min(32, 2*p.g.SMs/(pl.singles*y)))
		size := grid{x: pl.singles, y: y, z: splits, threads: 128, shared: 4 * tilesBytes(a.HeadDim, cache)}
		if pl.singles <= skinnyWide {
			size.split = 50 // skinny runs next with the same split, and needs cache
		}
		p.g.launch(fmt.Sprintf("attend_tiles_%s%s_%d", cache.kind(), p.m.half, a.HeadDim), size,
			p.attended, p.qkv, keys, values, keyScales, valueScales, in.at(in.tables), in.at(in.offsets), in.at(in.positions), in.at(in.slots), in.at(in.which), p.partial, p.done,
			a.Heads, a.KVHeads, scale, early)
		return
	}
	heads, lanes := 8, 2
	if share == 1 {
		heads = 1
	} else if share <= 4 {
		heads = 4
	}
	for lanes*8 < a.HeadDim {
		lanes *= 2
	}
	y = a.KVHeads * ((share + heads - 1) / heads)
	warps := 4
	if pl.singles <= attendWide && (lanes == 8 || lanes == 16) {
		warps = 8
	}
	splits := max(1, min(32, 2*p.g.SMs/(pl.singles*y)))
	p.g.launch(fmt.Sprintf("%s_%d_%d_%d", p.name("attend_decode"), lanes, heads, warps), grid{x: pl.singles, y: y, z: splits, threads: 32 * warps, shared: warps * heads * (a.HeadDim + 2) * 4},
		p.attended, p.qkv, keys, values, in.at(in.tables), in.at(in.offsets), in.at(in.positions), in.at(in.slots), in.at(in.which), p.partial, p.done,
		a.Heads, a.KVHeads, a.HeadDim, scale, early)
}

// In deterministic steps the context of a token is always split into so many
// stretches, and so many tokens attend at once.
const (
	fixedSplits = 8
	fixedTokens = 256
)

// fixedStretches is how many stretches the attention of deterministic steps has at most.
func (p *program) fixedStretches() int {
	a := p.n.Attention
	return min(fixedTokens, padded(p.n.Tokens)+4) * a.KVHeads * ((a.Heads/a.KVHeads + fixedHeads(a) - 1) / fixedHeads(a)) * fixedSplits
}

// fixedHeads is how many query heads of a KV head a block computes in deterministic
// steps, without tensor cores.
func fixedHeads(a tensor.Attention) int {
	switch share := a.Heads / a.KVHeads; {
	case share == 1:
		return 1
	case share <= 4:
		return 4
	}
	return 8
}

// attendFixed computes the attention of every token by the same kernel, which splits a
// context by its length alone. So the result does not depend on the other tokens of the
// step, nor on whether the token belongs to a prompt.
func (p *program) attendFixed(pl plan, i int, cache *kv) {
	a, in := p.n.Attention, &p.in
	keys, values, keyScales, valueScales := cache.of(i)
	scale, share := float32(1/math.Sqrt(float64(a.HeadDim))), a.Heads/a.KVHeads
	for from := 0; from < pl.singles; from += fixedTokens {
		which, n := in.at(in.which+from), min(fixedTokens, pl.singles-from)
		if cache.keyScales != 0 || p.tiled() && share > 1 {
			p.g.launch(fmt.Sprintf("attend_tiles_%s%s_%d", cache.kind(), p.m.half, a.HeadDim), grid{x: n, y: a.KVHeads * ((share + 7) / 8), z: fixedSplits, threads: 128, shared: 4 * tilesBytes(a.HeadDim, cache)},
				p.attended, p.qkv, keys, values, keyScales, valueScales, in.at(in.tables), in.at(in.offsets), in.at(in.positions), in.at(in.slots), which, p.partial, p.done,
				a.Heads, a.KVHeads, scale, 0)
			continue
		}
		heads, lanes := fixedHeads(a), 2
		for lanes*8 < a.HeadDim {
			lanes *= 2
		}
		const warps = 4
		p.g.launch(fmt.Sprintf("%s_%d_%d_%d", p.name("attend_decode"), lanes, heads, warps), grid{x: n, y: a.KVHeads * ((share + heads - 1) / heads), z: fixedSplits, threads: 32 * warps, shared: warps * heads * (a.HeadDim + 2) * 4},
			p.attended, p.qkv, keys, values, in.at(in.tables), in.at(in.offsets), in.at(in.positions), in.at(in.slots), which, p.partial, p.done,
			a.Heads, a.KVHeads, a.HeadDim, scale, 0)
	}
}

// attendWide is the largest number of decoding tokens that get twice the warps.
// For more tokens, attention uses tensor cores.
const attendWide = 8

// tilesBytes is the shared memory of a warp of attend_tiles: struct Tiles.
func tilesBytes(dim int, cache *kv) int {
	switch {
	case cache.keyScales != 0:
		return 4 * (2*tensor.BlockSize*(dim+16) + 8*tensor.BlockSize)
	case dim > 64:
		return 2 * 2 * tensor.BlockSize * (2*dim + 16)
	}
	return 3 * 2 * tensor.BlockSize * (2*dim + 16)
}

// outcome says what is done with the result of a product.
type outcome string

const (
	store  outcome = "store"  // 16 bits
	add    outcome = "add"    // added to float32
	float  outcome = "float"  // float32
	turned outcome = "turn"   // RoPE, and keys and values to the cache
	swiglu outcome = "swiglu" // silu of the first half of the rows, times the second: 16 bits
)

// The largest numbers of tokens for the kernels that read weights once: for
// gemv, and for skinny with 16-bit weights (above that cuBLASLt is faster),
// with int8 weights that have a 16-bit copy, and with int8 weights that would
// have to be widened.
const (
	gemvTokens   = 2
	skinnyTokens = 8
	skinnyWide   = 16
	skinnyInt8   = 64
)

// multiply computes y = x × wᵀ for so many rows of x. They have 16 bits, or
// with a norm they are float32 and normed first.
func (p *program) multiply(y ptr, w *matrix, x ptr, norm *vector, tokens int, out outcome) {
	weight := ptr(0)
	if norm != nil {
		weight = norm.data
	}
	rows, kind, limit := w.rows, p.m.half, skinnyTokens
	if out == swiglu {
		rows /= 2
	}
	if w.scale != 0 {
		kind, limit = "i8_"+kind, skinnyInt8
		if w.wide != 0 {
			limit = skinnyWide
		}
	}
	if p.gemvs(w, tokens) {
		name, size := p.gemv(w, tokens, out)
		p.g.launch(name, size, y, w.data, w.scale, x, weight, rows, w.cols, p.n.Epsilon)
		return
	}
	if norm != nil {
		p.g.launch(p.name("rms_norm"), grid{x: tokens, y: 1, threads: 256}, p.h, x, weight, ptr(0), w.cols, p.n.Epsilon)
		x = p.h
	}
	if tokens <= limit && !p.n.Deterministic {
		tiles, each := 1, 16
		for tiles*8 < tokens {
			tiles *= 2
		}
		if out == swiglu {
			each = 8
		}
		p.g.launch(fmt.Sprintf("skinny_%s_%d_%s", kind, tiles, out), grid{x: (rows + each - 1) / each, y: 1, threads: 256}, y, w.data, w.scale, x, tokens, rows, w.cols)
		return
	}
	data := w.data
	if w.wide != 0 {
		data = w.wide
	} else if w.scale != 0 {
		p.widen(p.wide, w)
		data = p.wide
	}
	if out == swiglu {
		p.product(p.gu, data, x, w.rows, w.cols, tokens, store)
		p.g.launch(p.name("swiglu"), grid{x: tokens, y: max(1, rows/8/1024), threads: 256}, y, p.gu, rows)
		return
	}
	p.product(y, data, x, w.rows, w.cols, tokens, out)
}

// widen converts int8 weights to 16 bits.
func (p *program) widen(to ptr, w *matrix) {
	threads := min(256, (w.cols/16+31)/32*32)
	p.g.launch(p.name("widen"), grid{x: w.rows, y: (w.cols/16 + threads - 1) / threads, threads: threads}, to, w.data, w.scale, w.cols)
}

// eightWidth is the model width from which activations are int8 by default.
// Below it, narrowing them and converting the sums takes as long as tensor
// cores save, so it pays only if weights would otherwise have to be widened.
// BenchmarkActivations measures it.
const eightWidth = 4096

// eight reports whether all layers' weights are int8, of shapes that can be
// multiplied in 8 bits.
func (p *program) eight() bool {
	for _, l := range p.layers {
		for _, w := range []*matrix{l.qkv, l.o, l.gu, l.down} {
			if w.scale == 0 || w.rows%16 != 0 {
				return false
			}
		}
	}
	return true
}

// activations is the type of the inputs of a step's products. They have 16 bits
// if all tokens decode, or if kernels that read weights once compute all
// tokens.
func (p *program) activations(pl plan) tensor.Activations {
	switch a := p.n.Activations; {
	case p.n.Deterministic || pl.whole || pl.tokens <= skinnyWide || !p.eight():
		return tensor.Activations16
	case a != tensor.ActivationsAuto:
		return a
	case p.n.Width >= eightWidth || pl.tokens > skinnyInt8 && p.layers[0].qkv.wide == 0:
		return tensor.ActivationsInt8
	default:
		return tensor.Activations16
	}
}

// multiplyInt8 is multiply with int8 inputs and a scale for each token. The
// result of swiglu is int8 too, as input of the next product.
func (p *program) multiplyInt8(y ptr, w *matrix, x ptr, norm *vector, tokens int, out outcome) {
	in, row := p.narrowed("i8", x, norm, w.cols, tokens), grid{x: tokens, y: 1, threads: 256}
	s := ltShape{kind: typeI8, out: typeI32, rows: w.rows, cols: w.cols, tokens: padded(tokens)}
	if p.g.lt == nil || p.g.err != nil || !p.g.lt.multiply(p.g, s, p.gu, w.data, in, false, p.work, p.gu, p.sums) {
		p.g.launch("gemm_i8", grid{x: (w.rows + 127) / 128, y: (tokens + 63) / 64, threads: 256, shared: gemmBytes}, p.gu, w.data, in, tokens, w.rows, w.cols)
	}
	switch out {
	case swiglu:
		row.threads = 512
		p.g.launch("swiglu_i8", row, y, p.scales, p.gu, w.scale, w.rows/2)
	case add:
		row.y = max(1, w.rows/4096)
		p.g.launch("scaled_add", row, y, p.gu, p.scales, w.scale, w.rows)
	default:
		row.y = max(1, w.rows/4096)
		p.g.launch("scaled_"+p.m.half+"_store", row, y, p.gu, p.scales, w.scale, w.rows)
	}
}

// multiplyFP8 is the same with float8, which only cuBLASLt multiplies.
func (p *program) multiplyFP8(y ptr, w *matrix, x ptr, norm *vector, tokens int, out outcome) {
	in := p.narrowed("f8", x, norm, w.cols, tokens)
	if p.g.err != nil {
		return
	}
	p.g.lt.scale(w.scale, p.scales)
	s, to := ltShape{kind: typeE4M3, out: p.halfType(), rows: w.rows, cols: w.cols, tokens: padded(tokens)}, y
	if out == swiglu {
		to = p.gu
	}
	if out == add {
		s.out = typeF32
	}
	if !p.g.lt.multiply(p.g, s, to, w.float8, in, out == add, p.work, p.logits, p.spare) {
		p.g.err = fmt.Errorf("cuBLASLt cannot multiply float8 of %d×%d by %d tokens: leave --activations at auto", w.rows, w.cols, s.tokens)
		return
	}
	if out == swiglu {
		p.g.launch(p.name("swiglu_f8"), grid{x: tokens, y: 1, threads: 512}, y, p.scales, p.gu, w.rows/2)
	}
}

// narrowed converts x to 8 bits, after the norm if there is one. The scales are
// in p.scales. The result of swiglu has 8 bits already.
func (p *program) narrowed(code string, x ptr, norm *vector, cols, tokens int) ptr {
	row := grid{x: tokens, y: 1, threads: 256}
	switch {
	case x == p.act:
		return x
	case norm != nil:
		p.g.launch("rms_norm_"+code, row, p.h, p.scales, x, norm.data, cols, p.n.Epsilon)
	default:
		p.g.launch(p.name("narrow_"+code), row, p.h, p.scales, x, cols)
	}
	return p.h
}

// halfType is CUDA's number for the model's 16-bit type.
func (p *program) halfType() int32 {
	if p.m.half == "bf16" {
		return typeBF16
	}
	return typeF16
}

// gemmBytes is the shared memory of gemm.
const gemmBytes = 4 * (64 + 128) * 40 * 2

// product multiplies by 16-bit weights on tensor cores.
func (p *program) product(y, w, x ptr, rows, cols, tokens int, out outcome) {
	if p.g.lt != nil && p.g.err == nil {
		s := ltShape{kind: p.halfType(), rows: rows, cols: cols, tokens: padded(tokens), exact: p.n.Deterministic}
		if s.out = s.kind; out != store {
			s.out = typeF32
		}
		if s.exact {
			if _, planned := p.g.lt.plans[s]; !planned {
				p.g.lt.plans[s] = p.exactPlan(s, w)
			}
		}
		if p.g.lt.multiply(p.g, s, y, w, x, out == add, p.work, p.logits, p.spare) {
			return
		}
	}
	p.gemm(y, w, x, rows, cols, tokens, out)
}

// gemm multiplies with the server's own kernel. It sums the products of each token in
// the order of the columns, whatever other tokens there are.
func (p *program) gemm(y, w, x ptr, rows, cols, tokens int, out outcome) {
	p.g.launch(fmt.Sprintf("gemm_%s_%s", p.m.half, out), grid{x: (rows + 127) / 128, y: (tokens + 63) / 64, threads: 256, shared: gemmBytes},
		y, w, x, tokens, rows, cols)
}

// exactPlan is the fastest of cuBLASLt's algorithms that gives the bits of gemm, of
// these weights and random inputs. It is nil if there is none, or if gemm is as fast.
// So deterministic steps may use either, by the number of their tokens.
func (p *program) exactPlan(s ltShape, w ptr) *ltPlan {
	plan, found := p.g.lt.propose(s, p.g.lt.ordered, exactProposals)
	if plan == nil || p.g.err != nil {
		return nil
	}
	out, each := store, int64(2)
	if s.out == typeF32 {
		out, each = float, 4
	}
	n := each * int64(s.rows) * int64(s.tokens)
	var taken []ptr
	defer func() {
		for _, at := range taken {
			p.m.free(at)
		}
	}()
	room := func(n int64) ptr {
		at, err := p.m.alloc(n)
		if err != nil {
			return 0
		}
		taken = append(taken, at)
		return at
	}
	x, want, got := room(2*int64(s.tokens)*int64(s.cols)), room(n), room(n)
	if x == 0 || want == 0 || got == 0 {
		return nil
	}
	defer p.m.undraw()
	if p.m.draw(x, tensor.Stored{Name: "exact", Type: tensor.Random, Rows: s.tokens, Cols: s.cols}) != nil {
		return nil
	}
	read := func(at ptr) []byte {
		b := make([]byte, n)
		if p.g.d.toHost(unsafe.Pointer(&b[0]), at, uint64(n), p.g.stream) != 0 || p.g.sync() != nil {
			return nil
		}
		return b
	}
	best, ok := p.g.timed(3, func() bool { p.gemm(want, w, x, s.rows, s.cols, s.tokens, out); return p.g.err == nil })
	reference := read(want)
	if !ok || reference == nil {
		return nil
	}
	var chosen *ltPlan
	for _, algorithm := range found {
		plan.algorithm = algorithm
		took, ok := p.g.timed(3, func() bool { return p.g.lt.run(plan, s.kind, got, w, x, false, p.work, p.g.stream) })
		if ok && took < best && bytes.Equal(read(got), reference) {
			best, chosen = took, &ltPlan{w: plan.w, x: plan.x, y: plan.y, algorithm: algorithm}
		}
	}
	return chosen
}

// exactProposals is how many of cuBLASLt's algorithms are tried.
const exactProposals = 24
