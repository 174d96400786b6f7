// Matrices of experts in MXFP4 (kernels/src/mxfp4.rs): numbers of a sign, two bits of exponent and one of mantissa, 32 inputs sharing a power of two.
#pragma once
#include "tensor_cores.cuh"

struct Mxfp4 {
  const uint8_t *codes;     // [experts, outputs, inputs / 2]
  const uint8_t *exponents; // [experts, inputs / 32, outputs]
};

// Four pairs of numbers in bf16, exactly. The bits that `word` has of a number at the end of an exponent are the number times 2^-126; `exponent`: that of the
// scale times 2^126, as bf16 stores it.
__device__ __forceinline__ void widen_mxfp4(uint32_t (&pairs)[4], uint32_t word, uint32_t exponent) {
  constexpr uint32_t MASK = 0x81c081c0;
  pairs[0] = word & MASK;
  pairs[1] = word << 3 & MASK;
  pairs[2] = word << 6 & MASK;
  pairs[3] = (word << 1 & 0x80008000) | (word >> 5 & 0x01000100) | (word >> 4 & 0x00c000c0);
  const uint32_t factor = exponent * 0x00800080;
#pragma unroll
  for (int i = 0; i < 4; i++) {
    const __nv_bfloat162 pair = __hmul2(*reinterpret_cast<const __nv_bfloat162 *>(&pairs[i]), *reinterpret_cast<const __nv_bfloat162 *>(&factor));
    pairs[i] = *reinterpret_cast<const uint32_t *>(&pair);
  }
}
