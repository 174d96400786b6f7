// As quantized_decode.cu, for GPUs without products of warpgroups: weights become bf16 in registers and are multiplied by mma.sync with activations that cp.async
// brings to shared memory. Blocks that split the inner index write parts, which a second kernel adds in a fixed order.
#include "fp8.cuh"
#include "nf4.cuh"
#include "quantized_adapters.cuh"
#include "tensor_cores.cuh"
#include "vectors.cuh"

// Warps per block, sixteen outputs each.
template <int TILES> constexpr int WARPS_OF = TILES > 8 ? 8 : 4;
// Inner indices per chunk; prefetch distance of a lane's weights, in reads; chunks of activations in shared memory.
constexpr int CHUNK = 64;
template <int TILES> constexpr int AHEAD = TILES > 16 ? 2 : 4;
template <int TILES> constexpr int STAGES = TILES > 16 ? 3 : 4;

struct Sizes {
  int rows, inputs, outputs, rank, stride;
};

// Sixteen bytes, read once.
__device__ __forceinline__ uint4 read_once(const void *from) {
  uint4 v;
  asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(from));
  return v;
}

// A block's outputs of all tokens, over its part of the inner index.
template <int TILES, typename Weights>
__device__ void outputs_of_base(const bf16 *x, const Weights &w, float *y, int tile, const Sizes &n, bf16 *memory) {
  constexpr int TOKENS = 8 * TILES, OUTPUTS = 16 * WARPS_OF<TILES>;
  constexpr int PARTS = Weights::CHUNKS; // the last read may have chunks beyond the inputs, with zeros for x
  __shared__ typename Weights::Shared shared;
  Weights::share(w, shared);
  const int all = (n.inputs / CHUNK + PARTS - 1) / PARTS, first_read = blockIdx.x * all / gridDim.x, reads = (blockIdx.x + 1) * all / gridDim.x - first_read;
  const int first = first_read * PARTS, count = reads * PARTS;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4, output = tile * OUTPUTS + warp * 16 + g;
  typename Weights::Lane own(w, shared, min(output, n.outputs - 1), min(output + 8, n.outputs - 1), t, n, first);
  typename Weights::Read ahead[AHEAD<TILES>];
#pragma unroll
  for (int u = 0; u < AHEAD<TILES>; u++) own.template fetch<read_once>(ahead[u], min(u, reads - 1));
  own.start();
  wait_for_predecessor();
  // 16-byte piece i of a token's 64 numbers is at i xor (token modulo 8).
  const auto stage = [&](int chunk) {
    if (chunk < count)
      for (int i = threadIdx.x; i < TOKENS * 8; i += blockDim.x) {
        const int token = i / 8, piece = i % 8;
        const bool inside = token < n.rows && (PARTS == 1 || (first + chunk) * CHUNK < n.inputs);
        copy_async(memory + chunk % STAGES<TILES> * TOKENS * CHUNK + token * CHUNK + (piece ^ token % 8) * 8,
                   inside ? x + (size_t)token * n.inputs + (first + chunk) * CHUNK + piece * 8 : x, inside);
      }
    copies_commit();
  };
#pragma unroll
  for (int s = 0; s < STAGES<TILES> - 1; s++) stage(s);
  float sums[TILES][4] = {};
  for (int read = 0; read < reads; read += AHEAD<TILES>) {
#pragma unroll
    for (int u = 0; u < AHEAD<TILES>; u++) {
      if (u > 0 && read + u >= reads) break;
      own.prepare(ahead[u], read + u);
#pragma unroll
      for (int part = 0; part < PARTS; part++) {
        const int chunk = (read + u) * PARTS + part;
        copies_wait<STAGES<TILES> - 2>();
        __syncthreads();
        stage(chunk + STAGES<TILES> - 1);
        uint32_t a[4][4];
        own.widen(a, ahead[u], part);
        if (part == PARTS - 1) own.template fetch<read_once>(ahead[u], min(read + u + AHEAD<TILES>, reads - 1));
        const bf16 *tokens = memory + chunk % STAGES<TILES> * TOKENS * CHUNK + lane % 8 * CHUNK;
#pragma unroll
        for (int half = 0; half < 2; half++)
#pragma unroll
          for (int i = 0; i < TILES; i++) {
            uint32_t b[4];
            load_matrices(b, tokens + i * 8 * CHUNK + ((4 * half + lane / 8) ^ lane % 8) * 8);
            multiply(sums[i], a[2 * half], b[0], b[1]);
            multiply(sums[i], a[2 * half + 1], b[2], b[3]);
          }
      }
    }
  }
#pragma unroll
  for (int h = 0; h < 2; h++) {
    if (output + 8 * h >= n.outputs) continue;
#pragma unroll
    for (int i = 0; i < TILES; i++)
#pragma unroll
      for (int k = 0; k < 2; k++) {
        const int token = 8 * i + 2 * t + k;
        if (token < n.rows) y[(size_t)token * n.stride + output + 8 * h] = w.scaled(sums[i][k + 2 * h], output + 8 * h);
      }
  }
}

