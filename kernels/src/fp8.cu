// Converts matrices to e4m3 and back, one block per row. Decoding's products are in fp8_decode.cu.
#include "fp8.cuh"
#include "vectors.cuh"
#include <cuda_fp8.h>

// First column of word `index` of a row. A lane reads four words at once: of each 64 columns, lane t of four has the words from 4 t on; the word of columns 16
// q to 16 q + 15 has columns 2 t and 2 t + 1 as first elements, 2 t + 8 and 2 t + 9 as second.
__device__ __forceinline__ int first_column(int index) { return index / 16 * 64 + index % 4 * 16 + index / 4 % 4 * 2; }

template <typename T> __device__ void quantize(const T *weight, uint32_t *words, float *scales, int columns) {
  weight += (size_t)blockIdx.x * columns;
  words += (size_t)blockIdx.x * (columns / 4);
  float largest = 0.0f;
  for (int i = threadIdx.x; i < columns; i += blockDim.x) largest = fmaxf(largest, fabsf(to_float(weight[i])));
  largest = block_max(largest);
  // As `scale` and `nearest` of fp8.rs.
  const uint32_t bits = __float_as_uint(largest / 448.0f);
  const float scale = largest > 0.0f ? __uint_as_float(max((bits >> 23) + ((bits & 0x7fffff) > 0), 10u) << 23) : 1.0f;
  if (threadIdx.x == 0) scales[blockIdx.x] = scale;
  auto code = [&](int column) { return (uint32_t)__nv_cvt_float_to_fp8(to_float(weight[column]) / scale, __NV_SATFINITE, __NV_E4M3); };
  for (int i = threadIdx.x; i < columns / 4; i += blockDim.x) {
    const int column = first_column(i);
    words[i] = packed_half(code(column), code(column + 8)) | packed_half(code(column + 1), code(column + 9)) << 16;
  }
}

// target: [[W, beside], [below, 0]], rows of columns + adapter_columns, W with `rows` rows. beside: [rows, used], below: [.., columns].
template <typename T>
__device__ void widen(const uint32_t *words, const float *scales, const T *beside, const T *below, T *target, int columns, int rows, int used, int adapter_columns) {
  const int row = blockIdx.x;
  target += (size_t)row * (columns + adapter_columns);
  if (row >= rows) {
    for (int i = threadIdx.x; i < columns + adapter_columns; i += blockDim.x) target[i] = i < columns ? below[(size_t)(row - rows) * columns + i] : from_float<T>(0.0f);
    return;
  }
  const float scale = scales[row];
  words += (size_t)row * (columns / 4);
  // Four words hold pairs of columns from eight places: a warp orders 512 elements before writing them.
  constexpr int N = wide<T>(), PITCH = 64 + N; // lanes write to different banks
  __shared__ __align__(16) T ordered[8][8 * PITCH];
  T *own = ordered[threadIdx.x / 32];
  const int lane = threadIdx.x % 32;
  for (int start = threadIdx.x / 32 * 512; start < columns; start += blockDim.x * 16) {
    if (start + 16 * lane < columns) {
      const Pack<uint32_t, 4> read = load<4>(words + start / 4 + 4 * lane);
      T *to = own + lane / 4 * PITCH + 2 * (lane % 4);
#pragma unroll
      for (int i = 0; i < 8; i++) {
        const uint32_t wide = i % 2 ? second_pair(read.at[i / 2]) : first_pair(read.at[i / 2]);
        Pack<T, 2> pair;
        pair.at[0] = from_float<T>(__uint_as_float(wide << 16) * scale);
        pair.at[1] = from_float<T>(__uint_as_float(wide & 0xffff0000) * scale);
        store(to + 8 * i, pair);
      }
    }
    __syncwarp();
    for (int i = lane * N; i < min(512, columns - start); i += 32 * N) store(target + start + i, load<N>(own + i / 64 * PITCH + i % 64));
    __syncwarp();
  }
  for (int i = threadIdx.x; i < adapter_columns; i += blockDim.x) target[columns + i] = i < used ? beside[(size_t)row * used + i] : from_float<T>(0.0f);
}

#define INSTANTIATE(T, suffix)                                                                                                 \
  extern "C" __global__ void quantize_##suffix(const T *weight, uint32_t *words, float *scales, int columns) {                 \
    quantize(weight, words, scales, columns);                                                                                  \
  }                                                                                                                            \
  extern "C" __global__ void widen_##suffix(const uint32_t *words, const float *scales, const T *beside, const T *below,       \
                                            T *target, int columns, int rows, int used, int adapter_columns) {                 \
    widen(words, scales, beside, below, target, columns, rows, used, adapter_columns);                                         \
  }
INSTANTIATE(float, f32)
INSTANTIATE(bf16, bf16)
