// Package tensor is the contract between a model and a backend: the operations
// of a Llama-like forward pass, and the formats of weights. backend/cpu
// implements it. A GPU backend can implement the same operations, because
// activations stay in the backend's own memory and a step's indexes are passed
// once.
package tensor

import (
	"fmt"
	"time"
)

// BlockSize is the number of tokens whose keys and values lie in one KV block.
const BlockSize = 16

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
	// Random weights are in no file. Row draws them from the tensor's name, and a
	// backend may draw its own.
	Random
)

func (t Type) String() string {
	return [...]string{"F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q4_K", "Q6_K", "random"}[t]
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
	panic(fmt.Sprintf("tensor: type %d", t))
}

// Stored is a matrix as it is in a file: Rows × Cols weights, row by row.
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

func (f Format) String() string { return [...]string{"none", "fp16", "int8"}[f] }

// Bytes is the memory of a weight.
func (f Format) Bytes() float64 { return [...]float64{4, 2, 1 + 4.0/32}[f] }

// ParseFormat reads the name of a quantization: none, fp16 or int8.
func ParseFormat(name string) (Format, error) {
	for _, f := range []Format{FormatF32, FormatF16, FormatInt8} {
		if f.String() == name {
			return f, nil
		}
	}
	return 0, fmt.Errorf("quantization %q is not known; none, fp16 and int8 are", name)
}

// KVType is how numbers of a KV cache are stored.
type KVType int

const (
	KVFull KVType = iota // as the backend computes: float32 on the CPU, 16 bits on a GPU
	KVInt8               // int8, and a float32 scale for each token's key or value of a head
)

func (t KVType) String() string { return [...]string{"auto", "int8"}[t] }

// ParseKVType reads the name of a type: auto or int8.
func ParseKVType(name string) (KVType, error) {
	for _, t := range []KVType{KVFull, KVInt8} {
		if t.String() == name {
			return t, nil
		}
	}
	return 0, fmt.Errorf("a KV cache of %q is not known; auto (float32 on the CPU, 16 bits on a GPU) and int8 are", name)
}

// Activations is how a GPU keeps the inputs of products with int8 weights in
// steps with prompts. If all sequences decode, they have 16 bits.
type Activations int

const (
	ActivationsAuto Activations = iota // int8 where that is faster, else 16 bits
	Activations16
	ActivationsInt8 // a scale for each token, as those:
	ActivationsFP8  // E4M3
)

func (a Activations) String() string { return [...]string{"auto", "16", "int8", "fp8"}[a] }

// ParseActivations reads their name: auto, 16, int8 or fp8.
func ParseActivations(name string) (Activations, error) {
	for a := ActivationsAuto; a <= ActivationsFP8; a++ {
		if a.String() == name {
			return a, nil
		}
	}
	return 0, fmt.Errorf("activations %q are not known; auto (int8 for prompts where that is faster), 16 (bits), int8 and fp8 are", name)
}

// Bytes is the memory of one token's key or value of a head. full is the size
// of a number of the full type.
func (t KVType) Bytes(headDim, full int) int {
	if t == KVInt8 {
		return headDim + 4
	}
	return headDim * full
}

// Matrix is a weight matrix (out, in) in a backend's own format.
type Matrix interface {
	Rows() int // outputs
	Cols() int // inputs
	Bytes() int64
}

// Vector is a vector of float32 weights: of a norm, or a bias.
type Vector interface{ Len() int }

// Buffer holds activations (tokens, width) in a backend's memory.
type Buffer interface{ Width() int }

// KV is the cache of keys and values of one model, in blocks of BlockSize
// tokens. Block b holds them for every layer.
type KV interface {
	Blocks() int
	Bytes() int64
}

// Step is the data of an engine step that a backend gets before it computes: T
// tokens of several sequences, one after the other.
type Step struct {
	Tokens    []int32   // (T) ids
	Positions []int32   // (T) position of each token in its sequence; it sees positions 0 … its own
	Slots     []int32   // (T) where its key and value go: block·BlockSize + offset
	Tables    [][]int32 // (T) the block table of its sequence
	Outputs   []int32   // (R) the tokens that Select keeps
}

// Rotation says how RoPE rotates pairs of elements of a head.
type Rotation struct {
	Inverse []float32 // (headDim/2) inverse frequencies
	// Halves pairs element i with i+headDim/2 (Hugging Face, NeoX); without it
	// neighbours 2i and 2i+1 are a pair (GGUF files of Llama).
	Halves bool
}

// Attention is the shape of an attention layer.
type Attention struct {
	Layer                   int
	Heads, KVHeads, HeadDim int
}

