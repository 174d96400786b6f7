//! Statistics: what a rate on n prompts supports, and whether two models differ.

mod beta;
mod calibration;
mod compare;
mod correlation;
#[cfg(test)]
mod golden;
mod rates;
mod runs;
mod samples;
mod smoothing;

pub use calibration::{
    Forecast, ReliabilityBin, at_temperature, brier, calibration_error, fitted_temperature,
    reliability, threshold,
};
pub use compare::{
    Interval, PairedTest, SIGNIFICANT, Verdict, holm, look_adjusted, look_level, mcnemar_exact,
    over_represented, paired_counts, paired_means, required_n, required_n_of_means,
};
pub use correlation::correlation;
pub use rates::{compound, normal_quantile, wilson, wilson_by_prompt};
pub use runs::{OverRuns, Spread, over_runs};
pub use samples::{mean_by_prompt, pass_at, student_mean};
pub use smoothing::{Smoothing, smooth};
