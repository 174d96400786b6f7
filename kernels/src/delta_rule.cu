// The gated delta rule (delta_rule.rs): S' = a S, u = b (v - S'^T k), S = S' + k u^T, output S^T q; S: [key dimension, value dimension], a state a value head.
// A column of S depends on no other, and a row only on u: where u is being computed, a block has 32 columns, and where it is known, 32 rows. A lane has one of
// them, of which each warp has 32 numbers in registers; heads of 128 numbers at most. Sums are over four warps, in a fixed order.
#include "segments.cuh"
#include "vectors.cuh"

constexpr int MOST = 128, SLICE = 32, WARPS = MOST / SLICE;

struct Heads {
  int key, value, key_dimension, value_dimension;

  __device__ __forceinline__ int key_width() const { return key * key_dimension; }
  __device__ __forceinline__ int value_width() const { return value * value_dimension; }
  __device__ __forceinline__ int row_width() const { return 2 * key_width() + value_width(); }
  __device__ __forceinline__ size_t state() const { return (size_t)key_dimension * value_dimension; }
  // The key head of a value head.
  __device__ __forceinline__ int key_of(int head) const { return head / (value / key); }
};

// Of a row and value head: b, the logarithm of a, the slope of softplus, and the product of query and key.
struct alignas(16) Gate {
  float strength, log_decay, slope, product;
};

// A head's token as read: queries and keys before they are normalised, b's and the decay's numbers.
template <typename T> struct Inputs {
  const T *convolved, *packed; // [rows, row_width]; [rows, stride], the numbers from `column` on
  const T *decay, *bias;       // [value heads]
  int stride, column;
};

// By all threads of a block of MOST: the normalised query and key, a thread a number, and the gate.
template <typename T> __device__ __forceinline__ void prepare(const Inputs<T> &inputs, const Heads &heads, int row, int head, float &query, float &key, Gate &gate) {
  const int i = threadIdx.x, column = heads.key_of(head) * heads.key_dimension + i;
  const T *own = inputs.convolved + (size_t)row * heads.row_width();
  const bool inside = i < heads.key_dimension;
  query = inside ? to_float(own[column]) : 0.0f;
  key = inside ? to_float(own[heads.key_width() + column]) : 0.0f;
  query *= rsqrtf(block_sum(query * query) + 1e-6f) * rsqrtf((float)heads.key_dimension);
  key *= rsqrtf(block_sum(key * key) + 1e-6f);
  const T *numbers = inputs.packed + (size_t)row * inputs.stride + inputs.column;
  const float x = to_float(numbers[heads.value + head]) + to_float(inputs.bias[head]);
  gate.strength = sigmoid(to_float(numbers[head]));
  gate.log_decay = -expf(to_float(inputs.decay[head])) * (fmaxf(x, 0.0f) + log1pf(expf(-fabsf(x))));
  gate.slope = sigmoid(x);
  gate.product = block_sum(query * key);
}

// Blocks: (rows, value heads). `unit`: [rows, 2 * key_width] of normalised queries and keys; `gates`: [rows, value heads].
template <typename T> __device__ void prepare_rows(const Inputs<T> &inputs, const Heads &heads, float *unit, Gate *gates) {
  const int row = blockIdx.x, head = blockIdx.y;
  float query, key;
  Gate gate;
  prepare(inputs, heads, row, head, query, key, gate);
  if (threadIdx.x == 0) gates[(size_t)row * heads.value + head] = gate;
  if (head % (heads.value / heads.key) != 0 || threadIdx.x >= heads.key_dimension) return;
  float *to = unit + (size_t)row * 2 * heads.key_width() + heads.key_of(head) * heads.key_dimension + threadIdx.x;
  to[0] = query;
  to[heads.key_width()] = key;
}

// A block's 32 columns (or rows) of a state: what a lane of a warp has of it.
struct Slice {
  float at[SLICE];

  __device__ __forceinline__ void zero() {
#pragma unroll
    for (int n = 0; n < SLICE; n++) at[n] = 0.0f;
  }

  // `step`: between a lane's numbers, of which `count` are inside from the first on; a lane outside has none.
  __device__ __forceinline__ void add(const float *from, size_t step, int count) {
#pragma unroll
    for (int n = 0; n < SLICE; n++)
      if (n < count) at[n] += from[n * step];
  }

