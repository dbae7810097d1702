// Products with weight matrices (rows, cols), row after row. gemv reads each
// weight once for one token or two, at the memory's speed; skinny does so for
// up to 64 on tensor cores (mma.sync); gemm is for more, where cuBLASLt is not
// found.
#include "common.cuh"

// What becomes of a product's result.
enum Out { kStore, kAdd, kFloat, kSwiGLU, kSums, kTurn }; // 16 bits; added to float32; float32; silu(row) · (row + rows); int32; RoPE, and to the cache

// Weights (rows, cols) of 16 bits, and of int8 with a scale for each row. Of 16 bytes,
// which are n numbers, eight() makes numbers from to from + 7 floats.
template <typename T> struct Plain {
  static constexpr int n = 8;
  const T *w;
  __device__ __forceinline__ Plain(const T *w, const float *) : w(w) {}
  __device__ __forceinline__ const T *at(size_t row, int cols, int k) const { return w + row * cols + k; }
  __device__ __forceinline__ float scale(size_t) const { return 1.f; }
  __device__ __forceinline__ static void eight(const uint4 &v, int, float *f) { unpack8<T>(v, f); }
};
// four_of makes floats of four int8. 2²³ + u is a float whose last byte is u: no slow
// conversion is needed.
__device__ __forceinline__ void four_of(uint32_t w, float *f) {
  w ^= 0x80808080u; // u is the number + 128
  f[0] = __uint_as_float(__byte_perm(w, 0x4b000000u, 0x7440)) - 8388736.f;
  f[1] = __uint_as_float(__byte_perm(w, 0x4b000000u, 0x7441)) - 8388736.f;
  f[2] = __uint_as_float(__byte_perm(w, 0x4b000000u, 0x7442)) - 8388736.f;
  f[3] = __uint_as_float(__byte_perm(w, 0x4b000000u, 0x7443)) - 8388736.f;
}
struct Int8 {
  static constexpr int n = 16;
  const int8_t *w;
  const float *s;
  __device__ __forceinline__ Int8(const int8_t *w, const float *s) : w(w), s(s) {}
  __device__ __forceinline__ const int8_t *at(size_t row, int cols, int k) const { return w + row * cols + k; }
  __device__ __forceinline__ float scale(size_t row) const { return __ldg(s + row); }
  __device__ __forceinline__ static void eight(const uint4 &v, int from, float *f) { four_of(from ? v.z : v.x, f), four_of(from ? v.w : v.y, f + 4); }
};

// stage brings the inputs of N tokens to shared memory as 16-bit numbers, from
// 16-bit ones, or from float32 ones with RMSNorm. Before it waits for them it has
// the norm's weights come, which are in no cache by then.
template <typename T, int N> __device__ void stage(T *xs, const void *x, const float *norm, int cols, float eps) {
  __shared__ float red[N][32];
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = blockDim.x >> 5, n = cols / 4;
  const float4 *weights = reinterpret_cast<const float4 *>(norm);
  float4 held[2]; // of weights, and then of inputs: with 512 threads those of 4096 columns
#pragma unroll
  for (int k = 0; k < 2; k++)
    if (norm && threadIdx.x + k * blockDim.x < n) held[k] = weights[threadIdx.x + k * blockDim.x];
  wait_for_inputs();
#pragma unroll
  for (int t = 0; t < N; t++) {
    if (!norm) {
      const uint4 *in = reinterpret_cast<const uint4 *>(static_cast<const T *>(x) + (size_t)t * cols);
      for (int i = threadIdx.x; i < cols / 8; i += blockDim.x) reinterpret_cast<uint4 *>(xs + t * cols)[i] = in[i];
      continue;
    }
    const float4 *in = reinterpret_cast<const float4 *>(static_cast<const float *>(x) + (size_t)t * cols);
    float4 v[2];
    float squares = 0;
#pragma unroll
    for (int k = 0; k < 2; k++) {
      const int i = threadIdx.x + k * blockDim.x;
      v[k] = i < n ? in[i] : make_float4(0, 0, 0, 0);
      squares += v[k].x * v[k].x + v[k].y * v[k].y + v[k].z * v[k].z + v[k].w * v[k].w;
    }
    for (int i = threadIdx.x + 2 * blockDim.x; i < n; i += blockDim.x) {
      const float4 v = in[i];
      squares += v.x * v.x + v.y * v.y + v.z * v.z + v.w * v.w;
    }
    squares = warp_sum(squares);
    if (lane == 0) red[t][warp] = squares;
    __syncthreads();
    const float inverse = rsqrtf(warp_sum(lane < warps ? red[t][lane] : 0.f) / cols + eps);
    auto put = [&](int i, const float4 &v, const float4 &w) {
      reinterpret_cast<uint2 *>(xs + t * cols)[i] = {pack2<T>(v.x * inverse * w.x, v.y * inverse * w.y), pack2<T>(v.z * inverse * w.z, v.w * inverse * w.w)};
    };
#pragma unroll
    for (int k = 0; k < 2; k++)
      if (threadIdx.x + k * blockDim.x < n) put(threadIdx.x + k * blockDim.x, v[k], held[k]);
    for (int i = threadIdx.x + 2 * blockDim.x; i < n; i += blockDim.x) put(i, in[i], weights[i]);
  }
  __syncthreads();
}

