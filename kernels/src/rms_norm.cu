// y = x / sqrt(mean(x^2) + epsilon) * (offset + weight), one block per row. S: dtype of the residual stream (x and sums of it); T: of the rest. Written rows of
// T are `stride` apart; the columns between are not touched.
#include "low_rank.cuh"

template <int N, typename S, typename T>
__device__ void forward(const S *x, const T *weight, T *y, int width, int stride, float offset, float epsilon) {
  x += (size_t)blockIdx.x * width;
  y += (size_t)blockIdx.x * stride;
  float square = 0.0f;
  for (int i = threadIdx.x * N; i < width; i += blockDim.x * N) {
    const Pack<S, N> values = load<N>(x + i);
#pragma unroll
    for (int k = 0; k < N; k++) square += to_float(values.at[k]) * to_float(values.at[k]);
  }
  const float inverse = rsqrtf(block_sum(square) / width + epsilon);
  for (int i = threadIdx.x * N; i < width; i += blockDim.x * N) {
    const Pack<S, N> values = load<N>(x + i);
    const Pack<T, N> weights = load<N>(weight + i);
    Pack<T, N> result;
#pragma unroll
    for (int k = 0; k < N; k++) result.at[k] = from_float<T>(to_float(values.at[k]) * inverse * (offset + to_float(weights.at[k])));
    store<N>(y + i, result);
  }
}

// sum = x + addend, rounded to S; y = norm of that. A thread only re-reads what it wrote itself. With A = float the addend is open: rows of width, then A
// products of adapters, `addend_stride` apart. Without ADDS there is no x.
template <int N, bool ADDS = true, typename S, typename A, typename T>
__device__ void add_forward(const S *x, const A *addend, int addend_stride, const LowRank<T> &adapters, const T *weight, S *sum, T *y, int width,
                            int stride, float offset, float epsilon) {
  const size_t row = (size_t)blockIdx.x * width;
  addend += (size_t)blockIdx.x * addend_stride;
  if constexpr (sizeof(A) == sizeof(float)) {
    start_successor();
    for (int i = threadIdx.x * N; i < width; i += blockDim.x * N) prefetch(weight + i);
    wait_for_predecessor();
  }
  y += (size_t)blockIdx.x * stride;
  float square = 0.0f;
  Pack<S, N> newest = {};
  for (int i = threadIdx.x * N; i < width; i += blockDim.x * N) {
    Pack<S, N> a = {};
    if constexpr (ADDS) a = load<N>(x + row + i);
    const Pack<A, N> b = load<N>(addend + i);
    float added[N];
#pragma unroll
    for (int k = 0; k < N; k++) {
      added[k] = to_float(b.at[k]);
      if constexpr (sizeof(A) == sizeof(float)) added[k] = adapters.add(added[k], addend + width, i + k);
    }
    Pack<S, N> result;
#pragma unroll
    for (int k = 0; k < N; k++) {
      result.at[k] = from_float<S>(to_float(a.at[k]) + added[k]);
      square += to_float(result.at[k]) * to_float(result.at[k]);
    }
    store<N>(sum + row + i, result);
    newest = result;
  }
  const float inverse = rsqrtf(block_sum(square) / width + epsilon);
  for (int i = threadIdx.x * N; i < width; i += blockDim.x * N) {
    const Pack<S, N> values = i + blockDim.x * N >= width ? newest : load<N>(sum + row + i);
    const Pack<T, N> weights = load<N>(weight + i);
    Pack<T, N> result;
#pragma unroll
    for (int k = 0; k < N; k++) result.at[k] = from_float<T>(to_float(values.at[k]) * inverse * (offset + to_float(weights.at[k])));
    store<N>(y + i, result);
  }
}

