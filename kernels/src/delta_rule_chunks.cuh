// The gated delta rule (Yang et al. 2024, arXiv 2412.06464) by chunks of 64 tokens, on tensor cores.
//
// One value head, token i: q_i and k_i (normalised), v_i, a strength b_i, and a decay a_i. Its state S, [key dimension, value dimension], advances by
//
//     R = a_i S,    u_i = b_i (v_i - R^T k_i),    S <- R + k_i u_i^T,    o_i = S^T q_i                              (token by token: delta_rule.rs)
//
// Within a chunk, S is the state before it; Q, K, V, U, O have one token per row; c_i is the sum of log a from the chunk's first token to token i, C that of
// its last one. e^c times a matrix multiplies row i by e^(c_i). Unrolled, the state after token i is e^(c_i) S + sum over j <= i of e^(c_i - c_j) k_j u_j^T. So
// u_i and o_i are
//
//     (I + A) U = b (V - e^c K S),   A_ij = b_i e^(c_i - c_j) k_i . k_j   for j < i,  else 0                        `system`; T = (I + A)^-1 is `inverse`
//     O = e^c Q S + P U,             P_ij = e^(c_i - c_j) q_i . k_j       for j <= i, else 0                        `scores`
//     S <- e^C S + K^T e^(C - c) U                                                                                  `into` is e^c, `out` e^(C - c)
//
// A and P need no state: `prepare` computes T and P for all chunks at once. `forward` does the rest in sequence, one block per 32 columns of the state, as
// columns are independent. T comes from squares of 16 tokens by substitution; consecutive squares are joined, to 32 and to 64 tokens, by
//
//     (I + A)^-1 = [ T11  0 ; -T22 A21 T11  T22 ]
//
// Backward (`backward`, delta_rule_gradients.cu): dO is the gradient of O, dS' that of the state after the chunk. E is the gradient of U by its direct uses,
// T^T E that of b (V - e^c K S):
//
//     E = P^T dO + e^(C - c) K dS'
//     dV = b T^T E
//     dS = e^C dS' + Q^T e^c dO - K^T e^c dV
//
// dQ and dK follow from the three equations above, where the gradient of A_ij is -(T^T E)_i . u_j. With N_ij = e^(c_i - c_j) do_i . u_j for j <= i and M_ij =
// e^(c_i - c_j) dv_i . u_j for j < i (`scores` and `inner` there):
//
//     dQ = e^c dO S^T + N K
//     dK = e^(C - c) U dS'^T - e^c dV S^T + N^T Q - (M + M^T) K
//     db_i = u_i . dv_i / b_i^2                                                       of b = sigmoid(y):   dy_i = u_i . dv_i (1 - b_i) / b_i
//
// A decay scales the whole state, so the gradient of log a_i is <a_i S, d(a_i S)>, the sum of the state's elements times their gradients. Backwards over a
// token this product grows by o_i . do_i - v_i . dv_i (`falls`), and it is known at the chunk's end (`along`):
//
//     d(log a_i) = <last S, dS'> + sum over j >= i of (o_j . do_j - v_j . dv_j)
//     log a = -exp(A) softplus(x + bias):   dx = dbias = -exp(A) sigmoid(x + bias) d(log a),   dA = log a d(log a)  (A: `decay`, not the matrix)
//
// Numbers are multiplied as sums of bf16 parts, for f32's errors: inputs as read have one part (bf16) or three (f32), computed numbers two or three. So keys
// and queries stay as read: q = f x with f = 1 / |x| (for a query also over the root of the dimension) is a factor of products (`query`, `key`). From the
// gradient of q, dx = f (dq - x (x . dq) / |x|^2); 1e-6 is added to |x|^2.
#pragma once
#include "delta_rule.cuh"
#include "tensor_cores.cuh"

