// silu(gate) * up and its gradient. blockIdx.x is the row, blockIdx.y a share of its columns. Rows that are written begin `stride` numbers apart.
#include "vectors.cuh"

__device__ __forceinline__ float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

template <int N, typename T> __device__ void forward(const T *gate_up, T *output, int stride, int width) {
  const T *gate = gate_up + (size_t)blockIdx.x * 2 * width, *up = gate + width;
  output += (size_t)blockIdx.x * stride;
  for (int i = (blockIdx.y * blockDim.x + threadIdx.x) * N; i < width; i += gridDim.y * blockDim.x * N) {
    const Pack<T, N> g = load<N>(gate + i), u = load<N>(up + i);
    Pack<T, N> result;
#pragma unroll
    for (int k = 0; k < N; k++) {
      const float x = to_float(g.at[k]);
      result.at[k] = from_float<T>(x * sigmoid(x) * to_float(u.at[k]));
    }
    store<N>(output + i, result);
  }
}

template <int N, typename T> __device__ void backward(const T *gradient, const T *gate_up, T *output, int stride, int width) {
  const T *gate = gate_up + (size_t)blockIdx.x * 2 * width, *up = gate + width;
  T *gate_output = output + (size_t)blockIdx.x * stride, *up_output = gate_output + width;
  gradient += (size_t)blockIdx.x * width;
  for (int i = (blockIdx.y * blockDim.x + threadIdx.x) * N; i < width; i += gridDim.y * blockDim.x * N) {
    const Pack<T, N> d = load<N>(gradient + i), g = load<N>(gate + i), u = load<N>(up + i);
    Pack<T, N> gate_result, up_result;
#pragma unroll
    for (int k = 0; k < N; k++) {
      const float x = to_float(g.at[k]), s = sigmoid(x), change = to_float(d.at[k]);
      gate_result.at[k] = from_float<T>(change * to_float(u.at[k]) * s * (1.0f + x * (1.0f - s)));
      up_result.at[k] = from_float<T>(change * x * s);
    }
    store<N>(gate_output + i, gate_result);
    store<N>(up_output + i, up_result);
  }
}

// While decoding, with what adapters add; rows of `gate_up` begin `stride` numbers apart. A thread has N columns of ROWS rows, which share what it reads of
// B; blockIdx.x is a share of the columns, blockIdx.y of the rows. Shared memory: [ROWS, 2, rank], rounded.
template <int N, typename T>
__device__ void decode(const float *gate_up, int stride, const LowRank<T> &adapters, T *output, int rows, int width) {
  constexpr int ROWS = 8;
  extern __shared__ __align__(16) float inner[];
  const int rank = adapters.b ? adapters.rank : 0, first = blockIdx.y * ROWS, count = min(ROWS, rows - first);
  const int column = (blockIdx.x * blockDim.x + threadIdx.x) * N;
  if (column < width) {
    adapters.fetch(column);
    adapters.fetch(width + column);
  }
  wait_for_predecessor();
  gate_up += (size_t)first * stride;
  for (int i = threadIdx.x; i < count * 2 * rank; i += blockDim.x)
    inner[i] = to_float(from_float<T>(gate_up[(size_t)(i / (2 * rank)) * stride + 2 * width + i % (2 * rank)]));
  __syncthreads();
  if (column >= width) return;
  float gates[ROWS][N] = {}, ups[ROWS][N] = {};
#pragma unroll
  for (int n = 0; n < ROWS; n++) {
    if (n >= count) break;
    const Pack<float, N> gate = load<N>(gate_up + (size_t)n * stride + column), up = load<N>(gate_up + (size_t)n * stride + width + column);
#pragma unroll
    for (int k = 0; k < N; k++) gates[n][k] = gate.at[k], ups[n][k] = up.at[k];
  }
#pragma unroll 8
  for (int r = 0; r < rank; r++) {
    const T *row = adapters.b + (size_t)r * adapters.outputs + column;
    const Pack<T, N> gate_weights = load<N>(row), up_weights = load<N>(row + width);
#pragma unroll
    for (int n = 0; n < ROWS; n++)
#pragma unroll
      for (int k = 0; k < N; k++) {
        gates[n][k] += inner[2 * n * rank + r] * to_float(gate_weights.at[k]);
        ups[n][k] += inner[(2 * n + 1) * rank + r] * to_float(up_weights.at[k]);
      }
  }
#pragma unroll
  for (int n = 0; n < ROWS; n++) {
    if (n >= count) break;
    Pack<T, N> result;
#pragma unroll
    for (int k = 0; k < N; k++) {
      const float gate = to_float(from_float<T>(gates[n][k])), up = to_float(from_float<T>(ups[n][k]));
      result.at[k] = from_float<T>(gate * sigmoid(gate) * up);
    }
    store<N>(output + (size_t)(first + n) * width + column, result);
  }
}

#define INSTANTIATE(T, suffix)                                                                                                 \
  extern "C" __global__ void swiglu_##suffix(const T *gate_up, T *output, int stride, int width) {                             \
    constexpr int N = wide<T>();                                                                                               \
    if (rows_aligned<N>(width, gate_up, output) && stride % N == 0) forward<N>(gate_up, output, stride, width);                \
    else forward<1>(gate_up, output, stride, width);                                                                           \
  }                                                                                                                            \
  extern "C" __global__ void swiglu_decode_##suffix(const float *gate_up, int stride, const T *b, int outputs, int rank,       \
                                                    T *output, int rows, int width) {                                          \
    const LowRank<T> adapters = {b, outputs, rank};                                                                            \
    if (rows_aligned<2>(width, gate_up) && rows_aligned<2>(width, b, output) && stride % 2 == 0)                               \
      decode<2>(gate_up, stride, adapters, output, rows, width);                                                               \
    else decode<1>(gate_up, stride, adapters, output, rows, width);                                                            \
  }                                                                                                                            \
  extern "C" __global__ void swiglu_backward_##suffix(const T *gradient, const T *gate_up, T *output, int stride, int width) { \
    constexpr int N = wide<T>();                                                                                               \
    if (rows_aligned<N>(width, gradient, gate_up, output) && stride % N == 0)                                                  \
      backward<N>(gradient, gate_up, output, stride, width);                                                                   \
    else backward<1>(gradient, gate_up, output, stride, width);                                                                \
  }
INSTANTIATE(float, f32)
INSTANTIATE(bf16, bf16)
