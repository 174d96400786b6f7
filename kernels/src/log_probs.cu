// Logits -> log-prob of a row's target and entropy, and back. One block per row, 512 threads. Scaled logits are rounded separately, so that the largest is
// exactly exp(0), as on the CPU.
#include "vectors.cuh"

// Aggregates of part of a row: the largest x, the sum of exp(x - largest), and the sum of exp(x - largest) * (x - largest).
struct Stretch {
  float largest, sum, weighted;
};

// A negligible share; keeps 0 * infinity out of the entropy, but lets NaN through.
__device__ __forceinline__ float bounded(float shifted) { return shifted < -1e4f ? -1e4f : shifted; }

template <int N> __device__ __forceinline__ void extend(Stretch &stretch, const float *row, int i, float inverse) {
  Pack<float, N> x = load<N>(row + i);
  float largest = stretch.largest;
#pragma unroll
  for (int k = 0; k < N; k++) {
    x.at[k] = __fmul_rn(x.at[k], inverse);
    largest = fmaxf(largest, x.at[k]);
  }
  if (largest > stretch.largest) {
    const float change = bounded(stretch.largest - largest), factor = expf(change);
    stretch.weighted = (stretch.weighted + stretch.sum * change) * factor;
    stretch.sum *= factor;
    stretch.largest = largest;
  }
#pragma unroll
  for (int k = 0; k < N; k++) {
    const float shifted = bounded(x.at[k] - largest), weight = expf(shifted);
    stretch.sum += weight;
    stretch.weighted += weight * shifted;
  }
}

// The thread's part of the row. Starts below every finite logit, but finite, so that nothing is subtracted from infinity.
template <int N> __device__ __forceinline__ Stretch own_stretch(const float *row, int vocabulary, float inverse) {
  Stretch stretch = {-3e38f, 0.0f, 0.0f};
#pragma unroll 4
  for (int i = threadIdx.x * N; i < vocabulary; i += blockDim.x * N) extend<N>(stretch, row, i, inverse);
  return stretch;
}

struct Total {
  float largest;
  double sum, weighted;
};

__device__ Total whole_row(const float *row, int vocabulary, float inverse) {
  const Stretch own = rows_aligned<4>(vocabulary, row) ? own_stretch<4>(row, vocabulary, inverse) : own_stretch<1>(row, vocabulary, inverse);
  const float largest = block_max(own.largest);
  const double change = own.sum == 0.0f ? 0.0 : (double)own.largest - largest, factor = exp(change);
  return {largest, block_sum(own.sum * factor), block_sum((own.weighted + own.sum * change) * factor)};
}

// results: [rows, 2], log-prob and entropy.
extern "C" __global__ void token_log_probs(const float *logits, const uint32_t *targets, float *results, int vocabulary, float inverse) {
  const float *row = logits + (size_t)blockIdx.x * vocabulary;
  const Total total = whole_row(row, vocabulary, inverse);
  if (threadIdx.x > 0) return;
  const double logarithm = log(total.sum);
  results[2 * (size_t)blockIdx.x] = (float)((double)(__fmul_rn(row[targets[blockIdx.x]], inverse) - total.largest) - logarithm);
  results[2 * (size_t)blockIdx.x + 1] = (float)(logarithm - total.weighted / total.sum);
}

// A row's gradient: exp(x - largest) * (factor + slope * (x - largest)), and `added` at the target.
struct RowGradient {
  float largest, factor, slope, added;
  int target;
};

template <int N, typename T>
__device__ void write_gradient(const float *row, T *output, int vocabulary, float inverse, RowGradient of) {
#pragma unroll 4
  for (int i = threadIdx.x * N; i < vocabulary; i += blockDim.x * N) {
    const Pack<float, N> x = load<N>(row + i);
    Pack<T, N> result;
#pragma unroll
    for (int k = 0; k < N; k++) {
      const float shifted = __fmul_rn(x.at[k], inverse) - of.largest;
      const float value = expf(shifted) * (of.slope == 0.0f ? of.factor : of.factor + of.slope * bounded(shifted));
      result.at[k] = from_float<T>(i + k == of.target ? value + of.added : value);
    }
    store<N>(output + i, result);
  }
}

// weights: [rows, 2], derivatives of the loss by each row's log-prob and entropy. A row with weights 0 is not read.
template <typename T>
__device__ void backward(const float *logits, const uint32_t *targets, const double *weights, T *output, int vocabulary, double temperature) {
  const float *row = logits + (size_t)blockIdx.x * vocabulary;
  output += (size_t)blockIdx.x * vocabulary;
  const double weight = weights[2 * (size_t)blockIdx.x], entropy_weight = weights[2 * (size_t)blockIdx.x + 1];
  if (weight == 0.0 && entropy_weight == 0.0) {
    for (int i = threadIdx.x; i < vocabulary; i += blockDim.x) output[i] = from_float<T>(0.0f);
    return;
  }
  const float inverse = (float)(1.0 / temperature);
  const Total total = whole_row(row, vocabulary, inverse);
  // ln p + H is the shifted logit less its mean, total.weighted / total.sum.
  const double constant = entropy_weight == 0.0 ? weight : weight - entropy_weight * total.weighted / total.sum;
  const RowGradient of = {total.largest, (float)(-constant / temperature / total.sum),
                          (float)(-entropy_weight / temperature / total.sum), (float)(weight / temperature), (int)targets[blockIdx.x]};
  if (rows_aligned<4>(vocabulary, row) && aligned(output, 4 * sizeof(T))) write_gradient<4>(row, output, vocabulary, inverse, of);
  else write_gradient<1>(row, output, vocabulary, inverse, of);
}

#define INSTANTIATE(T, suffix)                                                                                                 \
  extern "C" __global__ void token_log_probs_backward_##suffix(const float *logits, const uint32_t *targets,                  \
                                                               const double *weights, T *output, int vocabulary,               \
                                                               double temperature) {                                           \
    backward(logits, targets, weights, output, vocabulary, temperature);                                                       \
  }
INSTANTIATE(float, f32)
INSTANTIATE(bf16, bf16)