// Turn is what becomes of queries, keys and values at once: what rope_store does
// without norms, for a cache of 16 bits. A product's line is then a pair of rows.
template <typename T> struct Turn {
  Cache<T> cache; // but for the slot
  const float *bias, *inverse;
  const int *positions, *slots;
  int dim, halves;
  __device__ __forceinline__ int row(int line, int r) const {
    const int per = dim / 2, i = line % per;
    return line / per * dim + (halves ? i + r * per : 2 * i + r);
  }
  __device__ __forceinline__ void angle(int t, int line, float &sin, float &cos) const {
    sin = 0, cos = 1; // of values
    if (line < (cache.heads + cache.kv_heads) * dim / 2) sincosf(float(positions[t]) * inverse[line % (dim / 2)], &sin, &cos);
  }
  __device__ __forceinline__ void put(T *qkv, int t, int line, float a, float b, float sin, float cos) const {
    const int first = row(line, 0), second = row(line, 1), h = first / dim, all = (cache.heads + 2 * cache.kv_heads) * dim;
    if (bias) a += bias[first], b += bias[second];
    T *to = qkv + (size_t)t * all + h * dim;
    if (h >= cache.heads) {
      Cache<T> own = cache;
      own.slot = slots[t];
      if (own.slot < 0) return;
      to = own.head(h, dim);
    }
    to[first % dim] = from_float<T>(a * cos - b * sin), to[second % dim] = from_float<T>(a * sin + b * cos);
  }
};

