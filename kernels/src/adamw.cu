// One optimizer update of flat buffers, their Euclidean norm, and the working copy in bf16.
#include "vectors.cuh"

// `working` may be null.
extern "C" __global__ void adamw(float *parameters, float *firsts, float *seconds, const float *gradient, bf16 *working, unsigned long long count,
                                 float gradient_scale, float keep_first, float add_first, float keep_second, float add_second,
                                 float correct_first, float correct_second, float keep, float epsilon) {
  const size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= count) return;
  const float g = gradient[i] * gradient_scale;
  const float first = keep_first * firsts[i] + add_first * g;
  const float second = keep_second * seconds[i] + add_second * (g * g);
  const float moved = keep * parameters[i] - correct_first * first / (sqrtf(second * correct_second) + epsilon);
  firsts[i] = first;
  seconds[i] = second;
  parameters[i] = moved;
  if (working) working[i] = from_float<bf16>(moved);
}

extern "C" __global__ void cast(const float *source, bf16 *target, unsigned long long count) {
  const size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
  if (i < count) target[i] = from_float<bf16>(source[i]);
}

// The sum of squares that each block sees -> partial: [blocks].
extern "C" __global__ void squares(const float *numbers, double *partial, unsigned long long count) {
  double sum = 0.0;
  const size_t stride = (size_t)gridDim.x * blockDim.x;
#pragma unroll 4
  for (size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += stride) {
    const double number = numbers[i];
    sum += number * number;
  }
  sum = block_sum(sum);
  if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

// One block.
extern "C" __global__ void total(const double *partial, double *sum, int parts) {
  double own = 0.0;
  for (int i = threadIdx.x; i < parts; i += blockDim.x) own += partial[i];
  own = block_sum(own);
  if (threadIdx.x == 0) *sum = own;
}
