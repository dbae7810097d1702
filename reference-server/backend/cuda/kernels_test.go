//go:build linux

package cuda

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"unsafe"

	"github.com/launchgate/launchgate/reference-server/tensor"
)

// gpu is the first GPU, or the test is skipped.
func gpu(t testing.TB) *GPU {
	t.Helper()
	g, err := Open(0)
	if err != nil {
		t.Skipf("skipped: %v", err)
	}
	t.Cleanup(g.Close)
	return g
}

// bench has the model and the buffers of a kernel test.
type bench struct {
	t    testing.TB
	g    *GPU
	m    *Model
	half string
	rng  *rand.Rand
}

// each runs a test with both 16-bit numbers.
func each(t *testing.T, f func(b *bench)) {
	g := gpu(t)
	for _, half := range []string{"f16", "bf16"} {
		t.Run(half, func(t *testing.T) {
			m := g.NewModel()
			m.half = half
			defer m.Close()
			f(&bench{t: t, g: g, m: m, half: half, rng: rand.New(rand.NewPCG(1, uint64(len(half))))})
		})
	}
}

// eps is the relative rounding error of the 16-bit numbers.
func (b *bench) eps() float64 {
	if b.half == "f16" {
		return 1.0 / 2048
	}
	return 1.0 / 256
}

func (b *bench) on(f func() error) {
	b.t.Helper()
	if err := b.g.do(f); err != nil {
		b.t.Fatal(err)
	}
}

// noise is n random numbers, as they read when stored in 16 bits where half.
func (b *bench) noise(n int, size float64, half bool) []float32 {
	v := make([]float32, n)
	for i := range v {
		v[i] = float32(b.rng.NormFloat64() * size)
	}
	if half {
		return b.unpack(b.pack(v))
	}
	return v
}

func (b *bench) pack(v []float32) []byte {
	p := make([]byte, 2*len(v))
	b.m.pack(p, v)
	return p
}

func (b *bench) unpack(p []byte) []float32 {
	v := make([]float32, len(p)/2)
	for i := range v {
		h := binary.LittleEndian.Uint16(p[2*i:])
		if b.half == "f16" {
			v[i] = tensor.HalfToFloat(h)
		} else {
			v[i] = math.Float32frombits(uint32(h) << 16)
		}
	}
	return v
}

func bytesOf[T any](v []T) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(v))), len(v)*int(unsafe.Sizeof(v[0])))
}

// up copies bytes to the device.
func (b *bench) up(v []byte) (p ptr) {
	b.on(func() (err error) {
		if p, err = b.m.alloc(int64(len(v))); err != nil {
			return err
		}
		if err := b.g.d.check("copy", b.g.d.toDevice(p, unsafe.Pointer(&v[0]), uint64(len(v)), b.g.stream)); err != nil {
			return err
		}
		return b.g.sync()
	})
	return p
}

func (b *bench) up16(v []float32) ptr { return b.up(b.pack(v)) }
func (b *bench) up32(v []float32) ptr { return b.up(bytesOf(v)) }
func (b *bench) ints(v []int32) ptr   { return b.up(bytesOf(v)) }

// poisoned is memory full of NaN.
func (b *bench) poisoned(n int) (p ptr) {
	b.on(func() (err error) {
		if p, err = b.m.alloc(int64(n)); err == nil {
			err = b.g.d.check("fill", b.g.d.fill(p, 0xff, uint64(n), b.g.stream))
		}
		return err
	})
	return p
}

func (b *bench) down(p ptr, n int) []byte {
	v := make([]byte, n)
	b.on(func() error {
		if err := b.g.d.check("copy", b.g.d.toHost(unsafe.Pointer(&v[0]), p, uint64(n), b.g.stream)); err != nil {
			return err
		}
		return b.g.sync()
	})
	return v
}

func (b *bench) down16(p ptr, n int) []float32 { return b.unpack(b.down(p, 2*n)) }
func (b *bench) down32(p ptr, n int) []float32 {
	raw := b.down(p, 4*n)
	v := make([]float32, n)
	copy(bytesOf(v), raw)
	return v
}

func (b *bench) launch(name string, size grid, args ...any) {
	b.t.Helper()
	b.on(func() error { b.g.launch(name, size, args...); return nil })
}

// inParallel calls f for 0 to n-1 in parallel, because references are slow to
// compute.
func inParallel(n int, f func(i int)) {
	var all sync.WaitGroup
	var next atomic.Int64
	for range runtime.GOMAXPROCS(0) {
		all.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				f(i)
			}
		})
	}
	all.Wait()
}

