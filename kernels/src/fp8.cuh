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
