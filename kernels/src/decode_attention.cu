// Attention of one new token per row over its prompt's keys and values and its own earlier tokens. Independent of the host, as a step is captured in a graph:
// what changes between steps is read from the table of rows.
#include "tensor_cores.cuh"
#include "vectors.cuh"

// A row of the table: cache position of its first token, its prompt's first row and length, its own tokens including the newest.
struct Row {
  int first, prefix_start, prefix_length, length;

  __device__ __forceinline__ Row(const uint32_t *rows, int index)
      : first(rows[4 * index]), prefix_start(rows[4 * index + 1]), prefix_length(rows[4 * index + 2]), length(rows[4 * index + 3]) {}
};

template <typename T> struct Step {
  const uint32_t *rows;
  const T *packed, *prefix, *cache;
  int query_heads, key_heads, dimension, splits;
  float scale;  // 1 / sqrt(dimension) * log2(e)
  const T *sinks; // per query head, or null

  // Whether this warp counts a row's sinks: exactly one of those that `finish` and `merge` join.
  __device__ __forceinline__ bool counts_sinks() const { return sinks && threadIdx.x < 32 && blockIdx.z == 0; }
  __device__ __forceinline__ float sink(int head) const { return to_float(sinks[head]) * LOG2_E; }
};

// Query heads of a block that share a key head: block x is a key head and a chunk of at most eight of its query heads.
template <typename T> struct QueryHeads {
  int key_head, first, count;

  __device__ __forceinline__ QueryHeads(const Step<T> &step, int heads_a_block) {
    const int sharing = step.query_heads / step.key_heads, chunks = (sharing + heads_a_block - 1) / heads_a_block;
    key_head = blockIdx.x / chunks;
    first = key_head * sharing + blockIdx.x % chunks * heads_a_block;
    count = min(heads_a_block, (key_head + 1) * sharing - first);
  }
};

// Keys and values of a row's tokens for one key head.
template <typename T> struct Context {
  int prefix_length, length;  // length: of prefix and own
  size_t key_width;
  const T *prefix, *own;

  __device__ __forceinline__ Context(const Step<T> &step, const Row &row, int key_head)
      : prefix_length(row.prefix_length), length(row.prefix_length + row.length), key_width((size_t)step.key_heads * step.dimension),
        prefix(step.prefix + row.prefix_start * 2 * key_width + (size_t)key_head * step.dimension),
        own(step.cache + (size_t)row.first * 2 * key_width + (size_t)key_head * step.dimension) {}

  // Key n; its value is at + key_width.
  __device__ __forceinline__ const T *key(int n) const { return n < prefix_length ? prefix + n * 2 * key_width : own + (n - prefix_length) * 2 * key_width; }
};

// Start of part `part` of `count` keys.
__device__ __forceinline__ int part_start(int count, int part, int parts) { return parts == 1 ? count * part : (int)((long long)count * part / parts); }

// Merges the warps' results for the first `used` of a block's columns, each a query head of a row, of at most D dimensions. Shared memory: [warps, columns]
// maxima, -inf if a warp had no key, then sums, then [warps, columns, dimension] values, not divided by the sums. `pair_of`: a column's row * query heads +
// head. With one part of keys per row the result goes to `output`; else to `partial`, for `merge`: [parts, pairs, dimension] undivided values, then [parts,
// pairs] maxima, then sums.
template <int COLUMNS, int D, typename T, typename PairOf>
__device__ void finish(const Step<T> &step, const float *found, int used, size_t pairs, T *output, float *partial, PairOf pair_of) {
  const int warps = blockDim.x / 32, dimension = step.dimension;
  const float *maxima = found, *sums = maxima + warps * COLUMNS, *values = sums + warps * COLUMNS;
  __syncthreads();
  for (int i = threadIdx.x; i < used * D; i += blockDim.x) {
    const int c = i / D, number = i % D;
    if (number >= dimension) continue;
    float now = -INFINITY, sum = 0.0f, value = 0.0f;
    for (int w = 0; w < warps; w++) now = fmaxf(now, maxima[w * COLUMNS + c]);
    const float base = now == -INFINITY ? 0.0f : now;
    for (int w = 0; w < warps; w++) {
      const float keep = power(maxima[w * COLUMNS + c] - base);
      sum += sums[w * COLUMNS + c] * keep;
      value += values[(w * COLUMNS + c) * dimension + number] * keep;
    }
    const int pair = pair_of(c);
    if (step.splits == 1) {
      output[(size_t)pair * dimension + number] = from_float<T>(value / sum);
    } else {
      const size_t at = blockIdx.z * pairs + pair;
      partial[at * dimension + number] = value;
      if (number == 0) {
        float *part_maxima = partial + step.splits * pairs * dimension;
        part_maxima[at] = now;
        part_maxima[step.splits * pairs + at] = sum;
      }
    }
  }
}

