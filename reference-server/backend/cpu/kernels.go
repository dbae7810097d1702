package cpu

import (
	"math"

	"github.com/launchgate/launchgate/reference-server/tensor"
)

const (
	panel = 16 // rows of weights that are interleaved
	group = 32 // inputs that share a scale
)

// kernels compute on plain slices. plain is the reference, vector the same in
// SIMD; body.h describes the layouts and the order of summation.
type kernels interface {
	name() string
	// matmul computes panels [from, to) of dst (tokens, stride) = x (tokens, cols) × wᵀ.
	matmulF32(dst []float32, stride int, w []float32, cols, from, to, rows int, x []float32, tokens int)
	matmulF16(dst []float32, stride int, w []uint16, cols, from, to, rows int, x []float32, tokens int)
	matmulInt8(dst []float32, stride int, w []uint8, scale []float32, groups, from, to, rows int, x *quantized, tokens int)
	quantize(q []int8, scale []float32, off []int32, x []float32)
	rmsNorm(dst, x, weight []float32, eps float32)
	swiglu(gate, up []float32)
	attend(dst, q []float32, heads, dim int, key, value []float32, block int, table []int32, n int, scale float32, scores []float32)
}

// quantized is activations as int8: (tokens, groups·32), with a scale and an
// offset for every group.
type quantized struct {
	q     []int8
	scale []float32
	off   []int32 // −128 · Σq: corrects for the +128 of the weights in a dot product
}

// plain computes in plain Go, in the order of summation that body.h defines.
type plain struct{}

func (plain) name() string { return "plain Go" }

// multiplyAdd rounds once, as a fused multiply-add does.
func multiplyAdd(a, b, c float32) float32 {
	return float32(math.FMA(float64(a), float64(b), float64(c)))
}

func (plain) matmulF32(dst []float32, stride int, w []float32, cols, from, to, rows int, x []float32, tokens int) {
	for r := from * panel; r < min(to*panel, rows); r++ {
		column := w[r/panel*cols*panel+r%panel:]
		for t := range tokens {
			var sum float32
			for k := range cols {
				sum = multiplyAdd(column[k*panel], x[t*cols+k], sum)
			}
			dst[t*stride+r] = sum
		}
	}
}

func (plain) matmulF16(dst []float32, stride int, w []uint16, cols, from, to, rows int, x []float32, tokens int) {
	for r := from * panel; r < min(to*panel, rows); r++ {
		column := w[r/panel*cols*panel+r%panel:]
		for t := range tokens {
			var sum float32
			for k := range cols {
				sum = multiplyAdd(tensor.HalfToFloat(column[k*panel]), x[t*cols+k], sum)
			}
			dst[t*stride+r] = sum
		}
	}
}

func (plain) matmulInt8(dst []float32, stride int, w []uint8, scale []float32, groups, from, to, rows int, x *quantized, tokens int) {
	for r := from * panel; r < min(to*panel, rows); r++ {
		p, lane := r/panel, r%panel
		for t := range tokens {
			var sum float32
			for g := range groups {
				var dot int32
				for k := range group {
					weight := int32(w[(p*groups+g)*panel*group+k/4*panel*4+lane*4+k%4]) - 128
					dot += weight * int32(x.q[(t*groups+g)*group+k])
				}
				sum = multiplyAdd(float32(dot), scale[(p*groups+g)*panel+lane]*x.scale[t*groups+g], sum)
			}
			dst[t*stride+r] = sum
		}
	}
}

func (plain) quantize(q []int8, scale []float32, off []int32, x []float32) {
	for g := range len(x) / group {
		var top float32
		for _, v := range x[g*group : (g+1)*group] {
			top = max(top, float32(math.Abs(float64(v))))
		}
		var inverse float32
		if top > 0 {
			inverse = 127 / top
		}
		var sum int32
		for i := g * group; i < (g+1)*group; i++ {
			q[i] = int8(math.RoundToEven(float64(x[i] * inverse)))
			sum += int32(q[i])
		}
		scale[g], off[g] = top/127, -128*sum
	}
}

func (plain) rmsNorm(dst, x, weight []float32, eps float32) {
	var squares float64
	for i := range weight {
		squares += float64(x[i]) * float64(x[i])
	}
	inverse := float32(1 / math.Sqrt(squares/float64(len(weight))+float64(eps)))
	for i, w := range weight {
		dst[i] = x[i] * inverse * w
	}
}

func (plain) swiglu(gate, up []float32) {
	for i, g := range gate {
		gate[i] = float32(float64(g)/(1+math.Exp(-float64(g)))) * up[i]
	}
}

func (plain) attend(dst, q []float32, heads, dim int, key, value []float32, block int, table []int32, n int, scale float32, scores []float32) {
	const size = tensor.BlockSize
	for h := range heads {
		q, dst := q[h*dim:(h+1)*dim], dst[h*dim:(h+1)*dim]
		top := math.Inf(-1)
		for i := range n {
			k := key[int(table[i/size])*block+i%size:]
			var sum float64
			for d := range dim {
				sum += float64(k[d*size]) * float64(q[d])
			}
			scores[i] = float32(sum) * scale
			top = max(top, float64(scores[i]))
		}
		var total float64
		for i := range n {
			e := math.Exp(float64(scores[i]) - top)
			scores[i] = float32(e)
			total += e
		}
		for d := range dim {
			var sum float64
			for i := range n {
				sum += float64(scores[i]) * float64(value[int(table[i/size])*block+i%size*dim+d])
			}
			dst[d] = float32(sum / total)
		}
	}
}
