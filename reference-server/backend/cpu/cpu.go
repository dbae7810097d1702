// Package cpu computes a model's tensor operations on the CPU: in plain Go as
// the reference, and in C with AVX2 or AVX-512 VNNI if the CPU has them.
// Weights are float32, float16, or int8 with a scale for every 32. Activations
// are float32; for products with int8 weights they are quantized to int8 per
// token and group. Keys and values are float32, or int8 with a scale for every
// row of a head.
package cpu

import (
	"fmt"
	"math"

	"github.com/launchgate/launchgate/reference-server/tensor"
)

// Backend implements tensor.Backend with a number of threads. Its methods are
// called from one goroutine at a time.
type Backend struct {
	kernels
	pool
	step   tensor.Step
	x8     quantized   // the input of the last int8 product
	x8Of   *buffer     // the buffer of that input, unless it was written since
	angles []float32   // (T, 2, headDim/2) sines and cosines of the step's positions
	scores [][]float32 // of each thread: attention scores of one token and head

	widened []widened // of each thread: a head's int8 keys and values as float32

	// The product and the attention under way, and the functions that compute a
	// part of them. The functions are made once, because a step has hundreds of
	// calls and should not allocate a closure for each.
	product   product
	attention attention
	multiply  func(thread, from, to int)
	attending func(thread, from, to int)
}

// widened is a float32 copy of int8 keys and values, to which a thread attends.
type widened struct {
	data  []float32
	table []int32 // 0, 1, 2 …
}

// product is dst = x × mᵀ.
type product struct {
	dst, x *buffer
	m      *matrix
}

// New makes a backend; Close ends its threads.
func New(threads int) *Backend { return newWith(fastest(), threads) }

func newWith(k kernels, threads int) *Backend {
	b := &Backend{kernels: k, pool: newPool(threads), scores: make([][]float32, threads), widened: make([]widened, threads)}
	b.multiply, b.attending = b.multiplyPanels, b.attendHeads
	return b
}

// Name describes the backend, for the log.
func (b *Backend) Name() string { return fmt.Sprintf("cpu (%s, %d threads)", b.name(), b.threads) }

type vectorOf []float32

func (v vectorOf) Len() int { return len(v) }

// LoadVector reads a vector of weights.
func (b *Backend) LoadVector(s tensor.Stored) (tensor.Vector, error) {
	if s.Rows != 1 {
		return nil, fmt.Errorf("tensor %q is a matrix of %d×%d, and must be a vector", s.Name, s.Rows, s.Cols)
	}
	v := make(vectorOf, s.Cols)
	s.Row(v, 0)
	return v, nil
}

// buffer holds rows × width activations; there is room for cap(data)/width rows.
type buffer struct {
	data  []float32
	width int
	rows  int
}

func (b *buffer) Width() int { return b.width }

// row is row t of the buffer.
func (b *buffer) row(t int) []float32 { return b.data[t*b.width : (t+1)*b.width] }

// NewBuffer makes room for tokens × width activations.
func (b *Backend) NewBuffer(tokens, width int) (tensor.Buffer, error) {
	return &buffer{data: make([]float32, tokens*width), width: width}, nil
}

// Begin takes the step's indexes.
func (b *Backend) Begin(s tensor.Step) {
	b.step, b.x8Of, b.angles = s, nil, b.angles[:0]
}

// Embed copies embedding rows.
func (b *Backend) Embed(dst tensor.Buffer, m tensor.Matrix) {
	d, w := dst.(*buffer), m.(*matrix)
	d.rows = len(b.step.Tokens)
	b.wrote(d)
	for t, id := range b.step.Tokens {
		w.row(d.row(t), int(id))
	}
}

// MatMul multiplies by a weight matrix, its panels shared out among threads.
func (b *Backend) MatMul(dst tensor.Buffer, mat tensor.Matrix, input tensor.Buffer) {
	d, m, x := dst.(*buffer), mat.(*matrix), input.(*buffer)
	d.rows = x.rows
	if x.rows == 0 {
		return
	}
	if m.int8 != nil && b.x8Of != x { // queries, keys and values have one input
		b.quantizeRows(x, m.groups())
		b.x8Of = x
	}
	b.wrote(d)
	b.product = product{d, x, m}
	b.shared(m.rows*m.cols*x.rows, m.panels(), b.multiply)
}

// multiplyPanels computes panels [from, to) of the product.
func (b *Backend) multiplyPanels(_, from, to int) {
	d, x, m := b.product.dst, b.product.x, b.product.m
	switch {
	case m.f32 != nil:
		b.matmulF32(d.data, d.width, m.f32, m.cols, from, to, m.rows, x.data, x.rows)
	case m.f16 != nil:
		b.matmulF16(d.data, d.width, m.f16, m.cols, from, to, m.rows, x.data, x.rows)
	default:
		b.matmulInt8(d.data, d.width, m.int8, m.scale, m.groups(), from, to, m.rows, &b.x8, x.rows)
	}
}