// near fails if a number differs from the wanted one by more than allowed,
// relative to scale, the size of the terms.
func (b *bench) near(what string, got []float32, want []float64, scale, allowed float64) {
	b.t.Helper()
	worst := 0.0
	for i, w := range want {
		d := math.Abs(float64(got[i])-w) / scale
		if math.IsNaN(d) {
			b.t.Fatalf("%s: element %d of %d is %v, want %v", what, i, len(want), got[i], w)
		}
		worst = max(worst, d)
	}
	if worst > allowed {
		b.t.Errorf("%s: differs by %.3g, allowed %.3g", what, worst, allowed)
	}
}

// With -test.short, tests that are slow under compute-sanitizer are small: they
// run the same code paths of the same kernels with fewer rows, columns or
// positions.
func short[T any](whole, small []T) []T {
	if testing.Short() {
		return small
	}
	return whole
}

// product is the size of one.
type product struct{ tokens, rows, cols int }

// Products against float64: every kernel, shapes that fill no tile, errors
// within the rounding of what is stored and float32 sums.
func TestProducts(t *testing.T) {
	each(t, func(b *bench) {
		for i, s := range append([]product{
			{1, 16, 16}, {1, 100, 272}, {1, 9000, 64}, {1, 576, 1536}, {2, 333, 576}, {3, 64, 128}, {4, 1000, 320}, {5, 48, 80}, {17, 130, 208}, {16, 96, 320}, {33, 57, 192}, {64, 128, 64},
		}, short([]product{{1, 40, 8208}, {8, 2048, 2048}, {70, 500, 1024}, {129, 257, 4096}}, []product{{1, 40, 4112}, {8, 48, 2064}, {70, 150, 160}, {129, 140, 96}})...) {
			for _, quantized := range []bool{false, true} {
				if quantized && s.cols%narrowable != 0 {
					continue
				}
				for _, out := range []outcome{store, add, float, swiglu} {
					for _, normed := range []bool{false, true} {
						for _, lt := range []bool{true, false} {
							if lt && b.g.lt == nil || lt && s.tokens <= skinnyTokens {
								continue
							}
							b.product(fmt.Sprintf("case %d: %v, int8 %v, %s, normed %v, cuBLASLt %v", i, s, quantized, out, normed, lt), s.tokens, s.rows, s.cols, quantized, out, normed, lt)
						}
					}
				}
			}
		}
	})
}

func (b *bench) product(what string, tokens, rows, cols int, quantized bool, out outcome, normed, lt bool) {
	b.t.Helper()
	all := rows
	if out == swiglu {
		rows = (rows + 15) / 16 * 16 // as the FFN of every model that is let in
		all = 2 * rows
	}
	w := b.noise(all*cols, 1/math.Sqrt(float64(cols)), true)
	m := &matrix{rows: all, cols: cols, data: b.up16(w)}
	if quantized {
		b.on(func() error { return b.m.narrow(m) })
		q, scale := b.down(m.data, all*cols), b.down32(m.scale, all)
		for i := range w {
			v := float32(int8(q[i])) * scale[i/cols]
			if d := math.Abs(float64(v - w[i])); d > float64(scale[i/cols])*0.51 {
				b.t.Fatalf("%s: weight %d is %v and became %v", what, i, w[i], v)
			}
			w[i] = v
		}
		wide := normed && tokens > skinnyWide // kept as 16 bits too
		if wide {
			m.wide = b.poisoned(2 * all * cols)
			b.on(func() error { (&program{m: b.m, g: b.g}).widen(m.wide, m); return nil })
		}
		if wide || tokens > skinnyInt8 {
			w = b.unpack(b.pack(w)) // as widen writes them
		}
	}
	x := b.noise((tokens+1)*cols, 1, !normed)
	norm := b.noise(cols, 1, false)
	in := make([]float64, tokens*cols)
	for t := range tokens {
		var squares float64
		for k := range cols {
			squares += float64(x[t*cols+k]) * float64(x[t*cols+k])
		}
		inverse := 1 / math.Sqrt(squares/float64(cols)+1e-5)
		for k := range cols {
			in[t*cols+k] = float64(x[t*cols+k])
			if normed {
				in[t*cols+k] *= inverse * float64(norm[k])
			}
		}
	}
	dot := func(t, r int) (sum float64) {
		for k := range cols {
			sum += in[t*cols+k] * float64(w[r*cols+k])
		}
		return sum
	}
	before := b.noise(max(4, padded(tokens))*rows, 1, false)
	want := make([]float64, tokens*rows)
	inParallel(rows, func(r int) {
		for t := range tokens {
			v := dot(t, r)
			switch out {
			case add:
				v += float64(before[t*rows+r])
			case swiglu:
				v = v / (1 + math.Exp(-v)) * dot(t, r+rows)
			}
			want[t*rows+r] = v
		}
	})
	p := &program{m: b.m, g: b.g, n: tensor.Net{Epsilon: 1e-5}, work: b.poisoned(ltWorkspace), wide: b.poisoned(2 * all * cols)}
	p.h, p.gu = b.poisoned(2*padded(tokens)*cols), b.poisoned(2*padded(tokens)*all)
	y := b.poisoned(4 * max(4, padded(tokens)) * rows)
	if out == add {
		y = b.up32(before)
	}
	var xs, ns ptr
	rest := make([]float32, (padded(tokens)+4)*cols-len(x))
	if normed {
		xs, ns = b.up32(append(x, rest...)), b.up32(norm)
	} else {
		xs = b.up16(append(x, rest...))
	}
	with := b.g.lt
	if !lt {
		b.g.lt = nil
	}
	defer func() { b.g.lt = with }()
	var v *vector
	if normed {
		v = &vector{cols, ns}
	}
	b.on(func() error { p.multiply(y, m, xs, v, tokens, out); return b.g.sync() })
	got := b.down32(y, tokens*rows)
	if out == store || out == swiglu {
		got = b.down16(y, tokens*rows)
	}
	// Stored results are rounded once, normed inputs once, and gate and up of
	// many tokens once more. The error of float32 sums is far smaller.
	allowed := 1e-4 + 3*b.eps()
	b.near(what, got, want, 4, allowed*2)
	b.on(func() error {
		for q := range b.m.taken {
			b.m.free(q)
		}
		return nil
	})
}

