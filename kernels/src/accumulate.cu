// target += addend, four elements per thread.
#include "vectors.cuh"

template <typename T, typename A> __device__ void accumulate(T *target, const A *addend, size_t count) {
  const size_t at = ((size_t)blockIdx.x * blockDim.x + threadIdx.x) * 4;
  if (at + 4 <= count && aligned(target, 4 * sizeof(T)) && aligned(addend, 4 * sizeof(A))) {
    Pack<T, 4> sum = load<4>(target + at);
    const Pack<A, 4> more = load<4>(addend + at);
#pragma unroll
    for (int k = 0; k < 4; k++) sum.at[k] = from_float<T>(to_float(sum.at[k]) + to_float(more.at[k]));
    store<4>(target + at, sum);
    return;
  }
  for (size_t i = at; i < at + 4 && i < count; i++) target[i] = from_float<T>(to_float(target[i]) + to_float(addend[i]));
}

extern "C" __global__ void accumulate_f32(float *target, const float *addend, unsigned long long count) {
  accumulate(target, addend, count);
}
extern "C" __global__ void accumulate_bf16(bf16 *target, const bf16 *addend, unsigned long long count) {
  accumulate(target, addend, count);
}
extern "C" __global__ void accumulate_bf16_into_f32(float *target, const bf16 *addend, unsigned long long count) {
  accumulate(target, addend, count);
}
