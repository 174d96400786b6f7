// The gated delta rule by chunks (delta_rule_chunks.cuh): first what is independent of the state for all chunks, then a segment's chunks in sequence, forwards
// or backwards.
#include "delta_rule_chunks.cuh"

constexpr int THREADS = 256;

// Row stride of an f32 matrix of 64 x 64 tokens.
constexpr int STRIDE = CHUNK + 4;

// to = factor a b for lower left quarters, SIZE x SIZE, of which a block has CHUNK / (2 SIZE).
template <int SIZE> __device__ __forceinline__ void multiply_quarters(float *to, const float *a, const float *b, float factor) {
  constexpr int SQUARES = CHUNK / (2 * SIZE), ROWS = SQUARES * SIZE * SIZE / THREADS;
  const int thread = threadIdx.x % (THREADS / SQUARES), column = thread % SIZE, row = thread / SIZE * ROWS;
  float sums[ROWS] = {};
#pragma unroll
  for (int k = 0; k < SIZE; k += 4) {
    float right[4];
#pragma unroll
    for (int i = 0; i < 4; i++) right[i] = b[(k + i) * STRIDE + column];
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
      const Pack<float, 4> left = load<4>(a + (row + r) * STRIDE + k);
#pragma unroll
      for (int i = 0; i < 4; i++) sums[r] += left.at[i] * right[i];
    }
  }
#pragma unroll
  for (int r = 0; r < ROWS; r++) to[(row + r) * STRIDE + column] = factor * sums[r];
}

// From the inverses of two consecutive squares of SIZE tokens, (I + A)^-1 of both: its lower left quarter is -(I + A22)^-1 A21 (I + A11)^-1.
template <int SIZE> __device__ __forceinline__ void join_inverses(const float *system, float *inverse, float *between) {
  const int first = threadIdx.x / (THREADS / (CHUNK / (2 * SIZE))) * 2 * SIZE, second = first + SIZE;
  multiply_quarters<SIZE>(between + first * STRIDE, system + second * STRIDE + first, inverse + first * STRIDE + first, 1.0f);
  __syncthreads();
  multiply_quarters<SIZE>(inverse + second * STRIDE + first, inverse + second * STRIDE + second, between + first * STRIDE, -1.0f);
  __syncthreads();
}

// Lower half of (I + A)^-1 by all threads; only reads A (`system`) below the diagonal. `between`: as large as A.
__device__ __forceinline__ void invert(const float *system, float *inverse, float *between) {
  constexpr int SIZE = 16;
  if (threadIdx.x < CHUNK) { // one column of a square
    const int first = threadIdx.x / SIZE * SIZE, column = threadIdx.x % SIZE;
    float x[SIZE];
#pragma unroll
    for (int row = 0; row < SIZE; row++) {
      x[row] = row == column ? 1.0f : 0.0f;
#pragma unroll
      for (int k = 0; k < row; k++) x[row] -= system[(first + row) * STRIDE + first + k] * x[k];
      inverse[(first + row) * STRIDE + first + column] = x[row];
      if (first % (2 * SIZE) == 0) inverse[(first + row) * STRIDE + first + SIZE + column] = 0.0f; // read as part of the square of twice the size
    }
  }
  __syncthreads();
  join_inverses<16>(system, inverse, between);
  join_inverses<32>(system, inverse, between);
}

