//! Gradients: every fused operation, one layer and the whole model against finite differences and against candle's own
//! tape.

mod families;
mod finite_differences;
mod operations;
mod plain;
mod whole_model;
