// The kernels, written once over vectors of W floats and compiled once for each
// instruction set. Every (row, token) sum has one accumulator that runs over
// the inputs in order, so that a result is the same in a tile of any shape: an
// answer does not depend on the batch it was computed in.
//
// Weights lie in panels of 16 rows, interleaved so that a vector load brings
// one input of W rows:
//
//	float  [panel][cols][16]
//	int8   [panel][groups][8][16][4]   as w+128, with scales [panel][groups][16]

#include <math.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels.h"

#define STRIPS (16 / W) // vectors in a row of a panel
#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 8")

// tile_float computes S strips × T tokens. load brings W weights as floats.
#define TILE_FLOAT(NAME, TYPE, LOAD)                                                                \
	INLINE void NAME(const int S, const int T, float *dst, size_t stride, const TYPE *w,            \
	                 size_t cols, size_t strip, size_t rows, const float *x) {                      \
		VF acc[8][8];                                                                               \
		const TYPE *ws[8];                                                                          \
		UNROLL for (int s = 0; s < S; s++) {                                                        \
			ws[s] = w + ((strip + s) / STRIPS) * cols * 16 + ((strip + s) % STRIPS) * W;            \
			UNROLL for (int t = 0; t < T; t++) acc[s][t] = ZERO();                                  \
		}                                                                                           \
		for (size_t k = 0; k < cols; k++) {                                                         \
			VF wv[8];                                                                               \
			UNROLL for (int s = 0; s < S; s++) wv[s] = LOAD(ws[s] + k * 16);                        \
			UNROLL for (int t = 0; t < T; t++) {                                                    \
				VF xv = SET1(x[t * cols + k]);                                                      \
				UNROLL for (int s = 0; s < S; s++) acc[s][t] = FMA(wv[s], xv, acc[s][t]);           \
			}                                                                                       \
		}                                                                                           \
		UNROLL for (int s = 0; s < S; s++)                                                          \
			UNROLL for (int t = 0; t < T; t++)                                                      \
				store_rows(dst + t * stride, (strip + s) * W, rows, acc[s][t]);                     \
	}

INLINE void store_rows(float *dst, size_t row, size_t rows, VF v) {
	if (row + W <= rows) {
		STORE(dst + row, v);
	} else if (row < rows) {
		float part[W];
		STORE(part, v);
		for (size_t i = row; i < rows; i++) dst[i] = part[i - row];
	}
}

TILE_FLOAT(tile_f32, float, LOAD)
TILE_FLOAT(tile_f16, uint16_t, LOAD_HALF)

// tile_int8: for each group of 32 inputs an exact integer dot product, then one
// multiply-add with the product of the two scales.
INLINE void tile_int8(const int S, const int T, float *dst, size_t stride, const uint8_t *w, const float *scale,
                      size_t groups, size_t strip, size_t rows, const int8_t *x, const float *xscale, const int32_t *xoff) {
	VF acc[8][8];
	const uint8_t *ws[8];
	const float *ss[8];
	UNROLL for (int s = 0; s < S; s++) {
		size_t panel = (strip + s) / STRIPS, part = (strip + s) % STRIPS;
		ws[s] = w + panel * groups * 512 + part * W * 4;
		ss[s] = scale + panel * groups * 16 + part * W;
		UNROLL for (int t = 0; t < T; t++) acc[s][t] = ZERO();
	}
	for (size_t g = 0; g < groups; g++) {
		VI dot[8][8];
		UNROLL for (int s = 0; s < S; s++)
			UNROLL for (int t = 0; t < T; t++) dot[s][t] = DOT_START(xoff[t * groups + g]);
		UNROLL for (int k = 0; k < 8; k++) {
			VI wv[8];
			UNROLL for (int s = 0; s < S; s++) wv[s] = LOAD_BYTES(ws[s] + g * 512 + k * 64);
			UNROLL for (int t = 0; t < T; t++) {
				int32_t four;
				__builtin_memcpy(&four, x + (t * groups + g) * 32 + k * 4, 4);
				VI xv = SET1_INT(four);
				UNROLL for (int s = 0; s < S; s++) dot[s][t] = DOT(dot[s][t], wv[s], xv);
			}
		}
		UNROLL for (int s = 0; s < S; s++) {
			VF sv = LOAD(ss[s] + g * 16);
			UNROLL for (int t = 0; t < T; t++)
				acc[s][t] = FMA(TO_FLOAT(dot[s][t]), MUL(sv, SET1(xscale[t * groups + g])), acc[s][t]);
		}
	}
	UNROLL for (int s = 0; s < S; s++)
		UNROLL for (int t = 0; t < T; t++) store_rows(dst + t * stride, (strip + s) * W, rows, acc[s][t]);
}

