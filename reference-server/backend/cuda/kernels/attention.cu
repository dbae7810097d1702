// Paged attention. decode: one token at a time against its whole context, split
// over the sequence where there are few tokens. prefill: 64 tokens of a prompt
// at a time on tensor cores, as FlashAttention-2 (Dao 2023) does. Keys and
// values lie in blocks (block, KV head, 16, dim): 16 bits, or int8 + 128 with a
// float32 scale for each position of a head (block, KV head, 16).
#include "common.cuh"

// merge_stretches: what W warps of a block have of G heads, merged (W, G, dim + 2:
// sums, their highest score, their weight), becomes out, or where the context is
// split over blocks goes to partial, which the last block to end merges.
template <typename T, int G, int W>
__device__ void merge_stretches(T *out, const float *merged, float *partial, unsigned *done, int group, int t, int first, int n, int split, int splits, int most, int heads, int dim) {
  const int pitch = dim + 2;
  __syncthreads();
  float *own = partial + (size_t)group * most * G * pitch;
  for (int i = threadIdx.x; i < n * dim; i += blockDim.x) {
    const int g = i / dim, d = i % dim;
    float high = -INFINITY, sum = 0, weight = 0;
#pragma unroll
    for (int w = 0; w < W; w++) high = fmaxf(high, merged[(w * G + g) * pitch + dim]);
#pragma unroll
    for (int w = 0; w < W; w++) {
      const float *m = merged + (w * G + g) * pitch;
      const float f = power2(m[dim] - high);
      sum += f * m[d], weight += f * m[dim + 1];
    }
    if (splits == 1) {
      out[((size_t)t * heads + first + g) * dim + d] = from_float<T>(sum / weight);
    } else {
      float *to = own + ((size_t)split * G + g) * pitch;
      to[d] = sum;
      if (d == 0) to[dim] = high, to[dim + 1] = weight;
    }
  }
  if (splits == 1) return;
  __shared__ bool last;
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) {
    unsigned *count = done + group;
    last = atomicAdd(count, 1) == splits - 1;
    if (last) *count = 0; // for the next launch
  }
  __syncthreads();
  if (!last) return;
  __threadfence();
  for (int i = threadIdx.x; i < n * dim; i += blockDim.x) {
    const int g = i / dim, d = i % dim;
    float high = -INFINITY, sum = 0, weight = 0;
    for (int s = 0; s < splits; s++) high = fmaxf(high, own[((size_t)s * G + g) * pitch + dim]);
    for (int s = 0; s < splits; s++) {
      const float *m = own + ((size_t)s * G + g) * pitch;
      const float f = power2(m[dim] - high);
      sum += f * m[d], weight += f * m[dim + 1];
    }
    out[((size_t)t * heads + first + g) * dim + d] = from_float<T>(sum / weight);
  }
}

