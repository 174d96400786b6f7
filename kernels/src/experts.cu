// Mixtures of experts: expert selection, (row, expert) pairs sorted by expert, products of each expert's matrix with its pairs, and sums over a row's experts.
// `rows` are tokens, `pairs` rows x active; sorted pair p is of row rows[p] and was pair order[p] of the unsorted [rows, active].
#include "mxfp4.cuh"
#include "vectors.cuh"

constexpr int LANE_EXPERTS = 16; // at most 512 experts

// One warp per row: softmax probabilities, the `active` largest (of equal ones the first) and their weights; `replayed`: instead those in `selected`, if any.
template <typename T>
__device__ void route(const T *logits, uint32_t *selected, float *weights, float *probabilities, int rows, int experts, int active, int renormalised, int replayed) {
  const int row = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32, lane = threadIdx.x % 32;
  if (row >= rows) return;
  float own[LANE_EXPERTS], most = -INFINITY, sum = 0.0f;
#pragma unroll
  for (int i = 0; i < LANE_EXPERTS; i++) {
    const int expert = i * 32 + lane;
    own[i] = expert < experts ? to_float(logits[(size_t)row * experts + expert]) : -INFINITY;
    most = fmaxf(most, own[i]);
  }
  most = warp_max(most);
#pragma unroll
  for (int i = 0; i < LANE_EXPERTS; i++) {
    own[i] = expf(own[i] - most);
    sum += own[i];
  }
  sum = warp_sum(sum);
#pragma unroll
  for (int i = 0; i < LANE_EXPERTS; i++) {
    own[i] /= sum;
    if (i * 32 + lane < experts) probabilities[(size_t)row * experts + i * 32 + lane] = own[i];
  }
  float weight = 0.0f;
  uint32_t chosen = 0;
  const bool is_known = replayed && selected[(size_t)row * active] != 0xffffffffu;
  if (is_known) {
    __syncwarp(); // the probabilities of other lanes are written
    if (lane < active) {
      chosen = selected[(size_t)row * active + lane];
      weight = probabilities[(size_t)row * experts + chosen];
    }
  }
  for (int j = 0; j < active && !is_known; j++) {
    float best = -1.0f;
    int at = 0;
#pragma unroll
    for (int i = 0; i < LANE_EXPERTS; i++)
      if (i * 32 + lane < experts && own[i] > best) {
        best = own[i];
        at = i * 32 + lane;
      }
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2) {
      const float other = __shfl_xor_sync(0xffffffffu, best, distance);
      const int place = __shfl_xor_sync(0xffffffffu, at, distance);
      if (other > best || (other == best && place < at)) {
        best = other;
        at = place;
      }
    }
#pragma unroll
    for (int i = 0; i < LANE_EXPERTS; i++)
      if (i * 32 + lane == at) own[i] = -2.0f;
    if (lane == j) {
      weight = best;
      chosen = at;
    }
  }
  const float divisor = renormalised ? warp_sum(weight) : 1.0f;
  if (lane < active) {
    selected[row * active + lane] = chosen;
    weights[row * active + lane] = weight / divisor;
  }
}

extern "C" __global__ void experts_route_f32(const float *logits, uint32_t *selected, float *weights, float *probabilities, int rows, int experts, int active,
                                             int renormalised, int replayed) {
  route(logits, selected, weights, probabilities, rows, experts, active, renormalised, replayed);
}
extern "C" __global__ void experts_route_bf16(const bf16 *logits, uint32_t *selected, float *weights, float *probabilities, int rows, int experts, int active,
                                              int renormalised, int replayed) {
  route(logits, selected, weights, probabilities, rows, experts, active, renormalised, replayed);
}

// A block of 256 per expert: the range of its pairs and their indices, in order. `owners`: expert of each pair; `places`: sorted position of each unsorted
// pair.
extern "C" __global__ void experts_sort(const uint32_t *selected, const float *weights, uint32_t *offsets, uint32_t *rows, uint32_t *owners, uint32_t *places,
                                        float *sorted_weights, int pairs, int experts, int active) {
  __shared__ int before[256];
  const int expert = blockIdx.x, chunk = (pairs + 255) / 256, begin = threadIdx.x * chunk, end = min(pairs, begin + chunk);
  int lower = 0, own = 0;
  for (int i = begin; i < end; i++) {
    lower += (int)selected[i] < expert;
    own += (int)selected[i] == expert;
  }
  const int first = block_sum(lower);
  before[threadIdx.x] = own;
  __syncthreads();
  for (int distance = 1; distance < 256; distance *= 2) {
    const int other = threadIdx.x >= distance ? before[threadIdx.x - distance] : 0;
    __syncthreads();
    before[threadIdx.x] += other;
    __syncthreads();
  }
  int at = first + before[threadIdx.x] - own;
  for (int i = begin; i < end; i++)
    if ((int)selected[i] == expert) {
      rows[at] = i / active;
      owners[at] = expert;
      sorted_weights[at] = weights[i];
      places[i] = at++;
    }
  if (threadIdx.x == 0) offsets[expert] = first;
  if (threadIdx.x == 0 && expert == experts - 1) offsets[experts] = pairs;
}

