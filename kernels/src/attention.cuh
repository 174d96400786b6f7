// Shared by the attention kernels: layout of packed rows; the rows of a block's tile, those it sees, and those that see it.
#pragma once
#include "numbers.cuh"

// Rows of a tile in the tables; a kernel with smaller tiles processes a part per block (blockIdx.z).
constexpr int TABLE_TILE = 64;

// A window that hides nothing.
constexpr int ALL_KEYS = 0x7fffffff;

struct Batch {
  const uint32_t *segments;  // [segments, 5]: start, length, prefix start, prefix length, number of following rows with it as prefix
  const uint32_t *tiles;     // [tiles, 2]: segment, first row inside it
  const uint32_t *positions; // [rows]: number of keys each row sees before its own, without a window
  int rows, width, query_heads, key_heads, dimension;
  float scale;
  int window;  // maximum number of keys that a row sees, the last ones, its own included

  __device__ __forceinline__ size_t key_column(int key_head) const { return (size_t)(query_heads + key_head) * dimension; }
  __device__ __forceinline__ size_t value_column(int key_head) const { return (size_t)(query_heads + key_heads + key_head) * dimension; }
};
#define BATCH_PARAMETERS                                                                                                       \
  const uint32_t *segments, const uint32_t *tiles, const uint32_t *positions, int rows, int width, int query_heads,            \
      int key_heads, int dimension, float scale, int window
#define BATCH                                                                                                                  \
  Batch { segments, tiles, positions, rows, width, query_heads, key_heads, dimension, scale, window }

struct Segment {
  int start, length, prefix_start, prefix_length, readers;

  __device__ __forceinline__ Segment(const uint32_t *segments, int index)
      : start(segments[5 * index]), length(segments[5 * index + 1]), prefix_start(segments[5 * index + 2]),
        prefix_length(segments[5 * index + 3]), readers(segments[5 * index + 4]) {}

  // Row of key n: the prefix's, then the segment's own.
  __device__ __forceinline__ long long key_row(int n) const { return n < prefix_length ? prefix_start + n : start + n - prefix_length; }
};

// Initial state of the softmax of a head's rows: empty, or with the head's sink, an additional score without a value. The maximum is finite before a row has
// seen a key, so that a hidden tile adds 0.
struct Start {
  float largest, total;

  template <typename T>
  __device__ __forceinline__ Start(const T *sinks, int head) : largest(sinks ? to_float(sinks[head]) * LOG2_E : -1e30f), total(sinks ? 1.0f : 0.0f) {}
};

// Query rows of tile blockIdx.x, with one query head.
struct QueryTile {
  Segment segment;
  int first, count;  // rows inside the segment; nothing to do if count <= 0
  int head, key_head;
  int keys;  // keys visible to the last row
  int window;

  __device__ __forceinline__ QueryTile(const Batch &batch, int size, int head)
      : segment(batch.segments, batch.tiles[2 * blockIdx.x]), first(batch.tiles[2 * blockIdx.x + 1] + blockIdx.z * size),
        count(min(size, segment.length - first)), head(head), key_head(head / (batch.query_heads / batch.key_heads)),
        keys(segment.prefix_length + first + count), window(batch.window) {}

  __device__ __forceinline__ long long row(int r) const { return segment.start + first + r; }
  // Index of row r in its sequence, equal to that of its own key.
  __device__ __forceinline__ int place(int r) const { return segment.prefix_length + first + r; }
  __device__ __forceinline__ bool sees(int r, int key) const { return key < keys && key <= place(r) && key > place(r) - window; }
  // The first key that the first row sees.
  __device__ __forceinline__ int first_key() const { return max(0, place(0) + 1 - window); }
};

// Key rows of tile blockIdx.x, with key head blockIdx.y. Its queries: the segment's rows from the tile on, then the following ones that have it as prefix.
struct KeyTile {
  Segment segment;
  int first, count;
  int key_head;
  int queries;
  int window;

  __device__ __forceinline__ KeyTile(const Batch &batch, int size)
      : segment(batch.segments, batch.tiles[2 * blockIdx.x]), first(batch.tiles[2 * blockIdx.x + 1] + blockIdx.z * size),
        count(min(size, segment.length - first)), key_head(blockIdx.y), queries(segment.length - first + segment.readers), window(batch.window) {}

  // Row of a key of the tile, and of query n.
  __device__ __forceinline__ long long row(int n) const { return segment.start + first + n; }
  // Distance of a query at this position from the tile's first key.
  __device__ __forceinline__ int distance(int position) const { return position - (segment.prefix_length + first); }
  // Whether query n, `distance` after the first key, reads key r: rows of its own segment only from the key on; n of later rows is above every r.
  __device__ __forceinline__ bool seen(int r, int n, int distance) const { return n < queries && r <= n && distance - r < window; }
  // Whether a query at this distance reads any key of the tile, as far as the window allows.
  __device__ __forceinline__ bool reached(int distance) const { return distance - (count - 1) < window; }
};