// gemv: y[t][row] for N tokens, by one block on each processor. Each warp takes rows
// warp·grid + block, so that few rows are spread over all processors; where one token
// has less rows than half of the warps, two share a row's columns. A lane has 16
// bytes at a time of its own copied to shared memory, S ahead, of which the first are
// asked for before the inputs are waited for: so few registers and so much less than
// all shared memory are taken that the next kernels start while this one runs, and
// have their weights come while nobody else has a use for the memory.
template <typename T, typename W, int N, int OUT, int S>
__device__ __forceinline__ void gemv(uint4 *shared, void *y, const W weights, const void *x, const float *norm, int rows, int cols, float eps, const Turn<T> turn) {
  constexpr int R = OUT == kSwiGLU || OUT == kTurn ? 2 : 1, C = W::n, U = S / R;
  __shared__ float sums[16][R];
  uint4 *own = shared + threadIdx.x; // (S, threads), then the inputs
  T *xs = reinterpret_cast<T *>(shared + S * blockDim.x);
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = blockDim.x >> 5;
  const int parts = N == 1 && OUT != kTurn && 2 * rows <= int(warps * gridDim.x) && cols % (2 * C) == 0 ? 2 : 1;
  const int stride = warps / parts * gridDim.x, begin = warp % parts * (cols / parts), end = begin + cols / parts;
  const int first = warp / parts * gridDim.x + blockIdx.x;
  auto row_of = [&](int line, int r) { return (size_t)(OUT == kTurn ? turn.row(line, r) : line + r * rows); };
  int place = 0, line = first, at = begin; // of what is asked for next
  auto ask = [&] {
    if (line < rows) {
      const bool valid = at + lane * C < end;
#pragma unroll
      for (int r = 0; r < R; r++) copy16(own + (place * R + r) * blockDim.x, weights.at(row_of(line, r), cols, valid ? at + lane * C : 0), valid);
    }
    copies_commit();
    place = place + 1 == U ? 0 : place + 1;
    at += 32 * C;
    if (at >= end) line += stride, at = begin;
  };
  auto put = [&](int t, int row, float before, float a, float b) {
    const size_t to = (size_t)t * rows + row;
    if (OUT == kStore) static_cast<T *>(y)[to] = from_float<T>(a);
    if (OUT == kAdd) static_cast<float *>(y)[to] = before + a;
    if (OUT == kFloat) static_cast<float *>(y)[to] = a;
    if (OUT == kSwiGLU) static_cast<T *>(y)[to] = from_float<T>(silu(a) * b);
  };
  let_next_start();
#pragma unroll
  for (int u = 0; u < U - 1; u++) ask();
  float scale[R], sin[N], cos[N]; // of this line
  auto prepare = [&](int line) {
#pragma unroll
    for (int r = 0; r < R; r++) scale[r] = line < rows ? weights.scale(row_of(line, r)) : 0.f;
    if (OUT == kTurn)
#pragma unroll
      for (int t = 0; t < N; t++) turn.angle(t, line, sin[t], cos[t]);
  };
  prepare(first);
  stage<T, N>(xs, x, norm, cols, eps);
  int now = 0;
  for (int row = first; row < rows; row += stride) {
    float sum[R][N] = {}, before[N];
#pragma unroll
    for (int t = 0; t < N; t++) before[t] = OUT == kAdd && lane == 0 ? static_cast<const float *>(y)[(size_t)t * rows + row] : 0.f;
    for (int k = begin; k < end; k += 32 * C) {
      copies_wait<U - 2>();
      uint4 v[R];
#pragma unroll
      for (int r = 0; r < R; r++) v[r] = own[(now * R + r) * blockDim.x];
      now = now + 1 == U ? 0 : now + 1;
      ask(); // to the place that was read the time before
      const T *in = xs + (k + lane * C < end ? k + lane * C : 0);
#pragma unroll
      for (int c = 0; c < C; c += 8) {
        float f[N][8];
#pragma unroll
        for (int t = 0; t < N; t++) unpack8<T>(*reinterpret_cast<const uint4 *>(in + (size_t)t * cols + c), f[t]);
#pragma unroll
        for (int r = 0; r < R; r++) {
          float w[8];
          W::eight(v[r], c, w);
#pragma unroll
          for (int t = 0; t < N; t++) {
            float part = 0;
#pragma unroll
            for (int i = 0; i < 8; i++) part = fmaf(w[i], f[t][i], part);
            sum[r][t] += part;
          }
        }
      }
    }
#pragma unroll
    for (int t = 0; t < N; t++) {
      const float a = warp_sum(sum[0][t]) * scale[0];
      const float b = R == 2 ? warp_sum(sum[R - 1][t]) * scale[R - 1] : 0.f;
      if (lane) continue;
      if (OUT == kTurn) turn.put(static_cast<T *>(y), t, row, a, b, sin[t], cos[t]);
      else if (parts == 1) put(t, row, before[t], a, b);
      else sums[warp][0] = a, sums[warp][R - 1] = R == 2 ? b : a;
    }
    prepare(row + stride);
  }
  copies_wait<0>();
  if (parts == 1) return;
  __syncthreads(); // a warp had one row at most
  if (warp % 2 == 0 && lane == 0 && first < rows)
    put(0, first, OUT == kAdd ? static_cast<const float *>(y)[first] : 0.f, sums[warp][0] + sums[warp + 1][0], sums[warp][R - 1] + sums[warp + 1][R - 1]);
}

