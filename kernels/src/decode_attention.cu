// Attention of one new token a row, over its prompt's keys and values and its own earlier tokens. Nothing here depends on the host:
// a step is captured in a graph, and what changes from step to step is read from the table of rows.
#include "tensor_cores.cuh"
#include "vectors.cuh"

// One row of the table: its slot in the cache, its prompt's first row and rows, its own tokens so far, the newest included.
struct Row {
  int slot, prefix_start, prefix_length, length;

  __device__ __forceinline__ Row(const uint32_t *rows, int index)
      : slot(rows[4 * index]), prefix_start(rows[4 * index + 1]), prefix_length(rows[4 * index + 2]), length(rows[4 * index + 3]) {}
};

template <typename T> struct Step {
  const uint32_t *rows;
  const T *packed, *prefix, *cache;
  int positions, query_heads, key_heads, dimension, splits;
  float scale;  // 1 / sqrt(dimension), times log2(e): exponentials are of base 2
};

// What a block works on. Block (x, y, z): key head and its chunk of HEADS query heads, row, part of the row's keys.
template <typename T, int HEADS> struct Work {
  int first_head, heads;  // query heads
  int row, begin, end;    // the row, and its keys begin .. end
  int prefix_length;
  size_t key_width;
  const T *query, *prefix_keys, *own_keys;

  __device__ __forceinline__ Work(const Step<T> &step) {
    wait_for_predecessor();
    const int sharing = step.query_heads / step.key_heads, chunks = (sharing + HEADS - 1) / HEADS;
    const int key_head = blockIdx.x / chunks;
    first_head = key_head * sharing + blockIdx.x % chunks * HEADS;
    heads = min(HEADS, (key_head + 1) * sharing - first_head);
    row = blockIdx.y;
    const size_t width = (size_t)(step.query_heads + 2 * step.key_heads) * step.dimension;
    key_width = (size_t)step.key_heads * step.dimension;
    const Row place(step.rows, row);
    prefix_length = place.prefix_length;
    query = step.packed + row * width + (size_t)first_head * step.dimension;
    prefix_keys = step.prefix + place.prefix_start * 2 * key_width + (size_t)key_head * step.dimension;
    own_keys = step.cache + (size_t)place.slot * step.positions * 2 * key_width + (size_t)key_head * step.dimension;
    const int context = prefix_length + place.length, share = (context + step.splits - 1) / step.splits;
    begin = blockIdx.z * share;
    end = min(context, begin + share);
  }

  // Key n; its value stands key_width further on.
  __device__ __forceinline__ const T *key(int n) const {
    return n < prefix_length ? prefix_keys + n * 2 * key_width : own_keys + (n - prefix_length) * 2 * key_width;
  }
};

// Shared memory of a block: what each warp found for each head. Maxima are -inf where a warp had no key.
template <int HEADS> struct Found {
  float *maxima, *sums, *values;  // [warps, HEADS], [warps, HEADS], [warps, HEADS, dimension], not divided by the sums

  __device__ __forceinline__ Found(float *memory) : maxima(memory), sums(memory + blockDim.x / 32 * HEADS), values(sums + blockDim.x / 32 * HEADS) {}
};

// Merges what the warps found. With one part of keys a row the result goes to `output`; else to `partial`, for `merge`: [parts, rows, query heads,
// dimension] of values that are not divided yet, then [parts, rows, query heads] maxima, then sums.
template <typename T, int HEADS>
__device__ void finish(const Step<T> &step, const Work<T, HEADS> &work, const Found<HEADS> &found, T *output, float *partial) {
  const int warps = blockDim.x / 32, dimension = step.dimension;
  const size_t pairs = (size_t)gridDim.y * step.query_heads;
  __syncthreads();
  for (int i = threadIdx.x; i < work.heads * dimension; i += blockDim.x) {
    const int h = i / dimension, column = i % dimension;
    float now = -INFINITY, sum = 0.0f, value = 0.0f;
    for (int w = 0; w < warps; w++) now = fmaxf(now, found.maxima[w * HEADS + h]);
    const float base = now == -INFINITY ? 0.0f : now;
    for (int w = 0; w < warps; w++) {
      const float keep = exp2f(found.maxima[w * HEADS + h] - base);
      sum += found.sums[w * HEADS + h] * keep;
      value += found.values[(w * HEADS + h) * dimension + column] * keep;
    }
    const size_t pair = (size_t)work.row * step.query_heads + work.first_head + h;
    if (step.splits == 1) {
      output[pair * dimension + column] = from_float<T>(value / sum);
    } else {
      const size_t at = blockIdx.z * pairs + pair;
      partial[at * dimension + column] = value;
      if (column == 0) {
        float *part_maxima = partial + step.splits * pairs * dimension;
        part_maxima[at] = now;
        part_maxima[step.splits * pairs + at] = sum;
      }
    }
  }
}