// Any dtype and head size up to D: block (x, y, z) has a query head of row y, and a part of its keys, or of the last `window` (0: all); one key per warp at a
// time, a lane has every 32nd element.
template <int D, typename T> __device__ void attend(const Step<T> step, int window, T *output, float *partial) {
  constexpr int PIECES = D / 32;
  extern __shared__ __align__(16) float memory[];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, warps = blockDim.x / 32, row = blockIdx.y;
  start_successor();
  wait_for_predecessor();
  const QueryHeads<T> heads(step, 1);
  const Context<T> context(step, Row(step.rows, row), heads.key_head);
  const int before = window > 0 ? max(0, context.length - window) : 0, seen = context.length - before;
  const int begin = before + part_start(seen, blockIdx.z, step.splits), end = before + part_start(seen, blockIdx.z + 1, step.splits);
  const T *queries = step.packed + (size_t)row * (step.query_heads + 2 * step.key_heads) * step.dimension + heads.first * step.dimension;
  const bool has_sink = step.counts_sinks();
  float query[PIECES], mixed[PIECES] = {}, largest = has_sink ? step.sink(heads.first) : -INFINITY, total = has_sink ? 1.0f : 0.0f;
#pragma unroll
  for (int p = 0; p < PIECES; p++) query[p] = p * 32 + lane < step.dimension ? to_float(queries[p * 32 + lane]) * step.scale : 0.0f;
  for (int n = begin + warp; n < end; n += warps) {
    const T *key = context.key(n), *value = key + context.key_width;
    float score = 0.0f;
#pragma unroll
    for (int p = 0; p < PIECES; p++)
      if (p * 32 + lane < step.dimension) score += query[p] * to_float(key[p * 32 + lane]);
    score = warp_sum(score);
    const float now = fmaxf(largest, score), keep = power(largest - now), weight = power(score - now);
    largest = now;
    total = total * keep + weight;
#pragma unroll
    for (int p = 0; p < PIECES; p++)
      if (p * 32 + lane < step.dimension) mixed[p] = mixed[p] * keep + weight * to_float(value[p * 32 + lane]);
  }
#pragma unroll
  for (int p = 0; p < PIECES; p++)
    if (p * 32 + lane < step.dimension) memory[2 * warps + warp * step.dimension + p * 32 + lane] = mixed[p];
  if (lane == 0) {
    memory[warp] = largest;
    memory[warps + warp] = total;
  }
  finish<1, D>(step, memory, 1, (size_t)gridDim.y * step.query_heads, output, partial, [&](int) { return row * step.query_heads + heads.first; });
}

