//! Gradients: every fused operation and the whole model against finite differences.

mod families;
mod finite_differences;
mod operations;
mod plain;
mod whole_model;