// Sorted pairs: each row times its weight, and times its expert's, if there are `factors`.
template <typename T> __device__ void weigh(const T *x, const float *weights, const T *factors, const uint32_t *owners, T *output, int width) {
  const float weight = weights[blockIdx.x] * (factors ? to_float(factors[owners[blockIdx.x]]) : 1.0f);
  for (int i = threadIdx.x; i < width; i += blockDim.x) output[(size_t)blockIdx.x * width + i] = from_float<T>(to_float(x[(size_t)blockIdx.x * width + i]) * weight);
}
extern "C" __global__ void experts_weigh_f32(const float *x, const float *weights, const float *factors, const uint32_t *owners, float *output, int width) {
  weigh(x, weights, factors, owners, output, width);
}
extern "C" __global__ void experts_weigh_bf16(const bf16 *x, const float *weights, const bf16 *factors, const uint32_t *owners, bf16 *output, int width) {
  weigh(x, weights, factors, owners, output, width);
}

// Sum over a row's pairs, in unsorted order.
template <typename T> __device__ void combine(const T *x, const uint32_t *places, T *output, int width, int active) {
  for (int i = threadIdx.x; i < width; i += blockDim.x) {
    float sum = 0.0f;
    for (int j = 0; j < active; j++) sum += to_float(x[(size_t)places[blockIdx.x * active + j] * width + i]);
    output[(size_t)blockIdx.x * width + i] = from_float<T>(sum);
  }
}
extern "C" __global__ void experts_combine_f32(const float *x, const uint32_t *places, float *output, int width, int active) { combine(x, places, output, width, active); }
extern "C" __global__ void experts_combine_bf16(const bf16 *x, const uint32_t *places, bf16 *output, int width, int active) { combine(x, places, output, width, active); }

// Sorted pairs: dot product of two rows.
template <typename T> __device__ void dot(const T *a, const T *b, float *output, int width) {
  float sum = 0.0f;
  for (int i = threadIdx.x; i < width; i += blockDim.x) sum += to_float(a[(size_t)blockIdx.x * width + i]) * to_float(b[(size_t)blockIdx.x * width + i]);
  sum = block_sum(sum);
  if (threadIdx.x == 0) output[blockIdx.x] = sum;
}
extern "C" __global__ void experts_dot_f32(const float *a, const float *b, float *output, int width) { dot(a, b, output, width); }
extern "C" __global__ void experts_dot_bf16(const bf16 *a, const bf16 *b, float *output, int width) { dot(a, b, output, width); }

// products: of sorted pairs, weight times its gradient -> gradient of the logits, [rows, experts], one block per row.
template <typename T>
__device__ void route_backward(const float *products, const uint32_t *selected, const uint32_t *places, const float *sorted_weights, const float *probabilities, T *gradient,
                               int experts, int active, int renormalised) {
  const int row = blockIdx.x;
  float sum = 0.0f;
  for (int j = 0; j < active; j++) sum += products[places[row * active + j]];
  for (int expert = threadIdx.x; expert < experts; expert += blockDim.x) {
    float own = renormalised ? 0.0f : -probabilities[(size_t)row * experts + expert] * sum;
    for (int j = 0; j < active; j++)
      if ((int)selected[row * active + j] == expert) {
        const uint32_t place = places[row * active + j];
        own += products[place] - (renormalised ? sorted_weights[place] * sum : 0.0f);
      }
    gradient[(size_t)row * experts + expert] = from_float<T>(own);
  }
}
#define ROUTE_BACKWARD(NAME, T)                                                                                                                              \
  extern "C" __global__ void NAME(const float *products, const uint32_t *selected, const uint32_t *places, const float *sorted_weights,                      \
                                  const float *probabilities, T *gradient, int experts, int active, int renormalised) {                                      \
    route_backward(products, selected, places, sorted_weights, probabilities, gradient, experts, active, renormalised);                                      \
  }
