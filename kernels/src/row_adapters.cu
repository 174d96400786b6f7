// Keeps each row's A products of its own adapter, zeroes the others'; `of_pairs`: row of each pair, or null for rows. One thread per element.
#include "numbers.cuh"

template <typename T> __device__ void keep(T *inner, int stride, const uint32_t *own, const uint32_t *of_pairs, int rows, int columns, int rank, int slot) {
  const long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= (long long)rows * columns) return;
  const int row = (int)(i / columns), column = (int)(i % columns);
  if ((uint32_t)(column % rank / slot) != own[of_pairs ? of_pairs[row] : row]) inner[(size_t)row * stride + column] = from_float<T>(0.0f);
}

extern "C" __global__ void keep_own_f32(float *inner, int stride, const uint32_t *own, const uint32_t *of_pairs, int rows, int columns, int rank, int slot) {
  keep(inner, stride, own, of_pairs, rows, columns, rank, slot);
}
extern "C" __global__ void keep_own_bf16(bf16 *inner, int stride, const uint32_t *own, const uint32_t *of_pairs, int rows, int columns, int rank, int slot) {
  keep(inner, stride, own, of_pairs, rows, columns, rank, slot);
}
