// Norm of query and key heads, then rotation by the row's position; values are copied.
#include "low_rank.cuh"

// Layout of packed rows, and the rows' angles. Of a head's first 2 `turned` columns, i and i + turned are rotated together; the rest is copied, where i and i +
// half of it form a pair, so that there are dimension / 2 pairs.
struct Rows {
  const uint32_t *positions;
  const float *cosines, *sines; // [positions, turned]
  int query, key_value, dimension, turned;

  // Columns of a pair in a head.
  __device__ __forceinline__ int low(int pair) const { return pair < turned ? pair : pair + turned; }
  __device__ __forceinline__ int high(int pair) const { return pair < turned ? pair + turned : pair + dimension / 2; }
  __device__ __forceinline__ float cosine(size_t angles, int pair) const { return pair < turned ? cosines[angles + pair] : 1.0f; }
  __device__ __forceinline__ float sine(size_t angles, int pair) const { return pair < turned ? sines[angles + pair] : 0.0f; }
};

// A warp has HEADS heads of one row, of up to 512 columns each, to keep loads in flight.
constexpr int HEADS = 4;

// A warp's first head, its row, and the offset of the row's angles.
struct Group {
  size_t row, angles;
  int first, count;

  __device__ __forceinline__ Group(const Rows &rows, unsigned int index) {
    const int heads = rows.query + 2 * rows.key_value, groups = (heads + HEADS - 1) / HEADS;
    row = index / groups;
    first = (int)(index % groups) * HEADS;
    count = min(HEADS, heads - first);
    angles = (size_t)rows.positions[row] * rows.turned;
  }
};

// Lanes of a warp in a group: LANES of them share a head; a lane has N columns from (LANES p + lane) N on of the lower and of the upper half; heads of at most
// 2 N PIECES LANES columns.
template <int N, int PIECES, int LANES, typename T> struct Lanes {
  static constexpr int TURNS = HEADS * LANES / 32;
  using Numbers = Pack<T, N>[TURNS][PIECES];

  static __device__ __forceinline__ int head(int turn) { return turn * (32 / LANES) + threadIdx.x % 32 / LANES; }
  static __device__ __forceinline__ int column(int piece) { return (piece * LANES + threadIdx.x % LANES) * N; }
  static __device__ __forceinline__ float sum(float x) { return lanes_sum<LANES / 2, 1>(x); }

  // `count` heads from `from` on.
  static __device__ __forceinline__ void read(Numbers &low, Numbers &high, const T *from, const Rows &rows, int count) {
#pragma unroll
    for (int h = 0; h < TURNS; h++)
#pragma unroll
      for (int p = 0; p < PIECES; p++) {
        low[h][p] = high[h][p] = {};
        if (head(h) >= count || column(p) >= rows.dimension / 2) continue;
        const T *at = from + head(h) * rows.dimension;
        low[h][p] = load<N>(at + rows.low(column(p)));
        high[h][p] = load<N>(at + rows.high(column(p)));
      }
  }
};

// Cosines and sines of a row in a lane's columns.
template <int N, int PIECES, int LANES> struct Angles {
  Pack<float, N> cosines[PIECES], sines[PIECES];

  __device__ __forceinline__ Angles(const Rows &rows, size_t start) {
#pragma unroll
    for (int p = 0; p < PIECES; p++) {
      const int i = Lanes<N, PIECES, LANES, float>::column(p);
      cosines[p] = sines[p] = {};
      if (i < rows.turned) {
        cosines[p] = load<N>(rows.cosines + start + i);
        sines[p] = load<N>(rows.sines + start + i);
        continue;
      }
#pragma unroll
      for (int k = 0; k < N; k++) cosines[p].at[k] = 1.0f;
    }
  }
};

// A head's norm weight (or null), the offset added to it, and whether the head is rotated.
template <typename T> struct Head {
  const T *norm;
  float offset;
  bool turns;

  __device__ __forceinline__ Head(const Rows &rows, int number, const T *query_norm, const T *key_norm, float offset)
      : norm(number < rows.query ? query_norm : number < rows.query + rows.key_value ? key_norm : nullptr), offset(offset), turns(number < rows.query + rows.key_value) {}

  // The norm's weight from a column on; ones if null.
  template <int N> __device__ __forceinline__ void read(float (&weights)[N], int column) const {
    Pack<T, N> own = {};
    if (norm) own = load<N>(norm + column);
#pragma unroll
    for (int k = 0; k < N; k++) weights[k] = norm ? offset + to_float(own.at[k]) : 1.0f;
  }
};

