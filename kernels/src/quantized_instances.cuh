// The kernels DECODE(Weights, name, TILES, tokens) of both precisions, each with room for so many tokens.
#define INSTANTIATE(TILES, tokens) \
  DECODE(Fp8, fp8, TILES, tokens)  \
  DECODE(Nf4, nf4, TILES, tokens)
INSTANTIATE(1, 8)
INSTANTIATE(2, 16)
INSTANTIATE(4, 32)
INSTANTIATE(8, 64)
INSTANTIATE(16, 128)
INSTANTIATE(32, 256)
