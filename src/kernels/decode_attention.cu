// Attention of one new token a row, over its prompt's keys and values and its own earlier tokens. Nothing here depends on the host:
// a step is captured in a graph, and what changes from step to step is read from the table of rows.
#include "numbers.cuh"

// One row of the table: its slot in the cache, its prompt's first row and rows, its own tokens so far, the newest included.
struct Row {
  int slot, prefix_start, prefix_length, length;

  __device__ __forceinline__ Row(const uint32_t *rows, int index)
      : slot(rows[4 * index]), prefix_start(rows[4 * index + 1]), prefix_length(rows[4 * index + 2]), length(rows[4 * index + 3]) {}
};

// Copies `count` units from `from` + row * stride + start to the newest place of each row in the cache; blockIdx.x is the row.
template <typename Unit>
__device__ void append(const uint32_t *rows, const Unit *packed, Unit *cache, int positions, int stride, int start, int count) {
  const Row row(rows, blockIdx.x);
  const Unit *from = packed + (size_t)blockIdx.x * stride + start;
  Unit *to = cache + ((size_t)row.slot * positions + row.length - 1) * count;
  for (int i = threadIdx.x; i < count; i += blockDim.x) to[i] = from[i];
}

#define INSTANTIATE_APPEND(Unit, bytes)                                                                                        \
  extern "C" __global__ void append_keys_values_##bytes(const uint32_t *rows, const Unit *packed, Unit *cache, int positions,  \
                                                        int stride, int start, int count) {                                    \
    append(rows, packed, cache, positions, stride, start, count);                                                              \
  }
INSTANTIATE_APPEND(uint4, 16)
INSTANTIATE_APPEND(uint32_t, 4)
INSTANTIATE_APPEND(uint16_t, 2)

// The parts of a head that one lane holds: PIECES times WIDTH numbers, LANES lanes a head.
template <typename T, int WIDTH> struct Piece;

template <typename T> struct Piece<T, 1> {
  T number;
  __device__ __forceinline__ void read(const T *from) { number = *from; }
  __device__ __forceinline__ void clear() { number = from_float<T>(0.0f); }
  __device__ __forceinline__ void unpack(float (&to)[1]) const { to[0] = to_float(number); }
};

template <> struct Piece<bf16, 8> {
  uint4 numbers;
  __device__ __forceinline__ void read(const bf16 *from) { numbers = *reinterpret_cast<const uint4 *>(from); }
  __device__ __forceinline__ void clear() { numbers = make_uint4(0, 0, 0, 0); }
  // The upper half of a float is a bf16.
  __device__ __forceinline__ void unpack(float (&to)[8]) const {
    const uint32_t pairs[4] = {numbers.x, numbers.y, numbers.z, numbers.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
      to[2 * i] = __uint_as_float(pairs[i] << 16);
      to[2 * i + 1] = __uint_as_float(pairs[i] & 0xffff0000u);
    }
  }
};

template <typename T> struct Step {
  const uint32_t *rows;
  const T *packed, *prefix, *cache;
  int positions, query_heads, key_heads, dimension, splits;
  float scale;  // 1 / sqrt(dimension), times log2(e): exponentials are of base 2
};

