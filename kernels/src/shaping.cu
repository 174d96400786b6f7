// Penalties, top-k, top-p, min-p and the most likely tokens of the rows that ask for them, as shaping.rs does on the CPU. One block per row. Weights are integers, so
// that their sums depend on no order.
#include "sampling.cuh"

// As `ShapedRow::words`.
struct Shape {
  double uniform, temperature, top_p, min_p, repetition, presence, frequency;
  // Row of logits; index of the newest token among the last pass's, if not in `seen`; start and number of pairs (token, count) and of stop tokens among the words.
  uint32_t row, top_k, newest, seen, seen_count, suppressed, suppressed_count, alternatives, alternatives_at, is_truncated;
};

__device__ __forceinline__ float penalized(const Shape &shape, float logit, uint32_t count) {
  double x = logit;
  if (shape.repetition != 1.0) x = x < 0.0 ? __dmul_rn(x, shape.repetition) : __ddiv_rn(x, shape.repetition);
  if (count > 0) x = __dsub_rn(x, __dadd_rn(shape.presence, __dmul_rn(shape.frequency, (double)count)));
  return (float)x;
}

// In place, before sampling.
extern "C" __global__ void penalize(float *logits, const uint32_t *words, const SampledToken *last, int vocabulary) {
  const Shape shape = reinterpret_cast<const Shape *>(words)[blockIdx.x];
  float *row = logits + (size_t)shape.row * vocabulary;
  __shared__ uint32_t newest_count;
  const uint32_t newest = shape.newest == NOT_FINITE ? NOT_FINITE : last[shape.newest].token;
  if (threadIdx.x == 0) newest_count = 0;
  __syncthreads();
  for (uint32_t i = threadIdx.x; i < shape.seen_count; i += blockDim.x) {
    const uint32_t id = words[shape.seen + 2 * i], count = words[shape.seen + 2 * i + 1];
    if (id == newest) newest_count = count;
    else if (id < (uint32_t)vocabulary) row[id] = penalized(shape, row[id], count);
  }
  __syncthreads();
  if (threadIdx.x == 0 && newest < (uint32_t)vocabulary) row[newest] = penalized(shape, row[newest], newest_count + 1);
  __syncthreads();
  for (uint32_t i = threadIdx.x; i < shape.suppressed_count; i += blockDim.x) {
    const uint32_t id = words[shape.suppressed + i];
    if (id < (uint32_t)vocabulary) row[id] = -INFINITY;
  }
}

// Tokens are ordered by logit, then by lower id: the order is (logit's rank << 32 | ~id).
using Order = uint64_t;

