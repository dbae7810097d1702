// What all kernels share: 16-bit numbers read and written as float32, warp
// sums, and the wait of programmatic dependent launch (Hopper), by which a
// kernel starts while the one before it ends.
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>
#include <stdint.h>

typedef __half f16;
typedef __nv_bfloat16 bf16;

constexpr int kBlock = 16;   // tokens in a KV block: tensor.BlockSize

// What the step before wrote, and what a step is told (tokens, positions, tables),
// is there when any of its kernels starts; only what the kernels of this step
// write has to be waited for.
__device__ __forceinline__ void wait_for_inputs() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
__device__ __forceinline__ void let_next_start() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;");
#endif
}

__device__ __forceinline__ float to_float(f16 x) { return __half2float(x); }
__device__ __forceinline__ float to_float(bf16 x) { return __bfloat162float(x); }
template <typename T> __device__ __forceinline__ T from_float(float x);
// Infinity would become NaN in the next norm, so float16 saturates.
template <> __device__ __forceinline__ f16 from_float<f16>(float x) { return __float2half_rn(fminf(fmaxf(x, -65504.f), 65504.f)); }
template <> __device__ __forceinline__ bf16 from_float<bf16>(float x) { return __float2bfloat16_rn(x); }

// unpack2 reads the two numbers of a 32-bit word.
template <typename T> __device__ __forceinline__ float2 unpack2(uint32_t w);
template <> __device__ __forceinline__ float2 unpack2<f16>(uint32_t w) { return __half22float2(*reinterpret_cast<__half2 *>(&w)); }
template <> __device__ __forceinline__ float2 unpack2<bf16>(uint32_t w) { return make_float2(__uint_as_float(w << 16), __uint_as_float(w & 0xffff0000u)); }
template <typename T> __device__ __forceinline__ uint32_t pack2(float a, float b) {
  T v[2] = {from_float<T>(a), from_float<T>(b)};
  return *reinterpret_cast<uint32_t *>(v);
}
template <typename T> __device__ __forceinline__ void unpack8(const uint4 &v, float *out) {
  const uint32_t w[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
  for (int i = 0; i < 4; i++) {
    const float2 f = unpack2<T>(w[i]);
    out[2 * i] = f.x, out[2 * i + 1] = f.y;
  }
}

__device__ __forceinline__ float warp_sum(float v) {
#pragma unroll
  for (int o = 16; o; o >>= 1) v += __shfl_xor_sync(~0u, v, o);
  return v;
}
__device__ __forceinline__ float warp_max(float v) {
#pragma unroll
  for (int o = 16; o; o >>= 1) v = fmaxf(v, __shfl_xor_sync(~0u, v, o));
  return v;
}
// block_sum gives the sum to every thread; red has room for 32 floats.
__device__ __forceinline__ float block_sum(float v, float *red) {
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = blockDim.x >> 5;
  v = warp_sum(v);
  __syncthreads();
  if (lane == 0) red[warp] = v;
  __syncthreads();
  v = lane < warps ? red[lane] : 0.f;
  return warp_sum(v);
}
__device__ __forceinline__ float block_max(float v, float *red) {
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = blockDim.x >> 5;
  v = warp_max(v);
  __syncthreads();
  if (lane == 0) red[warp] = v;
  __syncthreads();
  v = lane < warps ? red[lane] : -INFINITY;
  return warp_max(v);
}
__device__ __forceinline__ float silu(float g) { return g / (1.f + __expf(-g)); }

// power2 is 2 to the x; what is far below 1 becomes 0.
__device__ __forceinline__ float power2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// stream16 reads 16 bytes that will not be read again.
__device__ __forceinline__ uint4 stream16(const void *p) {
  uint4 v;
  asm volatile("ld.global.nc.L1::no_allocate.L2::128B.v4.u32 {%0,%1,%2,%3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(p));
  return v;
}
__device__ __forceinline__ void copy16(void *shared, const void *global, bool valid) {
  const uint32_t to = (uint32_t)__cvta_generic_to_shared(shared);
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(global), "r"(valid ? 16 : 0) : "memory");
}
__device__ __forceinline__ void copy4(void *shared, const void *global, bool valid) {
  const uint32_t to = (uint32_t)__cvta_generic_to_shared(shared);
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(to), "l"(global), "r"(valid ? 4 : 0) : "memory");
}
__device__ __forceinline__ void copies_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int N> __device__ __forceinline__ void copies_wait() { asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory"); }

__device__ __forceinline__ void load_matrices(uint32_t *r, const void *p) {
  const uint32_t a = (uint32_t)__cvta_generic_to_shared(p);
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];" : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(a));
}
__device__ __forceinline__ void load_matrices_t(uint32_t *r, const void *p) {
  const uint32_t a = (uint32_t)__cvta_generic_to_shared(p);
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];" : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(a));
}
template <typename T> __device__ __forceinline__ void mma(float *c, const uint32_t *a, const uint32_t *b);
template <> __device__ __forceinline__ void mma<f16>(float *c, const uint32_t *a, const uint32_t *b) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
template <> __device__ __forceinline__ void mma<bf16>(float *c, const uint32_t *a, const uint32_t *b) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// Eight bits: what lies in memory as 16 columns of T is 32 of int8.
struct pair8 { int8_t first, second; };
__device__ __forceinline__ void mma8(int *c, const uint32_t *a, const uint32_t *b) {
  asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3]) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// transposed turns a matrix of 8 × 8 numbers of 16 bits, held by a warp as a
// product's result, into what the next product takes.
__device__ __forceinline__ uint32_t transposed(uint32_t v) {
  asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %0;" : "+r"(v));
  return v;
}

// int8 keys and values are multiplied as float16, which holds them exactly,
// whatever T is. Weights of values have their scales in them, and are lifted so
// that small ones do not get lost.
template <typename T, bool INT8> struct Factors { using type = T; };
template <typename T> struct Factors<T, true> { using type = f16; };
constexpr float kLift = 64;

// Two of the four bytes v + 128 of a word as float16: 1024 + u is a float16 whose
// last byte is u.
template <int SELECT> __device__ __forceinline__ uint32_t two_bytes(uint32_t w) {
  const uint32_t v = __byte_perm(w, 0x64646464u, SELECT), bias = 0x64806480u; // 1152
  const __half2 h = __hsub2(*reinterpret_cast<const __half2 *>(&v), *reinterpret_cast<const __half2 *>(&bias));
  return *reinterpret_cast<const uint32_t *>(&h);
}
__device__ __forceinline__ uint32_t bytes01(uint32_t w) { return two_bytes<0x4140>(w); }
__device__ __forceinline__ uint32_t bytes23(uint32_t w) { return two_bytes<0x4342>(w); }
__device__ __forceinline__ uint32_t bytes02(uint32_t w) { return two_bytes<0x4240>(w); }
__device__ __forceinline__ uint32_t bytes13(uint32_t w) { return two_bytes<0x4341>(w); }

// repack2 makes two numbers of T two of M.
template <typename T, typename M> __device__ __forceinline__ uint32_t repack2(uint32_t w) {
  const float2 f = unpack2<T>(w);
  return pack2<M>(f.x, f.y);
}
