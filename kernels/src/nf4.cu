// Converts matrices to NF4 with double quantization and back (nf4.rs). Decoding's products are in quantized_decode.cu.
#include "nf4.cuh"
#include "quantized_widen.cuh"
#include "vectors.cuh"

constexpr int BLOCK = Nf4::BLOCK, GROUP = Nf4::GROUP;

// Largest magnitude of each block, one warp each.
template <typename T> __device__ void maxima(const T *weight, float *found, int blocks) {
  const int block = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32, lane = threadIdx.x % 32;
  if (block >= blocks) return;
  const Pack<T, 2> own = load<2>(weight + (size_t)block * BLOCK + 2 * lane);
  const float largest = warp_max(fmaxf(fabsf(to_float(own.at[0])), fabsf(to_float(own.at[1]))));
  if (lane == 0) found[block] = largest;
}

// Sums of each GROUP maxima, one thread each, then their mean by one thread: in f64 and in order, as nf4.rs.
extern "C" __global__ void sum_groups(const float *maxima, double *sums, int blocks) {
  const int group = blockIdx.x * blockDim.x + threadIdx.x;
  double sum = 0.0;
  for (int i = group * GROUP; i < min(blocks, (group + 1) * GROUP); i++) sum += maxima[i];
  if (group * GROUP < blocks) sums[group] = sum;
}
extern "C" __global__ void mean(const double *sums, float *found, int blocks) {
  double sum = 0.0;
#pragma unroll 8
  for (int group = 0; group < (blocks + GROUP - 1) / GROUP; group++) sum += sums[group];
  *found = (float)(sum / blocks);
}

// Where the code of a block's scale is (nf4.cuh).
__device__ __forceinline__ size_t place(int block, int row_blocks, int rows) {
  const int row = block / row_blocks, own = block % row_blocks;
  return ((size_t)(own / 2) * rows + row) * 2 + own % 2;
}

// One block of threads per group, each of which reads one number.
static_assert(GROUP == Nf4::SCALES);
extern "C" __global__ void quantize_scales(const float *maxima, const float *offset, const float *tables, uint8_t *codes, float2 *groups, int blocks, int row_blocks, int rows) {
  __shared__ float numbers[Nf4::SCALES];
  numbers[threadIdx.x] = tables[Nf4::NUMBERS + threadIdx.x];
  const int block = blockIdx.x * GROUP + threadIdx.x;
  const float own = block < blocks ? maxima[block] - *offset : 0.0f, largest = block_max(fabsf(own));
  if (threadIdx.x == 0) groups[blockIdx.x] = make_float2(largest, *offset);
  if (block < blocks) codes[place(block, row_blocks, rows)] = nearest<Nf4::SCALES>(numbers, own * (1.0f / largest));
}
// `stored`: in the order of blocks.
extern "C" __global__ void arrange_scales(const uint8_t *stored, uint8_t *codes, int blocks, int row_blocks, int rows) {
  const int block = blockIdx.x * blockDim.x + threadIdx.x;
  if (block < blocks) codes[place(block, row_blocks, rows)] = stored[block];
}

// The words of a row (nf4.cuh), one block per row. `code`: that of a column.
template <typename Code> __device__ void arrange(uint32_t *words, int columns, Code code) {
  const int reads = (columns + 127) / 128;
  words += (size_t)blockIdx.x * reads * 16;
  for (int i = threadIdx.x; i < reads * 16; i += blockDim.x) {
    const int first = i / 16 * 128 + i % 4 * 32 + i / 4 % 4 * 2;
    uint32_t word = 0;
#pragma unroll
    for (int k = 0; k < 8; k++) { // byte k / 2
      const int column = first + k % 2 * 16 + k / 4 * 8 + k / 2 % 2;
      word |= (column < columns ? code(column) : 7u) << 4 * k;
    }
    words[i] = word;
  }
}

template <typename T> __device__ void quantize(const T *weight, const float *maxima, const float *tables, uint32_t *words, int columns) {
  __shared__ float numbers[Nf4::NUMBERS];
  if (threadIdx.x < Nf4::NUMBERS) numbers[threadIdx.x] = tables[threadIdx.x];
  __syncthreads();
  weight += (size_t)blockIdx.x * columns;
  maxima += (size_t)blockIdx.x * (columns / BLOCK);
  arrange(words, columns, [&](int column) {
    const float largest = maxima[column / BLOCK];
    return nearest<Nf4::NUMBERS>(numbers, to_float(weight[column]) * (largest >= 1.17549435e-38f ? 1.0f / largest : 0.0f));
  });
}
// `stored`: two codes per byte, the first in the upper half.
extern "C" __global__ void arrange_codes(const uint8_t *stored, uint32_t *words, int columns) {
  stored += (size_t)blockIdx.x * (columns / 2);
  arrange(words, columns, [&](int column) { return (uint32_t)(column % 2 ? stored[column / 2] & 15 : stored[column / 2] >> 4); });
}

#define INSTANTIATE(T, suffix)                                                                                                 \
  extern "C" __global__ void maxima_##suffix(const T *weight, float *found, int blocks) { maxima(weight, found, blocks); }     \
  extern "C" __global__ void quantize_##suffix(const T *weight, const float *maxima, const float *tables, uint32_t *words,     \
                                               int columns) {                                                                  \
    quantize(weight, maxima, tables, words, columns);                                                                          \
  }                                                                                                                            \
  WIDEN(Nf4, T, suffix)
INSTANTIATE(float, f32)
INSTANTIATE(bf16, bf16)
