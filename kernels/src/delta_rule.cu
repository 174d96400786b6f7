// A decoded token of the gated delta rule (delta_rule.cuh). A column of S depends on no other: a block has 32 of them. Sums are over four warps, in a fixed order.
#include "delta_rule.cuh"

constexpr int WARPS = MOST / SLICE;

// By all threads of a block of MOST: the normalised query and key, a thread a number, and the gate.
template <typename T> __device__ __forceinline__ void prepare(const Inputs<T> &inputs, const Heads &heads, int row, int head, float &query, float &key, Gate &gate) {
  const int column = heads.key_of(head) * heads.key_dimension;
  const T *own = inputs.convolved + (size_t)row * heads.row_width() + column;
  query = value_at(own, threadIdx.x, heads.key_dimension);
  key = value_at(own + heads.key_width(), threadIdx.x, heads.key_dimension);
  query *= inverse_length(block_sum(query * query)) * rsqrtf((float)heads.key_dimension);
  key *= inverse_length(block_sum(key * key));
  gate = inputs.gate(heads, row, head);
  gate.product = block_sum(query * key);
}

// Of a state's 32 columns that a block has, a lane has one, and a warp 32 numbers of it.
struct Column {
  float at[SLICE];
  int index, first, count; // the lane's column; the first of the warp's numbers in it, and how many there are
  size_t offset;
  int step;

  __device__ __forceinline__ Column(const Heads &heads) {
    index = blockIdx.x * SLICE + threadIdx.x % 32;
    first = threadIdx.x / 32 * SLICE;
    count = index < heads.value_dimension ? max(0, min(SLICE, heads.key_dimension - first)) : 0;
    step = heads.value_dimension;
    offset = (size_t)first * step + index;
  }
  // Without a sum, so that nothing waits for the numbers before they are used.
  __device__ __forceinline__ void read(const float *from) {
#pragma unroll
    for (int n = 0; n < SLICE; n++) at[n] = n < count ? from[offset + (size_t)n * step] : 0.0f;
  }
  __device__ __forceinline__ void write(float *to) const {
#pragma unroll
    for (int n = 0; n < SLICE; n++)
      if (n < count) to[offset + (size_t)n * step] = at[n];
  }
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

// Blocks: (slices of columns, value heads, rows): of a row that follows none, and of those that follow it.
template <typename T> __device__ void step(const Inputs<T> &inputs, const uint32_t *slots, float *states, T *output, const Heads &heads, int rows) {
  __shared__ alignas(16) float vectors[2][MOST];
  __shared__ Partial partial;
  const int head = blockIdx.y, first = blockIdx.z, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const uint32_t before = slots[2 * first];
  if (before == NONE || follows(slots, first)) return;
  const size_t of_head = head * heads.state(), width = heads.value * heads.state();
  Column state(heads);
  state.read(states + before * width + of_head);
  for (int row = first; row < rows && (row == first || follows(slots, row)); row++) {
    const uint32_t after = slots[2 * row + 1];
    float query, key;
    Gate gate;
    prepare(inputs, heads, row, head, query, key, gate);
    vectors[0][threadIdx.x] = query;
    vectors[1][threadIdx.x] = key;
    __syncthreads();
    const float decay = expf(gate.log_decay), *queries = vectors[0] + state.first, *keys = vectors[1] + state.first;
    const float value = value_at(inputs.convolved + (size_t)row * heads.row_width() + 2 * heads.key_width() + head * heads.value_dimension, state.index, heads.value_dimension);
    float2 sums = {0.0f, 0.0f};
#pragma unroll
    for (int n = 0; n < SLICE; n++) {
      state.at[n] *= decay;
      sums.x += keys[n] * state.at[n];
      sums.y += queries[n] * state.at[n];
    }
    partial.at[row % 2][warp][lane] = sums;
    __syncthreads();
    sums = partial.sum(row);
    const float update = gate.strength * (value - sums.x);
#pragma unroll
    for (int n = 0; n < SLICE; n++) state.at[n] += keys[n] * update;
    state.write(states + after * width + of_head);
    // Rows that are none repeat the last one: what they store of it elsewhere must be the same.
    for (int place_of = row; warp == 0 && state.index < heads.value_dimension && (place_of == row || is_none(slots, place_of, rows)); place_of++)
      output[(size_t)place_of * heads.value_width() + head * heads.value_dimension + state.index] = from_float<T>(sums.y + gate.product * update);
    __syncthreads();
  }
}

#define INSTANTIATE(T, suffix)                                                                                                            \
  extern "C" __global__ void __launch_bounds__(128, 8)                                                                                    \
      delta_rule_step_##suffix(INPUTS(T), const uint32_t *slots, float *states, T *output, HEADS, int rows) {                             \
    step<T>({convolved, packed, decay, bias, stride, column}, slots, states, output, {key, value, key_dimension, value_dimension}, rows); \
  }
INSTANTIATE(float, f32)
INSTANTIATE(bf16, bf16)