// bf16 on tensor cores: head sizes that are multiples of 8 up to D, eight columns per block, sixteen keys per warp at a time. A column is a query head of row
// y; if GROUPED, of `rows_a_block` rows from row y * rows_a_block on. If these share a prompt, all warps process it once, for all columns; then, and otherwise
// from the start, the warps are divided among the rows. Part z has its share of either. With a `window` (0: all; never GROUPED) a row sees only its last keys.
//
// Scores are K x Q^T and the mix V^T x P^T, so that keys and values are the 16-row operands and columns the 8-column one. Operands come straight from global
// memory, 16 bytes at a time: the order of inner indices is free as long as both operands agree, and so is the order of rows of V^T, if the result is read back
// accordingly. With g = lane / 4 and t = lane % 4:
//   keys g, g + 8 and column g: numbers 8 (t + 4 c) to + 7 are indices {2 t, 2 t + 1, 2 t + 8, 2 t + 9} of steps 2 c and 2 c + 1;
//   values of keys 2 t, 2 t + 1, 2 t + 8, 2 t + 9: numbers 8 (g + 8 c) + 2 j and + 1 are rows g and g + 8 of tile (c, j).
template <int D, bool GROUPED>
__device__ void attend_on_tensor_cores(const Step<bf16> step, int window, int rows_a_block, int row_count, bf16 *output, float *partial) {
  constexpr int COLUMNS = 8, KEYS = 16;
  extern __shared__ __align__(16) float memory[];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, warps = blockDim.x / 32, g = lane / 4, t = lane % 4;
  const QueryHeads<bf16> heads(step, COLUMNS);
  const int first_row = GROUPED ? blockIdx.y * rows_a_block : blockIdx.y, count = GROUPED ? min(rows_a_block, row_count - first_row) : 1;
  // A column's row within the block; `count` for none.
  const auto row_of = [&](int column) { return GROUPED ? min(column / heads.count, count) : column < heads.count ? 0 : 1; };
  const auto head_of = [&](int column) { return heads.first + (GROUPED ? column % heads.count : column); };
  bool has_one_prompt = count > 1;
  for (int r = 1; r < count; r++)
    has_one_prompt = has_one_prompt && Row(step.rows, first_row + r).prefix_start == Row(step.rows, first_row).prefix_start;
  // Warps per row; rows are at most as many as warps.
  const int together = GROUPED ? warps / count : warps, own = GROUPED ? min(warp / together, count - 1) : 0, turn = GROUPED ? warp % together : warp;
  const bool works = !GROUPED || warp < together * count;
  const Context<bf16> context(step, Row(step.rows, first_row + own), heads.key_head);
  bool is_own[2]; // whether columns 2 t and 2 t + 1 are of this warp's row
#pragma unroll
  for (int h = 0; h < 2; h++) is_own[h] = !GROUPED || row_of(2 * t + h) == own;
  start_successor();
  wait_for_predecessor();
  const auto read = [&](const bf16 *from, int column, bool inside) {
    return inside && column < step.dimension ? *reinterpret_cast<const uint4 *>(from + column) : make_uint4(0, 0, 0, 0);
  };
  uint4 query[D / 32];
  const bf16 *queries = step.packed + ((size_t)(first_row + min(row_of(g), count - 1)) * (step.query_heads + 2 * step.key_heads) + head_of(g)) * step.dimension;
#pragma unroll
  for (int c = 0; c < D / 32; c++) query[c] = read(queries, 8 * (t + 4 * c), row_of(g) < count);
  // For columns 2 t and 2 t + 1: maxima over the warp's keys, sums over this lane's.
  float largest[2] = {-INFINITY, -INFINITY}, total[2] = {}, mixed[D / 64][4][4] = {};
#pragma unroll
  for (int h = 0; h < 2; h++)
    if (step.counts_sinks() && row_of(2 * t + h) < count) {
      largest[h] = step.sink(head_of(2 * t + h));
      total[h] = g == 0 ? 1.0f : 0.0f;
    }
  // Keys `begin` to `end`, sixteen at a time; for all columns, or only those of this warp's row.
  const auto walk = [&](int begin, int end, int turn, int turns, bool all) {
    for (int start = begin + turn * KEYS; start < end; start += turns * KEYS) {
      uint4 keys[D / 32][2], values[D / 64][4];
#pragma unroll
      for (int i = 0; i < 2; i++) {
        const int n = start + g + 8 * i;
        const bf16 *key = context.key(n);
#pragma unroll
        for (int c = 0; c < D / 32; c++) keys[c][i] = read(key, 8 * (t + 4 * c), n < end);
      }
#pragma unroll
      for (int i = 0; i < 4; i++) {
        const int n = start + 2 * t + i % 2 + i / 2 * 8;
        const bf16 *value = context.key(n) + context.key_width;
#pragma unroll
        for (int c = 0; c < D / 64; c++) values[c][i] = read(value, 8 * (g + 8 * c), n < end);
      }
      float scores[4] = {};
#pragma unroll
      for (int c = 0; c < D / 32; c++) {
        const uint4 low = keys[c][0], high = keys[c][1];
        multiply(scores, {low.x, high.x, low.y, high.y}, query[c].x, query[c].y);
        multiply(scores, {low.z, high.z, low.w, high.w}, query[c].z, query[c].w);
      }
      // Element i: key g + 8 (i / 2), column 2 t + i % 2.
      float keep[2];
#pragma unroll
      for (int i = 0; i < 4; i++) scores[i] = start + g + i / 2 * 8 < end && (all || is_own[i % 2]) ? scores[i] * step.scale : -INFINITY;
#pragma unroll
      for (int h = 0; h < 2; h++) {
        const float now = lanes_max<4, 16>(fmaxf(largest[h], fmaxf(scores[h], scores[2 + h]))), base = now == -INFINITY ? 0.0f : now;
        keep[h] = power(largest[h] - base);
        largest[h] = now;
        scores[h] = power(scores[h] - base);
        scores[2 + h] = power(scores[2 + h] - base);
        total[h] = total[h] * keep[h] + scores[h] + scores[2 + h];
      }
      const uint32_t low_weights = transpose(pack(scores[0], scores[1])), high_weights = transpose(pack(scores[2], scores[3]));
#pragma unroll
      for (int c = 0; c < D / 64; c++) {
        uint32_t numbers[4][4];
#pragma unroll
        for (int i = 0; i < 4; i++) {
          numbers[i][0] = values[c][i].x;
          numbers[i][1] = values[c][i].y;
          numbers[i][2] = values[c][i].z;
          numbers[i][3] = values[c][i].w;
        }
#pragma unroll
        for (int j = 0; j < 4; j++) {
#pragma unroll
          for (int i = 0; i < 4; i++) mixed[c][j][i] *= keep[i % 2];
          multiply(mixed[c][j],
                   {__byte_perm(numbers[0][j], numbers[1][j], 0x5410), __byte_perm(numbers[0][j], numbers[1][j], 0x7632),
                    __byte_perm(numbers[2][j], numbers[3][j], 0x5410), __byte_perm(numbers[2][j], numbers[3][j], 0x7632)},
                   low_weights, high_weights);
        }
      }
    }
  };
  const int part = blockIdx.z, parts = step.splits, prefix = has_one_prompt ? context.prefix_length : 0;
  const int first = window > 0 ? max(0, context.length - window) : prefix, rest = context.length - first;
  if (GROUPED && has_one_prompt) walk(part_start(prefix, part, parts), part_start(prefix, part + 1, parts), warp, warps, true);
  if (works) walk(first + part_start(rest, part, parts), first + part_start(rest, part + 1, parts), turn, together, !GROUPED);
  float *maxima = memory, *sums = maxima + warps * COLUMNS, *found = sums + warps * COLUMNS;
  const int used = count * heads.count;
#pragma unroll
  for (int h = 0; h < 2; h++) {
    const float sum = lanes_sum<4, 16>(total[h]);
    const int at = warp * COLUMNS + 2 * t + h;
    if (2 * t + h >= used) continue;
    if (g == 0) {
      maxima[at] = largest[h];
      sums[at] = sum;
    }
#pragma unroll
    for (int c = 0; c < D / 64; c++)
#pragma unroll
      for (int j = 0; j < 4; j++)
#pragma unroll
        for (int i = 0; i < 2; i++) {
          const int number = 8 * (g + 8 * c) + 2 * j + i;
          if (number < step.dimension) found[at * step.dimension + number] = mixed[c][j][2 * i + h];
        }
  }
  finish<COLUMNS, D>(step, memory, used, (size_t)row_count * step.query_heads, output, partial,
                     [&](int column) { return (first_row + row_of(column)) * step.query_heads + head_of(column); });
}

