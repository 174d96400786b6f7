// Causal attention over packed segments on CUDA cores: any head size up to 512, f32 or bf16, computed in f32. attention_tensor_cores.cu holds the fast path.
//
// A segment sees contiguous keys: those of its prefix segment, then its own. Key n is visible to the segment's row i if n <= prefix length + i. So no [T, T]
// matrix is needed: each block keeps one tile and loops over the tiles it sees. A key tile is seen by the rows of its own segment from the tile on, then by
// every row of the segments after it that have it as prefix. With a window a row sees only the last keys, its own included.
//
// Blocks have 16 x 16 threads and tiles of 32 x 32, for heads above 256 columns 16 x 16: thread (y, x) owns rows y, y + 16 and columns x, x + 16 of a score
// tile. A row's 16 threads are half a warp, so rows are reduced by shuffles and shared within one warp.
#include "attention.cuh"

constexpr int THREADS = 256;

// Rows per tile and per thread.
template <int D> constexpr int TILE = D > 256 ? 16 : 32;
template <int D> constexpr int OWN = TILE<D> / 16;

// Rows of D columns; padding puts 16-byte reads of adjacent rows in different banks.
template <int D> using Rows = float (*)[D + 4];
template <int D> using Scores = float (*)[TILE<D> + 1];

// Over the 16 threads of a row.
__device__ __forceinline__ float row_sum(float x) { return lanes_sum<8, 1>(x); }
__device__ __forceinline__ float row_max(float x) { return lanes_max<8, 1>(x); }

// Fills a tile: row r is row(r) of `from`; zeros if row(r) is negative or the column is beyond the head.
template <int D, typename T, typename RowOf>
__device__ __forceinline__ void fill(Rows<D> tile, const T *from, int stride, int dimension, RowOf row_of) {
  for (int i = threadIdx.x; i < TILE<D> * D; i += THREADS) {
    const int r = i / D, c = i % D;
    const long long row = row_of(r);
    tile[r][c] = row >= 0 && c < dimension ? to_float(from[row * stride + c]) : 0.0f;
  }
}

// out[i][j] = row (y + 16 i) of a times row (x + 16 j) of b.
template <int D> __device__ __forceinline__ void products(Rows<D> a, Rows<D> b, float (&out)[OWN<D>][OWN<D>]) {
  const int y = threadIdx.x / 16, x = threadIdx.x % 16;
#pragma unroll
  for (int i = 0; i < OWN<D>; i++)
#pragma unroll
    for (int j = 0; j < OWN<D>; j++) out[i][j] = 0.0f;
#pragma unroll 4
  for (int c = 0; c < D; c += 4) {
    float4 left[OWN<D>], right[OWN<D>];
#pragma unroll
    for (int i = 0; i < OWN<D>; i++) {
      left[i] = *reinterpret_cast<const float4 *>(&a[y + 16 * i][c]);
      right[i] = *reinterpret_cast<const float4 *>(&b[x + 16 * i][c]);
    }
#pragma unroll
    for (int i = 0; i < OWN<D>; i++)
#pragma unroll
      for (int j = 0; j < OWN<D>; j++)
        out[i][j] += left[i].x * right[j].x + left[i].y * right[j].y + left[i].z * right[j].z + left[i].w * right[j].w;
  }
}

// out[i][c] += row (y + 16 i) of the scores times column (x + 16 c) of b.
template <int D> __device__ __forceinline__ void mix(Scores<D> scores, Rows<D> b, float (&out)[OWN<D>][D / 16]) {
  const int y = threadIdx.x / 16, x = threadIdx.x % 16;
  for (int k = 0; k < TILE<D>; k++) {
    float p[OWN<D>];
#pragma unroll
    for (int i = 0; i < OWN<D>; i++) p[i] = scores[y + 16 * i][k];
#pragma unroll
    for (int c = 0; c < D / 16; c++) {
      const float value = b[k][x + 16 * c];
#pragma unroll
      for (int i = 0; i < OWN<D>; i++) out[i][c] += p[i] * value;
    }
  }
}

// Passes a score tile from the threads that computed it to the warp that owns its rows.
template <int D> __device__ __forceinline__ void pass(Scores<D> scores, const float (&values)[OWN<D>][OWN<D>]) {
  const int y = threadIdx.x / 16, x = threadIdx.x % 16;
  __syncwarp();
#pragma unroll
  for (int i = 0; i < OWN<D>; i++)
#pragma unroll
    for (int j = 0; j < OWN<D>; j++) scores[y + 16 * i][x + 16 * j] = values[i][j];
  __syncwarp();
}