  // Without a sum, so that nothing waits for the numbers before they are used.
  __device__ __forceinline__ void read(const float *from, size_t step, int count) {
#pragma unroll
    for (int n = 0; n < SLICE; n++) at[n] = n < count ? from[n * step] : 0.0f;
  }

  __device__ __forceinline__ void write(float *to, size_t step, int count) const {
#pragma unroll
    for (int n = 0; n < SLICE; n++)
      if (n < count) to[n * step] = at[n];
  }
};

// Where a thread's numbers of a head's state are: columns (a lane has one, a warp 32 rows of it), or rows.
template <bool COLUMNS> struct Place {
  int line, first, count; // the lane's column or row; the first of the warp's numbers in it, and how many there are
  size_t offset, step;

  __device__ __forceinline__ Place(const Heads &heads, int slice) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int lines = COLUMNS ? heads.value_dimension : heads.key_dimension, numbers = COLUMNS ? heads.key_dimension : heads.value_dimension;
    line = slice * SLICE + lane;
    first = warp * SLICE;
    count = line < lines ? max(0, min(SLICE, numbers - first)) : 0;
    step = COLUMNS ? heads.value_dimension : 1;
    offset = COLUMNS ? (size_t)first * heads.value_dimension + line : (size_t)line * heads.value_dimension + first;
  }
};

// Vectors of a token, of three tokens in turn: one is read, the next is written, and of the one before slow warps may read.
template <int VECTORS> struct alignas(16) Tokens {
  float at[3][VECTORS][MOST];
};

// What four warps add up, of two tokens in turn.
struct Partial {
  float2 at[2][WARPS][32];

  __device__ __forceinline__ float2 sum(int token) const {
    float2 sum = at[token % 2][0][threadIdx.x % 32];
#pragma unroll
    for (int warp = 1; warp < WARPS; warp++) {
      const float2 other = at[token % 2][warp][threadIdx.x % 32];
      sum.x += other.x;
      sum.y += other.y;
    }
    return sum;
  }
};

__device__ __forceinline__ float number_at(const float *vector, int width) { return (int)threadIdx.x < width ? vector[threadIdx.x] : 0.0f; }
template <typename T> __device__ __forceinline__ float value_at(const T *vector, int index, int width) { return index < width ? to_float(vector[index]) : 0.0f; }

// Blocks: (slices of columns, value heads, segments). Prompts (`completions` 0), then what goes on from their states. Any of `output` ([rows, value_width]), `updates` (u) may
// be null. `states`: [segments, state_width], written.
template <typename T, typename O>
__device__ void forward(const T *convolved, const float *unit, const Gate *gates, const uint32_t *segments, const uint32_t *owners, float *states, O *output, float *updates,
                        const Heads &heads, int completions) {
  __shared__ Tokens<2> tokens;
  __shared__ Partial partial;
  const int head = blockIdx.y, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const Segment segment(segments, blockIdx.z);
  if ((segment.prefix_length > 0) != (completions > 0)) return;
  const Place<true> place(heads, blockIdx.x);
  Slice state;
  state.zero();
  const size_t of_head = head * heads.state() + place.offset, width = heads.value * heads.state();
  if (completions) state.add(states + owners[segment.prefix] * width + of_head, place.step, place.count);
  const int key_head = heads.key_of(head) * heads.key_dimension;
  float query, key, value;
  Gate gate;
  const auto read = [&](int token) {
    const size_t row = segment.start + token;
    query = number_at(unit + row * 2 * heads.key_width() + key_head, heads.key_dimension);
    key = number_at(unit + row * 2 * heads.key_width() + heads.key_width() + key_head, heads.key_dimension);
    value = value_at(convolved + row * heads.row_width() + 2 * heads.key_width() + head * heads.value_dimension, place.line, heads.value_dimension);
    gate = gates[row * heads.value + head];
  };
  const auto keep = [&](int token) {
    tokens.at[token % 3][0][threadIdx.x] = query;
    tokens.at[token % 3][1][threadIdx.x] = key;
  };
  read(0);
  keep(0);
  __syncthreads();
  for (int token = 0; token < segment.length; token++) {
    const float own_value = value, decay = expf(gate.log_decay), strength = gate.strength, product = gate.product;
    const bool goes_on = token + 1 < segment.length;
    if (goes_on) read(token + 1);
    const float *queries = tokens.at[token % 3][0] + place.first, *keys = tokens.at[token % 3][1] + place.first;
    float2 sums = {0.0f, 0.0f};
#pragma unroll
    for (int n = 0; n < SLICE; n++) {
      state.at[n] *= decay;
      sums.x += keys[n] * state.at[n];
      sums.y += queries[n] * state.at[n];
    }
    partial.at[token % 2][warp][lane] = sums;
    if (goes_on) keep(token + 1);
    __syncthreads();
    sums = partial.sum(token);
    const float update = strength * (own_value - sums.x);
#pragma unroll
    for (int n = 0; n < SLICE; n++) state.at[n] += keys[n] * update;
    if (warp == 0 && place.line < heads.value_dimension) {
      const size_t at = ((size_t)segment.start + token) * heads.value_width() + head * heads.value_dimension + place.line;
      if (output) output[at] = from_float<O>(sums.y + product * update);
      if (updates) updates[at] = update;
    }
  }
  state.write(states + blockIdx.z * width + of_head, place.step, place.count);
}

