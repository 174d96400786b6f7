//! Weights and trainer state on disk, atomic and bit-exact.

mod export; // exports Hugging Face files and PEFT adapters
mod gguf; // exports GGUF
mod gguf_import; // imports GGUF
mod gguf_metadata; // header of GGUF
mod gguf_tokenizer; // tokenizer -> GGUF
mod gguf_vocabulary; // GGUF -> tokenizer
mod import; // imports PEFT adapters
mod locate; // finds the model named M
mod new_folder; // folders created atomically
mod open_model; // weights with an adapter
mod side_by_side; // one base with several adapters
mod start_model; // a located model with tokenizer and digest
mod tensor_file; // writes safetensors in chunks
mod trainer_state; // saves and resumes

pub use export::{ExportedAdapter, export_adapter, export_merged, write_model};
pub use gguf::{GgufType, Rounding, export_gguf, export_gguf_adapter};
pub use gguf_import::{import_gguf, import_into_cache};
pub use import::PeftAdapter;
pub use locate::{ModelLocation, StartError};
pub use new_folder::WriteChunk;
pub use open_model::OpenModel;
pub use side_by_side::SharedBase;
pub use start_model::StartModel;
pub use tensor_file::{ElementSource, STAGE_BYTES, StreamedTensor};
pub use trainer_state::{Contents, Snapshot, TrainerState, load, load_parameters, remove, size};

use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    #[error(
        "{path}: {source}; nothing that existed was changed. Free space or choose another folder, then resume"
    )]
    Write {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error(
        "{path}: {problem}: use another checkpoint (RUN@STEP), or remove this folder (resume then uses the one before)"
    )]
    Read { path: PathBuf, problem: String },
    /// A file of another program that cannot be read, or a model that its format cannot hold.
    #[error("{file}: {problem}")]
    Foreign {
        file: String,
        /// Problem and remedy.
        problem: String,
    },
    #[error("{0}: use another checkpoint (RUN@STEP)")]
    Damaged(#[from] crate::run::RunError),
    #[error("{0}")]
    Hub(#[from] crate::hub::HubError),
    #[error("{0}")]
    Model(#[from] crate::model::ModelError),
    #[error("{0}")]
    Tensor(#[from] candle_core::Error),
}

impl CheckpointError {
    fn foreign(file: impl ToString, problem: impl Into<String>) -> Self {
        Self::Foreign {
            file: file.to_string(),
            problem: problem.into(),
        }
    }
}
