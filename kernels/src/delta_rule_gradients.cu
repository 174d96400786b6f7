// Gradients of the gated delta rule by chunks, from the records of forward and backward; formulas in delta_rule_chunks.cuh.
#include "delta_rule_chunks.cuh"

constexpr int THREADS = 512;

// Rows of a left operand, each times its factor.
template <int PARTS> __device__ __forceinline__ void scale_rows(const uint32_t (&from)[1][PARTS][4], const float (&factor)[2], uint32_t (&to)[1][PARTS][4]) {
#pragma unroll
  for (int i = 0; i < 4; i++) {
    float low = 0.0f, high = 0.0f;
#pragma unroll
    for (int p = 0; p < PARTS; p++) low += __uint_as_float(from[0][p][i] << 16), high += __uint_as_float(from[0][p][i] & 0xffff0000u);
    uint32_t parts[PARTS];
    split(low * factor[i % 2], high * factor[i % 2], parts);
#pragma unroll
    for (int p = 0; p < PARTS; p++) to[0][p][i] = parts[p];
  }
}

// A chunk's queries and keys of a head, with contributions of 32 columns of its value heads' states in sequence. A warp has 16 rows and 32 columns.
template <typename T> struct Gradients {
  static constexpr int PARTS = Parts<T>::INPUT, BUFFERS = PARTS == 1 ? 2 : 1;
  static constexpr int NUMBERS = PARTS * (2 * TILE + BUFFERS * RECORD);
  using Panel = Operand<PARTS, SLICE, PANEL, false>;
  using PanelTransposed = Operand<PARTS, SLICE, PANEL, true>;
  using StateTransposed = Operand<PARTS, SLICE, STATE, true>;
  using Rows = Operand<PARTS, MOST, 2 * TILE, false>;
  using Square = Operand<PARTS, CHUNK, SQUARE, false>;
  using SquareTransposed = Operand<PARTS, CHUNK, SQUARE, true>;

  bf16 *tile, *records;
  int first_row, first_column, rows[2];
  bool inside; // whether its columns are inside
  float queries[1][4][4], keys[1][4][4], scores[1][2][4], inner[1][2][4];

  __device__ __forceinline__ Gradients(bf16 *memory, const Heads &heads) : queries{}, keys{} {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    tile = memory, records = tile + 2 * PARTS * TILE;
    first_row = warp / 4 * 16, first_column = warp % 4 * 32;
    rows[0] = first_row + lane / 4, rows[1] = rows[0] + 8;
    inside = first_column < heads.key_dimension;
  }
  __device__ __forceinline__ int column(int n) const { return n * 8 + threadIdx.x % 4 * 2; }

  __device__ __forceinline__ void add_slice(const bf16 *record, const Factor (&of_rows)[2]) {
    const Panel updates(record), values(record + PARTS * PANEL), outputs(record + 2 * PARTS * PANEL);
    const StateTransposed state(record + 3 * PARTS * PANEL), state_gradient(record + PARTS * (3 * PANEL + STATE));
    const PanelTransposed others(record);
#pragma unroll
    for (int k = 0; k < SLICE; k += 16) {
      uint32_t left[1][PARTS][4], scaled[1][PARTS][4];
      const auto read = [&](const Panel &panel) {
#pragma unroll
        for (int p = 0; p < PARTS; p++) panel.load_left(left[0][p], panel.left(first_row), p, k);
      };
      read(outputs);
      product_step(scores, left, others, first_column / 2, k);
      scale_rows(left, {of_rows[0].into * of_rows[0].query, of_rows[1].into * of_rows[1].query}, scaled);
      if (inside) product_step(queries, scaled, state, first_column, k);
      read(values);
      product_step(inner, left, others, first_column / 2, k);
      scale_rows(left, {-of_rows[0].into * of_rows[0].key, -of_rows[1].into * of_rows[1].key}, scaled);
      if (inside) product_step(keys, scaled, state, first_column, k);
      read(updates);
      scale_rows(left, {of_rows[0].out * of_rows[0].key, of_rows[1].out * of_rows[1].key}, scaled);
      if (inside) product_step(keys, scaled, state_gradient, first_column, k);
    }
  }

  // N and -M with the factors of both tokens, after adding all slices of a value head.
  __device__ __forceinline__ void write_squares(bf16 *squares, const Factor *factors, const Factor (&of_rows)[2]) {
#pragma unroll
    for (int n = 0; n < 2; n++)
#pragma unroll
      for (int r = 0; r < 2; r++) {
        const int first = first_column / 2 + column(n);
        float own[2], of_inner[2];
#pragma unroll
        for (int j = 0; j < 2; j++) {
          const Factor &other = factors[first + j];
          const float since = first + j <= rows[r] ? of_rows[r].since(other) * other.key : 0.0f;
          own[j] = scores[0][n][2 * r + j] * of_rows[r].query * since;
          of_inner[j] = first + j < rows[r] ? -inner[0][n][2 * r + j] * of_rows[r].key * since : 0.0f;
        }
        uint32_t parts[2][PARTS];
        split(own[0], own[1], parts[0]);
        split(of_inner[0], of_inner[1], parts[1]);
#pragma unroll
        for (int p = 0; p < PARTS; p++)
#pragma unroll
          for (int i = 0; i < 2; i++) *reinterpret_cast<uint32_t *>(squares + (i * PARTS + p) * SQUARE + place<CHUNK>(rows[r], first)) = parts[i][p];
      }
  }
  __device__ __forceinline__ void add_squares(const bf16 *squares) {
    if (!inside) return;
    const bf16 *inner_squares = squares + PARTS * SQUARE;
    const Rows of_keys(tile + first_column / 64 * 64), of_queries(tile + TILE + first_column / 64 * 64);
    product<0>(queries, Square(squares), first_row, of_keys, first_column % 64, 0, first_row + 16);
    product<0>(keys, SquareTransposed(squares), first_row, of_queries, first_column % 64, first_row, CHUNK);
    product<0>(keys, Square(inner_squares), first_row, of_keys, first_column % 64, 0, first_row + 16);
    product<0>(keys, SquareTransposed(inner_squares), first_row, of_keys, first_column % 64, first_row, CHUNK);
  }

  // From the gradient of normalised vectors, times their factors, to that of the originals. `sums`: [64, 4].
  __device__ __forceinline__ void store_rows(T *to, const float (&own)[1][4][4], bool is_query, const Factor *factors, float *sums, const Chunk &chunk, const Heads &heads,
                                             int stride) const {
    float vectors[4][4], along[2] = {};
#pragma unroll
    for (int n = 0; n < 4; n++)
#pragma unroll
      for (int r = 0; r < 2; r++) {
        float low = 0.0f, high = 0.0f;
#pragma unroll
        for (int p = 0; p < PARTS; p++) {
          const uint32_t pair = *reinterpret_cast<const uint32_t *>(tile + (2 * p + is_query) * TILE + place<MOST>(rows[r], first_column + column(n)));
          low += __uint_as_float(pair << 16), high += __uint_as_float(pair & 0xffff0000u);
        }
        vectors[n][2 * r] = low, vectors[n][2 * r + 1] = high;
        along[r] += own[0][n][2 * r] * low + own[0][n][2 * r + 1] * high;
      }
    __syncthreads();
#pragma unroll
    for (int r = 0; r < 2; r++) {
      along[r] = lanes_sum<1, 2>(along[r]);
      if (threadIdx.x % 4 == 0) sums[rows[r] * 4 + first_column / 32] = along[r];
    }
    __syncthreads();
#pragma unroll
    for (int r = 0; r < 2; r++) {
      if (rows[r] >= chunk.count) continue;
      const Pack<float, 4> parts = load<4>(sums + rows[r] * 4);
      const float length = is_query ? factors[rows[r]].query * sqrtf((float)heads.key_dimension) : factors[rows[r]].key;
      const float sum = ((parts.at[0] + parts.at[1]) + (parts.at[2] + parts.at[3])) * length * length;
      T *line = to + (size_t)(chunk.row + rows[r]) * stride;
#pragma unroll
      for (int n = 0; n < 4; n++)
#pragma unroll
        for (int j = 0; j < 2; j++)
          if (first_column + column(n) + j < heads.key_dimension) line[first_column + column(n) + j] = from_float<T>(own[0][n][2 * r + j] - vectors[n][2 * r + j] * sum);
    }
  }
};