// Backwards over the columns: `values` gets b S'^T's gradient, that of v; `states` the gradients of the states that segments start from. Completions (1), then prompts.
template <typename T>
__device__ void backward_columns(const T *gradient, const float *unit, const Gate *gates, const uint32_t *segments, float *states, float *values, const Heads &heads,
                                 int completions) {
  __shared__ Tokens<2> tokens;
  __shared__ Partial partial;
  const int head = blockIdx.y, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const Segment segment(segments, blockIdx.z);
  if ((segment.prefix_length > 0) != (completions > 0)) return;
  const Place<true> place(heads, blockIdx.x);
  Slice state;
  state.zero();
  const size_t of_head = head * heads.state() + place.offset, width = heads.value * heads.state();
  for (int reader = blockIdx.z + 1, rows = 0; rows < segment.readers; reader++) {
    state.add(states + reader * width + of_head, place.step, place.count);
    rows += Segment(segments, reader).length;
  }
  const int key_head = heads.key_of(head) * heads.key_dimension;
  float query, key, output;
  Gate gate;
  const auto read = [&](int token) {
    const size_t row = segment.start + token;
    query = number_at(unit + row * 2 * heads.key_width() + key_head, heads.key_dimension);
    key = number_at(unit + row * 2 * heads.key_width() + heads.key_width() + key_head, heads.key_dimension);
    output = value_at(gradient + row * heads.value_width() + head * heads.value_dimension, place.line, heads.value_dimension);
    gate = gates[row * heads.value + head];
  };
  const auto keep = [&](int token) {
    tokens.at[token % 3][0][threadIdx.x] = query;
    tokens.at[token % 3][1][threadIdx.x] = key;
  };
  read(segment.length - 1);
  keep(segment.length - 1);
  __syncthreads();
  for (int token = segment.length - 1; token >= 0; token--) {
    const float own = output, decay = expf(gate.log_decay), strength = gate.strength, product = gate.product;
    if (token > 0) read(token - 1);
    const float *queries = tokens.at[token % 3][0] + place.first, *keys = tokens.at[token % 3][1] + place.first;
    float2 sums = {0.0f, 0.0f};
#pragma unroll
    for (int n = 0; n < SLICE; n++) sums.x += keys[n] * state.at[n];
    partial.at[token % 2][warp][lane] = sums;
    if (token > 0) keep(token - 1);
    __syncthreads();
    const float inner = strength * (partial.sum(token).x + product * own);
#pragma unroll
    for (int n = 0; n < SLICE; n++) state.at[n] = decay * (state.at[n] + queries[n] * own - keys[n] * inner);
    if (warp == 0 && place.line < heads.value_dimension)
      values[((size_t)segment.start + token) * heads.value_width() + head * heads.value_dimension + place.line] = inner;
  }
  state.write(states + blockIdx.z * width + of_head, place.step, place.count);
}

