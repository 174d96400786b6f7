// Norm of each query and key head, then rotation by its row's position; values copied.
#include "vectors.cuh"

// How packed rows divide, and where a row's angles are.
struct Rows {
  const uint32_t *positions;
  const float *cosines, *sines; // [positions, dimension / 2]
  int query, key_value, dimension;
};

// A warp has HEADS heads of one row, of up to 256 numbers each: what it reads of them is under way at once.
constexpr int HEADS = 4;

// The first of a warp's heads, its row, and where the row's angles start.
struct Group {
  size_t row, angles;
  int first, count;

  __device__ __forceinline__ Group(const Rows &rows, unsigned int index) {
    const int heads = rows.query + 2 * rows.key_value, groups = (heads + HEADS - 1) / HEADS;
    row = index / groups;
    first = (int)(index % groups) * HEADS;
    count = min(HEADS, heads - first);
    angles = (size_t)rows.positions[row] * (rows.dimension / 2);
  }
};

// One lane's numbers of a group's heads: N from column (32 p + lane) N of the lower half, and of the upper.
template <int N, typename T> struct Numbers {
  static constexpr int PIECES = 4 / N;
  Pack<T, N> low[HEADS][PIECES], high[HEADS][PIECES];

  // `from`: the group's first head.
  __device__ __forceinline__ Numbers(const T *from, int dimension, int count) {
#pragma unroll
    for (int h = 0; h < HEADS; h++)
#pragma unroll
      for (int p = 0; p < PIECES; p++) {
        const int i = (p * 32 + threadIdx.x % 32) * N;
        low[h][p] = high[h][p] = {};
        if (h >= count || i >= dimension / 2) continue;
        low[h][p] = load<N>(from + h * dimension + i);
        high[h][p] = load<N>(from + h * dimension + dimension / 2 + i);
      }
  }
};

// The cosines or sines of a row in a lane's columns.
template <int N> struct Angles {
  Pack<float, N> at[4 / N];

  __device__ __forceinline__ Angles(const float *from, int half) {
#pragma unroll
    for (int p = 0; p < 4 / N; p++) {
      const int i = (p * 32 + threadIdx.x % 32) * N;
      at[p] = i < half ? load<N>(from + i) : Pack<float, N>{};
    }
  }
};

template <int N, typename T>
__device__ void forward(const T *x, const T *query_norm, const T *key_norm, T *y, const Rows &rows, unsigned int index, float epsilon) {
  const int lane = threadIdx.x % 32, half = rows.dimension / 2;
  const Group group(rows, index);
  const size_t start = (group.row * (rows.query + 2 * rows.key_value) + group.first) * rows.dimension;
  const Numbers<N, T> own(x + start, rows.dimension, group.count);
  const Angles<N> cosines(rows.cosines + group.angles, half), sines(rows.sines + group.angles, half);
#pragma unroll
  for (int h = 0; h < HEADS; h++) {
    if (h >= group.count) break;
    const int number = group.first + h;
    const bool turns = number < rows.query + rows.key_value;
    const T *weight = number < rows.query ? query_norm : key_norm;
    if (!turns) weight = nullptr;
    float inverse = 1.0f;
    if (weight) {
      float square = 0.0f;
#pragma unroll
      for (int p = 0; p < 4 / N; p++)
#pragma unroll
        for (int k = 0; k < N; k++) {
          const float a = to_float(own.low[h][p].at[k]), b = to_float(own.high[h][p].at[k]);
          square += a * a + b * b;
        }
      inverse = rsqrtf(warp_sum(square) / rows.dimension + epsilon);
    }
#pragma unroll
    for (int p = 0; p < 4 / N; p++) {
      const int i = (p * 32 + lane) * N;
      if (i >= half) continue;
      Pack<T, N> low = own.low[h][p], high = own.high[h][p], low_weight = {}, high_weight = {};
      if (weight) {
        low_weight = load<N>(weight + i);
        high_weight = load<N>(weight + half + i);
      }
      if (turns) {
#pragma unroll
        for (int k = 0; k < N; k++) {
          float a = to_float(low.at[k]), b = to_float(high.at[k]);
          if (weight) {
            a *= inverse * to_float(low_weight.at[k]);
            b *= inverse * to_float(high_weight.at[k]);
          }
          low.at[k] = from_float<T>(a * cosines.at[p].at[k] - b * sines.at[p].at[k]);
          high.at[k] = from_float<T>(b * cosines.at[p].at[k] + a * sines.at[p].at[k]);
        }
      }
      store<N>(y + start + h * rows.dimension + i, low);
      store<N>(y + start + h * rows.dimension + half + i, high);
    }
  }
}

