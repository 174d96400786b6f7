//! Honest statistics: what a rate on n prompts may claim, and whether two models truly differ.

mod compare;
mod rates;
mod smoothing;

pub use compare::{Interval, mcnemar_exact, paired_bootstrap, required_n};
pub use rates::{compound, informative_probability, normal_quantile, wilson};
pub use smoothing::{Smoothing, smooth};