// attend_decode: a block computes up to G query heads of one KV head for one
// token and one stretch of its context; the last block to end merges the
// stretches. LP lanes hold one position, 8 dimensions each; the next positions
// are under way while some are computed. Where early, all of a token's context
// but its own position was written by earlier steps, and the first loads need
// not wait. grid (tokens, KV heads · groups of G, splits), W warps.
template <typename T, int LP, int G, int W>
__device__ void attend_decode(T *out, const T *qkv, const T *keys, const T *values, const int *tables, const int *offsets, const int *positions,
                              const int *slots, const int *which, float *partial, unsigned *done, int heads, int kv_heads, int dim, float scale, int early) {
  constexpr int P = 32 / LP, U = 4;
  extern __shared__ float merged[]; // (W, G, dim + 2)
  let_next_start();
  const int t = which ? which[blockIdx.x] : blockIdx.x;
  if (slots[t] < 0) return;
  const int share = heads / kv_heads, groups = (share + G - 1) / G, kv = blockIdx.y / groups, first = kv * share + blockIdx.y % groups * G;
  const int n = min(G, (kv + 1) * share - first);
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, sub = lane % LP, pg = lane / LP;
  const int length = positions[t] + 1;
  int chunk = (length + gridDim.z - 1) / gridDim.z;
  chunk = gridDim.z == 1 ? length : max(max(64, W * P * U), (chunk + kBlock - 1) / kBlock * kBlock);
  const int splits = (length + chunk - 1) / chunk, split = blockIdx.z;
  if (split >= splits) return;
  const int begin = split * chunk, end = min(length, begin + chunk);
  const int *table = tables + offsets[t];
  const bool live = sub * 8 < dim;
  uint4 k[U], v[U];
  auto load = [&](int u, int pos) {
    const bool valid = pos < end && live;
    const size_t at = valid ? (((size_t)table[pos / kBlock] * kv_heads + kv) * kBlock + pos % kBlock) * dim + sub * 8 : 0;
    k[u] = valid ? *reinterpret_cast<const uint4 *>(keys + at) : make_uint4(0, 0, 0, 0);
    v[u] = valid ? *reinterpret_cast<const uint4 *>(values + at) : make_uint4(0, 0, 0, 0);
  };
  const int from = begin + warp * P + pg;
  if (early)
#pragma unroll
    for (int u = 0; u < U; u++) load(u, from + u * W * P);
  wait_for_inputs();
#pragma unroll
  for (int u = 0; u < U; u++)
    if (!early || from + u * W * P == length - 1) load(u, from + u * W * P);

  float q[G][8], acc[G][8] = {}, top[G], total[G];
#pragma unroll
  for (int g = 0; g < G; g++) {
    top[g] = -INFINITY, total[g] = 0;
    const T *row = qkv + ((size_t)t * (heads + 2 * kv_heads) + first + min(g, n - 1)) * dim + sub * 8;
    unpack8<T>(live ? *reinterpret_cast<const uint4 *>(row) : make_uint4(0, 0, 0, 0), q[g]);
#pragma unroll
    for (int i = 0; i < 8; i++) q[g][i] *= scale * 1.4426950408889634f; // for exp2
  }
  for (int base = begin + warp * P; base < end; base += W * P * U) {
    float score[U][G];
    uint4 now[U]; // the values, while the next are fetched
#pragma unroll
    for (int u = 0; u < U; u++) {
      float f[8];
      unpack8<T>(k[u], f);
#pragma unroll
      for (int g = 0; g < G; g++) {
        float s = 0;
#pragma unroll
        for (int i = 0; i < 8; i++) s = fmaf(q[g][i], f[i], s);
#pragma unroll
        for (int o = LP / 2; o; o >>= 1) s += __shfl_xor_sync(~0u, s, o);
        score[u][g] = base + u * W * P + pg < end ? s : -INFINITY;
      }
    }
#pragma unroll
    for (int u = 0; u < U; u++) {
      now[u] = v[u];
      load(u, base + (U + u) * W * P + pg);
    }
#pragma unroll
    for (int g = 0; g < G; g++) {
      float high = top[g];
#pragma unroll
      for (int u = 0; u < U; u++) high = fmaxf(high, score[u][g]);
      if (high == -INFINITY) high = 0; // nothing seen yet: everything stays 0
      const float fade = power2(top[g] - high);
      top[g] = high;
      total[g] *= fade;
#pragma unroll
      for (int i = 0; i < 8; i++) acc[g][i] *= fade;
#pragma unroll
      for (int u = 0; u < U; u++) score[u][g] = power2(score[u][g] - high), total[g] += score[u][g];
    }
#pragma unroll
    for (int u = 0; u < U; u++) {
      float f[8];
      unpack8<T>(now[u], f);
#pragma unroll
      for (int g = 0; g < G; g++)
#pragma unroll
        for (int i = 0; i < 8; i++) acc[g][i] = fmaf(score[u][g], f[i], acc[g][i]);
    }
  }
  // Merge the positions of a warp, then the warps.
  const int pitch = dim + 2;
#pragma unroll
  for (int g = 0; g < G; g++) {
#pragma unroll
    for (int o = LP; o < 32; o <<= 1) {
      const float other = __shfl_xor_sync(~0u, top[g], o), high = fmaxf(top[g], other);
      const float mine = high == -INFINITY ? 0.f : power2(top[g] - high), theirs = high == -INFINITY ? 0.f : power2(other - high);
      total[g] = total[g] * mine + __shfl_xor_sync(~0u, total[g], o) * theirs;
#pragma unroll
      for (int i = 0; i < 8; i++) acc[g][i] = acc[g][i] * mine + __shfl_xor_sync(~0u, acc[g][i], o) * theirs;
      top[g] = high;
    }
    float *to = merged + (warp * G + g) * pitch;
    if (pg == 0 && live)
#pragma unroll
      for (int i = 0; i < 8; i++) to[sub * 8 + i] = acc[g][i];
    if (lane == 0) to[dim] = top[g], to[dim + 1] = total[g];
  }
  merge_stretches<T, G, W>(out, merged, partial, done, blockIdx.x * gridDim.y + blockIdx.y, t, first, n, split, splits, gridDim.z, heads, dim);
}
#define DECODE(T, LP, G, W)                                                                                                                      \
  extern "C" __global__ void __launch_bounds__(32 * W) attend_decode_##T##_##LP##_##G##_##W(                                                     \
      T *out, const T *qkv, const T *keys, const T *values, const int *tables, const int *offsets, const int *positions, const int *slots,      \
      const int *which, float *partial, unsigned *done, int heads, int kv_heads, int dim, float scale, int early) {                             \
    attend_decode<T, LP, G, W>(out, qkv, keys, values, tables, offsets, positions, slots, which, partial, done, heads, kv_heads, dim, scale, early); \
  }
