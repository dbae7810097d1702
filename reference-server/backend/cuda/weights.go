//go:build linux

package cuda

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"sync"
	"unsafe"

	"github.com/launchgate/launchgate/reference-server/tensor"
)

// narrowable is the number of which the columns of an int8 matrix must be a
// multiple, because 16 are read at once.
const narrowable = 16

// Model is one model's memory on a GPU. It implements tensor.Compiler. Close
// frees the memory.
type Model struct {
	g      *GPU
	half   string // the 16-bit numbers it computes with: f16 or bf16; empty until the first load
	taken  map[ptr]int64
	pinned []unsafe.Pointer
	graphs []uintptr
	events []uintptr
	stage  [2]staging
	turn   int
	drawn  map[int]ptr // random numbers on the device, by the columns of the matrices
}

// staging is pinned memory from which weights are copied while the next are
// prepared.
type staging struct {
	at    unsafe.Pointer
	event uintptr
	used  bool
}

// stageBytes is how much of a matrix is copied at once.
const stageBytes = 32 << 20

// NewModel begins a model.
func (g *GPU) NewModel() *Model { return &Model{g: g, taken: map[ptr]int64{}} }

// KVBytes is what one number of a cache takes.
func (m *Model) KVBytes() int { return 2 }

// Name describes the device and the number type, for the log.
func (m *Model) Name() string {
	return m.g.Describe() + map[string]string{"f16": ", float16", "bf16": ", bfloat16"}[m.half]
}

// Close gives the model's memory back.
func (m *Model) Close() {
	_ = m.g.do(func() error {
		_ = m.g.sync()
		for p := range m.taken {
			m.g.d.free(p)
		}
		for _, p := range m.pinned {
			m.g.d.hostFree(p)
		}
		for _, x := range m.graphs {
			m.g.d.execDestroy(x)
		}
		for _, e := range m.events {
			m.g.d.eventDestroy(e)
		}
		m.taken, m.pinned, m.graphs, m.events = map[ptr]int64{}, nil, nil, nil
		m.unstage()
		return nil
	})
}

func (m *Model) unstage() {
	m.undraw()
	for i := range m.stage {
		if s := &m.stage[i]; s.at != nil {
			m.g.d.hostFree(s.at)
			m.g.d.eventDestroy(s.event)
			*s = staging{}
		}
	}
}

// alloc takes memory for this model, on the device's thread.
func (m *Model) alloc(n int64) (ptr, error) {
	p, err := m.g.alloc(n)
	if err == nil {
		m.taken[p] = n
	}
	return p, err
}

// Taken is how many bytes of the device this model has.
func (m *Model) Taken() (sum int64) {
	_ = m.g.do(func() error {
		for _, n := range m.taken {
			sum += n
		}
		return nil
	})
	return sum
}

// pin takes n bytes of the host's memory that the device can read.
func (m *Model) pin(n int) (p unsafe.Pointer, err error) {
	if err = m.g.d.check("cuMemHostAlloc", m.g.d.hostAlloc(&p, uint64(n), 0)); err == nil {
		m.pinned = append(m.pinned, p)
	}
	return p, err
}

// event marks a place in the stream, with its time.
func (m *Model) event() (e uintptr, err error) {
	if err = m.g.d.check("cuEventCreate", m.g.d.eventCreate(&e, 0)); err == nil {
		m.events = append(m.events, e)
	}
	return e, err
}

func (m *Model) free(p ptr) {
	if _, ok := m.taken[p]; ok {
		delete(m.taken, p)
		m.g.d.free(p)
	}
}

// matrix is weights row after row: 16 bits, or int8 with a scale for each row,
// as products of 8 bits on tensor cores need it.
type matrix struct {
	rows, cols  int
	data, scale ptr // scale is 0 where weights are 16 bits
	wide        ptr // 16-bit copy of int8 weights, if one is kept
	float8      ptr // the same as E4M3
}