// Products of 8 bits against float64: int8 by cuBLASLt and by gemm, float8 by
// cuBLASLt. The reference rounds inputs to the same 8 bits, so that only the
// errors of sums and of stored results remain. The error of rounding random
// inputs to 8 bits is bounded too.
func TestProductsOfEightBits(t *testing.T) {
	each(t, func(b *bench) {
		for i, s := range append([]product{{1, 16, 16}, {3, 64, 128}, {5, 48, 80}, {17, 144, 208}, {33, 64, 192}, {64, 128, 64}},
			short([]product{{70, 512, 1024}, {129, 272, 4096}, {300, 1024, 2048}}, []product{{70, 144, 160}, {129, 144, 96}, {290, 32, 64}})...) {
			for _, out := range []outcome{store, add, swiglu} {
				for _, normed := range []bool{false, true} {
					what := fmt.Sprintf("case %d: %v, %s, normed %v", i, s, out, normed)
					b.product8(what+", int8 by gemm", s.tokens, s.rows, s.cols, out, normed, tensor.ActivationsInt8, false)
					if b.g.lt == nil {
						continue
					}
					b.product8(what+", int8 by cuBLASLt", s.tokens, s.rows, s.cols, out, normed, tensor.ActivationsInt8, true)
					if b.g.lt.desc[typeE4M3] != 0 && b.g.major == 9 {
						b.product8(what+", float8", s.tokens, s.rows, s.cols, out, normed, tensor.ActivationsFP8, true)
					}
				}
			}
		}
	})
}

// e4m3 is the nearest float8 number.
func e4m3(v float64) float64 {
	one := math.Exp2(max(-6, math.Floor(math.Log2(math.Abs(v)))) - 3)
	return max(-448, min(448, math.RoundToEven(v/one)*one))
}

