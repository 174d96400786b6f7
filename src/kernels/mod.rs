//! Fused operations with their backward.