// Blocks: (chunks, value heads), 256 threads; `chunks`: [chunks, 2] of segment and first token.
template <typename T>
__device__ void prepare(const Inputs<T> &inputs, const Heads &heads, const uint32_t *segments, const uint32_t *chunks, const Prepared &prepared, Gate *gates) {
  constexpr int INPUT = Parts<T>::INPUT, OWN = Parts<T>::OWN;
  extern __shared__ __align__(128) bf16 memory[];
  __shared__ Factor factors[CHUNK];
  __shared__ float lengths[2][CHUNK]; // of keys, of queries
  __shared__ double earlier;
  bf16 *tile = memory;
  float *system = reinterpret_cast<float *>(memory + 2 * INPUT * TILE), *inverse = reinterpret_cast<float *>(memory);
  const int head = blockIdx.y, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const size_t index = blockIdx.x;
  const Segment segment(segments, chunks[2 * index]);
  const Chunk chunk(segment, chunks[2 * index + 1]);
  bf16 *image = head % heads.sharing() == 0 ? prepared.tile_of<T>(heads, index, head) : nullptr;
  // Half a warp has a row of 128 elements.
#pragma unroll 4
  for (int r = threadIdx.x / 16; r < 2 * CHUNK; r += THREADS / 16) {
    const int is_query = r / CHUNK, token = r % CHUNK, column = threadIdx.x % 16 * 8;
    const T *from = inputs.convolved + (size_t)(chunk.row + token) * heads.row_width() + (is_query ? 0 : heads.key_width()) + heads.key_of(head) * heads.key_dimension + column;
    float own[8], squares = 0.0f;
    if (token < chunk.count && column + 8 <= heads.key_dimension && aligned(from, 8 * sizeof(T))) {
      const Pack<T, 8> read = load<8>(from);
#pragma unroll
      for (int i = 0; i < 8; i++) own[i] = to_float(read.at[i]);
    } else {
#pragma unroll
      for (int i = 0; i < 8; i++) own[i] = token < chunk.count && column + i < heads.key_dimension ? to_float(from[i]) : 0.0f;
    }
#pragma unroll
    for (int i = 0; i < 8; i++) squares += own[i] * own[i];
    squares = lanes_sum<8, 1>(squares);
    if (threadIdx.x % 16 == 0) lengths[is_query][token] = token < chunk.count ? inverse_length(squares) : 0.0f;
    uint32_t pairs[4][INPUT];
#pragma unroll
    for (int i = 0; i < 4; i++) split(own[2 * i], own[2 * i + 1], pairs[i]);
#pragma unroll
    for (int p = 0; p < INPUT; p++) {
      const int at = p * 2 * TILE + place<MOST>(r, column);
      const Pack<uint32_t, 4> piece = {pairs[0][p], pairs[1][p], pairs[2][p], pairs[3][p]};
      store<4>(reinterpret_cast<uint32_t *>(tile + at), piece);
      if (image) store<4>(reinterpret_cast<uint32_t *>(image + at), piece);
    }
  }
  // One token per thread. Sums of logarithms in f64, as differences of neighbours matter.
  double sum = 0.0;
  const int token = threadIdx.x;
  Gate gate = {};
  if (token < chunk.count) {
    gate = inputs.gate(heads, chunk.row + token, head);
    gates[(size_t)(chunk.row + token) * heads.value + head] = gate;
    sum = gate.log_decay;
  }
  if (token < CHUNK) {
#pragma unroll
    for (int distance = 1; distance < 32; distance *= 2) {
      const double before = __shfl_up_sync(0xffffffffu, sum, distance);
      if (lane >= distance) sum += before;
    }
    if (token == 31) earlier = sum;
  }
  __syncthreads();
  if (token < CHUNK) {
    if (token >= 32) sum += earlier;
    const float decayed = (float)sum;
    factors[token] = {gate.strength, expf(decayed), 0.0f, lengths[1][token] * rsqrtf((float)heads.key_dimension), lengths[0][token], decayed, (float)(sum - decayed)};
  }
  __syncthreads();
  if (token < CHUNK) {
    factors[token].out = factors[CHUNK - 1].since(factors[token]);
    prepared.factors_of(heads, index, head)[token] = factors[token];
  }
  // Four warps compute rows of K K^T, four of Q K^T.
  const int is_query = warp / 4, first = warp % 4 * 16;
  float products[1][8][4] = {};
  for (int panel = 0; panel < heads.key_dimension; panel += 64)
    product<0>(products, Operand<INPUT, MOST, 2 * TILE, false>(tile + panel), is_query * CHUNK + first, Operand<INPUT, MOST, 2 * TILE, true>(tile + panel), 0);
  bf16 *squares = prepared.squares_of<T>(heads, index, head);
#pragma unroll
  for (int i = 0; i < 4; i += 2) {
    const int row = first + lane / 4 + i / 2 * 8;
    const Factor &own = factors[row];
#pragma unroll
    for (int n = 0; n < 8; n++) {
      const int column = n * 8 + lane % 4 * 2;
      float found[2];
#pragma unroll
      for (int j = 0; j < 2; j++) {
        const Factor &other = factors[column + j];
        const bool inside = column + j < row + is_query;
        found[j] = inside ? products[0][n][i + j] * (is_query ? own.query : own.strength * own.key) * other.key * own.since(other) : 0.0f;
      }
      if (is_query) {
        uint32_t parts[OWN];
        split(found[0], found[1], parts);
#pragma unroll
        for (int p = 0; p < OWN; p++) *reinterpret_cast<uint32_t *>(squares + (OWN + p) * SQUARE + place<CHUNK>(row, column)) = parts[p];
      } else {
        store<2>(system + row * STRIDE + column, {found[0], found[1]});
      }
    }
  }
  __syncthreads();
  invert(system, inverse, inverse + CHUNK * STRIDE);
#pragma unroll 2
  for (int at = threadIdx.x * 8; at < SQUARE; at += THREADS * 8) {
    uint32_t pairs[4][OWN];
#pragma unroll
    for (int i = 0; i < 4; i++) {
      const int row = at / CHUNK, column = at % CHUNK + 2 * i;
      split(column <= row ? inverse[row * STRIDE + column] : 0.0f, column < row ? inverse[row * STRIDE + column + 1] : 0.0f, pairs[i]);
    }
#pragma unroll
    for (int p = 0; p < OWN; p++)
      store<4>(reinterpret_cast<uint32_t *>(squares + p * SQUARE + place<CHUNK>(at / CHUNK, at % CHUNK)), Pack<uint32_t, 4>{pairs[0][p], pairs[1][p], pairs[2][p], pairs[3][p]});
  }
}