#if __CUDA_ARCH__ >= 900
// For decoding, with the adapters' part: eight blocks share sixteen rows (a cluster of compute capability 9.0), a warp has 64 columns of them. The width is a
// multiple of 64, and determines the blocks' warps.
__device__ void add_on_tensor_cores(const float *x, const float *addend, int addend_stride, const bf16 *b, int rank, const bf16 *weight, float *sum, bf16 *y,
                                    int rows, int width, float offset, float epsilon) {
  constexpr int TILES = 4, BLOCKS = 8;
  __shared__ float warp_sums[16][16], block_sums[BLOCKS][16]; // of sixteen rows
  const int warp = threadIdx.x / 32, warps = blockDim.x / 32, g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
  const int column = (blockIdx.x * warps + warp) * 16 * TILES;
  const bool inside = column < width;
  start_successor();
  asm volatile("barrier.cluster.arrive.relaxed.aligned;" ::: "memory");
  const TensorLowRank<TILES> adapters(inside ? b : nullptr, column, rank);
  Pack<bf16, 4> weights[TILES];
#pragma unroll
  for (int i = 0; i < TILES; i++) weights[i] = inside ? load<4>(weight + column + 16 * i + 4 * t) : Pack<bf16, 4>{};
  const TwoRows row(rows);
  wait_for_predecessor();
  Tile tiles[TILES] = {};
  float squares[2] = {};
  if (inside) {
    const float *low = addend + (size_t)row.low * addend_stride, *high = addend + (size_t)row.high * addend_stride;
    const size_t low_at = (size_t)row.low * width + column, high_at = (size_t)row.high * width + column;
    Tile before[TILES];
#pragma unroll
    for (int i = 0; i < TILES; i++) {
      tiles[i].read(low + column + 16 * i, high + column + 16 * i, t);
      before[i].read(x + low_at + 16 * i, x + high_at + 16 * i, t);
    }
    adapters.add(tiles, low + width, high + width);
#pragma unroll
    for (int i = 0; i < TILES; i++) {
      Pack<float, 4> low_sum, high_sum;
#pragma unroll
      for (int k = 0; k < 4; k++) {
        low_sum.at[k] = tiles[i].low[k] += before[i].low[k];
        high_sum.at[k] = tiles[i].high[k] += before[i].high[k];
        squares[0] += low_sum.at[k] * low_sum.at[k];
        squares[1] += high_sum.at[k] * high_sum.at[k];
      }
      store(sum + low_at + 16 * i + 4 * t, low_sum);
      store(sum + high_at + 16 * i + 4 * t, high_sum);
    }
  }
#pragma unroll
  for (int n = 0; n < 2; n++) {
    const float square = lanes_sum<2, 1>(squares[n]);
    if (t == 0) warp_sums[warp][g + 8 * n] = square;
  }
  __syncthreads();
  // All blocks of the cluster are running by now: sends this one's sums to each.
  asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
  for (int i = threadIdx.x; i < 16 * BLOCKS; i += blockDim.x) {
    float found = 0.0f;
    for (int w = 0; w < warps; w++) found += warp_sums[w][i % 16];
    uint32_t there;
    const uint32_t here = (uint32_t)__cvta_generic_to_shared(&block_sums[blockIdx.x][i % 16]);
    asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(here), "r"(i / 16));
    asm volatile("st.shared::cluster.f32 [%0], %1;" ::"r"(there), "f"(found) : "memory");
  }
  asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::: "memory");
  float inverses[2];
#pragma unroll
  for (int n = 0; n < 2; n++) {
    float square = 0.0f;
#pragma unroll
    for (int block = 0; block < BLOCKS; block++) square += block_sums[block][g + 8 * n];
    inverses[n] = rsqrtf(square / width + epsilon);
  }
  if (!inside) return;
#pragma unroll
  for (int i = 0; i < TILES; i++) {
    Pack<bf16, 4> low_result, high_result;
#pragma unroll
    for (int k = 0; k < 4; k++) {
      low_result.at[k] = from_float<bf16>(tiles[i].low[k] * inverses[0] * (offset + to_float(weights[i].at[k])));
      high_result.at[k] = from_float<bf16>(tiles[i].high[k] * inverses[1] * (offset + to_float(weights[i].at[k])));
    }
    store(y + (size_t)row.low * width + column + 16 * i + 4 * t, low_result);
    store(y + (size_t)row.high * width + column + 16 * i + 4 * t, high_result);
  }
}
#endif

