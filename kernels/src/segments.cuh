// A batch's segments, and functions shared by operations of hybrid models.
#pragma once
#include "vectors.cuh"

// Segments as in attention/tiles.rs: [segments, 5] of start, length, prefix' start and length, rows with it as prefix; `owners`: segment of each row.
struct Segment {
  int start, length, prefix, prefix_length, readers;

  __device__ __forceinline__ Segment(const uint32_t *segments, int index) {
    const uint32_t *own = segments + 5 * (size_t)index;
    start = own[0], length = own[1], prefix = own[2], prefix_length = own[3], readers = own[4];
  }

  // The row `lag` tokens before token `token`, in the segment or its prefix; -1 before the first.
  __device__ __forceinline__ int row_before(int token, int lag) const {
    if (token >= lag) return start + token - lag;
    return prefix_length >= lag - token ? prefix + prefix_length - (lag - token) : -1;
  }
};

// State of a padding row in decoding.
constexpr uint32_t NONE = 0xffffffffu;

// Whether a row of `slots`, [rows, 2] of the states it continues from and leaves, continues from the previous row: rows of a sequence are adjacent.
__device__ __forceinline__ bool follows(const uint32_t *slots, int row) { return row > 0 && slots[2 * row] == slots[2 * row - 1]; }

__device__ __forceinline__ bool is_none(const uint32_t *slots, int row, int rows) { return row < rows && slots[2 * row] == NONE; }

__device__ __forceinline__ float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }
