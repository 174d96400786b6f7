// y = x / sqrt(mean(x^2) + epsilon) * weight, one block a row. S: what the residual stream (x and sums of it) is kept in; T: everything else.
// Rows of T that are written begin `stride` numbers apart: what stands behind them is not touched.
#include "vectors.cuh"

template <int N, typename S, typename T>
__device__ void forward(const S *x, const T *weight, T *y, int width, int stride, float epsilon) {
  x += (size_t)blockIdx.x * width;
  y += (size_t)blockIdx.x * stride;
  float square = 0.0f;
  for (int i = threadIdx.x * N; i < width; i += blockDim.x * N) {
    const Pack<S, N> values = load<N>(x + i);
#pragma unroll
    for (int k = 0; k < N; k++) square += to_float(values.at[k]) * to_float(values.at[k]);
  }
  const float inverse = rsqrtf(block_sum(square) / width + epsilon);
  for (int i = threadIdx.x * N; i < width; i += blockDim.x * N) {
    const Pack<S, N> values = load<N>(x + i);
    const Pack<T, N> weights = load<N>(weight + i);
    Pack<T, N> result;
#pragma unroll
    for (int k = 0; k < N; k++) result.at[k] = from_float<T>(to_float(values.at[k]) * inverse * to_float(weights.at[k]));
    store<N>(y + i, result);
  }
}

// sum = x + addend, rounded as it is kept; y = norm of that. A thread reads again only what it wrote itself. With A = float the addend is open: rows of
// width, then numbers of adapters, `addend_stride` apart.
template <int N, typename S, typename A, typename T>
__device__ void add_forward(const S *x, const A *addend, int addend_stride, const LowRank<T> &adapters, const T *weight, S *sum, T *y, int width,
                            int stride, float epsilon) {
  const size_t row = (size_t)blockIdx.x * width;
  addend += (size_t)blockIdx.x * addend_stride;
  if constexpr (sizeof(A) == sizeof(float)) {
    for (int i = threadIdx.x * N; i < width; i += blockDim.x * N) {
      adapters.fetch(i);
      prefetch(weight + i);
    }
    wait_for_predecessor();
  }
  y += (size_t)blockIdx.x * stride;
  float square = 0.0f;
  Pack<S, N> newest = {};
  for (int i = threadIdx.x * N; i < width; i += blockDim.x * N) {
    const Pack<S, N> a = load<N>(x + row + i);
    const Pack<A, N> b = load<N>(addend + i);
    float added[N];
#pragma unroll
    for (int k = 0; k < N; k++) added[k] = to_float(b.at[k]);
    if constexpr (sizeof(A) == sizeof(float)) adapters.add(added, addend + width, i);
    Pack<S, N> result;
#pragma unroll
    for (int k = 0; k < N; k++) {
      result.at[k] = from_float<S>(to_float(a.at[k]) + added[k]);
      square += to_float(result.at[k]) * to_float(result.at[k]);
    }
    store<N>(sum + row + i, result);
    newest = result;
  }
  const float inverse = rsqrtf(block_sum(square) / width + epsilon);
  for (int i = threadIdx.x * N; i < width; i += blockDim.x * N) {
    const Pack<S, N> values = i + blockDim.x * N >= width ? newest : load<N>(sum + row + i);
    const Pack<T, N> weights = load<N>(weight + i);
    Pack<T, N> result;
#pragma unroll
    for (int k = 0; k < N; k++) result.at[k] = from_float<T>(to_float(values.at[k]) * inverse * to_float(weights.at[k]));
    store<N>(y + i, result);
  }
}

// dx = residual + r * (g - x * r^2 * mean(g * x)) with g = gradient * weight, r = 1 / rms; `residual` may be null.
template <int N, typename S, typename T>
__device__ void backward(const T *gradient, const S *x, const T *weight, const T *residual, int residual_stride, T *dx, int width, int stride,
                         float epsilon) {
  const size_t row = (size_t)blockIdx.x * width;
  residual += residual ? (size_t)blockIdx.x * residual_stride : 0;
  dx += (size_t)blockIdx.x * stride;
  float square = 0.0f, product = 0.0f;
  for (int i = threadIdx.x * N; i < width; i += blockDim.x * N) {
    const Pack<T, N> g = load<N>(gradient + row + i), weights = load<N>(weight + i);
    const Pack<S, N> values = load<N>(x + row + i);
#pragma unroll
    for (int k = 0; k < N; k++) {
      const float value = to_float(values.at[k]);
      square += value * value;
      product += to_float(g.at[k]) * to_float(weights.at[k]) * value;
    }
  }
  const float inverse = rsqrtf(block_sum(square) / width + epsilon);
  const float shared = block_sum(product) * inverse * inverse / width;
  for (int i = threadIdx.x * N; i < width; i += blockDim.x * N) {
    const Pack<T, N> g = load<N>(gradient + row + i), weights = load<N>(weight + i);
    const Pack<S, N> values = load<N>(x + row + i);
    Pack<T, N> added = {}, result;
    if (residual) added = load<N>(residual + i);
#pragma unroll
    for (int k = 0; k < N; k++) {
      const float product = to_float(g.at[k]) * to_float(weights.at[k]), through = inverse * (product - to_float(values.at[k]) * shared);
      result.at[k] = from_float<T>(residual ? to_float(added.at[k]) + through : through);
    }
    store<N>(dx + i, result);
  }
}