// Over the rows, where u and v's gradients are known. FORWARD: `states` after segments; queries' gradients, and what S' adds to the keys'. Else backwards: `states` are the
// gradients of those that segments start from; keys' gradients by S. `queries`, `keys`: [rows, value heads, key_dimension] of normalised ones.
template <bool FORWARD, typename T>
__device__ void rows(const T *gradient, const float *updates, const float *values, const float *unit, const Gate *gates, const uint32_t *segments, const uint32_t *owners,
                     const float *states, float *queries, float *keys, const Heads &heads) {
  __shared__ Tokens<3> tokens;
  __shared__ Partial partial;
  const int head = blockIdx.y, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const Segment segment(segments, blockIdx.z);
  const Place<false> place(heads, blockIdx.x);
  Slice state;
  state.zero();
  const size_t of_head = head * heads.state() + place.offset, width = heads.value * heads.state();
  if (FORWARD) {
    if (segment.prefix_length > 0) state.add(states + owners[segment.prefix] * width + of_head, place.step, place.count);
  } else {
    for (int reader = blockIdx.z + 1, rows = 0; rows < segment.readers; reader++) {
      state.add(states + reader * width + of_head, place.step, place.count);
      rows += Segment(segments, reader).length;
    }
  }
  const int column = heads.key_of(head) * heads.key_dimension + place.line;
  const bool inside = place.line < heads.key_dimension;
  float update, value, output, query, key;
  Gate gate;
  const auto read = [&](int token) {
    const size_t row = segment.start + token, of_values = row * heads.value_width() + head * heads.value_dimension;
    update = number_at(updates + of_values, heads.value_dimension);
    value = number_at(values + of_values, heads.value_dimension);
    output = value_at(gradient + of_values, threadIdx.x, heads.value_dimension);
    query = inside ? unit[row * 2 * heads.key_width() + column] : 0.0f;
    key = inside ? unit[row * 2 * heads.key_width() + heads.key_width() + column] : 0.0f;
    gate = gates[row * heads.value + head];
  };
  const auto keep = [&](int token) {
    tokens.at[token % 3][0][threadIdx.x] = update;
    tokens.at[token % 3][1][threadIdx.x] = value;
    tokens.at[token % 3][2][threadIdx.x] = output;
  };
  const auto token_of = [&](int step) { return FORWARD ? step : segment.length - 1 - step; };
  read(token_of(0));
  keep(token_of(0));
  __syncthreads();
  for (int step = 0; step < segment.length; step++) {
    const int token = token_of(step);
    const float decay = expf(gate.log_decay), own_query = query, own_key = key;
    const bool goes_on = step + 1 < segment.length;
    if (goes_on) read(token_of(step + 1));
    const float *u = tokens.at[token % 3][0] + place.first, *inner = tokens.at[token % 3][1] + place.first, *of_output = tokens.at[token % 3][2] + place.first;
    float2 sums = {0.0f, 0.0f};
#pragma unroll
    for (int n = 0; n < SLICE; n++) {
      if (FORWARD) {
        const float decayed = decay * state.at[n];
        sums.y -= decayed * inner[n];
        state.at[n] = decayed + own_key * u[n];
        sums.x += state.at[n] * of_output[n];
      } else {
        const float own = state.at[n] + own_query * of_output[n];
        sums.y += own * u[n];
        state.at[n] = decay * (own - own_key * inner[n]);
      }
    }
    partial.at[step % 2][warp][lane] = sums;
    if (goes_on) keep(token_of(step + 1));
    __syncthreads();
    if (warp == step % WARPS && inside) {
      sums = partial.sum(step);
      const size_t at = (((size_t)segment.start + token) * heads.value + head) * heads.key_dimension + place.line;
      if (FORWARD) queries[at] = sums.x;
      keys[at] = FORWARD ? keys[at] + sums.y : sums.y;
    }
  }
}

// A warp a row and value head: the gradients of v and of b's numbers, and by how much the state's product with its gradient falls at this token, in `falls`: [rows, value heads].
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

