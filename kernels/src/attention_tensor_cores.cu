// Causal attention over packed segments on tensor cores: bf16, head sizes that are multiples of 8 up to 256. attention.cu explains the loop over tiles.
//
// Tiles are 64 x 64; four warps share a tile, 16 rows each. Scores stay in registers: rounded to bf16, a score tile is the left operand of the next product.
// Query heads with a common key head share a block, which reads keys and values once.
#include "attention.cuh"
#include "vectors.cuh"
#include "warpgroup.cuh"

constexpr int TILE = TABLE_TILE, THREADS = 2 * TILE; // threads per tile

// A tile in shared memory: panels of 64 columns as in warpgroup.cuh, so adjacent rows of a column are in different banks.
template <int D> constexpr int TILE_NUMBERS = TILE * D;
constexpr int PANEL = TILE * 64;

// Offset of the 16-byte piece at a column, a multiple of 8.
__device__ __forceinline__ int place(int row, int column) { return column / 64 * PANEL + row * 64 + (column / 8 ^ row) % 8 * 8; }

// A matrix in global memory, and a tile in shared memory for some of its rows.
struct Source {
  const bf16 *from;
  int stride;
  bf16 *tile;
};

// Starts to fill tiles by `threads` threads, a multiple of 128: row r of each is row_of(r) of its source; zeros if that is negative or the column is beyond the
// head.
template <int D, int N, typename RowOf>
__device__ __forceinline__ void fill(const Source (&sources)[N], int dimension, int threads, RowOf row_of) {
  const int thread = threadIdx.x % threads, column = thread % (D / 8) * 8;
#pragma unroll 2
  for (int r = thread / (D / 8); r < TILE; r += threads / (D / 8)) {
    const long long row = row_of(r);
    const bool inside = row >= 0 && column < dimension;
#pragma unroll
    for (int i = 0; i < N; i++) {
      const Source &source = sources[i];
      copy_async(source.tile + place(r, column), inside ? source.from + row * source.stride + column : source.from, inside);
    }
  }
}

// Waits until tiles started by any thread are filled.
__device__ __forceinline__ void filled() {
  copies_done();
#ifdef HAS_WARPGROUPS
  show_to_products();
#endif
  __syncthreads();
}

// Starts out = 64 rows of a times all 64 rows of b; this warp's sixteen. Results are valid after `done`.
template <int D> __device__ __forceinline__ void products(const bf16 *a, const bf16 *b, float (&out)[8][4]) {
#ifdef HAS_WARPGROUPS
  products_start();
#pragma unroll
  for (int k = 0; k < D; k += 16) multiply_rows(out, describe(a + k / 64 * PANEL + k % 64, 16), describe(b + k / 64 * PANEL + k % 64, 16), k > 0);
  products_commit();
#else
  const int lane = threadIdx.x % 32, row = threadIdx.x % THREADS / 32 * 16 + lane % 16, column = lane / 16 * 8 + lane % 8;
#pragma unroll
  for (int n = 0; n < 8; n++)
#pragma unroll
    for (int i = 0; i < 4; i++) out[n][i] = 0.0f;
#pragma unroll
  for (int k = 0; k < D; k += 16) {
    uint32_t left[4];
    load_matrices(left, a + place(row, k + lane / 16 * 8));
#pragma unroll
    for (int n = 0; n < 4; n++) {
      uint32_t right[4];
      load_matrices(right, b + place(n * 16 + column, k + lane / 8 % 2 * 8));
      multiply(out[2 * n], left, right[0], right[1]);
      multiply(out[2 * n + 1], left, right[2], right[3]);
    }
  }
#endif
}

// This warp's scores as left operands.
struct Left {
  uint32_t at[4][4];

  __device__ __forceinline__ Left(const float (&scores)[8][4]) {
#pragma unroll
    for (int k = 0; k < 4; k++)
#pragma unroll
      for (int i = 0; i < 4; i++) at[k][i] = pack(scores[2 * k + i / 2][i % 2 * 2], scores[2 * k + i / 2][i % 2 * 2 + 1]);
  }
};

