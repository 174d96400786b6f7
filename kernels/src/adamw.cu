// AdamW update of flat buffers, their Euclidean norm, and the bf16 working copy.
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

// `table`: one row per tensor (blockIdx.y): first element, columns, count, address, row stride, column stride, bits of the scale.
template <typename T> __device__ void write_copies(const float *flat, const long long *table) {
  table += 7 * blockIdx.y;
  const float *from = flat + table[0], scale = __int_as_float((int)table[6]);
  const int columns = (int)table[1], count = (int)table[2];
  T *to = reinterpret_cast<T *>(table[3]);
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += gridDim.x * blockDim.x)
    to[i / columns * table[4] + i % columns * table[5]] = from_float<T>(from[i] * scale);
}

extern "C" __global__ void write_copies_f32(const float *flat, const long long *table) { write_copies<float>(flat, table); }
extern "C" __global__ void write_copies_bf16(const float *flat, const long long *table) { write_copies<bf16>(flat, table); }

// Sum of squares per block -> partial: [blocks].
template <typename T> __device__ void squares(const T *numbers, double *partial, unsigned long long count) {
  double sum = 0.0;
  const size_t stride = (size_t)gridDim.x * blockDim.x;
#pragma unroll 4
  for (size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += stride) {
    const double number = to_float(numbers[i]);
    sum += number * number;
  }
  sum = block_sum(sum);
  if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

extern "C" __global__ void squares_f32(const float *numbers, double *partial, unsigned long long count) { squares<float>(numbers, partial, count); }
extern "C" __global__ void squares_bf16(const bf16 *numbers, double *partial, unsigned long long count) { squares<bf16>(numbers, partial, count); }

// One block.
extern "C" __global__ void total(const double *partial, double *sum, int parts) {
  double own = 0.0;
  for (int i = threadIdx.x; i < parts; i += blockDim.x) own += partial[i];
  own = block_sum(own);
  if (threadIdx.x == 0) *sum = own;
}
