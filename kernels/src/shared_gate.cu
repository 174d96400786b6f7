// Sum plus shared times a sigmoid gate per row (shared_gate.rs).
#include "low_rank.cuh"
#include "segments.cuh"

// One block per row.
template <typename T> __device__ void add(const T *sum, const T *shared, const T *gates, T *output, int width) {
  const size_t start = (size_t)blockIdx.x * width;
  const float share = sigmoid(to_float(gates[blockIdx.x]));
  for (int i = threadIdx.x; i < width; i += blockDim.x) output[start + i] = from_float<T>(to_float(sum[start + i]) + to_float(shared[start + i]) * share);
}

// For decoding, with the adapters' part; rows of `shared` and `gates` are a stride apart. Block (x, y) has 256 columns of row y.
template <typename T>
__device__ void add_open(const T *sum, const float *shared, int stride, const LowRank<T> &adapters, const float *gates, int gate_stride, const LowRank<T> &gate_adapters,
                         float *output, int width) {
  wait_for_predecessor();
  start_successor();
  const int row = blockIdx.y, column = blockIdx.x * blockDim.x + threadIdx.x;
  if (column >= width) return;
  shared += (size_t)row * stride;
  gates += (size_t)row * gate_stride;
  const float share = sigmoid(gate_adapters.add(gates[0], gates + 1, 0));
  output[(size_t)row * width + column] = to_float(sum[(size_t)row * width + column]) + adapters.add(shared[column], shared + width, column) * share;
}

// One block per row of the gradient.
template <typename T>
__device__ void add_backward(const T *gradient, const T *shared, const T *gates, T *of_shared, int stride, T *of_gates, int gate_stride, int width) {
  const size_t start = (size_t)blockIdx.x * width;
  const float share = sigmoid(to_float(gates[blockIdx.x]));
  float sum = 0.0f;
  for (int i = threadIdx.x; i < width; i += blockDim.x) {
    const float own = to_float(gradient[start + i]);
    sum += own * to_float(shared[start + i]);
    of_shared[(size_t)blockIdx.x * stride + i] = from_float<T>(own * share);
  }
  sum = block_sum(sum);
  if (threadIdx.x == 0) of_gates[(size_t)blockIdx.x * gate_stride] = from_float<T>(sum * share * (1.0f - share));
}

#define INSTANTIATE(T, suffix)                                                                                                                    \
  extern "C" __global__ void shared_gate_##suffix(const T *sum, const T *shared, const T *gates, T *output, int width) {                          \
    add(sum, shared, gates, output, width);                                                                                                       \
  }                                                                                                                                               \
  extern "C" __global__ void shared_gate_open_##suffix(const T *sum, const float *shared, int stride, const T *b, int rank, const float *gates,   \
                                                       int gate_stride, const T *gate_b, int gate_rank, float *output, int width) {               \
    add_open<T>(sum, shared, stride, {b, rank}, gates, gate_stride, {gate_b, gate_rank}, output, width);                                          \
  }                                                                                                                                               \
  extern "C" __global__ void shared_gate_backward_##suffix(const T *gradient, const T *shared, const T *gates, T *of_shared, int stride,          \
                                                           T *of_gates, int gate_stride, int width) {                                             \
    add_backward(gradient, shared, gates, of_shared, stride, of_gates, gate_stride, width);                                                       \
  }
INSTANTIATE(float, f32)
INSTANTIATE(bf16, bf16)
