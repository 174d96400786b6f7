// Several numbers in one access to memory, and the second stage of sums over rows.
#pragma once
#include "numbers.cuh"

// N neighbours, moved in one instruction where they are 16 bytes or fewer. Their address is a multiple of their size.
template <typename T, int N> struct alignas(sizeof(T) * N) Pack {
  T at[N];
};

template <int N, typename T> __device__ __forceinline__ Pack<T, N> load(const T *from) {
  return *reinterpret_cast<const Pack<T, N> *>(from);
}

template <int N, typename T> __device__ __forceinline__ void store(T *to, const Pack<T, N> &pack) {
  *reinterpret_cast<Pack<T, N> *>(to) = pack;
}

// How many numbers of T make 16 bytes.
template <typename T> constexpr int wide() { return 16 / sizeof(T); }

// Whether the address is a multiple of so many bytes.
__device__ __forceinline__ bool aligned(const void *address, int bytes) { return (uintptr_t)address % bytes == 0; }

// Whether every row of `width` numbers that starts at each address can be read N at a time.
template <int N, typename T, typename... Addresses> __device__ __forceinline__ bool rows_aligned(int width, const T *first, Addresses... rest) {
  const int bytes = N * sizeof(T);
  bool all = width % N == 0 && aligned(first, bytes);
  ((all = all && aligned(rest, bytes)), ...);
  return all;
}

// Waits until the kernels before this one have ended, where it was started early (cuda.rs): nothing that they write may be read before, and nothing
// written that they read.
__device__ __forceinline__ void wait_for_predecessor() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// Brings what is read later nearer.
__device__ __forceinline__ void prefetch(const void *address) { asm volatile("prefetch.global.L2 [%0];" ::"l"(address)); }

// partial: [parts, width] -> sums: [width], in a fixed order. Blocks of 256 threads, one for 32 columns.
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