#define DECODES(T, G)                                                                                                                            \
  DECODE(T, 2, G, 4) DECODE(T, 4, G, 4) DECODE(T, 8, G, 4) DECODE(T, 16, G, 4) DECODE(T, 32, G, 4) DECODE(T, 8, G, 8) DECODE(T, 16, G, 8)
DECODES(f16, 1) DECODES(f16, 4) DECODES(f16, 8) DECODES(bf16, 1) DECODES(bf16, 4) DECODES(bf16, 8)

// attend_tiles: what attend_decode computes, for up to 8 query heads of one KV
// head on tensor cores: many streams are else held up by arithmetic. Each of 4
// warps takes every fourth block of the stretch, and has its next ones copied to
// shared memory meanwhile. A product's 16 rows are positions, or for values
// dimensions; its 8 columns are heads: Sᵀ = K·Qᵀ, Oᵀ = Vᵀ·Pᵀ. int8 keys and values
// become float16 (exactly) as they are taken up, their scales go to scores and to
// weights. grid (tokens, KV heads · groups of 8, splits), 128 threads.

// How many of a warp's tiles are in shared memory, and the bytes of one: the
// keys of a block and then its values, rows apart by no multiple of the banks.
template <int D, bool INT8> struct Tiles {
  static constexpr int bytes = INT8 ? D : 2 * D, pitch = bytes + 16, scales = 2 * kBlock * pitch, size = scales + (INT8 ? 8 * kBlock : 0);
  static constexpr int stages = INT8 ? 4 : D > 64 ? 2 : 3;
};

// Stretch is what a block attends to: positions from begin to end of a sequence
// that has so many, for n heads of a KV head. Where early, all of them but the last
// of the sequence were written by earlier steps, and need not be waited for.
template <typename T> struct Stretch {
  const T *queries; // (n, D)
  const char *keys, *values;
  const float *key_scales, *value_scales;
  const int *table; // from begin on
  int n, kv, kv_heads, begin, end, length;
  float scale;
  int early;
};

