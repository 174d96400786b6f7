// A quantized matrix with the adapters beside and below it, in T: one block per row.
#pragma once
#include "vectors.cuh"

// target: [[W, beside], [below, 0]], rows of columns + adapter_columns, W with `rows` rows. beside: [rows, used], below: [.., columns].
template <typename T, typename Weights>
__device__ void widen(const Weights &weights, const T *beside, const T *below, T *target, int columns, int rows, int used, int adapter_columns) {
  const int row = blockIdx.x;
  target += (size_t)row * (columns + adapter_columns);
  if (row >= rows) {
    for (int i = threadIdx.x; i < columns + adapter_columns; i += blockDim.x) target[i] = i < columns ? below[(size_t)(row - rows) * columns + i] : from_float<T>(0.0f);
    return;
  }
  __shared__ typename Weights::Shared shared;
  Weights::share(weights, shared);
  __syncthreads();
  // A lane has pairs of columns from eight places: a warp orders 512 elements before writing them.
  constexpr int N = wide<T>(), PITCH = 64 + N; // lanes write to different banks
  __shared__ __align__(16) T ordered[8][8 * PITCH];
  T *own = ordered[threadIdx.x / 32];
  const int lane = threadIdx.x % 32;
  for (int start = threadIdx.x / 32 * 512; start < columns; start += blockDim.x * 16) {
    if (start + 16 * lane < columns) {
      float2 pairs[8];
      weights.pairs(pairs, shared, row, start / 64 + lane / 4, lane % 4, columns, rows);
      T *to = own + lane / 4 * PITCH + 2 * (lane % 4);
#pragma unroll
      for (int i = 0; i < 8; i++) {
        Pack<T, 2> pair;
        pair.at[0] = from_float<T>(pairs[i].x);
        pair.at[1] = from_float<T>(pairs[i].y);
        store(to + 8 * i, pair);
      }
    }
    __syncwarp();
    for (int i = lane * N; i < min(512, columns - start); i += 32 * N) store(target + start + i, load<N>(own + i / 64 * PITCH + i % 64));
    __syncwarp();
  }
  for (int i = threadIdx.x; i < adapter_columns; i += blockDim.x) target[columns + i] = i < used ? beside[(size_t)row * used + i] : from_float<T>(0.0f);
}

#define WIDEN(Weights, T, suffix)                                                                                              \
  extern "C" __global__ void widen_##suffix(const Weights weights, const T *beside, const T *below, T *target, int columns,    \
                                            int rows, int used, int adapter_columns) {                                         \
    widen(weights, beside, below, target, columns, rows, used, adapter_columns);                                               \
  }
