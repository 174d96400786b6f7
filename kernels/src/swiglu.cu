// silu(gate) * up, with GELU gelu(gate) * up, or gpt-oss's clamped activation, and their gradients. blockIdx.x: row, blockIdx.y: a share of its columns.
// Written rows are `stride` apart.
#include "low_rank.cuh"

__device__ __forceinline__ float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

// x * sigmoid(z) is SiLU of x with z = x, and tanh-approximated GELU with z = 2 sqrt(2 / pi) (x + 0.044715 x^3).
constexpr float TWICE = 1.5957691216057308f, CUBIC = 0.044715f;
template <bool GELU> __device__ __forceinline__ float argument(float x) { return GELU ? TWICE * (x + CUBIC * x * x * x) : x; }
// dz / dx.
__device__ __forceinline__ float gelu_slope(float x) { return TWICE * (1.0f + 3.0f * CUBIC * x * x); }

template <bool GELU, int N, typename T> __device__ void forward(const T *gate_up, T *output, int stride, int width) {
  const T *gate = gate_up + (size_t)blockIdx.x * 2 * width, *up = gate + width;
  output += (size_t)blockIdx.x * stride;
  for (int i = (blockIdx.y * blockDim.x + threadIdx.x) * N; i < width; i += gridDim.y * blockDim.x * N) {
    const Pack<T, N> g = load<N>(gate + i), u = load<N>(up + i);
    Pack<T, N> result;
#pragma unroll
    for (int k = 0; k < N; k++) {
      const float x = to_float(g.at[k]);
      result.at[k] = from_float<T>(x * sigmoid(argument<GELU>(x)) * to_float(u.at[k]));
    }
    store<N>(output + i, result);
  }
}

template <bool GELU, int N, typename T> __device__ void backward(const T *gradient, const T *gate_up, T *output, int stride, int width) {
  const T *gate = gate_up + (size_t)blockIdx.x * 2 * width, *up = gate + width;
  T *gate_output = output + (size_t)blockIdx.x * stride, *up_output = gate_output + width;
  gradient += (size_t)blockIdx.x * width;
  for (int i = (blockIdx.y * blockDim.x + threadIdx.x) * N; i < width; i += gridDim.y * blockDim.x * N) {
    const Pack<T, N> d = load<N>(gradient + i), g = load<N>(gate + i), u = load<N>(up + i);
    Pack<T, N> gate_result, up_result;
#pragma unroll
    for (int k = 0; k < N; k++) {
      const float x = to_float(g.at[k]), s = sigmoid(argument<GELU>(x)), change = to_float(d.at[k]);
      if constexpr (GELU) gate_result.at[k] = from_float<T>(change * to_float(u.at[k]) * s * (1.0f + x * (1.0f - s) * gelu_slope(x)));
      else gate_result.at[k] = from_float<T>(change * to_float(u.at[k]) * s * (1.0f + x * (1.0f - s)));
      up_result.at[k] = from_float<T>(change * x * s);
    }
    store<N>(gate_output + i, gate_result);
    store<N>(up_output + i, up_result);
  }
}

// For decoding, with the adapters' part; rows of `gate_up` are `stride` apart. One thread per element.
template <bool GELU, typename T>
__device__ void decode(const float *gate_up, int stride, const LowRank<T> &adapters, T *output, int rows, int width) {
  start_successor();
  wait_for_predecessor();
  const int row = blockIdx.y, column = blockIdx.x * blockDim.x + threadIdx.x;
  if (column >= width) return;
  gate_up += (size_t)row * stride;
  const float *inner = gate_up + 2 * width;
  const float gate = adapters.add(gate_up[column], inner, column), up = adapters.add(gate_up[width + column], inner + adapters.rank, width + column);
  output[(size_t)row * width + column] = from_float<T>(gate * sigmoid(argument<GELU>(gate)) * up);
}

// On tensor cores: a warp has sixteen rows and sixteen columns. The width is a multiple of 16.
template <bool GELU>
__device__ void decode_on_tensor_cores(const float *gate_up, int stride, const bf16 *b, int rank, bf16 *output, int rows, int width) {
  const int column = (blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32) * 16, t = threadIdx.x % 4;
  if (column >= width) return;
  start_successor();
  const TensorLowRank<1> gate_adapters(b, column, rank), up_adapters(b, width + column, rank);
  const TwoRows row(rows);
  const float *low = gate_up + (size_t)row.low * stride, *high = gate_up + (size_t)row.high * stride;
  wait_for_predecessor();
  Tile gates[1], ups[1];
  gates[0].read(low + column, high + column, t);
  ups[0].read(low + width + column, high + width + column, t);
  gate_adapters.add(gates, low + 2 * width, high + 2 * width);
  up_adapters.add(ups, low + 2 * width + rank, high + 2 * width + rank);
  Pack<bf16, 4> low_result, high_result;
#pragma unroll
  for (int k = 0; k < 4; k++) {
    low_result.at[k] = from_float<bf16>(gates[0].low[k] * sigmoid(argument<GELU>(gates[0].low[k])) * ups[0].low[k]);
    high_result.at[k] = from_float<bf16>(gates[0].high[k] * sigmoid(argument<GELU>(gates[0].high[k])) * ups[0].high[k]);
  }
  store(output + (size_t)row.low * width + column + 4 * t, low_result);
  store(output + (size_t)row.high * width + column + 4 * t, high_result);
}