// A block's shared memory for its 32 columns, and its copies of a chunk.
template <typename T> struct Columns {
  static constexpr int INPUT = Parts<T>::INPUT, OWN = Parts<T>::OWN;
  static constexpr int NUMBERS = 2 * INPUT * TILE + OWN * (2 * SQUARE + STATE + 2 * PANEL);
  using Rows = Operand<INPUT, MOST, 2 * TILE, false>; // keys, then queries
  using RowsTransposed = Operand<INPUT, MOST, 2 * TILE, true>;
  using Square = Operand<OWN, CHUNK, SQUARE, false>;
  using SquareTransposed = Operand<OWN, CHUNK, SQUARE, true>;
  using State = Operand<OWN, SLICE, STATE, false>;
  using Panel = Operand<OWN, SLICE, PANEL, false>;

  const Heads &heads;
  const Prepared &prepared;
  bf16 *tile, *inverse, *scores, *state, *panels[2];
  Factor *factors;
  int head, slice, warp, lane;
  bool paired; // two values of a row are accessed together

  __device__ __forceinline__ Columns(const Heads &heads, const Prepared &prepared, bf16 *memory, Factor *factors) : heads(heads), prepared(prepared), factors(factors) {
    tile = memory;
    inverse = tile + 2 * INPUT * TILE;
    scores = inverse + OWN * SQUARE;
    state = scores + OWN * SQUARE;
    for (int i = 0; i < 2; i++) panels[i] = state + OWN * (STATE + i * PANEL);
    slice = blockIdx.x, head = blockIdx.y, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    paired = heads.value_dimension % 2 == 0;
  }

  // A warp has 16 of a chunk's rows, 32 of the state's, and 16 columns: row of element i of a result, first column of result n.
  __device__ __forceinline__ int first_row() const { return warp / 2 * 16; }
  __device__ __forceinline__ int first_column() const { return warp % 2 * 16; }
  __device__ __forceinline__ int row(int i) const { return first_row() + lane / 4 + i / 2 * 8; }
  __device__ __forceinline__ int state_row(int m, int i) const { return warp / 2 * 32 + m * 16 + lane / 4 + i / 2 * 8; }
  __device__ __forceinline__ int column(int n) const { return first_column() + n * 8 + lane % 4 * 2; }
  // Within the head's values.
  __device__ __forceinline__ int value_column(int n) const { return slice * SLICE + column(n); }

  __device__ __forceinline__ void copy_rows(size_t chunk, int is_query) const {
    const bf16 *from = prepared.tile_of<T>(heads, chunk, head);
#pragma unroll
    for (int p = 0; p < INPUT; p++) copy_image(tile + (2 * p + is_query) * TILE, from + (2 * p + is_query) * TILE, TILE);
  }
  __device__ __forceinline__ void copy_inverse(size_t chunk) const { copy_image(inverse, prepared.squares_of<T>(heads, chunk, head), OWN * SQUARE); }
  __device__ __forceinline__ void copy_scores(size_t chunk) const { copy_image(scores, prepared.squares_of<T>(heads, chunk, head) + OWN * SQUARE, OWN * SQUARE); }
  __device__ __forceinline__ void copy_factors(size_t chunk) const {
    const bf16 *from = reinterpret_cast<const bf16 *>(prepared.factors_of(heads, chunk, head));
    copy_image(reinterpret_cast<bf16 *>(factors), from, CHUNK * sizeof(Factor) / sizeof(bf16));
  }

  // Writes a chunk's elements in parts, to a panel in shared memory or to a record.
  template <int PARTS> __device__ __forceinline__ void write(bf16 *to, const float (&numbers)[2][4], const float (&factor)[2]) const {
#pragma unroll
    for (int n = 0; n < 2; n++)
#pragma unroll
      for (int r = 0; r < 2; r++) {
        uint32_t parts[PARTS];
        split(numbers[n][2 * r] * factor[r], numbers[n][2 * r + 1] * factor[r], parts);
#pragma unroll
        for (int p = 0; p < PARTS; p++) *reinterpret_cast<uint32_t *>(to + p * PANEL + place<SLICE>(row(2 * r), column(n))) = parts[p];
      }
  }
  __device__ __forceinline__ void write_state(const float (&numbers)[2][2][4]) const {
#pragma unroll
    for (int m = 0; m < 2; m++)
#pragma unroll
      for (int n = 0; n < 2; n++)
#pragma unroll
        for (int r = 0; r < 2; r++) {
          uint32_t parts[OWN];
          split(numbers[m][n][2 * r], numbers[m][n][2 * r + 1], parts);
#pragma unroll
          for (int p = 0; p < OWN; p++) *reinterpret_cast<uint32_t *>(state + p * STATE + place<SLICE>(state_row(m, 2 * r), column(n))) = parts[p];
        }
  }

  __device__ __forceinline__ bf16 *record(bf16 *records, size_t chunk) const { return records + ((chunk * heads.value + head) * heads.slices() + slice) * INPUT * RECORD; }
  // Records the largest parts of the state in shared memory.
  __device__ __forceinline__ void record_state(bf16 *to) const {
    for (int at = threadIdx.x * 8; at < INPUT * STATE; at += THREADS * 8) store<8>(to + at, load<8>(state + at));
  }

  // Adds or writes a state in global memory.
  __device__ __forceinline__ void add_state(const float *from, float (&numbers)[2][2][4]) const {
    each(numbers, [&](float &number, size_t at) { number += from[at]; });
  }
  __device__ __forceinline__ void store_state(float *to, float (&numbers)[2][2][4]) const {
    each(numbers, [&](float &number, size_t at) { to[at] = number; });
  }
  template <typename Use> __device__ __forceinline__ void each(float (&numbers)[2][2][4], Use use) const {
#pragma unroll
    for (int m = 0; m < 2; m++)
#pragma unroll
      for (int n = 0; n < 2; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
          const int row = state_row(m, i), column = value_column(n) + i % 2;
          if (row < heads.key_dimension && column < heads.value_dimension) use(numbers[m][n][i], (size_t)row * heads.value_dimension + column);
        }
  }

  // A chunk's values of a head, from rows `stride` apart.
  template <typename N> __device__ __forceinline__ void read(float (&numbers)[2][4], const N *from, int stride, const Chunk &chunk) const {
#pragma unroll
    for (int r = 0; r < 2; r++) {
      const N *line = from + (size_t)(chunk.row + row(2 * r)) * stride;
      const bool inside = row(2 * r) < chunk.count;
#pragma unroll
      for (int n = 0; n < 2; n++) {
        const int column = value_column(n);
        float *to = numbers[n] + 2 * r;
        to[0] = to[1] = 0.0f;
        if (paired) {
          if (!inside || column >= heads.value_dimension) continue;
          const Pack<N, 2> pair = load<2>(line + column);
          to[0] = to_float(pair.at[0]), to[1] = to_float(pair.at[1]);
        } else if (inside) {
          to[0] = value_at(line, column, heads.value_dimension), to[1] = value_at(line, column + 1, heads.value_dimension);
        }
      }
    }
  }
  template <typename N> __device__ __forceinline__ void store_rows(N *to, const float (&numbers)[2][4], const Chunk &chunk) const {
#pragma unroll
    for (int r = 0; r < 2; r++) {
      N *line = to + (size_t)(chunk.row + row(2 * r)) * heads.value_width() + head * heads.value_dimension;
      if (row(2 * r) >= chunk.count) continue;
#pragma unroll
      for (int n = 0; n < 2; n++) {
        const int column = value_column(n);
        const Pack<N, 2> pair = {from_float<N>(numbers[n][2 * r]), from_float<N>(numbers[n][2 * r + 1])};
        if (paired) {
          if (column < heads.value_dimension) store<2>(line + column, pair);
        } else {
          for (int i = 0; i < 2; i++)
            if (column + i < heads.value_dimension) line[column + i] = pair.at[i];
        }
      }
    }
  }

  // Prefetches what is later copied of a chunk.
  __device__ __forceinline__ void prefetch_chunk(size_t chunk) const {
    const bf16 *rows = prepared.tile_of<T>(heads, chunk, head), *squares = prepared.squares_of<T>(heads, chunk, head);
    for (int at = threadIdx.x * 64; at < 2 * INPUT * TILE; at += THREADS * 64) prefetch(rows + at);
    for (int at = threadIdx.x * 64; at < 2 * OWN * SQUARE; at += THREADS * 64) prefetch(squares + at);
  }

  // d += K (or K and Q) times the state.
  template <int M> __device__ __forceinline__ void by_state(float (&d)[M][2][4]) const {
    product<CHUNK>(d, Rows(tile), first_row(), State(state), first_column());
    if (heads.key_dimension > 64) product<CHUNK>(d, Rows(tile + 64), first_row(), State(state + 64 * SLICE), first_column());
  }

  // A thread's elements of the state are adjacent to its neighbours', for 16-byte accesses.
  __device__ __forceinline__ float *end_of(float *ends, size_t chunk) const { return ends + ((chunk * heads.value + head) * heads.slices() + slice) * STATE + threadIdx.x * 4; }
};