// Writes rows y + 16 i inside the tile, times factor[i].
template <int D, typename T>
__device__ __forceinline__ void store(T *to, int stride, int dimension, int count, const float (&values)[OWN<D>][D / 16], const float (&factor)[OWN<D>]) {
  const int y = threadIdx.x / 16, x = threadIdx.x % 16;
#pragma unroll
  for (int i = 0; i < OWN<D>; i++)
#pragma unroll
    for (int c = 0; c < D / 16; c++)
      if (y + 16 * i < count && x + 16 * c < dimension)
        to[(size_t)(y + 16 * i) * stride + x + 16 * c] = from_float<T>(values[i][c] * factor[i]);
}

// Also writes log2 of the sum of exponentials per (head, row). `sinks`: one score per head, or null.
template <typename T, int D>
__device__ void forward(Batch batch, const T *packed, T *output, int stride, float *log_sums, const T *sinks) {
  extern __shared__ __align__(16) float memory[];
  Rows<D> queries = reinterpret_cast<Rows<D>>(memory), keys = queries + TILE<D>, values = keys + TILE<D>;
  Scores<D> scores = reinterpret_cast<Scores<D>>(values + TILE<D>);
  const QueryTile tile(batch, TILE<D>, blockIdx.y);
  if (tile.count <= 0) return;
  const T *key = packed + batch.key_column(tile.key_head), *value = packed + batch.value_column(tile.key_head);
  const int y = threadIdx.x / 16, x = threadIdx.x % 16;
  fill<D>(queries, packed + tile.head * batch.dimension, batch.width, batch.dimension, [&](int r) { return r < tile.count ? tile.row(r) : -1LL; });
  const Start own(sinks, tile.head);
  float largest[OWN<D>], total[OWN<D>], mixed[OWN<D>][D / 16] = {};
#pragma unroll
  for (int i = 0; i < OWN<D>; i++) largest[i] = own.largest, total[i] = own.total;
  for (int start = tile.first_key(); start < tile.keys; start += TILE<D>) {
    const auto key_row = [&](int r) { return start + r < tile.keys ? tile.segment.key_row(start + r) : -1LL; };
    __syncthreads();
    fill<D>(keys, key, batch.width, batch.dimension, key_row);
    fill<D>(values, value, batch.width, batch.dimension, key_row);
    __syncthreads();
    float s[OWN<D>][OWN<D>];
    products<D>(queries, keys, s);
#pragma unroll
    for (int i = 0; i < OWN<D>; i++) {
#pragma unroll
      for (int j = 0; j < OWN<D>; j++) s[i][j] = tile.sees(y + 16 * i, start + x + 16 * j) ? s[i][j] * (batch.scale * LOG2_E) : -INFINITY;
      // Every row of the tile sees a key of the first tile, so the maximum is finite from then on.
      const float now = fmaxf(largest[i], row_max(fmaxf(s[i][0], s[i][OWN<D> - 1]))), keep = power(largest[i] - now);
#pragma unroll
      for (int j = 0; j < OWN<D>; j++) s[i][j] = power(s[i][j] - now);
      total[i] = total[i] * keep + row_sum(OWN<D> == 2 ? s[i][0] + s[i][OWN<D> - 1] : s[i][0]);
      largest[i] = now;
#pragma unroll
      for (int c = 0; c < D / 16; c++) mixed[i][c] *= keep;
    }
    pass<D>(scores, s);
    mix<D>(scores, values, mixed);
  }
  float inverse[OWN<D>];
#pragma unroll
  for (int i = 0; i < OWN<D>; i++) {
    inverse[i] = 1.0f / total[i];
    if (x == 0 && y + 16 * i < tile.count) log_sums[(size_t)tile.head * batch.rows + tile.row(y + 16 * i)] = largest[i] + log2f(total[i]);
  }
  store<D>(output + (size_t)tile.row(0) * stride + tile.head * batch.dimension, stride, batch.dimension, tile.count, mixed, inverse);
}

