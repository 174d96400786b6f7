// Matrices to e4m3 and back to wider numbers, a block a row. What decoding multiplies is in fp8_decode.cu.
#include "vectors.cuh"
#include <cuda_fp8.h>

// Where the code of a column is: each 64 are in the order in which a lane has them that reads sixteen bytes at a time, lane t of four from 16 t on: of the
// product with columns 16 q to 16 q + 15, bytes 4 q to 4 q + 3 are columns 2 t, 2 t + 1, 2 t + 8 and 2 t + 9.
__device__ __forceinline__ int place(int column) {
  const int q = column / 16 % 4, t = column / 2 % 4, j = column / 8 % 2 * 2 + column % 2;
  return column / 64 * 64 + 16 * t + 4 * q + j;
}

template <typename T> __device__ void quantize(const T *weight, uint8_t *codes, float *scales, int columns) {
  weight += (size_t)blockIdx.x * columns;
  codes += (size_t)blockIdx.x * columns;
  float largest = 0.0f;
  for (int i = threadIdx.x; i < columns; i += blockDim.x) largest = fmaxf(largest, fabsf(to_float(weight[i])));
  largest = block_max(largest);
  // As `scale` and `nearest` of fp8.rs.
  const uint32_t bits = __float_as_uint(largest / 448.0f);
  const float scale = largest > 0.0f ? __uint_as_float(max((bits >> 23) + ((bits & 0x7fffff) > 0), 10u) << 23) : 1.0f;
  if (threadIdx.x == 0) scales[blockIdx.x] = scale;
  for (int i = threadIdx.x; i < columns; i += blockDim.x) codes[place(i)] = __nv_cvt_float_to_fp8(to_float(weight[i]) / scale, __NV_SATFINITE, __NV_E4M3);
}

// target: [[W, beside], [below, 0]], rows of columns + room numbers, W of `rows` rows. beside: [rows, used], below: [.., columns].
template <typename T>
__device__ void widen(const uint8_t *codes, const float *scales, const T *beside, const T *below, T *target, int columns, int rows, int used, int room) {
  const int row = blockIdx.x;
  target += (size_t)row * (columns + room);
  if (row >= rows) {
    for (int i = threadIdx.x; i < columns + room; i += blockDim.x) target[i] = i < columns ? below[(size_t)(row - rows) * columns + i] : from_float<T>(0.0f);
    return;
  }
  const float scale = scales[row];
  codes += (size_t)row * columns;
  // Sixteen codes are pairs of columns in eight places: a warp puts 512 numbers in order before it writes them.
  constexpr int N = wide<T>(), PITCH = 64 + N; // so that lanes write to different banks
  __shared__ __align__(16) T ordered[8][8 * PITCH];
  T *own = ordered[threadIdx.x / 32];
  const int lane = threadIdx.x % 32;
  for (int start = threadIdx.x / 32 * 512; start < columns; start += blockDim.x * 16) {
    if (start + 16 * lane < columns) {
      const Pack<uint8_t, 16> read = load<16>(codes + start + 16 * lane);
      T *to = own + lane / 4 * PITCH + 2 * (lane % 4);
#pragma unroll
      for (int i = 0; i < 8; i++) {
        Pack<T, 2> pair;
#pragma unroll
        for (int k = 0; k < 2; k++)
          pair.at[k] = from_float<T>(__half2float(__half(__nv_cvt_fp8_to_halfraw(read.at[2 * i + k], __NV_E4M3))) * scale);
        store(to + 8 * i, pair);
      }
    }
    __syncwarp();
    for (int i = lane * N; i < min(512, columns - start); i += 32 * N) store(target + start + i, load<N>(own + i / 64 * PITCH + i % 64));
    __syncwarp();
  }
  for (int i = threadIdx.x; i < room; i += blockDim.x) target[columns + i] = i < used ? beside[(size_t)row * used + i] : from_float<T>(0.0f);
}

#define INSTANTIATE(T, suffix)                                                                                                 \
  extern "C" __global__ void quantize_##suffix(const T *weight, uint8_t *codes, float *scales, int columns) {                  \
    quantize(weight, codes, scales, columns);                                                                                  \
  }                                                                                                                            \
  extern "C" __global__ void widen_##suffix(const uint8_t *codes, const float *scales, const T *beside, const T *below,        \
                                            T *target, int columns, int rows, int used, int room) {                            \
    widen(codes, scales, beside, below, target, columns, rows, used, room);                                                    \
  }
INSTANTIATE(float, f32)
INSTANTIATE(bf16, bf16)