// Backend computes. Its results for one token depend on that token's sequence
// alone, in one order of summation, so that an answer does not change with the
// batch around it. Sizes are checked when a model is made, not here.
type Backend interface {
	Loader
	NewBuffer(tokens, width int) (Buffer, error)

	// Begin passes a step. The following calls are about its T tokens. The
	// step's slices must not change until Read returns.
	Begin(s Step)
	// Embed copies the rows of m of the step's tokens to dst.
	Embed(dst Buffer, m Matrix)
	// MatMul computes dst (T, rows) = x (T, cols) × mᵀ, for as many rows of dst
	// as x has.
	MatMul(dst Buffer, m Matrix, x Buffer)
	// RMSNorm computes dst = x / rms(x) · weight over every stretch of
	// weight.Len(); dst may be x.
	RMSNorm(dst, x Buffer, weight Vector, eps float32)
	// RoPE rotates every head of x by its token's position, in place.
	RoPE(x Buffer, r Rotation)
	// Store writes the step's keys and values of a layer to their slots.
	Store(kv KV, layer int, k, v Buffer)
	// Attend computes dst (T, heads·headDim) from queries and the cache.
	Attend(dst, q Buffer, kv KV, a Attention)
	// SwiGLU computes gate = silu(gate) · up.
	SwiGLU(gate, up Buffer)
	// Add computes dst += x.
	Add(dst, x Buffer)
	// AddBias adds bias to every row of dst.
	AddBias(dst Buffer, bias Vector)
	// Select keeps the rows of Step.Outputs, in their order, as the rows of dst.
	Select(dst, x Buffer)
	// Read waits for the step and returns the rows of x, valid until the next
	// Begin.
	Read(x Buffer) []float32
}

// Net is a whole model, for a backend that computes whole steps.
type Net struct {
	Layers            []NetLayer
	Embedding, Output Matrix
	OutputNorm        Vector
	Width, FFN, Vocab int
	Context           int // tokens a sequence may have
	Attention         Attention
	Epsilon           float32
	Rotation          Rotation
	Tokens, Outputs   int   // the most in one step
	Spare             int64 // bytes that the backend may use to be faster
	Activations       Activations
	// Deterministic makes the numbers of a token the same to the last bit whatever
	// else is in its step.
	Deterministic bool
}

// NetLayer is the weights of a layer. Biases and norms of heads may be nil.
type NetLayer struct {
	AttnNorm, FFNNorm   Vector
	Q, K, V, O          Matrix
	QBias, KBias, VBias Vector
	QNorm, KNorm        Vector
	Gate, Up, Down      Matrix
}

// Pick says how a device picks a row's next token. The zero value takes the
// most likely one.
type Pick struct {
	Temperature float32
	TopP, MinP  float32
	TopK        int
	At          float32 // where in [0, 1) to draw
	Logits      bool    // do not pick, but return the row's logits
}

// Loader copies weights to a backend's memory.
type Loader interface {
	Load(s Stored, f Format) (Matrix, error)
	LoadVector(s Stored) (Vector, error)
	// NewKV makes a cache for tokens of layers × width keys and values.
	NewKV(t KVType, blocks, layers, kvHeads, headDim int) (KV, error)
}

// Compiler is a backend that computes whole steps and not single operations,
// such as a GPU, where each operation costs a launch.
type Compiler interface {
	Loader
	Compile(n Net) (Program, error)
	// KVBytes is the size of one number of a full cache.
	KVBytes() int
}

// Program is a compiled model. Two steps may be under way: the second begins
// while the first runs, so that the device never waits for the host.
type Program interface {
	// Warm does the work that is needed once before the first step. Steps are
	// computed with this cache.
	Warm(kv KV) error
	// Start begins to compute a step and to pick tokens for its outputs. It
	// returns while this step or the one before runs. After that the step's
	// slices may change. Token Picked(r) stands for the token that the step
	// before picks for its output r, which is not known yet.
	Start(s Step, kv KV, picks []Pick) error
	// Wait waits for the oldest step that was begun. If a pick of a step asks
	// for logits, the caller must wait for it before it begins the next.
	Wait() (Done, error)
}

// Picked stands for the token that the step before picks for its output row.
func Picked(row int) int32 { return int32(-1 - row) }

// Done is the result of a step. Its slices are valid until the next Wait.
type Done struct {
	IDs    []int32     // the picked tokens, one for each output
	Logits [][]float32 // if a pick asked for them
	// Idle is how long the device had nothing to do between the step before and
	// this one, by its own clock.
	Idle time.Duration
}
