// Fresh weights: uniform in [-bound, bound), number `index` of stream `stream` of the seed.
#include "numbers.cuh"
#include "philox.cuh"

template <typename T> __device__ void fill(T *output, unsigned long long seed, uint32_t stream, double bound, unsigned long long count) {
  const unsigned long long index = (unsigned long long)blockIdx.x * blockDim.x + threadIdx.x;
  if (index >= count) return;
  const double number = uniform(seed, {stream, 0xffffffffu, 0xffffffffu, (uint32_t)index});
  output[index] = from_float<T>((float)(bound * (2.0 * number - 1.0)));
}

extern "C" __global__ void uniform_weights_f32(float *output, unsigned long long seed, unsigned int stream, double bound,
                                               unsigned long long count) {
  fill(output, seed, stream, bound, count);
}
extern "C" __global__ void uniform_weights_bf16(bf16 *output, unsigned long long seed, unsigned int stream, double bound,
                                                unsigned long long count) {
  fill(output, seed, stream, bound, count);
}