// Blocks: (slices of columns, value heads, segments). Prompts (`completions` 0), then those that continue from their states. `states`: [segments, state_width],
// written if others continue from them, or all (`keeps`). For the gradient `output` is f32, and U is written too, `updates`: [rows, value_width], with the
// records.
template <typename T, typename O>
__device__ void forward(const T *convolved, const Prepared &prepared, const uint32_t *segments, const uint32_t *owners, const uint32_t *first_chunks, float *states, O *output,
                        float *updates, bf16 *records, float *ends, const Heads &heads, int completions, int keeps) {
  using C = Columns<T>;
  extern __shared__ __align__(128) bf16 memory[];
  __shared__ Factor factors[CHUNK];
  const Segment segment(segments, blockIdx.z);
  if ((segment.prefix_length > 0) != (completions > 0)) return;
  const C own(heads, prepared, memory, factors);
  const size_t of_head = own.head * heads.state(), width = heads.value * heads.state(), first = first_chunks[blockIdx.z];
  float state[2][2][4] = {};
  if (completions) own.add_state(states + owners[segment.prefix] * width + of_head, state);
  own.write_state(state);
  own.copy_factors(first);
  own.copy_rows(first, 0);
  own.copy_rows(first, 1);
  own.copy_inverse(first);
  copies_commit();
  own.copy_scores(first);
  copies_commit();
  const int chunks = (segment.length + CHUNK - 1) / CHUNK;
  for (int turn = 0; turn < chunks; turn++) {
    const size_t index = first + turn;
    const bool goes_on = turn + 1 < chunks;
    const Chunk chunk(segment, turn * CHUNK);
    float values[2][4];
    own.read(values, convolved + 2 * heads.key_width() + own.head * heads.value_dimension, heads.row_width(), chunk);
    if (goes_on) own.prefetch_chunk(index + 1);
    copies_wait<1>();
    __syncthreads();
    if (records) own.record_state(own.record(records, index) + 3 * C::INPUT * PANEL);
    const Factor of_rows[2] = {factors[own.row(0)], factors[own.row(2)]};
    const float all = factors[CHUNK - 1].into;
    float products[2][2][4] = {}; // K S, Q S
    own.by_state(products);
#pragma unroll
    for (int n = 0; n < 2; n++)
#pragma unroll
      for (int i = 0; i < 4; i++) values[n][i] -= of_rows[i / 2].into * of_rows[i / 2].key * products[0][n][i];
    own.template write<C::OWN>(own.panels[0], values, {of_rows[0].strength, of_rows[1].strength});
    __syncthreads();
    if (goes_on) {
      own.copy_factors(index + 1);
      own.copy_rows(index + 1, 1);
    }
    copies_commit();
    float found[1][2][4] = {};
    product<0>(found, typename C::Square(own.inverse), own.first_row(), typename C::Panel(own.panels[0]), own.first_column(), 0, own.first_row() + 16);
    own.template write<C::OWN>(own.panels[1], found[0], {1.0f, 1.0f});
    if (records) own.template write<C::INPUT>(own.record(records, index), found[0], {1.0f, 1.0f});
    if (updates) own.store_rows(updates, found[0], chunk);
    copies_wait<1>();
    __syncthreads();
    if (goes_on) own.copy_inverse(index + 1);
    own.template write<C::OWN>(own.panels[0], found[0], {of_rows[0].out * of_rows[0].key, of_rows[1].out * of_rows[1].key});
    __syncthreads();
#pragma unroll
    for (int m = 0; m < 2; m++)
#pragma unroll
      for (int n = 0; n < 2; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) state[m][n][i] *= all;
    product<16>(state, typename C::RowsTransposed(own.tile), own.warp / 2 * 32, typename C::Panel(own.panels[0]), own.first_column());
    own.write_state(state);
    if (records) {
      float *to = own.end_of(ends, index);
#pragma unroll
      for (int n = 0; n < 4; n++) store<4>(to + n * 4 * THREADS, *reinterpret_cast<const Pack<float, 4> *>(state[n / 2][n % 2]));
    }
    __syncthreads();
    if (goes_on) own.copy_rows(index + 1, 0);
    copies_commit();
#pragma unroll
    for (int n = 0; n < 2; n++)
#pragma unroll
      for (int i = 0; i < 4; i++) found[0][n][i] = of_rows[i / 2].into * of_rows[i / 2].query * products[1][n][i];
    product<0>(found, typename C::Square(own.scores), own.first_row(), typename C::Panel(own.panels[1]), own.first_column(), 0, own.first_row() + 16);
    own.store_rows(output, found[0], chunk);
    __syncthreads();
    if (goes_on) own.copy_scores(index + 1);
    copies_commit();
  }
  if (keeps || segment.readers > 0) own.store_state(states + blockIdx.z * width + of_head, state);
}

