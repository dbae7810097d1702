// The next token, on the device: only ids cross the bus.
#include "common.cuh"

// How to pick one row's token: tensor.Pick.
struct Pick {
  float temperature, top_p, min_p, at; // at: where in [0, 1) to draw
  int top_k;
};

// pick: one block of 1024 threads per row of logits. Temperature 0 takes the
// first of the largest. Otherwise what is kept are the tokens at least as likely
// as a threshold: the highest that top-k, top-p and min-p allow, found by
// bisection over the bits of the weight exp((l − max) / temperature); tokens
// equal to the last one kept are all kept. The draw walks in order of the ids.
extern "C" __global__ void __launch_bounds__(1024) pick(int *ids, const float *logits, const Pick *picks, int vocab) {
  __shared__ float red[32], sums[32];
  __shared__ int found[32];
  let_next_start();
  wait_for_inputs();
  const Pick p = picks[blockIdx.x];
  const float *row = logits + (size_t)blockIdx.x * vocab;
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  float top = -INFINITY;
  int best = 0x7fffffff;
  const float4 *fours = reinterpret_cast<const float4 *>(row);
  const int whole = vocab % 4 ? 0 : vocab / 4; // rows begin at multiples of 16 bytes, or are read by single numbers
  for (int base = threadIdx.x; base < whole; base += 8 * 1024) { // 8 loads under way
    float4 v[8];
#pragma unroll
    for (int u = 0; u < 8; u++) v[u] = base + u * 1024 < whole ? fours[base + u * 1024] : make_float4(-INFINITY, -INFINITY, -INFINITY, -INFINITY);
#pragma unroll
    for (int u = 0; u < 8; u++) {
      const float four[4] = {v[u].x, v[u].y, v[u].z, v[u].w};
#pragma unroll
      for (int j = 0; j < 4; j++)
        if (four[j] > top) top = four[j], best = (base + u * 1024) * 4 + j;
    }
  }
  for (int i = 4 * whole + threadIdx.x; i < vocab; i += 1024)
    if (row[i] > top) top = row[i], best = i;
  const float high = block_max(top, red);
  if (p.temperature <= 0) {
    if (top != high) best = 0x7fffffff;
    for (int o = 16; o; o >>= 1) best = min(best, __shfl_xor_sync(~0u, best, o));
    if (lane == 0) found[warp] = best;
    __syncthreads();
    if (warp == 0) {
      best = found[lane];
      for (int o = 16; o; o >>= 1) best = min(best, __shfl_xor_sync(~0u, best, o));
      if (lane == 0) ids[blockIdx.x] = best < vocab ? best : 0;
    }
    return;
  }
  const float inverse = 1.f / p.temperature;
  auto weight = [&](int i) { return __expf((row[i] - high) * inverse); };
  float least = p.min_p;
  auto kept = [&](float from, bool count) { // mass, or number, of tokens with at least this weight
    float sum = 0;
    for (int i = threadIdx.x; i < vocab; i += 1024) {
      const float w = weight(i);
      if (w >= from) sum += count ? 1.f : w;
    }
    return block_sum(sum, red);
  };
  // highest is the largest threshold at which enough is kept.
  auto highest = [&](float enough, bool count) {
    int low = 0, up = 0x3f800000; // bits of 0 and 1; at 0 all is kept
    while (low < up) {
      const int mid = low + (up - low + 1) / 2;
      if (kept(__int_as_float(mid), count) >= enough) low = mid;
      else up = mid - 1;
    }
    return __int_as_float(low);
  };
  if (p.top_k > 0 && p.top_k < vocab) least = fmaxf(least, highest(float(p.top_k), true));
  if (p.top_p > 0 && p.top_p < 1) {
    const float among = p.top_k > 0 && p.top_k < vocab ? highest(float(p.top_k), true) : 0.f;
    least = fmaxf(least, highest(p.top_p * kept(among, false), false));
  }
  // Each warp sums a stretch of ids; the one in which the draw falls walks it.
  const int each = (vocab + 31) / 32, from = warp * each, to = min(vocab, from + each);
  float sum = 0;
  for (int i = from + lane; i < to; i += 32) {
    const float w = weight(i);
    sum += w >= least ? w : 0.f;
  }
  sum = warp_sum(sum);
  if (lane == 0) sums[warp] = sum;
  __syncthreads();
  if (warp) return;
  float total = warp_sum(sums[lane]), rest = p.at * total;
  int at = 0;
  for (; at < 31 && (rest >= sums[at]); at++) rest -= sums[at];
  while (at > 0 && sums[at] == 0) at--, rest = INFINITY; // rounding: the last that is kept
  int chosen = -1;
  for (int base = at * each; base < min(vocab, (at + 1) * each) && rest >= 0; base += 32) {
    const int i = base + lane;
    float w = i < min(vocab, (at + 1) * each) ? weight(i) : 0.f, sum = w = w >= least ? w : 0.f;
    for (int o = 1; o < 32; o <<= 1) {
      const float before = __shfl_up_sync(~0u, sum, o);
      if (lane >= o) sum += before;
    }
    const unsigned here = __ballot_sync(~0u, w > 0), over = __ballot_sync(~0u, w > 0 && sum > rest);
    if (here) chosen = base + 31 - __clz(here);
    if (over) {
      chosen = base + __ffs(over) - 1;
      break;
    }
    rest -= __shfl_sync(~0u, sum, 31);
  }
  if (lane == 0) ids[blockIdx.x] = max(0, chosen);
}
