// Gathers rows of a table by id, and sums rows by id.
#include "vectors.cuh"

// One block per output row.
template <int N, typename T, typename R> __device__ void rows(const T *table, int stride, const uint32_t *ids, R *output, int width) {
  table += (size_t)ids[blockIdx.x] * stride;
  output += (size_t)blockIdx.x * width;
  for (int i = threadIdx.x * N; i < width; i += blockDim.x * N) {
    const Pack<T, N> from = load<N>(table + i);
    Pack<R, N> to;
    for (int n = 0; n < N; n++) to.at[n] = from_float<R>(to_float(from.at[n]));
    store<N>(output + i, to);
  }
}

// Rows of the table are `stride` apart.
template <typename T, typename R> __device__ void gather_rows(const T *table, int stride, const uint32_t *ids, R *output, int width) {
  constexpr int N = wide<R>();
  if (stride % N == 0 && rows_aligned<N>(width, table) && rows_aligned<N>(width, output)) rows<N>(table, stride, ids, output, width);
  else rows<1>(table, stride, ids, output, width);
}

// blockIdx.x is one of the distinct ids; `rows[starts[x] .. starts[x + 1]]` are its rows of the gradient, added in that order. blockIdx.y: a share of the
// columns. Output rows of other ids are not written.
template <typename T, typename R>
__device__ void sum_rows(const T *gradient, const uint32_t *ids, const uint32_t *starts, const uint32_t *rows, R *output, int width) {
  const int column = blockIdx.y * blockDim.x + threadIdx.x;
  if (column >= width) return;
  const uint32_t last = starts[blockIdx.x + 1];
  float sum = 0.0f;
  for (uint32_t i = starts[blockIdx.x]; i < last; i++) sum += to_float(gradient[(size_t)rows[i] * width + column]);
  output[(size_t)ids[blockIdx.x] * width + column] = from_float<R>(sum);
}

#define INSTANTIATE(T, suffix)                                                                                                 \
  extern "C" __global__ void gather_rows_##suffix(const T *table, int stride, const uint32_t *ids, T *output, int width) {     \
    gather_rows(table, stride, ids, output, width);                                                                            \
  }                                                                                                                            \
  extern "C" __global__ void embedding_backward_##suffix(const T *gradient, const uint32_t *ids, const uint32_t *starts,       \
                                                         const uint32_t *rows, float *output, int width) {                     \
    sum_rows(gradient, ids, starts, rows, output, width);                                                                      \
  }                                                                                                                            \
  extern "C" __global__ void scatter_rows_##suffix(const T *gradient, const uint32_t *ids, const uint32_t *starts,             \
                                                   const uint32_t *rows, T *output, int width) {                               \
    sum_rows(gradient, ids, starts, rows, output, width);                                                                      \
  }
INSTANTIATE(float, f32)
INSTANTIATE(bf16, bf16)
extern "C" __global__ void gather_rows_bf16_into_f32(const bf16 *table, int stride, const uint32_t *ids, float *output, int width) {
  gather_rows(table, stride, ids, output, width);
}