// Any dtype and head size up to 256: one query head a block, one key a warp at a time, a lane has every 32nd number.
template <typename T> __device__ void attend(const Step<T> step, T *output, float *partial) {
  constexpr int PIECES = 8;
  extern __shared__ __align__(16) float memory[];
  const Work<T, 1> work(step);
  const Found<1> found(memory);
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, warps = blockDim.x / 32;
  float query[PIECES], mixed[PIECES] = {}, largest = -INFINITY, total = 0.0f;
#pragma unroll
  for (int p = 0; p < PIECES; p++) query[p] = p * 32 + lane < step.dimension ? to_float(work.query[p * 32 + lane]) * step.scale : 0.0f;
  for (int n = work.begin + warp; n < work.end; n += warps) {
    const T *key = work.key(n), *value = key + work.key_width;
    float score = 0.0f;
#pragma unroll
    for (int p = 0; p < PIECES; p++)
      if (p * 32 + lane < step.dimension) score += query[p] * to_float(key[p * 32 + lane]);
    score = warp_sum(score);
    const float now = fmaxf(largest, score), keep = exp2f(largest - now), weight = exp2f(score - now);
    largest = now;
    total = total * keep + weight;
#pragma unroll
    for (int p = 0; p < PIECES; p++)
      if (p * 32 + lane < step.dimension) mixed[p] = mixed[p] * keep + weight * to_float(value[p * 32 + lane]);
  }
#pragma unroll
  for (int p = 0; p < PIECES; p++)
    if (p * 32 + lane < step.dimension) found.values[warp * step.dimension + p * 32 + lane] = mixed[p];
  if (lane == 0) {
    found.maxima[warp] = largest;
    found.sums[warp] = total;
  }
  finish(step, work, found, output, partial);
}