func (b *bench) product8(what string, tokens, rows, cols int, out outcome, normed bool, kind tensor.Activations, lt bool) {
	b.t.Helper()
	top, rounded, widest, far := float32(127), math.RoundToEven, 1.0, 0.05 // widest is the largest step between numbers
	if kind == tensor.ActivationsFP8 {
		top, rounded, widest, far = 448, e4m3, 32, 0.1
	}
	all := rows
	if out == swiglu {
		all = 2 * rows
	}
	m := &matrix{rows: all, cols: cols, data: b.up16(b.noise(all*cols, 1/math.Sqrt(float64(cols)), true))}
	p := &program{m: b.m, g: b.g, n: tensor.Net{Epsilon: 1e-5}, work: b.poisoned(ltWorkspace)}
	b.on(func() error { return b.m.narrow(m) })
	q, scale := b.down(m.data, all*cols), b.down32(m.scale, all)
	w, exactly := make([]float64, all*cols), make([]float64, all*cols) // as multiplied, and as int8 has them
	for i := range w {
		exactly[i] = float64(int8(q[i]))
		w[i] = exactly[i]
		if kind == tensor.ActivationsFP8 {
			w[i] = e4m3(w[i])
		}
	}
	if kind == tensor.ActivationsFP8 {
		m.float8 = b.poisoned(all * cols)
		b.on(func() error { p.float8(m); return nil })
	}
	x, norm := b.noise(tokens*cols, 1, !normed), b.noise(cols, 1, false)
	exact, in := make([]float64, tokens*cols), make([]float64, tokens*cols) // in is exact, rounded
	for t := range tokens {
		row := slices.Clone(x[t*cols : (t+1)*cols])
		var squares float64
		var largest float32
		for k, v := range row {
			squares += float64(v) * float64(v)
			if normed {
				row[k] *= norm[k]
			}
			largest = max(largest, row[k], -row[k])
		}
		one := 1.0
		if normed {
			one = 1 / math.Sqrt(squares/float64(cols)+1e-5)
		}
		for k, v := range row { // in float32, so that ties round in the same way
			exact[t*cols+k] = float64(v) * one
			in[t*cols+k] = rounded(float64(v*(top/largest))) * float64(largest) / float64(top) * one
		}
	}
	size := padded(tokens)
	before := b.noise(size*rows, 1, false)
	want, unrounded := make([]float64, tokens*rows), make([]float64, tokens*rows)
	inParallel(rows, func(r int) {
		for t := range tokens {
			of := func(in, w []float64) float64 {
				dot := func(r int) (sum float64) {
					for k := range cols {
						sum += in[t*cols+k] * w[r*cols+k]
					}
					return sum * float64(scale[r])
				}
				switch v := dot(r); out {
				case add:
					return v + float64(before[t*rows+r])
				case swiglu:
					return v / (1 + math.Exp(-v)) * dot(r+rows)
				default:
					return v
				}
			}
			want[t*rows+r], unrounded[t*rows+r] = of(in, w), of(exact, exactly)
		}
	})
	p.sums, p.spare = int64(4*size*all), int64(4*size*all)
	p.h, p.scales, p.gu, p.logits = b.poisoned(size*cols), b.poisoned(4*size), b.poisoned(int(p.sums)), b.poisoned(int(p.spare))
	y := b.poisoned(4 * size * rows)
	if out == add {
		y = b.up32(before)
	}
	xs, v := b.up16(x), (*vector)(nil)
	if normed {
		xs, v = b.up32(x), &vector{cols, b.up32(norm)}
	}
	with := b.g.lt
	if !lt {
		b.g.lt = nil
	}
	defer func() { b.g.lt = with }()
	multiply := p.multiplyInt8
	if kind == tensor.ActivationsFP8 {
		multiply = p.multiplyFP8
	}
	b.on(func() error { multiply(y, m, xs, v, tokens, out); return errors.Join(b.g.err, b.g.sync()) })
	var got []float32
	allowed := 1e-4 // of sums and scales in float32
	if kind == tensor.ActivationsFP8 {
		allowed = 1e-2 // of sums that tensor cores keep with fewer bits
	}
	switch out {
	case store:
		got, allowed = b.down16(y, tokens*rows), allowed+b.eps()
	case add:
		got = b.down32(y, tokens*rows)
	case swiglu: // 8 bits again
		scales := b.down32(p.scales, tokens)
		for i, q := range b.down(y, tokens*rows) {
			number := float32(int8(q))
			if kind == tensor.ActivationsFP8 {
				number = float32(ofE4M3(q))
			}
			got = append(got, number*scales[i/rows])
		}
		allowed += 4*allowed + 4*b.eps() + 0.51*widest*float64(slices.Max(scales))/4
	}
	b.near(what, got, want, 4, allowed)
	var error2, size2 float64
	for i, v := range unrounded {
		error2, size2 = error2+(float64(got[i])-v)*(float64(got[i])-v), size2+v*v
	}
	if e := math.Sqrt(error2 / size2); tokens > 16 && !(e <= far) {
		b.t.Errorf("%s: 8 bits change the result by %.3g of its size, allowed %.2g", what, e, far)
	} else if tokens == 300 {
		b.t.Logf("%s: 8 bits change the result by %.3g of its size", what, e)
	}
	b.on(func() error {
		for q := range b.m.taken {
			b.m.free(q)
		}
		return nil
	})
}

// ofE4M3 is the number that a byte stands for.
func ofE4M3(q byte) float64 {
	v := math.Ldexp(float64(q&7|8), int(q>>3&15)-10)
	if q>>3&15 == 0 {
		v = math.Ldexp(float64(q&7), -9)
	}
	if q&0x7f == 0x7f {
		return math.NaN()
	}
	return math.Copysign(v, float64(int8(q)))
}

