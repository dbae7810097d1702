// Kernels that move more than they compute: embedding, RMSNorm, RoPE with the
// write to the KV cache, SwiGLU, and between 16 bits, int8 and int32.
#include "common.cuh"

// embed: x[t] = the embedding of tokens[t], or where that is below 0 of what
// the step before picked: picked[−1 − tokens[t]]. grid (n tokens or more).
__device__ __forceinline__ size_t token(const int *tokens, const int *picked) {
  const int id = tokens[blockIdx.x];
  return id < 0 ? picked[-1 - id] : id;
}
template <typename T> __device__ void embed(float *x, const T *w, const int *tokens, const int *picked, int width, int n) {
  let_next_start();
  wait_for_inputs();
  if (blockIdx.x >= n) return;
  const size_t t = blockIdx.x;
  const T *row = w + token(tokens, picked) * width;
  for (int i = threadIdx.x; i < width; i += blockDim.x) x[t * width + i] = to_float(row[i]);
}
extern "C" __global__ void embed_f16(float *x, const f16 *w, const int *tokens, const int *picked, int width, int n) { embed(x, w, tokens, picked, width, n); }
extern "C" __global__ void embed_bf16(float *x, const bf16 *w, const int *tokens, const int *picked, int width, int n) { embed(x, w, tokens, picked, width, n); }
extern "C" __global__ void embed_i8(float *x, const int8_t *w, const float *scale, const int *tokens, const int *picked, int width, int n) {
  let_next_start();
  wait_for_inputs();
  if (blockIdx.x >= n) return;
  const size_t t = blockIdx.x, row = token(tokens, picked);
  for (int i = threadIdx.x; i < width; i += blockDim.x) x[t * width + i] = float(w[row * width + i]) * scale[row];
}

// rms_norm: y[r] = x[rows[r]] / rms · weight; rows may be null: then row r.
// grid (rows).
template <typename T> __device__ void rms_norm(T *y, const float *x, const float *weight, const int *rows, int width, float eps) {
  __shared__ float red[32];
  let_next_start();
  wait_for_inputs();
  const size_t r = blockIdx.x;
  const float4 *in = reinterpret_cast<const float4 *>(x + (size_t)(rows ? rows[r] : r) * width);
  float squares = 0;
  for (int i = threadIdx.x; i < width / 4; i += blockDim.x) {
    const float4 v = in[i];
    squares += v.x * v.x + v.y * v.y + v.z * v.z + v.w * v.w;
  }
  const float inverse = rsqrtf(block_sum(squares, red) / width + eps);
  for (int i = threadIdx.x; i < width / 4; i += blockDim.x) {
    const float4 v = in[i], w = reinterpret_cast<const float4 *>(weight)[i];
    reinterpret_cast<uint2 *>(y + r * width)[i] = {pack2<T>(v.x * inverse * w.x, v.y * inverse * w.y), pack2<T>(v.z * inverse * w.z, v.w * inverse * w.w)};
  }
}
extern "C" __global__ void rms_norm_f16(f16 *y, const float *x, const float *w, const int *rows, int width, float eps) { rms_norm(y, x, w, rows, width, eps); }
extern "C" __global__ void rms_norm_bf16(bf16 *y, const float *x, const float *w, const int *rows, int width, float eps) { rms_norm(y, x, w, rows, width, eps); }

// gather: y[r] = x[rows[r]] in float32. grid (rows).
extern "C" __global__ void gather(float *y, const float *x, const int *rows, int width) {
  let_next_start();
  wait_for_inputs();
  for (int i = threadIdx.x; i < width; i += blockDim.x) y[(size_t)blockIdx.x * width + i] = x[(size_t)rows[blockIdx.x] * width + i];
}

// rope_store: for every token, biases are added to q, k and v, q and k are
// normed per head (Qwen 3) and turned by the token's position; q stays in
// place, k and v go to the token's slot of the cache (layout (block, KV head,
// 16, dim)): as 16 bits, or as int8 + 128 with a scale for each head (block, KV
// head, 16). A slot below 0 is padding. grid (tokens, parts), 256 threads;
// shared memory holds the token's sines and cosines and a head for each warp:
// 9·dim floats.

