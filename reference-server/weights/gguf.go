// Package weights reads models from disk: GGUF files by memory map, and Hugging
// Face folders. It knows the formats, and nothing about what a model computes.
// It checks every size in a file against the file's contents before using it.
package weights

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/launchgate/launchgate/reference-server/tensor"
)

// Model is what a model file or folder holds: metadata and matrices. Close
// releases the memory map; matrices must not be used after it.
type Model struct {
	Path    string
	Meta    Meta
	Tensors map[string]tensor.Stored
	close   func() error
}

// Close releases the file.
func (m *Model) Close() error {
	if m.close == nil {
		return nil
	}
	return m.close()
}

// Meta are key-value pairs of a model: string, bool, int64, uint64, float64,
// or a slice of one of them.
type Meta map[string]any

// GGUF value types (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md).
const (
	ggufUint8 = iota
	ggufInt8
	ggufUint16
	ggufInt16
	ggufUint32
	ggufInt32
	ggufFloat32
	ggufBool
	ggufString
	ggufArray
	ggufUint64
	ggufInt64
	ggufFloat64
)

// Bounds on what a header may claim, far above any real model.
const (
	maxTensors = 1 << 20
	maxMeta    = 1 << 20
	maxArray   = 1 << 26
	maxDim     = 1 << 32
)

// ggmlTypes are the tensor types of GGUF that can be read.
var ggmlTypes = map[uint32]tensor.Type{
	0: tensor.F32, 1: tensor.F16, 2: tensor.Q4_0, 3: tensor.Q4_1, 8: tensor.Q8_0, 12: tensor.Q4_K, 14: tensor.Q6_K, 30: tensor.BF16,
}

// errShort is the error of reading past the end of the file.
var errShort = errors.New("the file ends in the middle of it (is it cut short?)")

// parseGGUF reads a GGUF file in b. Tensor data is not copied.
func parseGGUF(b []byte) (Meta, map[string]tensor.Stored, error) {
	r := &reader{b: b}
	if string(r.bytes(4)) != "GGUF" {
		return nil, nil, fmt.Errorf("not a GGUF file: it starts with %q, and a GGUF file with \"GGUF\"", b[:min(4, len(b))])
	}
	version := r.u32()
	if version != 2 && version != 3 {
		return nil, nil, fmt.Errorf("GGUF version %d; versions 2 and 3 can be read", version)
	}
	tensors, pairs := r.u64(), r.u64()
	if r.err != nil || tensors > maxTensors || pairs > maxMeta {
		return nil, nil, r.or(fmt.Errorf("the header claims %d tensors and %d metadata entries", tensors, pairs))
	}
	meta := make(Meta)
	for range pairs {
		key := r.str()
		val := r.value(r.u32(), 0)
		if r.err != nil {
			return nil, nil, fmt.Errorf("metadata %q: %w", key, r.err)
		}
		meta[key] = val
	}
	infos, err := r.tensorInfos(int(tensors))
	if err != nil {
		return nil, nil, err
	}
	start := aligner(meta)(uint64(r.at))
	stored := make(map[string]tensor.Stored, len(infos))
	for _, in := range infos {
		s, err := in.locate(b, start)
		if err != nil {
			return nil, nil, fmt.Errorf("tensor %q: %w", in.name, err)
		}
		if _, twice := stored[in.name]; twice {
			return nil, nil, fmt.Errorf("tensor %q is there twice", in.name)
		}
		stored[in.name] = s
	}
	return meta, stored, nil
}

// aligner rounds a file offset up to one at which a tensor's data may begin.
func aligner(meta map[string]any) func(uint64) uint64 {
	align := uint64(32)
	if a, ok := meta["general.alignment"].(uint64); ok && a > 0 && a <= 1<<20 {
		align = a
	}
	return func(n uint64) uint64 { return (n + align - 1) / align * align }
}

// info is a tensor's entry in the header.
type info struct {
	name       string
	typ        uint32
	rows, cols uint64
	offset     uint64
}

func (r *reader) tensorInfos(n int) ([]info, error) {
	infos := make([]info, 0, min(n, 4096))
	for range n {
		in := info{name: r.str(), rows: 1, cols: 1}
		dims := r.u32()
		if r.err == nil && (dims < 1 || dims > 4) {
			return nil, fmt.Errorf("tensor %q has %d dimensions; 1 to 4 are possible", in.name, dims)
		}
		for d := range dims {
			size := r.u64()
			if r.err == nil && (size == 0 || size > maxDim || in.rows > maxDim/size) {
				return nil, fmt.Errorf("tensor %q has an impossible size of %d in dimension %d", in.name, size, d)
			}
			if d == 0 {
				in.cols = size
			} else {
				in.rows *= size
			}
		}
		in.typ, in.offset = r.u32(), r.u64()
		if r.err != nil {
			return nil, fmt.Errorf("tensor table, entry %d of %d: %w", len(infos)+1, n, r.err)
		}
		infos = append(infos, in)
	}
	return infos, nil
}