// Block (x, y, z): key head and its chunk of HEADS query heads, row, part of the keys. Each group of LANES lanes takes every so many keys and keeps
// its own maxima, sums and mixed values; they are merged at the end, first within warps, then over the block, then (`merge`) over the parts.
// `partial`: [parts, rows, query heads, dimension] of values that are not divided yet, then [parts, rows, query heads] maxima, then sums.
// With one part the result goes to `output` directly.
template <typename T, int WIDTH, int LANES, int PIECES, int HEADS, int AHEAD>
__device__ void attend(const Step<T> step, T *output, float *partial) {
  constexpr int GROUPS = 32 / LANES;
  extern __shared__ __align__(16) float memory[];
  const int sharing = step.query_heads / step.key_heads, chunks = (sharing + HEADS - 1) / HEADS;
  const int key_head = blockIdx.x / chunks, first_head = key_head * sharing + blockIdx.x % chunks * HEADS;
  const int heads = min(HEADS, (key_head + 1) * sharing - first_head);
  const int row_index = blockIdx.y, dimension = step.dimension;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, warps = blockDim.x / 32, part = lane % LANES;
  const Row row(step.rows, row_index);
  const size_t width = (size_t)(step.query_heads + 2 * step.key_heads) * dimension, key_width = (size_t)step.key_heads * dimension;
  const T *prefix_keys = step.prefix + row.prefix_start * width + (size_t)(step.query_heads + key_head) * dimension;
  const T *own_keys = step.cache + (size_t)row.slot * step.positions * 2 * key_width + (size_t)key_head * dimension;

  const int context = row.prefix_length + row.length;
  const int share = (context + step.splits - 1) / step.splits;
  const int begin = blockIdx.z * share, end = min(context, begin + share);

  float query[HEADS][PIECES][WIDTH], mixed[HEADS][PIECES][WIDTH], largest[HEADS], total[HEADS];
#pragma unroll
  for (int h = 0; h < HEADS; h++) {
    largest[h] = -INFINITY;
    total[h] = 0.0f;
#pragma unroll
    for (int p = 0; p < PIECES; p++) {
      const int column = (p * LANES + part) * WIDTH;
      Piece<T, WIDTH> piece;
      piece.clear();
      if (h < heads && column < dimension) piece.read(step.packed + row_index * width + (size_t)(first_head + h) * dimension + column);
      piece.unpack(query[h][p]);
#pragma unroll
      for (int i = 0; i < WIDTH; i++) {
        query[h][p][i] *= step.scale;
        mixed[h][p][i] = 0.0f;
      }
    }
  }

  for (int start = begin + warp * GROUPS * AHEAD; start < end; start += warps * GROUPS * AHEAD) {
    Piece<T, WIDTH> keys[AHEAD][PIECES], values[AHEAD][PIECES];
#pragma unroll
    for (int a = 0; a < AHEAD; a++) {
      const int n = start + a * GROUPS + lane / LANES;
      const bool in_prefix = n < row.prefix_length;
      const T *key = in_prefix ? prefix_keys + n * width : own_keys + (size_t)(n - row.prefix_length) * 2 * key_width;
#pragma unroll
      for (int p = 0; p < PIECES; p++) {
        const int column = (p * LANES + part) * WIDTH;
        keys[a][p].clear();
        values[a][p].clear();
        if (n < end && column < dimension) {
          keys[a][p].read(key + column);
          values[a][p].read(key + key_width + column);
        }
      }
    }
    float scores[AHEAD][HEADS];
#pragma unroll
    for (int a = 0; a < AHEAD; a++) {
      float key[PIECES][WIDTH];
#pragma unroll
      for (int p = 0; p < PIECES; p++) keys[a][p].unpack(key[p]);
#pragma unroll
      for (int h = 0; h < HEADS; h++) {
        float sum = 0.0f;
#pragma unroll
        for (int p = 0; p < PIECES; p++)
#pragma unroll
          for (int i = 0; i < WIDTH; i++) sum += query[h][p][i] * key[p][i];
#pragma unroll
        for (int other = LANES / 2; other > 0; other /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, other);
        scores[a][h] = start + a * GROUPS + lane / LANES < end ? sum : -INFINITY;
      }
    }
#pragma unroll
    for (int h = 0; h < HEADS; h++) {
      float now = largest[h];
#pragma unroll
      for (int a = 0; a < AHEAD; a++) now = fmaxf(now, scores[a][h]);
      // A group that has seen no key yet subtracts 0: exp2(-inf) is 0, and -inf - -inf would be NaN.
      const float base = now == -INFINITY ? 0.0f : now, keep = exp2f(largest[h] - base);
      largest[h] = now;
      total[h] *= keep;
#pragma unroll
      for (int a = 0; a < AHEAD; a++) {
        scores[a][h] = exp2f(scores[a][h] - base);
        total[h] += scores[a][h];
      }
#pragma unroll
      for (int p = 0; p < PIECES; p++)
#pragma unroll
        for (int i = 0; i < WIDTH; i++) mixed[h][p][i] *= keep;
    }
#pragma unroll
    for (int a = 0; a < AHEAD; a++) {
      float value[PIECES][WIDTH];
#pragma unroll
      for (int p = 0; p < PIECES; p++) values[a][p].unpack(value[p]);
#pragma unroll
      for (int h = 0; h < HEADS; h++)
#pragma unroll
        for (int p = 0; p < PIECES; p++)
#pragma unroll
          for (int i = 0; i < WIDTH; i++) mixed[h][p][i] += scores[a][h] * value[p][i];
    }
  }

  // Shared memory: [warps, HEADS] maxima, sums, then [warps, HEADS, dimension] mixed values.
  float *maxima = memory, *sums = maxima + warps * HEADS, *values = sums + warps * HEADS;
#pragma unroll
  for (int h = 0; h < HEADS; h++) {
    float now = largest[h];
#pragma unroll
    for (int other = LANES; other < 32; other *= 2) now = fmaxf(now, __shfl_xor_sync(0xffffffffu, now, other));
    const float keep = exp2f(largest[h] - (now == -INFINITY ? 0.0f : now));
    total[h] *= keep;
#pragma unroll
    for (int other = LANES; other < 32; other *= 2) total[h] += __shfl_xor_sync(0xffffffffu, total[h], other);
    if (lane == 0) {
      maxima[warp * HEADS + h] = now;
      sums[warp * HEADS + h] = total[h];
    }
#pragma unroll
    for (int p = 0; p < PIECES; p++)
#pragma unroll
      for (int i = 0; i < WIDTH; i++) {
        float value = mixed[h][p][i] * keep;
#pragma unroll
        for (int other = LANES; other < 32; other *= 2) value += __shfl_xor_sync(0xffffffffu, value, other);
        const int column = (p * LANES + part) * WIDTH + i;
        if (lane < LANES && column < dimension) values[(size_t)(warp * HEADS + h) * dimension + column] = value;
      }
  }
  __syncthreads();
  const size_t numbers = (size_t)gridDim.y * step.query_heads;  // (row, head) pairs
  for (int i = threadIdx.x; i < heads * dimension; i += blockDim.x) {
    const int h = i / dimension, column = i % dimension;
    float now = -INFINITY, sum = 0.0f, value = 0.0f;
    for (int w = 0; w < warps; w++) now = fmaxf(now, maxima[w * HEADS + h]);
    const float base = now == -INFINITY ? 0.0f : now;
    for (int w = 0; w < warps; w++) {
      const float keep = exp2f(maxima[w * HEADS + h] - base);
      sum += sums[w * HEADS + h] * keep;
      value += values[(size_t)(w * HEADS + h) * dimension + column] * keep;
    }
    const size_t pair = (size_t)row_index * step.query_heads + first_head + h;
    if (step.splits == 1) {
      output[pair * dimension + column] = from_float<T>(value / sum);
    } else {
      const size_t at = blockIdx.z * numbers + pair;
      partial[at * dimension + column] = value;
      if (column == 0) {
        float *part_maxima = partial + step.splits * numbers * dimension;
        part_maxima[at] = now;
        part_maxima[step.splits * numbers + at] = sum;
      }
    }
  }
}