// wrote records that a buffer has new contents.
func (b *Backend) wrote(d *buffer) {
	if b.x8Of == d {
		b.x8Of = nil
	}
}

// worthSharing is the number of multiply-adds from which waking other threads
// pays: a few microseconds of work.
const worthSharing = 1 << 19

// shared is parallel if so many multiply-adds are worth it, and otherwise one
// call.
func (b *Backend) shared(macs, n int, do func(thread, from, to int)) {
	if macs < worthSharing {
		do(0, 0, n)
		return
	}
	b.parallel(n, do)
}

// quantizeRows fills x8 from x.
func (b *Backend) quantizeRows(x *buffer, groups int) {
	n := x.rows * groups
	b.x8.q, b.x8.scale, b.x8.off = grown(b.x8.q, n*group), grown(b.x8.scale, n), grown(b.x8.off, n)
	if x.width%group == 0 { // rows are contiguous, without padding
		b.quantize(b.x8.q, b.x8.scale, b.x8.off, x.data[:x.rows*x.width])
		return
	}
	padded := make([]float32, groups*group)
	for t := range x.rows {
		copy(padded, x.row(t))
		b.quantize(b.x8.q[t*groups*group:], b.x8.scale[t*groups:], b.x8.off[t*groups:], padded)
	}
}

// grown is s with n elements of undefined contents.
func grown[T any](s []T, n int) []T {
	if cap(s) < n {
		return make([]T, n, n+n/2)
	}
	return s[:n]
}

// RMSNorm normalizes every stretch of weight's length.
func (b *Backend) RMSNorm(dst, x tensor.Buffer, weight tensor.Vector, eps float32) {
	d, s, w := dst.(*buffer), x.(*buffer), weight.(vectorOf)
	d.rows = s.rows
	b.wrote(d)
	for i := 0; i < s.rows*s.width; i += len(w) {
		b.rmsNorm(d.data[i:i+len(w)], s.data[i:i+len(w)], w, eps)
	}
}

// RoPE rotates pairs by position · inverse frequency.
func (b *Backend) RoPE(x tensor.Buffer, r tensor.Rotation) {
	s, half := x.(*buffer), len(r.Inverse)
	b.wrote(s)
	if len(b.angles) != 2*half*len(b.step.Positions) {
		b.turn(r.Inverse)
	}
	for t := range b.step.Positions {
		sin, cos := b.angles[2*t*half:][:half], b.angles[(2*t+1)*half:][:half]
		row := s.row(t)
		for h := 0; h < len(row); h += 2 * half {
			rotate(row[h:h+2*half], sin, cos, r.Halves)
		}
	}
}

// turn computes the sines and cosines of a step's positions once for all
// layers.
func (b *Backend) turn(inverse []float32) {
	half := len(inverse)
	b.angles = grown(b.angles, 2*half*len(b.step.Positions))
	for t, pos := range b.step.Positions {
		for i, f := range inverse {
			sin, cos := math.Sincos(float64(pos) * float64(f))
			b.angles[2*t*half+i], b.angles[(2*t+1)*half+i] = float32(sin), float32(cos)
		}
	}
}

func rotate(head, sin, cos []float32, halves bool) {
	first, second, stride := head, head[1:], 2
	if halves {
		second, stride = head[len(sin):], 1
	}
	for i := range sin {
		a, b := first[i*stride], second[i*stride]
		first[i*stride] = a*cos[i] - b*sin[i]
		second[i*stride] = a*sin[i] + b*cos[i]
	}
}

// SwiGLU gates.
func (b *Backend) SwiGLU(gate, up tensor.Buffer) {
	g, u := gate.(*buffer), up.(*buffer)
	b.wrote(g)
	n := g.rows * g.width
	b.swiglu(g.data[:n], u.data[:n])
}

// Add adds.
func (b *Backend) Add(dst, x tensor.Buffer) {
	d, s := dst.(*buffer), x.(*buffer)
	b.wrote(d)
	for i, v := range s.data[:s.rows*s.width] {
		d.data[i] += v
	}
}

// AddBias adds bias to every row.
func (b *Backend) AddBias(dst tensor.Buffer, bias tensor.Vector) {
	d := dst.(*buffer)
	b.wrote(d)
	for t := range d.rows {
		row := d.row(t)
		for i, v := range bias.(vectorOf) {
			row[i] += v
		}
	}
}

// Select keeps the rows whose outputs are wanted.
func (b *Backend) Select(dst, x tensor.Buffer) {
	d, s := dst.(*buffer), x.(*buffer)
	d.rows = len(b.step.Outputs)
	b.wrote(d)
	for i, t := range b.step.Outputs {
		copy(d.row(i), s.row(int(t)))
	}
}

// Read returns the rows of x.
func (b *Backend) Read(x tensor.Buffer) []float32 {
	s := x.(*buffer)
	return s.data[:s.rows*s.width]
}
