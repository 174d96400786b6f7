// Philox 4x32-10 as in philox.rs. Initial weights: uniform in [-bound, bound), element `index` of stream `stream` of the seed.
#include "numbers.cuh"

struct Counter {
  uint32_t a, b, c, d;
};

__device__ __forceinline__ Counter philox(uint64_t seed, Counter counter) {
  uint32_t low = (uint32_t)seed, high = (uint32_t)(seed >> 32);
#pragma unroll
  for (int round = 0; round < 10; round++) {
    const uint64_t first = (uint64_t)counter.a * 0xD2511F53u, second = (uint64_t)counter.c * 0xCD9E8D57u;
    counter = {(uint32_t)(second >> 32) ^ counter.b ^ low, (uint32_t)second, (uint32_t)(first >> 32) ^ counter.d ^ high, (uint32_t)first};
    low += 0x9E3779B9u;
    high += 0xBB67AE85u;
  }
  return counter;
}

// In [0, 1), with 53 random bits.
__device__ __forceinline__ double uniform(uint64_t seed, Counter place) {
  const Counter bits = philox(seed, place);
  return (double)(((uint64_t)bits.a << 21) | (bits.b >> 11)) * (1.0 / 9007199254740992.0);
}

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