// One block per (row, head): joins the parts of its keys.
template <typename T> __device__ void merge(const float *partial, T *output, int splits, int dimension) {
  start_successor();
  wait_for_predecessor();
  const size_t numbers = gridDim.x, pair = blockIdx.x;
  const float *maxima = partial + splits * numbers * dimension, *sums = maxima + splits * numbers;
  float now = -INFINITY, sum = 0.0f;
  for (int s = 0; s < splits; s++) now = fmaxf(now, maxima[s * numbers + pair]);
  for (int s = 0; s < splits; s++) sum += sums[s * numbers + pair] * power(maxima[s * numbers + pair] - now);
  for (int column = threadIdx.x; column < dimension; column += blockDim.x) {
    float value = 0.0f;
    for (int s = 0; s < splits; s++)
      value += partial[(s * numbers + pair) * dimension + column] * power(maxima[s * numbers + pair] - now);
    output[pair * dimension + column] = from_float<T>(value / sum);
  }
}

#define STEP_PARAMETERS(T)                                                                                                     \
  const uint32_t *rows, const T *packed, const T *prefix, const T *cache, T *output, float *partial, int query_heads,          \
      int key_heads, int dimension, int splits, float scale, const T *sinks
#define STEP(T)                                                                                                                \
  Step<T> { rows, packed, prefix, cache, query_heads, key_heads, dimension, splits, scale, sinks }