// locate finds the tensor's bytes in the file.
func (in info) locate(b []byte, start uint64) (tensor.Stored, error) {
	typ, ok := ggmlTypes[in.typ]
	if !ok {
		return tensor.Stored{}, fmt.Errorf("ggml type %d cannot be read; F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q4_K and Q6_K can", in.typ)
	}
	per, size := typ.Block()
	if in.cols%uint64(per) != 0 {
		return tensor.Stored{}, fmt.Errorf("rows of %d weights do not divide into %s blocks of %d", in.cols, typ, per)
	}
	blocks := in.cols / uint64(per) * in.rows
	if blocks > math.MaxInt64/uint64(size) || in.offset > math.MaxInt64/2 {
		return tensor.Stored{}, fmt.Errorf("impossible size of %d blocks at offset %d", blocks, in.offset)
	}
	from, length := start+in.offset, blocks*uint64(size)
	if from > uint64(len(b)) || length > uint64(len(b))-from {
		return tensor.Stored{}, fmt.Errorf("its %d bytes at offset %d reach past the end of the file, which has %d bytes (is it cut short?)", length, from, len(b))
	}
	return tensor.Stored{Name: in.name, Type: typ, Rows: int(in.rows), Cols: int(in.cols), Data: b[from : from+length : from+length]}, nil
}

// reader reads little-endian values and remembers the first error; after it
// everything read is zero.
type reader struct {
	b   []byte
	at  int
	err error
}

func (r *reader) or(err error) error {
	if r.err != nil {
		return r.err
	}
	return err
}

func (r *reader) bytes(n uint64) []byte {
	if r.err != nil || n > uint64(len(r.b)-r.at) {
		r.err = r.or(errShort)
		return nil
	}
	b := r.b[r.at : r.at+int(n)]
	r.at += int(n)
	return b
}

func (r *reader) u32() uint32 {
	if b := r.bytes(4); b != nil {
		return binary.LittleEndian.Uint32(b)
	}
	return 0
}

func (r *reader) u64() uint64 {
	if b := r.bytes(8); b != nil {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}

func (r *reader) str() string { return string(r.bytes(r.u64())) }

// value reads one metadata value. Integers become int64 or uint64, floats
// float64.
func (r *reader) value(typ uint32, depth int) any {
	switch typ {
	case ggufUint8:
		return uint64(first(r.bytes(1)))
	case ggufInt8:
		return int64(int8(first(r.bytes(1))))
	case ggufUint16:
		if b := r.bytes(2); b != nil {
			return uint64(binary.LittleEndian.Uint16(b))
		}
	case ggufInt16:
		if b := r.bytes(2); b != nil {
			return int64(int16(binary.LittleEndian.Uint16(b)))
		}
	case ggufUint32:
		return uint64(r.u32())
	case ggufInt32:
		return int64(int32(r.u32()))
	case ggufFloat32:
		return float64(math.Float32frombits(r.u32()))
	case ggufBool:
		return first(r.bytes(1)) != 0
	case ggufString:
		return r.str()
	case ggufUint64:
		return r.u64()
	case ggufInt64:
		return int64(r.u64())
	case ggufFloat64:
		return math.Float64frombits(r.u64())
	case ggufArray:
		return r.array(depth)
	default:
		r.err = r.or(fmt.Errorf("unknown value type %d", typ))
	}
	return nil
}

func (r *reader) array(depth int) any {
	typ, n := r.u32(), r.u64()
	if depth > 2 || n > maxArray || n > uint64(len(r.b)-r.at) {
		r.err = r.or(fmt.Errorf("an array of %d values cannot be here: %w", n, errShort))
		return nil
	}
	switch typ {
	case ggufString:
		return many(r, n, r.str)
	case ggufFloat32, ggufFloat64:
		return many(r, n, func() float64 { v, _ := r.value(typ, depth+1).(float64); return v })
	case ggufInt8, ggufInt16, ggufInt32, ggufInt64:
		return many(r, n, func() int64 { v, _ := r.value(typ, depth+1).(int64); return v })
	case ggufUint8, ggufUint16, ggufUint32, ggufUint64:
		return many(r, n, func() uint64 { v, _ := r.value(typ, depth+1).(uint64); return v })
	default:
		return many(r, n, func() any { return r.value(typ, depth+1) })
	}
}

func many[T any](r *reader, n uint64, read func() T) []T {
	vals := make([]T, 0, min(n, 1<<16))
	for range n {
		vals = append(vals, read())
		if r.err != nil {
			return nil
		}
	}
	return vals
}

func first(b []byte) byte {
	if len(b) == 0 {
		return 0
	}
	return b[0]
}
