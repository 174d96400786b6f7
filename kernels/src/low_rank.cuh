// The adapters' part of rows in decoding: A products after a row, `rank` per part, times B, [outputs, rank], rounded with the row as in training, where one
// product has both. The rank is a multiple of 8. `b` null: none.
#pragma once
#include "tensor_cores.cuh"
#include "vectors.cuh"

__device__ __forceinline__ float rounded(float x) { return to_float(from_float<bf16>(x)); }

// One element at a time.
template <typename T> struct LowRank {
  const T *b;
  int rank;

  // `value`: of a column; `inner`: A products of the part.
  __device__ __forceinline__ float add(float value, const float *inner, int column) const {
    for (int first = 0; b && first < rank; first += 8) {
      const Pack<T, 8> weights = load<8>(b + (size_t)column * rank + first);
#pragma unroll
      for (int r = 0; r < 8; r++) value += to_float(from_float<T>(inner[first + r])) * to_float(weights.at[r]);
    }
    return to_float(from_float<T>(value));
  }
};

// A warp's sixteen rows and columns: with g = lane / 4 and t = lane % 4 a lane has columns 4 t to + 3 of rows g (`low`) and g + 8 (`high`).
struct Tile {
  float low[4], high[4];

  __device__ __forceinline__ void read(const float *low_row, const float *high_row, int t) {
    const Pack<float, 4> a = load<4>(low_row + 4 * t), b = load<4>(high_row + 4 * t);
#pragma unroll
    for (int k = 0; k < 4; k++) low[k] = a.at[k], high[k] = b.at[k];
  }
};

// On tensor cores, for adjacent tiles. The order of inner indices is free as long as both operands agree, so a lane reads ranks 4 t to + 3 at once; so is the
// order of columns, so that it has four adjacent ones from two products.
template <int TILES> struct TensorLowRank {
  const bf16 *b; // from the first tile's first column on
  int rank, stride, g, t; // stride: of rows of B
  uint2 first[TILES][2]; // of the first sixteen ranks: B does not depend on earlier kernels

  __device__ __forceinline__ TensorLowRank(const bf16 *b, int column, int rank) : TensorLowRank(b, column, rank, rank) {}
  __device__ __forceinline__ TensorLowRank(const bf16 *b, int column, int rank, int stride)
      : b(b ? b + (size_t)column * stride : b), rank(rank), stride(stride), g(threadIdx.x % 32 / 4), t(threadIdx.x % 4) {
    if (b) read(first, 0);
  }

  __device__ __forceinline__ void read(uint2 (&to)[TILES][2], int start) const {
#pragma unroll
    for (int i = 0; i < TILES; i++)
#pragma unroll
      for (int j = 0; j < 2; j++) {
        const bf16 *from = b + (size_t)(16 * i + 4 * (g / 2) + 2 * j + g % 2) * stride + start + 4 * t;
        to[i][j] = start + 4 * t < rank ? *reinterpret_cast<const uint2 *>(from) : make_uint2(0, 0);
      }
  }

  // `low`, `high`: A products of rows g and g + 8.
  __device__ __forceinline__ void add(Tile (&tiles)[TILES], const float *low, const float *high) const {
    for (int start = 0; b && start < rank; start += 16) {
      Pack<float, 4> a = {}, c = {};
      if (start + 4 * t < rank) a = load<4>(low + start + 4 * t), c = load<4>(high + start + 4 * t);
      const uint32_t inner[4] = {pack(a.at[0], a.at[1]), pack(c.at[0], c.at[1]), pack(a.at[2], a.at[3]), pack(c.at[2], c.at[3])};
      uint2 own[TILES][2];
      if (start > 0) read(own, start);
#pragma unroll
      for (int i = 0; i < TILES; i++) {
        Tile &tile = tiles[i];
#pragma unroll
        for (int j = 0; j < 2; j++) {
          const uint2 weights = start > 0 ? own[i][j] : first[i][j];
          float sums[4] = {tile.low[2 * j], tile.low[2 * j + 1], tile.high[2 * j], tile.high[2 * j + 1]};
          multiply(sums, inner, weights.x, weights.y);
          tile.low[2 * j] = sums[0], tile.low[2 * j + 1] = sums[1], tile.high[2 * j] = sums[2], tile.high[2 * j + 1] = sums[3];
        }
      }
    }
#pragma unroll
    for (int i = 0; i < TILES; i++)
#pragma unroll
      for (int k = 0; k < 4; k++) tiles[i].low[k] = rounded(tiles[i].low[k]), tiles[i].high[k] = rounded(tiles[i].high[k]);
  }
};

// A lane's two rows of `count`, sixteen per block of blockIdx.y; rows beyond the last are clamped to it.
struct TwoRows {
  int low, high;

  __device__ __forceinline__ TwoRows(int count) {
    low = blockIdx.y * 16 + threadIdx.x % 32 / 4;
    high = min(low + 8, count - 1);
    low = min(low, count - 1);
  }
};