func (w *matrix) Rows() int { return w.rows }
func (w *matrix) Cols() int { return w.cols }

func (w *matrix) Bytes() int64 { return w.dataBytes() + w.scaleBytes() }

func (w *matrix) dataBytes() int64 {
	n := int64(w.rows) * int64(w.cols)
	if w.scale != 0 {
		return n
	}
	return 2 * n
}

func (w *matrix) scaleBytes() int64 {
	if w.scale == 0 {
		return 0
	}
	return 4 * int64(w.rows)
}

type vector struct {
	n    int
	data ptr
}

func (v *vector) Len() int { return v.n }

// Load copies a matrix to the device, as 16 bits or int8. There are no float32
// weights here: if they are requested, bfloat16 stays bfloat16 and everything
// else becomes float16.
func (m *Model) Load(s tensor.Stored, f tensor.Format) (tensor.Matrix, error) {
	if m.half == "" {
		m.half = "f16"
		if s.Type == tensor.BF16 && f != tensor.FormatF16 {
			m.half = "bf16"
		}
	}
	w := &matrix{rows: s.Rows, cols: s.Cols}
	err := m.g.do(func() (err error) {
		if w.data, err = m.alloc(w.dataBytes()); err != nil {
			return err
		}
		if err := m.upload(w.data, s); err != nil {
			return err
		}
		if f == tensor.FormatInt8 && s.Cols%narrowable == 0 {
			return m.narrow(w)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("tensor %s: %w", s.Name, err)
	}
	return w, nil
}

// narrow converts 16-bit weights to int8.
func (m *Model) narrow(w *matrix) (err error) {
	wide := w.data
	if w.data, err = m.alloc(int64(w.rows) * int64(w.cols)); err != nil {
		return err
	}
	if w.scale, err = m.alloc(4 * int64(w.rows)); err != nil {
		return err
	}
	m.g.launch("narrow_i8_"+m.half, grid{x: w.rows, y: 1, threads: 256}, w.data, w.scale, wide, w.cols)
	err = errors.Join(m.g.err, m.g.sync())
	m.free(wide)
	return err
}

// upload converts rows on all processors and copies them while the next are
// converted.
func (m *Model) upload(to ptr, s tensor.Stored) error {
	if s.Type == tensor.Random {
		return m.draw(to, s)
	}
	step := max(1, stageBytes/(2*s.Cols))
	for from := 0; from < s.Rows; from += step {
		n := min(step, s.Rows-from)
		bytes := 2 * n * s.Cols
		st, err := m.staging(int64(bytes))
		if err != nil {
			return err
		}
		m.convert(unsafe.Slice((*byte)(st.at), bytes), s, from, n)
		if err := m.g.d.check("cuMemcpyHtoDAsync", m.g.d.toDevice(to.plus(int64(2*from*s.Cols)), st.at, uint64(bytes), m.g.stream)); err != nil {
			return err
		}
		if err := m.g.d.check("cuEventRecord", m.g.d.eventRecord(st.event, m.g.stream)); err != nil {
			return err
		}
		st.used = true
	}
	return nil
}

// drawnNumbers is how many random numbers there are for matrices of the same columns.
// It is a prime, so that rows are alike only after so many of them.
const drawnNumbers = 4194301

// draw fills a matrix with random weights on the device: with copies of the same
// numbers, which begin elsewhere for each matrix.
func (m *Model) draw(to ptr, s tensor.Stored) error {
	const each = 2 // bytes of a number
	all, ok := m.drawn[s.Cols]
	if !ok {
		var err error
		if all, err = m.alloc(each * drawnNumbers); err != nil {
			return err
		}
		if m.drawn == nil {
			m.drawn = map[int]ptr{}
		}
		m.drawn[s.Cols] = all
		numbers, scale := make([]float32, drawnNumbers), 1/math.Sqrt(float64(s.Cols))
		rng := rand.New(rand.NewPCG(uint64(s.Cols), 1))
		for i := range numbers {
			numbers[i] = float32(rng.NormFloat64() * scale)
		}
		packed := make([]byte, each*drawnNumbers)
		m.pack(packed, numbers)
		err = m.g.d.check("cuMemcpyHtoDAsync", m.g.d.toDevice(all, unsafe.Pointer(&packed[0]), uint64(len(packed)), m.g.stream))
		if err = errors.Join(err, m.g.sync()); err != nil {
			return err
		}
	}
	from := int64(s.Seed() % drawnNumbers)
	for at, end := int64(0), int64(s.Rows)*int64(s.Cols); at < end; {
		n := min(drawnNumbers-from, end-at)
		if err := m.g.d.check("cuMemcpyDtoDAsync", m.g.d.within(to.plus(each*at), all.plus(each*from), uint64(each*n), m.g.stream)); err != nil {
			return err
		}
		at, from = at+n, 0
	}
	return nil
}

// undraw frees the random numbers.
func (m *Model) undraw() {
	for _, p := range m.drawn {
		m.free(p)
	}
	m.drawn = nil
}

// staging returns pinned memory from which no copy is under way.
func (m *Model) staging(need int64) (*staging, error) {
	m.turn = 1 - m.turn
	s := &m.stage[m.turn]
	d := m.g.d
	if s.at == nil {
		if err := d.check("cuMemHostAlloc", d.hostAlloc(&s.at, uint64(max(need, stageBytes)), 0)); err != nil {
			return nil, err
		}
		if err := d.check("cuEventCreate", d.eventCreate(&s.event, 2)); err != nil { // no times are kept
			return nil, err
		}
	}
	if s.used {
		s.used = false
		return s, d.check("cuEventSynchronize", d.eventSync(s.event))
	}
	return s, nil
}

// convert writes n rows of s as the model's 16-bit numbers.
func (m *Model) convert(to []byte, s tensor.Stored, from, n int) {
	if s.Type == tensor.F16 && m.half == "f16" || s.Type == tensor.BF16 && m.half == "bf16" {
		copy(to, s.Data[2*from*s.Cols:2*(from+n)*s.Cols])
		return
	}
	workers := min(n, runtime.GOMAXPROCS(0))
	var all sync.WaitGroup
	for w := range workers {
		all.Go(func() {
			row := make([]float32, s.Cols)
			for r := w * n / workers; r < (w+1)*n/workers; r++ {
				s.Row(row, from+r)
				m.pack(to[2*r*s.Cols:2*(r+1)*s.Cols], row)
			}
		})
	}
	all.Wait()
}

func (m *Model) pack(to []byte, row []float32) {
	for i, v := range row {
		h := bfloat16(v)
		if m.half == "f16" {
			h = tensor.FloatToHalf(max(-65504, min(65504, v)))
		}
		binary.LittleEndian.PutUint16(to[2*i:], h)
	}
}

// bfloat16 rounds to nearest, ties to even.
func bfloat16(v float32) uint16 {
	b := math.Float32bits(v)
	return uint16((b + 0x7fff + b>>16&1) >> 16)
}

// LoadVector copies a vector of a norm or a bias to the device.
func (m *Model) LoadVector(s tensor.Stored) (tensor.Vector, error) {
	if s.Rows != 1 {
		return nil, fmt.Errorf("tensor %q is a matrix of %d×%d, and must be a vector", s.Name, s.Rows, s.Cols)
	}
	v := make([]float32, s.Cols)
	s.Row(v, 0)
	var p ptr
	err := m.g.do(func() (err error) { p, err = m.floats(v); return err })
	return &vector{s.Cols, p}, err
}

// floats copies float32 numbers to the device.
func (m *Model) floats(v []float32) (ptr, error) {
	p, err := m.alloc(int64(4 * len(v)))
	if err != nil {
		return 0, err
	}
	if err := m.g.d.check("cuMemcpyHtoDAsync", m.g.d.toDevice(p, unsafe.Pointer(&v[0]), uint64(4*len(v)), m.g.stream)); err != nil {
		return 0, err
	}
	return p, m.g.sync() // after this the caller may change v
}

// joined makes one matrix of the rows of several with the same width, and frees
// those.
func (m *Model) joined(parts ...*matrix) (*matrix, error) {
	all := &matrix{cols: parts[0].cols}
	for _, p := range parts {
		all.rows += p.rows
	}
	all.scale = parts[0].scale
	var err error
	if all.data, err = m.alloc(all.dataBytes()); err != nil {
		return nil, err
	}
	if all.scale != 0 {
		if all.scale, err = m.alloc(all.scaleBytes()); err != nil {
			return nil, err
		}
	}
	var data, scale int64
	for _, p := range parts {
		if err := m.g.d.check("cuMemcpyDtoDAsync", m.g.d.within(all.data.plus(data), p.data, uint64(p.dataBytes()), m.g.stream)); err != nil {
			return nil, err
		}
		data += p.dataBytes()
		if p.scale != 0 {
			if err := m.g.d.check("cuMemcpyDtoDAsync", m.g.d.within(all.scale.plus(scale), p.scale, uint64(p.scaleBytes()), m.g.stream)); err != nil {
				return nil, err
			}
			scale += p.scaleBytes()
		}
	}
	if err := m.g.sync(); err != nil {
		return nil, err
	}
	for _, p := range parts {
		m.free(p.data)
		m.free(p.scale)
	}
	return all, nil
}

// kv is a cache: for every layer, blocks of (KV heads, 16, dim) keys, and the
// same of values; of int8 ones a scale for each (KV heads, 16).
type kv struct {
	keys, values           ptr
	keyScales, valueScales ptr // 0: keys and values have 16 bits
	blocks                 int
	layer, scales          int64 // bytes of a layer's keys, and of their scales
	bytes                  int64
}

// kind is the part of kernel names for this type of cache.
func (c *kv) kind() string {
	if c.keyScales != 0 {
		return "i8_"
	}
	return ""
}

// of returns where a layer's keys, values and scales begin.
func (c *kv) of(layer int) (keys, values, keyScales, valueScales ptr) {
	at, scales := int64(layer)*c.layer, int64(layer)*c.scales
	return c.keys.plus(at), c.values.plus(at), c.keyScales.plus(scales), c.valueScales.plus(scales)
}

func (c *kv) Blocks() int  { return c.blocks }
func (c *kv) Bytes() int64 { return c.bytes }

// NewKV makes a cache.
func (m *Model) NewKV(t tensor.KVType, blocks, layers, kvHeads, headDim int) (tensor.KV, error) {
	heads := int64(blocks) * tensor.BlockSize * int64(kvHeads)
	c := &kv{blocks: blocks, layer: heads * int64(headDim) * 2}
	parts := []struct {
		to    *ptr
		bytes *int64
	}{{&c.keys, &c.layer}, {&c.values, &c.layer}}
	if t == tensor.KVInt8 {
		if headDim != 32 && headDim != 64 && headDim != 128 {
			return nil, fmt.Errorf("an int8 KV cache on a GPU is for heads of 32, 64 and 128 dimensions, and the model's have %d: leave it at 16 bits (auto)", headDim)
		}
		c.layer, c.scales = heads*int64(headDim), heads*4
		parts = append(parts, parts[0], parts[1])
		parts[2].to, parts[2].bytes, parts[3].to, parts[3].bytes = &c.keyScales, &c.scales, &c.valueScales, &c.scales
	}
	err := m.g.do(func() (err error) {
		for i, p := range parts {
			n := *p.bytes * int64(layers)
			if *p.to, err = m.alloc(n); err != nil {
				for _, taken := range parts[:i] {
					m.free(*taken.to)
				}
				return err
			}
			c.bytes += n
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return c, nil
}
