// Kernels that move more than they compute: embedding, RMSNorm, RoPE with the
// write to the KV cache, SwiGLU, int8 weights back to 16 bits.
#include "common.cuh"

// embed: x[t] = the embedding of tokens[t], or where that is below 0 of what
// the step before picked: picked[−1 − tokens[t]]. grid (tokens).
__device__ __forceinline__ size_t token(const int *tokens, const int *picked) {
  const int id = tokens[blockIdx.x];
  return id < 0 ? picked[-1 - id] : id;
}
template <typename T> __device__ void embed(float *x, const T *w, const int *tokens, const int *picked, int width) {
  let_next_start();
  wait_for_inputs();
  const size_t t = blockIdx.x;
  const T *row = w + token(tokens, picked) * width;
  for (int i = threadIdx.x; i < width; i += blockDim.x) x[t * width + i] = to_float(row[i]);
}
extern "C" __global__ void embed_f16(float *x, const f16 *w, const int *tokens, const int *picked, int width) { embed(x, w, tokens, picked, width); }
extern "C" __global__ void embed_bf16(float *x, const bf16 *w, const int *tokens, const int *picked, int width) { embed(x, w, tokens, picked, width); }
extern "C" __global__ void embed_i8(float *x, const uint8_t *w, const float *scale, const int *tokens, const int *picked, int width) {
  let_next_start();
  wait_for_inputs();
  const size_t t = blockIdx.x, row = token(tokens, picked), groups = width / kGroup;
  for (int i = threadIdx.x; i < width; i += blockDim.x)
    x[t * width + i] = float(int(w[row * width + i]) - 128) * scale[row * groups + i / kGroup];
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
// 16, dim)). A slot below 0 is padding. grid (tokens, parts), 256 threads;
// shared memory holds the token's sines and cosines and a head for each warp:
// 9·dim floats.

// Where a head's key, value or query goes.
template <typename T>
__device__ __forceinline__ T *place(T *row, T *keys, T *values, int h, int slot, int heads, int kv_heads, int dim) {
  if (h < heads) return row;
  const int kv = (h - heads) % kv_heads;
  return (h < heads + kv_heads ? keys : values) + (((size_t)(slot / kBlock) * kv_heads + kv) * kBlock + slot % kBlock) * dim;
}

// Without norms: a thread turns eight pairs of a head, or moves 16 values.
template <typename T>
__device__ __forceinline__ void rope_store_plain(T *qkv, T *keys, T *values, const float *bias, const float *turn, int slot, int heads, int kv_heads, int dim,
                                                 int halves) {
  const int parts = dim / 16, work = (heads + 2 * kv_heads) * parts;
  for (int i = blockIdx.y * blockDim.x + threadIdx.x; i < work; i += blockDim.x * gridDim.y) {
    const int h = i / parts, c = i % parts;
    const int a = halves ? c * 8 : c * 16, b = halves ? a + dim / 2 : a + 8; // the dimensions from which on there are eight
    T *row = qkv + ((size_t)blockIdx.x * (heads + 2 * kv_heads) + h) * dim, *to = place(row, keys, values, h, slot, heads, kv_heads, dim);
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
    *reinterpret_cast<uint4 *>(to + a) = make_uint4(pack2<T>(x[0], x[1]), pack2<T>(x[2], x[3]), pack2<T>(x[4], x[5]), pack2<T>(x[6], x[7]));
    *reinterpret_cast<uint4 *>(to + b) = make_uint4(pack2<T>(y[0], y[1]), pack2<T>(y[2], y[3]), pack2<T>(y[4], y[5]), pack2<T>(y[6], y[7]));
  }
}

template <typename T>
__device__ void rope_store(T *qkv, T *keys, T *values, const float *bias, const float *q_norm, const float *k_norm, const float *inverse,
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
  if (!q_norm && !k_norm && dim % 16 == 0) {
    rope_store_plain(qkv, keys, values, bias, turn, slot, heads, kv_heads, dim, halves);
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
    T *to = place(row, keys, values, h, slot, heads, kv_heads, dim);
    if (is_value) {
      for (int d = lane; d < dim; d += 32) to[d] = from_float<T>(head[d]);
    } else {
      for (int i = lane; i < dim / 2; i += 32) {
        const int a = halves ? i : 2 * i, b = halves ? i + dim / 2 : 2 * i + 1;
        const float sin = turn[i], cos = turn[dim / 2 + i];
        to[a] = from_float<T>(head[a] * cos - head[b] * sin);
        to[b] = from_float<T>(head[a] * sin + head[b] * cos);
      }
    }
    __syncwarp();
  }
}
#define ROPE(T)                                                                                                                                   \
  extern "C" __global__ void rope_store_##T(T *qkv, T *keys, T *values, const float *bias, const float *qn, const float *kn, const float *inv,    \
                                            const int *positions, const int *slots, int heads, int kv_heads, int dim, int halves, float eps) {    \
    rope_store(qkv, keys, values, bias, qn, kn, inv, positions, slots, heads, kv_heads, dim, halves, eps);                                        \
  }
ROPE(f16)
ROPE(bf16)

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

// widen: y (16 bits) = int8 weights · scales; n is a multiple of 64.
template <typename T> __device__ void widen(T *y, const uint8_t *w, const float *scale, long long n) {
  let_next_start();
  wait_for_inputs();
  const long long i = ((long long)blockIdx.x * blockDim.x + threadIdx.x) * 16;
  if (i >= n) return;
  const uint4 v = stream16(w + i);
  const uint32_t in[4] = {v.x, v.y, v.z, v.w};
  const float s = scale[i / kGroup];
  uint32_t out[8];
#pragma unroll
  for (int k = 0; k < 4; k++) {
    const int a = int(in[k] & 255) - 128, b = int(in[k] >> 8 & 255) - 128, c = int(in[k] >> 16 & 255) - 128, d = int(in[k] >> 24) - 128;
    out[2 * k] = pack2<T>(a * s, b * s), out[2 * k + 1] = pack2<T>(c * s, d * s);
  }
  uint4 *to = reinterpret_cast<uint4 *>(y + i);
  to[0] = make_uint4(out[0], out[1], out[2], out[3]);
  to[1] = make_uint4(out[4], out[5], out[6], out[7]);
}
extern "C" __global__ void widen_f16(f16 *y, const uint8_t *w, const float *s, long long n) { widen(y, w, s, n); }
extern "C" __global__ void widen_bf16(bf16 *y, const uint8_t *w, const float *s, long long n) { widen(y, w, s, n); }

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

// narrow quantizes 16-bit weights to int8 + 128 with a scale for every 64.
template <typename T> __device__ void narrow(uint8_t *q, float *scale, const T *w, long long groups) {
  const long long g = (long long)blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
  const int lane = threadIdx.x & 31;
  if (g >= groups) return;
  const float a = to_float(w[g * kGroup + lane]), b = to_float(w[g * kGroup + 32 + lane]);
  const float top = warp_max(fmaxf(fabsf(a), fabsf(b))), inverse = top > 0 ? 127.f / top : 0.f;
  q[g * kGroup + lane] = uint8_t(__float2int_rn(a * inverse) + 128);
  q[g * kGroup + 32 + lane] = uint8_t(__float2int_rn(b * inverse) + 128);
  if (lane == 0) scale[g] = top / 127.f;
}
extern "C" __global__ void narrow_f16(uint8_t *q, float *s, const f16 *w, long long groups) { narrow(q, s, w, groups); }
extern "C" __global__ void narrow_bf16(uint8_t *q, float *s, const bf16 *w, long long groups) { narrow(q, s, w, groups); }
