//! The training loops, readable aloud: GRPO, and the pretraining of small models.

mod measure; // speed of this machine
mod pretrain; // a small model from a task's generator

pub use measure::{Measurement, measure_cpu};
pub use pretrain::{PretrainProgress, PretrainSettings, pretrain};

/// Why a training ended early.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// A tensor operation failed.
    #[error("{0}")]
    Tensor(#[from] candle_core::Error),
    /// The model could not be loaded.
    #[error("{0}")]
    Model(#[from] crate::model::ModelError),
    /// Tokenizer or chat template.
    #[error("{0}")]
    Text(#[from] crate::text::TextError),
    /// Prompts.
    #[error("{0}")]
    Dataset(#[from] crate::dataset::DatasetError),
    /// Checkpoints.
    #[error("{0}")]
    Checkpoint(#[from] crate::checkpoint::CheckpointError),
    /// Numbers that are not finite.
    #[error("step {step}: {what} is not finite; lower `learning_rate` and resume from the last checkpoint")]
    NotFinite {
        /// The step.
        step: u64,
        /// Loss or gradient.
        what: String,
    },
}
