// Causal attention over packed segments on tensor cores: bf16, head sizes that are multiples of 8 up to 128. attention.cu explains the walk over tiles.
//
// Tiles are 64 x 64; each of a block's four warps owns 16 rows. Scores stay in registers: a tile of scores is, rounded to bf16, the left operand of the
// product that follows it. Exponentials are of base 2.
#include "attention.cuh"
#include "tensor_cores.cuh"

constexpr int TILE = TABLE_TILE, THREADS = 2 * TILE;
constexpr float LOG2_E = 1.44269504088896341f;

// Numbers of a tile's row in shared memory; the padding puts eight neighbouring rows in different banks.
template <int D> constexpr int STRIDE = D + 8;
template <int D> constexpr int TILE_NUMBERS = TILE * STRIDE<D>;

// Starts to fill a tile: its row r is row_of(r) of `from`, zeros where that is negative or a column is beyond the head.
template <int D, typename RowOf>
__device__ __forceinline__ void fill(bf16 *tile, const bf16 *from, int stride, int dimension, RowOf row_of) {
  for (int i = threadIdx.x; i < TILE * D / 8; i += THREADS) {
    const int r = i / (D / 8), c = i % (D / 8) * 8;
    const long long row = row_of(r);
    const bool inside = row >= 0 && c < dimension;
    copy_async(tile + r * STRIDE<D> + c, inside ? from + row * stride + c : from, inside);
  }
}

// out = this warp's 16 rows of a times all 64 rows of b.
template <int D> __device__ __forceinline__ void products(const bf16 *a, const bf16 *b, float (&out)[8][4]) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  a += (warp * 16 + lane % 16) * STRIDE<D> + lane / 16 * 8;
  b += (lane / 16 * 8 + lane % 8) * STRIDE<D> + lane / 8 % 2 * 8;
#pragma unroll
  for (int n = 0; n < 8; n++)
#pragma unroll
    for (int i = 0; i < 4; i++) out[n][i] = 0.0f;
#pragma unroll
  for (int k = 0; k < D; k += 16) {
    uint32_t left[4];
    load_matrices(left, a + k);
#pragma unroll
    for (int n = 0; n < 4; n++) {
      uint32_t right[4];
      load_matrices(right, b + n * 16 * STRIDE<D> + k);
      multiply(out[2 * n], left, right[0], right[1]);
      multiply(out[2 * n + 1], left, right[2], right[3]);
    }
  }
}

// out += this warp's 16 x 64 scores times the 64 x D of b.
template <int D> __device__ __forceinline__ void mix(const float (&scores)[8][4], const bf16 *b, float (&out)[D / 8][4]) {
  const int lane = threadIdx.x % 32;
  b += lane % 16 * STRIDE<D> + lane / 16 * 8;
#pragma unroll
  for (int k = 0; k < 4; k++) {
    const uint32_t left[4] = {pack(scores[2 * k][0], scores[2 * k][1]), pack(scores[2 * k][2], scores[2 * k][3]),
                              pack(scores[2 * k + 1][0], scores[2 * k + 1][1]), pack(scores[2 * k + 1][2], scores[2 * k + 1][3])};
#pragma unroll
    for (int n = 0; n < D / 16; n++) {
      uint32_t right[4];
      load_matrices_transposed(right, b + k * 16 * STRIDE<D> + n * 16);
      multiply(out[2 * n], left, right[0], right[1]);
      multiply(out[2 * n + 1], left, right[2], right[3]);
    }
  }
}

// The row and the column of number i of result n, in the block's tile.
__device__ __forceinline__ int row_of_number(int i) { return threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4 + i / 2 * 8; }
__device__ __forceinline__ int column_of_number(int n, int i) { return n * 8 + threadIdx.x % 4 * 2 + i % 2; }

// Sums and maxima over the four lanes that share a row.
__device__ __forceinline__ float row_sum(float x) { return lanes_sum<1, 2>(x); }
__device__ __forceinline__ float row_max(float x) { return lanes_max<1, 2>(x); }

// Scores in base 2; -inf where a row may not look.
__device__ __forceinline__ void scale_and_hide(const QueryTile &tile, int start, float scale, float (&s)[8][4]) {
  const bool hides = start + TILE > tile.segment.prefix_length + tile.first;
#pragma unroll
  for (int n = 0; n < 8; n++)
#pragma unroll
    for (int i = 0; i < 4; i++) {
      s[n][i] *= scale;
      if (hides && !tile.sees(row_of_number(i), start + column_of_number(n, i))) s[n][i] = -INFINITY;
    }
}

