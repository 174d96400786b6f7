// y[row, :] += bias, one thread an element; rows of y begin `stride` numbers apart.
#include "numbers.cuh"

template <typename T, typename B> __device__ void add(T *y, int stride, const B *bias, long long count, int width) {
  const long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= count) return;
  T &number = y[i / width * stride + i % width];
  number = from_float<T>(to_float(number) + to_float(bias[i % width]));
}

extern "C" __global__ void add_bias_f32(float *y, int stride, const float *bias, long long count, int width) { add(y, stride, bias, count, width); }
extern "C" __global__ void add_bias_bf16(bf16 *y, int stride, const bf16 *bias, long long count, int width) { add(y, stride, bias, count, width); }
extern "C" __global__ void add_bias_bf16_into_f32(float *y, int stride, const bf16 *bias, long long count, int width) { add(y, stride, bias, count, width); }
