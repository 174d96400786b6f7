// silu(gate) * up and its gradient. blockIdx.x is the row, blockIdx.y a share of its columns.
#include "vectors.cuh"

__device__ __forceinline__ float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

template <int N, typename T> __device__ void forward(const T *gate_up, T *output, int width) {
  const T *gate = gate_up + (size_t)blockIdx.x * 2 * width, *up = gate + width;
  output += (size_t)blockIdx.x * width;
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

template <int N, typename T> __device__ void backward(const T *gradient, const T *gate_up, T *output, int width) {
  const size_t start = (size_t)blockIdx.x * 2 * width;
  const T *gate = gate_up + start, *up = gate + width;
  T *gate_output = output + start, *up_output = gate_output + width;
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

#define INSTANTIATE(T, suffix)                                                                                                 \
  extern "C" __global__ void swiglu_##suffix(const T *gate_up, T *output, int width) {                                         \
    if (rows_aligned<wide<T>()>(width, gate_up, output)) forward<wide<T>()>(gate_up, output, width);                           \
    else forward<1>(gate_up, output, width);                                                                                   \
  }                                                                                                                            \
  extern "C" __global__ void swiglu_backward_##suffix(const T *gradient, const T *gate_up, T *output, int width) {             \
    if (rows_aligned<wide<T>()>(width, gradient, gate_up, output)) backward<wide<T>()>(gradient, gate_up, output, width);      \
    else backward<1>(gradient, gate_up, output, width);                                                                        \
  }
INSTANTIATE(float, f32)
INSTANTIATE(bf16, bf16)