ROUTE_BACKWARD(experts_route_backward_f32, float)
ROUTE_BACKWARD(experts_route_backward_bf16, bf16)

// Biases of experts, [experts, n] (null: none), times the pair's weight, if there are `weights`.
template <typename T> struct Bias {
  const T *vectors;
  const float *weights;

  __device__ __forceinline__ float at(int expert, int pair, int output, int n) const {
    if (!vectors) return 0.0f;
    const float own = to_float(vectors[(size_t)expert * n + output]);
    return weights ? own * weights[pair] : own;
  }
};

// c[pair] = a[pair] x its expert's matrix, plus its bias, and with `added` plus the old value. In f32 a block of 256 has a pair and 256 outputs; matrix: `n`
// outputs by `k` inputs, or transposed `k` by `n`.
extern "C" __global__ void experts_product_f32(const float *a, const float *b, float *c, const uint32_t *offsets, const float *vectors, const float *weights, int experts,
                                               int n, int k, int added, int transposed) {
  const int pair = blockIdx.y, output = blockIdx.x * blockDim.x + threadIdx.x;
  int expert = 0;
  while (expert < experts - 1 && (int)offsets[expert + 1] <= pair) expert++;
  if (output >= n) return;
  const float *matrix = b + (size_t)expert * n * k;
  float sum = added ? c[(size_t)pair * n + output] : 0.0f;
  for (int i = 0; i < k; i++) sum += a[(size_t)pair * k + i] * (transposed ? matrix[(size_t)i * n + output] : matrix[(size_t)output * k + i]);
  c[(size_t)pair * n + output] = sum + Bias<float> { vectors, weights }.at(expert, pair, output, n);
}

// Calls `copy` with the block's share of COUNT indices for this thread.
template <int COUNT, int THREADS, typename Copy> __device__ __forceinline__ void for_each_copy(Copy copy) {
#pragma unroll
  for (int i = 0; i < COUNT; i += THREADS)
    if (i + THREADS <= COUNT || i + threadIdx.x < COUNT) copy(i + (int)threadIdx.x);
}

// BK inner indices of BN outputs of an expert's matrix in shared memory, and a warp's operands from it: `right` has 16 inner indices from `step` on of 16 FN
// outputs from `output` on. The matrix has `n` outputs by `k` inputs, or transposed `k` by `n`.
template <int BN, int BK, int FN, bool TRANSPOSED> struct TileBf16 {
  using Matrices = const bf16 *;
  static constexpr int ROWS = TRANSPOSED ? BK : BN, COLUMNS = TRANSPOSED ? BN : BK, STRIDE = COLUMNS + 8, BYTES = 2 * ROWS * STRIDE;
  const bf16 *matrix;
  int rows, columns, output;

  __device__ __forceinline__ TileBf16(Matrices all, int expert, int n, int k, int output)
      : matrix(all + (size_t)expert * n * k), rows(TRANSPOSED ? k : n), columns(TRANSPOSED ? n : k), output(output) {}
  template <int THREADS> __device__ __forceinline__ void start_copies(uint8_t *tile, int from) const {
    const int first_row = TRANSPOSED ? from : output, first_column = TRANSPOSED ? output : from;
    for_each_copy<ROWS * COLUMNS / 8, THREADS>([&](int i) {
      const int row = i / (COLUMNS / 8), at = i % (COLUMNS / 8) * 8;
      const bool inside = first_row + row < rows && first_column + at < columns;
      copy_async(tile + 2 * (row * STRIDE + at), matrix + ((first_row + row) * columns + first_column + at), inside);
    });
  }
  __device__ __forceinline__ void operands(uint32_t (&right)[FN][4], const uint8_t *tile, int output, int step) const {
    const bf16 *own = reinterpret_cast<const bf16 *>(tile);
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int f = 0; f < FN; f++) {
      const int at = output + f * 16;
      if (TRANSPOSED)
        load_matrices_transposed(right[f], own + (step + lane % 16) * STRIDE + at + lane / 16 * 8);
      else
        load_matrices(right[f], own + (at + lane % 8 + lane / 16 * 8) * STRIDE + step + lane / 8 % 2 * 8);
    }
  }
};