// Starts out += this warp's 16 x 64 scores times the 64 x D of b.
template <int D> __device__ __forceinline__ void mix(const Left &left, const bf16 *b, float (&out)[D / 8][4]) {
#ifdef HAS_WARPGROUPS
  products_start();
#pragma unroll
  for (int k = 0; k < 4; k++)
#pragma unroll
    for (int column = 0; column < D; column += 128) {
      constexpr int AT_ONCE = D < 128 ? D : 128;
      auto &some = reinterpret_cast<float (&)[AT_ONCE / 8][4]>(out[column / 8]);
      multiply_columns(some, left.at[k], describe(b + column / 64 * PANEL + k * 16 * 64, PANEL * sizeof(bf16)));
    }
  products_commit();
#else
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int k = 0; k < 4; k++)
#pragma unroll
    for (int n = 0; n < D / 16; n++) {
      uint32_t right[4];
      load_matrices_transposed(right, b + place(k * 16 + lane % 16, n * 16 + lane / 16 * 8));
      multiply(out[2 * n], left.at[k], right[0], right[1]);
      multiply(out[2 * n + 1], left.at[k], right[2], right[3]);
    }
#endif
}

// Waits for a result; the LATER newest products may still be running.
template <int LATER, int N> __device__ __forceinline__ void done(float (&out)[N][4]) {
#ifdef HAS_WARPGROUPS
  products_end<LATER>(out);
#endif
}

// Row and column of element i of result n, in the block's tile.
__device__ __forceinline__ int row_of_number(int i) { return threadIdx.x % THREADS / 32 * 16 + threadIdx.x % 32 / 4 + i / 2 * 8; }
__device__ __forceinline__ int column_of_number(int n, int i) { return n * 8 + threadIdx.x % 4 * 2 + i % 2; }

// Over the four lanes of a row.
__device__ __forceinline__ float row_sum(float x) { return lanes_sum<1, 2>(x); }
__device__ __forceinline__ float row_max(float x) { return lanes_max<1, 2>(x); }

// Masks scores with -inf.
__device__ __forceinline__ void hide(const QueryTile &tile, int start, float (&s)[8][4]) {
  if (start + TILE <= tile.place(0) && start > tile.place(TILE - 1) - tile.window) return;
#pragma unroll
  for (int n = 0; n < 8; n++)
#pragma unroll
    for (int i = 0; i < 4; i++)
      if (!tile.sees(row_of_number(i), start + column_of_number(n, i))) s[n][i] = -INFINITY;
}

// Turns scores into exponentials, after `scale`, less the running maxima; row r (0 or 1) of a lane has elements 2 r and 2 r + 1. `keep`: factor of older sums.
__device__ __forceinline__ void exponentials(float (&s)[8][4], float scale, float (&largest)[2], float (&total)[2], float (&keep)[2]) {
#pragma unroll
  for (int r = 0; r < 2; r++) {
    float now = -INFINITY;
#pragma unroll
    for (int n = 0; n < 8; n++) now = fmaxf(now, fmaxf(s[n][2 * r], s[n][2 * r + 1]));
    now = fmaxf(largest[r], row_max(now) * scale);
    keep[r] = power(largest[r] - now);
    largest[r] = now;
    float sum = 0.0f;
#pragma unroll
    for (int n = 0; n < 8; n++)
#pragma unroll
      for (int i = 2 * r; i < 2 * r + 2; i++) {
        s[n][i] = power(s[n][i] * scale - now);
        sum += s[n][i];
      }
    total[r] = total[r] * keep[r] + sum;
  }
}

// Writes rows that are inside, each times its factor.
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