// One block a (row, head): the parts of its keys become one result.
template <typename T> __device__ void merge(const float *partial, T *output, int splits, int dimension) {
  const size_t numbers = gridDim.x, pair = blockIdx.x;
  const float *maxima = partial + splits * numbers * dimension, *sums = maxima + splits * numbers;
  float now = -INFINITY, sum = 0.0f;
  for (int s = 0; s < splits; s++) now = fmaxf(now, maxima[s * numbers + pair]);
  for (int s = 0; s < splits; s++) sum += sums[s * numbers + pair] * exp2f(maxima[s * numbers + pair] - now);
  for (int column = threadIdx.x; column < dimension; column += blockDim.x) {
    float value = 0.0f;
    for (int s = 0; s < splits; s++)
      value += partial[(s * numbers + pair) * dimension + column] * exp2f(maxima[s * numbers + pair] - now);
    output[pair * dimension + column] = from_float<T>(value / sum);
  }
}

#define INSTANTIATE_ATTEND(name, T, WIDTH, LANES, PIECES, HEADS, AHEAD)                                                        \
  extern "C" __global__ void __launch_bounds__(256)                                                                            \
      name(const uint32_t *rows, const T *packed, const T *prefix, const T *cache, T *output, float *partial, int positions,   \
           int query_heads, int key_heads, int dimension, int splits, float scale) {                                           \
    attend<T, WIDTH, LANES, PIECES, HEADS, AHEAD>(                                                                             \
        Step<T>{rows, packed, prefix, cache, positions, query_heads, key_heads, dimension, splits, scale}, output, partial);   \
  }
#define INSTANTIATE_LANES(LANES)                                                                                               \
  INSTANTIATE_ATTEND(decode_attention_##LANES##_1, bf16, 8, LANES, 1, 1, 4)                                                    \
  INSTANTIATE_ATTEND(decode_attention_##LANES##_2, bf16, 8, LANES, 1, 2, 4)                                                    \
  INSTANTIATE_ATTEND(decode_attention_##LANES##_4, bf16, 8, LANES, 1, 4, 4)                                                    \
  INSTANTIATE_ATTEND(decode_attention_##LANES##_8, bf16, 8, LANES, 1, 8, 2)
INSTANTIATE_LANES(8)
INSTANTIATE_LANES(16)
INSTANTIATE_LANES(32)
// Any number type and head size up to 256.
INSTANTIATE_ATTEND(decode_attention_any_f32, float, 1, 32, 8, 1, 2)
INSTANTIATE_ATTEND(decode_attention_any_bf16, bf16, 1, 32, 8, 1, 2)

extern "C" __global__ void decode_attention_merge_f32(const float *partial, float *output, int splits, int dimension) {
  merge(partial, output, splits, dimension);
}
extern "C" __global__ void decode_attention_merge_bf16(const float *partial, bf16 *output, int splits, int dimension) {
  merge(partial, output, splits, dimension);
}