// The sums of `falls` from a token to its segment's end and over all completions of its prompt: the gradient of the logarithm of a. A warp a segment that is no completion
// and a value head. `packed`: [rows, 2 * value heads] of b's and the decay's numbers; `sums`: likewise, of bias and A; f32.
template <typename T>
__device__ void finish_gates(const uint32_t *segments, const Gate *gates, const float *strengths, const float *falls, const T *decay, T *packed, float *sums, const Heads &heads) {
  const Segment prompt(segments, blockIdx.x);
  const int head = blockIdx.y, lane = threadIdx.x;
  if (prompt.prefix_length > 0) return;
  float of_completions = 0.0f;
  const auto segment = [&](int start, int length, float after) {
    for (int end = length; end > 0; end -= 32) {
      const int token = end - 1 - lane; // the last first
      const size_t at = ((size_t)start + max(token, 0)) * heads.value + head;
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
      const size_t to = ((size_t)start + token) * 2 * heads.value + head;
      packed[to] = from_float<T>(strengths[at]);
      packed[to + heads.value] = from_float<T>(by_step);
      sums[to] = by_step;
      sums[to + heads.value] = sum * gate.log_decay;
    }
    return after;
  };
  for (int reader = blockIdx.x + 1, rows = 0; rows < prompt.readers; reader++) {
    const Segment own(segments, reader);
    of_completions += segment(own.start, own.length, 0.0f);
    rows += own.length;
  }
  segment(prompt.start, prompt.length, of_completions);
}

extern "C" __global__ void delta_rule_gate_sums(const float *rows, float *sums, int count, int width) { sum_parts(rows, sums, count, width); }

// A warp a row and query or key head: from gradients of normalised ones, by value head, to those before.
template <typename T>
__device__ void finish_keys(const T *convolved, const float *queries, const float *keys, T *convolved_gradient, const Heads &heads, int rows) {
  const int index = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32, lane = threadIdx.x % 32;
  if (index >= rows * 2 * heads.key) return;
  const size_t row = index / (2 * heads.key), number = index % (2 * heads.key), at = row * heads.row_width() + number * heads.key_dimension;
  const bool is_query = number < heads.key;
  const int share = heads.value / heads.key, first = (number % heads.key) * share;
  const float *from = (is_query ? queries : keys) + (row * heads.value + first) * heads.key_dimension;
  float own[WARPS], vector[WARPS], square = 0.0f, along = 0.0f;
#pragma unroll
  for (int p = 0; p < WARPS; p++) {
    const int i = p * 32 + lane;
    own[p] = vector[p] = 0.0f;
    if (i >= heads.key_dimension) continue;
    for (int head = 0; head < share; head++) own[p] += from[head * heads.key_dimension + i];
    vector[p] = to_float(convolved[at + i]);
    square += vector[p] * vector[p];
    along += own[p] * vector[p];
  }
  const float inverse = rsqrtf(warp_sum(square) + 1e-6f);
  along = warp_sum(along) * inverse * inverse;
  const float factor = is_query ? inverse * rsqrtf((float)heads.key_dimension) : inverse;
#pragma unroll
  for (int p = 0; p < WARPS; p++)
    if (p * 32 + lane < heads.key_dimension) convolved_gradient[at + p * 32 + lane] = from_float<T>(factor * (own[p] - vector[p] * along));
}

// Four neighbouring numbers of a state's row, of which `count` are inside: in one access where all rows have `whole` ones. They are read once.
__device__ __forceinline__ Pack<float, 4> read_four(const float *from, int count, bool whole) {
  Pack<float, 4> own = {};
  if (whole) {
    if (count <= 0) return own;
    const float4 all = __ldcs(reinterpret_cast<const float4 *>(from));
    return {all.x, all.y, all.z, all.w};
  }
#pragma unroll
  for (int i = 0; i < 4; i++)
    if (i < count) own.at[i] = from[i];
  return own;
}
__device__ __forceinline__ void write_four(float *to, const Pack<float, 4> &own, int count, bool whole) {
  if (whole) {
    if (count > 0) __stcs(reinterpret_cast<float4 *>(to), float4{own.at[0], own.at[1], own.at[2], own.at[3]});
    return;
  }
#pragma unroll
  for (int i = 0; i < 4; i++)
    if (i < count) to[i] = own.at[i];
}

