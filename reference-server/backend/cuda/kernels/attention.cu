// Paged attention. decode: one token at a time against its whole context, split
// over the sequence where there are few tokens. prefill: 64 tokens of a prompt
// at a time on tensor cores, as FlashAttention-2 (Dao 2023) does. Keys and
// values lie in blocks (block, KV head, 16, dim).
#include "common.cuh"

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
  __syncthreads();
  float *own = partial + (((size_t)blockIdx.x * gridDim.y + blockIdx.y) * gridDim.z) * G * pitch;
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
    unsigned *count = done + (size_t)blockIdx.x * gridDim.y + blockIdx.y;
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
#define DECODE(T, LP, G, W)                                                                                                                      \
  extern "C" __global__ void __launch_bounds__(32 * W) attend_decode_##T##_##LP##_##G##_##W(                                                     \
      T *out, const T *qkv, const T *keys, const T *values, const int *tables, const int *offsets, const int *positions, const int *slots,      \
      const int *which, float *partial, unsigned *done, int heads, int kv_heads, int dim, float scale, int early) {                             \
    attend_decode<T, LP, G, W>(out, qkv, keys, values, tables, offsets, positions, slots, which, partial, done, heads, kv_heads, dim, scale, early); \
  }
#define DECODES(T, G)                                                                                                                            \
  DECODE(T, 2, G, 4) DECODE(T, 4, G, 4) DECODE(T, 8, G, 4) DECODE(T, 16, G, 4) DECODE(T, 32, G, 4) DECODE(T, 8, G, 8) DECODE(T, 16, G, 8)
DECODES(f16, 1) DECODES(f16, 4) DECODES(f16, 8) DECODES(bf16, 1) DECODES(bf16, 4) DECODES(bf16, 8)

// attend_prefill: tile i is counts[i] ≤ 64 consecutive tokens of one sequence,
// from token firsts[i] on. grid (tiles, heads), 128 threads: a warp has 16
// tokens. Keys and values come 64 at a time, the next while these are used.
template <typename T, int D>
__device__ void attend_prefill(T *out, const T *qkv, const T *keys, const T *values, const int *tables, const int *offsets, const int *positions,
                               const int *firsts, const int *counts, int heads, int kv_heads, float scale) {
  constexpr int B = 64, pitch = D + 8;
  extern __shared__ uint4 shared[];
  T *qs = reinterpret_cast<T *>(shared), *ks = qs + B * pitch, *vs = ks + 2 * B * pitch;
  let_next_start();
  wait_for_inputs();
  const int tid = threadIdx.x, lane = tid & 31, warp = tid >> 5;
  const int first = firsts[gridDim.x - 1 - blockIdx.x], count = counts[gridDim.x - 1 - blockIdx.x]; // long ones first
  const int h = blockIdx.y, kv = h / (heads / kv_heads);
  const int *table = tables + offsets[first];
  const int p0 = positions[first], length = p0 + count, tiles = (length + B - 1) / B;
  for (int i = tid; i < B * D / 8; i += 128) {
    const int r = i / (D / 8), c = i % (D / 8) * 8;
    copy16(qs + r * pitch + c, qkv + ((size_t)(first + (r < count ? r : 0)) * (heads + 2 * kv_heads) + h) * D + c, r < count);
  }
  auto load = [&](int tile) {
    T *kt = ks + tile % 2 * B * pitch, *vt = vs + tile % 2 * B * pitch;
    for (int i = tid; i < B * D / 8; i += 128) {
      const int r = i / (D / 8), c = i % (D / 8) * 8, pos = tile * B + r;
      const bool valid = pos < length;
      const size_t at = valid ? (((size_t)table[pos / kBlock] * kv_heads + kv) * kBlock + pos % kBlock) * D + c : 0;
      copy16(kt + r * pitch + c, keys + at, valid);
      copy16(vt + r * pitch + c, values + at, valid);
    }
  };
  load(0);
  copies_commit();
  uint32_t q[D / 16][4];
  float o[D / 8][4] = {}, top[2] = {-INFINITY, -INFINITY}, total[2] = {};
  const float unit = scale * 1.4426950408889634f;
  for (int tile = 0; tile < tiles; tile++) {
    if (tile + 1 < tiles) load(tile + 1);
    copies_commit();
    copies_wait<1>();
    __syncthreads();
    if (tile == 0)
#pragma unroll
      for (int d = 0; d < D / 16; d++) load_matrices(q[d], qs + (warp * 16 + (lane & 15)) * pitch + d * 16 + (lane >> 4) * 8);
    const T *kt = ks + tile % 2 * B * pitch, *vt = vs + tile % 2 * B * pitch;
    float s[B / 8][4] = {};
#pragma unroll
    for (int d = 0; d < D / 16; d++)
#pragma unroll
      for (int n = 0; n < B / 16; n++) {
        uint32_t k[4];
        load_matrices(k, kt + (n * 16 + (lane & 7) + (lane >> 4) * 8) * pitch + d * 16 + (lane >> 3 & 1) * 8);
        mma<T>(s[2 * n], q[d], k);
        mma<T>(s[2 * n + 1], q[d], k + 2);
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
      p[n / 2][n % 2 * 2] = pack2<T>(e[0], e[1]);
      p[n / 2][n % 2 * 2 + 1] = pack2<T>(e[2], e[3]);
    }
#pragma unroll
    for (int k = 0; k < B / 16; k++)
#pragma unroll
      for (int n = 0; n < D / 16; n++) {
        uint32_t v[4];
        load_matrices_t(v, vt + (k * 16 + (lane & 15)) * pitch + n * 16 + (lane >> 4) * 8);
        mma<T>(o[2 * n], p[k], v);
        mma<T>(o[2 * n + 1], p[k], v + 2);
      }
    __syncthreads(); // the next load overwrites what was read here
  }
#pragma unroll
  for (int i = 0; i < 2; i++) {
    total[i] += __shfl_xor_sync(~0u, total[i], 1);
    total[i] += __shfl_xor_sync(~0u, total[i], 2);
    const int r = warp * 16 + (lane >> 2) + i * 8;
    if (r >= count) continue;
    uint32_t *to = reinterpret_cast<uint32_t *>(out + ((size_t)(first + r) * heads + h) * D) + (lane & 3);
#pragma unroll
    for (int n = 0; n < D / 8; n++) to[n * 4] = pack2<T>(o[n][2 * i] / total[i], o[n][2 * i + 1] / total[i]);
  }
}
#define PREFILL(T, D)                                                                                                                             \
  extern "C" __global__ void __launch_bounds__(128, D == 64 ? 4 : 2) attend_prefill_##T##_##D(T *out, const T *qkv, const T *keys, const T *values, \
                                                                             const int *tables, const int *offsets, const int *positions,        \
                                                                             const int *firsts, const int *counts, int heads, int kv_heads,      \
                                                                             float scale) {                                                      \
    attend_prefill<T, D>(out, qkv, keys, values, tables, offsets, positions, firsts, counts, heads, kv_heads, scale);                             \
  }
PREFILL(f16, 64) PREFILL(f16, 128) PREFILL(bf16, 64) PREFILL(bf16, 128)
