// What the attention kernels share: how packed rows divide, and which rows a block's tile is, sees and is seen by.
#pragma once
#include "numbers.cuh"

// Rows of a tile in the tables; a kernel with smaller tiles takes a part of one a block (blockIdx.z).
constexpr int TABLE_TILE = 64;

struct Batch {
  const uint32_t *segments;    // [segments, 4]: start, length, prefix start, prefix length
  const uint32_t *tiles;       // [tiles, 2]: segment, first row inside it
  const uint32_t *dependants;  // [segments + 1] places in what follows, then rows of the segments that have this one as prefix
  int rows, width, query_heads, key_heads, dimension;
  float scale;

  __device__ __forceinline__ size_t key_column(int key_head) const { return (size_t)(query_heads + key_head) * dimension; }
  __device__ __forceinline__ size_t value_column(int key_head) const { return (size_t)(query_heads + key_heads + key_head) * dimension; }
};
#define BATCH_PARAMETERS                                                                                                       \
  const uint32_t *segments, const uint32_t *tiles, const uint32_t *dependants, int rows, int width, int query_heads,           \
      int key_heads, int dimension, float scale
#define BATCH                                                                                                                  \
  Batch { segments, tiles, dependants, rows, width, query_heads, key_heads, dimension, scale }

struct Segment {
  int start, length, prefix_start, prefix_length;

  __device__ __forceinline__ Segment(const uint32_t *segments, int index)
      : start(segments[4 * index]), length(segments[4 * index + 1]), prefix_start(segments[4 * index + 2]),
        prefix_length(segments[4 * index + 3]) {}

  // The row of key n: the prefix's, then the segment's own.
  __device__ __forceinline__ long long key_row(int n) const { return n < prefix_length ? prefix_start + n : start + n - prefix_length; }
};

// The query rows of a block: blockIdx.x names the tile, blockIdx.y the query head.
struct QueryTile {
  Segment segment;
  int first, count;  // rows inside the segment; a count of 0 or less: nothing to do
  int head, key_head;
  int keys;  // how many keys the last row sees

  __device__ __forceinline__ QueryTile(const Batch &batch, int size)
      : segment(batch.segments, batch.tiles[2 * blockIdx.x]), first(batch.tiles[2 * blockIdx.x + 1] + blockIdx.z * size),
        count(min(size, segment.length - first)), head(blockIdx.y), key_head(head / (batch.query_heads / batch.key_heads)),
        keys(segment.prefix_length + first + count) {}

  __device__ __forceinline__ long long row(int r) const { return segment.start + first + r; }
  __device__ __forceinline__ bool sees(int r, int key) const { return key < keys && key <= segment.prefix_length + first + r; }
};

// The key rows of a block: blockIdx.x names the tile, blockIdx.y the key head. Its queries: the segment's rows from the tile on, then the dependants'.
struct KeyTile {
  Segment segment;
  int first, count;
  int key_head;
  int own, queries;  // rows of the segment from the tile on; these and the dependants'
  const uint32_t *dependants;

  __device__ __forceinline__ KeyTile(const Batch &batch, int size)
      : segment(batch.segments, batch.tiles[2 * blockIdx.x]), first(batch.tiles[2 * blockIdx.x + 1] + blockIdx.z * size),
        count(min(size, segment.length - first)), key_head(blockIdx.y), own(segment.length - first) {
    const uint32_t *place = batch.dependants + batch.tiles[2 * blockIdx.x];
    queries = own + (int)(place[1] - place[0]);
    dependants = batch.dependants + place[0];
  }

  __device__ __forceinline__ long long own_row(int r) const { return segment.start + first + r; }
  __device__ __forceinline__ long long query_row(int n) const { return n < own ? own_row(n) : (long long)dependants[n - own]; }
  // Whether query n reads key r: its own segment's rows only from the key's own place on; a dependant's n is larger than every r.
  __device__ __forceinline__ bool seen(int r, int n) const { return n < queries && r <= n; }
};
