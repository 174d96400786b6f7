// Norm of each query and key head, then rotation by its row's position; values copied.
#include "low_rank.cuh"

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

// Where keys and values of a row's newest token stand in `cache`, [slots, positions, keys and values]. `table`: that of decode_attention.cu.
__device__ __forceinline__ size_t newest(const uint32_t *table, int slot_positions, int row) {
  return (size_t)table[4 * row] * slot_positions + table[4 * row + 3] - 1;
}

// What a head is a part of: queries, keys or values.
__device__ __forceinline__ int part_of(int head, const Rows &rows) { return head < rows.query ? 0 : head < rows.query + rows.key_value ? 1 : 2; }

// While decoding, heads of up to 256 numbers: adds what adapters add, norms and turns; keys and values also go to the cache. A warp a head.
template <typename T>
__device__ void decode(const float *x, int stride, const LowRank<T> &adapters, const T *query_norm, const T *key_norm, T *y, T *cache,
                       const uint32_t *table, int slot_positions, const Rows &rows, int row, int head, float epsilon) {
  constexpr int PIECES = 4;
  const int lane = threadIdx.x % 32, half = rows.dimension / 2, heads = rows.query + 2 * rows.key_value, first = head * rows.dimension;
  const int part = part_of(head, rows);
  const T *weight = part == 0 ? query_norm : part == 1 ? key_norm : nullptr;
  wait_for_predecessor();
  x += (size_t)row * stride;
  const float *inner = x + heads * rows.dimension + part * adapters.rank;
  float low[PIECES] = {}, high[PIECES] = {}, square = 0.0f;
#pragma unroll
  for (int p = 0; p < PIECES; p++) {
    const int i = p * 32 + lane;
    if (i >= half) continue;
    low[p] = adapters.add(x[first + i], inner, first + i);
    high[p] = adapters.add(x[first + half + i], inner, first + half + i);
    square += low[p] * low[p] + high[p] * high[p];
  }
  const float inverse = weight ? rsqrtf(warp_sum(square) / rows.dimension + epsilon) : 1.0f;
  const size_t angles = (size_t)rows.positions[row] * half;
  y += ((size_t)row * heads + head) * rows.dimension;
  T *cached = part > 0 ? cache + (newest(table, slot_positions, row) * 2 * rows.key_value + head - rows.query) * rows.dimension : nullptr;
#pragma unroll
  for (int p = 0; p < PIECES; p++) {
    const int i = p * 32 + lane;
    if (i >= half) continue;
    const float a = weight ? low[p] * inverse * to_float(weight[i]) : low[p], b = weight ? high[p] * inverse * to_float(weight[half + i]) : high[p];
    const float cosine = part < 2 ? rows.cosines[angles + i] : 1.0f, sine = part < 2 ? rows.sines[angles + i] : 0.0f;
    y[i] = from_float<T>(a * cosine - b * sine);
    y[half + i] = from_float<T>(b * cosine + a * sine);
    if (!cached) continue;
    cached[i] = y[i];
    cached[half + i] = y[half + i];
  }
}