// Cache is where keys and values of type C go.
template <typename C> struct Cache {
  C *keys, *values;
  float *key_scales, *value_scales; // of int8
  int slot, heads, kv_heads;
  // A head's place, in heads from the beginning of keys or values.
  __device__ __forceinline__ size_t at(int h) const { return ((size_t)(slot / kBlock) * kv_heads + (h - heads) % kv_heads) * kBlock + slot % kBlock; }
  __device__ __forceinline__ C *head(int h, int dim) const { return (h < heads + kv_heads ? keys : values) + at(h) * dim; }
  __device__ __forceinline__ float &scale(int h) const { return (h < heads + kv_heads ? key_scales : value_scales)[at(h)]; }
};

// int8_of is what a number is of a scale's inverse.
__device__ __forceinline__ uint32_t int8_of(float v, float inverse) { return uint32_t(__float2int_rn(v * inverse) + 128); }
__device__ __forceinline__ uint2 int8s_of(const float *v, float inverse) {
  uint32_t w[2] = {};
#pragma unroll
  for (int j = 0; j < 8; j++) w[j / 4] |= int8_of(v[j], inverse) << (j % 4 * 8);
  return make_uint2(w[0], w[1]);
}

// Without norms: a thread turns eight pairs of a head, or moves 16 values.
template <typename T, typename C>
__device__ __forceinline__ void rope_store_plain(T *qkv, const Cache<C> &cache, const float *bias, const float *turn, int dim, int halves) {
  const int heads = cache.heads, kv_heads = cache.kv_heads;
  const int parts = dim / 16, work = (heads + 2 * kv_heads) * parts;
  for (int i = blockIdx.y * blockDim.x + threadIdx.x; i < work; i += blockDim.x * gridDim.y) {
    const int h = i / parts, c = i % parts;
    const int a = halves ? c * 8 : c * 16, b = halves ? a + dim / 2 : a + 8; // the dimensions from which on there are eight
    T *row = qkv + ((size_t)blockIdx.x * (heads + 2 * kv_heads) + h) * dim, *to = row;
    float x[8], y[8];
    unpack8<T>(*reinterpret_cast<const uint4 *>(row + a), x);
    unpack8<T>(*reinterpret_cast<const uint4 *>(row + b), y);
    if (bias)
#pragma unroll
      for (int j = 0; j < 8; j++) x[j] += bias[h * dim + a + j], y[j] += bias[h * dim + b + j];
    if (h < heads + kv_heads)
#pragma unroll
      for (int j = 0; j < 8; j++) {
        // Neighbours: x and y are 16 in a row, pair j is 2j and 2j + 1 of them.
        float &first = halves ? x[j] : j < 4 ? x[2 * j % 8] : y[2 * j % 8], &second = halves ? y[j] : j < 4 ? x[(2 * j + 1) % 8] : y[(2 * j + 1) % 8];
        const float sin = turn[c * 8 + j], cos = turn[dim / 2 + c * 8 + j], f = first, s = second;
        first = f * cos - s * sin, second = f * sin + s * cos;
      }
    if (sizeof(C) == 1 && h >= heads) { // the threads of a head, of which there are 2, 4, 8 or 16, are neighbours in a warp
      const int lane = threadIdx.x & 31;
      const unsigned together = ((1u << parts) - 1) << (lane & ~(parts - 1));
      float top = 0;
#pragma unroll
      for (int j = 0; j < 8; j++) top = fmaxf(top, fmaxf(fabsf(x[j]), fabsf(y[j])));
      for (int o = 1; o < parts; o *= 2) top = fmaxf(top, __shfl_xor_sync(together, top, o));
      const float inverse = top > 0 ? 127.f / top : 0.f;
      C *stored = cache.head(h, dim);
      *reinterpret_cast<uint2 *>(stored + a) = int8s_of(x, inverse);
      *reinterpret_cast<uint2 *>(stored + b) = int8s_of(y, inverse);
      if (c == 0) cache.scale(h) = top / 127.f;
      continue;
    }
    if (h >= heads) to = reinterpret_cast<T *>(cache.head(h, dim));
    *reinterpret_cast<uint4 *>(to + a) = make_uint4(pack2<T>(x[0], x[1]), pack2<T>(x[2], x[3]), pack2<T>(x[4], x[5]), pack2<T>(x[6], x[7]));
    *reinterpret_cast<uint4 *>(to + b) = make_uint4(pack2<T>(y[0], y[1]), pack2<T>(y[2], y[3]), pack2<T>(y[4], y[5]), pack2<T>(y[6], y[7]));
  }
}

