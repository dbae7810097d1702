// Products with weight matrices (rows, cols), row after row. gemv reads each
// weight once for one token or two, at the memory's speed; skinny does so for
// up to 64 on tensor cores (mma.sync); gemm is for more, where cuBLASLt is not
// found.
#include "common.cuh"

// What becomes of a product's result.
enum Out { kStore, kAdd, kFloat, kSwiGLU, kSums }; // 16 bits; added to float32; float32; silu(row) · (row + rows); int32

// Weights of one type, 16 bytes at a time.
template <typename T> struct Plain {
  static constexpr int n = 8;
  const T *w;
  __device__ __forceinline__ const void *at(size_t row, int cols, int k) const { return w + row * cols + k; }
  __device__ __forceinline__ float scale(bool, size_t) const { return 1.f; }
  __device__ __forceinline__ static void floats(const uint4 &v, float *f) { unpack8<T>(v, f); }
};
struct Int8 {
  static constexpr int n = 16;
  const int8_t *w;
  const float *s;
  __device__ __forceinline__ const void *at(size_t row, int cols, int k) const { return w + row * cols + k; }
  __device__ __forceinline__ float scale(bool valid, size_t row) const { return valid ? __ldg(s + row) : 0.f; }
  // 2²³ + u is a float whose last byte is u: no slow conversion is needed.
  __device__ __forceinline__ static void floats(const uint4 &v, float *f) {
    const uint32_t w[4] = {v.x ^ 0x80808080u, v.y ^ 0x80808080u, v.z ^ 0x80808080u, v.w ^ 0x80808080u}; // u is the number + 128
#pragma unroll
    for (int i = 0; i < 4; i++) {
      f[4 * i + 0] = __uint_as_float(__byte_perm(w[i], 0x4b000000u, 0x7440)) - 8388736.f;
      f[4 * i + 1] = __uint_as_float(__byte_perm(w[i], 0x4b000000u, 0x7441)) - 8388736.f;
      f[4 * i + 2] = __uint_as_float(__byte_perm(w[i], 0x4b000000u, 0x7442)) - 8388736.f;
      f[4 * i + 3] = __uint_as_float(__byte_perm(w[i], 0x4b000000u, 0x7443)) - 8388736.f;
    }
  }
};

// stage brings the inputs of N tokens to shared memory as 16-bit numbers, from
// 16-bit ones, or from float32 ones with RMSNorm.
template <typename T, int N> __device__ void stage(T *xs, const void *x, const float *norm, int cols, float eps) {
  __shared__ float red[32];
  for (int t = 0; t < N; t++) {
    if (!norm) {
      const uint4 *in = reinterpret_cast<const uint4 *>(static_cast<const T *>(x) + (size_t)t * cols);
      for (int i = threadIdx.x; i < cols / 8; i += blockDim.x) reinterpret_cast<uint4 *>(xs + t * cols)[i] = in[i];
      continue;
    }
    // Up to 4096 numbers stay in registers between the two passes.
    const float4 *in = reinterpret_cast<const float4 *>(static_cast<const float *>(x) + (size_t)t * cols);
    float4 held[2];
    float squares = 0;
    for (int i = threadIdx.x, n = 0; i < cols / 4; i += blockDim.x, n++) {
      const float4 v = in[i];
      if (n == 0) held[0] = v;
      if (n == 1) held[1] = v;
      squares += v.x * v.x + v.y * v.y + v.z * v.z + v.w * v.w;
    }
    const float inverse = rsqrtf(block_sum(squares, red) / cols + eps);
    for (int i = threadIdx.x, n = 0; i < cols / 4; i += blockDim.x, n++) {
      const float4 v = n == 0 ? held[0] : n == 1 ? held[1] : in[i], w = reinterpret_cast<const float4 *>(norm)[i];
      uint2 out = {pack2<T>(v.x * inverse * w.x, v.y * inverse * w.y), pack2<T>(v.z * inverse * w.z, v.w * inverse * w.w)};
      reinterpret_cast<uint2 *>(xs + t * cols)[i] = out;
    }
  }
  __syncthreads();
}