// Likewise in MXFP4. Rows are multiples of 16, columns of 32.
template <int BN, int BK, int FN, bool TRANSPOSED> struct TileMxfp4 {
  using Matrices = Mxfp4;
  static constexpr int ROWS = TRANSPOSED ? BK : BN, COLUMNS = TRANSPOSED ? BN : BK, BLOCKS = COLUMNS / 32;
  static constexpr int STRIDE = COLUMNS / 2 + 16; // lanes read different banks
  static constexpr int BYTES = ROWS * (STRIDE + BLOCKS);
  static_assert(!TRANSPOSED || FN % 2 == 0, "a word has 32 columns");
  const uint8_t *codes, *exponents;
  int rows, columns, output;
  uint32_t later[FN][4];

  __device__ __forceinline__ TileMxfp4(Matrices all, int expert, int n, int k, int output)
      : codes(all.codes + (size_t)expert * n * k / 2), exponents(all.exponents + (size_t)expert * n * k / 32), rows(TRANSPOSED ? k : n), columns(TRANSPOSED ? n : k),
        output(output) {}
  template <int THREADS> __device__ __forceinline__ void start_copies(uint8_t *tile, int from) const {
    const int first_row = TRANSPOSED ? from : output, first_column = TRANSPOSED ? output : from;
    for_each_copy<ROWS * BLOCKS, THREADS>([&](int i) {
      const int row = i / BLOCKS, block = i % BLOCKS;
      const bool inside = first_row + row < rows && first_column + 32 * block < columns;
      copy_async(tile + row * STRIDE + 16 * block, codes + ((first_row + row) * (columns / 2) + first_column / 2 + 16 * block), inside);
    });
    for_each_copy<ROWS / 16 * BLOCKS, THREADS>([&](int i) {
      const int block = i / (ROWS / 16), row = i % (ROWS / 16) * 16;
      const bool inside = first_row + row < rows && first_column + 32 * block < columns;
      copy_async(tile + ROWS * STRIDE + block * ROWS + row, exponents + ((first_column / 32 + block) * rows + first_row + row), inside);
    });
  }
  // A lane's numbers of a block: columns 2 (lane % 4) and + 1, plus 0, 8, 16 and 24.
  static __device__ __forceinline__ void widen(uint32_t (&pairs)[4], const uint8_t *tile, int row, int block) {
    const uint32_t word = *reinterpret_cast<const uint32_t *>(tile + row * STRIDE + 16 * block + 4 * (threadIdx.x % 4));
    widen_mxfp4(pairs, word, tile[ROWS * STRIDE + block * ROWS + row]);
  }
  __device__ __forceinline__ void operands(uint32_t (&right)[FN][4], const uint8_t *tile, int output, int step) {
    const int lane = threadIdx.x % 32;
    uint32_t pairs[4];
    if constexpr (TRANSPOSED) {
#pragma unroll
      for (int f = 0; f < FN; f += 2)
#pragma unroll
        for (int half = 0; half < 2; half++) {
          widen(pairs, tile, step + 8 * half + lane / 4, output / 32 + f / 2);
#pragma unroll
          for (int i = 0; i < 4; i++) right[f + i / 2][2 * (i % 2) + half] = transpose(pairs[i]);
        }
    } else if (step % 32 == 0) {
#pragma unroll
      for (int f = 0; f < FN; f++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
          widen(pairs, tile, output + 16 * f + 8 * half + lane / 4, step / 32);
#pragma unroll
          for (int i = 0; i < 2; i++) {
            right[f][2 * half + i] = pairs[i];
            later[f][2 * half + i] = pairs[2 + i];
          }
        }
    } else {
#pragma unroll
      for (int f = 0; f < FN; f++)
#pragma unroll
        for (int i = 0; i < 4; i++) right[f][i] = later[f][i];
    }
  }
};

