#pragma once
#include <stddef.h>
#include <stdint.h>

// The kernels of one instruction set; body.h says what each does.
typedef struct {
	void (*matmul_f32)(float *, size_t, const float *, size_t, size_t, size_t, size_t, const float *, size_t);
	void (*matmul_f16)(float *, size_t, const uint16_t *, size_t, size_t, size_t, size_t, const float *, size_t);
	void (*matmul_int8)(float *, size_t, const uint8_t *, const float *, size_t, size_t, size_t, size_t, const int8_t *, const float *, const int32_t *, size_t);
	void (*quantize)(int8_t *, float *, int32_t *, const float *, size_t);
	void (*rms_norm)(float *, const float *, const float *, size_t, float);
	void (*swiglu)(float *, const float *, size_t);
	void (*attend)(float *, const float *, size_t, size_t, const float *, const float *, size_t, const int32_t *, size_t, float, float *);
} kernels;

extern const kernels avx512_kernels, avx2_kernels;
