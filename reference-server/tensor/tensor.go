// Package tensor is the contract between a model and what computes it: the few
// operations a Llama-like forward pass is made of, and the formats weights come
// in. backend/cpu implements it; a GPU backend does so behind the same
// operations.
package tensor

// Type is how numbers are stored in a model file.
type Type int

// The storage formats that can be read. The block formats hold 32 (Q8_0, Q4_0,
// Q4_1) or 256 (Q4_K, Q6_K) weights with their scales, as in ggml.
const (
	F32 Type = iota
	F16
	BF16
	Q8_0
	Q4_0
	Q4_1
	Q4_K
	Q6_K
)

func (t Type) String() string {
	return [...]string{"F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q4_K", "Q6_K"}[t]
}

// Block is the number of weights in a block of the format and its size in
// bytes.
func (t Type) Block() (weights, bytes int) {
	switch t {
	case F32:
		return 1, 4
	case F16, BF16:
		return 1, 2
	case Q8_0:
		return 32, 34
	case Q4_0:
		return 32, 18
	case Q4_1:
		return 32, 20
	case Q4_K:
		return 256, 144
	case Q6_K:
		return 256, 210
	}
	return 0, 0
}

// Stored is a matrix as it lies in a file: Rows × Cols weights, row after row.
type Stored struct {
	Name       string
	Type       Type
	Rows, Cols int
	Data       []byte
}

// Format is how a backend keeps weight matrices.
type Format int

const (
	FormatF32  Format = iota // 4 bytes a weight
	FormatF16                // 2 bytes
	FormatInt8               // 1 byte and a float32 scale for every 32 weights: 1.125 bytes
)

// Matrix is a weight matrix (out, in) in a backend's own format.
type Matrix interface {
	Rows() int // outputs
	Cols() int // inputs
	Bytes() int64
}

// KV is the cache of keys and values of one model, in slots: a slot holds the
// keys and values of one token in every layer.
type KV interface {
	Slots() int
	Bytes() int64
}

// Attention says which keys each token of a step may see.
type Attention struct {
	Layer                   int
	Heads, KVHeads, HeadDim int
	Positions               []int32   // (T) position of each token; it sees positions 0 … its own
	Tables                  [][]int32 // (T) block table of each token's sequence
	BlockSize               int       // slots in a block
	Scale                   float32
}

// Backend computes. Activations are row-major float32 (tokens, width). All
// outputs of one token depend on that token's inputs alone, in one order of
// summation, so that an answer does not change with the batch around it.
type Backend interface {
	// Load brings a stored matrix into the wanted format.
	Load(s Stored, f Format) (Matrix, error)
	// NewKV makes a cache of slots tokens of layers × width keys and values.
	NewKV(slots, layers, width int) (KV, error)

	// Rows copies rows ids of m to dst (len(ids), cols).
	Rows(dst []float32, m Matrix, ids []int32)
	// MatMul computes dst (tokens, rows) = x (tokens, cols) × mᵀ.
	MatMul(dst []float32, m Matrix, x []float32, tokens int)
	// RMSNorm computes dst = x / rms(x) · weight for every row of len(weight);
	// dst may be x.
	RMSNorm(dst, x, weight []float32, eps float32)
	// RoPE rotates x (tokens, heads, 2·len(inv)) in place by position: pairs are
	// (i, i+half) when neox is set and (2i, 2i+1) otherwise.
	RoPE(x []float32, positions []int32, heads int, inv []float32, neox bool)
	// Store writes keys and values (tokens, width) of a layer to slots.
	Store(kv KV, layer int, k, v []float32, slots []int32)
	// Attend computes dst (tokens, heads·headDim) from queries q and the cache.
	Attend(dst, q []float32, kv KV, a Attention)
	// SwiGLU computes gate = silu(gate) · up.
	SwiGLU(gate, up []float32)
	// Add computes dst += x.
	Add(dst, x []float32)
	// AddBias adds bias to every row of dst.
	AddBias(dst, bias []float32)
}