// Keys and values for a query tile; with two BUFFERS the next pair is loaded during computation, with one after it.
template <int D, int BUFFERS> struct KeysValues {
  const Batch &batch;
  const QueryTile &tile;
  const bf16 *packed;
  bf16 *buffers;

  // The first tile with a visible key.
  __device__ __forceinline__ int first() const { return tile.first_key() / TILE * TILE; }
  __device__ __forceinline__ const bf16 *keys(int start) const { return buffers + start / TILE % BUFFERS * 2 * TILE_NUMBERS<D>; }
  __device__ __forceinline__ const bf16 *values(int start) const { return keys(start) + TILE_NUMBERS<D>; }
  __device__ __forceinline__ void fill_both(int start) const {
    if (start >= tile.keys) return;
    const auto row_of = [&](int r) { return start + r < tile.keys ? tile.segment.key_row(start + r) : -1LL; };
    bf16 *to = buffers + start / TILE % BUFFERS * 2 * TILE_NUMBERS<D>;
    const Source sources[] = {{packed + batch.key_column(tile.key_head), batch.width, to},
                              {packed + batch.value_column(tile.key_head), batch.width, to + TILE_NUMBERS<D>}};
    // A constant number of threads, so that the loop is unrolled.
    if (blockDim.x == THREADS) fill<D>(sources, batch.dimension, THREADS, row_of);
    else fill<D>(sources, batch.dimension, 2 * THREADS, row_of);
  }
  // After every thread has read the tiles.
  __device__ __forceinline__ void fill_again(int start) const {
    __syncthreads();
    fill_both(start);
  }
};

// This thread's query head in the block: one per 128 threads.
__device__ __forceinline__ int heads_of_block() { return blockDim.x / THREADS; }
__device__ __forceinline__ int number_of_head() { return threadIdx.x / THREADS; }
__device__ __forceinline__ int own_head() { return blockIdx.y * heads_of_block() + number_of_head(); }

// Also writes log2 of the sum of exponentials per (head, row). `sinks`: one score per head, or null.
template <int D, int BUFFERS> __device__ void forward(Batch batch, const bf16 *packed, bf16 *output, int stride, float *log_sums, const bf16 *sinks) {
  extern __shared__ __align__(1024) bf16 memory[];
  bf16 *queries = memory + number_of_head() * TILE_NUMBERS<D>;
  const QueryTile tile(batch, TILE, own_head());
  if (tile.count <= 0) return;
  const KeysValues<D, BUFFERS> others = {batch, tile, packed, memory + heads_of_block() * TILE_NUMBERS<D>};
  const Source own[] = {{packed + tile.head * batch.dimension, batch.width, queries}};
  fill<D>(own, batch.dimension, THREADS, [&](int r) { return r < tile.count ? tile.row(r) : -1LL; });
  others.fill_both(others.first());
  const Start start_of_row(sinks, tile.head);
  // One of the four lanes that share a row counts the sink.
  const float counted = threadIdx.x % 4 == 0 ? start_of_row.total : 0.0f;
  float largest[2] = {start_of_row.largest, start_of_row.largest}, total[2] = {counted, counted}, mixed[D / 8][4] = {};
  for (int start = others.first(); start < tile.keys; start += TILE) {
    filled();
    float s[8][4], keep[2];
    products<D>(queries, others.keys(start), s);
    if constexpr (BUFFERS == 2) others.fill_both(start + TILE);
    done<0>(s);
    hide(tile, start, s);
    exponentials(s, batch.scale * LOG2_E, largest, total, keep);
#pragma unroll
    for (int n = 0; n < D / 8; n++)
#pragma unroll
      for (int i = 0; i < 4; i++) mixed[n][i] *= keep[i / 2];
    mix<D>(s, others.values(start), mixed);
    done<0>(mixed);
    if constexpr (BUFFERS == 1) others.fill_again(start + TILE);
  }
  float inverse[2];
#pragma unroll
  for (int r = 0; r < 2; r++) {
    total[r] = row_sum(total[r]);
    inverse[r] = 1.0f / total[r];
    const int row = row_of_number(2 * r);
    if (threadIdx.x % 4 == 0 && row < tile.count) log_sums[(size_t)tile.head * batch.rows + tile.row(row)] = largest[r] + log2f(total[r]);
  }
  store<D>(output + (size_t)tile.row(0) * stride + tile.head * batch.dimension, stride, batch.dimension, tile.count, mixed, inverse);
}