// Completions (1), then prompts, whose last state gets the sum of their gradients. `states`: [segments, state_width], gradients of the states that completions
// start from; `values`: [rows, value_width]; `along`: [chunks, value heads, slices], products of chunks' last states with their gradients.
template <typename T>
__device__ void backward(const T *gradient, const Prepared &prepared, const uint32_t *segments, const uint32_t *first_chunks, float *states, float *values, bf16 *records,
                         float *ends, float *along, const Heads &heads, int completions) {
  using C = Columns<T>;
  extern __shared__ __align__(128) bf16 memory[];
  __shared__ Factor factors[CHUNK];
  __shared__ float of_warps[THREADS / 32];
  const Segment segment(segments, blockIdx.z);
  if ((segment.prefix_length > 0) != (completions > 0)) return;
  const C own(heads, prepared, memory, factors);
  const size_t of_head = own.head * heads.state(), width = heads.value * heads.state();
  float state[2][2][4] = {};
  for (int reader = blockIdx.z + 1, rows = 0; rows < segment.readers; reader++) {
    own.add_state(states + reader * width + of_head, state);
    rows += Segment(segments, reader).length;
  }
  own.write_state(state);
  const int chunks = (segment.length + CHUNK - 1) / CHUNK;
  const size_t last = first_chunks[blockIdx.z] + chunks - 1;
  own.copy_factors(last);
  own.copy_rows(last, 0);
  own.copy_scores(last);
  own.copy_inverse(last);
  copies_commit();
  own.copy_rows(last, 1);
  copies_commit();
  for (int turn = 0; turn < chunks; turn++) {
    const size_t index = last - turn;
    const bool goes_on = turn + 1 < chunks;
    const Chunk chunk(segment, (chunks - 1 - turn) * CHUNK);
    float outputs[2][4];
    own.read(outputs, gradient + own.head * heads.value_dimension, heads.value_width(), chunk);
    float with_end = 0.0f;
    const float *end = own.end_of(ends, index);
#pragma unroll
    for (int n = 0; n < 4; n++) {
      const Pack<float, 4> numbers = load<4>(end + n * 4 * THREADS);
#pragma unroll
      for (int i = 0; i < 4; i++) with_end += numbers.at[i] * state[n / 2][n % 2][i];
    }
    if (goes_on) own.prefetch_chunk(index - 1);
    copies_wait<1>();
    __syncthreads();
    bf16 *record = own.record(records, index);
    own.record_state(record + C::INPUT * (3 * PANEL + STATE));
    const Factor of_rows[2] = {factors[own.row(0)], factors[own.row(2)]};
    const float all = factors[CHUNK - 1].into;
    own.template write<C::INPUT>(own.panels[1], outputs, {1.0f, 1.0f});
    own.template write<C::INPUT>(record + 2 * C::INPUT * PANEL, outputs, {1.0f, 1.0f});
    float found[1][2][4] = {}; // K dS', E, dV
    own.by_state(found);
    with_end = warp_sum(with_end);
    if (own.lane == 0) of_warps[own.warp] = with_end;
#pragma unroll
    for (int n = 0; n < 2; n++)
#pragma unroll
      for (int i = 0; i < 4; i++) found[0][n][i] *= of_rows[i / 2].out * of_rows[i / 2].key;
    __syncthreads();
    product<0>(found, typename C::SquareTransposed(own.scores), own.first_row(), Operand<C::INPUT, SLICE, PANEL, false>(own.panels[1]), own.first_column(), own.first_row(), CHUNK);
    own.template write<C::OWN>(own.panels[0], found[0], {1.0f, 1.0f});
    if (threadIdx.x == 0) {
      float sum = 0.0f;
      for (int other = 0; other < THREADS / 32; other++) sum += of_warps[other];
      along[(index * heads.value + own.head) * heads.slices() + own.slice] = sum;
    }
    __syncthreads();
    if (goes_on) {
      own.copy_factors(index - 1);
      own.copy_scores(index - 1);
    }
    copies_commit();
    own.template write<C::OWN>(own.panels[1], outputs, {of_rows[0].into * of_rows[0].query, of_rows[1].into * of_rows[1].query});
#pragma unroll
    for (int n = 0; n < 2; n++)
#pragma unroll
      for (int i = 0; i < 4; i++) found[0][n][i] = 0.0f;
    product<0>(found, typename C::SquareTransposed(own.inverse), own.first_row(), typename C::Panel(own.panels[0]), own.first_column(), own.first_row(), CHUNK);
#pragma unroll
    for (int n = 0; n < 2; n++)
#pragma unroll
      for (int i = 0; i < 4; i++) found[0][n][i] *= of_rows[i / 2].strength;
    own.template write<C::INPUT>(record + C::INPUT * PANEL, found[0], {1.0f, 1.0f});
    own.store_rows(values, found[0], chunk);
    copies_wait<1>();
    __syncthreads();
    if (goes_on) own.copy_inverse(index - 1);
    own.template write<C::OWN>(own.panels[0], found[0], {-of_rows[0].into * of_rows[0].key, -of_rows[1].into * of_rows[1].key});
    __syncthreads();
#pragma unroll
    for (int m = 0; m < 2; m++)
#pragma unroll
      for (int n = 0; n < 2; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) state[m][n][i] *= all;
    product<16>(state, typename C::RowsTransposed(own.tile), own.warp / 2 * 32, typename C::Panel(own.panels[0]), own.first_column());
    product<16>(state, typename C::RowsTransposed(own.tile + TILE), own.warp / 2 * 32, typename C::Panel(own.panels[1]), own.first_column());
    own.write_state(state);
    __syncthreads();
    if (goes_on) own.copy_rows(index - 1, 0);
    copies_commit();
    if (goes_on) own.copy_rows(index - 1, 1);
    copies_commit();
  }
  if (completions) own.store_state(states + blockIdx.z * width + of_head, state);
}

