// Dtypes and reductions shared by all kernels. Computation is in f32; storage is f32 or bf16.
#pragma once
#include <cuda_bf16.h>
#include <stdint.h>

using bf16 = __nv_bfloat16;

__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(bf16 x) { return __bfloat162float(x); }

template <typename T> __device__ __forceinline__ T from_float(float x);
template <> __device__ __forceinline__ float from_float<float>(float x) { return x; }
template <> __device__ __forceinline__ bf16 from_float<bf16>(float x) { return __float2bfloat16(x); }

// Exponentials are of base 2.
constexpr float LOG2_E = 1.44269504088896341f;

// 2^x; 0 if subnormal.
__device__ __forceinline__ float power(float x) {
  float result;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
}

// Butterfly reduction over lanes at distances FIRST, halved or doubled up to LAST, in a fixed order. Every lane gets the result.
template <int FIRST, int LAST, typename N, typename Join> __device__ __forceinline__ N over_lanes(N x, Join join) {
#pragma unroll
  for (int distance = FIRST; FIRST > LAST ? distance >= LAST : distance <= LAST; distance = FIRST > LAST ? distance / 2 : distance * 2)
    x = join(x, __shfl_xor_sync(0xffffffffu, x, distance));
  return x;
}

template <int FIRST, int LAST, typename N> __device__ __forceinline__ N lanes_sum(N x) {
  return over_lanes<FIRST, LAST>(x, [](N a, N b) { return a + b; });
}
template <int FIRST, int LAST> __device__ __forceinline__ float lanes_max(float x) {
  return over_lanes<FIRST, LAST>(x, [](float a, float b) { return fmaxf(a, b); });
}

template <typename N> __device__ __forceinline__ N warp_sum(N x) { return lanes_sum<16, 1>(x); }
__device__ __forceinline__ float warp_max(float x) { return lanes_max<16, 1>(x); }

// Applies `over_warp` to a whole block; every thread gets the result. `none`: its neutral element. Blocks are whole warps, at most 32.
template <typename N, typename OverWarp> __device__ __forceinline__ N over_block(N x, N none, OverWarp over_warp) {
  __shared__ N partial[32];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, warps = blockDim.x / 32;
  x = over_warp(x);
  __syncthreads();
  if (lane == 0) partial[warp] = x;
  __syncthreads();
  return over_warp(lane < warps ? partial[lane] : none);
}

template <typename N> __device__ __forceinline__ N block_sum(N x) {
  return over_block(x, N(0), [](N y) { return warp_sum(y); });
}
__device__ __forceinline__ float block_max(float x) {
  return over_block(x, -INFINITY, [](float y) { return warp_max(y); });
}
