//go:build cgo

#pragma GCC target("avx2,fma,f16c")
#include <immintrin.h>

#define NAME(f) avx2_##f
#define W 8
#define ONE_TOKEN_STRIPS 4
#define TILE_TOKENS 2

typedef __m256 VF;
typedef __m256i VI;
#define ZERO _mm256_setzero_ps
#define SET1 _mm256_set1_ps
#define LOAD _mm256_loadu_ps
#define STORE _mm256_storeu_ps
#define LOAD_HALF(p) _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(p)))
#define ADD _mm256_add_ps
#define SUB _mm256_sub_ps
#define MUL _mm256_mul_ps
#define DIV _mm256_div_ps
#define FMA _mm256_fmadd_ps
#define MIN _mm256_min_ps
#define MAX _mm256_max_ps
#define ABS(x) _mm256_andnot_ps(_mm256_set1_ps(-0.0f), x)
#define NEAREST(x) _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)
#define ROUND _mm256_cvtps_epi32
#define TO_FLOAT _mm256_cvtepi32_ps
#define STORE_INT(p, v) _mm256_storeu_si256((__m256i *)(p), v)
#define POWER_OF_TWO(n) _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23))
// Weights become signed again: the pairwise multiply of AVX2 saturates with
// unsigned weights above 127. The offset is then not in the sum.
#define LOAD_BYTES(p) _mm256_xor_si256(_mm256_loadu_si256((const __m256i *)(p)), _mm256_set1_epi8((char)0x80))
#define SET1_INT _mm256_set1_epi32
#define DOT_START(off) _mm256_setzero_si256()
#define DOT(acc, w, x) _mm256_add_epi32(acc, _mm256_madd_epi16(_mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(x, w)), _mm256_set1_epi16(1)))

static inline float avx2_reduce_add(__m256 v) {
	__m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
	s = _mm_add_ps(s, _mm_movehl_ps(s, s));
	return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}
static inline float avx2_reduce_max(__m256 v) {
	__m128 s = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
	s = _mm_max_ps(s, _mm_movehl_ps(s, s));
	return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
}
#define REDUCE_ADD avx2_reduce_add
#define REDUCE_MAX avx2_reduce_max

#include "body.h"