template <int N, int PIECES, int LANES, typename T>
__device__ void forward(const T *x, const T *query_norm, const T *key_norm, T *y, const Rows &rows, unsigned int index, float offset, float epsilon) {
  using Own = Lanes<N, PIECES, LANES, T>;
  const int half = rows.dimension / 2;
  const Group group(rows, index);
  const size_t start = (group.row * (rows.query + 2 * rows.key_value) + group.first) * rows.dimension;
  typename Own::Numbers lows, highs;
  Own::read(lows, highs, x + start, rows, group.count);
  const Angles<N, PIECES, LANES> angles(rows, group.angles);
  y += start;
#pragma unroll
  for (int h = 0; h < Own::TURNS; h++) {
    const Head<T> head(rows, group.first + Own::head(h), query_norm, key_norm, offset);
    float square = 0.0f;
#pragma unroll
    for (int p = 0; p < PIECES; p++)
#pragma unroll
      for (int k = 0; k < N; k++) {
        const float a = to_float(lows[h][p].at[k]), b = to_float(highs[h][p].at[k]);
        square += a * a + b * b;
      }
    square = Own::sum(square);
    const float inverse = head.norm ? rsqrtf(square / rows.dimension + epsilon) : 1.0f;
#pragma unroll
    for (int p = 0; p < PIECES; p++) {
      const int i = Own::column(p);
      if (Own::head(h) >= group.count || i >= half) continue;
      Pack<T, N> low = lows[h][p], high = highs[h][p];
      if (head.turns) {
        float low_weight[N], high_weight[N];
        head.read(low_weight, rows.low(i));
        head.read(high_weight, rows.high(i));
#pragma unroll
        for (int k = 0; k < N; k++) {
          const float a = to_float(low.at[k]) * (inverse * low_weight[k]), b = to_float(high.at[k]) * (inverse * high_weight[k]);
          low.at[k] = from_float<T>(a * angles.cosines[p].at[k] - b * angles.sines[p].at[k]);
          high.at[k] = from_float<T>(b * angles.cosines[p].at[k] + a * angles.sines[p].at[k]);
        }
      }
      T *to = y + Own::head(h) * rows.dimension;
      store<N>(to + rows.low(i), low);
      store<N>(to + rows.high(i), high);
    }
  }
}

// Address of keys and values of a row's newest token in `cache`, [places, keys and values]. `table`: as in decode_attention.cu.
__device__ __forceinline__ size_t newest(const uint32_t *table, int row) {
  return (size_t)table[4 * row] + table[4 * row + 3] - 1;
}

// Whether a row only pads the step: it repeats the one before. Beside other rows attention sums in another order, so its keys and values may differ, and which
// of the two were written last would depend on time.
__device__ __forceinline__ bool pads(const uint32_t *table, int row) { return row > 0 && newest(table, row) == newest(table, row - 1); }

// Whether a head is a query, key or value.
__device__ __forceinline__ int part_of(int head, const Rows &rows) { return head < rows.query ? 0 : head < rows.query + rows.key_value ? 1 : 2; }