// attend_stretch leaves in shared memory what each of a block's first W warps has of
// its share of a stretch, as merge_stretches takes it; the others only wait.
template <typename T, int D, bool INT8, int W, int S> __device__ __forceinline__ void attend_stretch(void *shared, const Stretch<T> &s) {
  using M = typename Factors<T, INT8>::type;
  using L = Tiles<D, INT8>;
  constexpr int G = 8;
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, row = lane >> 2, quad = lane & 3;
  const int begin = s.begin, end = s.end, count = warp < W ? (end - begin + kBlock - 1) / kBlock : 0;
  char *own = reinterpret_cast<char *>(shared) + (warp < W ? warp : 0) * S * L::size;
  // load has the warp's tile i copied; those beyond the last are empty.
  auto load = [&](int i) {
    const int b = i * W + warp;
    if (b < count) {
      char *to = own + i % S * L::size;
      const size_t block = ((size_t)s.table[b] * s.kv_heads + s.kv) * kBlock;
      const int rows = end - begin - b * kBlock; // the last tile's others become 0
#pragma unroll
      for (int c = lane; c < L::bytes; c += 32) {
        const int r = c / (L::bytes / 16), at = c % (L::bytes / 16) * 16;
        copy16(to + r * L::pitch + at, s.keys + block * L::bytes + c * 16, r < rows);
        copy16(to + (kBlock + r) * L::pitch + at, s.values + block * L::bytes + c * 16, r < rows);
      }
      if (INT8) copy4(to + L::scales + lane * 4, (lane < kBlock ? s.key_scales : s.value_scales) + block + lane % kBlock, lane % kBlock < rows);
    }
    copies_commit();
  };
  int asked = 0;
  if (s.early && warp < W)
    while (asked < S - 1 && (end < s.length || asked * W + warp < count - 1)) load(asked++);
  wait_for_inputs();
  while (asked < S - 1) load(asked++);


  uint32_t q[D / 16][2]; // of head lane / 4, in the order in which keys are taken up
  const T *qs = s.queries + min(row, s.n - 1) * D;
#pragma unroll
  for (int d = 0; d < D / 16; d++) {
    if (INT8) {
      const uint2 v = *reinterpret_cast<const uint2 *>(qs + d * 16 + quad * 4);
      q[d][0] = repack2<T, M>(v.x), q[d][1] = repack2<T, M>(v.y);
    } else {
      q[d][0] = *reinterpret_cast<const uint32_t *>(qs + d * 16 + quad * 2), q[d][1] = *reinterpret_cast<const uint32_t *>(qs + d * 16 + 8 + quad * 2);
    }
  }
  const float unit = s.scale * 1.4426950408889634f; // for exp2
  float o[D / 16][4] = {}, top[2] = {-INFINITY, -INFINITY}, total[2] = {};
  for (int i = 0; i * W + warp < count; i++) {
    load(i + S - 1);
    copies_wait<S - 1>();
    __syncwarp();
    const char *ks = own + i % S * L::size, *vs = ks + kBlock * L::pitch, *lines = ks + (lane & 15) * L::pitch + (lane >> 4) * 16;
    const float *scales = reinterpret_cast<const float *>(ks + L::scales);
    float score[4] = {}; // of positions row and row + 8, heads 2·quad and 2·quad + 1
#pragma unroll
    for (int d = 0; d < L::bytes / 32; d++) {
      uint32_t k[4];
      load_matrices(k, lines + d * 32);
      if (INT8) {
        const uint32_t a[4] = {bytes01(k[0]), bytes01(k[1]), bytes23(k[0]), bytes23(k[1])}, b[4] = {bytes01(k[2]), bytes01(k[3]), bytes23(k[2]), bytes23(k[3])};
        mma<M>(score, a, q[2 * d % (D / 16)]);
        mma<M>(score, b, q[(2 * d + 1) % (D / 16)]);
      } else {
        mma<M>(score, k, q[d % (D / 16)]);
      }
    }
    const int rest = end - begin - (i * W + warp) * kBlock;
#pragma unroll
    for (int j = 0; j < 4; j++) {
      score[j] *= INT8 ? unit * scales[row + j / 2 * 8] : unit;
      if (row + j / 2 * 8 >= rest) score[j] = -INFINITY;
    }
    float p[4];
#pragma unroll
    for (int e = 0; e < 2; e++) {
      float high = fmaxf(score[e], score[2 + e]);
#pragma unroll
      for (int x = 4; x < 32; x *= 2) high = fmaxf(high, __shfl_xor_sync(~0u, high, x));
      high = fmaxf(high, top[e]);
      const float fade = power2(top[e] - high);
      top[e] = high;
      p[e] = power2(score[e] - high), p[2 + e] = power2(score[2 + e] - high);
      total[e] = total[e] * fade + p[e] + p[2 + e]; // of this lane's positions
#pragma unroll
      for (int d = 0; d < D / 16; d++) o[d][e] *= fade, o[d][2 + e] *= fade;
    }
    if (INT8) {
      const float near = kLift * scales[kBlock + row], far = kLift * scales[kBlock + row + 8];
      p[0] *= near, p[1] *= near, p[2] *= far, p[3] *= far;
    }
    const uint32_t w[2] = {transposed(pack2<M>(p[0], p[1])), transposed(pack2<M>(p[2], p[3]))};
#pragma unroll
    for (int d = 0; d < L::bytes / 32; d++) {
      uint32_t v[4];
      if (INT8) {
        load_matrices_t(v, vs + (lane & 15) * L::pitch + (lane >> 4) * 16 + d * 32);
        // Rows are even dimensions of 16, and then the odd ones.
        const uint32_t a[4] = {bytes02(v[0]), bytes13(v[0]), bytes02(v[1]), bytes13(v[1])}, b[4] = {bytes02(v[2]), bytes13(v[2]), bytes02(v[3]), bytes13(v[3])};
        mma<M>(o[2 * d % (D / 16)], a, w);
        mma<M>(o[(2 * d + 1) % (D / 16)], b, w);
      } else {
        load_matrices_t(v, vs + ((lane & 7) + (lane >> 4) * 8) * L::pitch + (lane >> 3 & 1) * 16 + d * 32);
        mma<M>(o[d % (D / 16)], v, w);
      }
    }
    __syncwarp(); // the next load overwrites what was read here
  }
  copies_wait<0>();
  __syncthreads();
  if (warp >= W) return;
  float *merged = reinterpret_cast<float *>(shared);
#pragma unroll
  for (int e = 0; e < 2; e++) {
#pragma unroll
    for (int x = 4; x < 32; x *= 2) total[e] += __shfl_xor_sync(~0u, total[e], x);
    float *to = merged + (warp * G + quad * 2 + e) * (D + 2);
#pragma unroll
    for (int d = 0; d < D / 16; d++)
#pragma unroll
      for (int j = 0; j < 2; j++) to[d * 16 + (INT8 ? row * 2 + j : row + j * 8)] = o[d][2 * j + e] * (INT8 ? 1 / kLift : 1.f);
    if (row == 0) to[D] = top[e], to[D + 1] = total[e];
  }
}

