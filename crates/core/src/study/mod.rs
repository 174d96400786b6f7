//! Sweeps: the settings of several runs, which of them continue, and their results.

mod axes;
mod comparison;
mod error;
mod measure;
mod schedule;
mod sweep;
mod table;

pub use axes::{Axis, Setting, Space, grid};
pub use comparison::{ArmComparison, EvalDifference};
pub use error::StudyError;
pub use measure::{LatestRates, MeasuredRun, Metric};
pub use schedule::{Next, next};
pub use sweep::{FORMAT_VERSION, MAX_RUNS, Sweep, SweepFolder, SweepRun, SweepTask};
pub use table::{RunPhase, RunStanding, SettingRow, SweepTable};