// Norms, RoPE with the write to the cache, and attention by both kernels,
// against float64 on random shapes, with block tables in random order.
func TestAttention(t *testing.T) {
	each(t, func(b *bench) {
		for _, s := range []struct{ heads, kv, dim int }{{4, 4, 16}, {9, 3, 64}, {8, 1, 32}, {32, 8, 64}, {16, 2, 128}, {12, 1, 48}, {4, 2, 256}, {6, 6, 128}} {
			for _, lengths := range append([][]segment{{{0, 1}}, {{300, 1}, {31, 1}}, {{5, 70}}, {{31, 1}, {64, 1}, {300, 1}}},
				short([][]segment{{{700, 1}}, {{0, 5}, {63, 1}, {200, 130}, {16, 16}, {3000, 1}}, {{31, 64}, {0, 200}}, many(100, 571)},
					[][]segment{{{530, 1}}, {{0, 5}, {63, 1}, {20, 70}, {16, 16}, {300, 1}}, {{31, 64}, {0, 70}}, many(40, 71)})...) {
				for _, normed := range []bool{false, true} {
					for _, few := range []bool{false, true} {
						if few && len(lengths) > gemvTokens {
							continue
						}
						b.attention(s.heads, s.kv, s.dim, normed, few, tensor.KVFull, lengths)
						if s.dim == 32 || s.dim == 64 || s.dim == 128 {
							b.attention(s.heads, s.kv, s.dim, normed, few, tensor.KVInt8, lengths)
						}
					}
				}
			}
		}
	})
}

// many is more decoding sequences than have their context split. Their lengths
// are below longest.
func many(n, longest int) (s []segment) {
	for i := range n {
		s = append(s, segment{i * i % longest, 1})
	}
	return s
}

// segment is a sequence's tokens in a step: how many came before, and how many
// are computed.
type segment struct{ before, count int }

func (b *bench) attention(heads, kvHeads, dim int, normed, few bool, stored tensor.KVType, segments []segment) {
	b.t.Helper()
	what := fmt.Sprintf("%d heads, %d KV heads of %d, normed %v, few %v, cache %s, %v", heads, kvHeads, dim, normed, few, stored, segments)
	const size = tensor.BlockSize
	var blocks, tokens int
	for _, s := range segments {
		blocks += (s.before+s.count+size-1)/size + 1
		tokens += s.count
	}
	order := b.rng.Perm(blocks)
	n := blocks * kvHeads * size * dim
	keys, values := b.noise(n, 1, true), b.noise(n, 1, true)
	all := heads + 2*kvHeads
	qkv := b.noise(tokens*all*dim, 1, true)
	bias, qNorm, kNorm := b.noise(all*dim, 0.3, false), b.noise(dim, 1, false), b.noise(dim, 1, false)
	freqs := make([]float32, dim/2)
	for i := range freqs {
		freqs[i] = float32(math.Pow(10000, -2*float64(i)/float64(dim)))
	}
	var step tensor.Step
	for _, s := range segments {
		table := make([]int32, (s.before+s.count+size-1)/size)
		for i := range table {
			table[i] = int32(order[0])
			order = order[1:]
		}
		for p := s.before; p < s.before+s.count; p++ {
			step.Tokens = append(step.Tokens, 0)
			step.Positions = append(step.Positions, int32(p))
			step.Slots = append(step.Slots, table[p/size]*size+int32(p%size))
			step.Tables = append(step.Tables, table)
		}
	}
	p := &program{m: b.m, g: b.g, n: tensor.Net{Attention: tensor.Attention{Heads: heads, KVHeads: kvHeads, HeadDim: dim}, Epsilon: 1e-5, Rotation: tensor.Rotation{Inverse: freqs, Halves: b.rng.IntN(2) == 0}}}
	p.freqs, p.qkv, p.attended = b.up32(freqs), b.up16(qkv), b.poisoned(2*tokens*heads*dim)
	stretches := 2 * b.g.SMs
	p.partial, p.done = b.poisoned(stretches*8*(dim+2)*4), b.up(make([]byte, 4*stretches))
	cache := &kv{}
	if stored == tensor.KVInt8 {
		cache.keys, cache.keyScales = b.up8(keys, dim)
		cache.values, cache.valueScales = b.up8(values, dim)
	} else {
		cache.keys, cache.values = b.up16(keys), b.up16(values)
	}
	l := layer{bias: b.up32(bias)}
	if normed {
		l.qNorm, l.kNorm = b.up32(qNorm), b.up32(kNorm)
	}
	b.on(func() error {
		if err := p.in.room(b.m, tokens, len(segments)+1, blocks); err != nil {
			return err
		}
		p.in.host = make([]int32, p.in.words)
		pl, err := p.in.write(step, nil, p.flash())
		if err != nil {
			return err
		}
		b.g.d.toDevice(p.in.device, unsafe.Pointer(&p.in.host[0]), uint64(4*p.in.used), b.g.stream)
		if few {
			p.few(pl)
			defer func() { b.g.slot = 0 }()
		}
		p.ropeStore(pl, 0, l, cache)
		p.attend(pl, 0, cache)
		return b.g.sync()
	})
	// The reference: rows with bias, norm and RoPE, rounded as they are stored.
	row := func(t, h int) []float32 {
		v := make([]float64, dim)
		var squares float64
		for d := range v {
			v[d] = float64(qkv[(t*all+h)*dim+d]) + float64(bias[h*dim+d])
			squares += v[d] * v[d]
		}
		out := make([]float32, dim)
		norm := qNorm
		if h >= heads {
			norm = kNorm
		}
		if h < heads+kvHeads {
			if normed {
				inverse := 1 / math.Sqrt(squares/float64(dim)+1e-5)
				for d := range v {
					v[d] *= inverse * float64(norm[d])
				}
			}
			turned := make([]float64, dim)
			for i := range dim / 2 {
				x, y := 2*i, 2*i+1
				if p.n.Rotation.Halves {
					x, y = i, i+dim/2
				}
				sin, cos := math.Sincos(float64(step.Positions[t]) * float64(freqs[i]))
				turned[x], turned[y] = v[x]*cos-v[y]*sin, v[x]*sin+v[y]*cos
			}
			v = turned
		}
		for d := range v {
			out[d] = float32(v[d])
		}
		return b.unpack(b.pack(out))
	}
	for t, slot := range step.Slots {
		for h := range kvHeads {
			at := ((int(slot)/size*kvHeads+h)*size + int(slot)%size) * dim
			copy(keys[at:at+dim], row(t, heads+h))
			copy(values[at:at+dim], row(t, heads+kvHeads+h))
		}
	}
	wide := func(v []float32) []float64 {
		w := make([]float64, len(v))
		for i := range v {
			w[i] = float64(v[i])
		}
		return w
	}
	if stored == tensor.KVInt8 {
		// Each stored number is within half a step of its value. Attention uses
		// the stored numbers.
		b.near8(what+": keys", cache.keys, cache.keyScales, keys, dim)
		b.near8(what+": values", cache.values, cache.valueScales, values, dim)
	} else {
		b.near(what+": keys", b.down16(cache.keys, n), wide(keys), 4, 2*b.eps()+1e-3)
		b.near(what+": values", b.down16(cache.values, n), wide(values), 4, 2*b.eps())
	}
	want := make([]float64, tokens*heads*dim)
	inParallel(tokens, func(t int) {
		for h := range heads {
			q := row(t, h)
			at := func(pos int) int {
				return ((int(step.Tables[t][pos/size])*kvHeads+h/(heads/kvHeads))*size + pos%size) * dim
			}
			n := int(step.Positions[t]) + 1
			score, top := make([]float64, n), math.Inf(-1)
			for pos := range score {
				for d, k := range keys[at(pos) : at(pos)+dim] {
					score[pos] += float64(q[d]) * float64(k)
				}
				score[pos] /= math.Sqrt(float64(dim))
				top = max(top, score[pos])
			}
			var total float64
			sum := make([]float64, dim)
			for pos := range score {
				e := math.Exp(score[pos] - top)
				total += e
				for d, v := range values[at(pos) : at(pos)+dim] {
					sum[d] += e * float64(v)
				}
			}
			for d := range sum {
				want[(t*heads+h)*dim+d] = sum[d] / total
			}
		}
	})
	// Queries and keys may round differently from the reference, which shows in
	// a score over many dimensions.
	b.near(what+": attention", b.down16(p.attended, len(want)), want, 4, 6*b.eps()+1e-3)
	b.on(func() error {
		for q := range b.m.taken {
			b.m.free(q)
		}
		return nil
	})
}