// dx = residual + r * (g - x * r^2 * mean(g * x)) with g = gradient * (offset + weight), r = 1 / rms; `residual` may be null.
template <int N, typename S, typename T>
__device__ void backward(const T *gradient, const S *x, const T *weight, const T *residual, int residual_stride, T *dx, int width, int stride,
                         float offset, float epsilon) {
  const size_t row = (size_t)blockIdx.x * width;
  residual += residual ? (size_t)blockIdx.x * residual_stride : 0;
  dx += (size_t)blockIdx.x * stride;
  float square = 0.0f, product = 0.0f;
  for (int i = threadIdx.x * N; i < width; i += blockDim.x * N) {
    const Pack<T, N> g = load<N>(gradient + row + i), weights = load<N>(weight + i);
    const Pack<S, N> values = load<N>(x + row + i);
#pragma unroll
    for (int k = 0; k < N; k++) {
      const float value = to_float(values.at[k]);
      square += value * value;
      product += to_float(g.at[k]) * (offset + to_float(weights.at[k])) * value;
    }
  }
  const float inverse = rsqrtf(block_sum(square) / width + epsilon);
  const float shared = block_sum(product) * inverse * inverse / width;
  for (int i = threadIdx.x * N; i < width; i += blockDim.x * N) {
    const Pack<T, N> g = load<N>(gradient + row + i), weights = load<N>(weight + i);
    const Pack<S, N> values = load<N>(x + row + i);
    Pack<T, N> added = {}, result;
    if (residual) added = load<N>(residual + i);
#pragma unroll
    for (int k = 0; k < N; k++) {
      const float product = to_float(g.at[k]) * (offset + to_float(weights.at[k])), through = inverse * (product - to_float(values.at[k]) * shared);
      result.at[k] = from_float<T>(residual ? to_float(added.at[k]) + through : through);
    }
    store<N>(dx + i, result);
  }
}

// 1 / rms of each row, one warp per row.
template <typename T>
__device__ void inverses(const T *x, float *inverse, int rows, int width, float epsilon) {
  const int row = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
  if (row >= rows) return;
  x += (size_t)row * width;
  float square = 0.0f;
  for (int i = threadIdx.x % 32; i < width; i += 32) square += to_float(x[i]) * to_float(x[i]);
  square = warp_sum(square);
  if (threadIdx.x % 32 == 0) inverse[row] = rsqrtf(square / width + epsilon);
}

// The weight's gradient over the rows of part blockIdx.y, one thread per column.
template <typename S, typename T>
__device__ void weight_parts(const T *gradient, const S *x, const float *inverse, float *partial, int rows, int width, int rows_a_part) {
  const int column = blockIdx.x * blockDim.x + threadIdx.x;
  if (column >= width) return;
  const int first = blockIdx.y * rows_a_part, last = min(rows, first + rows_a_part);
  float sum = 0.0f;
  for (int row = first; row < last; row++) {
    const size_t at = (size_t)row * width + column;
    sum += to_float(gradient[at]) * to_float(x[at]) * inverse[row];
  }
  partial[(size_t)blockIdx.y * width + column] = sum;
}

extern "C" __global__ void weight_sums(const float *partial, float *sums, int parts, int width) { sum_parts(partial, sums, parts, width); }

