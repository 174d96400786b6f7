// Samples a token per row by inverting the cumulative distribution in id order. One block per row, or a cluster of several (compute capability 9.0).
#include "sampling.cuh"
#include <cooperative_groups.h>

// Blocks of a row.
template <int BLOCKS> struct Blocks {
  static __device__ __forceinline__ int number() { return BLOCKS == 1 ? 0 : blockIdx.x % BLOCKS; }

  // Waits for all of them.
  static __device__ __forceinline__ void wait() {
#if __CUDA_ARCH__ >= 900
    if (BLOCKS > 1) return cooperative_groups::this_cluster().sync();
#endif
    __syncthreads();
  }

  // Address of this block's shared memory in another block.
  template <typename T> static __device__ __forceinline__ T *there(T *here, int block) {
#if __CUDA_ARCH__ >= 900
    if (BLOCKS > 1) return cooperative_groups::this_cluster().map_shared_rank(here, block);
#endif
    return here;
  }
};

// Probabilities are summed in tiles, so that finding the sampled token reads few of them: 32 per lane of a warp.
constexpr int TILE = 1024;

// Turns logits of a row into weights.
template <bool MASKED> struct Weigher {
  const float *row;
  float inverse, largest;
  Allowed<MASKED> allowed;

  __device__ __forceinline__ float shifted(float logit) const { return __fsub_rn(__fmul_rn(logit, inverse), largest); }
  __device__ __forceinline__ double weight(int id, float logit) const { return allowed.has(id) ? (double)exponential(shifted(logit)) : 0.0; }
};

// Sampling parameters of a row, as in sampler.rs.
struct Draw {
  double uniform, temperature;
};

// Sum over this lane and those before it.
__device__ __forceinline__ double warp_prefix(double x) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int distance = 1; distance < 32; distance *= 2) {
    const double before = __shfl_up_sync(0xffffffffu, x, distance);
    if (lane >= distance) x += before;
  }
  return x;
}

template <int N, bool MASKED>
__device__ __forceinline__ float own_largest(const float *row, Allowed<MASKED> allowed, int vocabulary, float inverse, int block, int blocks) {
  float largest = -INFINITY;
#pragma unroll 4
  for (int i = (block * blockDim.x + threadIdx.x) * N; i < vocabulary; i += blocks * blockDim.x * N) {
    const Pack<float, N> x = load<N>(row + i);
#pragma unroll
    for (int k = 0; k < N; k++)
      if (allowed.has(i + k)) largest = fmaxf(largest, __fmul_rn(x.at[k], inverse));
  }
  return largest;
}

// Weights of a tile, summed by one warp. N at a time only if the vocabulary is a multiple of it.
template <int N, bool MASKED> __device__ __forceinline__ double tile_sum(const Weigher<MASKED> &weigher, int tile, int vocabulary) {
  const int start = tile * TILE + threadIdx.x % 32 * N;
  const bool whole = (tile + 1) * TILE <= vocabulary;
  double sum = 0.0;
#pragma unroll 4
  for (int step = 0; step < TILE; step += 32 * N) {
    if (whole || start + step < vocabulary) {
      const Pack<float, N> x = load<N>(weigher.row + start + step);
#pragma unroll
      for (int k = 0; k < N; k++) sum += weigher.weight(start + step + k, x.at[k]);
    }
  }
  return warp_sum(sum);
}

// The last allowed id up to this one. One whole warp.
template <bool MASKED> __device__ __forceinline__ uint32_t last_allowed(Allowed<MASKED> allowed, int id) {
  if constexpr (MASKED) {
    for (int base = id / 32 * 32; base >= 0; base -= 32) {
      const int at = base + threadIdx.x % 32;
      const uint32_t found = __ballot_sync(0xffffffffu, at <= id && allowed.has(at));
      if (found) return base + 31 - __clz(found);
    }
    return NOT_FINITE;
  }
  return id;
}

// The first id whose running sum exceeds the target. One whole warp; sums: running sum at the end of each tile.
template <bool MASKED>
__device__ uint32_t invert(const Weigher<MASKED> &weigher, const double *sums, int tiles, int vocabulary, double target) {
  const int lane = threadIdx.x % 32;
  int tile = -1;
  for (int base = 0; base < tiles && tile < 0; base += 32) {
    const uint32_t passing = __ballot_sync(0xffffffffu, base + lane < tiles && sums[base + lane] > target);
    if (passing) tile = base + __ffs(passing) - 1;
  }
  // By rounding the target is at the very end.
  if (tile < 0) return last_allowed(weigher.allowed, vocabulary - 1);
  const double before_tile = tile > 0 ? sums[tile - 1] : 0.0;
  const int start = tile * TILE, end = min(vocabulary, start + TILE);
  // Each lane's 32 ids; then the 32 of the lane in which the sum exceeds.
  double own = 0.0;
  for (int i = start + lane * 32; i < min(end, start + (lane + 1) * 32); i++) own += weigher.weight(i, weigher.row[i]);
  const double upto = before_tile + warp_prefix(own);
  const uint32_t lanes = __ballot_sync(0xffffffffu, upto > target);
  if (!lanes) return last_allowed(weigher.allowed, end - 1);
  const int winner = __ffs(lanes) - 1;
  double before = __shfl_sync(0xffffffffu, upto, winner > 0 ? winner - 1 : 0);
  if (winner == 0) before = before_tile;
  const int id = start + winner * 32 + lane;
  const double weight = id < end ? weigher.weight(id, weigher.row[id]) : 0.0;
  const double running = before + warp_prefix(weight);
  const uint32_t ids = __ballot_sync(0xffffffffu, id < end && running > target);
  if (ids) return start + winner * 32 + __ffs(ids) - 1;
  return last_allowed(weigher.allowed, min(end, start + (winner + 1) * 32) - 1);
}