// stage8 brings the inputs of N tokens, normed or not, to shared memory as int8 digits:
// a number is the whole number q of a token's unit, and q = 65536·high + 256·middle +
// low, each of them a plane (3·N, cols + 64). The largest is 2²², so that less is lost
// than by 16 bits.
template <typename T, int N> __device__ void stage8(int8_t *planes, float *units, const void *x, const float *norm, int cols, float eps) {
  constexpr int H = 4; // that many times four numbers stay in registers
  __shared__ float squares_of[N][32], top_of[N][32];
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = blockDim.x >> 5, n = cols / 4, pitch = cols + 64;
  float4 w[H];
  auto weight = [&](int i) { return norm ? reinterpret_cast<const float4 *>(norm)[i] : make_float4(1, 1, 1, 1); };
#pragma unroll
  for (int k = 0; k < H; k++)
    if (threadIdx.x + k * blockDim.x < n) w[k] = weight(threadIdx.x + k * blockDim.x);
  wait_for_inputs();
#pragma unroll
  for (int t = 0; t < N; t++) {
    float squares = 0, top = 0;
    auto four = [&](int i, const float4 &w) {
      float4 v;
      if (norm) {
        v = reinterpret_cast<const float4 *>(static_cast<const float *>(x) + (size_t)t * cols)[i];
      } else {
        const uint2 u = reinterpret_cast<const uint2 *>(static_cast<const T *>(x) + (size_t)t * cols)[i];
        const float2 a = unpack2<T>(u.x), b = unpack2<T>(u.y);
        v = make_float4(a.x, a.y, b.x, b.y);
      }
      squares += v.x * v.x + v.y * v.y + v.z * v.z + v.w * v.w;
      v = make_float4(v.x * w.x, v.y * w.y, v.z * w.z, v.w * w.w);
      top = fmaxf(top, fmaxf(fmaxf(fabsf(v.x), fabsf(v.y)), fmaxf(fabsf(v.z), fabsf(v.w))));
      return v;
    };
    float4 v[H];
#pragma unroll
    for (int k = 0; k < H; k++)
      if (threadIdx.x + k * blockDim.x < n) v[k] = four(threadIdx.x + k * blockDim.x, w[k]);
    for (int i = threadIdx.x + H * blockDim.x; i < n; i += blockDim.x) four(i, weight(i));
    squares = warp_sum(squares), top = warp_max(top);
    if (lane == 0) squares_of[t][warp] = squares, top_of[t][warp] = top;
    __syncthreads();
    squares = warp_sum(lane < warps ? squares_of[t][lane] : 0.f), top = warp_max(lane < warps ? top_of[t][lane] : 0.f);
    const float per = top > 0 ? 4194304.f / top : 0.f;
    if (threadIdx.x == 0) units[t] = top / 4194304.f * (norm ? rsqrtf(squares / cols + eps) : 1.f);
    auto put = [&](int i, const float4 &v) {
      const float f[4] = {v.x, v.y, v.z, v.w};
      uint32_t low = 0, middle = 0, high = 0;
#pragma unroll
      for (int j = 0; j < 4; j++) {
        const int q = __float2int_rn(f[j] * per), a = int8_t(q), r = (q - a) >> 8, b = int8_t(r);
        low |= uint32_t(a & 255) << 8 * j, middle |= uint32_t(b & 255) << 8 * j, high |= uint32_t((r - b) >> 8 & 255) << 8 * j;
      }
      uint32_t *to = reinterpret_cast<uint32_t *>(planes + (size_t)3 * t * pitch) + i;
      to[0] = low, to[pitch / 4] = middle, to[pitch / 2] = high;
    };
#pragma unroll
    for (int k = 0; k < H; k++)
      if (threadIdx.x + k * blockDim.x < n) put(threadIdx.x + k * blockDim.x, v[k]);
    for (int i = threadIdx.x + H * blockDim.x; i < n; i += blockDim.x) put(i, four(i, weight(i)));
  }
  __syncthreads();
}

