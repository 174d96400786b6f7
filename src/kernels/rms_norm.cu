// y = x / sqrt(mean(x^2) + epsilon) * weight, one block a row.
#include "numbers.cuh"

template <typename T>
__device__ void forward(const T *x, const T *weight, T *y, int width, float epsilon) {
  x += (size_t)blockIdx.x * width;
  y += (size_t)blockIdx.x * width;
  float square = 0.0f;
  for (int i = threadIdx.x; i < width; i += blockDim.x) {
    const float value = to_float(x[i]);
    square += value * value;
  }
  const float inverse = rsqrtf(block_sum(square) / width + epsilon);
  for (int i = threadIdx.x; i < width; i += blockDim.x) y[i] = from_float<T>(to_float(x[i]) * inverse * to_float(weight[i]));
}

// dx = r * (g - x * r^2 * mean(g * x)) with g = gradient * weight, r = 1 / rms.
template <typename T>
__device__ void backward(const T *gradient, const T *x, const T *weight, T *dx, int width, float epsilon) {
  const size_t row = (size_t)blockIdx.x * width;
  float square = 0.0f, product = 0.0f;
  for (int i = threadIdx.x; i < width; i += blockDim.x) {
    const float value = to_float(x[row + i]);
    square += value * value;
    product += to_float(gradient[row + i]) * to_float(weight[i]) * value;
  }
  const float inverse = rsqrtf(block_sum(square) / width + epsilon);
  const float shared = block_sum(product) * inverse * inverse / width;
  for (int i = threadIdx.x; i < width; i += blockDim.x) {
    const float g = to_float(gradient[row + i]) * to_float(weight[i]);
    dx[row + i] = from_float<T>(inverse * (g - to_float(x[row + i]) * shared));
  }
}

#define INSTANTIATE(T, suffix)                                                                                                 \
  extern "C" __global__ void rms_norm_##suffix(const T *x, const T *weight, T *y, int width, float epsilon) {                 \
    forward(x, weight, y, width, epsilon);                                                                                     \
  }                                                                                                                            \
  extern "C" __global__ void rms_norm_backward_##suffix(const T *gradient, const T *x, const T *weight, T *dx, int width,      \
                                                        float epsilon) {                                                       \
    backward(gradient, x, weight, dx, width, epsilon);                                                                         \
  }
INSTANTIATE(float, f32)
INSTANTIATE(bf16, bf16)
