// Frozen matrices in NF4 with double quantization (nf4.rs). A number is that of its code times the scale of its block of 64 inner indices, rounded to bf16; the
// scale is the number of its own code times that of 256 blocks, plus an offset.
#pragma once
#include "tensor_cores.cuh"
#include <stdint.h>

// Code of the number nearest to x, the lower one of two; 0 if x is NaN. `numbers`: COUNT, ascending.
template <int COUNT> __device__ __forceinline__ uint32_t nearest(const float *numbers, float x) {
  uint32_t code = 0;
#pragma unroll
  for (int step = COUNT / 2; step > 0; step /= 2)
    if (x > __fmul_rn(__fadd_rn(numbers[code + step - 1], numbers[code + step]), 0.5f)) code += step;
  return code;
}

// The members are those of `Fp8` (fp8.cuh).
struct Nf4 {
  static constexpr int CHUNKS = 2;
  static constexpr int NUMBERS = 16, SCALES = 256, BLOCK = 64, GROUP = 256, TABLES_BIT = 24; // nf4.rs, quantized.rs
  const uint8_t *codes;         // [outputs, reads, 64], a read for each 128 inner indices: sixteen bytes each for lanes t, four words of 32 inner indices; the codes
                                // of the first sixteen are in the lower halves of a word's bytes
  const uint8_t *scale_codes;   // [reads, outputs, 2]
  const float2 *groups;         // scale and offset of GROUP blocks
  const uint32_t *first_blocks; // [outputs]: number of a row's first block among those of the groups, and that of its tables from TABLES_BIT
  const float *tables;          // [parts, NUMBERS + SCALES]: of codes, the same for all, and of scale codes

  struct Shared {
    float numbers[NUMBERS];
  };
  struct Read {
    uint4 words[2];
    uint32_t scale_code;
  };
  // Where the scales of a row's blocks are.
  struct Row {
    const float *scales;
    uint32_t first_block;
    __device__ __forceinline__ Row(const Nf4 &w, int row) {
      const uint32_t first = w.first_blocks[row];
      scales = w.tables + (first >> TABLES_BIT) * (NUMBERS + SCALES) + NUMBERS;
      first_block = first & ((1u << TABLES_BIT) - 1);
    }
  };
  static __device__ __forceinline__ float scale(float number, float2 group) { return __fadd_rn(__fmul_rn(number, group.x), group.y); }
  struct Lane {
    const Nf4 &w;
    const Shared &shared;
    const uint8_t *from[2], *scale_code;
    int own_row, own_block, pitch; // of the four scales of two rows and two blocks, lane t computes that of row t % 2 and block t / 2
    const float *own_scales;
    uint32_t block, group_number;
    float2 group;
    float scales[2][2];

    template <typename Sizes> __device__ Lane(const Nf4 &w, const Shared &shared, int row, int below, int t, const Sizes &n, int first) : w(w), shared(shared) {
      const int reads = (n.inputs + 127) / 128, read = first / 2;
      from[0] = w.codes + ((size_t)row * reads + read) * 64 + 16 * t;
      from[1] = w.codes + ((size_t)below * reads + read) * 64 + 16 * t;
      own_row = t % 2 ? below : row;
      own_block = first + t / 2;
      pitch = 2 * n.outputs;
      scale_code = w.scale_codes + (size_t)read * pitch + 2 * own_row + t / 2;
    }
    template <uint4 READ(const void *)> __device__ __forceinline__ void fetch(Read &to, int index) const {
#pragma unroll
      for (int j = 0; j < 2; j++) to.words[j] = READ(from[j] + index * 64);
      to.scale_code = __ldg(scale_code + (size_t)index * pitch);
    }
    // After the first reads, for which this would wait.
    __device__ __forceinline__ void start() {
      const Row row(w, own_row);
      own_scales = row.scales;
      block = row.first_block + own_block;
      group_number = block / GROUP;
      group = w.groups[group_number];
    }
    __device__ __forceinline__ void prepare(const Read &read, int index) {
      const uint32_t number = (block + 2 * index) / GROUP;
      if (number != group_number) {
        group_number = number;
        group = w.groups[number];
      }
      const float own = Nf4::scale(own_scales[read.scale_code], group);
#pragma unroll
      for (int j = 0; j < 2; j++)
#pragma unroll
        for (int h = 0; h < 2; h++) scales[j][h] = __shfl_sync(0xffffffffu, own, j + 2 * h, 4);
    }
    __device__ __forceinline__ void widen(uint32_t (&a)[4][4], const Read &read, int part) const {
#pragma unroll
      for (int q = 0; q < 4; q++)
#pragma unroll
        for (int j = 0; j < 2; j++) {
          const uint4 &words = read.words[j];
          const uint32_t word = q < 2 ? (part ? words.z : words.x) : (part ? words.w : words.y), offsets = places(word, q % 2);
          const float scale = part ? scales[j][1] : scales[j][0];
          a[q][j] = pack(number(shared, offsets, 0) * scale, number(shared, offsets, 1) * scale);
          a[q][j + 2] = pack(number(shared, offsets, 2) * scale, number(shared, offsets, 3) * scale);
        }
    }
  };
  // Four codes of a word, a byte each, times the size of a number.
  static __device__ __forceinline__ uint32_t places(uint32_t word, bool upper) { return (upper ? word >> 2 : word << 2) & 0x3c3c3c3c; }
  static __device__ __forceinline__ float number(const Shared &shared, uint32_t places, int index) {
    return *reinterpret_cast<const float *>(reinterpret_cast<const char *>(shared.numbers) + __byte_perm(places, 0, 0x4440 + index));
  }
  static __device__ __forceinline__ void share(const Nf4 &w, Shared &shared) {
    if (threadIdx.x < NUMBERS) shared.numbers[threadIdx.x] = w.tables[threadIdx.x];
  }
  __device__ __forceinline__ float scaled(float sum, int) const { return sum; }

  __device__ __forceinline__ void pairs(float2 (&found)[8], const Shared &shared, int row, int block, int t, int columns, int rows) const {
    const int reads = (columns + 127) / 128;
    const uint2 words = *reinterpret_cast<const uint2 *>(codes + ((size_t)row * reads + block / 2) * 64 + 16 * t + 8 * (block % 2));
    const Row own(*this, row);
    const float factor = scale(own.scales[scale_codes[((size_t)(block / 2) * rows + row) * 2 + block % 2]], groups[(own.first_block + block) / GROUP]);
#pragma unroll
    for (int i = 0; i < 8; i++) {
      const uint32_t offsets = places(i < 4 ? words.x : words.y, i / 2 % 2);
      const uint32_t both = pack(number(shared, offsets, 2 * (i % 2)) * factor, number(shared, offsets, 2 * (i % 2) + 1) * factor);
      found[i] = make_float2(__uint_as_float(both << 16), __uint_as_float(both & 0xffff0000));
    }
  }
};