// Turns scores into exponentials less the running maxima, of which row r of a lane (0 or 1) has numbers 2 r and 2 r + 1. `keep`: what to multiply older
// sums with. Key 0 is visible to every row, so the maxima are finite from the first tile on.
__device__ __forceinline__ void exponentials(float (&s)[8][4], float (&largest)[2], float (&total)[2], float (&keep)[2]) {
#pragma unroll
  for (int r = 0; r < 2; r++) {
    float now = largest[r];
#pragma unroll
    for (int n = 0; n < 8; n++) now = fmaxf(now, fmaxf(s[n][2 * r], s[n][2 * r + 1]));
    now = row_max(now);
    keep[r] = exp2f(largest[r] - now);
    largest[r] = now;
    float sum = 0.0f;
#pragma unroll
    for (int n = 0; n < 8; n++)
#pragma unroll
      for (int i = 2 * r; i < 2 * r + 2; i++) {
        s[n][i] = exp2f(s[n][i] - now);
        sum += s[n][i];
      }
    total[r] = total[r] * keep[r] + row_sum(sum);
  }
}

// Writes the rows that are inside, each times its factor.
template <int D>
__device__ __forceinline__ void store(bf16 *to, int stride, int dimension, int count, const float (&values)[D / 8][4], const float (&factor)[2]) {
#pragma unroll
  for (int r = 0; r < 2; r++) {
    const int row = row_of_number(2 * r);
#pragma unroll
    for (int n = 0; n < D / 8; n++) {
      const int column = column_of_number(n, 0);
      if (row < count && column < dimension)
        *reinterpret_cast<uint32_t *>(to + (size_t)row * stride + column) =
            pack(values[n][2 * r] * factor[r], values[n][2 * r + 1] * factor[r]);
    }
  }
}

template <int D> __device__ void forward(Batch batch, const bf16 *packed, bf16 *output, int stride) {
  extern __shared__ __align__(16) bf16 memory[];
  bf16 *queries = memory, *keys = queries + TILE_NUMBERS<D>, *values = keys + TILE_NUMBERS<D>;
  const QueryTile tile(batch, TILE);
  if (tile.count <= 0) return;
  const bf16 *key = packed + batch.key_column(tile.key_head), *value = packed + batch.value_column(tile.key_head);
  const auto fill_keys = [&](bf16 *to, const bf16 *from, int start) {
    fill<D>(to, from, batch.width, batch.dimension, [&](int r) { return start + r < tile.keys ? tile.segment.key_row(start + r) : -1LL; });
  };
  fill<D>(queries, packed + tile.head * batch.dimension, batch.width, batch.dimension, [&](int r) { return r < tile.count ? tile.row(r) : -1LL; });
  fill_keys(keys, key, 0);
  float largest[2] = {-INFINITY, -INFINITY}, total[2] = {}, mixed[D / 8][4] = {};
  for (int start = 0; start < tile.keys; start += TILE) {
    // Values travel while scores are computed, the next keys while values are mixed.
    copies_done();
    __syncthreads();
    fill_keys(values, value, start);
    float s[8][4], keep[2];
    products<D>(queries, keys, s);
    scale_and_hide(tile, start, batch.scale * LOG2_E, s);
    exponentials(s, largest, total, keep);
#pragma unroll
    for (int n = 0; n < D / 8; n++)
#pragma unroll
      for (int i = 0; i < 4; i++) mixed[n][i] *= keep[i / 2];
    copies_done();
    __syncthreads();
    if (start + TILE < tile.keys) fill_keys(keys, key, start + TILE);
    mix<D>(s, values, mixed);
  }
  const float inverse[2] = {1.0f / total[0], 1.0f / total[1]};
  store<D>(output + (size_t)tile.row(0) * stride + tile.head * batch.dimension, stride, batch.dimension, tile.count, mixed, inverse);
}