// gemv: y[t][row] for N tokens. Each warp takes rows warp·grid + block, so that
// few rows are spread over all processors; where one token has less rows than half
// of the warps, two share a row's columns. U loads of 16 bytes are under way per
// lane; the first are asked for before the inputs are waited for. (Asking for each
// again as soon as it is used, and having the L2 cache fetch the next product's
// weights meanwhile, were both slower.)
template <typename T, typename W, int N, int OUT>
__device__ void gemv(void *y, const W weights, const void *x, const float *norm, int rows, int cols, float eps) {
  constexpr int R = OUT == kSwiGLU ? 2 : 1, C = W::n, U = (C == 16 ? 4 : 8) / R, step = 32 * C * U;
  extern __shared__ uint4 shared[];
  __shared__ float sums[16][R][N];
  T *xs = reinterpret_cast<T *>(shared);
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = blockDim.x >> 5;
  const int parts = N == 1 && 2 * rows <= int(warps * gridDim.x) && cols % (2 * C) == 0 ? 2 : 1;
  const int stride = warps / parts * gridDim.x, begin = warp % parts * (cols / parts), end = begin + cols / parts;
  const int first = warp / parts * gridDim.x + blockIdx.x;
  uint4 v[R][U];
  float scales[R]; // come with their weights: else they would be waited for
  auto fetch = [&](int row, int k) {
#pragma unroll
    for (int r = 0; r < R; r++) {
      scales[r] = weights.scale(row < rows, (size_t)row + r * rows);
#pragma unroll
      for (int u = 0; u < U; u++) {
        const int at = k + (u * 32 + lane) * C;
        const bool valid = at < end && row < rows;
        v[r][u] = valid ? stream16(weights.at((size_t)row + r * rows, cols, at)) : make_uint4(0, 0, 0, 0);
      }
    }
  };
  auto put = [&](int t, int row, float a, float b) {
    const size_t to = (size_t)t * rows + row;
    if (OUT == kStore) static_cast<T *>(y)[to] = from_float<T>(a);
    if (OUT == kAdd) static_cast<float *>(y)[to] += a;
    if (OUT == kFloat) static_cast<float *>(y)[to] = a;
    if (OUT == kSwiGLU) static_cast<T *>(y)[to] = from_float<T>(silu(a) * b);
  };
  let_next_start();
  fetch(first, begin);
  wait_for_inputs();
  stage<T, N>(xs, x, norm, cols, eps);
  for (int row = first; row < rows; row += stride) {
    float sum[R][N] = {};
    const float scale = scales[0], other = scales[R - 1];
    for (int k = begin; k < end; k += step) {
#pragma unroll
      for (int u = 0; u < U; u++) {
        const int at = k + (u * 32 + lane) * C;
        if (at < end) {
#pragma unroll
          for (int r = 0; r < R; r++) {
            float f[C];
            W::floats(v[r][u], f);
#pragma unroll
            for (int t = 0; t < N; t++) {
              float part = 0;
#pragma unroll
              for (int c = 0; c < C; c += 8) {
                float in[8];
                unpack8<T>(*reinterpret_cast<const uint4 *>(xs + (size_t)t * cols + at + c), in);
#pragma unroll
                for (int i = 0; i < 8; i++) part = fmaf(f[c + i], in[i], part);
              }
              sum[r][t] += part;
            }
          }
        }
      }
      if (k + step < end) fetch(row, k + step);
      else fetch(row + stride, begin);
    }
#pragma unroll
    for (int t = 0; t < N; t++) {
      const float a = warp_sum(sum[0][t]) * scale;
      const float b = R == 2 ? warp_sum(sum[R - 1][t]) * other : 0.f;
      if (lane) continue;
      if (parts == 1) put(t, row, a, b);
      else sums[warp][0][t] = a, sums[warp][R - 1][t] = R == 2 ? b : a;
    }
  }
  if (parts == 1) return;
  __syncthreads(); // a warp had one row at most
  if (warp % 2 == 0 && lane < N && first < rows) put(lane, first, sums[warp][0][lane] + sums[warp + 1][0][lane], sums[warp][R - 1][lane] + sums[warp + 1][R - 1][lane]);
}

#define GEMV(T, N, NAME, OUT)                                                                                                                      \
  extern "C" __global__ void __launch_bounds__(512, N == 1 ? 2 : 1) gemv_##T##_##N##_##NAME(void *y, const T *w, const float *, const void *x, const float *norm, \
                                                                            int rows, int cols, float eps) {                                      \
    gemv<T, Plain<T>, N, OUT>(y, Plain<T>{w}, x, norm, rows, cols, eps);                                                                           \
  }                                                                                                                                                \
  extern "C" __global__ void __launch_bounds__(512, N == 1 ? 2 : 1) gemv_i8_##T##_##N##_##NAME(void *y, const int8_t *w, const float *s, const void *x,           \
                                                                               const float *norm, int rows, int cols, float eps) {                \
    gemv<T, Int8, N, OUT>(y, Int8{w, s}, x, norm, rows, cols, eps);                                                                                \
  }
#define GEMVS(T, N) GEMV(T, N, store, kStore) GEMV(T, N, add, kAdd) GEMV(T, N, float, kFloat) GEMV(T, N, swiglu, kSwiGLU)
GEMVS(f16, 1) GEMVS(f16, 2) GEMVS(bf16, 1) GEMVS(bf16, 2)

// skinny: y[t][row] for 8·NT tokens or fewer on tensor cores, weights straight
// from memory to registers. A block has 16 rows (SwiGLU: 8 of gate and the 8 of
// up that belong to them) and its 8 warps share the columns out among
// themselves. A lane's 16 bytes are one row's next columns; which of a product's
// columns they are does not matter, as long as the inputs are taken the same
// way. x has room for 8·NT rows. grid (rows / 16).
template <typename T> __device__ __forceinline__ void halves(const Plain<T> &, const uint4 &v, uint32_t *out) { out[0] = v.x, out[1] = v.y, out[2] = v.z, out[3] = v.w; }
template <typename T> __device__ __forceinline__ void halves8(const uint4 &v, uint32_t *out) {
  float f[16];
  Int8::floats(v, f);
#pragma unroll
  for (int i = 0; i < 8; i++) out[i] = pack2<T>(f[2 * i], f[2 * i + 1]);
}
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
        halves(Plain<T>{}, v[0][u], a0), halves(Plain<T>{}, v[1][u], a1);
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