// dQ, and per (head, row) delta = sum(P * dP) = sum(O * dO), which dK and dV need too.
template <typename T, int D>
__device__ void backward_queries(Batch batch, const T *gradient, const T *packed, const T *output, int stride, const float *log_sums, float *delta,
                                 T *packed_gradient) {
  extern __shared__ __align__(16) float memory[];
  Rows<D> queries = reinterpret_cast<Rows<D>>(memory), incoming = queries + TILE<D>, keys = incoming + TILE<D>, values = keys + TILE<D>;
  Scores<D> scores = reinterpret_cast<Scores<D>>(values + TILE<D>);
  const QueryTile tile(batch, TILE<D>, blockIdx.y);
  if (tile.count <= 0) return;
  const T *key = packed + batch.key_column(tile.key_head), *value = packed + batch.value_column(tile.key_head);
  const int y = threadIdx.x / 16, x = threadIdx.x % 16, column = tile.head * batch.dimension;
  const auto query_row = [&](int r) { return r < tile.count ? tile.row(r) : -1LL; };
  fill<D>(queries, packed + column, batch.width, batch.dimension, query_row);
  fill<D>(incoming, gradient + column, batch.query_heads * batch.dimension, batch.dimension, query_row);
  __syncthreads();
  float sums[OWN<D>] = {}, shared[OWN<D>] = {}, scales[OWN<D>], result[OWN<D>][D / 16] = {};
#pragma unroll
  for (int i = 0; i < OWN<D>; i++) {
    const int r = y + 16 * i;
    scales[i] = batch.scale;
    for (int c = x; r < tile.count && c < batch.dimension; c += 16) shared[i] += to_float(output[tile.row(r) * stride + column + c]) * incoming[r][c];
    shared[i] = row_sum(shared[i]);
    if (r >= tile.count) continue;
    const size_t at = (size_t)tile.head * batch.rows + tile.row(r);
    sums[i] = log_sums[at];
    if (x == 0) delta[at] = shared[i];
  }
  for (int start = tile.first_key(); start < tile.keys; start += TILE<D>) {
    const auto key_row = [&](int r) { return start + r < tile.keys ? tile.segment.key_row(start + r) : -1LL; };
    __syncthreads();
    fill<D>(keys, key, batch.width, batch.dimension, key_row);
    fill<D>(values, value, batch.width, batch.dimension, key_row);
    __syncthreads();
    float s[OWN<D>][OWN<D>], changes[OWN<D>][OWN<D>];
    products<D>(queries, keys, s);
    products<D>(incoming, values, changes);
#pragma unroll
    for (int i = 0; i < OWN<D>; i++)
#pragma unroll
      for (int j = 0; j < OWN<D>; j++) {
        const bool is_seen = tile.sees(y + 16 * i, start + x + 16 * j);
        s[i][j] = is_seen ? power(s[i][j] * (batch.scale * LOG2_E) - sums[i]) * (changes[i][j] - shared[i]) : 0.0f;
      }
    pass<D>(scores, s);
    mix<D>(scores, keys, result);
  }
  store<D>(packed_gradient + (size_t)tile.row(0) * batch.width + column, batch.width, batch.dimension, tile.count, result, scales);
}

