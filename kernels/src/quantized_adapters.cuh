// Sums over the steps from `first` to `last` of 32 inner indices, of which each warp takes every WARPS-th: sixteen columns of A times all tokens. The order of inner
// indices is free as long as both operands agree.
#pragma once
#include "tensor_cores.cuh"
#include "vectors.cuh"

template <int TILES, int WARPS, uint4 READ(const void *), typename Sizes>
__device__ __forceinline__ void products_of_adapters(float (&acc)[TILES][4], const bf16 *x, const bf16 *a, int tile, const Sizes &n, int first, int last) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  const bf16 *low_row = a + (size_t)min(16 * tile + g, n.rank - 1) * n.inputs + 8 * t, *high_row = a + (size_t)min(16 * tile + g + 8, n.rank - 1) * n.inputs + 8 * t;
  wait_for_predecessor();
  for (int step = first + warp; step < last; step += WARPS) {
    const uint4 low = READ(low_row + step * 32), high = READ(high_row + step * 32);
    const uint32_t products[2][4] = {{low.x, high.x, low.y, high.y}, {low.z, high.z, low.w, high.w}};
#pragma unroll
    for (int i = 0; i < TILES; i++) {
      const uint4 b = *reinterpret_cast<const uint4 *>(x + (size_t)min(8 * i + g, n.rows - 1) * n.inputs + step * 32 + 8 * t);
      multiply(acc[i], products[0], b.x, b.y);
      multiply(acc[i], products[1], b.z, b.w);
    }
  }
}
