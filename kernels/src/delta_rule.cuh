// Shared by the kernels of the gated delta rule (delta_rule.rs) for a token: S' = a S, u = b (v - S'^T k), S = S' + k u^T, output S^T q; S: [key dimension,
// value dimension], one state per value head. Heads have at most 128 columns.
#pragma once
#include "segments.cuh"

constexpr int MOST = 128, SLICE = 32;

struct Heads {
  int key, value, key_dimension, value_dimension;

  __device__ __forceinline__ int key_width() const { return key * key_dimension; }
  __device__ __forceinline__ int value_width() const { return value * value_dimension; }
  __device__ __forceinline__ int row_width() const { return 2 * key_width() + value_width(); }
  __device__ __forceinline__ size_t state() const { return (size_t)key_dimension * value_dimension; }
  __device__ __forceinline__ int slices() const { return (value_dimension + SLICE - 1) / SLICE; }
  // Value heads per key head, and the key head of a value head.
  __device__ __forceinline__ int sharing() const { return value / key; }
  __device__ __forceinline__ int key_of(int head) const { return head / sharing(); }
};

// Of a row and value head: b, log a, the slope of softplus, and for a decoded token the product of query and key.
struct alignas(16) Gate {
  float strength, log_decay, slope, product;
};

// A token's raw inputs: queries and keys before normalisation, logits of b and the decay.
template <typename T> struct Inputs {
  const T *convolved, *packed; // [rows, row_width]; [rows, stride], logits from `column` on
  const T *decay, *bias;       // [value heads]
  int stride, column;

  __device__ __forceinline__ Gate gate(const Heads &heads, int row, int head) const {
    const T *numbers = packed + (size_t)row * stride + column;
    const float x = to_float(numbers[heads.value + head]) + to_float(bias[head]);
    return {sigmoid(to_float(numbers[head])), -expf(to_float(decay[head])) * (fmaxf(x, 0.0f) + log1pf(expf(-fabsf(x)))), sigmoid(x), 0.0f};
  }
};

// Factor that normalises a vector, from its sum of squares.
__device__ __forceinline__ float inverse_length(float squares) { return rsqrtf(squares + 1e-6f); }

template <typename T> __device__ __forceinline__ float value_at(const T *vector, int index, int width) { return index < width ? to_float(vector[index]) : 0.0f; }

#define HEADS int key, int value, int key_dimension, int value_dimension
#define INPUTS(T) const T *convolved, const T *packed, const T *decay, const T *bias, int stride, int column