// 1 / rms of each row, one warp a row.
template <typename T>
__device__ void inverses(const T *x, float *inverse, int rows, int width, float epsilon) {
  const int row = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
  if (row >= rows) return;
  x += (size_t)row * width;
  float square = 0.0f;
  for (int i = threadIdx.x % 32; i < width; i += 32) square += to_float(x[i]) * to_float(x[i]);
  square = warp_sum(square);
  if (threadIdx.x % 32 == 0) inverse[row] = rsqrtf(square / width + epsilon);
}

// The weight's gradient over the rows of one part: blockIdx.y is the part, one thread a column.
template <typename S, typename T>
__device__ void weight_parts(const T *gradient, const S *x, const float *inverse, float *partial, int rows, int width, int rows_a_part) {
  const int column = blockIdx.x * blockDim.x + threadIdx.x;
  if (column >= width) return;
  const int first = blockIdx.y * rows_a_part, last = min(rows, first + rows_a_part);
  float sum = 0.0f;
  for (int row = first; row < last; row++) {
    const size_t at = (size_t)row * width + column;
    sum += to_float(gradient[at]) * to_float(x[at]) * inverse[row];
  }
  partial[(size_t)blockIdx.y * width + column] = sum;
}

extern "C" __global__ void weight_sums(const float *partial, float *sums, int parts, int width) { sum_parts(partial, sums, parts, width); }

#define INSTANTIATE(S, T, suffix)                                                                                              \
  extern "C" __global__ void rms_norm_##suffix(const S *x, const T *weight, T *y, int stride, int width, float epsilon) {     \
    constexpr int N = wide<T>();                                                                                               \
    if (rows_aligned<N>(width, weight, y) && rows_aligned<N>(width, x) && stride % N == 0)                                     \
      forward<N>(x, weight, y, width, stride, epsilon);                                                                        \
    else forward<1>(x, weight, y, width, stride, epsilon);                                                                     \
  }                                                                                                                            \
  extern "C" __global__ void add_rms_norm_##suffix(const S *x, const T *addend, int addend_stride, const T *b, int outputs,    \
                                             int rank, const T *weight, S *sum, T *y, int stride, int width, float epsilon) {  \
    constexpr int N = wide<T>();                                                                                               \
    const LowRank<T> adapters = {b, outputs, rank};                                                                            \
    if (rows_aligned<N>(width, weight, y, b) && rows_aligned<N>(width, x, sum) && rows_aligned<N>(width, addend) &&            \
        addend_stride % N == 0 && stride % N == 0)                                                                             \
      add_forward<N>(x, addend, addend_stride, adapters, weight, sum, y, width, stride, epsilon);                              \
    else add_forward<1>(x, addend, addend_stride, adapters, weight, sum, y, width, stride, epsilon);                           \
  }                                                                                                                            \
  extern "C" __global__ void add_open_rms_norm_##suffix(const S *x, const float *addend, int addend_stride, const T *b, int outputs,\
                                             int rank, const T *weight, S *sum, T *y, int stride, int width, float epsilon) {  \
    constexpr int N = wide<T>();                                                                                               \
    const LowRank<T> adapters = {b, outputs, rank};                                                                            \
    if (rows_aligned<N>(width, weight, y, b) && rows_aligned<N>(width, x, sum) && rows_aligned<N>(width, addend) &&            \
        addend_stride % N == 0 && stride % N == 0)                                                                             \
      add_forward<N>(x, addend, addend_stride, adapters, weight, sum, y, width, stride, epsilon);                              \
    else add_forward<1>(x, addend, addend_stride, adapters, weight, sum, y, width, stride, epsilon);                           \
  }                                                                                                                            \
  extern "C" __global__ void rms_norm_backward_##suffix(const T *gradient, const S *x, const T *weight, const T *residual,     \
                                                        int residual_stride, T *dx, int stride, int width, float epsilon) {    \
    constexpr int N = wide<T>();                                                                                               \
    if (rows_aligned<N>(width, gradient, weight, residual, dx) && rows_aligned<N>(width, x) && residual_stride % N == 0 &&     \
        stride % N == 0)                                                                                                       \
      backward<N>(gradient, x, weight, residual, residual_stride, dx, width, stride, epsilon);                                 \
    else backward<1>(gradient, x, weight, residual, residual_stride, dx, width, stride, epsilon);                              \
  }                                                                                                                            \
  extern "C" __global__ void weight_parts_##suffix(const T *gradient, const S *x, const float *inverse, float *partial,        \
                                                   int rows, int width, int rows_a_part) {                                     \
    weight_parts(gradient, x, inverse, partial, rows, width, rows_a_part);                                                     \
  }
INSTANTIATE(float, float, f32)
INSTANTIATE(bf16, bf16, bf16)
INSTANTIATE(float, bf16, mixed)

extern "C" __global__ void inverse_rms_f32(const float *x, float *inverse, int rows, int width, float epsilon) { inverses(x, inverse, rows, width, epsilon); }
extern "C" __global__ void inverse_rms_bf16(const bf16 *x, float *inverse, int rows, int width, float epsilon) { inverses(x, inverse, rows, width, epsilon); }
