// Attention times a sigmoid gate (attention_gate.rs); blocks: (rows, columns / 256). A packed row: per query head its query and gate, then keys and values.
#include "segments.cuh"

// What a column of a packed row belongs to: a gate, or queries, keys and values.
struct Column {
  bool is_gate;
  int at;

  __device__ __forceinline__ Column(int column, int query_width, int size) {
    const int pair = column / (2 * size), inside = column % (2 * size);
    is_gate = column < 2 * query_width && inside >= size;
    at = column >= 2 * query_width ? column - query_width : pair * size + (is_gate ? inside - size : inside);
  }
};

template <typename T, typename O> __device__ void split(const T *packed, O *own, T *gates, int width, int query_width, int size) {
  const size_t row = blockIdx.x;
  const int index = blockIdx.y * blockDim.x + threadIdx.x;
  if (index >= width + query_width) return;
  const Column column(index, query_width, size);
  const T number = packed[row * (width + query_width) + index];
  if (column.is_gate) gates[row * query_width + column.at] = number;
  else own[row * width + column.at] = from_float<O>(to_float(number));
}

template <typename T> __device__ void join(const T *own, const T *gates, T *packed, int stride, int width, int query_width, int size) {
  const size_t row = blockIdx.x;
  const int index = blockIdx.y * blockDim.x + threadIdx.x;
  if (index >= width + query_width) return;
  const Column column(index, query_width, size);
  packed[row * stride + index] = column.is_gate ? gates[row * query_width + column.at] : own[row * width + column.at];
}

template <typename T> __device__ void gated(const T *attended, const T *gates, T *output, int stride, int width) {
  const size_t row = blockIdx.x;
  const int column = blockIdx.y * blockDim.x + threadIdx.x;
  if (column < width) output[row * stride + column] = from_float<T>(to_float(attended[row * width + column]) * sigmoid(to_float(gates[row * width + column])));
}

template <typename T> __device__ void gated_backward(const T *gradient, const T *attended, const T *gates, T *of_attended, T *of_gates, int width) {
  const int column = blockIdx.y * blockDim.x + threadIdx.x;
  if (column >= width) return;
  const size_t at = (size_t)blockIdx.x * width + column;
  const float share = sigmoid(to_float(gates[at])), own = to_float(gradient[at]);
  of_attended[at] = from_float<T>(own * share);
  of_gates[at] = from_float<T>(own * to_float(attended[at]) * share * (1.0f - share));
}

#define INSTANTIATE(T, suffix)                                                                                                                          \
  extern "C" __global__ void attention_gate_split_##suffix(const T *packed, T *own, T *gates, int width, int query_width, int size) {                   \
    split(packed, own, gates, width, query_width, size);                                                                                               \
  }                                                                                                                                                     \
  extern "C" __global__ void attention_gate_split_open_##suffix(const T *packed, float *own, T *gates, int width, int query_width, int size) {          \
    split(packed, own, gates, width, query_width, size);                                                                                               \
  }                                                                                                                                                     \
  extern "C" __global__ void attention_gate_join_##suffix(const T *own, const T *gates, T *packed, int stride, int width, int query_width, int size) {  \
    join(own, gates, packed, stride, width, query_width, size);                                                                                        \
  }                                                                                                                                                     \
  extern "C" __global__ void attention_gate_##suffix(const T *attended, const T *gates, T *output, int stride, int width) {                             \
    gated(attended, gates, output, stride, width);                                                                                                     \
  }                                                                                                                                                     \
  extern "C" __global__ void attention_gate_backward_##suffix(const T *gradient, const T *attended, const T *gates, T *of_attended, T *of_gates,        \
                                                              int width) {                                                                             \
    gated_backward(gradient, attended, gates, of_attended, of_gates, width);                                                                           \
  }
INSTANTIATE(float, f32)
INSTANTIATE(bf16, bf16)
