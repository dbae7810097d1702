package cpu

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/launchgate/launchgate/reference-server/tensor"
)

// noise is n numbers distributed like activations: mostly small, and now and
// then twenty times larger. Uniform noise would hide a lost outlier.
func noise(r *rand.Rand, n int) []float32 {
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(r.NormFloat64())
		if r.IntN(50) == 0 {
			x[i] *= 20
		}
	}
	return x
}

func stored(r *rand.Rand, rows, cols int) tensor.Stored {
	s := tensor.Stored{Name: "w", Type: tensor.F32, Rows: rows, Cols: cols, Data: make([]byte, 4*rows*cols)}
	for i, v := range noise(r, rows*cols) {
		binary.LittleEndian.PutUint32(s.Data[4*i:], math.Float32bits(v/8))
	}
	return s
}

// poisoned is a buffer full of NaN, so that unwritten numbers show.
func poisoned(b *Backend, tokens, width int) *buffer {
	buf, _ := b.NewBuffer(tokens, width)
	d := buf.(*buffer)
	for i := range d.data {
		d.data[i] = float32(math.NaN())
	}
	return d
}

// near fails unless got equals want within the error of a float32 sum: a
// fraction of the largest value.
func near(t *testing.T, what string, got, want []float32, bound float64) {
	t.Helper()
	var top float64
	for _, w := range want {
		top = max(top, math.Abs(float64(w)))
	}
	for i := range want {
		if d := math.Abs(float64(got[i]) - float64(want[i])); !(d <= bound*top) {
			t.Fatalf("%s: element %d is %v, want %v: off by %.2g of the largest, allowed %.2g", what, i, got[i], want[i], d/top, bound)
		}
	}
}

var formats = []tensor.Format{tensor.FormatF32, tensor.FormatF16, tensor.FormatInt8}

// Every kernel set agrees with the plain one, also on shapes that are not
// multiples of a tile.
func TestMatMulAgainstPlain(t *testing.T) {
	shapes := []struct{ rows, cols int }{{1, 16}, {16, 32}, {17, 33}, {31, 64}, {64, 320}, {100, 72}, {333, 896}, {160, 576}}
	for _, set := range available()[1:] {
		for _, f := range formats {
			t.Run(set.name()+"/"+f.String(), func(t *testing.T) {
				r := rand.New(rand.NewPCG(1, uint64(f)))
				for _, sh := range shapes {
					for _, tokens := range []int{1, 2, 3, 4, 5, 9} {
						s, x := stored(r, sh.rows, sh.cols), noise(r, tokens*sh.cols)
						want := multiplied(t, plain{}, s, f, x, tokens, 1)
						got := multiplied(t, set, s, f, x, tokens, 2)
						near(t, fmt.Sprintf("%d×%d, %d tokens", sh.rows, sh.cols, tokens), got, want, 1e-6)
					}
				}
			})
		}
	}
}

func multiplied(t *testing.T, k kernels, s tensor.Stored, f tensor.Format, x []float32, tokens, threads int) []float32 {
	t.Helper()
	b := newWith(k, threads)
	defer b.Close()
	m, err := b.Load(s, f)
	if err != nil {
		t.Fatal(err)
	}
	d := poisoned(b, tokens, s.Rows)
	b.MatMul(d, m, &buffer{data: x, width: s.Cols, rows: tokens})
	return b.Read(d)
}

// A token's result is the same bit for bit in every batch and with any number
// of threads.
func TestMatMulDoesNotDependOnTheBatch(t *testing.T) {
	const rows, cols, tokens = 330, 320, 13
	for _, set := range available() {
		for _, f := range formats {
			t.Run(set.name()+"/"+f.String(), func(t *testing.T) {
				r := rand.New(rand.NewPCG(2, uint64(f)))
				s, x := stored(r, rows, cols), noise(r, tokens*cols)
				all := multiplied(t, set, s, f, x, tokens, 3)
				for i := range tokens {
					alone := multiplied(t, set, s, f, x[i*cols:(i+1)*cols], 1, 1)
					if !slices.Equal(alone, all[i*rows:(i+1)*rows]) {
						t.Fatalf("token %d of %d differs when it is computed alone", i, tokens)
					}
				}
			})
		}
	}
}