// For decoding, heads of up to 64 PIECES columns: adds the adapters' part, norms and rotates; keys and values also go to the cache. One warp per head.
template <int PIECES, typename T>
__device__ void decode(const float *x, int stride, const LowRank<T> &adapters, const T *query_norm, const T *key_norm, T *y, T *cache,
                       const uint32_t *table, const Rows &rows, int row, int head, float offset, float epsilon) {
  const int lane = threadIdx.x % 32, half = rows.dimension / 2, heads = rows.query + 2 * rows.key_value, first = head * rows.dimension;
  const int part = part_of(head, rows);
  const T *weight = part == 0 ? query_norm : part == 1 ? key_norm : nullptr;
  wait_for_predecessor();
  start_successor();
  x += (size_t)row * stride;
  const float *inner = x + heads * rows.dimension + part * adapters.rank;
  float low[PIECES] = {}, high[PIECES] = {}, square = 0.0f;
#pragma unroll
  for (int p = 0; p < PIECES; p++) {
    const int i = p * 32 + lane;
    if (i >= half) continue;
    low[p] = adapters.add(x[first + rows.low(i)], inner, first + rows.low(i));
    high[p] = adapters.add(x[first + rows.high(i)], inner, first + rows.high(i));
    square += low[p] * low[p] + high[p] * high[p];
  }
  const float inverse = weight ? rsqrtf(warp_sum(square) / rows.dimension + epsilon) : 1.0f;
  const size_t angles = (size_t)rows.positions[row] * rows.turned;
  y += ((size_t)row * heads + head) * rows.dimension;
  T *cached = part > 0 && !pads(table, row) ? cache + (newest(table, row) * 2 * rows.key_value + head - rows.query) * rows.dimension : nullptr;
#pragma unroll
  for (int p = 0; p < PIECES; p++) {
    const int i = p * 32 + lane;
    if (i >= half) continue;
    const int at = rows.low(i), other = rows.high(i);
    const float a = weight ? low[p] * inverse * (offset + to_float(weight[at])) : low[p], b = weight ? high[p] * inverse * (offset + to_float(weight[other])) : high[p];
    const float cosine = part < 2 ? rows.cosine(angles, i) : 1.0f, sine = part < 2 ? rows.sine(angles, i) : 0.0f;
    y[at] = from_float<T>(a * cosine - b * sine);
    y[other] = from_float<T>(b * cosine + a * sine);
    if (!cached) continue;
    cached[at] = y[at];
    cached[other] = y[other];
  }
}

