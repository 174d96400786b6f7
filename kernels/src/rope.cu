// Norm of each query and key head, then rotation by its row's position; values copied. One warp a head.
#include "vectors.cuh"

// How packed rows divide, and where a row's angles are.
struct Rows {
  const uint32_t *positions;
  const float *cosines, *sines; // [positions, dimension / 2]
  int query, key_value, dimension;
};

// The head `index` of all rows: its number inside the row, and where its angles start.
struct Head {
  int number;
  size_t angles;
};

__device__ __forceinline__ Head find(const Rows &rows, size_t index) {
  const int heads = rows.query + 2 * rows.key_value;
  const size_t row = index / heads;
  return {(int)(index - row * heads), (size_t)rows.positions[row] * (rows.dimension / 2)};
}

template <int N, typename T>
__device__ void forward(const T *x, const T *query_norm, const T *key_norm, T *y, const Rows &rows, size_t index, float epsilon) {
  const int lane = threadIdx.x % 32, half = rows.dimension / 2;
  const Head head = find(rows, index);
  x += index * rows.dimension;
  y += index * rows.dimension;
  if (head.number >= rows.query + rows.key_value) {
    for (int i = lane * N; i < rows.dimension; i += 32 * N) store<N>(y + i, load<N>(x + i));
    return;
  }
  const T *weight = head.number < rows.query ? query_norm : key_norm;
  float inverse = 1.0f;
  if (weight) {
    float square = 0.0f;
    for (int i = lane * N; i < rows.dimension; i += 32 * N) {
      const Pack<T, N> values = load<N>(x + i);
#pragma unroll
      for (int k = 0; k < N; k++) square += to_float(values.at[k]) * to_float(values.at[k]);
    }
    inverse = rsqrtf(warp_sum(square) / rows.dimension + epsilon);
  }
  for (int i = lane * N; i < half; i += 32 * N) {
    const Pack<T, N> low = load<N>(x + i), high = load<N>(x + half + i);
    const Pack<float, N> cosine = load<N>(rows.cosines + head.angles + i), sine = load<N>(rows.sines + head.angles + i);
    Pack<T, N> low_weight = {}, high_weight = {}, low_result, high_result;
    if (weight) {
      low_weight = load<N>(weight + i);
      high_weight = load<N>(weight + half + i);
    }
#pragma unroll
    for (int k = 0; k < N; k++) {
      float a = to_float(low.at[k]), b = to_float(high.at[k]);
      if (weight) {
        a *= inverse * to_float(low_weight.at[k]);
        b *= inverse * to_float(high_weight.at[k]);
      }
      low_result.at[k] = from_float<T>(a * cosine.at[k] - b * sine.at[k]);
      high_result.at[k] = from_float<T>(b * cosine.at[k] + a * sine.at[k]);
    }
    store<N>(y + i, low_result);
    store<N>(y + half + i, high_result);
  }
}

// A gradient's pair turned back.
__device__ __forceinline__ float2 turn_back(float low, float high, float cosine, float sine) {
  return make_float2(low * cosine + high * sine, high * cosine - low * sine);
}

template <int N, typename T>
__device__ void backward(const T *gradient, const T *x, const T *query_norm, const T *key_norm, T *dx, const Rows &rows, size_t index,
                         float epsilon) {
  const int lane = threadIdx.x % 32, half = rows.dimension / 2;
  const Head head = find(rows, index);
  gradient += index * rows.dimension;
  x += index * rows.dimension;
  dx += index * rows.dimension;
  if (head.number >= rows.query + rows.key_value) {
    for (int i = lane * N; i < rows.dimension; i += 32 * N) store<N>(dx + i, load<N>(gradient + i));
    return;
  }
  const T *weight = head.number < rows.query ? query_norm : key_norm;
  float inverse = 1.0f, shared = 0.0f;
  if (weight) {
    float square = 0.0f, product = 0.0f;
    for (int i = lane * N; i < half; i += 32 * N) {
      const Pack<T, N> low = load<N>(gradient + i), high = load<N>(gradient + half + i);
      const Pack<T, N> low_value = load<N>(x + i), high_value = load<N>(x + half + i);
      const Pack<T, N> low_weight = load<N>(weight + i), high_weight = load<N>(weight + half + i);
      const Pack<float, N> cosine = load<N>(rows.cosines + head.angles + i), sine = load<N>(rows.sines + head.angles + i);
#pragma unroll
      for (int k = 0; k < N; k++) {
        const float2 turned = turn_back(to_float(low.at[k]), to_float(high.at[k]), cosine.at[k], sine.at[k]);
        const float a = to_float(low_value.at[k]), b = to_float(high_value.at[k]);
        square += a * a + b * b;
        product += turned.x * to_float(low_weight.at[k]) * a + turned.y * to_float(high_weight.at[k]) * b;
      }
    }
    inverse = rsqrtf(warp_sum(square) / rows.dimension + epsilon);
    shared = warp_sum(product) * inverse * inverse / rows.dimension;
  }
  for (int i = lane * N; i < half; i += 32 * N) {
    const Pack<T, N> low = load<N>(gradient + i), high = load<N>(gradient + half + i);
    const Pack<float, N> cosine = load<N>(rows.cosines + head.angles + i), sine = load<N>(rows.sines + head.angles + i);
    Pack<T, N> low_value = {}, high_value = {}, low_weight = {}, high_weight = {}, low_result, high_result;
    if (weight) {
      low_value = load<N>(x + i), high_value = load<N>(x + half + i);
      low_weight = load<N>(weight + i), high_weight = load<N>(weight + half + i);
    }
#pragma unroll
    for (int k = 0; k < N; k++) {
      float2 turned = turn_back(to_float(low.at[k]), to_float(high.at[k]), cosine.at[k], sine.at[k]);
      if (weight) {
        turned.x = inverse * (turned.x * to_float(low_weight.at[k]) - to_float(low_value.at[k]) * shared);
        turned.y = inverse * (turned.y * to_float(high_weight.at[k]) - to_float(high_value.at[k]) * shared);
      }
      low_result.at[k] = from_float<T>(turned.x);
      high_result.at[k] = from_float<T>(turned.y);
    }
    store<N>(dx + i, low_result);
    store<N>(dx + half + i, high_result);
  }
}

