// Norm of each head times SiLU of its gate (gated_norm.rs), one warp per head and row, at most 256 columns. Gates are columns of wider rows, from `gates` on.
#include "segments.cuh"

constexpr int PIECES = 8;

template <typename T> struct Lane {
  float at[PIECES];

  __device__ __forceinline__ Lane(const T *from, int size) {
#pragma unroll
    for (int p = 0; p < PIECES; p++) {
      const int i = p * 32 + threadIdx.x % 32;
      at[p] = i < size ? to_float(from[i]) : 0.0f;
    }
  }

  __device__ __forceinline__ float square() const {
    float sum = 0.0f;
#pragma unroll
    for (int p = 0; p < PIECES; p++) sum += at[p] * at[p];
    return warp_sum(sum);
  }
};

template <typename T>
__device__ void forward(const T *x, const T *gates, int gates_stride, const T *weight, T *y, int stride, int rows, int heads, int size, float offset, float epsilon) {
  const int index = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
  if (index >= rows * heads) return;
  start_successor();
  wait_for_predecessor();
  const size_t row = index / heads, column = (size_t)(index % heads) * size;
  const Lane<T> own(x + (size_t)index * size, size), gate(gates + row * gates_stride + column, size), weights(weight, size);
  const float inverse = rsqrtf(own.square() / size + epsilon);
#pragma unroll
  for (int p = 0; p < PIECES; p++) {
    const int i = p * 32 + threadIdx.x % 32;
    if (i < size) y[row * stride + column + i] = from_float<T>(own.at[p] * inverse * (weights.at[p] + offset) * gate.at[p] * sigmoid(gate.at[p]));
  }
}

// Warps stride over heads. `partial`: [warps, size] of the weight's gradient.
template <typename T>
__device__ void backward(const T *gradient, const T *x, const T *gates, int gates_stride, const T *weight, T *dx, T *gate_gradient, float *partial, int rows, int heads,
                         int size, float offset, float epsilon) {
  const int warps = gridDim.x * (blockDim.x / 32), warp = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
  const Lane<T> weights(weight, size);
  float sums[PIECES] = {};
  for (int index = warp; index < rows * heads; index += warps) {
    const size_t row = index / heads, at = (size_t)index * size;
    const Lane<T> own(x + at, size), gate(gates + row * gates_stride + (size_t)(index % heads) * size, size), outer(gradient + at, size);
    const float inverse = rsqrtf(own.square() / size + epsilon);
    float inner[PIECES], along = 0.0f;
#pragma unroll
    for (int p = 0; p < PIECES; p++) {
      const int i = p * 32 + threadIdx.x % 32;
      const float share = sigmoid(gate.at[p]), normed = own.at[p] * inverse, weight = weights.at[p] + offset;
      const float silu = outer.at[p] * gate.at[p] * share;
      sums[p] += silu * normed;
      inner[p] = silu * weight;
      along += inner[p] * own.at[p];
      if (i < size) gate_gradient[at + i] = from_float<T>(outer.at[p] * normed * weight * share * (1.0f + gate.at[p] * (1.0f - share)));
    }
    along = warp_sum(along) * inverse * inverse / size;
#pragma unroll
    for (int p = 0; p < PIECES; p++) {
      const int i = p * 32 + threadIdx.x % 32;
      if (i < size) dx[at + i] = from_float<T>(inverse * (inner[p] - own.at[p] * along));
    }
  }
#pragma unroll
  for (int p = 0; p < PIECES; p++) {
    const int i = p * 32 + threadIdx.x % 32;
    if (i < size) partial[(size_t)warp * size + i] = sums[p];
  }
}

extern "C" __global__ void gated_norm_weight_sums(const float *partial, float *sums, int parts, int width) { sum_parts(partial, sums, parts, width); }

#define INSTANTIATE(T, suffix)                                                                                                                          \
  extern "C" __global__ void gated_norm_##suffix(const T *x, const T *gates, int gates_stride, const T *weight, T *y, int stride, int rows, int heads,  \
                                                 int size, float offset, float epsilon) {                                                              \
    forward(x, gates, gates_stride, weight, y, stride, rows, heads, size, offset, epsilon);                                                            \
  }                                                                                                                                                     \
  extern "C" __global__ void gated_norm_backward_##suffix(const T *gradient, const T *x, const T *gates, int gates_stride, const T *weight, T *dx,      \
                                                          T *gate_gradient, float *partial, int rows, int heads, int size, float offset,               \
                                                          float epsilon) {                                                                             \
    backward(gradient, x, gates, gates_stride, weight, dx, gate_gradient, partial, rows, heads, size, offset, epsilon);                                \
  }
INSTANTIATE(float, f32)
INSTANTIATE(bf16, bf16)