// Blocks: (chunks, key heads). Queries' and keys' columns of `convolved_gradient`, [rows, row_width].
template <typename T>
__device__ void gradients(const Prepared &prepared, const uint32_t *segments, const uint32_t *chunks, const bf16 *records, T *convolved_gradient, const Heads &heads) {
  using G = Gradients<T>;
  constexpr int ONE = G::PARTS * RECORD;
  extern __shared__ __align__(128) bf16 memory[];
  __shared__ Factor factors[2 * CHUNK];
  __shared__ float sums[CHUNK * 4];
  const int first_head = blockIdx.y * heads.sharing(), slices = heads.slices(), steps = heads.sharing() * slices;
  const size_t index = blockIdx.x;
  const Chunk chunk(Segment(segments, chunks[2 * index]), chunks[2 * index + 1]);
  G own(memory, heads);
  const auto copy_step = [&](int step) {
    const int head = first_head + step / slices;
    copy_image(own.records + step % G::BUFFERS * ONE, records + ((index * heads.value + first_head) * slices + step) * ONE, ONE);
    if (step % slices == 0)
      copy_image(reinterpret_cast<bf16 *>(factors + step / slices % 2 * CHUNK), reinterpret_cast<const bf16 *>(prepared.factors_of(heads, index, head)),
                 CHUNK * sizeof(Factor) / sizeof(bf16));
  };
  copy_step(0);
  copies_commit();
  copy_image(own.tile, prepared.tile_of<T>(heads, index, first_head), 2 * G::PARTS * TILE);
  for (int step = 0; step < steps; step++) {
    if (G::BUFFERS == 2 && step + 1 < steps) copy_step(step + 1);
    copies_commit();
    copies_wait<1>();
    __syncthreads();
    const Factor *of_head = factors + step / slices % 2 * CHUNK;
    const Factor of_rows[2] = {of_head[own.rows[0]], of_head[own.rows[1]]};
    if (step % slices == 0) {
#pragma unroll
      for (int n = 0; n < 2; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) own.scores[0][n][i] = own.inner[0][n][i] = 0.0f;
    }
    bf16 *record = own.records + step % G::BUFFERS * ONE;
    own.add_slice(record, of_rows);
    if (step % slices == slices - 1) { // the squares replace the record
      copies_wait<0>();
      __syncthreads();
      own.write_squares(record, of_head, of_rows);
      __syncthreads();
      own.add_squares(record);
    }
    __syncthreads();
    if (G::BUFFERS == 1 && step + 1 < steps) {
      copy_step(step + 1);
      copies_commit();
    }
  }
  const int stride = heads.row_width(), column = blockIdx.y * heads.key_dimension;
  own.store_rows(convolved_gradient + column, own.queries, true, factors, sums, chunk, heads, stride);
  own.store_rows(convolved_gradient + heads.key_width() + column, own.keys, false, factors, sums, chunk, heads, stride);
}