// Gradients of the query norm's weight (blockIdx.y 0) and the key norm's (1) over the heads of one part -> partial: [parts, 2, dimension].
// Each warp adds up in its own line of shared memory, each lane in its own columns of it. Blocks of 256 threads.
template <typename T>
__device__ void norm_parts(const T *gradient, const T *x, float *partial, const Rows &rows, size_t row_count, size_t heads_a_part, float epsilon) {
  extern __shared__ float lines[]; // [8, dimension]
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, half = rows.dimension / 2, dimension = rows.dimension;
  const bool keys = blockIdx.y == 1;
  const int heads = keys ? rows.key_value : rows.query, width = rows.query + 2 * rows.key_value;
  float *line = lines + warp * dimension;
  for (int i = lane; i < half; i += 32) line[i] = line[half + i] = 0.0f;
  const size_t first = blockIdx.x * heads_a_part, all = row_count * heads;
  const size_t last = first + heads_a_part < all ? first + heads_a_part : all;
  for (size_t item = first + warp; item < last; item += 8) {
    const size_t row = item / heads;
    const size_t index = row * width + (keys ? rows.query : 0) + (item - row * heads);
    const size_t angles = (size_t)rows.positions[row] * half;
    const T *own_gradient = gradient + index * dimension, *own = x + index * dimension;
    float square = 0.0f;
    for (int i = lane; i < half; i += 32) {
      const float a = to_float(own[i]), b = to_float(own[half + i]);
      square += a * a + b * b;
    }
    const float inverse = rsqrtf(warp_sum(square) / dimension + epsilon);
    for (int i = lane; i < half; i += 32) {
      const float2 turned =
          turn_back(to_float(own_gradient[i]), to_float(own_gradient[half + i]), rows.cosines[angles + i], rows.sines[angles + i]);
      line[i] += turned.x * to_float(own[i]) * inverse;
      line[half + i] += turned.y * to_float(own[half + i]) * inverse;
    }
  }
  __syncthreads();
  for (int i = threadIdx.x; i < dimension; i += blockDim.x) {
    float sum = 0.0f;
    for (int other = 0; other < 8; other++) sum += lines[other * dimension + i];
    partial[((size_t)blockIdx.x * 2 + blockIdx.y) * dimension + i] = sum;
  }
}

extern "C" __global__ void norm_sums(const float *partial, float *sums, int parts, int width) { sum_parts(partial, sums, parts, width); }

// A head's halves start at even numbers where a quarter of it is whole.
#define INSTANTIATE(T, suffix)                                                                                                 \
  extern "C" __global__ void query_key_rope_##suffix(const T *packed, const T *query_norm, const T *key_norm, T *output,      \
                                                     const uint32_t *positions, const float *cosines, const float *sines,      \
                                                     int query, int key_value, int dimension, unsigned long long count,        \
                                                     float epsilon) {                                                          \
    const Rows rows = {positions, cosines, sines, query, key_value, dimension};                                                \
    const size_t index = (size_t)blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;                                            \
    if (index >= count) return;                                                                                                \
    const bool pairs = rows_aligned<2>(dimension / 2, packed, query_norm, key_norm, output) && aligned(cosines, 8) &&          \
                       aligned(sines, 8);                                                                                      \
    if (pairs) forward<2>(packed, query_norm, key_norm, output, rows, index, epsilon);                                         \
    else forward<1>(packed, query_norm, key_norm, output, rows, index, epsilon);                                               \
  }                                                                                                                            \
  extern "C" __global__ void query_key_rope_backward_##suffix(                                                                 \
      const T *gradient, const T *packed, const T *query_norm, const T *key_norm, T *output, const uint32_t *positions,        \
      const float *cosines, const float *sines, int query, int key_value, int dimension, unsigned long long count,             \
      float epsilon) {                                                                                                         \
    const Rows rows = {positions, cosines, sines, query, key_value, dimension};                                                \
    const size_t index = (size_t)blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;                                            \
    if (index >= count) return;                                                                                                \
    const bool pairs = rows_aligned<2>(dimension / 2, gradient, packed, query_norm, key_norm, output) &&                       \
                       aligned(cosines, 8) && aligned(sines, 8);                                                               \
    if (pairs) backward<2>(gradient, packed, query_norm, key_norm, output, rows, index, epsilon);                              \
    else backward<1>(gradient, packed, query_norm, key_norm, output, rows, index, epsilon);                                    \
  }                                                                                                                            \
  extern "C" __global__ void norm_parts_##suffix(const T *gradient, const T *packed, float *partial,                          \
                                                 const uint32_t *positions, const float *cosines, const float *sines,          \
                                                 int query, int key_value, int dimension, unsigned long long row_count,        \
                                                 unsigned long long heads_a_part, float epsilon) {                             \
    const Rows rows = {positions, cosines, sines, query, key_value, dimension};                                                \
    norm_parts(gradient, packed, partial, rows, row_count, heads_a_part, epsilon);                                             \
  }
INSTANTIATE(float, f32)
INSTANTIATE(bf16, bf16)