// On tensor cores. Block (x, y) has BN outputs of the y-th tile of at most BM pairs of one expert, counted over all experts; blocks beyond the last tile are
// idle. K is processed in chunks of BK, STAGES of them in flight.
template <int BM, int BN, int BK, int WARPS_M, int WARPS_N, int STAGES, bool TRANSPOSED, template <int, int, int, bool> typename Tile>
__device__ void product(const bf16 *a, typename Tile<BN, BK, BN / WARPS_N / 16, TRANSPOSED>::Matrices b, bf16 *c, const uint32_t *offsets, const Bias<bf16> bias,
                        int experts, int n, int k, int added) {
  constexpr int THREADS = 32 * WARPS_M * WARPS_N, A_STRIDE = BK + 8;
  constexpr int WM = BM / WARPS_M, WN = BN / WARPS_N, FM = WM / 16, FN = WN / 16;
  using OwnTile = Tile<BN, BK, FN, TRANSPOSED>;
  extern __shared__ __align__(16) uint8_t shared[];
  bf16 *as = reinterpret_cast<bf16 *>(shared);
  uint8_t *bs = shared + STAGES * BM * A_STRIDE * sizeof(bf16);
  __shared__ int found[3];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  if (warp == 0) {
    if (lane == 0) found[0] = -1;
    __syncwarp();
    int before = 0;
    for (int base = 0; base < experts; base += 32) {
      const int expert = base + lane, first = expert < experts ? offsets[expert] : 0, count = expert < experts ? offsets[expert + 1] - first : 0;
      const int tiles = (count + BM - 1) / BM;
      int sum = tiles;
#pragma unroll
      for (int distance = 1; distance < 32; distance *= 2) {
        const int other = __shfl_up_sync(0xffffffffu, sum, distance);
        if (lane >= distance) sum += other;
      }
      const int start = before + sum - tiles, y = blockIdx.y;
      if (y >= start && y < start + tiles) {
        found[0] = expert;
        found[1] = first + (y - start) * BM;
        found[2] = min(first + count, found[1] + BM);
      }
      before += __shfl_sync(0xffffffffu, sum, 31);
    }
  }
  __syncthreads();
  if (found[0] < 0) return;
  const int first = found[1], count = found[2] - first, column = blockIdx.x * BN;
  OwnTile tile(b, found[0], n, k, column);
  a += (size_t)first * k;
  const auto start_copies = [&](int chunk) {
    const int from = chunk * BK;
    bf16 *to_a = as + chunk % STAGES * BM * A_STRIDE;
    for_each_copy<BM * BK / 8, THREADS>([&](int i) {
      const int row = i / (BK / 8), at = i % (BK / 8) * 8;
      const bool inside = row < count && from + at < k;
      copy_async(to_a + row * A_STRIDE + at, a + (row * k + from + at), inside);
    });
    tile.template start_copies<THREADS>(bs + chunk % STAGES * OwnTile::BYTES, from);
  };
  float sums[FM][2 * FN][4] = {};
  const int chunks = (k + BK - 1) / BK, row = warp / WARPS_N * WM, output = warp % WARPS_N * WN;
  for (int chunk = 0; chunk < STAGES - 1; chunk++) {
    if (chunk < chunks) start_copies(chunk);
    copies_commit();
  }
  for (int chunk = 0; chunk < chunks; chunk++) {
    copies_wait<STAGES - 2>();
    __syncthreads();
    if (chunk + STAGES - 1 < chunks) start_copies(chunk + STAGES - 1);
    copies_commit();
    const bf16 *own_a = as + chunk % STAGES * BM * A_STRIDE;
    const uint8_t *own_b = bs + chunk % STAGES * OwnTile::BYTES;
#pragma unroll
    for (int step = 0; step < BK; step += 16) {
      uint32_t left[FM][4], right[FN][4];
#pragma unroll
      for (int m = 0; m < FM; m++) load_matrices(left[m], own_a + (row + m * 16 + lane % 16) * A_STRIDE + step + lane / 16 * 8);
      tile.operands(right, own_b, output, step);
#pragma unroll
      for (int m = 0; m < FM; m++)
#pragma unroll
        for (int f = 0; f < FN; f++) {
          multiply(sums[m][2 * f], left[m], right[f][0], right[f][1]);
          multiply(sums[m][2 * f + 1], left[m], right[f][2], right[f][3]);
        }
    }
  }
#pragma unroll
  for (int m = 0; m < FM; m++)
#pragma unroll
    for (int f = 0; f < 2 * FN; f++)
#pragma unroll
      for (int half = 0; half < 2; half++) {
        const int at = row + m * 16 + half * 8 + lane / 4, to = column + output + f * 8 + lane % 4 * 2;
        if (at >= count || to >= n) continue;
        bf16 *place = c + (size_t)(first + at) * n + to;
        Pack<bf16, 2> result = added ? load<2>(place) : Pack<bf16, 2>{};
#pragma unroll
        for (int i = 0; i < 2; i++)
          result.at[i] = from_float<bf16>((added ? to_float(result.at[i]) : 0.0f) + sums[m][f][2 * half + i] + bias.at(found[0], first + at, to + i, n));
        store(place, result);
      }
}