// attend_tiles: token x of the step's, group y of heads, stretch z of up to most,
// none of which is shorter than least where there are several. Blocks that have
// nothing to do (x is tokens or more) wait nevertheless: program.few says why.
template <typename T, int D, bool INT8, int W, int S>
__device__ __forceinline__ void attend_tiles(T *out, const T *qkv, const char *keys, const char *values, const float *key_scales, const float *value_scales, const int *tables,
                                             const int *offsets, const int *positions, const int *slots, const int *which, float *partial, unsigned *done, int heads,
                                             int kv_heads, float scale, int early, int tokens, int x, int y, int z, int ys, int most, int least) {
  constexpr int G = 8;
  extern __shared__ uint4 shared[];
  let_next_start();
  const int t = x < tokens ? which[x] : 0, length = positions[t] + 1;
  int chunk = (length + most - 1) / most;
  chunk = most == 1 ? length : max(least, (chunk + kBlock - 1) / kBlock * kBlock);
  const int splits = (length + chunk - 1) / chunk, begin = z * chunk;
  if (x >= tokens || slots[t] < 0 || z >= splits) {
    wait_for_inputs();
    return;
  }
  const int share = heads / kv_heads, groups = (share + G - 1) / G, kv = y / groups, first = kv * share + y % groups * G, n = min(G, (kv + 1) * share - first);
  attend_stretch<T, D, INT8, W, S>(shared, Stretch<T>{qkv + ((size_t)t * (heads + 2 * kv_heads) + first) * D, keys, values, key_scales, value_scales,
                                                      tables + offsets[t] + begin / kBlock, n, kv, kv_heads, begin, min(length, begin + chunk), length, scale, early});
  merge_stretches<T, G, W>(out, reinterpret_cast<const float *>(shared), partial, done, x * ys + y, t, first, n, z, splits, most, heads, D);
}
#define TILES(T, D, NAME, INT8, W, S)                                                                                                              \
  extern "C" __global__ void __launch_bounds__(128) attend_tiles_##NAME##_##D(                                                                     \
      T *out, const T *qkv, const char *keys, const char *values, const float *key_scales, const float *value_scales, const int *tables,            \
      const int *offsets, const int *positions, const int *slots, const int *which, float *partial, unsigned *done, int heads, int kv_heads,        \
      float scale, int early) {                                                                                                                    \
    attend_tiles<T, D, INT8, 4, Tiles<D, INT8>::stages>(out, qkv, keys, values, key_scales, value_scales, tables, offsets, positions, slots, which, partial, done, heads, \
                                                        kv_heads, scale, early, gridDim.x, blockIdx.x, blockIdx.y, blockIdx.z, gridDim.y, gridDim.z, 128);             \
  }                                                                                                                                                \
  extern "C" __global__ void __launch_bounds__(32 * W, 2) attend_few_##NAME##_##D(                                                                 \
      T *out, const T *qkv, const char *keys, const char *values, const float *key_scales, const float *value_scales, const int *tables,            \
      const int *offsets, const int *positions, const int *slots, const int *which, float *partial, unsigned *done, int heads, int kv_heads,        \
      float scale, int early, int tokens, int most) {                                                                                              \
    const int groups = kv_heads * ((heads / kv_heads + 7) / 8), group = blockIdx.x / most;                                                         \
    attend_tiles<T, D, INT8, W, S>(out, qkv, keys, values, key_scales, value_scales, tables, offsets, positions, slots, which, partial, done, heads, \
                                   kv_heads, scale, early, tokens, group / groups, group % groups, blockIdx.x % most, groups, most, 512);           \
  }