template <typename T, typename C>
__device__ void rope_store(T *qkv, C *keys, C *values, float *key_scales, float *value_scales, const float *bias, const float *q_norm, const float *k_norm, const float *inverse,
                           const int *positions, const int *slots, int heads, int kv_heads, int dim, int halves, float eps) {
  extern __shared__ float turn[];
  const int t = blockIdx.x, lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  float *head = turn + dim * (1 + warp);
  let_next_start();
  const int slot = slots[t];
  if (slot < 0) return;
  for (int i = threadIdx.x; i < dim / 2; i += blockDim.x) sincosf(float(positions[t]) * inverse[i], turn + i, turn + dim / 2 + i);
  __syncthreads();
  wait_for_inputs();
  const Cache<C> cache{keys, values, key_scales, value_scales, slot, heads, kv_heads};
  if (!q_norm && !k_norm && dim % 16 == 0) {
    rope_store_plain(qkv, cache, bias, turn, dim, halves);
    return;
  }
  for (int h = blockIdx.y * 8 + warp; h < heads + 2 * kv_heads; h += 8 * gridDim.y) {
    T *row = qkv + ((size_t)t * (heads + 2 * kv_heads) + h) * dim;
    float squares = 0;
    for (int d = lane; d < dim; d += 32) {
      const float v = to_float(row[d]) + (bias ? bias[h * dim + d] : 0.f);
      head[d] = v;
      squares += v * v;
    }
    __syncwarp();
    const bool is_value = h >= heads + kv_heads, is_key = h >= heads && !is_value;
    const float *norm = is_value ? nullptr : is_key ? k_norm : q_norm;
    if (norm) {
      const float scale = rsqrtf(warp_sum(squares) / dim + eps);
      for (int d = lane; d < dim; d += 32) head[d] *= scale * norm[d];
      __syncwarp();
    }
    if (!is_value)
      for (int i = lane; i < dim / 2; i += 32) {
        float &a = head[halves ? i : 2 * i], &b = head[halves ? i + dim / 2 : 2 * i + 1];
        const float sin = turn[i], cos = turn[dim / 2 + i], first = a, second = b;
        a = first * cos - second * sin, b = first * sin + second * cos;
      }
    __syncwarp();
    if (sizeof(C) == 1 && h >= heads) {
      float top = 0;
      for (int d = lane; d < dim; d += 32) top = fmaxf(top, fabsf(head[d]));
      top = warp_max(top);
      const float inverse = top > 0 ? 127.f / top : 0.f;
      C *to = cache.head(h, dim);
      for (int d = lane; d < dim; d += 32) to[d] = C(int8_of(head[d], inverse));
      if (lane == 0) cache.scale(h) = top / 127.f;
    } else {
      T *to = h < heads ? row : reinterpret_cast<T *>(cache.head(h, dim));
      for (int d = lane; d < dim; d += 32) to[d] = from_float<T>(head[d]);
    }
    __syncwarp();
  }
}
#define ROPE(T, NAME, C)                                                                                                                          \
  extern "C" __global__ void rope_store_##NAME(T *qkv, C *keys, C *values, float *key_scales, float *value_scales, const float *bias,             \
                                               const float *qn, const float *kn, const float *inv, const int *positions, const int *slots,        \
                                               int heads, int kv_heads, int dim, int halves, float eps) {                                         \
    rope_store(qkv, keys, values, key_scales, value_scales, bias, qn, kn, inv, positions, slots, heads, kv_heads, dim, halves, eps);              \
  }
ROPE(f16, f16, f16) ROPE(bf16, bf16, bf16) ROPE(f16, i8_f16, uint8_t) ROPE(bf16, i8_bf16, uint8_t)

