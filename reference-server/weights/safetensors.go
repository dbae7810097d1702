package weights

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"

	"github.com/launchgate/launchgate/reference-server/tensor"
)

// maxHeader bounds the JSON header of a safetensors file, as its own library does.
const maxHeader = 100 << 20

var safeTypes = map[string]tensor.Type{"F32": tensor.F32, "F16": tensor.F16, "BF16": tensor.BF16}

// parseSafetensors reads a file that lies in b
// (https://huggingface.co/docs/safetensors): a length, a JSON header, data.
// Tensor data is not copied.
func parseSafetensors(b []byte) (map[string]tensor.Stored, error) {
	if len(b) < 8 {
		return nil, fmt.Errorf("not a safetensors file: %d bytes", len(b))
	}
	n := binary.LittleEndian.Uint64(b)
	if n > maxHeader || n > uint64(len(b)-8) {
		return nil, fmt.Errorf("the header claims %d bytes and the file has %d (is it cut short, or not a safetensors file?)", n, len(b))
	}
	var header map[string]json.RawMessage
	if err := json.Unmarshal(b[8:8+n], &header); err != nil {
		return nil, fmt.Errorf("header: %w", err)
	}
	delete(header, "__metadata__")
	data := b[8+n:]
	stored := make(map[string]tensor.Stored, len(header))
	for name, raw := range header {
		s, err := safeTensor(name, raw, data)
		if err != nil {
			return nil, fmt.Errorf("tensor %q: %w", name, err)
		}
		stored[name] = s
	}
	return stored, nil
}

func safeTensor(name string, raw json.RawMessage, data []byte) (tensor.Stored, error) {
	var h struct {
		DType   string    `json:"dtype"`
		Shape   []uint64  `json:"shape"`
		Offsets [2]uint64 `json:"data_offsets"`
	}
	if err := json.Unmarshal(raw, &h); err != nil {
		return tensor.Stored{}, err
	}
	typ, ok := safeTypes[h.DType]
	if !ok {
		return tensor.Stored{}, fmt.Errorf("type %s cannot be read; F32, F16 and BF16 can", h.DType)
	}
	rows, cols := uint64(1), uint64(1)
	for i, d := range h.Shape {
		if d == 0 || d > maxDim || rows > maxDim/d {
			return tensor.Stored{}, fmt.Errorf("impossible shape %v", h.Shape)
		}
		if i == len(h.Shape)-1 {
			cols = d
		} else {
			rows *= d
		}
	}
	_, size := typ.Block()
	if rows > math.MaxInt64/8/cols {
		return tensor.Stored{}, fmt.Errorf("impossible shape %v", h.Shape)
	}
	want := rows * cols * uint64(size)
	if h.Offsets[1] > uint64(len(data)) || h.Offsets[0] > h.Offsets[1] || h.Offsets[1]-h.Offsets[0] != want {
		return tensor.Stored{}, fmt.Errorf("shape %v of %s is %d bytes, and it lies at %v of %d (is the file cut short?)", h.Shape, h.DType, want, h.Offsets, len(data))
	}
	return tensor.Stored{Name: name, Type: typ, Rows: int(rows), Cols: int(cols), Data: data[h.Offsets[0]:h.Offsets[1]:h.Offsets[1]]}, nil
}