// Walks the strips of panels [from, to) and the tokens in tiles.
#define WALK(TILE)                                                                     \
	size_t end = to * STRIPS, strip = from * STRIPS;                                   \
	while (strip < end) {                                                              \
		size_t t = 0;                                                                  \
		if (tokens == 1 && strip + ONE_TOKEN_STRIPS <= end) {                          \
			TILE(ONE_TOKEN_STRIPS, 1, 0);                                              \
			strip += ONE_TOKEN_STRIPS;                                                 \
			continue;                                                                  \
		}                                                                              \
		int pair = strip + 2 <= end;                                                   \
		if (pair) {                                                                    \
			for (; t + TILE_TOKENS <= tokens; t += TILE_TOKENS) TILE(2, TILE_TOKENS, t); \
			for (; t < tokens; t++) TILE(2, 1, t);                                     \
			strip += 2;                                                                \
		} else {                                                                       \
			for (; t < tokens; t++) TILE(1, 1, t);                                     \
			strip += 1;                                                                \
		}                                                                              \
	}

static void NAME(matmul_f32)(float *dst, size_t stride, const float *w, size_t cols, size_t from, size_t to, size_t rows, const float *x, size_t tokens) {
#define T_(S, T, t) tile_f32(S, T, dst + (t) * stride, stride, w, cols, strip, rows, x + (t) * cols)
	WALK(T_)
#undef T_
}

static void NAME(matmul_f16)(float *dst, size_t stride, const uint16_t *w, size_t cols, size_t from, size_t to, size_t rows, const float *x, size_t tokens) {
#define T_(S, T, t) tile_f16(S, T, dst + (t) * stride, stride, w, cols, strip, rows, x + (t) * cols)
	WALK(T_)
#undef T_
}

static void NAME(matmul_int8)(float *dst, size_t stride, const uint8_t *w, const float *scale, size_t groups, size_t from, size_t to, size_t rows,
                       const int8_t *x, const float *xscale, const int32_t *xoff, size_t tokens) {
#define T_(S, T, t) tile_int8(S, T, dst + (t) * stride, stride, w, scale, groups, strip, rows, x + (t) * groups * 32, xscale + (t) * groups, xoff + (t) * groups)
	WALK(T_)
#undef T_
}

// quantize turns groups of 32 floats into int8 with one scale each: symmetric,
// the largest magnitude becomes 127. off is −128 times the sum, which takes the
// offset of the weights out of a dot product again.
static void NAME(quantize)(int8_t *q, float *scale, int32_t *off, const float *x, size_t groups) {
	for (size_t g = 0; g < groups; g++, x += 32, q += 32) {
		VF largest = ZERO();
		for (int i = 0; i < 32; i += W) largest = MAX(largest, ABS(LOAD(x + i)));
		float top = REDUCE_MAX(largest);
		float inverse = top > 0 ? 127.0f / top : 0;
		int32_t sum = 0;
		for (int i = 0; i < 32; i += W) {
			int32_t n[W];
			STORE_INT(n, ROUND(MUL(LOAD(x + i), SET1(inverse))));
			for (int j = 0; j < W; j++) q[i + j] = n[j], sum += n[j];
		}
		scale[g] = top / 127.0f;
		off[g] = -128 * sum;
	}
}

// rms_norm: dst = x · weight / sqrt(mean(x²) + eps). n is a multiple of 16.
static void NAME(rms_norm)(float *dst, const float *x, const float *weight, size_t n, float eps) {
	VF squares = ZERO();
	for (size_t i = 0; i < n; i += W) squares = FMA(LOAD(x + i), LOAD(x + i), squares);
	VF inverse = SET1(1.0f / sqrtf(REDUCE_ADD(squares) / (float)n + eps));
	for (size_t i = 0; i < n; i += W) STORE(dst + i, MUL(MUL(LOAD(x + i), inverse), LOAD(weight + i)));
}