// dQ, and for each (head, row) the base-2 logarithm of the sum of its exponentials and delta = sum(P * dP), which dK and dV need.
template <int D>
__device__ void backward_queries(Batch batch, const bf16 *gradient, const bf16 *packed, bf16 *packed_gradient, float *statistics) {
  extern __shared__ __align__(16) bf16 memory[];
  bf16 *queries = memory, *incoming = queries + TILE_NUMBERS<D>, *keys_values = incoming + TILE_NUMBERS<D>;
  const QueryTile tile(batch, TILE);
  if (tile.count <= 0) return;
  const bf16 *key = packed + batch.key_column(tile.key_head), *value = packed + batch.value_column(tile.key_head);
  const int column = tile.head * batch.dimension;
  const auto query_row = [&](int r) { return r < tile.count ? tile.row(r) : -1LL; };
  // Two passes over all tiles of keys; the next tile travels while one is worked on.
  const int tiles = (tile.keys + TILE - 1) / TILE;
  const auto keys_of = [&](int step) { return keys_values + step % 2 * 2 * TILE_NUMBERS<D>; };
  const auto fill_step = [&](int step) {
    const int start = step % tiles * TILE;
    const auto key_row = [&](int r) { return start + r < tile.keys ? tile.segment.key_row(start + r) : -1LL; };
    fill<D>(keys_of(step), key, batch.width, batch.dimension, key_row);
    fill<D>(keys_of(step) + TILE_NUMBERS<D>, value, batch.width, batch.dimension, key_row);
  };
  fill<D>(queries, packed + column, batch.width, batch.dimension, query_row);
  fill<D>(incoming, gradient + column, batch.query_heads * batch.dimension, batch.dimension, query_row);
  fill_step(0);
  float largest[2] = {-INFINITY, -INFINITY}, total[2] = {}, shared[2] = {}, result[D / 8][4] = {};
  for (int pass = 0; pass < 2; pass++) {
    for (int index = 0; index < tiles; index++) {
      const int step = pass * tiles + index, start = index * TILE;
      const bf16 *keys = keys_of(step), *values = keys + TILE_NUMBERS<D>;
      copies_done();
      __syncthreads();
      if (step + 1 < 2 * tiles) fill_step(step + 1);
      float s[8][4], changes[8][4];
      products<D>(queries, keys, s);
      scale_and_hide(tile, start, batch.scale * LOG2_E, s);
      products<D>(incoming, values, changes);
      if (pass == 0) {
        float keep[2];
        exponentials(s, largest, total, keep);
#pragma unroll
        for (int r = 0; r < 2; r++) {
          float sum = 0.0f;
#pragma unroll
          for (int n = 0; n < 8; n++) sum += s[n][2 * r] * changes[n][2 * r] + s[n][2 * r + 1] * changes[n][2 * r + 1];
          shared[r] = shared[r] * keep[r] + row_sum(sum);
        }
      } else {
#pragma unroll
        for (int n = 0; n < 8; n++)
#pragma unroll
          for (int i = 0; i < 4; i++) s[n][i] = exp2f(s[n][i] - largest[i / 2]) * (changes[n][i] - shared[i / 2]);
        mix<D>(s, keys, result);
      }
    }
    if (pass == 0) {
#pragma unroll
      for (int r = 0; r < 2; r++) {
        shared[r] /= total[r];
        largest[r] += log2f(total[r]);
        const int row = row_of_number(2 * r);
        if (threadIdx.x % 4 == 0 && row < tile.count) {
          const size_t at = (size_t)tile.head * batch.rows + tile.row(row);
          statistics[at] = largest[r];
          statistics[(size_t)batch.query_heads * batch.rows + at] = shared[r];
        }
      }
    }
  }
  const float scales[2] = {batch.scale, batch.scale};
  store<D>(packed_gradient + (size_t)tile.row(0) * batch.width + column, batch.width, batch.dimension, tile.count, result, scales);
}

