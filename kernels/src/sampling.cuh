// Weights and masks of logits, and sampled tokens.
#pragma once
#include "vectors.cuh"

struct SampledToken {
  uint32_t token;
  float log_prob;
};

// In place of a token.
constexpr uint32_t NOT_FINITE = 0xffffffffu;

// e^x for x <= 0 with the same roundings as real.rs, so that both devices weigh f32 logits alike.
__device__ __forceinline__ float exponential(float x) {
  const float round = 12582912.0f;
  x = x < -87.0f ? -87.0f : x;
  x = x > 88.0f ? 88.0f : x;
  const float shifted = __fadd_rn(__fmul_rn(x, 1.44269504088896340736f), round);
  const float n = __fsub_rn(shifted, round);
  const float r = __fsub_rn(__fsub_rn(x, __fmul_rn(n, 0.6933594f)), __fmul_rn(n, -2.1219444e-4f));
  float p = 1.9875691e-4f;
  p = __fadd_rn(__fmul_rn(p, r), 1.3981999e-3f);
  p = __fadd_rn(__fmul_rn(p, r), 8.333452e-3f);
  p = __fadd_rn(__fmul_rn(p, r), 4.1665796e-2f);
  p = __fadd_rn(__fmul_rn(p, r), 1.6666665e-1f);
  p = __fadd_rn(__fmul_rn(p, r), 0.5f);
  const float value = __fadd_rn(__fadd_rn(__fmul_rn(__fmul_rn(p, r), r), r), 1.0f);
  return __fmul_rn(value, __uint_as_float((__float_as_uint(shifted) + 127u) << 23));
}

// Allowed tokens: all, or those whose bits are set.
template <bool MASKED> struct Allowed {
  const uint32_t *bits;

  __device__ __forceinline__ bool has(int id) const { return !MASKED || bits[id / 32] >> (id % 32) & 1; }
};
