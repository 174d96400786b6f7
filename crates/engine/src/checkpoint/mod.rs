//! Weights and trainer state on disk, atomic and bit-exact.

mod export; // a model as Hugging Face files, adapters as PEFT's
mod gguf; // a model as llama.cpp's one file
mod gguf_import; // and back
mod gguf_metadata; // its header
mod gguf_vocabulary; // its tokenizer
mod import; // PEFT's adapters
mod locate; // where the model is that M names
mod new_folder; // one that appears at once
mod open_model; // its weights, perhaps with an adapter beside them
mod side_by_side; // one base with several adapters
mod start_model; // and its tokenizer, to prompt it
mod tensor_file; // safetensors, a piece at a time
mod trainer_state; // save and resume

pub use export::{export_adapter, export_merged, write_model};
pub use gguf::{GgufType, export_gguf};
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
    #[error("{path}: {problem}")]
    Adapter {
        path: PathBuf,
        /// Problem and remedy.
        problem: String,
    },
    #[error("{0}: use another checkpoint (RUN@STEP)")]
    Damaged(#[from] crate::run::RunError),
    #[error("{label}: {problem}")]
    Gguf { label: String, problem: String },
    #[error("{path}: {problem}")]
    GgufFile { path: PathBuf, problem: String },
    #[error("{0}")]
    Hub(#[from] crate::hub::HubError),
    #[error("{0}")]
    Model(#[from] crate::model::ModelError),
    #[error("{0}")]
    Tensor(#[from] candle_core::Error),
}