// dK and dV of one tile of keys, over all rows and all query heads that read it. Rows of the scores are keys here, columns queries.
template <int D>
__device__ void backward_keys_values(Batch batch, const bf16 *gradient, const bf16 *packed, const float *statistics, bf16 *packed_gradient) {
  extern __shared__ __align__(16) bf16 memory[];
  bf16 *keys = memory, *values = keys + TILE_NUMBERS<D>, *rows = values + TILE_NUMBERS<D>;
  float *row_statistics = reinterpret_cast<float *>(rows + 4 * TILE_NUMBERS<D>);
  const KeyTile tile(batch, TILE);
  if (tile.count <= 0) return;
  const int out_width = batch.query_heads * batch.dimension, sharing = batch.query_heads / batch.key_heads;
  const size_t key_column = batch.key_column(tile.key_head), value_column = batch.value_column(tile.key_head);
  const auto own_row = [&](int r) { return r < tile.count ? tile.own_row(r) : -1LL; };
  // For each query head all tiles of queries; the next tile travels while one is worked on.
  const int tiles = (tile.queries + TILE - 1) / TILE;
  const auto queries_of = [&](int step) { return rows + step % 2 * 2 * TILE_NUMBERS<D>; };
  const auto sums_of = [&](int step) { return row_statistics + step % 2 * 2 * TILE; };
  const auto fill_step = [&](int step) {
    const int head = tile.key_head * sharing + step / tiles, start = step % tiles * TILE;
    const auto query_row = [&](int r) { return start + r < tile.queries ? tile.query_row(start + r) : -1LL; };
    fill<D>(queries_of(step), packed + head * batch.dimension, batch.width, batch.dimension, query_row);
    fill<D>(queries_of(step) + TILE_NUMBERS<D>, gradient + head * batch.dimension, out_width, batch.dimension, query_row);
    // The first half of the threads brings the sums, the other half delta.
    const long long row = query_row(threadIdx.x % TILE);
    const size_t place = ((size_t)(threadIdx.x / TILE) * batch.query_heads + head) * batch.rows;
    sums_of(step)[threadIdx.x] = row >= 0 ? statistics[place + row] : 0.0f;
  };
  fill<D>(keys, packed + key_column, batch.width, batch.dimension, own_row);
  fill<D>(values, packed + value_column, batch.width, batch.dimension, own_row);
  fill_step(0);
  float key_gradient[D / 8][4] = {}, value_gradient[D / 8][4] = {};
  for (int step = 0; step < sharing * tiles; step++) {
    const int start = step % tiles * TILE;
    const bf16 *queries = queries_of(step), *incoming = queries + TILE_NUMBERS<D>;
    const float *sums = sums_of(step), *shared = sums + TILE;
    copies_done();
    __syncthreads();
    if (step + 1 < sharing * tiles) fill_step(step + 1);
    float p[8][4], changes[8][4];
    products<D>(keys, queries, p);
    const bool hides = start < TILE || start + TILE > tile.queries;
#pragma unroll
    for (int n = 0; n < 8; n++)
#pragma unroll
      for (int i = 0; i < 4; i++) {
        const int query = column_of_number(n, i);
        const bool seen = !hides || tile.seen(row_of_number(i), start + query);
        p[n][i] = seen ? exp2f(p[n][i] * (batch.scale * LOG2_E) - sums[query]) : 0.0f;
      }
    mix<D>(p, incoming, value_gradient);
    products<D>(values, incoming, changes);
#pragma unroll
    for (int n = 0; n < 8; n++)
#pragma unroll
      for (int i = 0; i < 4; i++) p[n][i] *= changes[n][i] - shared[column_of_number(n, i)];
    mix<D>(p, queries, key_gradient);
  }
  const float ones[2] = {1.0f, 1.0f}, scales[2] = {batch.scale, batch.scale};
  bf16 *target = packed_gradient + (size_t)tile.own_row(0) * batch.width;
  store<D>(target + key_column, batch.width, batch.dimension, tile.count, key_gradient, scales);
  store<D>(target + value_column, batch.width, batch.dimension, tile.count, value_gradient, ones);
}

#define INSTANTIATE(D)                                                                                                         \
  extern "C" __global__ void __launch_bounds__(THREADS)                                                                        \
      attention_tensor_##D##_bf16(BATCH_PARAMETERS, const bf16 *packed, bf16 *output, int stride) {                            \
    forward<D>(BATCH, packed, output, stride);                                                                                 \
  }                                                                                                                            \
  extern "C" __global__ void __launch_bounds__(THREADS) attention_backward_queries_tensor_##D##_bf16(                          \
      BATCH_PARAMETERS, const bf16 *gradient, const bf16 *packed, bf16 *packed_gradient, float *statistics) {                  \
    backward_queries<D>(BATCH, gradient, packed, packed_gradient, statistics);                                                 \
  }                                                                                                                            \
  extern "C" __global__ void __launch_bounds__(THREADS, 2) attention_backward_keys_values_tensor_##D##_bf16(                   \
      BATCH_PARAMETERS, const bf16 *gradient, const bf16 *packed, const float *statistics, bf16 *packed_gradient) {            \
    backward_keys_values<D>(BATCH, gradient, packed, statistics, packed_gradient);                                             \
  }
INSTANTIATE(64)
INSTANTIATE(128)