// gpt-oss: gate and up alternate; the gate is at most `limit`, up is clamped to +-limit; gate * sigmoid(slope * gate) * (up + 1).
template <typename T> struct Clamped {
  float raw_gate, raw_up, gate, up, share;

  __device__ __forceinline__ Clamped(const T *pair, float slope, float limit) {
    const Pack<T, 2> both = load<2>(pair);
    raw_gate = to_float(both.at[0]), raw_up = to_float(both.at[1]);
    gate = fminf(raw_gate, limit), up = fminf(fmaxf(raw_up, -limit), limit);
    share = sigmoid(slope * gate);
  }
};

template <typename T> __device__ void clamped(const T *gate_up, T *output, int stride, int width, float slope, float limit) {
  gate_up += (size_t)blockIdx.x * 2 * width, output += (size_t)blockIdx.x * stride;
  for (int i = blockIdx.y * blockDim.x + threadIdx.x; i < width; i += gridDim.y * blockDim.x) {
    const Clamped<T> own(gate_up + 2 * i, slope, limit);
    output[i] = from_float<T>(own.gate * own.share * (own.up + 1.0f));
  }
}

// Clamped inputs have no gradient.
template <typename T> __device__ void clamped_backward(const T *gradient, const T *gate_up, T *output, int stride, int width, float slope, float limit) {
  gradient += (size_t)blockIdx.x * width, gate_up += (size_t)blockIdx.x * 2 * width, output += (size_t)blockIdx.x * stride;
  for (int i = blockIdx.y * blockDim.x + threadIdx.x; i < width; i += gridDim.y * blockDim.x) {
    const Clamped<T> own(gate_up + 2 * i, slope, limit);
    const float change = to_float(gradient[i]);
    output[2 * i] = from_float<T>(own.raw_gate <= limit ? change * (own.up + 1.0f) * own.share * (1.0f + slope * own.gate * (1.0f - own.share)) : 0.0f);
    output[2 * i + 1] = from_float<T>(own.raw_up == own.up ? change * own.gate * own.share : 0.0f);
  }
}

#define INSTANTIATE_CLAMPED(T, suffix)                                                                                         \
  extern "C" __global__ void clamped_##suffix(const T *gate_up, T *output, int stride, int width, float slope, float limit) {  \
    clamped(gate_up, output, stride, width, slope, limit);                                                                     \
  }                                                                                                                            \
  extern "C" __global__ void clamped_backward_##suffix(const T *gradient, const T *gate_up, T *output, int stride, int width,  \
                                                       float slope, float limit) {                                             \
    clamped_backward(gradient, gate_up, output, stride, width, slope, limit);                                                  \
  }
INSTANTIATE_CLAMPED(float, f32)
INSTANTIATE_CLAMPED(bf16, bf16)

#define INSTANTIATE(name, GELU, T, suffix)                                                                                     \
  extern "C" __global__ void name##_##suffix(const T *gate_up, T *output, int stride, int width) {                             \
    constexpr int N = wide<T>();                                                                                               \
    if (rows_aligned<N>(width, gate_up, output) && stride % N == 0) forward<GELU, N>(gate_up, output, stride, width);          \
    else forward<GELU, 1>(gate_up, output, stride, width);                                                                     \
  }                                                                                                                            \
  extern "C" __global__ void name##_decode_##suffix(const float *gate_up, int stride, const T *b, int rank, T *output,         \
                                                    int rows, int width) {                                                     \
    decode<GELU, T>(gate_up, stride, {b, rank}, output, rows, width);                                                          \
  }                                                                                                                            \
  extern "C" __global__ void name##_backward_##suffix(const T *gradient, const T *gate_up, T *output, int stride, int width) { \
    constexpr int N = wide<T>();                                                                                               \
    if (rows_aligned<N>(width, gradient, gate_up, output) && stride % N == 0)                                                  \
      backward<GELU, N>(gradient, gate_up, output, stride, width);                                                             \
    else backward<GELU, 1>(gradient, gate_up, output, stride, width);                                                          \
  }
#define INSTANTIATE_ALL(name, GELU)                                                                                            \
  INSTANTIATE(name, GELU, float, f32)                                                                                          \
  INSTANTIATE(name, GELU, bf16, bf16)                                                                                          \
  extern "C" __global__ void __launch_bounds__(128) name##_decode_tensor_bf16(const float *gate_up, int stride, const bf16 *b, \
                                                                             int rank, bf16 *output, int rows, int width) {    \
    decode_on_tensor_cores<GELU>(gate_up, stride, b, rank, output, rows, width);                                               \
  }
INSTANTIATE_ALL(swiglu, false)
INSTANTIATE_ALL(geglu, true)
