//! Sweeps and studies: the settings of several runs, which of them continue, and their results.

mod arms;
mod axes;
mod comparison;
mod error;
mod halving;
mod measure;
mod picture;
mod schedule;
mod sweep;
mod table;

pub use arms::{SFT_VS_GRPO, sft_vs_grpo};
pub use axes::{Axis, Setting, Space, grid, random};
pub use comparison::ArmComparison;
pub use error::StudyError;
pub use halving::{Halving, rungs, survivors};
pub use measure::{LatestRates, MeasuredRun, Metric};
pub use picture::curves;
pub use schedule::{Next, next};
pub use sweep::{FORMAT_VERSION, MAX_RUNS, Sweep, SweepFolder, SweepRun, SweepTask};
pub use table::{RunPhase, RunStanding, SettingRow, SweepTable};