// The product for queries, keys and values, including RoPE and storing, against
// float64.
func TestTurn(t *testing.T) {
	each(t, func(b *bench) {
		for _, s := range []struct{ tokens, heads, kv, dim, cols int }{{1, 32, 8, 64, 256}, {2, 32, 8, 64, 256}, {1, 9, 3, 64, 576}, {2, 4, 2, 128, 80}, {1, 6, 1, 48, 272}} {
			for _, quantized := range []bool{false, true} {
				for _, halves := range []bool{false, true} {
					b.turn(s.tokens, s.heads, s.kv, s.dim, s.cols, quantized, halves)
				}
			}
		}
	})
}

func (b *bench) turn(tokens, heads, kvHeads, dim, cols int, quantized, halves bool) {
	b.t.Helper()
	what := fmt.Sprintf("%d tokens, %d heads, %d KV heads of %d, %d columns, int8 %v, halves %v", tokens, heads, kvHeads, dim, cols, quantized, halves)
	rows := (heads + 2*kvHeads) * dim
	w, x, norm, bias := b.noise(rows*cols, 1/math.Sqrt(float64(cols)), true), b.noise(tokens*cols, 1, false), b.noise(cols, 1, false), b.noise(rows, 0.3, false)
	m := &matrix{rows: rows, cols: cols, data: b.up16(w)}
	if quantized {
		b.on(func() error { return b.m.narrow(m) })
		q, scale := b.down(m.data, rows*cols), b.down32(m.scale, rows)
		for i := range w {
			w[i] = float32(int8(q[i])) * scale[i/cols]
		}
	}
	freqs := make([]float32, dim/2)
	for i := range freqs {
		freqs[i] = float32(math.Pow(10000, -2*float64(i)/float64(dim)))
	}
	p := &program{m: b.m, g: b.g, n: tensor.Net{Attention: tensor.Attention{Heads: heads, KVHeads: kvHeads, HeadDim: dim}, Epsilon: 1e-5, Rotation: tensor.Rotation{Inverse: freqs, Halves: halves}}}
	p.freqs, p.x, p.qkv = b.up32(freqs), b.up32(x), b.poisoned(2*tokens*rows)
	l := layer{qkv: m, bias: b.up32(bias), attnNorm: &vector{cols, b.up32(norm)}}
	const blocks = 4
	n := blocks * tensor.BlockSize * kvHeads * dim
	cache := &kv{keys: b.poisoned(2 * n), values: b.poisoned(2 * n)}
	step := tensor.Step{Tokens: make([]int32, tokens)}
	for i := range tokens {
		step.Positions, step.Slots, step.Tables = append(step.Positions, int32(17+20*i)), append(step.Slots, int32(tensor.BlockSize*(3-i)+5)), append(step.Tables, []int32{0, 1, 2, 3}[:3-i])
	}
	b.on(func() error {
		if err := p.in.room(b.m, tokens, tokens, blocks); err != nil {
			return err
		}
		p.in.host = make([]int32, p.in.words)
		pl, err := p.in.write(step, nil, true)
		if err != nil {
			return err
		}
		b.g.d.toDevice(p.in.device, unsafe.Pointer(&p.in.host[0]), uint64(4*p.in.used), b.g.stream)
		if !p.turns(pl, l, cache) {
			return errors.New("this product does not turn")
		}
		p.turn(pl, 0, l, cache)
		return b.g.sync()
	})
	qkv, keys, values := b.down16(p.qkv, tokens*rows), b.down16(cache.keys, n), b.down16(cache.values, n)
	var got []float32
	var want []float64
	for t := range tokens {
		var squares float64
		for _, v := range x[t*cols : (t+1)*cols] {
			squares += float64(v) * float64(v)
		}
		inverse := 1 / math.Sqrt(squares/float64(cols)+1e-5)
		out := make([]float64, rows)
		for r := range out {
			for k := range cols {
				out[r] += float64(x[t*cols+k]) * inverse * float64(norm[k]) * float64(w[r*cols+k])
			}
			out[r] += float64(bias[r])
		}
		for h := range heads + kvHeads {
			for i := range dim / 2 {
				x, y := h*dim+2*i, h*dim+2*i+1
				if halves {
					x, y = h*dim+i, h*dim+i+dim/2
				}
				sin, cos := math.Sincos(float64(step.Positions[t]) * float64(freqs[i]))
				out[x], out[y] = out[x]*cos-out[y]*sin, out[x]*sin+out[y]*cos
			}
		}
		got, want = append(got, qkv[t*rows:t*rows+heads*dim]...), append(want, out...)
		for h := range 2 * kvHeads {
			stored, at := keys, ((int(step.Slots[t])/tensor.BlockSize*kvHeads+h%kvHeads)*tensor.BlockSize+int(step.Slots[t])%tensor.BlockSize)*dim
			if h >= kvHeads {
				stored = values
			}
			got = append(got, stored[at:at+dim]...)
		}
	}
	b.near(what, got, want, 4, 2*(1e-4+3*b.eps()))
	b.on(func() error {
		for q := range b.m.taken {
			b.m.free(q)
		}
		return nil
	})
}

