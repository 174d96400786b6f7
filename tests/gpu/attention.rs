//! Attention over packed segments, and of one new token a row, on the GPU against the CPU.