// gemv8: gemv of several tokens with int8 weights, on tensor cores, so that weights
// need no conversion.
// A block computes 16 rows at a time (8 lines of two), whose columns its warps share
// out among themselves, 64 at a time; of the 8 columns of a product's result three are
// the digits of one token. Sums are whole numbers: their order does not matter. As in
// skinny, which of a product's columns a lane's 16 bytes are does not matter.
template <typename T, int N, int OUT, int S>
__device__ __forceinline__ void gemv8(uint4 *shared, void *y, const Int8 weights, const void *x, const float *norm, int rows, int cols, float eps, const Turn<T> turn) {
  constexpr int R = OUT == kSwiGLU || OUT == kTurn ? 2 : 1, each = 16 / R, U = S / 2;
  __shared__ int sums[2][3 * N][16];
  __shared__ float units[N];
  uint4 *own = shared + threadIdx.x; // (S, threads), then the inputs
  int8_t *planes = reinterpret_cast<int8_t *>(shared + S * blockDim.x);
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = blockDim.x >> 5, r = lane >> 2, quad = lane & 3;
  const int groups = (rows + each - 1) / each, tiles = (cols + 63) / 64, pitch = cols + 64;
  auto row_of = [&](int line, int second) { return (size_t)(OUT == kTurn ? turn.row(line, second) : line + second * rows); };
  int place = 0, group = blockIdx.x, tile = warp; // of what is asked for next
  auto ask = [&] {
    if (tile < tiles && group < groups) {
      const int at = tile * 64 + quad * 16;
#pragma unroll
      for (int h = 0; h < 2; h++) {
        const int line = group * each + r + (R == 1 ? 8 * h : 0);
        const bool valid = at < cols && line < rows;
        copy16(own + (place * 2 + h) * blockDim.x, valid ? weights.at(row_of(line, R == 2 ? h : 0), cols, at) : weights.w, valid);
      }
    }
    copies_commit();
    place = place + 1 == U ? 0 : place + 1;
    tile += warps;
    if (tile >= tiles) group += gridDim.x, tile = warp;
  };
  let_next_start();
#pragma unroll
  for (int u = 0; u < U - 1; u++) ask();
  for (int i = threadIdx.x; i < 2 * 3 * N * 16; i += blockDim.x) (&sums[0][0][0])[i] = 0;
  // The first threads bring sums to their end: of a line and a token each.
  const int t = threadIdx.x / each, slot = threadIdx.x % each;
  const bool ends = t < N;
  float scale[R], sin, cos;
  auto prepare = [&](int line) {
#pragma unroll
    for (int h = 0; h < R; h++) scale[h] = ends && line < rows ? weights.s[row_of(line, h)] : 0.f;
    if (OUT == kTurn && ends) turn.angle(t, line, sin, cos);
  };
  prepare(blockIdx.x * each + slot);
  stage8<T, N>(planes, units, x, norm, cols, eps);
  int now = 0, buffer = 0;
  for (int g = blockIdx.x; g < groups; g += gridDim.x, buffer ^= 1) {
    const int line = g * each + slot;
    const size_t to = (size_t)t * rows + line;
    const float before = OUT == kAdd && ends && line < rows ? static_cast<const float *>(y)[to] : 0.f;
    int acc[4] = {};
    for (int k = warp; k < tiles; k += warps) {
      copies_wait<U - 2>();
      const uint4 a = own[now * 2 * blockDim.x], b = own[(now * 2 + 1) * blockDim.x];
      now = now + 1 == U ? 0 : now + 1;
      ask(); // to the place that was read the time before
      const uint4 d = r < 3 * N ? *reinterpret_cast<const uint4 *>(planes + r * pitch + k * 64 + quad * 16) : make_uint4(0, 0, 0, 0);
      const uint32_t w0[4] = {a.x, b.x, a.y, b.y}, w1[4] = {a.z, b.z, a.w, b.w}, d0[2] = {d.x, d.y}, d1[2] = {d.z, d.w};
      mma8(acc, w0, d0);
      mma8(acc, w1, d1);
    }
#pragma unroll
    for (int j = 0; j < 4; j++)
      if (quad * 2 + j % 2 < 3 * N && warp < tiles) atomicAdd(&sums[buffer][quad * 2 + j % 2][r + j / 2 * 8], acc[j]);
    __syncthreads();
    if (ends) {
      float v[R];
#pragma unroll
      for (int h = 0; h < R; h++) {
        int *digits = &sums[buffer][3 * t][slot + 8 * h];
        v[h] = (float(digits[0]) + 256.f * float(digits[16]) + 65536.f * float(digits[32])) * (units[t] * scale[h]);
        digits[0] = digits[16] = digits[32] = 0; // for the group after the next
      }
      if (line < rows) {
        if (OUT == kStore) static_cast<T *>(y)[to] = from_float<T>(v[0]);
        if (OUT == kAdd) static_cast<float *>(y)[to] = before + v[0];
        if (OUT == kFloat) static_cast<float *>(y)[to] = v[0];
        if (OUT == kSwiGLU) static_cast<T *>(y)[to] = from_float<T>(silu(v[0]) * v[R - 1]);
        if (OUT == kTurn) turn.put(static_cast<T *>(y), t, line, v[0], v[R - 1], sin, cos);
      }
      prepare(line + gridDim.x * each);
    }
  }
  copies_wait<0>();
}

// One token's products with int8 weights are quicker without tensor cores.
template <typename T, typename W, int N, int OUT, int S>
__device__ __forceinline__ void product(void *y, const W weights, const void *x, const float *norm, int rows, int cols, float eps, const Turn<T> turn = {}) {
  extern __shared__ uint4 shared[];
  if constexpr (W::n == 16 && N > 1) gemv8<T, N, OUT, S>(shared, y, weights, x, norm, rows, cols, eps, turn);
  else gemv<T, W, N, OUT, S>(shared, y, weights, x, norm, rows, cols, eps, turn);
}
#define GEMV(T, WT, W, KIND, N, S, NAME, OUT)                                                                                                          \
  extern "C" __global__ void __launch_bounds__(512, 2) gemv##S##_##KIND##_##N##_##NAME(void *y, const WT *w, const float *s, const void *x,            \
                                                                                       const float *norm, int rows, int cols, float eps) {             \
    product<T, W, N, OUT, S>(y, W(w, s), x, norm, rows, cols, eps);                                                                                    \
  }