// One warp per row and value head: gradients of v and of b's logits, and the decrease of the product of state and gradient at this token, `falls`: [rows, value
// heads].
template <typename T>
__device__ void finish_values(const T *gradient, const T *convolved, const float *outputs, const float *updates, const float *values, const Gate *gates, T *convolved_gradient,
                              float *strengths, float *falls, const Heads &heads, int rows) {
  const int index = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32, lane = threadIdx.x % 32;
  if (index >= rows * heads.value) return;
  const size_t row = index / heads.value, head = index % heads.value, of_values = row * heads.value_width() + head * heads.value_dimension;
  const size_t of_row = row * heads.row_width() + 2 * heads.key_width() + head * heads.value_dimension;
  float correction = 0.0f, fall = 0.0f;
  for (int i = lane; i < heads.value_dimension; i += 32) {
    const float own = values[of_values + i];
    correction += own * updates[of_values + i];
    fall += to_float(gradient[of_values + i]) * outputs[of_values + i] - own * to_float(convolved[of_row + i]);
    convolved_gradient[of_row + i] = from_float<T>(own);
  }
  correction = warp_sum(correction);
  fall = warp_sum(fall);
  if (lane > 0) return;
  const float strength = gates[index].strength;
  strengths[index] = strength > 0.0f ? correction / strength * (1.0f - strength) : 0.0f;
  falls[index] = fall;
}

