// Causal convolution of columns, then SiLU (convolution.rs): one thread per column and row. `packed`: [rows, stride]; `weight`: [width, taps], oldest token
// first.
#include "segments.cuh"

constexpr int TAPS = 8; // maximum

// Sum before SiLU.
template <typename T>
__device__ __forceinline__ float sum_at(const T *packed, int stride, const T *weight, int taps, const Segment &segment, int token, int column) {
  float sum = 0.0f;
#pragma unroll
  for (int lag = TAPS - 1; lag >= 0; lag--) {
    const int row = lag < taps ? segment.row_before(token, lag) : -1;
    if (row >= 0) sum += to_float(weight[column * taps + taps - 1 - lag]) * to_float(packed[(size_t)row * stride + column]);
  }
  return sum;
}

// Blocks: (rows, columns / 256).
template <typename T>
__device__ void forward(const T *packed, int stride, const T *weight, int taps, const uint32_t *segments, const uint32_t *owners, T *output, int width) {
  const int row = blockIdx.x, column = blockIdx.y * blockDim.x + threadIdx.x;
  if (column >= width) return;
  const Segment segment(segments, owners[row]);
  const float sum = sum_at(packed, stride, weight, taps, segment, row - segment.start, column);
  output[(size_t)row * width + column] = from_float<T>(sum * sigmoid(sum));
}

// Gradient of the sums, f32.
template <typename T>
__device__ void backward_sums(const T *gradient, const T *packed, int stride, const T *weight, int taps, const uint32_t *segments, const uint32_t *owners, float *sums,
                              int width) {
  const int row = blockIdx.x, column = blockIdx.y * blockDim.x + threadIdx.x;
  if (column >= width) return;
  const Segment segment(segments, owners[row]);
  const float sum = sum_at(packed, stride, weight, taps, segment, row - segment.start, column), share = sigmoid(sum);
  sums[(size_t)row * width + column] = to_float(gradient[(size_t)row * width + column]) * share * (1.0f + sum * (1.0f - share));
}

// Gradient of the row from that of the sums: of later tokens in its segment, and of its completions' first tokens if it ends a prompt.
template <typename T>
__device__ void backward_rows(const float *sums, const T *weight, int taps, const uint32_t *segments, const uint32_t *owners, T *output, int width) {
  const int row = blockIdx.x, column = blockIdx.y * blockDim.x + threadIdx.x, owner = owners[row];
  if (column >= width) return;
  const Segment segment(segments, owner);
  const int left = segment.length - (row - segment.start); // tokens from this one to the end
  float sum = 0.0f;
  const auto add = [&](int start, int length, int first) { // tokens from `start` on, the first `first` after this one
    for (int lag = first; lag < taps && lag - first < length; lag++)
      sum += to_float(weight[column * taps + taps - 1 - lag]) * sums[(size_t)(start + lag - first) * width + column];
  };
  add(row, left, 0);
  if (left < taps)
    for (int reader = owner + 1, rows = 0; rows < segment.readers; reader++) {
      const Segment own(segments, reader);
      add(own.start, own.length, left);
      rows += own.length;
    }
  output[(size_t)row * width + column] = from_float<T>(sum);
}

// The weight's gradient over the rows of a part -> partial: [parts, width * taps]. Blocks: (parts, columns / 256).
template <typename T>
__device__ void weight_parts(const float *sums, const T *packed, int stride, int taps, const uint32_t *segments, const uint32_t *owners, float *partial, int width, int rows,
                             int rows_a_part) {
  const int column = blockIdx.y * blockDim.x + threadIdx.x, first = blockIdx.x * rows_a_part;
  if (column >= width) return;
  float own[TAPS] = {};
  for (int row = first; row < min(rows, first + rows_a_part); row++) {
    const Segment segment(segments, owners[row]);
    const float gradient = sums[(size_t)row * width + column];
#pragma unroll
    for (int tap = 0; tap < TAPS; tap++) {
      const int before = tap < taps ? segment.row_before(row - segment.start, taps - 1 - tap) : -1;
      if (before >= 0) own[tap] += gradient * to_float(packed[(size_t)before * stride + column]);
    }
  }
#pragma unroll
  for (int tap = 0; tap < TAPS; tap++)
    if (tap < taps) partial[((size_t)blockIdx.x * width + column) * taps + tap] = own[tap];
}

extern "C" __global__ void convolution_weight_sums(const float *partial, float *sums, int parts, int width) { sum_parts(partial, sums, parts, width); }

// Blocks: (segments, columns / 256). `states`: [segments, (taps - 1) * width], oldest first.
template <typename T> __device__ void keep_states(const T *packed, int stride, int taps, const uint32_t *segments, T *states, int width) {
  const int column = blockIdx.y * blockDim.x + threadIdx.x;
  if (column >= width) return;
  const Segment segment(segments, blockIdx.x);
  for (int lag = 0; lag < taps - 1; lag++) {
    const int row = segment.row_before(segment.length - 1, lag);
    states[((size_t)blockIdx.x * (taps - 1) + taps - 2 - lag) * width + column] = row >= 0 ? packed[(size_t)row * stride + column] : from_float<T>(0.0f);
  }
}