// Blocks: (slices of columns, value heads, rows): of a row that follows none, and of those that follow it. A warp has 32 rows of a state; eight lanes have four columns
// each of every fourth of them.
template <typename T> __device__ void step(const Inputs<T> &inputs, const uint32_t *slots, float *states, T *output, const Heads &heads, int rows) {
  constexpr int FOURS = SLICE / 4, EVERY = 32 / FOURS, LINES = SLICE / EVERY;
  __shared__ float vectors[2][MOST];
  __shared__ Pack<float, 4> partial[2][2][WARPS][FOURS];
  const int head = blockIdx.y, first = blockIdx.z, warp = threadIdx.x / 32, four = threadIdx.x % FOURS, line = warp * SLICE + threadIdx.x % 32 / FOURS;
  const uint32_t before = slots[2 * first];
  if (before == NONE || follows(slots, first)) return;
  const int column = blockIdx.x * SLICE + four * 4, count = heads.value_dimension - column;
  const size_t width = heads.value * heads.state(), of_head = head * heads.state() + (size_t)line * heads.value_dimension + column, next = (size_t)EVERY * heads.value_dimension;
  const bool whole = heads.value_dimension % 4 == 0;
  Pack<float, 4> state[LINES];
#pragma unroll
  for (int n = 0; n < LINES; n++) state[n] = read_four(states + before * width + of_head + n * next, line + n * EVERY < heads.key_dimension ? count : 0, whole);
  for (int row = first; row < rows && (row == first || follows(slots, row)); row++) {
    const uint32_t after = slots[2 * row + 1];
    float query, key;
    Gate gate;
    prepare(inputs, heads, row, head, query, key, gate);
    vectors[0][threadIdx.x] = query;
    vectors[1][threadIdx.x] = key;
    __syncthreads();
    const float decay = expf(gate.log_decay);
    const T *values = inputs.convolved + (size_t)row * heads.row_width() + 2 * heads.key_width() + head * heads.value_dimension + column;
    Pack<float, 4> products[2] = {}, update; // S^T k and S^T q
#pragma unroll
    for (int i = 0; i < 4; i++) update.at[i] = value_at(values, i, count);
#pragma unroll
    for (int n = 0; n < LINES; n++)
#pragma unroll
      for (int i = 0; i < 4; i++) {
        state[n].at[i] *= decay;
        products[0].at[i] += vectors[1][line + n * EVERY] * state[n].at[i];
        products[1].at[i] += vectors[0][line + n * EVERY] * state[n].at[i];
      }
#pragma unroll
    for (int which = 0; which < 2; which++) {
#pragma unroll
      for (int i = 0; i < 4; i++)
#pragma unroll
        for (int distance = FOURS; distance < 32; distance *= 2) products[which].at[i] += __shfl_xor_sync(0xffffffffu, products[which].at[i], distance);
      if (threadIdx.x % 32 < FOURS) partial[row % 2][which][warp][four] = products[which];
    }
    __syncthreads();
#pragma unroll
    for (int which = 0; which < 2; which++) {
      products[which] = partial[row % 2][which][0][four];
#pragma unroll
      for (int other = 1; other < WARPS; other++)
#pragma unroll
        for (int i = 0; i < 4; i++) products[which].at[i] += partial[row % 2][which][other][four].at[i];
    }
#pragma unroll
    for (int i = 0; i < 4; i++) update.at[i] = gate.strength * (update.at[i] - products[0].at[i]);
#pragma unroll
    for (int n = 0; n < LINES; n++) {
#pragma unroll
      for (int i = 0; i < 4; i++) state[n].at[i] += vectors[1][line + n * EVERY] * update.at[i];
      write_four(states + after * width + of_head + n * next, state[n], line + n * EVERY < heads.key_dimension ? count : 0, whole);
    }
    // Rows that are none repeat the last one: what they store of it elsewhere must be the same.
    for (int place = row; threadIdx.x < FOURS && (place == row || is_none(slots, place, rows)); place++)
#pragma unroll
      for (int i = 0; i < 4; i++)
        if (i < count) output[(size_t)place * heads.value_width() + head * heads.value_dimension + column + i] = from_float<T>(products[1].at[i] + gate.product * update.at[i]);
    __syncthreads();
  }
}

