// Products of up to 256 bf16 rows with a frozen quantized matrix and with the adapters' A, in one kernel for decoding. Weights go from memory to registers, become
// bf16 there (`widen` of fp8.cuh and nf4.cuh) and are multiplied by wgmma; blocks of a cluster split the inner index and join their sums in a fixed order.
// For Hopper; quantized_decode_warps.cu is for others.
#include "cluster_sums.cuh"
#include "fp8.cuh"
#include "nf4.cuh"
#include "quantized_adapters.cuh"
#include "warpgroup.cuh"

#ifdef HAS_WARPGROUPS
// d += 64 x 16 of a, in registers, times the transpose of 8 TILES x 16 of b.
#define PRODUCT(TILES, columns, NUMBERS, RESULTS, OPERANDS)                                                                   \
  __device__ __forceinline__ void multiply_weights(float (&d)[TILES][4], const uint32_t (&a)[4], uint64_t b) {               \
    asm volatile("{\n.reg .pred p;\nsetp.eq.b32 p, 0, 0;\n"                                                                  \
                 "wgmma.mma_async.sync.aligned.m64n" columns "k16.f32.bf16.bf16 {" NUMBERS "}, " OPERANDS ", p, 1, 1, 0;\n}\n" \
                 : RESULTS                                                                                                    \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));                                                       \
  }
#define NUMBERS_256 \
  NUMBERS_128 ", %64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, %80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, " \
  "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, %112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"
PRODUCT(1, "8", "%0, %1, %2, %3", FOUR(d, 0), "{%4, %5, %6, %7}, %8")
PRODUCT(2, "16", "%0, %1, %2, %3, %4, %5, %6, %7", FOURS_2(d, 0), "{%8, %9, %10, %11}, %12")
PRODUCT(4, "32", "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15", FOURS_4(d, 0), "{%16, %17, %18, %19}, %20")
PRODUCT(8, "64", NUMBERS_64, FOURS_8(d, 0), "{%32, %33, %34, %35}, %36")
PRODUCT(16, "128", NUMBERS_128, FOURS_16(d, 0), "{%64, %65, %66, %67}, %68")
PRODUCT(32, "256", NUMBERS_256, FOURS_32(d, 0), "{%128, %129, %130, %131}, %132")

