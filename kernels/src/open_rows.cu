// Adds the adapters' part to open rows (open_rows.rs), which are `stride` apart, as rows of B are by theirs; A products follow a row's `width` columns.
#include "low_rank.cuh"

// One thread per element.
template <typename T> __device__ void complete(const float *rows, int stride, const T *b, int b_stride, int rank, T *output, int width) {
  const int row = blockIdx.y, column = blockIdx.x * blockDim.x + threadIdx.x;
  if (column >= width) return;
  const LowRank<T> own{b + (size_t)column * b_stride, rank};
  wait_for_predecessor();
  start_successor();
  rows += (size_t)row * stride;
  output[(size_t)row * width + column] = from_float<T>(own.add(rows[column], rows + width, 0));
}

// On tensor cores: a warp has sixteen rows and sixteen columns. The width is a multiple of 16.
__device__ void complete_on_tensor_cores(const float *rows, int stride, const bf16 *b, int b_stride, int rank, bf16 *output, int count, int width) {
  const int column = (blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32) * 16, t = threadIdx.x % 4;
  if (column >= width) return;
  const TensorLowRank<1> adapters(b, column, rank, b_stride);
  const TwoRows row(count);
  const float *low = rows + (size_t)row.low * stride, *high = rows + (size_t)row.high * stride;
  wait_for_predecessor();
  start_successor();
  Tile tile[1];
  tile[0].read(low + column, high + column, t);
  adapters.add(tile, low + width, high + width);
  Pack<bf16, 4> results[2];
#pragma unroll
  for (int k = 0; k < 4; k++) results[0].at[k] = from_float<bf16>(tile[0].low[k]), results[1].at[k] = from_float<bf16>(tile[0].high[k]);
  store(output + (size_t)row.low * width + column + 4 * t, results[0]);
  store(output + (size_t)row.high * width + column + 4 * t, results[1]);
}

#define INSTANTIATE(T, suffix)                                                                                                                       \
  extern "C" __global__ void open_rows_complete_##suffix(const float *rows, int stride, const T *b, int b_stride, int rank, T *output, int count, int width) { \
    complete<T>(rows, stride, b, b_stride, rank, output, width);                                                                                       \
  }
INSTANTIATE(float, f32)
INSTANTIATE(bf16, bf16)
extern "C" __global__ void __launch_bounds__(128) open_rows_complete_tensor_bf16(const float *rows, int stride, const bf16 *b, int b_stride, int rank, bf16 *output, int count, int width) {
  complete_on_tensor_cores(rows, stride, b, b_stride, rank, output, count, width);
}