// swiglu: y (tokens, width) = silu(gate) · up of gu (tokens, 2·width), gate
// first. grid (tokens, parts), eight numbers a thread.
template <typename T> __device__ void swiglu(T *y, const T *gu, int width) {
  let_next_start();
  wait_for_inputs();
  const size_t t = blockIdx.x;
  const uint4 *gate = reinterpret_cast<const uint4 *>(gu + t * 2 * width), *up = gate + width / 8;
  uint4 *out = reinterpret_cast<uint4 *>(y + t * width);
  for (int i = blockIdx.y * blockDim.x + threadIdx.x; i < width / 8; i += blockDim.x * gridDim.y) {
    float g[8], u[8];
    unpack8<T>(gate[i], g);
    unpack8<T>(up[i], u);
#pragma unroll
    for (int k = 0; k < 8; k++) g[k] = silu(g[k]) * u[k];
    out[i] = make_uint4(pack2<T>(g[0], g[1]), pack2<T>(g[2], g[3]), pack2<T>(g[4], g[5]), pack2<T>(g[6], g[7]));
  }
}
extern "C" __global__ void swiglu_f16(f16 *y, const f16 *gu, int width) { swiglu(y, gu, width); }
extern "C" __global__ void swiglu_bf16(bf16 *y, const bf16 *gu, int width) { swiglu(y, gu, width); }

// widen: y (16 bits) = int8 weights (rows, width) · their rows' scales. A thread
// has 16. grid (rows, width / 16 / threads).
template <typename T> __device__ void widen(T *y, const int8_t *w, const float *scale, int width) {
  let_next_start();
  wait_for_inputs();
  const int i = (blockIdx.y * blockDim.x + threadIdx.x) * 16;
  if (i >= width) return;
  const size_t at = (size_t)blockIdx.x * width + i;
  const uint4 v = stream16(w + at);
  const uint32_t in[4] = {v.x, v.y, v.z, v.w};
  const float s = scale[blockIdx.x];
  uint32_t out[8];
#pragma unroll
  for (int k = 0; k < 4; k++) {
    out[2 * k] = pack2<T>(int8_t(in[k]) * s, int8_t(in[k] >> 8) * s);
    out[2 * k + 1] = pack2<T>(int8_t(in[k] >> 16) * s, int8_t(in[k] >> 24) * s);
  }
  uint4 *to = reinterpret_cast<uint4 *>(y + at);
  to[0] = make_uint4(out[0], out[1], out[2], out[3]);
  to[1] = make_uint4(out[4], out[5], out[6], out[7]);
}
extern "C" __global__ void widen_f16(f16 *y, const int8_t *w, const float *s, int width) { widen(y, w, s, width); }
extern "C" __global__ void widen_bf16(bf16 *y, const int8_t *w, const float *s, int width) { widen(y, w, s, width); }

// randomize fills n 16-bit numbers with noise of about the given size: models
// of real shapes for measurements.
template <typename T> __device__ void randomize(T *y, long long n, unsigned seed, float size) {
  for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += (long long)gridDim.x * blockDim.x) {
    unsigned h = unsigned(i) * 2654435761u ^ unsigned(i >> 32) * 97u ^ seed;
    h ^= h >> 16, h *= 0x85ebca6bu, h ^= h >> 13, h *= 0xc2b2ae35u, h ^= h >> 16;
    y[i] = from_float<T>((float(h >> 8) * (1.f / 8388608.f) - 1.f) * 1.7320508f * size);
  }
}
extern "C" __global__ void randomize_f16(f16 *y, long long n, unsigned seed, float size) { randomize(y, n, seed, size); }
extern "C" __global__ void randomize_bf16(bf16 *y, long long n, unsigned seed, float size) { randomize(y, n, seed, size); }

// From here on: products of 8 bits. Rows of weights, and tokens, are int8 or
// float8 (E4M3) with a scale for each.
struct i8 {
  static constexpr float top = 127;
  __device__ __forceinline__ static uint32_t two(float a, float b) { return (uint32_t(__float2int_rn(a)) & 255) | (uint32_t(__float2int_rn(b)) & 255) << 8; }
};
struct f8 {
  static constexpr float top = 448;
  __device__ __forceinline__ static uint32_t two(float a, float b) { return __nv_cvt_float2_to_fp8x2(make_float2(a, b), __NV_SATFINITE, __NV_E4M3); }
};