// The same on tensor cores, heads of D numbers: a warp has a head of sixteen rows.
template <int D>
__device__ void decode_on_tensor_cores(const float *x, int stride, const bf16 *b, int rank, const bf16 *query_norm, const bf16 *key_norm, bf16 *y, bf16 *cache,
                                       const uint32_t *table, int slot_positions, const Rows &rows, int row_count, float epsilon) {
  constexpr int HALF = D / 2, PIECES = D / 32; // of a half
  const int head = blockIdx.x, t = threadIdx.x % 4, heads = rows.query + 2 * rows.key_value, part = part_of(head, rows);
  const bf16 *weight = part == 0 ? query_norm : part == 1 ? key_norm : nullptr;
  const TensorLowRank<2 * PIECES> adapters(b, head * D, rank);
  const TwoRows two(row_count);
  const int row[2] = {two.low, two.high};
  // What does not depend on the kernels before.
  size_t places[2];
  Pack<float, 4> cosines[2][PIECES], sines[2][PIECES];
  Pack<bf16, 4> weights[2 * PIECES];
#pragma unroll
  for (int n = 0; n < 2; n++) {
    places[n] = newest(table, slot_positions, row[n]);
    const size_t angles = (size_t)rows.positions[row[n]] * HALF + 4 * t;
#pragma unroll
    for (int p = 0; p < PIECES; p++) {
      if (part == 2) continue;
      cosines[n][p] = load<4>(rows.cosines + angles + 16 * p);
      sines[n][p] = load<4>(rows.sines + angles + 16 * p);
    }
  }
#pragma unroll
  for (int p = 0; p < 2 * PIECES; p++)
    if (weight) weights[p] = load<4>(weight + 16 * p + 4 * t);
  wait_for_predecessor();
  const float *low = x + (size_t)row[0] * stride, *high = x + (size_t)row[1] * stride;
  Tile tiles[2 * PIECES];
#pragma unroll
  for (int p = 0; p < 2 * PIECES; p++) tiles[p].read(low + head * D + 16 * p, high + head * D + 16 * p, t);
  adapters.add(tiles, low + heads * D + part * rank, high + heads * D + part * rank);
#pragma unroll
  for (int n = 0; n < 2; n++) {
    float square = 0.0f;
#pragma unroll
    for (int p = 0; p < 2 * PIECES; p++)
#pragma unroll
      for (int k = 0; k < 4; k++) square += n ? tiles[p].high[k] * tiles[p].high[k] : tiles[p].low[k] * tiles[p].low[k];
    const float inverse = weight ? rsqrtf(lanes_sum<2, 1>(square) / D + epsilon) : 1.0f;
    bf16 *to = y + ((size_t)row[n] * heads + head) * D + 4 * t;
    bf16 *cached = part > 0 ? cache + (places[n] * 2 * rows.key_value + head - rows.query) * D + 4 * t : nullptr;
#pragma unroll
    for (int p = 0; p < PIECES; p++) {
      Pack<bf16, 4> low_result, high_result;
#pragma unroll
      for (int k = 0; k < 4; k++) {
        float a = n ? tiles[p].high[k] : tiles[p].low[k], c = n ? tiles[p + PIECES].high[k] : tiles[p + PIECES].low[k];
        if (weight) {
          a *= inverse * to_float(weights[p].at[k]);
          c *= inverse * to_float(weights[p + PIECES].at[k]);
        }
        const float cosine = part < 2 ? cosines[n][p].at[k] : 1.0f, sine = part < 2 ? sines[n][p].at[k] : 0.0f;
        low_result.at[k] = from_float<bf16>(a * cosine - c * sine);
        high_result.at[k] = from_float<bf16>(c * cosine + a * sine);
      }
      store(to + 16 * p, low_result);
      store(to + HALF + 16 * p, high_result);
      if (!cached) continue;
      store(cached + 16 * p, low_result);
      store(cached + HALF + 16 * p, high_result);
    }
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

#define DECODE_PARAMETERS(T)                                                                                                   \
  const float *packed, int stride, const T *b, int rank, const T *query_norm, const T *key_norm, T *output, T *cache,          \
      const uint32_t *table, int slot_positions, const uint32_t *positions, const float *cosines, const float *sines,          \
      int query, int key_value, int dimension, int row_count, float epsilon

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
  extern "C" __global__ void query_key_rope_decode_##suffix(DECODE_PARAMETERS(T)) {                                            \
    const Rows rows = {positions, cosines, sines, query, key_value, dimension};                                                \
    const int index = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32, heads = query + 2 * key_value;                        \
    if (index >= row_count * heads) return;                                                                                    \
    decode<T>(packed, stride, {b, rank}, query_norm, key_norm, output, cache, table, slot_positions, rows, index / heads,      \
              index % heads, epsilon);                                                                                         \
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

#define INSTANTIATE_DECODE(D)                                                                                                  \
  extern "C" __global__ void __launch_bounds__(32) query_key_rope_decode_tensor_##D##_bf16(DECODE_PARAMETERS(bf16)) {          \
    const Rows rows = {positions, cosines, sines, query, key_value, dimension};                                                \
    decode_on_tensor_cores<D>(packed, stride, b, rank, query_norm, key_norm, output, cache, table, slot_positions, rows,       \
                              row_count, epsilon);                                                                             \
  }
INSTANTIATE_DECODE(64)
INSTANTIATE_DECODE(128)
