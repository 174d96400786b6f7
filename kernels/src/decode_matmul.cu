// Products of up to 32 bf16 rows with a matrix, for decoding on Hopper: weights and rows come to shared memory by bulk copies and are multiplied by wgmma. Weights are
// on their way while the kernel before still runs. A row's numbers depend neither on the others nor on how many they are.
#include "cluster_sums.cuh"
#include "warpgroup.cuh"

#ifdef HAS_WARPGROUPS
// d += 64 x 16 of a times the transpose of 8 TILES x 16 of b.
#define PRODUCT(TILES, columns, NUMBERS, RESULTS, OPERANDS)                                                                       \
  __device__ __forceinline__ void multiply_tiles(float (&d)[TILES][4], uint64_t a, uint64_t b) {                                  \
    asm volatile("{\n.reg .pred p;\nsetp.eq.b32 p, 0, 0;\n"                                                                       \
                 "wgmma.mma_async.sync.aligned.m64n" columns "k16.f32.bf16.bf16 {" NUMBERS "}, " OPERANDS ", p, 1, 1, 0, 0;\n}\n" \
                 : RESULTS                                                                                                         \
                 : "l"(a), "l"(b));                                                                                                \
  }
PRODUCT(1, "8", "%0, %1, %2, %3", FOUR(d, 0), "%4, %5")
PRODUCT(2, "16", "%0, %1, %2, %3, %4, %5, %6, %7", FOURS_2(d, 0), "%8, %9")
PRODUCT(4, "32", "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15", FOURS_4(d, 0), "%16, %17")

constexpr int CHUNK = 64, OUTPUTS = 64, MAX_STAGES = 8; // inner indices of a stage; a block's outputs

// y: [rows, outputs]. blockIdx.x: rank in the cluster, which splits the inner index; blockIdx.y: outputs. `x`, `w`: boxes of 8 TILES and OUTPUTS rows of CHUNK columns.
template <int TILES>
__device__ void product(const CUtensorMap &x, const CUtensorMap &w, float *y, int rows, int inputs, int outputs, int stages, uint8_t *memory) {
  constexpr int WEIGHTS = OUTPUTS * CHUNK * 2, STAGE = WEIGHTS + TILES * 8 * CHUNK * 2;
  __shared__ uint64_t arrived[MAX_STAGES];
  const Arrivals arrivals = {(uint32_t)__cvta_generic_to_shared(arrived)};
  const uint32_t place = (uint32_t)__cvta_generic_to_shared(memory);
  const Shares shares(8 * TILES);
  const int all = inputs / CHUNK, first = shares.split * all / shares.splits, count = (shares.split + 1) * all / shares.splits - first, output = blockIdx.y * OUTPUTS;
  const auto bring_weights = [&](int chunk) { // by one thread, as is bring_rows
    const int at = chunk % stages;
    arrivals.expect(at, STAGE);
    arrivals.bring(at, place + at * STAGE, w, (first + chunk) * CHUNK, output);
  };
  const auto bring_rows = [&](int chunk) {
    const int at = chunk % stages;
    arrivals.bring(at, place + at * STAGE + WEIGHTS, x, (first + chunk) * CHUNK, 0);
  };
  if (threadIdx.x == 0) {
    arrivals.start(stages);
    for (int chunk = 0; chunk < min(stages, count); chunk++) bring_weights(chunk);
  }
  __syncthreads();
  wait_for_predecessor();
  if (threadIdx.x == 0)
    for (int chunk = 0; chunk < min(stages, count); chunk++) bring_rows(chunk);
  float acc[TILES][4] = {};
  int at = 0, turn = 0;
  for (int chunk = 0; chunk < count; chunk++) {
    arrivals.wait(at, turn);
    const uint64_t a = describe(reinterpret_cast<const bf16 *>(memory + at * STAGE), 16), b = describe(reinterpret_cast<const bf16 *>(memory + at * STAGE + WEIGHTS), 16);
    products_start();
#pragma unroll
    for (int q = 0; q < CHUNK / 16; q++) multiply_tiles(acc, a + 2 * q, b + 2 * q);
    products_commit();
    products_end<0>(acc);
    __syncthreads();
    if (threadIdx.x == 0 && chunk + stages < count) bring_weights(chunk + stages), bring_rows(chunk + stages);
    if (++at == stages) at = 0, turn ^= 1;
  }
  start_successor();
  join_sums<OUTPUTS>(acc, reinterpret_cast<float *>(memory), shares, y, output, rows, outputs, outputs, [](float sum, int) { return sum; });
}

#define INSTANTIATE(TILES, tokens)                                                                                                                  \
  extern "C" __global__ void __launch_bounds__(2 * OUTPUTS, 3)                                                                                      \
      decode_matmul_##tokens(const __grid_constant__ CUtensorMap x, const __grid_constant__ CUtensorMap w, float *y, int rows, int inputs, int outputs, \
                             int stages) {                                                                                                         \
    extern __shared__ __align__(1024) uint8_t memory[];                                                                                             \
    product<TILES>(x, w, y, rows, inputs, outputs, stages, memory);                                                                                  \
  }
INSTANTIATE(1, 8)
INSTANTIATE(2, 16)
INSTANTIATE(4, 32)
#endif