#define GEMV_TURN(T, WT, W, KIND, N, S)                                                                                                                \
  extern "C" __global__ void __launch_bounds__(512, 2) gemv##S##_##KIND##_##N##_turn(                                                                  \
      T *y, const WT *w, const float *s, const void *x, const float *norm, int cols, float eps, T *keys, T *values, const float *bias,                 \
      const float *inverse, const int *positions, const int *slots, int heads, int kv_heads, int dim, int halves) {                                    \
    product<T, W, N, kTurn, S>(y, W(w, s), x, norm, (heads + 2 * kv_heads) * dim / 2, cols, eps,                                                       \
                               Turn<T>{{keys, values, nullptr, nullptr, 0, heads, kv_heads}, bias, inverse, positions, slots, dim, halves});           \
  }
#define GEMVS(T, WT, W, KIND, N, S)                                                                                                                    \
  GEMV(T, WT, W, KIND, N, S, store, kStore) GEMV(T, WT, W, KIND, N, S, add, kAdd) GEMV(T, WT, W, KIND, N, S, float, kFloat)                            \
  GEMV(T, WT, W, KIND, N, S, swiglu, kSwiGLU) GEMV_TURN(T, WT, W, KIND, N, S)
#define GEMVS_OF(T, N, S) GEMVS(T, T, Plain<T>, T, N, S) GEMVS(T, int8_t, Int8, i8_##T, N, S)
#define GEMVS_ALL(T) GEMVS_OF(T, 1, 6) GEMVS_OF(T, 1, 4) GEMVS_OF(T, 2, 6) GEMVS_OF(T, 2, 4)
GEMVS_ALL(f16) GEMVS_ALL(bf16)

