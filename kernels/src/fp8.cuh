// Four e4m3 numbers in a word, for a cheap conversion to bf16: each half has the first's sign in bit 15 and its other bits in 10 to 4, the second's sign in bit
// 11, the upper three bits of its exponent in 14 to 12 and its other four in 3 to 0.
#pragma once
#include <stdint.h>

__device__ __forceinline__ uint32_t packed_half(uint32_t first, uint32_t second) {
  return (first & 0x80) << 8 | (first & 0x7f) << 4 | (second & 0x80) << 4 | (second & 0x70) << 8 | (second & 0xf);
}

// As bf16, e4m3's exponents are too small by 120.
__device__ __forceinline__ uint32_t enlarged(uint32_t pair) {
  const uint32_t factor = 0x7b807b80;
  uint32_t result;
#if __CUDA_ARCH__ >= 900
  asm("mul.rn.bf16x2 %0, %1, %2;" : "=r"(result) : "r"(pair), "r"(factor));
#else
  asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(result) : "r"(pair), "r"(factor), "r"(0x80008000)); // plus -0: the same numbers
#endif
  return result;
}
// First elements of both halves in bf16, and second.
__device__ __forceinline__ uint32_t first_pair(uint32_t word) { return enlarged(word & 0x87f087f0); }
__device__ __forceinline__ uint32_t second_pair(uint32_t word) { return enlarged((word << 4 & 0x80f080f0) | (word >> 4 & 0x07000700)); }

// A frozen matrix, as the kernels of decoding read it (quantized_decode.cu). A lane has, of a warp's sixteen outputs, g and g + 8; of each sixteen inner indices the
// two from 2 t on and the two from 2 t + 8 on.
struct Fp8 {
  static constexpr int CHUNKS = 1; // 64 inner indices each, that a lane reads at once
  const uint8_t *codes;            // [outputs, inputs]
  const float *scales;             // [outputs]: factors of the sums

  struct Shared {};
  struct Read {
    uint4 words[2];
  };
  struct Lane {
    const uint8_t *from[2];

    // `first`: chunk where the block's part of the inner index starts.
    template <typename Sizes> __device__ Lane(const Fp8 &w, const Shared &, int row, int below, int t, const Sizes &n, int first) {
      from[0] = w.codes + (size_t)row * n.inputs + first * 64 + 16 * t;
      from[1] = w.codes + (size_t)below * n.inputs + first * 64 + 16 * t;
    }
    template <uint4 READ(const void *)> __device__ __forceinline__ void fetch(Read &to, int index) const {
#pragma unroll
      for (int j = 0; j < 2; j++) to.words[j] = READ(from[j] + index * 64);
    }
    __device__ __forceinline__ void start() {}
    __device__ __forceinline__ void prepare(const Read &, int) {}
    // As operands of four products over sixteen inner indices.
    __device__ __forceinline__ void widen(uint32_t (&a)[4][4], const Read &read, int) const {
#pragma unroll
      for (int q = 0; q < 4; q++)
#pragma unroll
        for (int j = 0; j < 2; j++) {
          const uint4 &words = read.words[j];
          const uint32_t word = q == 0 ? words.x : q == 1 ? words.y : q == 2 ? words.z : words.w;
          a[q][j] = first_pair(word);
          a[q][j + 2] = second_pair(word);
        }
    }
  };
  static __device__ __forceinline__ void share(const Fp8 &, Shared &) {}
  __device__ __forceinline__ float scaled(float sum, int output) const { return sum * scales[output]; }

  // Eight pairs of numbers of 64 columns of a row: from 2 t + 8 i on.
  __device__ __forceinline__ void pairs(float2 (&found)[8], const Shared &, int row, int block, int t, int columns, int) const {
    const uint4 words = *reinterpret_cast<const uint4 *>(codes + (size_t)row * columns + block * 64 + 16 * t);
    const float scale = scales[row];
#pragma unroll
    for (int i = 0; i < 8; i++) {
      const uint32_t word = i / 2 == 0 ? words.x : i / 2 == 1 ? words.y : i / 2 == 2 ? words.z : words.w;
      const uint32_t wide = i % 2 ? second_pair(word) : first_pair(word);
      found[i] = make_float2(__uint_as_float(wide << 16) * scale, __uint_as_float(wide & 0xffff0000) * scale);
    }
  }
};