// On tensor cores, heads of D columns: a warp has a head of sixteen rows.
template <int D>
__device__ void decode_on_tensor_cores(const float *x, int stride, const bf16 *b, int rank, const bf16 *query_norm, const bf16 *key_norm, bf16 *y, bf16 *cache,
                                       const uint32_t *table, const Rows &rows, int row_count, float offset, float epsilon) {
  constexpr int HALF = D / 2, PIECES = D / 32; // per half
  const int head = blockIdx.x, t = threadIdx.x % 4, heads = rows.query + 2 * rows.key_value, part = part_of(head, rows);
  const bf16 *weight = part == 0 ? query_norm : part == 1 ? key_norm : nullptr;
  const TensorLowRank<2 * PIECES> adapters(b, head * D, rank);
  const TwoRows two(row_count);
  const int row[2] = {two.low, two.high};
  // Independent of earlier kernels.
  size_t places[2];
  bool is_kept[2];
  Pack<float, 4> cosines[2][PIECES], sines[2][PIECES];
  Pack<bf16, 4> weights[2 * PIECES];
#pragma unroll
  for (int n = 0; n < 2; n++) {
    places[n] = newest(table, row[n]);
    is_kept[n] = part > 0 && !pads(table, row[n]);
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
  start_successor();
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
    bf16 *cached = is_kept[n] ? cache + (places[n] * 2 * rows.key_value + head - rows.query) * D + 4 * t : nullptr;
#pragma unroll
    for (int p = 0; p < PIECES; p++) {
      Pack<bf16, 4> low_result, high_result;
#pragma unroll
      for (int k = 0; k < 4; k++) {
        float a = n ? tiles[p].high[k] : tiles[p].low[k], c = n ? tiles[p + PIECES].high[k] : tiles[p + PIECES].low[k];
        if (weight) {
          a *= inverse * (offset + to_float(weights[p].at[k]));
          c *= inverse * (offset + to_float(weights[p + PIECES].at[k]));
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

// Rotates a gradient's pair back.
__device__ __forceinline__ float2 turn_back(float low, float high, float cosine, float sine) {
  return make_float2(low * cosine + high * sine, high * cosine - low * sine);
}

template <int N, int PIECES, int LANES, typename T>
__device__ void backward(const T *gradient, const T *x, const T *query_norm, const T *key_norm, T *dx, int stride, const Rows &rows,
                         unsigned int index, float offset, float epsilon) {
  using Own = Lanes<N, PIECES, LANES, T>;
  const int half = rows.dimension / 2;
  const Group group(rows, index);
  const size_t start = (group.row * (rows.query + 2 * rows.key_value) + group.first) * rows.dimension;
  typename Own::Numbers lows, highs, own_lows, own_highs;
  Own::read(lows, highs, gradient + start, rows, group.count);
  Own::read(own_lows, own_highs, x + start, rows, query_norm ? min(group.count, rows.query + rows.key_value - group.first) : 0);
  const Angles<N, PIECES, LANES> angles(rows, group.angles);
  dx += group.row * stride + (size_t)group.first * rows.dimension;
#pragma unroll
  for (int h = 0; h < Own::TURNS; h++) {
    const Head<T> head(rows, group.first + Own::head(h), query_norm, key_norm, offset);
    float2 turned[PIECES][N];
    float square = 0.0f, product = 0.0f;
#pragma unroll
    for (int p = 0; p < PIECES; p++) {
      const int i = Own::column(p);
      float low_weight[N] = {}, high_weight[N] = {};
      if (i < half) {
        head.read(low_weight, rows.low(i));
        head.read(high_weight, rows.high(i));
      }
#pragma unroll
      for (int k = 0; k < N; k++) {
        const float a = to_float(own_lows[h][p].at[k]), b = to_float(own_highs[h][p].at[k]);
        turned[p][k] = turn_back(to_float(lows[h][p].at[k]), to_float(highs[h][p].at[k]), angles.cosines[p].at[k], angles.sines[p].at[k]);
        turned[p][k].x *= low_weight[k];
        turned[p][k].y *= high_weight[k];
        square += a * a + b * b;
        product += turned[p][k].x * a + turned[p][k].y * b;
      }
    }
    square = Own::sum(square);
    product = Own::sum(product);
    const float inverse = head.norm ? rsqrtf(square / rows.dimension + epsilon) : 1.0f;
    const float shared = head.norm ? product * inverse * inverse / rows.dimension : 0.0f;
#pragma unroll
    for (int p = 0; p < PIECES; p++) {
      const int i = Own::column(p);
      if (Own::head(h) >= group.count || i >= half) continue;
      Pack<T, N> low = lows[h][p], high = highs[h][p];
      if (head.turns) {
#pragma unroll
        for (int k = 0; k < N; k++) {
          low.at[k] = from_float<T>(inverse * (turned[p][k].x - to_float(own_lows[h][p].at[k]) * shared));
          high.at[k] = from_float<T>(inverse * (turned[p][k].y - to_float(own_highs[h][p].at[k]) * shared));
        }
      }
      T *to = dx + Own::head(h) * rows.dimension;
      store<N>(to + rows.low(i), low);
      store<N>(to + rows.high(i), high);
    }
  }
}

// Gradients of the query norm's weight (blockIdx.y 0) and the key norm's (1) over the heads of a part -> partial: [parts, 2, dimension]. Each warp sums in its
// own line of shared memory, each lane in its own columns. Blocks of 256 threads.
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
    const size_t angles = (size_t)rows.positions[row] * rows.turned;
    const T *own_gradient = gradient + index * dimension, *own = x + index * dimension;
    float square = 0.0f;
    for (int i = lane; i < half; i += 32) {
      const float a = to_float(own[i]), b = to_float(own[half + i]);
      square += a * a + b * b;
    }
    const float inverse = rsqrtf(warp_sum(square) / dimension + epsilon);
    for (int i = lane; i < half; i += 32) {
      const int at = rows.low(i), other = rows.high(i);
      const float2 turned = turn_back(to_float(own_gradient[at]), to_float(own_gradient[other]), rows.cosine(angles, i), rows.sine(angles, i));
      line[at] += turned.x * to_float(own[at]) * inverse;
      line[other] += turned.y * to_float(own[other]) * inverse;
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
      const uint32_t *table, const uint32_t *positions, const float *cosines, const float *sines, int query, int key_value,    \
      int dimension, int turned, int row_count, float offset, float epsilon

#define INSTANTIATE(T, suffix)                                                                                                 \
  extern "C" __global__ void query_key_rope_##suffix(const T *packed, const T *query_norm, const T *key_norm, T *output,      \
                                                     const uint32_t *positions, const float *cosines, const float *sines,      \
                                                     int query, int key_value, int dimension, int turned, unsigned int count,  \
                                                     float offset, float epsilon) {                                            \
    const Rows rows = {positions, cosines, sines, query, key_value, dimension, turned};                                                \
    const unsigned int index = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;                                              \
    if (index >= count) return;                                                                                                \
    const bool fours = rows_aligned<4>(dimension / 2, packed, query_norm, key_norm, output) &&                                 \
                       rows_aligned<4>(turned, cosines, sines);                                                         \
    if (fours && dimension <= 128) forward<4, 1, 16>(packed, query_norm, key_norm, output, rows, index, offset, epsilon);              \
    else if (dimension <= 256) forward<1, 4, 32>(packed, query_norm, key_norm, output, rows, index, offset, epsilon);   \
    else forward<1, 8, 32>(packed, query_norm, key_norm, output, rows, index, offset, epsilon);   \
  }                                                                                                                            \
  extern "C" __global__ void query_key_rope_decode_##suffix(DECODE_PARAMETERS(T)) {                                            \
    const Rows rows = {positions, cosines, sines, query, key_value, dimension, turned};                                                \
    const int index = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32, heads = query + 2 * key_value;                        \
    if (index >= row_count * heads) return;                                                                                    \
    if (dimension <= 256)                                                                                                      \
      decode<4, T>(packed, stride, {b, rank}, query_norm, key_norm, output, cache, table, rows, index / heads, index % heads, offset, epsilon); \
    else decode<8, T>(packed, stride, {b, rank}, query_norm, key_norm, output, cache, table, rows, index / heads, index % heads, offset, epsilon); \
  }                                                                                                                            \
  extern "C" __global__ void query_key_rope_backward_##suffix(                                                                 \
      const T *gradient, const T *packed, const T *query_norm, const T *key_norm, T *output, int stride,                       \
      const uint32_t *positions, const float *cosines, const float *sines, int query, int key_value, int dimension, int turned, \
      unsigned int count, float offset, float epsilon) {                                                                       \
    const Rows rows = {positions, cosines, sines, query, key_value, dimension, turned};                                                \
    const unsigned int index = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;                                              \
    if (index >= count) return;                                                                                                \
    const bool fours = rows_aligned<4>(dimension / 2, gradient, packed, query_norm, key_norm, output) && stride % 4 == 0 &&    \
                       rows_aligned<4>(turned, cosines, sines);                                                         \
    if (fours && dimension <= 128)                                                                                             \
      backward<4, 1, 16>(gradient, packed, query_norm, key_norm, output, stride, rows, index, offset, epsilon);                        \
    else if (dimension <= 256) backward<1, 4, 32>(gradient, packed, query_norm, key_norm, output, stride, rows, index, offset, epsilon);   \
    else backward<1, 8, 32>(gradient, packed, query_norm, key_norm, output, stride, rows, index, offset, epsilon);   \
  }                                                                                                                            \
  extern "C" __global__ void norm_parts_##suffix(const T *gradient, const T *packed, float *partial,                          \
                                                 const uint32_t *positions, const float *cosines, const float *sines,          \
                                                 int query, int key_value, int dimension, int turned, unsigned long long row_count, \
                                                 unsigned long long heads_a_part, float epsilon) {                             \
    const Rows rows = {positions, cosines, sines, query, key_value, dimension, turned};                                                \
    norm_parts(gradient, packed, partial, rows, row_count, heads_a_part, epsilon);                                             \
  }
INSTANTIATE(float, f32)
INSTANTIATE(bf16, bf16)

#define INSTANTIATE_DECODE(D)                                                                                                  \
  extern "C" __global__ void __launch_bounds__(32) query_key_rope_decode_tensor_##D##_bf16(DECODE_PARAMETERS(bf16)) {          \
    const Rows rows = {positions, cosines, sines, query, key_value, dimension, turned};                                                \
    decode_on_tensor_cores<D>(packed, stride, b, rank, query_norm, key_norm, output, cache, table, rows,       \
                              row_count, offset, epsilon);                                                                             \
  }
INSTANTIATE_DECODE(64)
INSTANTIATE_DECODE(128)