// skinny: y[t][row] for 8·NT tokens or fewer on tensor cores, weights straight
// from memory to registers. A block has 16 rows (SwiGLU: 8 of gate and the 8 of
// up that belong to them) and its 8 warps share the columns out among
// themselves. A lane's 16 bytes are one row's next columns; which of a product's
// columns they are does not matter, as long as the inputs are taken the same
// way. x has room for 8·NT rows. grid (rows / 16).
template <typename T> __device__ __forceinline__ void halves8(const uint4 &v, uint32_t *out) {
  const uint32_t w[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
  for (int i = 0; i < 4; i++) {
    float f[4];
    four_of(w[i], f);
    out[2 * i] = pack2<T>(f[0], f[1]), out[2 * i + 1] = pack2<T>(f[2], f[3]);
  }
}
__device__ __forceinline__ void halves(const uint4 &v, uint32_t *out) { out[0] = v.x, out[1] = v.y, out[2] = v.z, out[3] = v.w; }
template <typename T, bool INT8, int NT, int OUT>
__device__ void skinny(void *y, const void *w, const float *s, const T *x, int tokens, int rows, int cols) {
  constexpr int C = INT8 ? 16 : 8, U = NT > 2 ? 2 : 4; // columns a lane reads at once; loads under way for each row
  __shared__ float sums[8][16][8 * NT + 1];
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, r = lane >> 2, quad = lane & 3;
  const int each = OUT == kSwiGLU ? 8 : 16;
  const size_t row0 = min(rows - 1, int(blockIdx.x) * each + r); // beyond the last: read again, not written
  const size_t row1 = OUT == kSwiGLU ? row0 + rows : min(rows - 1, int(blockIdx.x) * each + r + 8);
  const int size = INT8 ? 1 : 2, step = 4 * C, chunk = step * U;
  const char *w0 = static_cast<const char *>(w) + row0 * cols * size, *w1 = static_cast<const char *>(w) + row1 * cols * size;
  uint4 v[2][U];
  auto fetch = [&](int k) {
#pragma unroll
    for (int u = 0; u < U; u++) {
      const int at = k + u * step + quad * C;
      const bool valid = at < cols;
      v[0][u] = valid ? stream16(w0 + (size_t)at * size) : make_uint4(0, 0, 0, 0);
      v[1][u] = valid ? stream16(w1 + (size_t)at * size) : make_uint4(0, 0, 0, 0);
    }
  };
  let_next_start();
  fetch(warp * chunk);
  wait_for_inputs();
  float acc[NT][4] = {};
  for (int k = warp * chunk; k < cols; k += 8 * chunk) {
#pragma unroll
    for (int u = 0; u < U; u++) {
      const int at = k + u * step + quad * C;
      if (k + u * step >= cols) break;
      uint32_t a0[C / 2], a1[C / 2];
      if (INT8) {
        halves8<T>(v[0][u], a0), halves8<T>(v[1][u], a1); // exact; a row's scale comes after its sum
      } else {
        halves(v[0][u], a0), halves(v[1][u], a1);
      }
#pragma unroll
      for (int n = 0; n < NT; n++) {
        const bool live = n * 8 + r < tokens && at < cols;
        uint32_t b[C / 2];
#pragma unroll
        for (int c = 0; c < C / 8; c++) {
          const uint4 in = live ? *reinterpret_cast<const uint4 *>(x + (size_t)(n * 8 + r) * cols + at + c * 8) : make_uint4(0, 0, 0, 0);
          b[4 * c] = in.x, b[4 * c + 1] = in.y, b[4 * c + 2] = in.z, b[4 * c + 3] = in.w;
        }
#pragma unroll
        for (int c = 0; c < C / 4; c++) {
          const uint32_t a[4] = {a0[2 * c], a1[2 * c], a0[2 * c + 1], a1[2 * c + 1]}, bb[2] = {b[2 * c], b[2 * c + 1]};
          mma<T>(acc[n], a, bb);
        }
      }
    }
    fetch(k + 8 * chunk);
  }
#pragma unroll
  for (int n = 0; n < NT; n++)
#pragma unroll
    for (int i = 0; i < 4; i++) sums[warp][r + i / 2 * 8][n * 8 + quad * 2 + i % 2] = acc[n][i];
  __syncthreads();
  for (int i = threadIdx.x; i < each * 8 * NT; i += blockDim.x) {
    const int line = i % each, t = i / each, row = blockIdx.x * each + line;
    if (t >= tokens || row >= rows) continue;
    float a = 0, b = 0;
#pragma unroll
    for (int k = 0; k < 8; k++) {
      a += sums[k][line][t];
      if (OUT == kSwiGLU) b += sums[k][line + 8][t];
    }
    if (INT8) a *= s[row];
    if (INT8 && OUT == kSwiGLU) b *= s[row + rows];
    const size_t to = (size_t)t * rows + row;
    if (OUT == kStore) static_cast<T *>(y)[to] = from_float<T>(a);
    if (OUT == kAdd) static_cast<float *>(y)[to] += a;
    if (OUT == kFloat) static_cast<float *>(y)[to] = a;
    if (OUT == kSwiGLU) static_cast<T *>(y)[to] = from_float<T>(silu(a) * b);
  }
}
#define SKINNY(T, NT, NAME, OUT)                                                                                                              \
  extern "C" __global__ void __launch_bounds__(256) skinny_##T##_##NT##_##NAME(void *y, const void *w, const float *s, const T *x, int tokens,      \
                                                                               int rows, int cols) {                                          \
    skinny<T, false, NT, OUT>(y, w, s, x, tokens, rows, cols);                                                                                \
  }                                                                                                                                           \
  extern "C" __global__ void __launch_bounds__(256) skinny_i8_##T##_##NT##_##NAME(void *y, const void *w, const float *s, const T *x, int tokens,   \
                                                                                  int rows, int cols) {                                       \
    skinny<T, true, NT, OUT>(y, w, s, x, tokens, rows, cols);                                                                                 \
  }
#define SKINNYS(T, NT) SKINNY(T, NT, store, kStore) SKINNY(T, NT, add, kAdd) SKINNY(T, NT, float, kFloat) SKINNY(T, NT, swiglu, kSwiGLU)
SKINNYS(f16, 1) SKINNYS(f16, 2) SKINNYS(f16, 4) SKINNYS(f16, 8) SKINNYS(bf16, 1) SKINNYS(bf16, 2) SKINNYS(bf16, 4) SKINNYS(bf16, 8)

// gemm: y[t][row] for any number of tokens. A block computes 64 tokens × 128
// rows by 8 warps, 32 columns at a time, four stages deep in shared memory. Pairs
// of int8 lie there as 16-bit numbers do, and are counted as one column.
// grid (rows / 128, tokens / 64).
constexpr int kM = 64, kN = 128, kK = 32, kStages = 4, kPitch = kK + 8; // pitch: no bank conflicts in ldmatrix

template <typename T> struct Sum { using type = float; };
template <> struct Sum<pair8> { using type = int; };
__device__ __forceinline__ void multiply(float *c, const uint32_t *a, const uint32_t *b, f16) { mma<f16>(c, a, b); }
__device__ __forceinline__ void multiply(float *c, const uint32_t *a, const uint32_t *b, bf16) { mma<bf16>(c, a, b); }
__device__ __forceinline__ void multiply(int *c, const uint32_t *a, const uint32_t *b, pair8) { mma8(c, a, b); }

