// Products by four warps (wgmma, compute capability 9.0a) with operands from shared memory, asynchronous. Lanes hold a result as in tensor_cores.cuh, each warp
// sixteen of its 64 rows.
#pragma once
#include "tensor_cores.cuh"

#ifdef __CUDA_ARCH_FEAT_SM90_ALL
#define HAS_WARPGROUPS

// Rows of 64 bf16 numbers, 128 bytes each, with 16-byte piece i of row r at i xor (r modulo 8); the first row at a multiple of 1,024 bytes. Eight rows are
// 1,024 bytes. `across`: bytes to the next 64 columns, if columns are adjacent inner indices.
__device__ __forceinline__ uint64_t describe(const bf16 *from, uint32_t across) {
  const uint64_t address = __cvta_generic_to_shared(from);
  return (address & 0x3ffff) >> 4 | (uint64_t)(across >> 4) << 16 | (uint64_t)(1024 >> 4) << 32 | 1ull << 62;
}

// Makes this thread's writes to shared memory visible to products; others' need a barrier afterwards.
__device__ __forceinline__ void show_to_products() { asm volatile("fence.proxy.async.shared::cta;\n" ::: "memory"); }

// Between `products_start` and `products_end` do not touch results and operands in registers. Waits for committed products in order, except the `later` newest.
__device__ __forceinline__ void products_start() { asm volatile("wgmma.fence.sync.aligned;\n" ::: "memory"); }
__device__ __forceinline__ void products_commit() { asm volatile("wgmma.commit_group.sync.aligned;\n" ::: "memory"); }
// The waiting alone: results stay untouchable.
template <int LATER> __device__ __forceinline__ void products_wait() { asm volatile("wgmma.wait_group.sync.aligned %0;\n" ::"n"(LATER) : "memory"); }
template <int LATER, int N> __device__ __forceinline__ void products_end(float (&d)[N][4]) {
  products_wait<LATER>();
#pragma unroll
  for (int n = 0; n < N; n++) asm volatile("" : "+f"(d[n][0]), "+f"(d[n][1]), "+f"(d[n][2]), "+f"(d[n][3])::"memory");
}

#define FOUR(d, n) "+f"(d[n][0]), "+f"(d[n][1]), "+f"(d[n][2]), "+f"(d[n][3])
#define FOURS_2(d, n) FOUR(d, n), FOUR(d, n + 1)
#define FOURS_4(d, n) FOURS_2(d, n), FOURS_2(d, n + 2)
#define FOURS_8(d, n) FOURS_4(d, n), FOURS_4(d, n + 4)
#define FOURS_16(d, n) FOURS_8(d, n), FOURS_8(d, n + 8)
#define FOURS_32(d, n) FOURS_16(d, n), FOURS_16(d, n + 16)
#define RESULTS_64(d) FOURS_8(d, 0)
#define RESULTS_128(d) FOURS_16(d, 0)
#define NUMBERS_64                                                                                                             \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, "   \
  "%26, %27, %28, %29, %30, %31"
#define NUMBERS_128                                                                                                            \
  NUMBERS_64 ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, "     \
             "%53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"

// d (+)= 64 x 16 of a times the transpose of 64 x 16 of b.
__device__ __forceinline__ void multiply_rows(float (&d)[8][4], uint64_t a, uint64_t b, bool adds) {
  asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %34, 0;\n"
               "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" NUMBERS_64 "}, %32, %33, p, 1, 1, 0, 0;\n}\n"
               : RESULTS_64(d)
               : "l"(a), "l"(b), "r"((int)adds));
}

// d += 64 x 16 of a, in registers, times 16 x 64 or 16 x 128 of b.
__device__ __forceinline__ void multiply_columns(float (&d)[8][4], const uint32_t (&a)[4], uint64_t b) {
  asm volatile("{\n.reg .pred p;\nsetp.eq.b32 p, 0, 0;\n"
               "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" NUMBERS_64 "}, {%32, %33, %34, %35}, %36, p, 1, 1, 1;\n}\n"
               : RESULTS_64(d)
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}
__device__ __forceinline__ void multiply_columns(float (&d)[16][4], const uint32_t (&a)[4], uint64_t b) {
  asm volatile("{\n.reg .pred p;\nsetp.eq.b32 p, 0, 0;\n"
               "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" NUMBERS_128 "}, {%64, %65, %66, %67}, %68, p, 1, 1, 1;\n}\n"
               : RESULTS_128(d)
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}
#endif