TILES(f16, 64, f16, false, 8, 2) TILES(f16, 128, f16, false, 4, 2) TILES(bf16, 64, bf16, false, 8, 2) TILES(bf16, 128, bf16, false, 4, 2)
TILES(f16, 32, i8_f16, true, 8, 4) TILES(f16, 64, i8_f16, true, 8, 3) TILES(f16, 128, i8_f16, true, 4, 3)
TILES(bf16, 32, i8_bf16, true, 8, 4) TILES(bf16, 64, i8_bf16, true, 8, 3) TILES(bf16, 128, i8_bf16, true, 4, 3)

// attend_prefill: tile i is counts[i] ≤ 64 consecutive tokens of one sequence,
// from token firsts[i] on. grid (tiles, heads), 128 threads: a warp has 16
// tokens. Keys and values come 64 at a time, the next while these are used.
template <typename T, int D, bool INT8>
__device__ void attend_prefill(T *out, const T *qkv, const char *keys, const char *values, const float *key_scales, const float *value_scales, const int *tables,
                               const int *offsets, const int *positions, const int *firsts, const int *counts, int heads, int kv_heads, float scale) {
  using M = typename Factors<T, INT8>::type;
  constexpr int B = 64, bytes = INT8 ? D : 2 * D, pitch = bytes + 16, chunks = bytes / 16; // of a row
  extern __shared__ uint4 shared[];
  char *ks = reinterpret_cast<char *>(shared), *vs = ks + 2 * B * pitch, *qs = vs + 2 * B * pitch;
  float *scales = reinterpret_cast<float *>(qs); // (2, keys and values, B); where there are none, queries come this way
  let_next_start();
  wait_for_inputs();
  const int tid = threadIdx.x, lane = tid & 31, warp = tid >> 5;
  const int first = firsts[gridDim.x - 1 - blockIdx.x], count = counts[gridDim.x - 1 - blockIdx.x]; // long ones first
  const int h = blockIdx.y, kv = h / (heads / kv_heads);
  const int *table = tables + offsets[first];
  const int p0 = positions[first], length = p0 + count, tiles = (length + B - 1) / B;
  const T *queries = qkv + ((size_t)first * (heads + 2 * kv_heads) + h) * D;
  const size_t stride = (size_t)(heads + 2 * kv_heads) * D;
  uint32_t q[D / 16][4];
  if (INT8) {
#pragma unroll
    for (int d = 0; d < D / 16; d++)
#pragma unroll
      for (int i = 0; i < 2; i++) {
        const int r = warp * 16 + (lane >> 2) + i * 8;
        const uint2 v = r < count ? *reinterpret_cast<const uint2 *>(queries + r * stride + d * 16 + (lane & 3) * 4) : make_uint2(0, 0);
        q[d][i] = repack2<T, M>(v.x), q[d][2 + i] = repack2<T, M>(v.y);
      }
  } else {
    for (int i = tid; i < B * chunks; i += 128) {
      const int r = i / chunks, c = i % chunks;
      copy16(qs + r * pitch + c * 16, queries + (r < count ? r : 0) * stride + c * 8, r < count);
    }
  }
  auto load = [&](int tile) {
    char *kt = ks + tile % 2 * B * pitch, *vt = vs + tile % 2 * B * pitch;
    for (int i = tid; i < B * chunks; i += 128) {
      const int r = i / chunks, c = i % chunks * 16, pos = tile * B + r;
      const bool valid = pos < length;
      const size_t at = valid ? (((size_t)table[pos / kBlock] * kv_heads + kv) * kBlock + pos % kBlock) * bytes + c : 0;
      copy16(kt + r * pitch + c, keys + at, valid);
      copy16(vt + r * pitch + c, values + at, valid);
    }
    if (INT8) {
      const int pos = tile * B + tid % B;
      const bool valid = pos < length;
      const size_t at = valid ? ((size_t)table[pos / kBlock] * kv_heads + kv) * kBlock + pos % kBlock : 0;
      copy4(scales + tile % 2 * 2 * B + tid, (tid < B ? key_scales : value_scales) + at, valid);
    }
  };
  load(0);
  copies_commit();
  float o[D / 8][4] = {}, top[2] = {-INFINITY, -INFINITY}, total[2] = {};
  const float unit = scale * 1.4426950408889634f;
  for (int tile = 0; tile < tiles; tile++) {
    if (tile + 1 < tiles) load(tile + 1);
    copies_commit();
    copies_wait<1>();
    __syncthreads();
    if (!INT8 && tile == 0)
#pragma unroll
      for (int d = 0; d < D / 16; d++) load_matrices(q[d], qs + (warp * 16 + (lane & 15)) * pitch + d * 32 + (lane >> 4) * 16);
    const char *kt = ks + tile % 2 * B * pitch, *vt = vs + tile % 2 * B * pitch;
    const float2 *key_scale = reinterpret_cast<const float2 *>(scales + tile % 2 * 2 * B) + (lane & 3), *value_scale = key_scale + B / 2;
    float s[B / 8][4] = {};
#pragma unroll
    for (int d = 0; d < bytes / 32; d++)
#pragma unroll
      for (int n = 0; n < B / 16; n++) {
        uint32_t k[4];
        if (INT8) {
          load_matrices(k, kt + (n * 16 + (lane & 15)) * pitch + d * 32 + (lane >> 4) * 16);
#pragma unroll
          for (int i = 0; i < 4; i++) {
            const uint32_t b[2] = {bytes01(k[i]), bytes23(k[i])};
            mma<M>(s[2 * n + i % 2], q[(2 * d + i / 2) % (D / 16)], b);
          }
        } else {
          load_matrices(k, kt + (n * 16 + (lane & 7) + (lane >> 4) * 8) * pitch + d * 32 + (lane >> 3 & 1) * 16);
          mma<M>(s[2 * n], q[d % (D / 16)], k);
          mma<M>(s[2 * n + 1], q[d % (D / 16)], k + 2);
        }
      }
    if (INT8)
#pragma unroll
      for (int n = 0; n < B / 8; n++) {
        const float2 f = key_scale[n * 4];
        s[n][0] *= f.x, s[n][1] *= f.y, s[n][2] *= f.x, s[n][3] *= f.y;
      }
    const int row = p0 + warp * 16 + (lane >> 2); // position of this lane's first row; the second is 8 on
    const bool edge = (tile + 1) * B > p0 + warp * 16 + 1;
    float high[2] = {top[0], top[1]}; // of scores, before the unit
    if (edge)
#pragma unroll
      for (int n = 0; n < B / 8; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
          const int pos = tile * B + n * 8 + (lane & 3) * 2 + (i & 1);
          if (pos > row + i / 2 * 8 || pos >= length) s[n][i] = -INFINITY;
        }
#pragma unroll
    for (int n = 0; n < B / 8; n++)
#pragma unroll
      for (int i = 0; i < 4; i++) high[i / 2] = fmaxf(high[i / 2], s[n][i]);
#pragma unroll
    for (int i = 0; i < 2; i++) {
      high[i] = fmaxf(high[i], __shfl_xor_sync(~0u, high[i], 1));
      high[i] = fmaxf(high[i], __shfl_xor_sync(~0u, high[i], 2));
      const float fade = power2((top[i] - high[i]) * unit);
      top[i] = high[i];
      total[i] *= fade;
#pragma unroll
      for (int n = 0; n < D / 8; n++) o[n][2 * i] *= fade, o[n][2 * i + 1] *= fade;
    }
    uint32_t p[B / 16][4];
#pragma unroll
    for (int n = 0; n < B / 8; n++) {
      float e[4];
#pragma unroll
      for (int i = 0; i < 4; i++) e[i] = power2(fmaf(s[n][i], unit, -high[i / 2] * unit)), total[i / 2] += e[i];
      const float2 f = INT8 ? value_scale[n * 4] : make_float2(1 / kLift, 1 / kLift);
      p[n / 2][n % 2 * 2] = pack2<M>(e[0] * (kLift * f.x), e[1] * (kLift * f.y));
      p[n / 2][n % 2 * 2 + 1] = pack2<M>(e[2] * (kLift * f.x), e[3] * (kLift * f.y));
    }
#pragma unroll
    for (int k = 0; k < B / 16; k++)
#pragma unroll
      for (int n = 0; n < bytes / 32; n++) {
        uint32_t v[4];
        load_matrices_t(v, vt + (k * 16 + (lane & 15)) * pitch + n * 32 + (lane >> 4) * 16);
        if (INT8) { // columns are even dimensions of 16, and then the odd ones
#pragma unroll
          for (int i = 0; i < 2; i++) {
            const uint32_t even[2] = {bytes02(v[2 * i]), bytes02(v[2 * i + 1])}, odd[2] = {bytes13(v[2 * i]), bytes13(v[2 * i + 1])};
            mma<M>(o[(4 * n + 2 * i) % (D / 8)], p[k], even);
            mma<M>(o[(4 * n + 2 * i + 1) % (D / 8)], p[k], odd);
          }
        } else {
          mma<M>(o[2 * n % (D / 8)], p[k], v);
          mma<M>(o[(2 * n + 1) % (D / 8)], p[k], v + 2);
        }
      }
    __syncthreads(); // the next load overwrites what was read here
  }
#pragma unroll
  for (int i = 0; i < 2; i++) {
    total[i] += __shfl_xor_sync(~0u, total[i], 1);
    total[i] += __shfl_xor_sync(~0u, total[i], 2);
    const int r = warp * 16 + (lane >> 2) + i * 8;
    if (r >= count) continue;
    T *to = out + ((size_t)(first + r) * heads + h) * D;
    const float inverse = 1 / (total[i] * (INT8 ? kLift : 1.f));
#pragma unroll
    for (int n = 0; n < D / 16; n++) {
      const float a = o[2 * n][2 * i] * inverse, b = o[2 * n][2 * i + 1] * inverse, c = o[2 * n + 1][2 * i] * inverse, d = o[2 * n + 1][2 * i + 1] * inverse;
      if (INT8) {
        *reinterpret_cast<uint2 *>(to + n * 16 + (lane & 3) * 4) = make_uint2(pack2<T>(a, c), pack2<T>(b, d));
      } else {
        *reinterpret_cast<uint32_t *>(to + n * 16 + (lane & 3) * 2) = pack2<T>(a, b);
        *reinterpret_cast<uint32_t *>(to + n * 16 + 8 + (lane & 3) * 2) = pack2<T>(c, d);
      }
    }
  }
}
#define PREFILL(T, D, NAME, INT8)                                                                                                                  \
  extern "C" __global__ void __launch_bounds__(128, D == 64 ? 4 : 2) attend_prefill_##NAME##_##D(                                                  \
      T *out, const T *qkv, const char *keys, const char *values, const float *key_scales, const float *value_scales, const int *tables,            \
      const int *offsets, const int *positions, const int *firsts, const int *counts, int heads, int kv_heads, float scale) {                      \
    attend_prefill<T, D, INT8>(out, qkv, keys, values, key_scales, value_scales, tables, offsets, positions, firsts, counts, heads, kv_heads,       \
                               scale);                                                                                                             \
  }
PREFILL(f16, 64, f16, false) PREFILL(f16, 128, f16, false) PREFILL(bf16, 64, bf16, false) PREFILL(bf16, 128, bf16, false)
PREFILL(f16, 64, i8_f16, true) PREFILL(f16, 128, i8_f16, true) PREFILL(bf16, 64, i8_bf16, true) PREFILL(bf16, 128, i8_bf16, true)