// dQ, and per (head, row) delta = sum(P * dP) = sum(O * dO), which dK and dV need too.
template <int D, int BUFFERS>
__device__ void backward_queries(Batch batch, const bf16 *gradient, const bf16 *packed, const bf16 *output, int stride, const float *log_sums,
                                 float *delta, bf16 *packed_gradient) {
  extern __shared__ __align__(1024) bf16 memory[];
  bf16 *queries = memory + number_of_head() * 2 * TILE_NUMBERS<D>, *incoming = queries + TILE_NUMBERS<D>;
  const QueryTile tile(batch, TILE, own_head());
  if (tile.count <= 0) return;
  const KeysValues<D, BUFFERS> others = {batch, tile, packed, memory + heads_of_block() * 2 * TILE_NUMBERS<D>};
  const int column = tile.head * batch.dimension, out_width = batch.query_heads * batch.dimension;
  const Source sources[] = {{packed + column, batch.width, queries}, {gradient + column, out_width, incoming}};
  fill<D>(sources, batch.dimension, THREADS, [&](int r) { return r < tile.count ? tile.row(r) : -1LL; });
  others.fill_both(others.first());
  float sums[2] = {}, shared[2] = {}, result[D / 8][4] = {};
#pragma unroll
  for (int r = 0; r < 2; r++) {
    // Four lanes share a row.
    const int row = row_of_number(2 * r);
    const bool inside = row < tile.count;
    if (inside) {
      const bf16 *own = output + tile.row(row) * stride + column, *own_gradient = gradient + tile.row(row) * out_width + column;
      for (int c = threadIdx.x % 4 * 8; c < batch.dimension; c += 32) {
        const Pack<bf16, 8> a = load<8>(own + c), b = load<8>(own_gradient + c);
#pragma unroll
        for (int i = 0; i < 8; i++) shared[r] += to_float(a.at[i]) * to_float(b.at[i]);
      }
    }
    shared[r] = row_sum(shared[r]);
    const size_t at = (size_t)tile.head * batch.rows + tile.row(row);
    if (inside) sums[r] = log_sums[at];
    if (inside && threadIdx.x % 4 == 0) delta[at] = shared[r];
  }
  for (int start = others.first(); start < tile.keys; start += TILE) {
    const bf16 *keys = others.keys(start);
    filled();
    float s[8][4], changes[8][4];
    products<D>(queries, keys, s);
    products<D>(incoming, others.values(start), changes);
    if constexpr (BUFFERS == 2) others.fill_both(start + TILE);
    done<1>(s);
    hide(tile, start, s);
#pragma unroll
    for (int n = 0; n < 8; n++)
#pragma unroll
      for (int i = 0; i < 4; i++) s[n][i] = power(s[n][i] * (batch.scale * LOG2_E) - sums[i / 2]);
    done<0>(changes);
#pragma unroll
    for (int n = 0; n < 8; n++)
#pragma unroll
      for (int i = 0; i < 4; i++) s[n][i] *= changes[n][i] - shared[i / 2];
    mix<D>(s, keys, result);
    done<0>(result);
    if constexpr (BUFFERS == 1) others.fill_again(start + TILE);
  }
  const float scales[2] = {batch.scale, batch.scale};
  store<D>(packed_gradient + (size_t)tile.row(0) * batch.width + column, batch.width, batch.dimension, tile.count, result, scales);
}