// While decoding, heads of up to 256 numbers: adds what adapters add, norms and turns; keys and values also go to the newest place of their row in
// `cache`, [slots, positions, keys and values]. `table`: that of decode_attention.cu. Warps side by side have one head of several rows, which share B.
template <int N, typename T>
__device__ void decode(const float *x, int stride, const LowRank<T> &adapters, const T *query_norm, const T *key_norm, T *y, T *cache,
                       const uint32_t *table, int slot_positions, const Rows &rows, int row_count, int index, float epsilon) {
  constexpr int PIECES = 4 / N;
  const int lane = threadIdx.x % 32, half = rows.dimension / 2, heads = rows.query + 2 * rows.key_value;
  const int number = index / row_count, row = index % row_count, first = number * rows.dimension;
  const int part = number < rows.query ? 0 : number < rows.query + rows.key_value ? 1 : 2;
  const T *weight = part == 0 ? query_norm : part == 1 ? key_norm : nullptr;
  for (int i = lane * N; i < half; i += 32 * N) {
    adapters.fetch(first + i);
    adapters.fetch(first + half + i);
    if (weight) {
      prefetch(weight + i);
      prefetch(weight + half + i);
    }
  }
  wait_for_predecessor();
  const size_t angles = (size_t)rows.positions[row] * half, token = (size_t)table[4 * row] * slot_positions + table[4 * row + 3] - 1;
  x += (size_t)row * stride;
  const float *inner = x + heads * rows.dimension + part * adapters.rank;
  float low[PIECES][N] = {}, high[PIECES][N] = {}, square = 0.0f;
#pragma unroll
  for (int p = 0; p < PIECES; p++) {
    const int i = (p * 32 + lane) * N;
    if (i >= half) continue;
    const Pack<float, N> a = load<N>(x + first + i), b = load<N>(x + first + half + i);
#pragma unroll
    for (int k = 0; k < N; k++) low[p][k] = a.at[k], high[p][k] = b.at[k];
    adapters.add(low[p], inner, first + i);
    adapters.add(high[p], inner, first + half + i);
#pragma unroll
    for (int k = 0; k < N; k++) square += low[p][k] * low[p][k] + high[p][k] * high[p][k];
  }
  const float inverse = weight ? rsqrtf(warp_sum(square) / rows.dimension + epsilon) : 1.0f;
  y += ((size_t)row * heads + number) * rows.dimension;
  T *cached = part > 0 ? cache + (token * 2 * rows.key_value + number - rows.query) * rows.dimension : nullptr;
#pragma unroll
  for (int p = 0; p < PIECES; p++) {
    const int i = (p * 32 + lane) * N;
    if (i >= half) continue;
    Pack<T, N> low_result, high_result;
#pragma unroll
    for (int k = 0; k < N; k++) {
      float a = low[p][k], b = high[p][k];
      if (weight) {
        a *= inverse * to_float(weight[i + k]);
        b *= inverse * to_float(weight[half + i + k]);
      }
      const float cosine = part < 2 ? rows.cosines[angles + i + k] : 1.0f, sine = part < 2 ? rows.sines[angles + i + k] : 0.0f;
      low_result.at[k] = from_float<T>(a * cosine - b * sine);
      high_result.at[k] = from_float<T>(b * cosine + a * sine);
    }
    store<N>(y + i, low_result);
    store<N>(y + half + i, high_result);
    if (!cached) continue;
    store<N>(cached + i, low_result);
    store<N>(cached + half + i, high_result);
  }
}

// A gradient's pair turned back.
__device__ __forceinline__ float2 turn_back(float low, float high, float cosine, float sine) {
  return make_float2(low * cosine + high * sine, high * cosine - low * sine);
}