// up8 copies rows to the device as int8 + 128 with their scales. It replaces v
// with the values that they represent.
func (b *bench) up8(v []float32, dim int) (data, scales ptr) {
	q, scale := make([]byte, len(v)), make([]float32, len(v)/dim)
	for r := range scale {
		row := v[r*dim : (r+1)*dim]
		for _, x := range row {
			scale[r] = max(scale[r], float32(math.Abs(float64(x)))/127)
		}
		for i, x := range row {
			q[r*dim+i] = byte(int(math.RoundToEven(float64(x/scale[r]))) + 128)
			row[i] = float32(int(q[r*dim+i])-128) * scale[r]
		}
	}
	return b.up(q), b.up32(scale)
}

// near8 fails if a stored number differs from the wanted one by more than half
// a step and the rounding of 16 bits. It replaces want with the stored values.
func (b *bench) near8(what string, data, scales ptr, want []float32, dim int) {
	b.t.Helper()
	q, scale := b.down(data, len(want)), b.down32(scales, len(want)/dim)
	for i := range want {
		got := float32(int(q[i])-128) * scale[i/dim]
		if d := math.Abs(float64(got - want[i])); !(d <= 0.51*float64(scale[i/dim])+4*(2*b.eps()+1e-3)) {
			b.t.Fatalf("%s: element %d of %d is %v, want %v within half of %v", what, i, len(want), got, want[i], scale[i/dim])
		}
		want[i] = got
	}
}

