// y = x / sqrt(mean(x^2) + epsilon) * weight, one block a row. S: what the residual stream (x and sums of it) is kept in; T: everything else.
#include "vectors.cuh"

template <int N, typename S, typename T>
__device__ void forward(const S *x, const T *weight, T *y, int width, float epsilon) {
  x += (size_t)blockIdx.x * width;
  y += (size_t)blockIdx.x * width;
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

// sum = x + addend, rounded as it is kept; y = norm of that. A thread reads again only what it wrote itself.
template <int N, typename S, typename T>
__device__ void add_forward(const S *x, const T *addend, const T *weight, S *sum, T *y, int width, float epsilon) {
  const size_t row = (size_t)blockIdx.x * width;
  float square = 0.0f;
  for (int i = threadIdx.x * N; i < width; i += blockDim.x * N) {
    const Pack<S, N> a = load<N>(x + row + i);
    const Pack<T, N> b = load<N>(addend + row + i);
    Pack<S, N> result;
#pragma unroll
    for (int k = 0; k < N; k++) {
      result.at[k] = from_float<S>(to_float(a.at[k]) + to_float(b.at[k]));
      square += to_float(result.at[k]) * to_float(result.at[k]);
    }
    store<N>(sum + row + i, result);
  }
  const float inverse = rsqrtf(block_sum(square) / width + epsilon);
  for (int i = threadIdx.x * N; i < width; i += blockDim.x * N) {
    const Pack<S, N> values = load<N>(sum + row + i);
    const Pack<T, N> weights = load<N>(weight + i);
    Pack<T, N> result;
#pragma unroll
    for (int k = 0; k < N; k++) result.at[k] = from_float<T>(to_float(values.at[k]) * inverse * to_float(weights.at[k]));
    store<N>(y + row + i, result);
  }
}

// dx = r * (g - x * r^2 * mean(g * x)) with g = gradient * weight, r = 1 / rms.
template <int N, typename S, typename T>
__device__ void backward(const T *gradient, const S *x, const T *weight, T *dx, int width, float epsilon) {
  const size_t row = (size_t)blockIdx.x * width;
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
    Pack<T, N> result;
#pragma unroll
    for (int k = 0; k < N; k++) {
      const float product = to_float(g.at[k]) * to_float(weights.at[k]);
      result.at[k] = from_float<T>(inverse * (product - to_float(values.at[k]) * shared));
    }
    store<N>(dx + row + i, result);
  }
}

// The stream alone: sum = x + addend.
template <int N, typename S, typename T> __device__ void add(const S *x, const T *addend, S *sum, long long count) {
  const long long i = ((long long)blockIdx.x * blockDim.x + threadIdx.x) * N;
  if (i >= count) return;
  const Pack<S, N> a = load<N>(x + i);
  const Pack<T, N> b = load<N>(addend + i);
  Pack<S, N> result;
#pragma unroll
  for (int k = 0; k < N; k++) result.at[k] = from_float<S>(to_float(a.at[k]) + to_float(b.at[k]));
  store<N>(sum + i, result);
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
  extern "C" __global__ void rms_norm_##suffix(const S *x, const T *weight, T *y, int width, float epsilon) {                 \
    constexpr int N = wide<T>();                                                                                               \
    if (rows_aligned<N>(width, weight, y) && rows_aligned<N>(width, x)) forward<N>(x, weight, y, width, epsilon);              \
    else forward<1>(x, weight, y, width, epsilon);                                                                             \
  }                                                                                                                            \
  extern "C" __global__ void add_rms_norm_##suffix(const S *x, const T *addend, const T *weight, S *sum, T *y, int width,      \
                                                   float epsilon) {                                                            \
    constexpr int N = wide<T>();                                                                                               \
    if (rows_aligned<N>(width, addend, weight, y) && rows_aligned<N>(width, x, sum))                                           \
      add_forward<N>(x, addend, weight, sum, y, width, epsilon);                                                               \
    else add_forward<1>(x, addend, weight, sum, y, width, epsilon);                                                            \
  }                                                                                                                            \
  extern "C" __global__ void add_to_stream_##suffix(const S *x, const T *addend, S *sum, long long count) {                    \
    add<1>(x, addend, sum, count);                                                                                             \
  }                                                                                                                            \
  extern "C" __global__ void add_to_stream_wide_##suffix(const S *x, const T *addend, S *sum, long long count) {               \
    add<wide<T>()>(x, addend, sum, count);                                                                                     \
  }                                                                                                                            \
  extern "C" __global__ void rms_norm_backward_##suffix(const T *gradient, const S *x, const T *weight, T *dx, int width,      \
                                                        float epsilon) {                                                       \
    constexpr int N = wide<T>();                                                                                               \
    if (rows_aligned<N>(width, gradient, weight, dx) && rows_aligned<N>(width, x))                                             \
      backward<N>(gradient, x, weight, dx, width, epsilon);                                                                    \
    else backward<1>(gradient, x, weight, dx, width, epsilon);                                                                 \
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