#define INSTANTIATE_ANY(NAME, T, D)                                                                                            \
  extern "C" __global__ void __launch_bounds__(256) NAME(STEP_PARAMETERS(T), int window) {                                     \
    attend<D>(STEP(T), window, output, partial);                                                                               \
  }
INSTANTIATE_ANY(decode_attention_f32, float, 256)
INSTANTIATE_ANY(decode_attention_bf16, bf16, 256)
INSTANTIATE_ANY(decode_attention_wide_f32, float, 512)
INSTANTIATE_ANY(decode_attention_wide_bf16, bf16, 512)
#define INSTANTIATE(D)                                                                                                         \
  extern "C" __global__ void __launch_bounds__(256) decode_attention_tensor_##D##_bf16(STEP_PARAMETERS(bf16), int window) {    \
    attend_on_tensor_cores<D, false>(STEP(bf16), window, 1, gridDim.y, output, partial);                                       \
  }
#define INSTANTIATE_GROUPED(D)                                                                                                 \
  INSTANTIATE(D)                                                                                                               \
  extern "C" __global__ void __launch_bounds__(256, 2)                                                                         \
      decode_attention_grouped_##D##_bf16(STEP_PARAMETERS(bf16), int rows_a_block, int row_count) {                            \
    attend_on_tensor_cores<D, true>(STEP(bf16), 0, rows_a_block, row_count, output, partial);                                  \
  }
INSTANTIATE_GROUPED(64)
INSTANTIATE_GROUPED(128)
INSTANTIATE(256)

extern "C" __global__ void decode_attention_merge_f32(const float *partial, float *output, int splits, int dimension) {
  merge(partial, output, splits, dimension);
}
extern "C" __global__ void decode_attention_merge_bf16(const float *partial, bf16 *output, int splits, int dimension) {
  merge(partial, output, splits, dimension);
}