template <typename T, int OUT> __device__ void gemm(void *y, const T *w, const T *x, int tokens, int rows, int cols) {
  extern __shared__ uint4 shared[];
  T *xs = reinterpret_cast<T *>(shared), *ws = xs + kStages * kM * kPitch;
  const int tid = threadIdx.x, lane = tid & 31, warp = tid >> 5, wm = warp & 1, wn = warp >> 1;
  const int t0 = blockIdx.y * kM, r0 = blockIdx.x * kN;
  let_next_start();
  wait_for_inputs();
  auto load = [&](int stage, int k0) {
    for (int i = tid; i < (kM + kN) * kK / 8; i += 256) {
      const int line = i / (kK / 8), k = k0 + i % (kK / 8) * 8;
      const bool is_x = line < kM;
      const int r = is_x ? t0 + line : r0 + line - kM;
      const bool valid = k < cols && r < (is_x ? tokens : rows);
      const T *from = (is_x ? x : w) + (valid ? (size_t)r * cols + k : 0);
      T *to = is_x ? xs + (stage * kM + line) * kPitch : ws + (stage * kN + line - kM) * kPitch;
      copy16(to + i % (kK / 8) * 8, from, valid);
    }
  };
  typename Sum<T>::type acc[2][4][4] = {};
  const int steps = (cols + kK - 1) / kK;
  for (int s = 0; s < kStages - 1; s++) {
    if (s < steps) load(s, s * kK);
    copies_commit();
  }
  for (int s = 0; s < steps; s++) {
    copies_wait<kStages - 2>();
    __syncthreads();
    if (s + kStages - 1 < steps) load((s + kStages - 1) % kStages, (s + kStages - 1) * kK);
    copies_commit();
    const T *a = xs + (s % kStages * kM + wm * 32) * kPitch, *b = ws + (s % kStages * kN + wn * 32) * kPitch;
#pragma unroll
    for (int k = 0; k < kK; k += 16) {
      uint32_t fa[2][4], fb[2][4];
#pragma unroll
      for (int m = 0; m < 2; m++) load_matrices(fa[m], a + (m * 16 + (lane & 15)) * kPitch + k + (lane >> 4) * 8);
#pragma unroll
      for (int n = 0; n < 2; n++) load_matrices(fb[n], b + (n * 16 + (lane & 7) + (lane >> 4) * 8) * kPitch + k + (lane >> 3 & 1) * 8);
#pragma unroll
      for (int m = 0; m < 2; m++)
#pragma unroll
        for (int n = 0; n < 4; n++) multiply(acc[m][n], fa[m], &fb[n / 2][n % 2 * 2], T{});
    }
  }
#pragma unroll
  for (int m = 0; m < 2; m++)
#pragma unroll
    for (int n = 0; n < 4; n++)
#pragma unroll
      for (int i = 0; i < 4; i++) {
        const int t = t0 + wm * 32 + m * 16 + (lane >> 2) + i / 2 * 8, r = r0 + wn * 32 + n * 8 + (lane & 3) * 2 + i % 2;
        if (t >= tokens || r >= rows) continue;
        const size_t to = (size_t)t * rows + r;
        if constexpr (OUT == kStore) static_cast<T *>(y)[to] = from_float<T>(acc[m][n][i]);
        if constexpr (OUT == kAdd) static_cast<float *>(y)[to] += acc[m][n][i];
        if constexpr (OUT == kFloat) static_cast<float *>(y)[to] = acc[m][n][i];
        if constexpr (OUT == kSums) static_cast<int *>(y)[to] = acc[m][n][i];
      }
}
#define GEMM(T, NAME, OUT) \
  extern "C" __global__ void __launch_bounds__(256) gemm_##T##_##NAME(void *y, const T *w, const T *x, int tokens, int rows, int cols) { gemm<T, OUT>(y, w, x, tokens, rows, cols); }
GEMM(f16, store, kStore) GEMM(f16, add, kAdd) GEMM(f16, float, kFloat) GEMM(bf16, store, kStore) GEMM(bf16, add, kAdd) GEMM(bf16, float, kFloat)
extern "C" __global__ void __launch_bounds__(256) gemm_i8(void *y, const pair8 *w, const pair8 *x, int tokens, int rows, int cols) { gemm<pair8, kSums>(y, w, x, tokens, rows, cols / 2); }