// By all threads of the row's blocks; the result is in warp 0 of the first. Dynamic shared memory: one double per tile.
template <int BLOCKS, bool MASKED> __device__ SampledToken draw(const float *row, Allowed<MASKED> allowed, int vocabulary, Draw by) {
  using Row = Blocks<BLOCKS>;
  extern __shared__ double sums[];
  __shared__ uint32_t likeliest;
  __shared__ float maximum;
  const bool greedy = by.temperature == 0.0 || by.uniform < 0.0, wide = rows_aligned<4>(vocabulary, row);
  const float inverse = greedy ? 1.0f : (float)(1.0 / by.temperature);
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, tiles = (vocabulary + TILE - 1) / TILE, block = Row::number();
  float largest = block_max(wide ? own_largest<4>(row, allowed, vocabulary, inverse, block, BLOCKS)
                                 : own_largest<1>(row, allowed, vocabulary, inverse, block, BLOCKS));
  if (threadIdx.x == 0) {
    likeliest = NOT_FINITE;
    maximum = largest;
  }
  Row::wait();
  for (int other = 0; other < BLOCKS; other++) largest = fmaxf(largest, *Row::there(&maximum, other));
  const Weigher<MASKED> weigher = {row, inverse, largest, allowed};
  double *all_sums = Row::there(sums, 0);
  for (int tile = block * (blockDim.x / 32) + warp; tile < tiles; tile += BLOCKS * (blockDim.x / 32)) {
    const double sum = wide ? tile_sum<4>(weigher, tile, vocabulary) : tile_sum<1>(weigher, tile, vocabulary);
    if (lane == 0) all_sums[tile] = sum;
  }
  if (greedy) {
    for (int i = block * blockDim.x + threadIdx.x; i < vocabulary; i += BLOCKS * blockDim.x) {
      if (allowed.has(i) && row[i] == largest) {
        atomicMin(Row::there(&likeliest, 0), (uint32_t)i);
        break;
      }
    }
  }
  Row::wait();
  if (warp > 0 || block > 0) return {};
  double total = 0.0;
  for (int base = 0; base < tiles; base += 32) {
    const double upto = warp_prefix(base + lane < tiles ? sums[base + lane] : 0.0);
    if (base + lane < tiles) sums[base + lane] = total + upto;
    total += __shfl_sync(0xffffffffu, upto, 31);
  }
  __syncwarp();
  // All weights are 0 if nothing is allowed.
  if (!isfinite(total) || total <= 0.0) return {NOT_FINITE, __int_as_float(0x7fc00000)};
  const uint32_t token = greedy ? likeliest : invert(weigher, sums, tiles, vocabulary, by.uniform * total);
  if (token >= (uint32_t)vocabulary) return {NOT_FINITE, __int_as_float(0x7fc00000)};
  return {token, (float)((double)weigher.shifted(row[token]) - log(total))};
}

#define SAMPLE(BLOCKS, MASKED, BITS)                                                                                          \
  const int row = blockIdx.x / BLOCKS;                                                                                         \
  const Allowed<MASKED> allowed = {BITS};                                                                                      \
  const SampledToken token = draw<BLOCKS, MASKED>(logits + (size_t)row * vocabulary, allowed, vocabulary, draws[row]);         \
  if (threadIdx.x == 0 && blockIdx.x % BLOCKS == 0) drawn[row] = token;

#define ROW_BITS masks + (size_t)row * ((vocabulary + 31) / 32)

extern "C" __global__ void __launch_bounds__(1024)
    sample(const float *logits, const Draw *draws, SampledToken *drawn, int vocabulary) {
  SAMPLE(1, false, nullptr)
}

// masks: one bit per token, whole words per row.
extern "C" __global__ void __launch_bounds__(1024)
    sample_masked(const float *logits, const Draw *draws, SampledToken *drawn, int vocabulary, const uint32_t *masks) {
  SAMPLE(1, true, ROW_BITS)
}

#if __CUDA_ARCH__ >= 900
extern "C" __global__ void __cluster_dims__(4, 1, 1) __launch_bounds__(1024)
    sample_by_four(const float *logits, const Draw *draws, SampledToken *drawn, int vocabulary) {
  SAMPLE(4, false, nullptr)
}

extern "C" __global__ void __cluster_dims__(4, 1, 1) __launch_bounds__(1024)
    sample_masked_by_four(const float *logits, const Draw *draws, SampledToken *drawn, int vocabulary, const uint32_t *masks) {
  SAMPLE(4, true, ROW_BITS)
}
#endif

// Resolves tokens: an id, or 2^31 + index of a sampled token. One that was not sampled, for lack of finite logits, is 0 here and an error when sampled tokens
// are read.
extern "C" __global__ void take_drawn(const uint32_t *tokens, const SampledToken *drawn, uint32_t *taken, int rows) {
  const int row = blockIdx.x * blockDim.x + threadIdx.x;
  if (row >= rows) return;
  const uint32_t token = tokens[row] & 0x80000000u ? drawn[tokens[row] & 0x7fffffffu].token : tokens[row];
  taken[row] = token == NOT_FINITE ? 0 : token;
}