// Sixteen columns of A over the block's part of the inner index, split further over its warps.
template <int TILES> __device__ void numbers_of_adapters(const bf16 *x, const bf16 *a, float *y, int tile, const Sizes &n, float *sums) {
  constexpr int WARPS = WARPS_OF<TILES>, TOKENS = 8 * TILES, AT_ONCE = 4; // warps whose sums are in shared memory
  const int steps = n.inputs / 32, first = blockIdx.x * steps / gridDim.x, last = (blockIdx.x + 1) * steps / gridDim.x;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  float acc[TILES][4] = {};
  products_of_adapters<TILES, WARPS, read_once>(acc, x, a, tile, n, first, last);
  constexpr int OWN = (TOKENS * 16 + WARPS * 32 - 1) / (WARPS * 32); // per thread
  const int column = threadIdx.x % 16;
  float found[OWN] = {};
#pragma unroll
  for (int from = 0; from < WARPS; from += AT_ONCE) {
    __syncthreads();
    if (warp / AT_ONCE == from / AT_ONCE) // [warp][token][16], stride 20
#pragma unroll
      for (int i = 0; i < TILES; i++)
#pragma unroll
        for (int k = 0; k < 4; k++) sums[(warp % AT_ONCE * TOKENS + 8 * i + 2 * t + k % 2) * 20 + g + 8 * (k / 2)] = acc[i][k];
    __syncthreads();
#pragma unroll
    for (int i = 0; i < OWN; i++) {
      const int token = i * WARPS * 2 + threadIdx.x / 16;
      for (int w = 0; w < AT_ONCE && token < TOKENS; w++) found[i] += sums[(w * TOKENS + token) * 20 + column];
    }
  }
  if (16 * tile + column >= n.rank) return;
#pragma unroll
  for (int i = 0; i < OWN; i++) {
    const int token = i * WARPS * 2 + threadIdx.x / 16;
    if (token < min(TOKENS, n.rows)) y[(size_t)token * n.stride + n.outputs + 16 * tile + column] = found[i];
  }
}

// y: [parts, rows, stride]: products with the matrix, [outputs, inputs], then with A, [rank, inputs]. blockIdx.x: part of the inner index; blockIdx.y: sixteen
// columns of A each, then a block's outputs.
#define DECODE(Weights, name, TILES, tokens)                                                                                   \
  extern "C" __global__ void __launch_bounds__(32 * WARPS_OF<TILES>, TILES > 8 ? 1 : TILES > 4 ? 3 : 4)                         \
      decode_##name##_warps_##tokens(const bf16 *x, const __grid_constant__ Weights w, const bf16 *a, float *y, int rows,      \
                                     int inputs, int outputs, int rank, int stride) {                                          \
    extern __shared__ __align__(128) bf16 memory[];                                                                            \
    const Sizes sizes = {rows, inputs, outputs, rank, stride};                                                                 \
    const int adapters = (rank + 15) / 16, tile = blockIdx.y;                                                                  \
    y += (size_t)blockIdx.x * rows * stride;                                                                                   \
    if (tile < adapters) numbers_of_adapters<TILES>(x, a, y, tile, sizes, reinterpret_cast<float *>(memory));                  \
    else outputs_of_base<TILES>(x, w, y, tile - adapters, sizes, memory);                                                      \
  }
#include "quantized_instances.cuh"

// parts: [splits, rows, width] -> y: [rows, width] at `stride`. One thread per element.
extern "C" __global__ void decode_sum(const float *parts, float *y, int splits, int rows, int width, int stride) {
  wait_for_predecessor();
  const long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x, count = (long long)rows * width;
  if (i >= count) return;
  float sum = 0.0f;
  for (int split = 0; split < splits; split++) sum += parts[split * count + i];
  y[i / width * stride + i % width] = sum;
}
