// Vector memory accesses, and the second stage of sums over rows.
#pragma once
#include "numbers.cuh"

// N adjacent elements, moved in one instruction up to 16 bytes. Aligned to their size.
template <typename T, int N> struct alignas(sizeof(T) * N) Pack {
  T at[N];
};

template <int N, typename T> __device__ __forceinline__ Pack<T, N> load(const T *from) {
  return *reinterpret_cast<const Pack<T, N> *>(from);
}

template <int N, typename T> __device__ __forceinline__ void store(T *to, const Pack<T, N> &pack) {
  *reinterpret_cast<Pack<T, N> *>(to) = pack;
}

// Elements of T in 16 bytes.
template <typename T> constexpr int wide() { return 16 / sizeof(T); }

// Whether the address is a multiple of `bytes`.
__device__ __forceinline__ bool aligned(const void *address, int bytes) { return (uintptr_t)address % bytes == 0; }

// Whether all rows of `width` elements from each address on can be read N at a time.
template <int N, typename T, typename... Addresses> __device__ __forceinline__ bool rows_aligned(int width, const T *first, Addresses... rest) {
  const int bytes = N * sizeof(T);
  bool all = width % N == 0 && aligned(first, bytes);
  ((all = all && aligned(rest, bytes)), ...);
  return all;
}

// Waits for the preceding kernels if this one was launched early (cuda.rs): do not access their outputs or overwrite their inputs before.
__device__ __forceinline__ void wait_for_predecessor() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// Lets the next kernel begin, if it is launched early, once all blocks called this or ended. After this kernel's own wait always; before it only if the next one reads
// nothing but weights until it has waited.
__device__ __forceinline__ void start_successor() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

// Into L2.
__device__ __forceinline__ void prefetch(const void *address) { asm volatile("prefetch.global.L2 [%0];" ::"l"(address)); }

// partial: [parts, width] -> sums: [width], in a fixed order. Blocks of 256 threads per 32 columns.
__device__ __forceinline__ void sum_parts(const float *partial, float *sums, int parts, int width) {
  __shared__ float warp_sums[8][32];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int column = blockIdx.x * 32 + lane;
  float sum = 0.0f;
  if (column < width) {
    for (int part = warp; part < parts; part += 8) sum += partial[(size_t)part * width + column];
  }
  warp_sums[warp][lane] = sum;
  __syncthreads();
  if (warp > 0 || column >= width) return;
  for (int other = 1; other < 8; other++) sum += warp_sums[other][lane];
  sums[column] = sum;
}