// Before Hopper a block may have 99 KiB.
#if __CUDA_ARCH__ < 900
constexpr int MANY_STAGES = 2;
#else
constexpr int MANY_STAGES = 3;
#endif
// Tiles and stages are those of `Tiles` in router/gpu.rs; a last argument: blocks of a multiprocessor, for which registers must suffice.
#define PRODUCT(NAME, BM, BN, BK, WARPS_M, WARPS_N, STAGES, TRANSPOSED, TILE, MATRICES, ...)                                                                     \
  extern "C" __global__ void __launch_bounds__(32 * WARPS_M * WARPS_N, ##__VA_ARGS__)                                                                            \
      NAME(const bf16 *a, const MATRICES b, bf16 *c, const uint32_t *offsets, const bf16 *vectors, const float *weights, int experts, int n, int k, int added) { \
    product<BM, BN, BK, WARPS_M, WARPS_N, STAGES, TRANSPOSED, TILE>(a, b, c, offsets, {vectors, weights}, experts, n, k, added);                                 \
  }
PRODUCT(experts_product_few, 16, 64, 64, 1, 4, 3, false, TileBf16, bf16 *)
PRODUCT(experts_product_many, 128, 128, 64, 2, 4, MANY_STAGES, false, TileBf16, bf16 *)
PRODUCT(experts_product_few_transposed, 16, 64, 64, 1, 4, 3, true, TileBf16, bf16 *)
PRODUCT(experts_product_many_transposed, 128, 128, 64, 2, 4, MANY_STAGES, true, TileBf16, bf16 *)
PRODUCT(experts_product_mxfp4_few, 16, 64, 128, 1, 4, 4, false, TileMxfp4, Mxfp4, 5)
PRODUCT(experts_product_mxfp4_many, 128, 128, 64, 2, 4, 3, false, TileMxfp4, Mxfp4, 2)
PRODUCT(experts_product_mxfp4_few_transposed, 16, 128, 64, 1, 4, 4, true, TileMxfp4, Mxfp4, 5)
PRODUCT(experts_product_mxfp4_many_transposed, 128, 128, 64, 2, 4, 3, true, TileMxfp4, Mxfp4, 2)

// Gradient of low-rank matrices: to[expert, i, r] += scale * the sum over the expert's pairs of wide[pair, i] narrow[pair, r]. Block (x, y, z): 512 columns of
// `wide`, an expert, eight of the `rank` columns of `narrow`; two columns per thread. Strides are those of `to`.
template <typename T>
__device__ void add_outer(const T *wide, const T *narrow, float *to, const uint32_t *offsets, int width, int rank, long long expert_stride, long long width_stride,
                          long long rank_stride, float scale) {
  constexpr int RANKS = 8, PAIRS = 32;
  __shared__ float own[PAIRS][RANKS];
  const int begin = offsets[blockIdx.y], end = offsets[blockIdx.y + 1], column = (blockIdx.x * blockDim.x + threadIdx.x) * 2, first_rank = blockIdx.z * RANKS;
  const bool inside = column < width;
  float sums[2][RANKS] = {};
  for (int start = begin; start < end; start += PAIRS) {
    const int pair = start + threadIdx.x / RANKS;
    __syncthreads();
    own[threadIdx.x / RANKS][threadIdx.x % RANKS] = pair < end ? to_float(narrow[(size_t)pair * rank + first_rank + threadIdx.x % RANKS]) : 0.0f;
    __syncthreads();
    const int count = min(PAIRS, end - start);
    for (int i = 0; i < count && inside; i++) {
      const Pack<T, 2> x = load<2>(wide + (size_t)(start + i) * width + column);
#pragma unroll
      for (int r = 0; r < RANKS; r++) {
        sums[0][r] += to_float(x.at[0]) * own[i][r];
        sums[1][r] += to_float(x.at[1]) * own[i][r];
      }
    }
  }
  if (!inside || begin == end) return;
#pragma unroll
  for (int half = 0; half < 2; half++)
#pragma unroll
    for (int r = 0; r < RANKS; r++) to[blockIdx.y * expert_stride + (column + half) * width_stride + (first_rank + r) * rank_stride] += scale * sums[half][r];
}
#define ADD_OUTER(NAME, T)                                                                                                                                    \
  extern "C" __global__ void __launch_bounds__(256) NAME(const T *wide, const T *narrow, float *to, const uint32_t *offsets, int width, int rank,             \
                                                         long long expert_stride, long long width_stride, long long rank_stride, float scale) {               \
    add_outer(wide, narrow, to, offsets, width, rank, expert_stride, width_stride, rank_stride, scale);                                                       \
  }
ADD_OUTER(experts_add_outer_f32, float)
ADD_OUTER(experts_add_outer_bf16, bf16)