// dK, dV or both of a key tile, over all rows and query heads that read it. Rows of the scores are keys here, columns queries.
template <int D, int BUFFERS, bool KEYS, bool VALUES>
__device__ void backward_keys_values(Batch batch, const bf16 *gradient, const bf16 *packed, const float *log_sums, const float *delta,
                                     bf16 *packed_gradient) {
  extern __shared__ __align__(1024) bf16 memory[];
  bf16 *keys = memory, *values = keys + TILE_NUMBERS<D>, *rows = values + TILE_NUMBERS<D>;
  float *statistics = reinterpret_cast<float *>(rows + 2 * BUFFERS * TILE_NUMBERS<D>);
  const KeyTile tile(batch, TILE);
  if (tile.count <= 0) return;
  const int out_width = batch.query_heads * batch.dimension, sharing = batch.query_heads / batch.key_heads;
  const size_t key_column = batch.key_column(tile.key_head), value_column = batch.value_column(tile.key_head);
  // All query tiles of each query head; with two BUFFERS the next tile is loaded during computation.
  constexpr int ALL_THREADS = KEYS && VALUES ? THREADS : 2 * THREADS;
  const int tiles = (tile.queries + TILE - 1) / TILE, steps = sharing * tiles;
  const auto row_of = [&](int query) { return query < tile.queries ? tile.row(query) : -1LL; };
  // The first step from this one on with a row that reads the keys.
  const auto next = [&](int step) {
    for (; batch.window < ALL_KEYS && step < steps; step++) {
      const long long row = row_of(step % tiles * TILE + threadIdx.x % TILE);
      if (__syncthreads_or(row >= 0 && tile.reached(tile.distance(batch.positions[row])))) break;
    }
    return step;
  };
  const auto queries_of = [&](int turn) { return rows + turn % BUFFERS * 2 * TILE_NUMBERS<D>; };
  // Logarithm of sums, delta and position of each query, 64 each.
  const auto statistics_of = [&](int turn) { return statistics + turn % BUFFERS * 3 * TILE; };
  const auto fill_step = [&](int step, int turn) {
    const int head = tile.key_head * sharing + step / tiles, start = step % tiles * TILE;
    const Source sources[] = {{packed + head * batch.dimension, batch.width, queries_of(turn)},
                              {gradient + head * batch.dimension, out_width, queries_of(turn) + TILE_NUMBERS<D>}};
    fill<D>(sources, batch.dimension, ALL_THREADS, [&](int r) { return row_of(start + r); });
    // The first half of 128 threads loads the sums, the other half delta, then the first half positions.
    const long long row = row_of(start + threadIdx.x % TILE);
    const auto bring = [&](int part, const float *from) {
      copy_number_async(statistics_of(turn) + part * TILE + threadIdx.x % TILE, row >= 0 ? from + row : from, row >= 0);
    };
    const int half = threadIdx.x / TILE;
    if (half < 2) bring(half, (half == 0 ? log_sums : delta) + (size_t)head * batch.rows);
    if (half == 0 && batch.window < ALL_KEYS) bring(2, reinterpret_cast<const float *>(batch.positions));
  };
  const Source own[] = {{packed + key_column, batch.width, keys}, {packed + value_column, batch.width, values}};
  fill<D>(own, batch.dimension, ALL_THREADS, [&](int r) { return r < tile.count ? tile.row(r) : -1LL; });
  int step = next(0);
  fill_step(step, 0);
  float key_gradient[KEYS ? D / 8 : 1][4] = {}, value_gradient[VALUES ? D / 8 : 1][4] = {};
  for (int turn = 0; step < steps; turn++) {
    const int start = step % tiles * TILE;
    const bf16 *queries = queries_of(turn), *incoming = queries + TILE_NUMBERS<D>;
    const float *sums = statistics_of(turn), *shared = sums + TILE;
    const int *positions = reinterpret_cast<const int *>(shared + TILE);
    filled();
    float p[8][4], changes[8][4];
    products<D>(keys, queries, p);
    if constexpr (KEYS) products<D>(values, incoming, changes);
    // Without waiting for it here, a lone product would be serialised (C7520).
    if constexpr (!KEYS) done<0>(p);
    step = next(step + 1);
    if (BUFFERS == 2 && step < steps) fill_step(step, turn + 1);
    if constexpr (KEYS) done<1>(p);
#pragma unroll
    for (int n = 0; n < 8; n++)
#pragma unroll
      for (int i = 0; i < 4; i++) p[n][i] = power(p[n][i] * (batch.scale * LOG2_E) - sums[column_of_number(n, i)]);
    if (start < TILE || start + TILE > tile.queries || batch.window < ALL_KEYS) {
#pragma unroll
      for (int n = 0; n < 8; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
          const int query = column_of_number(n, i), distance = batch.window < ALL_KEYS ? tile.distance(positions[query]) : 0;
          if (!tile.seen(row_of_number(i), start + query, distance)) p[n][i] = 0.0f;
        }
    }
    const Left left(p);
    if constexpr (KEYS) done<0>(changes);
    if constexpr (VALUES) mix<D>(left, incoming, value_gradient);
    if constexpr (KEYS) {
#pragma unroll
      for (int n = 0; n < 8; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) p[n][i] *= changes[n][i] - shared[column_of_number(n, i)];
      mix<D>(p, queries, key_gradient);
    }
    if constexpr (VALUES) done<0>(value_gradient);
    if constexpr (KEYS) done<0>(key_gradient);
    if constexpr (BUFFERS == 1) {
      __syncthreads();
      if (step < steps) fill_step(step, turn + 1);
    }
  }
  const float ones[2] = {1.0f, 1.0f}, scales[2] = {batch.scale, batch.scale};
  bf16 *target = packed_gradient + (size_t)tile.row(0) * batch.width;
  if constexpr (KEYS) store<D>(target + key_column, batch.width, batch.dimension, tile.count, key_gradient, scales);
  if constexpr (VALUES) store<D>(target + value_column, batch.width, batch.dimension, tile.count, value_gradient, ones);
}