// exponential is e^x to 2 ulp: 2^round(x·log2 e) times a polynomial of the rest
// (coefficients of Cephes expf, Moshier 1989).
INLINE VF exponential(VF x) {
	x = MAX(MIN(x, SET1(88.0f)), SET1(-87.0f));
	VF n = NEAREST(MUL(x, SET1(1.44269504088896341f)));
	VF r = FMA(n, SET1(-0.693359375f), x);
	r = FMA(n, SET1(2.12194440e-4f), r);
	VF p = SET1(1.9875691500e-4f);
	p = FMA(p, r, SET1(1.3981999507e-3f));
	p = FMA(p, r, SET1(8.3334519073e-3f));
	p = FMA(p, r, SET1(4.1665795894e-2f));
	p = FMA(p, r, SET1(1.6666665459e-1f));
	p = FMA(p, r, SET1(5.0000001201e-1f));
	p = FMA(MUL(p, r), r, ADD(r, SET1(1.0f)));
	return MUL(p, POWER_OF_TWO(n));
}

// swiglu: gate = gate / (1 + e^-gate) · up. n is a multiple of 16.
static void NAME(swiglu)(float *gate, const float *up, size_t n) {
	for (size_t i = 0; i < n; i += W) {
		VF g = LOAD(gate + i);
		VF e = exponential(SUB(ZERO(), g));
		STORE(gate + i, MUL(DIV(g, ADD(SET1(1.0f), e)), LOAD(up + i)));
	}
}

// attend computes one token's heads that share a KV head: softmax(q·K)·V over n
// positions. A KV block holds, for one KV head, keys as [dim][16] and values as
// [16][dim]; key and value point at the first block of the layer and head,
// table tells the blocks, block is their distance in floats. scores has room
// for n rounded up to 16. dim is a multiple of 16.
static void NAME(attend)(float *dst, const float *q, size_t heads, size_t dim, const float *key, const float *value, size_t block,
                  const int32_t *table, size_t n, float scale, float *scores) {
	for (size_t h = 0; h < heads; h++, q += dim, dst += dim) {
		float top = -INFINITY;
		for (size_t from = 0; from < n; from += 16) {
			const float *k = key + (size_t)table[from / 16] * block;
			VF sum[STRIPS];
			UNROLL for (int s = 0; s < STRIPS; s++) sum[s] = ZERO();
			for (size_t d = 0; d < dim; d++) {
				VF qv = SET1(q[d]);
				UNROLL for (int s = 0; s < STRIPS; s++) sum[s] = FMA(LOAD(k + d * 16 + s * W), qv, sum[s]);
			}
			UNROLL for (int s = 0; s < STRIPS; s++) STORE(scores + from + s * W, MUL(sum[s], SET1(scale)));
		}
		for (size_t i = 0; i < n; i++) top = scores[i] > top ? scores[i] : top;
		size_t padded = (n + 15) / 16 * 16;
		for (size_t i = n; i < padded; i++) scores[i] = -INFINITY;
		VF total = ZERO();
		for (size_t i = 0; i < padded; i += W) {
			VF x = SUB(LOAD(scores + i), SET1(top));
			VF e = exponential(x);
			STORE(scores + i, e);
		}
		for (size_t i = n; i < padded; i++) scores[i] = 0;
		for (size_t i = 0; i < padded; i += W) total = ADD(total, LOAD(scores + i));
		float inverse = 1.0f / REDUCE_ADD(total);
		for (size_t d = 0; d < dim; d += 16) {
			VF out[STRIPS];
			UNROLL for (int s = 0; s < STRIPS; s++) out[s] = ZERO();
			for (size_t i = 0; i < n; i++) {
				const float *v = value + (size_t)table[i / 16] * block + (i % 16) * dim + d;
				VF p = SET1(scores[i]);
				UNROLL for (int s = 0; s < STRIPS; s++) out[s] = FMA(p, LOAD(v + s * W), out[s]);
			}
			UNROLL for (int s = 0; s < STRIPS; s++) STORE(dst + d + s * W, MUL(out[s], SET1(inverse)));
		}
	}
}

const kernels NAME(kernels) = {
	NAME(matmul_f32), NAME(matmul_f16), NAME(matmul_int8), NAME(quantize), NAME(rms_norm), NAME(swiglu), NAME(attend),
};