// Int8 weights and activations stay close to the exact product, even where one
// number in fifty is an outlier that takes the scale of its group.
func TestInt8IsCloseToExact(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 3))
	s, x := stored(r, 256, 512), noise(r, 4*512)
	exact := multiplied(t, plain{}, s, tensor.FormatF32, x, 4, 1)
	got := multiplied(t, fastest(), s, tensor.FormatInt8, x, 4, 1)
	var off, size float64
	for i := range exact {
		off += math.Pow(float64(got[i]-exact[i]), 2)
		size += math.Pow(float64(exact[i]), 2)
	}
	if rel := math.Sqrt(off / size); rel > 0.02 {
		t.Errorf("the error is %.4f of the result, allowed 0.02", rel)
	}
}

func TestRowsReadBack(t *testing.T) {
	r := rand.New(rand.NewPCG(4, 4))
	s := stored(r, 37, 70)
	b := New(1)
	defer b.Close()
	for _, f := range formats {
		m, err := b.Load(s, f)
		if err != nil {
			t.Fatal(err)
		}
		bound := map[tensor.Format]float64{tensor.FormatF32: 0, tensor.FormatF16: 5e-4, tensor.FormatInt8: 4e-3}[f]
		want, got := make([]float32, 70), make([]float32, 70)
		for row := range 37 {
			s.Row(want, row)
			m.(*matrix).row(got, row)
			near(t, f.String(), got, want, bound)
		}
	}
}

func TestElementwiseAgainstPlain(t *testing.T) {
	for _, set := range available()[1:] {
		t.Run(set.name(), func(t *testing.T) {
			r := rand.New(rand.NewPCG(5, 5))
			x, w := noise(r, 320), noise(r, 320)
			got, want := make([]float32, 320), make([]float32, 320)
			set.rmsNorm(got, x, w, 1e-5)
			plain{}.rmsNorm(want, x, w, 1e-5)
			near(t, "RMSNorm", got, want, 1e-6)

			got, want = slices.Clone(x), slices.Clone(x)
			got[0], want[0], got[1], want[1] = 200, 200, -200, -200 // beyond what e^x can hold
			set.swiglu(got, w)
			plain{}.swiglu(want, w)
			near(t, "SwiGLU", got, want, 1e-6)

			q1, q2 := quantized{make([]int8, 320), make([]float32, 10), make([]int32, 10)}, quantized{make([]int8, 320), make([]float32, 10), make([]int32, 10)}
			clear(x[32:64]) // a group of zeros has the scale zero
			set.quantize(q1.q, q1.scale, q1.off, x)
			plain{}.quantize(q2.q, q2.scale, q2.off, x)
			if !slices.Equal(q1.q, q2.q) || !slices.Equal(q1.scale, q2.scale) || !slices.Equal(q1.off, q2.off) {
				t.Error("int8 activations differ from the plain ones")
			}
		})
	}
}

// Attention over scattered blocks agrees with the plain one for every length
// around the edges of blocks, and each token sees only what is before it.
func TestAttendAgainstPlain(t *testing.T) {
	const heads, kvHeads, dim, layers, blocks = 6, 2, 32, 2, 12
	for _, set := range available()[1:] {
		t.Run(set.name(), func(t *testing.T) {
			var full []float32
			for _, stored := range []tensor.KVType{tensor.KVFull, tensor.KVInt8} {
				got, want := attended(t, set, stored, heads, kvHeads, dim, layers, blocks), attended(t, plain{}, stored, heads, kvHeads, dim, layers, blocks)
				near(t, "attention, cache "+stored.String(), got, want, 2e-6)
				if stored == tensor.KVFull {
					full = want
					continue
				}
				// Half a step of int8 on each key and value: scores move by a few hundredths.
				var off, size float64
				for i := range full {
					off += math.Pow(float64(got[i]-full[i]), 2)
					size += math.Pow(float64(full[i]), 2)
				}
				if rel := math.Sqrt(off / size); rel == 0 || rel > 0.05 {
					t.Errorf("an int8 cache changes attention by %.4f of it, allowed 0.05", rel)
				}
			}
		})
	}
}