// Heads above 128 columns leave registers for only one result: 128 threads compute dV, 128 dK.
template <int D> constexpr bool IS_WIDE = D > 128;

#define INSTANTIATE(D, BUFFERS, NAME)                                                                                          \
  extern "C" __global__ void __launch_bounds__(2 * THREADS, IS_WIDE<D> ? 1 : 2)                                                \
      attention_tensor_##NAME##_bf16(BATCH_PARAMETERS, const bf16 *packed, bf16 *output, int stride, float *log_sums,          \
                                  const bf16 *sinks) {                                                                         \
    forward<D, BUFFERS>(BATCH, packed, output, stride, log_sums, sinks);                                                       \
  }                                                                                                                            \
  extern "C" __global__ void __launch_bounds__(2 * THREADS) attention_backward_queries_tensor_##NAME##_bf16(                   \
      BATCH_PARAMETERS, const bf16 *gradient, const bf16 *packed, const bf16 *output, int stride, const float *log_sums,       \
      float *delta, bf16 *packed_gradient) {                                                                                   \
    backward_queries<D, BUFFERS>(BATCH, gradient, packed, output, stride, log_sums, delta, packed_gradient);                   \
  }                                                                                                                            \
  extern "C" __global__ void __launch_bounds__(IS_WIDE<D> ? 2 * THREADS : THREADS, IS_WIDE<D> ? 1 : 2)                         \
      attention_backward_keys_values_tensor_##NAME##_bf16(BATCH_PARAMETERS, const bf16 *gradient, const bf16 *packed,          \
                                                       const float *log_sums, const float *delta, bf16 *packed_gradient) {     \
    if constexpr (!IS_WIDE<D>) backward_keys_values<D, BUFFERS, true, true>(BATCH, gradient, packed, log_sums, delta, packed_gradient); \
    else if (threadIdx.x < THREADS)                                                                                            \
      backward_keys_values<D, BUFFERS, false, true>(BATCH, gradient, packed, log_sums, delta, packed_gradient);                \
    else                                                                                                                       \
      backward_keys_values<D, BUFFERS, true, false>(BATCH, gradient, packed, log_sums, delta, packed_gradient);                \
  }
INSTANTIATE(64, 2, 64)
INSTANTIATE(128, 2, 128)
#if __CUDA_ARCH__ >= 900
INSTANTIATE(256, 2, 256)
#else
INSTANTIATE(256, 1, 256_single) // in 163 KiB
#endif