__device__ __forceinline__ uint32_t rank_of(float logit) {
  const uint32_t bits = __float_as_uint(logit);
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

__device__ __forceinline__ Order order_of(float logit, uint32_t id) { return (Order)rank_of(logit) << 32 | (uint32_t)~id; }

__device__ __forceinline__ float logit_of(Order order) {
  const uint32_t rank = order >> 32;
  return __uint_as_float(rank & 0x80000000u ? rank & 0x7fffffffu : ~rank);
}

constexpr int THREADS = 1024, PIVOTS = 4;
// A weight of 1; the sum over 2^19 tokens fits.
constexpr double ONE = 0x1p44;

// Sums over the block, for all its threads.
template <int N> __device__ __forceinline__ void block_totals(uint64_t (&sums)[N]) {
  __shared__ uint64_t partial[N][32];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
#pragma unroll
  for (int j = 0; j < N; j++) {
    for (int distance = 16; distance > 0; distance /= 2) sums[j] += __shfl_xor_sync(0xffffffffu, sums[j], distance);
    if (lane == 0) partial[j][warp] = sums[j];
  }
  __syncthreads();
#pragma unroll
  for (int j = 0; j < N; j++) {
    sums[j] = partial[j][lane];
    for (int distance = 16; distance > 0; distance /= 2) sums[j] += __shfl_xor_sync(0xffffffffu, sums[j], distance);
  }
  __syncthreads();
}

// Of the candidates among which a bound is found.
struct Measured {
  uint64_t positions[THREADS], measures[THREADS];
  Order list[THREADS];
};

// The candidates of a row.
struct Candidates {
  const float *row;
  Allowed<true> allowed;
  int vocabulary;
  float inverse, largest;
  // Least order, and least weight.
  Order cut;
  double min_p;
  // The candidates once they are few: one per thread.
  Measured &shared;
  int listed;

  __device__ __forceinline__ float shifted(Order order) const { return __fsub_rn(__fmul_rn(logit_of(order), inverse), largest); }
  __device__ __forceinline__ uint64_t weight(Order order) const { return __double2ull_rz((double)exponential(shifted(order)) * ONE); }
  __device__ __forceinline__ bool has(Order order) const {
    return order >= cut && (min_p <= 0.0 || (double)exponential(shifted(order)) >= min_p);
  }

  template <typename Visit> __device__ __forceinline__ void each(Visit visit) const {
    if (listed >= 0) {
      if (threadIdx.x < listed && has(shared.list[threadIdx.x])) visit(shared.list[threadIdx.x]);
      return;
    }
#pragma unroll 4
    for (int id = threadIdx.x; id < vocabulary; id += THREADS) {
      const Order order = order_of(row[id], id);
      if ((!allowed.bits || allowed.has(id)) && has(order)) visit(order);
    }
  }

  // Lists them if they are few.
  __device__ void gather() {
    __shared__ int count;
    if (listed >= 0) return;
    if (threadIdx.x == 0) count = 0;
    __syncthreads();
    each([&](Order order) {
      if (*(volatile int *)&count > THREADS) return;
      const int at = atomicAdd(&count, 1);
      if (at < THREADS) shared.list[at] = order;
    });
    __syncthreads();
    if (count <= THREADS) listed = count;
    __syncthreads();
  }

  __device__ uint64_t total() const {
    uint64_t sum[1] = {0};
    each([&](Order order) { sum[0] += weight(order); });
    block_totals(sum);
    return sum[0];
  }

  // The last of the fewest first candidates, by order or by id, whose weights (or number) reach the target, as an order or as ~id; 0 if all do not. The range in
  // which it is is divided until few are left.
  template <bool BY_ID, bool WEIGHED> __device__ uint64_t reach(uint64_t target) const {
    __shared__ uint64_t found;
    __shared__ int count;
    uint64_t low = 0, high = BY_ID ? 0xffffffffu : ~0ull, above = 0;
    bool few = listed >= 0, first = !BY_ID;
    while (!few) {
      uint64_t pivots[PIVOTS], sums[2 * PIVOTS] = {};
      for (int j = 0; j < PIVOTS; j++) pivots[j] = low + 1 + (high - low) / PIVOTS * j;
      if (first) {
        const float distances[PIVOTS] = {0.0f, 12.0f, 5.0f, 2.0f};
        for (int j = 1; j < PIVOTS; j++) pivots[j] = order_of(__fdividef(largest - distances[j], inverse), ~0u);
        first = false;
      }
      each([&](Order order) {
        const uint64_t position = BY_ID ? (uint32_t)order : order;
        if (position <= low || position > high) return;
        const uint64_t measure = WEIGHED ? weight(order) : 1;
#pragma unroll
        for (int j = 0; j < PIVOTS; j++) {
          if (position < pivots[j]) continue;
          sums[j] += measure;
          sums[PIVOTS + j]++;
        }
      });
      block_totals(sums);
      if (above + sums[0] < target) return 0;
      uint64_t rest = 0, others = 0;
      int j = PIVOTS - 1;
      for (; j > 0 && above + sums[j] < target; j--) {
        rest = sums[j];
        others = sums[PIVOTS + j];
        high = pivots[j] - 1;
      }
      low = pivots[j] - 1;
      above += rest;
      few = sums[PIVOTS + j] - others <= THREADS;
    }
    if (threadIdx.x == 0) {
      count = 0;
      found = 0;
    }
    __syncthreads();
    each([&](Order order) {
      const uint64_t position = BY_ID ? (uint32_t)order : order;
      if (position <= low || position > high) return;
      const int at = atomicAdd(&count, 1);
      shared.positions[at] = position;
      shared.measures[at] = WEIGHED ? weight(order) : 1;
    });
    __syncthreads();
    if (threadIdx.x < count) {
      const uint64_t own = shared.positions[threadIdx.x];
      uint64_t sum = above;
      for (int other = 0; other < count; other++)
        if (shared.positions[other] >= own) sum += shared.measures[other];
      if (sum >= target && sum - shared.measures[threadIdx.x] < target) found = own;
    }
    __syncthreads();
    const uint64_t result = found;
    __syncthreads();
    return result;
  }
};

// masks: as in `sample_masked`, or null. alternatives: (token, log-prob) of each row from `alternatives_at` on.
extern "C" __global__ void __launch_bounds__(THREADS)
    shape(const float *logits, const uint32_t *words, const uint32_t *masks, SampledToken *drawn, SampledToken *alternatives, int vocabulary) {
  __shared__ Measured shared;
  const Shape shape = reinterpret_cast<const Shape *>(words)[blockIdx.x];
  const bool greedy = shape.temperature == 0.0 || shape.uniform < 0.0;
  const float *row = logits + (size_t)shape.row * vocabulary;
  const Allowed<true> allowed = {masks ? masks + (size_t)shape.row * ((vocabulary + 31) / 32) : nullptr};
  float largest = -INFINITY;
  bool wrong = false;
#pragma unroll 4
  for (int id = threadIdx.x; id < vocabulary; id += THREADS) {
    const float logit = row[id];
    if (allowed.bits && !allowed.has(id)) continue;
    largest = fmaxf(largest, logit);
    wrong = wrong || !(logit < INFINITY);
  }
  const float inverse = greedy ? 1.0f : (float)(1.0 / shape.temperature);
  largest = __fmul_rn(block_max(largest), inverse);
  const Order possible = ((Order)rank_of(-INFINITY) + 1) << 32;
  Candidates candidates = {row, allowed, vocabulary, inverse, largest, possible, 0.0, shared, -1};
  SampledToken *most_likely = alternatives + shape.alternatives_at;
  const auto fail = [&] {
    for (uint32_t i = threadIdx.x; i < shape.alternatives; i += THREADS) most_likely[i] = {NOT_FINITE, 0.0f};
    if (threadIdx.x == 0) drawn[shape.row] = {NOT_FINITE, __int_as_float(0x7fc00000)};
  };
  if (__syncthreads_or(wrong)) return fail();
  const auto keep = [&](uint64_t order) {
    candidates.cut = max(candidates.cut, (Order)order);
    candidates.gather();
  };
  if (shape.top_k > 0) keep(candidates.reach<false, false>(shape.top_k) >> 32 << 32);
  if (shape.top_p < 1.0) {
    const uint64_t nucleus = __double2ull_ru(__dmul_rn(shape.top_p, __ull2double_rn(candidates.total())));
    keep(candidates.reach<false, true>(nucleus > 0 ? nucleus : 1));
  }
  candidates.min_p = shape.min_p;
  if (shape.min_p > 0.0) candidates.gather();
  const uint64_t total = candidates.total();
  if (total == 0) return fail();
  const double log_total = log(__ull2double_rn(total) / ONE);
  const auto token_of = [&](Order order) -> SampledToken { return {~(uint32_t)order, (float)((double)candidates.shifted(order) - log_total)}; };
  if (shape.is_truncated) {
    Order order;
    if (greedy) {
      order = candidates.reach<false, false>(1);
    } else {
      const uint64_t target = __double2ull_rz(__dmul_rn(shape.uniform, __ull2double_rn(total)));
      const uint32_t id = ~(uint32_t)candidates.reach<true, true>(min(target, total - 1) + 1);
      order = order_of(row[id], id);
    }
    if (threadIdx.x == 0) drawn[shape.row] = token_of(order);
  }
  if (shape.alternatives == 0) return;
  candidates.cut = max(candidates.cut, (Order)candidates.reach<false, false>(shape.alternatives));
  candidates.gather();
  for (uint32_t i = threadIdx.x; i < shape.alternatives; i += THREADS) most_likely[i] = {NOT_FINITE, 0.0f};
  __syncthreads();
  candidates.each([&](Order order) {
    int rank = 0;
    for (int other = 0; other < candidates.listed; other++) rank += shared.list[other] > order && candidates.has(shared.list[other]);
    most_likely[rank] = token_of(order);
  });
}