func attended(t *testing.T, k kernels, stored tensor.KVType, heads, kvHeads, dim, layers, blocks int) []float32 {
	t.Helper()
	b := newWith(k, 2)
	defer b.Close()
	r := rand.New(rand.NewPCG(6, 6))
	cache, err := b.NewKV(stored, blocks, layers, kvHeads, dim)
	if err != nil {
		t.Fatal(err)
	}
	c := cache.(*kv)
	for i := range c.data {
		c.data[i] = float32(math.NaN()) // reading an unwritten slot gives NaN
	}
	for i := range c.scale {
		c.scale[i] = float32(math.NaN())
	}
	table := []int32{7, 2, 9, 0, 11}
	n := 70
	var step tensor.Step
	for p := range n {
		step.Tokens = append(step.Tokens, 0)
		step.Positions = append(step.Positions, int32(p))
		step.Slots = append(step.Slots, table[p/size]*size+int32(p%size))
		step.Tables = append(step.Tables, table)
	}
	b.Begin(step)
	q := &buffer{data: noise(r, n*heads*dim), width: heads * dim, rows: n}
	d := poisoned(b, n, heads*dim)
	for l := range layers {
		keys := &buffer{data: noise(r, n*kvHeads*dim), width: kvHeads * dim, rows: n}
		values := &buffer{data: noise(r, n*kvHeads*dim), width: kvHeads * dim, rows: n}
		b.Store(cache, l, keys, values)
	}
	// A block is filled before it is read here, but its tail is not.
	b.Attend(d, q, cache, tensor.Attention{Layer: 1, Heads: heads, KVHeads: kvHeads, HeadDim: dim})
	return b.Read(d)
}

func TestRoPE(t *testing.T) {
	// One pair a head, frequency 1: position p turns by p radians.
	b := New(1)
	defer b.Close()
	b.Begin(tensor.Step{Positions: []int32{0, 2}})
	for _, halves := range []bool{false, true} {
		x := &buffer{data: []float32{1, 0, 0, 1, 1, 0, 0, 1}, width: 4, rows: 2} // two heads of two
		b.RoPE(x, tensor.Rotation{Inverse: []float32{1}, Halves: halves})
		s, c := float32(math.Sin(2)), float32(math.Cos(2))
		near(t, "RoPE", x.data, []float32{1, 0, 0, 1, c, s, -s, c}, 1e-7)
	}
	// Four elements a head: neighbours or halves are paired.
	x := &buffer{data: []float32{1, 0, 0, 0}, width: 4, rows: 1}
	b.Begin(tensor.Step{Positions: []int32{1}})
	b.RoPE(x, tensor.Rotation{Inverse: []float32{1, 0}, Halves: true})
	near(t, "RoPE in halves", x.data, []float32{float32(math.Cos(1)), 0, float32(math.Sin(1)), 0}, 1e-7)
	x = &buffer{data: []float32{1, 0, 0, 0}, width: 4, rows: 1}
	b.RoPE(x, tensor.Rotation{Inverse: []float32{1, 0}})
	near(t, "RoPE in neighbours", x.data, []float32{float32(math.Cos(1)), float32(math.Sin(1)), 0, 0}, 1e-7)
}

func BenchmarkMatMul(b *testing.B) {
	for _, f := range formats {
		for _, tokens := range []int{1, 4, 64} {
			b.Run(fmt.Sprintf("%s/%d", f, tokens), func(b *testing.B) {
				const rows, cols = 1536, 576
				r := rand.New(rand.NewPCG(1, 1))
				back := New(1)
				defer back.Close()
				m, _ := back.Load(stored(r, rows, cols), f)
				x := &buffer{data: noise(r, tokens*cols), width: cols, rows: tokens}
				d, _ := back.NewBuffer(tokens, rows)
				for b.Loop() {
					back.MatMul(d, m, x)
				}
				b.ReportMetric(float64(rows*cols*tokens)*float64(b.N)/b.Elapsed().Seconds()/1e9, "GMAC/s")
			})
		}
	}
}
