// Products of few rows for decoding on Hopper: blocks of a cluster split the inner index and join their sums in a fixed order.
#pragma once
#include "vectors.cuh"
#include <cuda.h>

// Barriers in shared memory, each of one arrival and of bytes that are copied.
struct Arrivals {
  uint32_t first;

  // By one thread; the others wait for it at a barrier of the block.
  __device__ __forceinline__ void start(int count) const {
    for (int i = 0; i < count; i++) asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(first + 8 * i) : "memory");
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  }
  __device__ __forceinline__ void expect(int at, int bytes) const {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(first + 8 * at), "r"(bytes) : "memory");
  }
  // Starts a copy of a map's box at (column, row).
  __device__ __forceinline__ void bring(int at, uint32_t to, const CUtensorMap &map, int column, int row) const {
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], [%4];" ::"r"(to), "l"(&map), "r"(column), "r"(row),
                 "r"(first + 8 * at)
                 : "memory");
  }
  __device__ __forceinline__ void wait(int at, int turn) const {
    uint32_t is_there = 0;
    while (!is_there)
      asm volatile("{\n.reg .pred p;\nmbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\nselp.u32 %0, 1, 0, p;\n}\n" : "=r"(is_there) : "r"(first + 8 * at), "r"(turn) : "memory");
  }
};

// To the same offset in the shared memory of another block of the cluster.
__device__ __forceinline__ void send(float *place, int block, float value) {
  uint32_t there;
  const uint32_t here = (uint32_t)__cvta_generic_to_shared(place);
  asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(here), "r"(block));
  asm volatile("st.shared::cluster.f32 [%0], %1;" ::"r"(there), "f"(value) : "memory");
}
__device__ __forceinline__ void wait_for_cluster() {
  asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::: "memory");
}

// The block of the cluster that sums a token: block n has tokens n, n + splits, ..
struct Shares {
  int splits, split, own, reciprocal;
  __device__ Shares(int tokens)
      : splits(gridDim.x), split(blockIdx.x), own((tokens + splits - 1) / splits), reciprocal(65536 / splits + 1) {} // exact for so few tokens
  __device__ __forceinline__ int place(int token) const { return token * reciprocal >> 16; }
};

// Joins a cluster's sums of OUTPUTS columns from `first` on into y: [rows, stride]. `sums`: shared memory that no block reads any more, at the end of this it is free.
template <int OUTPUTS, int TILES, typename Scaled>
__device__ __forceinline__ void join_sums(const float (&acc)[TILES][4], float *sums, const Shares &shares, float *y, int first, int rows, int outputs, int stride, Scaled scaled) {
  constexpr int PITCH = OUTPUTS + 4, LANES = OUTPUTS / 4; // PITCH: lanes write to different banks; LANES: per token
  const int warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
  wait_for_cluster();
#pragma unroll
  for (int i = 0; i < TILES; i++)
#pragma unroll
    for (int k = 0; k < 2; k++) {
      const int token = 8 * i + 2 * t + k, place = shares.place(token);
      float *row = sums + (shares.split * shares.own + place) * PITCH + warp * 16 + g;
#pragma unroll
      for (int h = 0; h < 2; h++) send(row + 8 * h, token - place * shares.splits, acc[i][k + 2 * h]);
    }
  wait_for_cluster();
  const int own_lane = threadIdx.x % LANES, column = first + 4 * own_lane;
  if (column >= outputs) return;
  for (int place = threadIdx.x / LANES; place < shares.own; place += blockDim.x / LANES) {
    const int token = place * shares.splits + shares.split;
    if (token >= rows) break;
    Pack<float, 4> sum = {};
    for (int block = 0; block < shares.splits; block++) {
      const Pack<float, 4> part = load<4>(sums + (block * shares.own + place) * PITCH + 4 * own_lane);
#pragma unroll
      for (int k = 0; k < 4; k++) sum.at[k] += part.at[k];
    }
#pragma unroll
    for (int k = 0; k < 4; k++) sum.at[k] = scaled(sum.at[k], column + k);
    store(y + (size_t)token * stride + column, sum);
  }
}
