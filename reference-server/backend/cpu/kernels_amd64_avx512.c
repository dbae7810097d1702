//go:build cgo

#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")
#include <immintrin.h>

#define NAME(f) avx512_##f
#define W 16
#define ONE_TOKEN_STRIPS 4
#define TILE_TOKENS 4

typedef __m512 VF;
typedef __m512i VI;
#define ZERO _mm512_setzero_ps
#define SET1 _mm512_set1_ps
#define LOAD _mm512_loadu_ps
#define STORE _mm512_storeu_ps
#define LOAD_HALF(p) _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(p)))
#define ADD _mm512_add_ps
#define SUB _mm512_sub_ps
#define MUL _mm512_mul_ps
#define DIV _mm512_div_ps
#define FMA _mm512_fmadd_ps
#define MIN _mm512_min_ps
#define MAX _mm512_max_ps
#define ABS _mm512_abs_ps
#define REDUCE_ADD _mm512_reduce_add_ps
#define REDUCE_MAX _mm512_reduce_max_ps
#define NEAREST(x) _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)
#define ROUND _mm512_cvtps_epi32
#define TO_FLOAT _mm512_cvtepi32_ps
#define STORE_INT(p, v) _mm512_storeu_si512(p, v)
#define POWER_OF_TWO(n) _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127)), 23))
#define LOAD_BYTES(p) _mm512_loadu_si512(p)
#define SET1_INT _mm512_set1_epi32
#define DOT_START _mm512_set1_epi32
#define DOT _mm512_dpbusd_epi32 // unsigned weights × signed inputs, by fours

#include "body.h"
