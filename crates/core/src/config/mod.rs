//! The table of configuration keys and the layers that fill it.

mod choices;
mod joined_tasks;
mod keys;
pub mod reference;
mod resolve;
#[cfg(test)]
mod tests;
mod train_config;
mod value;

pub use choices::choices;
pub use choices::{
    Advantage, BasePrecision, BestBy, KlEstimator, Method, OnCollapse, PolicyLoss, Preset,
    PromptSampling, Recompute, SAMPLING_GAP, SamplingCorrection, Schedule, ThinkingEnd,
};
pub use joined_tasks::{JoinedConfig, TaskTable};
pub use keys::{DerivedDefault, KEYS, Key, REMOVED_KEYS, RemovedKey, Rule};
pub use resolve::{Assignments, ConfigError, ConfigFile, Layers, ResolvedConfig, Source};
pub use train_config::{EXPECTED_TEACHER, MIN_STEPS, ThinkingBudget, TrainConfig};
pub use value::{Kind, StopCondition, Value};