// Greedy picks the first of the largest logits. Draws are as frequent as their
// probabilities, and never outside the tokens that top-k, top-p and min-p keep.
func TestPick(t *testing.T) {
	g := gpu(t)
	m := g.NewModel()
	m.half = "f16"
	defer m.Close()
	b := &bench{t: t, g: g, m: m, half: "f16", rng: rand.New(rand.NewPCG(3, 4))}
	for _, vocab := range []int{1, 31, 1000, 128256} {
		logits := b.noise(vocab, 3, false)
		best := 0
		for i, l := range logits {
			if l > logits[best] {
				best = i
			}
		}
		if vocab > 40 {
			logits[best/2], logits[40] = logits[best], logits[best] // ties: the first wins
			best = min(best/2, best, 40)
		}
		const rows = 512
		for _, p := range []tensor.Pick{{}, {Temperature: 1}, {Temperature: 0.7, TopK: 5}, {Temperature: 1.3, TopP: 0.5}, {Temperature: 1, MinP: 0.2}, {Temperature: 0.9, TopK: 50, TopP: 0.9, MinP: 0.01}} {
			many := make([]float32, 0, rows*vocab)
			if vocab > 1000 {
				many = make([]float32, 0, 8*vocab)
			}
			n := cap(many) / vocab
			var in input
			in.host = make([]int32, n*pickWords)
			for r := range n {
				many = append(many, logits...)
				q := p
				q.At = (float32(r) + 0.5) / float32(n)
				in.pick(r, q)
			}
			ids, at, picks := b.poisoned(4*n), b.up32(many), b.ints(in.host)
			b.launch("pick", grid{x: n, y: 1, threads: 1024}, ids, at, picks, vocab)
			raw := b.down(ids, 4*n)
			got := make([]int32, n)
			copy(bytesOf(got), raw)
			chance := reference(logits, p)
			seen := make([]float64, vocab)
			for _, id := range got {
				if id < 0 || int(id) >= vocab || chance[id] == 0 {
					t.Fatalf("vocabulary of %d, %+v: picked %d, whose chance is 0", vocab, p, id)
				}
				seen[id] += 1 / float64(n)
			}
			if p.Temperature == 0 && got[0] != int32(best) {
				t.Errorf("greedy picked %d, want %d", got[0], best)
			}
			for id := range seen { // draws are evenly spaced, so that each has its share
				if math.Abs(seen[id]-chance[id]) > 1.5/float64(n)+1e-3 {
					t.Errorf("vocabulary of %d, %+v: token %d came %.4f of the times, want %.4f", vocab, p, id, seen[id], chance[id])
					break
				}
			}
			b.on(func() error {
				for q := range b.m.taken {
					b.m.free(q)
				}
				return nil
			})
		}
	}
}

// reference is the probability of each token.
func reference(logits []float32, p tensor.Pick) []float64 {
	chance := make([]float64, len(logits))
	top := float64(logits[0])
	for _, l := range logits {
		top = max(top, float64(l))
	}
	if p.Temperature == 0 {
		for i, l := range logits {
			if float64(l) == top {
				chance[i] = 1
				break
			}
		}
		return chance
	}
	order := make([]int, len(logits))
	for i, l := range logits {
		order[i] = i
		chance[i] = math.Exp((float64(l) - top) / float64(p.Temperature))
	}
	sortBy(order, chance)
	keep := len(order)
	if p.TopK > 0 {
		keep = min(keep, p.TopK)
		for keep < len(order) && chance[order[keep]] == chance[order[keep-1]] {
			keep++
		}
	}
	var total, sum float64
	for _, id := range order[:keep] {
		total += chance[id]
	}
	least := float64(p.MinP)
	if p.TopP > 0 && p.TopP < 1 {
		for _, id := range order[:keep] {
			if sum += chance[id]; sum >= float64(p.TopP)*total {
				least = max(least, chance[id])
				break
			}
		}
	}
	total = 0
	for i, id := range order {
		if i >= keep || chance[id] < least*(1-1e-6) {
			chance[id] = 0
		}
		total += chance[id]
	}
	for i := range chance {
		chance[i] /= total
	}
	return chance
}

func sortBy(order []int, chance []float64) {
	slices.SortFunc(order, func(a, b int) int {
		switch {
		case chance[a] > chance[b]:
			return -1
		case chance[a] < chance[b]:
			return 1
		}
		return a - b
	})
}
