// Products of 16 x 16 by 16 x 8 bf16 matrices on tensor cores, and loads of their operands from shared memory.
//
// In a 16 x 8 result, lane l of a warp holds columns 2 (l % 4) and + 1: elements 0 and 1 in row l / 4, elements 2 and 3 in row l / 4 + 8.
#pragma once
#include "numbers.cuh"

// d += a x b; a: 16 x 16 by rows, b: 16 x 8 by columns.
__device__ __forceinline__ void multiply(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};\n"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Loads four 8 x 8 matrices; lanes 8 i to 8 i + 7 hold the addresses of matrix i's rows, 16 bytes each.
__device__ __forceinline__ void load_matrices(uint32_t (&to)[4], const bf16 *row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];\n"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"((uint32_t)__cvta_generic_to_shared(row))
               : "memory");
}

// Likewise, each matrix transposed.
__device__ __forceinline__ void load_matrices_transposed(uint32_t (&to)[4], const bf16 *row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];\n"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"((uint32_t)__cvta_generic_to_shared(row))
               : "memory");
}

// Starts a copy of 16 bytes to shared memory; zeros, without reading `from`, if not `inside`.
__device__ __forceinline__ void copy_async(void *to, const void *from, bool inside) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"((uint32_t)__cvta_generic_to_shared(to)), "l"(from),
               "r"(inside ? 16 : 0)
               : "memory");
}

// Likewise, of one f32.
__device__ __forceinline__ void copy_number_async(float *to, const float *from, bool inside) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;\n" ::"r"((uint32_t)__cvta_generic_to_shared(to)), "l"(from),
               "r"(inside ? 4 : 0)
               : "memory");
}

// Waits for this thread's copies; those of others need a barrier afterwards.
__device__ __forceinline__ void copies_done() { asm volatile("cp.async.wait_all;\n" ::: "memory"); }

// Closes a group of copies; waits for this thread's groups in order, except the `LATER` newest.
__device__ __forceinline__ void copies_commit() { asm volatile("cp.async.commit_group;\n" ::: "memory"); }
template <int LATER> __device__ __forceinline__ void copies_wait() { asm volatile("cp.async.wait_group %0;\n" ::"n"(LATER) : "memory"); }

// Transposes an 8 x 8 matrix of which lane l holds columns 2 (l % 4) and + 1 of row l / 4.
__device__ __forceinline__ uint32_t transpose(uint32_t pair) {
  uint32_t result;
  asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;\n" : "=r"(result) : "r"(pair));
  return result;
}

// Two numbers as bf16, the first in the lower half.
__device__ __forceinline__ uint32_t pack(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<const uint32_t *>(&pair);
}