// Gradient of log a: the product of a chunk's last state with its gradient (`along` summed over slices) plus `falls` from a token to the chunk's end. One warp
// per chunk and value head. `packed`: [rows, 2 * value heads] of b's and the decay's logits; `sums`: likewise, of bias and A; f32.
template <typename T>
__device__ void finish_gates(const uint32_t *segments, const uint32_t *chunks, const Gate *gates, const float *strengths, const float *falls, const float *along, const T *decay,
                             T *packed, float *sums, const Heads &heads) {
  const Chunk chunk(Segment(segments, chunks[2 * blockIdx.x]), chunks[2 * blockIdx.x + 1]);
  const int head = blockIdx.y, lane = threadIdx.x;
  float after = 0.0f;
  for (int slice = 0; slice < heads.slices(); slice++) after += along[((size_t)blockIdx.x * heads.value + head) * heads.slices() + slice];
  for (int end = chunk.count; end > 0; end -= 32) {
    const int token = end - 1 - lane; // last first
    const size_t at = ((size_t)chunk.row + max(token, 0)) * heads.value + head;
    float sum = token >= 0 ? falls[at] : 0.0f;
#pragma unroll
    for (int distance = 1; distance < 32; distance *= 2) {
      const float before = __shfl_up_sync(0xffffffffu, sum, distance);
      if (lane >= distance) sum += before;
    }
    sum += after;
    after = __shfl_sync(0xffffffffu, sum, 31);
    if (token < 0) continue;
    const Gate gate = gates[at];
    const float by_step = -expf(to_float(decay[head])) * gate.slope * sum;
    const size_t to = ((size_t)chunk.row + token) * 2 * heads.value + head;
    packed[to] = from_float<T>(strengths[at]);
    packed[to + heads.value] = from_float<T>(by_step);
    sums[to] = by_step;
    sums[to + heads.value] = sum * gate.log_decay;
  }
}

extern "C" __global__ void delta_rule_gate_sums(const float *rows, float *sums, int count, int width) { sum_parts(rows, sums, count, width); }

#define INSTANTIATE(T, suffix)                                                                                                                    \
  extern "C" __global__ void __launch_bounds__(THREADS) delta_rule_gradients_##suffix(Factor *factors, bf16 *tiles, const uint32_t *segments,     \
                                                                                      const uint32_t *chunks, const bf16 *records,                \
                                                                                      T *convolved_gradient, HEADS) {                             \
    gradients<T>({factors, tiles, nullptr}, segments, chunks, records, convolved_gradient, {key, value, key_dimension, value_dimension});         \
  }                                                                                                                                               \
  extern "C" __global__ void delta_rule_finish_values_##suffix(const T *gradient, const T *convolved, const float *outputs, const float *updates, \
                                                               const float *values, const Gate *gates, T *convolved_gradient, float *strengths,   \
                                                               float *falls, HEADS, int rows) {                                                   \
    finish_values(gradient, convolved, outputs, updates, values, gates, convolved_gradient, strengths, falls,                                     \
                  {key, value, key_dimension, value_dimension}, rows);                                                                            \
  }                                                                                                                                               \
  extern "C" __global__ void delta_rule_finish_gates_##suffix(const uint32_t *segments, const uint32_t *chunks, const Gate *gates,                \
                                                              const float *strengths, const float *falls, const float *along, const T *decay,     \
                                                              T *packed, float *sums, HEADS) {                                                    \
    finish_gates(segments, chunks, gates, strengths, falls, along, decay, packed, sums, {key, value, key_dimension, value_dimension});            \
  }
INSTANTIATE(float, f32)
INSTANTIATE(bf16, bf16)