// narrow_row makes 8 bits of a row, whose largest becomes the top, and returns
// what is 1 then. eight(i, f) gives numbers 8i to 8i + 7, twice.
template <typename C, typename F> __device__ __forceinline__ float narrow_row(uint2 *q, int width, float *red, F eight) {
  float top = 0, f[8];
  for (int i = threadIdx.x; i < width / 8; i += blockDim.x) {
    eight(i, f);
#pragma unroll
    for (int j = 0; j < 8; j++) top = fmaxf(top, fabsf(f[j]));
  }
  top = block_max(top, red);
  const float inverse = top > 0 ? C::top / top : 0.f;
  for (int i = threadIdx.x; i < width / 8; i += blockDim.x) {
    eight(i, f);
#pragma unroll
    for (int j = 0; j < 8; j++) f[j] *= inverse;
    q[i] = make_uint2(C::two(f[0], f[1]) | C::two(f[2], f[3]) << 16, C::two(f[4], f[5]) | C::two(f[6], f[7]) << 16);
  }
  return top / C::top;
}

// narrow: q (rows, width) = w / scale. grid (rows), as all of these.
template <typename T, typename C> __device__ void narrow(uint2 *q, float *scale, const T *w, int width) {
  __shared__ float red[32];
  let_next_start();
  wait_for_inputs();
  const size_t r = blockIdx.x, row = r * (width / 8);
  const float one = narrow_row<C>(q + row, width, red, [&](int i, float *f) { unpack8<T>(reinterpret_cast<const uint4 *>(w)[row + i], f); });
  if (threadIdx.x == 0) scale[r] = one;
}

// rms_norm_…: rms_norm as 8 bits.
template <typename C> __device__ void rms_norm8(uint2 *q, float *scale, const float *x, const float *weight, int width, float eps) {
  __shared__ float red[32];
  let_next_start();
  wait_for_inputs();
  const size_t r = blockIdx.x;
  const float4 *in = reinterpret_cast<const float4 *>(x + r * width), *norm = reinterpret_cast<const float4 *>(weight);
  float squares = 0; // of both times
  const float one = narrow_row<C>(q + r * (width / 8), width, red, [&](int i, float *f) {
    const float4 a = in[2 * i], b = in[2 * i + 1], c = norm[2 * i], d = norm[2 * i + 1];
    squares += a.x * a.x + a.y * a.y + a.z * a.z + a.w * a.w + b.x * b.x + b.y * b.y + b.z * b.z + b.w * b.w;
    f[0] = a.x * c.x, f[1] = a.y * c.y, f[2] = a.z * c.z, f[3] = a.w * c.w, f[4] = b.x * d.x, f[5] = b.y * d.y, f[6] = b.z * d.z, f[7] = b.w * d.w;
  });
  squares = block_sum(squares, red);
  if (threadIdx.x == 0) scale[r] = one * rsqrtf(squares / (2 * width) + eps);
}

// swiglu_f8: swiglu as float8.
template <typename T> __device__ void swiglu_f8(uint2 *q, float *scale, const T *gu, int width) {
  __shared__ float red[32];
  let_next_start();
  wait_for_inputs();
  const size_t t = blockIdx.x;
  const uint4 *gate = reinterpret_cast<const uint4 *>(gu + t * 2 * width), *up = gate + width / 8;
  const float one = narrow_row<f8>(q + t * (width / 8), width, red, [&](int i, float *f) {
    float u[8];
    unpack8<T>(gate[i], f);
    unpack8<T>(up[i], u);
#pragma unroll
    for (int j = 0; j < 8; j++) f[j] = silu(f[j]) * u[j];
  });
  if (threadIdx.x == 0) scale[t] = one;
}

