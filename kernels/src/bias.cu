// y[row, :] += bias, one thread per element.
#include "numbers.cuh"

template <typename T> __device__ void add(T *y, const T *bias, long long count, int width) {
  const long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
  if (i < count) y[i] = from_float<T>(to_float(y[i]) + to_float(bias[i % width]));
}

extern "C" __global__ void add_bias_f32(float *y, const float *bias, long long count, int width) { add(y, bias, count, width); }
extern "C" __global__ void add_bias_bf16(bf16 *y, const bf16 *bias, long long count, int width) { add(y, bias, count, width); }