// Blocks per multiprocessor, by shared memory.
template <typename T> constexpr int BLOCKS = Parts<T>::INPUT == 1 ? 2 : 1;

#define PREPARED Factor *factors, bf16 *tiles, bf16 *squares
#define INSTANTIATE(T, suffix)                                                                                                                                   \
  extern "C" __global__ void __launch_bounds__(THREADS) delta_rule_chunks_##suffix(INPUTS(T), const uint32_t *segments, const uint32_t *chunks, PREPARED,        \
                                                                                    Gate *gates, HEADS) {                                                        \
    prepare<T>({convolved, packed, decay, bias, stride, column}, {key, value, key_dimension, value_dimension}, segments, chunks,                                 \
               {factors, tiles, squares}, gates);                                                                                                                \
  }                                                                                                                                                              \
  extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS<T>)                                                                                               \
      delta_rule_forward_##suffix(const T *convolved, PREPARED, const uint32_t *segments, const uint32_t *owners, const uint32_t *first_chunks,                  \
                                  float *states, T *output, HEADS, int completions, int keeps) {                                                                 \
    forward<T, T>(convolved, {factors, tiles, squares}, segments, owners, first_chunks, states, output, nullptr, nullptr, nullptr,                               \
                  {key, value, key_dimension, value_dimension}, completions, keeps);                                                                             \
  }                                                                                                                                                              \
  extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS<T>)                                                                                               \
      delta_rule_recorded_##suffix(const T *convolved, PREPARED, const uint32_t *segments, const uint32_t *owners, const uint32_t *first_chunks,                 \
                                float *states, float *output, float *updates, bf16 *records, float *ends, HEADS, int completions) {                              \
    forward<T, float>(convolved, {factors, tiles, squares}, segments, owners, first_chunks, states, output, updates, records, ends,                              \
                      {key, value, key_dimension, value_dimension}, completions, 0);                                                                             \
  }                                                                                                                                                              \
  extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS<T>)                                                                                               \
      delta_rule_backward_##suffix(const T *gradient, PREPARED, const uint32_t *segments, const uint32_t *first_chunks, float *states, float *values,            \
                                   bf16 *records, float *ends, float *along, HEADS, int completions) {                                                           \
    backward<T>(gradient, {factors, tiles, squares}, segments, first_chunks, states, values, records, ends, along, {key, value, key_dimension, value_dimension}, \
                completions);                                                                                                                                    \
  }
INSTANTIATE(float, f32)
INSTANTIATE(bf16, bf16)