#define HEADS int key, int value, int key_dimension, int value_dimension
#define INPUTS(T) const T *convolved, const T *packed, const T *decay, const T *bias, int stride, int column
#define INSTANTIATE(T, suffix)                                                                                                                          \
  extern "C" __global__ void __launch_bounds__(128) delta_rule_prepare_##suffix(INPUTS(T), float *unit, Gate *gates, HEADS) {                            \
    prepare_rows<T>({convolved, packed, decay, bias, stride, column}, {key, value, key_dimension, value_dimension}, unit, gates);                        \
  }                                                                                                                                                     \
  extern "C" __global__ void __launch_bounds__(128)                                                                                                      \
      delta_rule_##suffix(const T *convolved, const float *unit, const Gate *gates, const uint32_t *segments, const uint32_t *owners, float *states,    \
                          T *output, HEADS, int completions) {                                                                                          \
    forward(convolved, unit, gates, segments, owners, states, output, (float *)nullptr, {key, value, key_dimension, value_dimension}, completions);     \
  }                                                                                                                                                     \
  extern "C" __global__ void __launch_bounds__(128)                                                                                                      \
      delta_rule_again_##suffix(const T *convolved, const float *unit, const Gate *gates, const uint32_t *segments, const uint32_t *owners,             \
                                float *states, float *output, float *updates, HEADS, int completions) {                                                \
    forward(convolved, unit, gates, segments, owners, states, output, updates, {key, value, key_dimension, value_dimension}, completions);              \
  }                                                                                                                                                     \
  extern "C" __global__ void __launch_bounds__(128)                                                                                                      \
      delta_rule_columns_##suffix(const T *gradient, const float *unit, const Gate *gates, const uint32_t *segments, float *states, float *values,      \
                                  HEADS, int completions) {                                                                                             \
    backward_columns(gradient, unit, gates, segments, states, values, {key, value, key_dimension, value_dimension}, completions);                       \
  }                                                                                                                                                     \
  extern "C" __global__ void __launch_bounds__(128)                                                                                                      \
      delta_rule_rows_##suffix(const T *gradient, const float *updates, const float *values, const float *unit, const Gate *gates,                      \
                               const uint32_t *segments, const uint32_t *owners, const float *states, float *queries, float *keys, HEADS) {             \
    rows<true>(gradient, updates, values, unit, gates, segments, owners, states, queries, keys, {key, value, key_dimension, value_dimension});          \
  }                                                                                                                                                     \
  extern "C" __global__ void __launch_bounds__(128)                                                                                                      \
      delta_rule_rows_back_##suffix(const T *gradient, const float *updates, const float *values, const float *unit, const Gate *gates,                 \
                                    const uint32_t *segments, const uint32_t *owners, const float *states, float *queries, float *keys, HEADS) {        \
    rows<false>(gradient, updates, values, unit, gates, segments, owners, states, queries, keys, {key, value, key_dimension, value_dimension});         \
  }                                                                                                                                                     \
  extern "C" __global__ void delta_rule_finish_values_##suffix(const T *gradient, const T *convolved, const float *outputs, const float *updates,       \
                                                               const float *values, const Gate *gates, T *convolved_gradient, float *strengths,         \
                                                               float *falls, HEADS, int rows) {                                                         \
    finish_values(gradient, convolved, outputs, updates, values, gates, convolved_gradient, strengths, falls,                                          \
                  {key, value, key_dimension, value_dimension}, rows);                                                                                  \
  }                                                                                                                                                     \
  extern "C" __global__ void delta_rule_finish_gates_##suffix(const uint32_t *segments, const Gate *gates, const float *strengths, const float *falls,  \
                                                              const T *decay, T *packed, float *sums, HEADS) {                                          \
    finish_gates(segments, gates, strengths, falls, decay, packed, sums, {key, value, key_dimension, value_dimension});                                 \
  }                                                                                                                                                     \
  extern "C" __global__ void delta_rule_finish_keys_##suffix(const T *convolved, const float *queries, const float *keys, T *convolved_gradient, HEADS, \
                                                             int rows) {                                                                                \
    finish_keys(convolved, queries, keys, convolved_gradient, {key, value, key_dimension, value_dimension}, rows);                                      \
  }                                                                                                                                                     \
  extern "C" __global__ void __launch_bounds__(128, 7)                                                                                                   \
      delta_rule_step_##suffix(INPUTS(T), const uint32_t *slots, float *states, T *output, HEADS, int rows) {                                           \
    step<T>({convolved, packed, decay, bias, stride, column}, slots, states, output, {key, value, key_dimension, value_dimension}, rows);               \
  }
INSTANTIATE(float, f32)
INSTANTIATE(bf16, bf16)
