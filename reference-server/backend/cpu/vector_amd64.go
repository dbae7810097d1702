//go:build cgo

package cpu

// #cgo CFLAGS: -O3
// #cgo LDFLAGS: -lm
// #include "kernels.h"
//
// static void matmul_f32(const kernels *k, float *dst, size_t stride, const float *w, size_t cols, size_t from, size_t to, size_t rows, const float *x, size_t tokens) {
// 	k->matmul_f32(dst, stride, w, cols, from, to, rows, x, tokens);
// }
// static void matmul_f16(const kernels *k, float *dst, size_t stride, const uint16_t *w, size_t cols, size_t from, size_t to, size_t rows, const float *x, size_t tokens) {
// 	k->matmul_f16(dst, stride, w, cols, from, to, rows, x, tokens);
// }
// static void matmul_int8(const kernels *k, float *dst, size_t stride, const uint8_t *w, const float *scale, size_t groups, size_t from, size_t to, size_t rows, const int8_t *x, const float *xscale, const int32_t *xoff, size_t tokens) {
// 	k->matmul_int8(dst, stride, w, scale, groups, from, to, rows, x, xscale, xoff, tokens);
// }
// static void quantize(const kernels *k, int8_t *q, float *scale, int32_t *off, const float *x, size_t groups) { k->quantize(q, scale, off, x, groups); }
// static void rms_norm(const kernels *k, float *dst, const float *x, const float *weight, size_t n, float eps) { k->rms_norm(dst, x, weight, n, eps); }
// static void swiglu(const kernels *k, float *gate, const float *up, size_t n) { k->swiglu(gate, up, n); }
// static void attend(const kernels *k, float *dst, const float *q, size_t heads, size_t dim, const float *key, const float *value, size_t block, const int32_t *table, size_t n, float scale, float *scores) {
// 	k->attend(dst, q, heads, dim, key, value, block, table, n, scale, scores);
// }
import "C"

import (
	"unsafe"

	"golang.org/x/sys/cpu"
)

// fastest is the best set of kernels this processor can run.
func fastest() kernels {
	sets := available()
	return sets[len(sets)-1]
}

// available are the sets of kernels this processor can run, the best last.
func available() []kernels {
	sets := []kernels{plain{}}
	if cpu.X86.HasAVX2 && cpu.X86.HasFMA {
		sets = append(sets, vector{"AVX2", &C.avx2_kernels})
	}
	if cpu.X86.HasAVX512F && cpu.X86.HasAVX512BW && cpu.X86.HasAVX512DQ && cpu.X86.HasAVX512VL && cpu.X86.HasAVX512VNNI {
		sets = append(sets, vector{"AVX-512 VNNI", &C.avx512_kernels})
	}
	return sets
}

// vector runs the C kernels of one instruction set.
type vector struct {
	set string
	k   *C.kernels
}

func (v vector) name() string { return v.set }

func (v vector) matmulF32(dst []float32, stride int, w []float32, cols, from, to, rows int, x []float32, tokens int) {
	C.matmul_f32(v.k, f32(dst), C.size_t(stride), f32(w), C.size_t(cols), C.size_t(from), C.size_t(to), C.size_t(rows), f32(x), C.size_t(tokens))
}

func (v vector) matmulF16(dst []float32, stride int, w []uint16, cols, from, to, rows int, x []float32, tokens int) {
	C.matmul_f16(v.k, f32(dst), C.size_t(stride), (*C.uint16_t)(unsafe.SliceData(w)), C.size_t(cols), C.size_t(from), C.size_t(to), C.size_t(rows), f32(x), C.size_t(tokens))
}

func (v vector) matmulInt8(dst []float32, stride int, w []uint8, scale []float32, groups, from, to, rows int, x *quantized, tokens int) {
	C.matmul_int8(v.k, f32(dst), C.size_t(stride), (*C.uint8_t)(unsafe.SliceData(w)), f32(scale), C.size_t(groups), C.size_t(from), C.size_t(to), C.size_t(rows),
		(*C.int8_t)(unsafe.SliceData(x.q)), f32(x.scale), (*C.int32_t)(unsafe.SliceData(x.off)), C.size_t(tokens))
}

func (v vector) quantize(q []int8, scale []float32, off []int32, x []float32) {
	C.quantize(v.k, (*C.int8_t)(unsafe.SliceData(q)), f32(scale), (*C.int32_t)(unsafe.SliceData(off)), f32(x), C.size_t(len(x)/group))
}

func (v vector) rmsNorm(dst, x, weight []float32, eps float32) {
	C.rms_norm(v.k, f32(dst), f32(x), f32(weight), C.size_t(len(weight)), C.float(eps))
}

func (v vector) swiglu(gate, up []float32) {
	C.swiglu(v.k, f32(gate), f32(up), C.size_t(len(gate)))
}

func (v vector) attend(dst, q []float32, heads, dim int, key, value []float32, block int, table []int32, n int, scale float32, scores []float32) {
	C.attend(v.k, f32(dst), f32(q), C.size_t(heads), C.size_t(dim), f32(key), f32(value), C.size_t(block), (*C.int32_t)(unsafe.SliceData(table)), C.size_t(n), C.float(scale), f32(scores))
}

func f32(s []float32) *C.float { return (*C.float)(unsafe.SliceData(s)) }