// Blocks: (rows, columns / 1024): handles a row that follows no other, and those that follow it. A thread has N adjacent columns of as many taps, or one.
template <int N, typename T>
__device__ void step(const T *packed, int stride, const T *weight, int given, const uint32_t *slots, T *states, T *output, int width, int rows) {
  constexpr int MOST = N > 1 ? N : TAPS;
  const int first = blockIdx.x, taps = N > 1 ? N : given;
  if (slots[2 * first] == NONE || follows(slots, first)) return;
  const size_t size = (size_t)(taps - 1) * width;
  for (int column = (blockIdx.y * blockDim.x + threadIdx.x) * N; column < width; column += gridDim.y * blockDim.x * N) {
    Pack<T, N> seen[MOST]; // oldest first
    float weights[N][MOST];
#pragma unroll
    for (int tap = 0; tap < MOST; tap++)
      if (tap < taps - 1) seen[tap] = load<N>(states + slots[2 * first] * size + (size_t)tap * width + column);
#pragma unroll
    for (int k = 0; k < N; k++)
#pragma unroll
      for (int from = 0; from < MOST; from += N)
        if (from < taps) {
          const Pack<T, N> own = load<N>(weight + (size_t)(column + k) * taps + from);
#pragma unroll
          for (int i = 0; i < N; i++) weights[k][from + i] = to_float(own.at[i]);
        }
    wait_for_predecessor();
    start_successor();
    for (int row = first; row < rows && (row == first || follows(slots, row)); row++) {
      const Pack<T, N> newest = load<N>(packed + (size_t)row * stride + column);
      Pack<T, N> result;
#pragma unroll
      for (int k = 0; k < N; k++) {
        float sum = 0.0f;
#pragma unroll
        for (int tap = 0; tap < MOST; tap++)
          if (tap < taps) sum += weights[k][tap] * to_float(tap < taps - 1 ? seen[tap].at[k] : newest.at[k]);
        result.at[k] = from_float<T>(sum * sigmoid(sum));
      }
      // Padding rows repeat the last row.
      for (int place = row; place == row || is_none(slots, place, rows); place++) store(output + (size_t)place * width + column, result);
      T *to = states + slots[2 * row + 1] * size + column;
#pragma unroll
      for (int tap = 0; tap < MOST; tap++)
        if (tap < taps - 1) {
          seen[tap] = tap == taps - 2 ? newest : seen[tap + 1 < MOST ? tap + 1 : tap];
          store(to + (size_t)tap * width, seen[tap]);
        }
    }
  }
}

#define INSTANTIATE(T, suffix)                                                                                                                          \
  extern "C" __global__ void convolution_##suffix(const T *packed, int stride, const T *weight, int taps, const uint32_t *segments,                     \
                                                  const uint32_t *owners, T *output, int width) {                                                       \
    forward(packed, stride, weight, taps, segments, owners, output, width);                                                                            \
  }                                                                                                                                                     \
  extern "C" __global__ void convolution_backward_sums_##suffix(const T *gradient, const T *packed, int stride, const T *weight, int taps,              \
                                                                const uint32_t *segments, const uint32_t *owners, float *sums, int width) {             \
    backward_sums(gradient, packed, stride, weight, taps, segments, owners, sums, width);                                                              \
  }                                                                                                                                                     \
  extern "C" __global__ void convolution_backward_rows_##suffix(const float *sums, const T *weight, int taps, const uint32_t *segments,                 \
                                                                const uint32_t *owners, T *output, int width) {                                         \
    backward_rows(sums, weight, taps, segments, owners, output, width);                                                                                \
  }                                                                                                                                                     \
  extern "C" __global__ void convolution_weight_parts_##suffix(const float *sums, const T *packed, int stride, int taps, const uint32_t *segments,      \
                                                               const uint32_t *owners, float *partial, int width, int rows, int rows_a_part) {          \
    weight_parts(sums, packed, stride, taps, segments, owners, partial, width, rows, rows_a_part);                                                     \
  }                                                                                                                                                     \
  extern "C" __global__ void convolution_states_##suffix(const T *packed, int stride, int taps, const uint32_t *segments, T *states, int width) {       \
    keep_states(packed, stride, taps, segments, states, width);                                                                                        \
  }                                                                                                                                                     \
  extern "C" __global__ void convolution_step_##suffix(const T *packed, int stride, const T *weight, int taps, const uint32_t *slots, T *states,        \
                                                       T *output, int width, int rows) {                                                                \
    const bool fours = taps == 4 && rows_aligned<4>(width, packed, weight, states, output) && stride % 4 == 0;                                          \
    if (fours) step<4>(packed, stride, weight, taps, slots, states, output, width, rows);                                                               \
    else step<1>(packed, stride, weight, taps, slots, states, output, width, rows);                                                                     \
  }
INSTANTIATE(float, f32)
INSTANTIATE(bf16, bf16)