// Sixteen bytes, read once.
__device__ __forceinline__ uint4 read_once(const void *from) {
  uint4 v;
  asm volatile("ld.global.nc.L1::no_allocate.L2::256B.v4.u32 {%0, %1, %2, %3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(from));
  return v;
}

// Warps per block, sixteen outputs each. Small blocks spread better over multiprocessors; above 64 tokens two warpgroups share the activations.
template <int TILES> constexpr int WARPS_OF = TILES > 8 ? 8 : 4;
constexpr int CHUNK = 64, AHEAD = 4; // inner indices per chunk; prefetch distance of a lane's weights, in reads

struct Sizes {
  int rows, inputs, outputs, rank, stride, stages;
};

// A block's partial sums of its outputs, for all tokens.
template <int TILES, typename Weights>
__device__ void outputs_of_base(const CUtensorMap &x, const Weights &w, float *y, int tile, const Sizes &n, uint8_t *memory) {
  constexpr int STAGE = TILES * 8 * CHUNK * 2, OUTPUTS = 16 * WARPS_OF<TILES>;
  __shared__ uint64_t arrived[8];
  __shared__ typename Weights::Shared shared;
  Weights::share(w, shared);
  const Shares shares(8 * TILES);
  constexpr int PARTS = Weights::CHUNKS; // the last read may have chunks beyond the inputs, with zeros for x
  const int all = (n.inputs / CHUNK + PARTS - 1) / PARTS, first_read = shares.split * all / shares.splits, reads = (shares.split + 1) * all / shares.splits - first_read;
  const int first = first_read * PARTS, count = reads * PARTS;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  const Arrivals arrivals = {(uint32_t)__cvta_generic_to_shared(arrived)};
  const uint32_t stages = (uint32_t)__cvta_generic_to_shared(memory);
  if (threadIdx.x == 0) arrivals.start(n.stages);
  const int output = tile * OUTPUTS + warp * 16 + g;
  typename Weights::Lane own(w, shared, min(output, n.outputs - 1), min(output + 8, n.outputs - 1), t, n, first);
  typename Weights::Read ahead[AHEAD];
#pragma unroll
  for (int u = 0; u < AHEAD; u++) own.template fetch<read_once>(ahead[u], min(u, reads - 1));
  own.start();
  __syncthreads();
  wait_for_predecessor();
  auto stage = [&](int chunk) { // by one thread
    const int at = chunk % n.stages;
    arrivals.expect(at, STAGE);
    arrivals.bring(at, stages + at * STAGE, x, (first + chunk) * CHUNK, 0);
  };
  if (threadIdx.x == 0)
    for (int chunk = 0; chunk < min(n.stages, count); chunk++) stage(chunk);
  float acc[TILES][4] = {};
  uint32_t a[2][4][4]; // a chunk's weights are widened while products of the chunk before run
  int at = 0, turn = 0;
  constexpr int LATER = TILES > 8; // chunks whose products may still run; smaller blocks have others of their multiprocessor to fill the time
  const auto multiply_read = [&](int read, int u) {
    own.prepare(ahead[u], read + u);
#pragma unroll
    for (int part = 0; part < PARTS; part++) {
      uint32_t(&weights)[4][4] = a[(u * PARTS + part) % 2];
      own.widen(weights, ahead[u], part);
      if (part == PARTS - 1) own.template fetch<read_once>(ahead[u], min(read + u + AHEAD, reads - 1));
      arrivals.wait(at, turn);
      const uint64_t b = describe(reinterpret_cast<const bf16 *>(memory + at * STAGE), 16);
      products_start();
#pragma unroll
      for (int q = 0; q < 4; q++) multiply_weights(acc, weights[q], b + 2 * q);
      products_commit();
      products_wait<LATER>();
      __syncthreads();
      const int before = (read + u) * PARTS + part - LATER; // its products have ended
      if (threadIdx.x == 0 && before >= 0 && before + n.stages < count) stage(before + n.stages);
      if (++at == n.stages) at = 0, turn ^= 1;
    }
  };
  int read = 0;
  for (; read + AHEAD <= reads; read += AHEAD) {
#pragma unroll
    for (int u = 0; u < AHEAD; u++) multiply_read(read, u);
  }
#pragma unroll
  for (int u = 0; u < AHEAD - 1; u++)
    if (read + u < reads) multiply_read(read, u);
  products_end<0>(acc);
  start_successor();
  const auto scaled = [&](float sum, int column) { return w.scaled(sum, column); };
  join_sums<OUTPUTS>(acc, reinterpret_cast<float *>(memory), shares, y, tile * OUTPUTS, n.rows, n.outputs, n.stride, scaled);
}

// A block's partial sums of sixteen columns of A, split further over its warps.
template <int TILES> __device__ void numbers_of_adapters(const bf16 *x, const bf16 *a, float *y, int tile, const Sizes &n, uint8_t *memory) {
  constexpr int WARPS = WARPS_OF<TILES>;
  const Shares shares(8 * TILES);
  const int steps = n.inputs / 32, first = shares.split * steps / shares.splits, last = (shares.split + 1) * steps / shares.splits;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  float acc[TILES][4] = {};
  products_of_adapters<TILES, WARPS, read_once>(acc, x, a, tile, n, first, last);
  start_successor();
  float *sums = reinterpret_cast<float *>(memory); // [warp][token][16], stride 20
#pragma unroll
  for (int i = 0; i < TILES; i++)
#pragma unroll
    for (int k = 0; k < 4; k++) sums[(warp * TILES * 8 + 8 * i + 2 * t + k % 2) * 20 + g + 8 * (k / 2)] = acc[i][k];
  __syncthreads();
  constexpr int OWN = (TILES * 8 * 16 + WARPS * 32 - 1) / (WARPS * 32); // per thread
  const int column = threadIdx.x % 16;
  float found[OWN] = {};
#pragma unroll
  for (int i = 0; i < OWN; i++) {
    const int token = i * WARPS * 2 + threadIdx.x / 16;
    for (int w = 0; w < WARPS && token < TILES * 8; w++) found[i] += sums[(w * TILES * 8 + token) * 20 + column];
  }
  wait_for_cluster();
#pragma unroll
  for (int i = 0; i < OWN; i++) {
    const int token = i * WARPS * 2 + threadIdx.x / 16, place = shares.place(token);
    if (token < TILES * 8) send(sums + (shares.split * shares.own + place) * 16 + column, token - place * shares.splits, found[i]);
  }
  wait_for_cluster();
  for (int i = threadIdx.x; i < shares.own * 16; i += blockDim.x) {
    const int token = i / 16 * shares.splits + shares.split;
    if (token >= n.rows || 16 * tile + column >= n.rank) continue;
    float sum = 0.0f;
    for (int block = 0; block < shares.splits; block++) sum += sums[block * shares.own * 16 + i];
    y[(size_t)token * n.stride + n.outputs + 16 * tile + column] = sum;
  }
}

// y: [rows, stride]: products with the matrix, [outputs, inputs], then with A, [rank, inputs]. blockIdx.x: rank in the cluster; blockIdx.y: sixteen columns of
// A each, then a block's outputs.
#define DECODE(Weights, name, TILES, tokens)                                                                                   \
  extern "C" __global__ void __launch_bounds__(32 * WARPS_OF<TILES>, TILES > 8 ? 1 : 4)                                        \
      decode_##name##_##tokens(const __grid_constant__ CUtensorMap map, const bf16 *x, const __grid_constant__ Weights w,      \
                               const bf16 *a, float *y, int rows, int inputs, int outputs, int rank, int stride, int stages) { \
    extern __shared__ __align__(1024) uint8_t memory[];                                                                        \
    const Sizes sizes = {rows, inputs, outputs, rank, stride, stages};                                                         \
    const int adapters = (rank + 15) / 16, tile = blockIdx.y;                                                                  \
    if (tile < adapters) numbers_of_adapters<TILES>(x, a, y, tile, sizes, memory);                                             \
    else outputs_of_base<TILES>(map, w, y, tile - adapters, sizes, memory);                                                    \
  }
#include "quantized_instances.cuh"
#endif