// bf16 on tensor cores: head sizes that are multiples of 8 up to D, eight query heads a block, sixteen keys a warp at a time.
//
// Scores are computed as K x Q^T and the mix as V^T x P^T, so that keys and values are the 16-row operands and the eight heads the 8-column one. Operands
// come straight from global memory, 16 bytes at a time: which number of a head stands at which inner index of a product does not matter as long as both
// operands agree, and the rows of V^T may stand in any order that the result is read back in. With g = lane / 4 and t = lane % 4:
//   keys g, g + 8 and head g: numbers 8 (t + 4 c) to + 7 are indices {2 t, 2 t + 1, 2 t + 8, 2 t + 9} of steps 2 c and 2 c + 1;
//   values of keys 2 t, 2 t + 1, 2 t + 8, 2 t + 9: numbers 8 (g + 8 c) + 2 j and + 1 are rows g and g + 8 of tile (c, j).
template <int D> __device__ void attend_on_tensor_cores(const Step<bf16> step, bf16 *output, float *partial) {
  constexpr int HEADS = 8, KEYS = 16;
  extern __shared__ __align__(16) float memory[];
  const Work<bf16, HEADS> work(step);
  const Found<HEADS> found(memory);
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, warps = blockDim.x / 32, g = lane / 4, t = lane % 4;
  const auto read = [&](const bf16 *from, int column, bool inside) {
    return inside && column < step.dimension ? *reinterpret_cast<const uint4 *>(from + column) : make_uint4(0, 0, 0, 0);
  };
  uint4 query[D / 32];
#pragma unroll
  for (int c = 0; c < D / 32; c++) query[c] = read(work.query + g * step.dimension, 8 * (t + 4 * c), g < work.heads);
  // Of heads 2 t and 2 t + 1: maxima over the warp's keys, sums over this lane's.
  float largest[2] = {-INFINITY, -INFINITY}, total[2] = {}, mixed[D / 64][4][4] = {};
  for (int start = work.begin + warp * KEYS; start < work.end; start += warps * KEYS) {
    uint4 keys[D / 32][2], values[D / 64][4];
#pragma unroll
    for (int i = 0; i < 2; i++) {
      const int n = start + g + 8 * i;
      const bf16 *key = work.key(n);
#pragma unroll
      for (int c = 0; c < D / 32; c++) keys[c][i] = read(key, 8 * (t + 4 * c), n < work.end);
    }
#pragma unroll
    for (int i = 0; i < 4; i++) {
      const int n = start + 2 * t + i % 2 + i / 2 * 8;
      const bf16 *value = work.key(n) + work.key_width;
#pragma unroll
      for (int c = 0; c < D / 64; c++) values[c][i] = read(value, 8 * (g + 8 * c), n < work.end);
    }
    float scores[4] = {};
#pragma unroll
    for (int c = 0; c < D / 32; c++) {
      const uint4 low = keys[c][0], high = keys[c][1];
      multiply(scores, {low.x, high.x, low.y, high.y}, query[c].x, query[c].y);
      multiply(scores, {low.z, high.z, low.w, high.w}, query[c].z, query[c].w);
    }
    // Number i: key g + 8 (i / 2), head 2 t + i % 2.
    float keep[2];
#pragma unroll
    for (int i = 0; i < 4; i++) scores[i] = start + g + i / 2 * 8 < work.end ? scores[i] * step.scale : -INFINITY;
#pragma unroll
    for (int h = 0; h < 2; h++) {
      // The first of the sixteen keys is always inside, so the maximum is finite.
      const float now = lanes_max<4, 16>(fmaxf(largest[h], fmaxf(scores[h], scores[2 + h])));
      keep[h] = exp2f(largest[h] - now);
      largest[h] = now;
      scores[h] = exp2f(scores[h] - now);
      scores[2 + h] = exp2f(scores[2 + h] - now);
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
#pragma unroll
  for (int h = 0; h < 2; h++) {
    total[h] = lanes_sum<4, 16>(total[h]);
    const int head = 2 * t + h;
    if (g == 0) {
      found.maxima[warp * HEADS + head] = largest[h];
      found.sums[warp * HEADS + head] = total[h];
    }
#pragma unroll
    for (int c = 0; c < D / 64; c++)
#pragma unroll
      for (int j = 0; j < 4; j++)
#pragma unroll
        for (int i = 0; i < 2; i++) {
          const int column = 8 * (g + 8 * c) + 2 * j + i;
          if (column < step.dimension) found.values[(warp * HEADS + head) * step.dimension + column] = mixed[c][j][2 * i + h];
        }
  }
  finish(step, work, found, output, partial);
}

// One block a (row, head): the parts of its keys become one result.
template <typename T> __device__ void merge(const float *partial, T *output, int splits, int dimension) {
  wait_for_predecessor();
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

#define STEP_PARAMETERS(T)                                                                                                     \
  const uint32_t *rows, const T *packed, const T *prefix, const T *cache, T *output, float *partial, int positions,            \
      int query_heads, int key_heads, int dimension, int splits, float scale
#define STEP(T)                                                                                                                \
  Step<T> { rows, packed, prefix, cache, positions, query_heads, key_heads, dimension, splits, scale }

extern "C" __global__ void __launch_bounds__(256) decode_attention_f32(STEP_PARAMETERS(float)) { attend(STEP(float), output, partial); }
extern "C" __global__ void __launch_bounds__(256) decode_attention_bf16(STEP_PARAMETERS(bf16)) { attend(STEP(bf16), output, partial); }
extern "C" __global__ void __launch_bounds__(256) decode_attention_tensor_64_bf16(STEP_PARAMETERS(bf16)) {
  attend_on_tensor_cores<64>(STEP(bf16), output, partial);
}
extern "C" __global__ void __launch_bounds__(256) decode_attention_tensor_128_bf16(STEP_PARAMETERS(bf16)) {
  attend_on_tensor_cores<128>(STEP(bf16), output, partial);
}
extern "C" __global__ void decode_attention_merge_f32(const float *partial, float *output, int splits, int dimension) {
  merge(partial, output, splits, dimension);
}
extern "C" __global__ void decode_attention_merge_bf16(const float *partial, bf16 *output, int splits, int dimension) {
  merge(partial, output, splits, dimension);
}
