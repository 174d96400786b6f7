// A decoded token of the gated delta rule (delta_rule.cuh). Columns of S are independent: a block has 32 of them. Sums are over four warps, in a fixed order.
#include "delta_rule.cuh"

constexpr int WARPS = MOST / SLICE;

// By all MOST threads of a block: normalised query and key, one element per thread, and the gate.
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

// Four adjacent elements of a state's row, `count` of them inside: in one access if `whole`. Cache-streaming, as they are read once.
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

// Blocks: (slices of columns, value heads, rows): handles a row that follows no other, and those that follow it. A warp has 32 rows of a state; eight lanes
// have four columns each of every fourth row.
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
  wait_for_predecessor();
  start_successor();
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
    // Padding rows repeat the last row, and must store the same.
    for (int place = row; threadIdx.x < FOURS && (place == row || is_none(slots, place, rows)); place++)
#pragma unroll
      for (int i = 0; i < 4; i++)
        if (i < count) output[(size_t)place * heads.value_width() + head * heads.value_dimension + column + i] = from_float<T>(products[1].at[i] + gate.product * update.at[i]);
    __syncthreads();
  }
}

#define INSTANTIATE(T, suffix)                                                                                                            \
  extern "C" __global__ void __launch_bounds__(128, 7)                                                                                    \
      delta_rule_step_##suffix(INPUTS(T), const uint32_t *slots, float *states, T *output, HEADS, int rows) {                             \
    step<T>({convolved, packed, decay, bias, stride, column}, slots, states, output, {key, value, key_dimension, value_dimension}, rows); \
  }
INSTANTIATE(float, f32)
INSTANTIATE(bf16, bf16)