#define INSTANTIATE(S, T, suffix)                                                                                              \
  extern "C" __global__ void rms_norm_##suffix(const S *x, const T *weight, T *y, int stride, int width, float offset,        \
                                              float epsilon) {                                                                 \
    constexpr int N = wide<T>();                                                                                               \
    if (rows_aligned<N>(width, weight, y) && rows_aligned<N>(width, x) && stride % N == 0)                                     \
      forward<N>(x, weight, y, width, stride, offset, epsilon);                                                                \
    else forward<1>(x, weight, y, width, stride, offset, epsilon);                                                             \
  }                                                                                                                            \
  extern "C" __global__ void add_rms_norm_##suffix(const S *x, const T *addend, int addend_stride, const T *b, int rank,       \
                                             const T *weight, S *sum, T *y, int stride, int width, float offset, float epsilon) {\
    constexpr int N = wide<T>();                                                                                               \
    const LowRank<T> adapters = {b, rank};                                                                                     \
    if (rows_aligned<N>(width, weight, y, b) && rows_aligned<N>(width, x, sum) && rows_aligned<N>(width, addend) &&            \
        addend_stride % N == 0 && stride % N == 0)                                                                             \
      add_forward<N>(x, addend, addend_stride, adapters, weight, sum, y, width, stride, offset, epsilon);                              \
    else add_forward<1>(x, addend, addend_stride, adapters, weight, sum, y, width, stride, offset, epsilon);                           \
  }                                                                                                                            \
  extern "C" __global__ void add_open_rms_norm_##suffix(const S *x, const float *addend, int addend_stride, const T *b, int rank,\
                                             const T *weight, S *sum, T *y, int stride, int width, float offset, float epsilon) {\
    constexpr int N = wide<T>();                                                                                               \
    const LowRank<T> adapters = {b, rank};                                                                                     \
    if (rows_aligned<N>(width, weight, y, b) && rows_aligned<N>(width, x, sum) && rows_aligned<N>(width, addend) &&            \
        addend_stride % N == 0 && stride % N == 0)                                                                             \
      add_forward<N>(x, addend, addend_stride, adapters, weight, sum, y, width, stride, offset, epsilon);                              \
    else add_forward<1>(x, addend, addend_stride, adapters, weight, sum, y, width, stride, offset, epsilon);                           \
  }                                                                                                                            \
  extern "C" __global__ void open_rms_norm_##suffix(const float *rows, int rows_stride, const T *b, int rank, const T *weight,\
                                             float *sum, T *y, int width, float offset, float epsilon) {                       \
    constexpr int N = wide<T>();                                                                                               \
    const LowRank<T> adapters = {b, rank};                                                                                     \
    const float *none = nullptr;                                                                                               \
    if (rows_aligned<N>(width, weight, y, b) && rows_aligned<N>(width, rows, sum) && rows_stride % N == 0)                     \
      add_forward<N, false>(none, rows, rows_stride, adapters, weight, sum, y, width, width, offset, epsilon);                 \
    else add_forward<1, false>(none, rows, rows_stride, adapters, weight, sum, y, width, width, offset, epsilon);              \
  }                                                                                                                            \
  extern "C" __global__ void rms_norm_backward_##suffix(const T *gradient, const S *x, const T *weight, const T *residual,     \
                                                        int residual_stride, T *dx, int stride, int width, float offset,       \
                                                        float epsilon) {                                                       \
    constexpr int N = wide<T>();                                                                                               \
    if (rows_aligned<N>(width, gradient, weight, residual, dx) && rows_aligned<N>(width, x) && residual_stride % N == 0 &&     \
        stride % N == 0)                                                                                                       \
      backward<N>(gradient, x, weight, residual, residual_stride, dx, width, stride, offset, epsilon);                                 \
    else backward<1>(gradient, x, weight, residual, residual_stride, dx, width, stride, offset, epsilon);                              \
  }                                                                                                                            \
  extern "C" __global__ void weight_parts_##suffix(const T *gradient, const S *x, const float *inverse, float *partial,        \
                                                   int rows, int width, int rows_a_part) {                                     \
    weight_parts(gradient, x, inverse, partial, rows, width, rows_a_part);                                                     \
  }
INSTANTIATE(float, float, f32)
INSTANTIATE(bf16, bf16, bf16)
INSTANTIATE(float, bf16, mixed)

extern "C" __global__ void inverse_rms_f32(const float *x, float *inverse, int rows, int width, float epsilon) { inverses(x, inverse, rows, width, epsilon); }
extern "C" __global__ void inverse_rms_bf16(const bf16 *x, float *inverse, int rows, int width, float epsilon) { inverses(x, inverse, rows, width, epsilon); }

#if __CUDA_ARCH__ >= 900
extern "C" __global__ void __cluster_dims__(8, 1, 1) __launch_bounds__(512)
    add_rms_norm_tensor_mixed(const float *x, const float *addend, int addend_stride, const bf16 *b, int rank, const bf16 *weight, float *sum, bf16 *y,
                              int rows, int width, float offset, float epsilon) {
  add_on_tensor_cores(x, addend, addend_stride, b, rank, weight, sum, y, rows, width, offset, epsilon);
}
#endif