template <int N, typename T>
__device__ void backward(const T *gradient, const T *x, const T *query_norm, const T *key_norm, T *dx, int stride, const Rows &rows,
                         unsigned int index, float epsilon) {
  const int lane = threadIdx.x % 32, half = rows.dimension / 2;
  const Group group(rows, index);
  const size_t start = (group.row * (rows.query + 2 * rows.key_value) + group.first) * rows.dimension;
  const Numbers<N, T> incoming(gradient + start, rows.dimension, group.count);
  const int normed = query_norm ? min(group.count, rows.query + rows.key_value - group.first) : 0;
  const Numbers<N, T> own(x + start, rows.dimension, normed);
  const Angles<N> cosines(rows.cosines + group.angles, half), sines(rows.sines + group.angles, half);
  dx += group.row * stride + (size_t)group.first * rows.dimension;
#pragma unroll
  for (int h = 0; h < HEADS; h++) {
    if (h >= group.count) break;
    const int number = group.first + h;
    const bool turns = number < rows.query + rows.key_value;
    const T *weight = number < rows.query ? query_norm : key_norm;
    if (!turns) weight = nullptr;
    float2 turned[4 / N][N];
    float square = 0.0f, product = 0.0f;
#pragma unroll
    for (int p = 0; p < 4 / N; p++) {
      const int i = (p * 32 + lane) * N;
      Pack<T, N> low_weight = {}, high_weight = {};
      if (weight && i < half) {
        low_weight = load<N>(weight + i);
        high_weight = load<N>(weight + half + i);
      }
#pragma unroll
      for (int k = 0; k < N; k++) {
        turned[p][k] = turn_back(to_float(incoming.low[h][p].at[k]), to_float(incoming.high[h][p].at[k]), cosines.at[p].at[k], sines.at[p].at[k]);
        if (!weight) continue;
        const float a = to_float(own.low[h][p].at[k]), b = to_float(own.high[h][p].at[k]);
        turned[p][k].x *= to_float(low_weight.at[k]);
        turned[p][k].y *= to_float(high_weight.at[k]);
        square += a * a + b * b;
        product += turned[p][k].x * a + turned[p][k].y * b;
      }
    }
    float inverse = 1.0f, shared = 0.0f;
    if (weight) {
      inverse = rsqrtf(warp_sum(square) / rows.dimension + epsilon);
      shared = warp_sum(product) * inverse * inverse / rows.dimension;
    }
#pragma unroll
    for (int p = 0; p < 4 / N; p++) {
      const int i = (p * 32 + lane) * N;
      if (i >= half) continue;
      Pack<T, N> low = incoming.low[h][p], high = incoming.high[h][p];
      if (turns) {
#pragma unroll
        for (int k = 0; k < N; k++) {
          const float a = weight ? to_float(own.low[h][p].at[k]) * shared : 0.0f, b = weight ? to_float(own.high[h][p].at[k]) * shared : 0.0f;
          low.at[k] = from_float<T>(inverse * (turned[p][k].x - a));
          high.at[k] = from_float<T>(inverse * (turned[p][k].y - b));
        }
      }
      store<N>(dx + h * rows.dimension + i, low);
      store<N>(dx + h * rows.dimension + half + i, high);
    }
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
                                                     int query, int key_value, int dimension, unsigned int count,              \
                                                     float epsilon) {                                                          \
    const Rows rows = {positions, cosines, sines, query, key_value, dimension};                                                \
    const unsigned int index = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;                                              \
    if (index >= count) return;                                                                                                \
    const bool pairs = rows_aligned<2>(dimension / 2, packed, query_norm, key_norm, output) && aligned(cosines, 8) &&          \
                       aligned(sines, 8);                                                                                      \
    if (pairs) forward<2>(packed, query_norm, key_norm, output, rows, index, epsilon);                                         \
    else forward<1>(packed, query_norm, key_norm, output, rows, index, epsilon);                                               \
  }                                                                                                                            \
  extern "C" __global__ void query_key_rope_decode_##suffix(                                                                   \
      const float *packed, int stride, const T *b, int outputs, int rank, const T *query_norm, const T *key_norm, T *output,   \
      T *cache, const uint32_t *table, int slot_positions, const uint32_t *positions, const float *cosines,                    \
      const float *sines, int query, int key_value, int dimension, int row_count, float epsilon) {                             \
    const Rows rows = {positions, cosines, sines, query, key_value, dimension};                                                \
    const LowRank<T> adapters = {b, outputs, rank};                                                                            \
    const int index = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;                                                       \
    if (index >= row_count * (query + 2 * key_value)) return;                                                                  \
    if (rows_aligned<2>(dimension / 2, packed) && rows_aligned<2>(dimension / 2, b, output, cache) && stride % 2 == 0)         \
      decode<2>(packed, stride, adapters, query_norm, key_norm, output, cache, table, slot_positions, rows, row_count, index,  \
                epsilon);                                                                                                      \
    else                                                                                                                       \
      decode<1>(packed, stride, adapters, query_norm, key_norm, output, cache, table, slot_positions, rows, row_count, index,  \
                epsilon);                                                                                                      \
  }                                                                                                                            \
  extern "C" __global__ void query_key_rope_backward_##suffix(                                                                 \
      const T *gradient, const T *packed, const T *query_norm, const T *key_norm, T *output, int stride,                       \
      const uint32_t *positions, const float *cosines, const float *sines, int query, int key_value, int dimension,            \
      unsigned int count, float epsilon) {                                                                                     \
    const Rows rows = {positions, cosines, sines, query, key_value, dimension};                                                \
    const unsigned int index = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;                                              \
    if (index >= count) return;                                                                                                \
    const bool pairs = rows_aligned<2>(dimension / 2, gradient, packed, query_norm, key_norm, output) &&                       \
                       stride % 2 == 0 && aligned(cosines, 8) && aligned(sines, 8);                                            \
    if (pairs) backward<2>(gradient, packed, query_norm, key_norm, output, stride, rows, index, epsilon);                      \
    else backward<1>(gradient, packed, query_norm, key_norm, output, stride, rows, index, epsilon);                            \
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
