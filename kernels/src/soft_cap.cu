// Soft-capped logits and gradient (soft_cap.rs). One thread per element.
#include "numbers.cuh"

extern "C" __global__ void soft_cap(float *logits, float cap, unsigned long long count) {
  const size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
  if (i < count) logits[i] = cap * tanhf(logits[i] / cap);
}

template <typename T> __device__ void backward(T *gradient, const float *capped, float cap, unsigned long long count) {
  const size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= count) return;
  const float tanh = capped[i] / cap;
  gradient[i] = from_float<T>(to_float(gradient[i]) * (1.0f - tanh * tanh));
}
extern "C" __global__ void soft_cap_backward_f32(float *gradient, const float *capped, float cap, unsigned long long count) { backward(gradient, capped, cap, count); }
extern "C" __global__ void soft_cap_backward_bf16(bf16 *gradient, const float *capped, float cap, unsigned long long count) { backward(gradient, capped, cap, count); }