constexpr int CHUNK = 64;
// Elements of a chunk's keys (or queries), of a 64 x 64 token matrix, of 32 columns of a state, of 32 columns of a chunk's values.
constexpr int TILE = CHUNK * MOST, SQUARE = CHUNK * CHUNK, STATE = MOST * SLICE, PANEL = CHUNK * SLICE;
// Recorded for the gradients of queries and keys, of 32 columns: U, dV, dO, S, dS'.
constexpr int RECORD = 3 * PANEL + 2 * STATE;

template <typename T> struct Parts;
template <> struct Parts<bf16> {
  static constexpr int INPUT = 1, OWN = 2;
};
template <> struct Parts<float> {
#if __CUDA_ARCH__ < 900
  static constexpr int INPUT = 2, OWN = 2; // more do not fit
#else
  static constexpr int INPUT = 3, OWN = 3;
#endif
};

// Per token and value head. Rows after a segment's end are zeros, with `into` and `out` of the last token.
struct alignas(16) Factor {
  float strength;       // b
  float into, out;      // e^c, e^(C - c)
  float query, key;     // factors of the raw query and key
  float decayed, below; // c, and its rounding error

  // e^(c - c'), for a token not after this one.
  __device__ __forceinline__ float since(const Factor &other) const { return expf(decayed - other.decayed + (below - other.below)); }
};

// A chunk's rows.
struct Chunk {
  int row, count;

  __device__ __forceinline__ Chunk(const Segment &segment, int first) : row(segment.start + first), count(min(CHUNK, segment.length - first)) {}
};

// Output of `prepare`: factors [chunks, value heads, 64]; keys, then queries [chunks, key heads, parts, 2, 64 x 128]; T's parts, then P's [chunks, value heads,
// 2, parts, 64 x 64].
struct Prepared {
  Factor *factors;
  bf16 *tiles, *squares;

  __device__ __forceinline__ Factor *factors_of(const Heads &heads, size_t chunk, int head) const { return factors + (chunk * heads.value + head) * CHUNK; }
  template <typename T> __device__ __forceinline__ bf16 *tile_of(const Heads &heads, size_t chunk, int head) const {
    return tiles + (chunk * heads.key + heads.key_of(head)) * 2 * Parts<T>::INPUT * TILE;
  }
  template <typename T> __device__ __forceinline__ bf16 *squares_of(const Heads &heads, size_t chunk, int head) const {
    return squares + (chunk * heads.value + head) * 2 * Parts<T>::OWN * SQUARE;
  }
};

// Offset of an element in a tile: 16-byte pieces are permuted within rows, so that eight rows of a column are in different banks. Tiles in global memory have
// this layout too.
template <int WIDTH> __device__ __forceinline__ int place(int row, int column) {
  const int mix = WIDTH == 32 ? row / 2 % 4 : row % 8;
  return row * WIDTH + (column / 8 ^ mix) * 8 + column % 8;
}

// Splits numbers into sums of bf16 parts, largest first; pairs as in `pack`.
template <int PARTS> __device__ __forceinline__ void split(float low, float high, uint32_t (&parts)[PARTS]) {
#pragma unroll
  for (int p = 0; p < PARTS; p++) {
    parts[p] = pack(low, high);
    low -= __uint_as_float(parts[p] << 16);
    high -= __uint_as_float(parts[p] & 0xffff0000u);
  }
}

// Four 8 x 8 matrices from a shared-memory address, optionally transposed (tensor_cores.cuh).
template <bool TRANSPOSED> __device__ __forceinline__ void load_matrices_at(uint32_t (&to)[4], uint32_t address) {
  if (TRANSPOSED)
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];\n" : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3]) : "r"(address) : "memory");
  else asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];\n" : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3]) : "r"(address) : "memory");
}