// dK and dV of a key tile, over all rows and query heads that read it.
template <typename T, int D>
__device__ void backward_keys_values(Batch batch, const T *gradient, const T *packed, const float *log_sums, const float *delta, T *packed_gradient) {
  extern __shared__ __align__(16) float memory[];
  Rows<D> keys = reinterpret_cast<Rows<D>>(memory), values = keys + TILE<D>, queries = values + TILE<D>, incoming = queries + TILE<D>;
  Scores<D> scores = reinterpret_cast<Scores<D>>(incoming + TILE<D>), changed = scores + TILE<D>;
  float *sums = reinterpret_cast<float *>(changed + TILE<D>), *shared = sums + TILE<D>;
  int *distances = reinterpret_cast<int *>(shared + TILE<D>);
  const KeyTile tile(batch, TILE<D>);
  if (tile.count <= 0) return;
  const int y = threadIdx.x / 16, x = threadIdx.x % 16, out_width = batch.query_heads * batch.dimension;
  const size_t key_column = batch.key_column(tile.key_head), value_column = batch.value_column(tile.key_head);
  const auto own_row = [&](int r) { return r < tile.count ? tile.row(r) : -1LL; };
  fill<D>(keys, packed + key_column, batch.width, batch.dimension, own_row);
  fill<D>(values, packed + value_column, batch.width, batch.dimension, own_row);
  float ones[OWN<D>], scales[OWN<D>], key_gradient[OWN<D>][D / 16] = {}, value_gradient[OWN<D>][D / 16] = {};
#pragma unroll
  for (int i = 0; i < OWN<D>; i++) ones[i] = 1.0f, scales[i] = batch.scale;
  const int sharing = batch.query_heads / batch.key_heads;
  for (int head = tile.key_head * sharing; head < (tile.key_head + 1) * sharing; head++) {
    const size_t place = (size_t)head * batch.rows;
    for (int start = 0; start < tile.queries; start += TILE<D>) {
      const auto query_row = [&](int r) { return start + r < tile.queries ? tile.row(start + r) : -1LL; };
      if (batch.window < ALL_KEYS) {
        const long long row = threadIdx.x < TILE<D> ? query_row(threadIdx.x) : -1LL;
        if (!__syncthreads_or(row >= 0 && tile.reached(tile.distance(batch.positions[row])))) continue;
      }
      __syncthreads();
      fill<D>(queries, packed + head * batch.dimension, batch.width, batch.dimension, query_row);
      fill<D>(incoming, gradient + head * batch.dimension, out_width, batch.dimension, query_row);
      if (threadIdx.x < TILE<D>) {
        const long long row = query_row(threadIdx.x);
        sums[threadIdx.x] = row >= 0 ? log_sums[place + row] : 0.0f;
        shared[threadIdx.x] = row >= 0 ? delta[place + row] : 0.0f;
        distances[threadIdx.x] = row >= 0 ? tile.distance(batch.positions[row]) : 0;
      }
      __syncthreads();
      float p[OWN<D>][OWN<D>], changes[OWN<D>][OWN<D>];
      products<D>(keys, queries, p);
      products<D>(values, incoming, changes);
#pragma unroll
      for (int i = 0; i < OWN<D>; i++)
#pragma unroll
        for (int j = 0; j < OWN<D>; j++) {
          const int query = x + 16 * j;
          const bool is_seen = tile.seen(y + 16 * i, start + query, distances[query]);
          p[i][j] = is_seen ? power(p[i][j] * (batch.scale * LOG2_E) - sums[query]) : 0.0f;
          changes[i][j] = p[i][j] * (changes[i][j] - shared[query]);
        }
      pass<D>(scores, p);
      pass<D>(changed, changes);
      mix<D>(scores, incoming, value_gradient);
      mix<D>(changed, queries, key_gradient);
    }
  }
  T *target = packed_gradient + (size_t)tile.row(0) * batch.width;
  store<D>(target + key_column, batch.width, batch.dimension, tile.count, key_gradient, scales);
  store<D>(target + value_column, batch.width, batch.dimension, tile.count, value_gradient, ones);
}

#define INSTANTIATE(T, suffix, D)                                                                                              \
  extern "C" __global__ void __launch_bounds__(THREADS)                                                                        \
      attention_##D##_##suffix(BATCH_PARAMETERS, const T *packed, T *output, int stride, float *log_sums, const T *sinks) {    \
    forward<T, D>(BATCH, packed, output, stride, log_sums, sinks);                                                             \
  }                                                                                                                            \
  extern "C" __global__ void __launch_bounds__(THREADS) attention_backward_queries_##D##_##suffix(                             \
      BATCH_PARAMETERS, const T *gradient, const T *packed, const T *output, int stride, const float *log_sums, float *delta,  \
      T *packed_gradient) {                                                                                                    \
    backward_queries<T, D>(BATCH, gradient, packed, output, stride, log_sums, delta, packed_gradient);                         \
  }                                                                                                                            \
  extern "C" __global__ void __launch_bounds__(THREADS) attention_backward_keys_values_##D##_##suffix(                         \
      BATCH_PARAMETERS, const T *gradient, const T *packed, const float *log_sums, const float *delta, T *packed_gradient) {   \
    backward_keys_values<T, D>(BATCH, gradient, packed, log_sums, delta, packed_gradient);                                     \
  }
#define INSTANTIATE_BOTH(D) INSTANTIATE(float, f32, D) INSTANTIATE(bf16, bf16, D)
INSTANTIATE_BOTH(32)
INSTANTIATE_BOTH(64)
INSTANTIATE_BOTH(128)
INSTANTIATE_BOTH(256)
INSTANTIATE_BOTH(512)
#ifndef __CUDA_ARCH_FEAT_SM90_ALL
INSTANTIATE_BOTH(272) // heads of 256 in tiles that fit a GPU with 99 KiB
#endif
