//go:build linux

package cuda

import (
	"errors"
	"fmt"
	"math"
	"testing"
	"time"
	"unsafe"

	"github.com/launchgate/launchgate/reference-server/tensor"
)

// shape is the shape of a model with random weights.
type shape struct {
	name                                           string
	width, layers, heads, kv, dim, ffn, vocabulary int
	tied                                           bool
}

var shapes = []shape{
	{"1.2B", 2048, 16, 32, 8, 64, 8192, 128256, true},
	{"8B", 4096, 32, 32, 8, 128, 14336, 128256, false},
}

// random makes a program of a shape with random weights, which are generated on
// the device.
func (s shape) random(b testing.TB, m *Model, quantized bool, tokens, outputs int) (*program, int64) {
	var bytes int64
	matrix := func(rows, cols int) tensor.Matrix {
		w := &matrix{rows: rows, cols: cols}
		err := m.g.do(func() (err error) {
			if w.data, err = m.alloc(w.dataBytes()); err != nil {
				return err
			}
			m.g.launch("randomize_"+m.half, grid{x: 1024, y: 1, threads: 256}, w.data, int64(rows)*int64(cols), rows*31+cols, float32(1/math.Sqrt(float64(cols))))
			if quantized {
				return m.narrow(w)
			}
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
		bytes += w.Bytes()
		return w
	}
	norm := func() tensor.Vector {
		ones := make([]float32, s.width)
		for i := range ones {
			ones[i] = 1
		}
		v, err := m.LoadVector(tensor.Stored{Rows: 1, Cols: s.width, Type: tensor.F32, Data: bytesOf(ones)})
		if err != nil {
			b.Fatal(err)
		}
		return v
	}
	n := tensor.Net{
		Embedding: matrix(s.vocabulary, s.width), OutputNorm: norm(), Width: s.width, FFN: s.ffn, Vocab: s.vocabulary, Context: 4096,
		Attention: tensor.Attention{Heads: s.heads, KVHeads: s.kv, HeadDim: s.dim}, Epsilon: 1e-5, Tokens: tokens, Outputs: outputs, Spare: 20 << 30,
	}
	n.Output = n.Embedding
	if !s.tied {
		before := bytes
		n.Output = matrix(s.vocabulary, s.width)
		bytes = before + n.Output.(interface{ Bytes() int64 }).Bytes() - n.Embedding.Bytes() // a step reads one row of the embedding
	}
	for i := range s.dim / 2 {
		n.Rotation.Inverse = append(n.Rotation.Inverse, float32(math.Pow(500000, -2*float64(i)/float64(s.dim))))
	}
	for range s.layers {
		n.Layers = append(n.Layers, tensor.NetLayer{
			AttnNorm: norm(), FFNNorm: norm(), Q: matrix(s.heads*s.dim, s.width), K: matrix(s.kv*s.dim, s.width), V: matrix(s.kv*s.dim, s.width),
			O: matrix(s.width, s.heads*s.dim), Gate: matrix(s.ffn, s.width), Up: matrix(s.ffn, s.width), Down: matrix(s.width, s.ffn),
		})
	}
	p, err := m.Compile(n)
	if err != nil {
		b.Fatal(err)
	}
	return p.(*program), bytes
}

// macs of a token, without attention and the output.
func (s shape) macs() float64 {
	return float64(s.layers) * float64(s.width) * float64((s.heads+2*s.kv)*s.dim+s.heads*s.dim+3*s.ffn)
}

// decoding is a step that decodes n sequences with so much context.
func decoding(n, context int) tensor.Step {
	var s tensor.Step
	per := context/tensor.BlockSize + 1
	for i := range n {
		table := make([]int32, per)
		for j := range table {
			table[j] = int32(i*per + j)
		}
		s.Tokens, s.Positions, s.Tables = append(s.Tokens, int32(i*101)), append(s.Positions, int32(context)), append(s.Tables, table)
		s.Slots, s.Outputs = append(s.Slots, table[context/tensor.BlockSize]*tensor.BlockSize+int32(context%tensor.BlockSize)), append(s.Outputs, int32(i))
	}
	return s
}

// prompts are steps that compute n tokens of a prompt.
func prompt(n int) tensor.Step {
	var s tensor.Step
	table := make([]int32, n/tensor.BlockSize+1)
	for j := range table {
		table[j] = int32(j)
	}
	for i := range n {
		s.Tokens, s.Positions, s.Slots, s.Tables = append(s.Tokens, int32(i*37%100000)), append(s.Positions, int32(i)), append(s.Slots, int32(i)), append(s.Tables, table)
	}
	s.Outputs = []int32{int32(n - 1)}
	return s
}

// elapsed is the time of one call in seconds by the device's own clock: the
// shortest of a few rounds.
func elapsed(b testing.TB, g *GPU, times int, f func() error) float64 {
	best := math.Inf(1)
	for range 5 {
		var from, to uintptr
		var ms float32
		mark := func(e *uintptr) {
			if err := g.do(func() error {
				g.d.eventCreate(e, 0)
				return g.d.check("cuEventRecord", g.d.eventRecord(*e, g.stream))
			}); err != nil {
				b.Fatal(err)
			}
		}
		mark(&from)
		for range times {
			if err := f(); err != nil {
				b.Fatal(err)
			}
		}
		mark(&to)
		if err := g.do(func() error {
			if err := g.sync(); err != nil {
				return err
			}
			return g.d.check("cuEventElapsedTime", g.d.eventElapsed(&ms, from, to))
		}); err != nil {
			b.Fatal(err)
		}
		best = min(best, float64(ms)/1000/float64(times))
	}
	return best
}

// kept begins one step at each call and keeps two under way, as the engine
// does.
func (p *program) kept(step tensor.Step, cache tensor.KV, picks []tensor.Pick) func() error {
	return func() error {
		if p.started-p.awaited == 2 {
			if _, err := p.Wait(); err != nil {
				return err
			}
		}
		return p.Start(step, cache, picks)
	}
}

func (p *program) drain(b *testing.B) {
	for p.awaited < p.started {
		if _, err := p.Wait(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkShapes measures steps of real shapes against the device's own limits,
// measured in the same run: weights read at the speed of a copy, products at
// that of cuBLASLt on 8192×8192×8192.
func BenchmarkShapes(b *testing.B) {
	g := gpu(b)
	copySpeed, peak := g.limits(b)
	fmt.Printf("%s: a copy moves %.3g TB/s, a matrix product makes %.4g TFLOP/s\n", g.Describe(), copySpeed/1e12, peak/1e12)
	for _, s := range shapes {
		for _, quantized := range []bool{false, true} {
			for _, stored := range []tensor.KVType{tensor.KVFull, tensor.KVInt8} {
				b.Run(fmt.Sprintf("%s/int8=%v/kv=%s", s.name, quantized, stored), func(b *testing.B) {
					for b.Loop() {
						s.measure(b, g, quantized, stored, copySpeed, peak)
					}
				})
			}
		}
	}
}

// BenchmarkProfile computes a few steps once each, for a profiler to look at:
//
//	ncu --clock-control none --metrics gpu__time_duration.sum bin/cuda.test -test.run '^$' -test.bench Profile -test.benchtime 1x
func BenchmarkProfile(b *testing.B) {
	g := gpu(b)
	for _, s := range shapes {
		for _, quantized := range []bool{false, true} {
			b.Run(fmt.Sprintf("%s/int8=%v", s.name, quantized), func(b *testing.B) {
				m := g.NewModel()
				m.half = "bf16"
				defer m.Close()
				p, _ := s.random(b, m, quantized, 2048, 256)
				cache, err := m.NewKV(tensor.KVFull, 256*32, s.layers, s.kv, s.dim)
				if err != nil {
					b.Fatal(err)
				}
				for range 2 { // the first plans, and records graphs
					for _, step := range []tensor.Step{decoding(1, 300), decoding(64, 300), decoding(256, 300), prompt(2048)} {
						err := p.Start(step, cache, make([]tensor.Pick, len(step.Outputs)))
						if err == nil {
							_, err = p.Wait()
						}
						if err != nil {
							b.Fatal(err)
						}
					}
				}
			})
		}
	}
}

// BenchmarkActivations measures prompts of int8 weights with activations of 16 bits,
// int8 and float8: from what width on int8 is faster is eightWidth.
func BenchmarkActivations(b *testing.B) {
	g := gpu(b)
	for _, s := range shapes {
		b.Run(s.name, func(b *testing.B) {
			m := g.NewModel()
			m.half = "bf16"
			defer m.Close()
			p, _ := s.random(b, m, true, 2048, 256)
			cache, err := m.NewKV(tensor.KVFull, 256, s.layers, s.kv, s.dim)
			if err != nil {
				b.Fatal(err)
			}
			kinds := []tensor.Activations{tensor.Activations16, tensor.ActivationsInt8, tensor.ActivationsFP8}
			p.n.Activations = tensor.ActivationsFP8
			if err := g.do(p.float8All); err != nil {
				b.Log(err)
				kinds = kinds[:2]
			}
			for _, n := range []int{32, 64, 128, 256, 512, 1024, 2048} {
				var line string
				for _, p.n.Activations = range kinds {
					run := p.kept(prompt(n), cache, []tensor.Pick{{}})
					for range 2 {
						if err := run(); err != nil {
							b.Fatal(err)
						}
					}
					line += fmt.Sprintf(", %s %.3f ms", p.n.Activations, 1e3*elapsed(b, g, 5, run))
					p.drain(b)
				}
				b.Logf("%-4s prompt of %4d%s", s.name, n, line)
			}
		})
	}
}

// BenchmarkProducts measures cuBLASLt's products of a layer in bfloat16, int8
// and float8, with faster and with exact sums.
func BenchmarkProducts(b *testing.B) {
	g := gpu(b)
	if g.lt == nil {
		b.Skipf("skipped: %v", g.noLt)
	}
	m := g.NewModel()
	m.half = "bf16"
	defer m.Close()
	var x, w, y, work, scales ptr
	if err := g.do(func() (err error) {
		for _, a := range []struct {
			to    *ptr
			bytes int64
		}{{&x, 2048 * 14336 * 2}, {&w, 28672 * 4096 * 2}, {&y, 2048 * 28672 * 4}, {&work, ltWorkspace}, {&scales, 28672 * 4}} {
			if *a.to, err = m.alloc(a.bytes); err != nil {
				return err
			}
		}
		g.lt.scale(scales, scales)
		return nil
	}); err != nil {
		b.Fatal(err)
	}
	exact, no := g.lt.desc[typeE4M3], int8(0)
	kinds := []struct {
		name      string
		kind, out int32
	}{{"bfloat16", typeBF16, typeBF16}, {"int8", typeI8, typeI32}, {"float8", typeE4M3, typeBF16}, {"float8, exact sums", typeE4M3, typeBF16}}
	for _, k := range kinds {
		random := func(to ptr, n int64) error { // distributed like activations and weights, because the values affect the clock
			g.launch("randomize_bf16", grid{x: 1024, y: 1, threads: 256}, y, n, 1, float32(1))
			switch row := (grid{x: int(n / 4096), y: 1, threads: 256}); k.kind {
			case typeBF16:
				return g.d.check("copy", g.d.within(to, y, uint64(2*n), g.stream))
			case typeI8:
				g.launch("narrow_i8_bf16", row, to, scales, y, 4096)
			default:
				g.launch("narrow_f8_bf16", row, to, scales, y, 4096)
			}
			return nil
		}
		if err := g.do(func() error { return errors.Join(random(w, 28672*4096), random(x, 2048*14336), g.sync()) }); err != nil {
			b.Fatal(err)
		}
		if g.lt.plans = map[ltShape]*ltPlan{}; k.name == "float8, exact sums" {
			g.lt.setDesc(exact, 25, unsafe.Pointer(&no), 1)
		}
		for _, s := range shapes {
			for _, tokens := range []int{128, 512, 2048} {
				line, whole := "", 0.0
				for _, p := range []struct {
					name       string
					rows, cols int
				}{{"qkv", (s.heads + 2*s.kv) * s.dim, s.width}, {"o", s.width, s.heads * s.dim}, {"gate and up", 2 * s.ffn, s.width}, {"down", s.width, s.ffn}} {
					const times = 20
					took := 1. / times * elapsed(b, g, 1, func() error {
						return g.do(func() error {
							for range times {
								if !g.lt.multiply(g, ltShape{kind: k.kind, out: k.out, rows: p.rows, cols: p.cols, tokens: tokens}, y, w, x, false, work, y, 2048*28672*4) {
									return fmt.Errorf("cuBLASLt has no %s", k.name)
								}
							}
							return nil
						})
					})
					whole += took
					line += fmt.Sprintf(", %s %.0f", p.name, 2*float64(tokens)*float64(p.rows)*float64(p.cols)/took/1e12)
				}
				b.Logf("%-4s %4d tokens, %s: %.3f ms a layer; TFLOP/s%s", s.name, tokens, k.name, whole*1e3, line[1:])
			}
		}
	}
}

func (g *GPU) limits(b testing.TB) (copySpeed, peak float64) {
	m := g.NewModel()
	m.half = "bf16"
	defer m.Close()
	const n, side = 4 << 30, 8192
	var from, to, work ptr
	if err := g.do(func() (err error) {
		if from, err = m.alloc(n); err == nil {
			if to, err = m.alloc(n); err == nil {
				work, err = m.alloc(ltWorkspace)
			}
		}
		g.launch("randomize_bf16", grid{x: 1024, y: 1, threads: 256}, from, int64(n/2), 1, float32(1))
		return err
	}); err != nil {
		b.Fatal(err)
	}
	copySpeed = 2 * n / elapsed(b, g, 5, func() error {
		return g.do(func() error { return g.d.check("copy", g.d.within(to, from, n, g.stream)) })
	})
	p := &program{m: m, g: g, work: work, logits: to, spare: n}
	peak = 2 * side * side * side / elapsed(b, g, 10, func() error {
		return g.do(func() error { p.product(to, from, from.plus(2*side*side), side, side, side, store); return nil })
	})
	return copySpeed, peak
}

func (s shape) measure(b *testing.B, g *GPU, quantized bool, stored tensor.KVType, copySpeed, peak float64) {
	m := g.NewModel()
	m.half = "bf16"
	defer m.Close()
	p, bytes := s.random(b, m, quantized, 2048, 256)
	cache, err := m.NewKV(stored, 256*32, s.layers, s.kv, s.dim)
	if err == nil {
		began := time.Now()
		err = p.Warm(cache)
		b.Logf("%-4s int8=%-5v kv=%-4s warm after %.2f s", s.name, quantized, stored, time.Since(began).Seconds())
	}
	if err != nil {
		b.Fatal(err)
	}
	for _, c := range []struct{ streams, context int }{{1, 300}, {2, 300}, {4, 300}, {16, 300}, {32, 300}, {64, 300}, {256, 300}, {1, 4000}, {64, 2000}} {
		streams := c.streams
		step := decoding(streams, c.context)
		picks := make([]tensor.Pick, streams)
		run := p.kept(step, cache, picks)
		for range 2 {
			if err := run(); err != nil {
				b.Fatal(err)
			}
		}
		began := time.Now()
		took := elapsed(b, g, 20, run)
		whole := time.Since(began).Seconds() / 100
		p.drain(b)
		keys := float64(streams) * float64(c.context+1) * float64(s.layers*s.kv*2*stored.Bytes(s.dim, 2))
		floor := max((float64(bytes)+keys)/copySpeed, float64(streams)*2*(s.macs()+float64(s.vocabulary*s.width))/peak)
		b.Logf("%-4s int8=%-5v kv=%-4s decode %3d streams of %4d: %8.1f tokens/s, step %.3f ms on the device (%.3f a step begun), floor %.3f ms: %.0f %%",
			s.name, quantized, stored, streams, c.context, float64(streams)/whole, took*1e3, whole*1e3, floor*1e3, 100*floor/took)
	}
	for _, n := range []int{512, 2048} {
		step := prompt(n)
		run := p.kept(step, cache, []tensor.Pick{{}})
		for range 2 {
			if err := run(); err != nil {
				b.Fatal(err)
			}
		}
		took := elapsed(b, g, 5, run)
		p.drain(b)
		flops := 2*s.macs()*float64(n) + 2*float64(s.vocabulary*s.width) + 2*float64(n)*float64(n)*float64(s.layers*s.heads*s.dim)
		b.Logf("%-4s int8=%-5v kv=%-4s prompt of %4d: %.3f ms, %.1f TFLOP/s: %.0f %% of the matrix peak", s.name, quantized, stored, n, took*1e3, flops/took/1e12, 100*flops/took/peak)
	}
}