// A matrix in shared memory, or its transpose; its parts are STRIDE elements apart. Inner indices are below 64: from a panel of 64 columns on, for wider tiles.
template <int PARTS_, int WIDTH, int STRIDE, bool TRANSPOSED> struct Operand {
  static constexpr int PARTS = PARTS_, BYTES = sizeof(bf16);
  uint32_t at;

  __device__ __forceinline__ Operand(const bf16 *from) : at((uint32_t)__cvta_generic_to_shared(from)) {}

  // Address of a lane's 16 bytes for inner index 0, and the permutation of others.
  struct Line {
    uint32_t base, mix;
  };
  // Sixteen rows as left operand.
  __device__ __forceinline__ Line left(int row) const {
    const int lane = threadIdx.x % 32;
    return TRANSPOSED ? across(lane / 16 * 8 + lane % 8, row + lane / 8 % 2 * 8) : down(row + lane % 16, lane / 16);
  }
  // Sixteen columns, as two right operands.
  __device__ __forceinline__ Line right(int column) const {
    const int lane = threadIdx.x % 32;
    return TRANSPOSED ? down(column + lane / 16 * 8 + lane % 8, lane / 8 % 2) : across(lane % 16, column + lane / 16 * 8);
  }
  // The inner index counts columns of the tile, or rows.
  __device__ __forceinline__ Line down(int row, int piece) const { return {at + row * WIDTH * BYTES, (uint32_t)(place<WIDTH>(row, piece * 8) - row * WIDTH) * BYTES}; }
  __device__ __forceinline__ Line across(int row, int column) const { return {at + place<WIDTH>(row, column) * BYTES, 0}; }

  __device__ __forceinline__ void load_left(uint32_t (&to)[4], const Line &line, int part, int k) const {
    load_matrices_at<TRANSPOSED>(to, line.base + part * STRIDE * BYTES + (TRANSPOSED ? k * WIDTH * BYTES : (k * BYTES) ^ line.mix));
  }
  __device__ __forceinline__ void load_right(uint32_t (&to)[4], const Line &line, int part, int k) const {
    load_matrices_at<!TRANSPOSED>(to, line.base + part * STRIDE * BYTES + (TRANSPOSED ? (k * BYTES) ^ line.mix : k * WIDTH * BYTES));
  }
};

// d += a b for 16 inner indices from k on, for M times 16 rows of a. Omits products of parts below f32's precision.
template <int PARTS, int M, int N, typename R>
__device__ __forceinline__ void product_step(float (&d)[M][N][4], const uint32_t (&left)[M][PARTS][4], R b, int column, int k) {
  constexpr int MOST_PARTS = PARTS > R::PARTS ? PARTS : R::PARTS;
#pragma unroll
  for (int n = 0; n < N; n += 2) {
    const typename R::Line line = b.right(column + n * 8);
#pragma unroll
    for (int j = 0; j < R::PARTS; j++) {
      uint32_t right[4];
      b.load_right(right, line, j, k);
#pragma unroll
      for (int i = 0; i + j < MOST_PARTS && i < PARTS; i++)
#pragma unroll
        for (int m = 0; m < M; m++) {
          multiply(d[m][n], left[m][i], right[0], right[1]);
          multiply(d[m][n + 1], left[m][i], right[2], right[3]);
        }
    }
  }
}

// Likewise over a range of inner indices, multiples of 16; rows are STEP apart.
template <int STEP, int M, int N, typename L, typename R>
__device__ __forceinline__ void product(float (&d)[M][N][4], L a, int row, R b, int column, int from = 0, int to = 64) {
#pragma unroll 4
  for (int k = from; k < to; k += 16) {
    uint32_t left[M][L::PARTS][4];
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
      for (int i = 0; i < L::PARTS; i++) a.load_left(left[m][i], a.left(row + m * STEP), i, k);
    product_step(d, left, b, column, k);
  }
}

// Starts to copy `count` elements, a multiple of 8, by all threads.
__device__ __forceinline__ void copy_image(bf16 *to, const bf16 *from, int numbers) {
  for (int at = threadIdx.x * 8; at < numbers; at += blockDim.x * 8) copy_async(to + at, from + at, true);
}