// swiglu_i8: swiglu of the int32 sums of gate and up, as int8; scale holds the
// scales of the product's inputs, and then of what is written.
extern "C" __global__ void swiglu_i8(uint2 *q, float *scale, const int *sums, const float *rows, int width) {
  __shared__ float red[32];
  let_next_start();
  wait_for_inputs();
  const size_t t = blockIdx.x;
  const float of = scale[t];
  const int4 *gate = reinterpret_cast<const int4 *>(sums + t * 2 * width), *up = gate + width / 4;
  const float4 *gates = reinterpret_cast<const float4 *>(rows), *ups = gates + width / 4;
  const float one = narrow_row<i8>(q + t * (width / 8), width, red, [&](int i, float *f) {
#pragma unroll
    for (int k = 0; k < 2; k++) {
      const int4 g = gate[2 * i + k], u = up[2 * i + k];
      const float4 a = gates[2 * i + k], b = ups[2 * i + k];
      f[4 * k] = silu(g.x * (of * a.x)) * (u.x * (of * b.x)), f[4 * k + 1] = silu(g.y * (of * a.y)) * (u.y * (of * b.y));
      f[4 * k + 2] = silu(g.z * (of * a.z)) * (u.z * (of * b.z)), f[4 * k + 3] = silu(g.w * (of * a.w)) * (u.w * (of * b.w));
    }
  });
  if (threadIdx.x == 0) scale[t] = one;
}

#define NARROW(T, C) \
  extern "C" __global__ void narrow_##C##_##T(uint2 *q, float *s, const T *w, int width) { narrow<T, C>(q, s, w, width); }
#define NARROWED(C) \
  extern "C" __global__ void rms_norm_##C(uint2 *q, float *s, const float *x, const float *w, int width, float eps) { rms_norm8<C>(q, s, x, w, width, eps); }
NARROW(f16, i8) NARROW(bf16, i8) NARROW(f16, f8) NARROW(bf16, f8) NARROWED(i8) NARROWED(f8)
extern "C" __global__ void swiglu_f8_f16(uint2 *q, float *s, const f16 *gu, int width) { swiglu_f8(q, s, gu, width); }
extern "C" __global__ void swiglu_f8_bf16(uint2 *q, float *s, const bf16 *gu, int width) { swiglu_f8(q, s, gu, width); }

// float8: int8 weights as float8, with the same scales; 16 a thread.
extern "C" __global__ void float8(uint4 *y, const uint4 *w, long long n) {
  const long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  const uint4 v = w[i];
  const uint32_t in[4] = {v.x, v.y, v.z, v.w};
  uint32_t out[4];
#pragma unroll
  for (int k = 0; k < 4; k++) out[k] = f8::two(int8_t(in[k]), int8_t(in[k] >> 8)) | f8::two(int8_t(in[k] >> 16), int8_t(in[k] >> 24)) << 16;
  y[i] = make_uint4(out[0], out[1], out[2], out[3]);
}

// scaled: y (tokens, width) = sums · the token's scale · the row's, or is added
// to. grid (tokens, parts), four numbers a thread.
template <typename T, bool ADD> __device__ void scaled(T *y, const int *sums, const float *tokens, const float *rows, int width) {
  let_next_start();
  wait_for_inputs();
  const size_t t = blockIdx.x;
  const float of = tokens[t];
  for (int i = blockIdx.y * blockDim.x + threadIdx.x; i < width / 4; i += blockDim.x * gridDim.y) {
    const int4 v = reinterpret_cast<const int4 *>(sums + t * width)[i];
    const float4 s = reinterpret_cast<const float4 *>(rows)[i];
    const float4 f = {v.x * (of * s.x), v.y * (of * s.y), v.z * (of * s.z), v.w * (of * s.w)};
    if constexpr (ADD) {
      float4 &to = reinterpret_cast<float4 *>(y + t * width)[i];
      to = {to.x + f.x, to.y + f.y, to.z + f.z, to.w + f.w};
    } else {
      reinterpret_cast<uint2 *>(y + t * width)[i] = {pack2<T>(f.x, f.y), pack2<T>(f.z, f.w)};
    }
  }
}
extern "C" __global__ void scaled_f16_store(f16 *y, const int *sums, const float *tokens, const float *rows, int width) { scaled<f16, false>(y, sums, tokens, rows, width); }
extern "C" __global__ void scaled_bf16_store(bf16 *y, const int *sums, const float *tokens, const float *rows, int width) { scaled<bf16, false>(y, sums, tokens, rows, width); }
extern "C" __global__ void scaled_add(float *y, const int *sums, const float *tokens, const float *rows, int width) { scaled<float, true>(y, sums, tokens, rows, width); }
