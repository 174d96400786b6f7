// Converts matrices to e4m3 and back, one block per row. Decoding's products are in quantized_decode.cu.
#include "fp8.cuh"
#include "quantized_widen.cuh"
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

#define INSTANTIATE(T, suffix)                                                                                                 \
  extern "C" __global__ void quantize_##suffix(const T *weight, uint32_t *words, float *scales, int columns) {                 \
    quantize(weight, words, scales, columns);                                                                                  \
  }                                                                                                                            \
  WIDEN(Fp8, T, suffix)
INSTANTIATE(float, f32)
INSTANTIATE(bf16, bf16)
