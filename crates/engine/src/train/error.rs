//! Errors that end a training, with remedies.

use crate::checkpoint::CheckpointError;
use crate::config::Method;
use crate::eval::EvalError;
use crate::kernels::cuda_errors::explained;
use crate::ranks::RankError;
use crate::rollout::ThreadPool;
use crate::run::is_full_disk;
use crate::task::PromptSet;

#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    #[error("{}", explained(&.0.to_string()))]
    Tensor(#[from] candle_core::Error),
    #[error("{0}")]
    Config(#[from] crate::config::ConfigError),
    #[error("{0}")]
    DoesNotFit(#[from] crate::plan::DoesNotFit),
    /// Out of memory at the smallest shape.
    #[error(
        "the gradient of one sequence of {tokens} tokens does not fit in GPU memory ({error}): lower max_completion_tokens, shorten the longest \
         prompts, lower lora_rank, or free the memory that other processes use there"
    )]
    OutOfMemory {
        /// Longest prompt + completion.
        tokens: usize,
        error: String,
    },
    #[error("{}", explained(&.0.to_string()))]
    Model(#[from] crate::model::ModelError),
    #[error("{0}")]
    Text(#[from] crate::text::TextError),
    #[error("{0}")]
    Dataset(#[from] crate::dataset::DatasetError),
    #[error("{0}")]
    Task(#[from] crate::task::TaskError),
    #[error("{0}")]
    Score(#[from] crate::score::ScoreError),
    #[error("{0}")]
    Prompt(#[from] crate::policy::PromptError),
    #[error("{}", explained(&.0.to_string()))]
    Eval(#[from] crate::eval::EvalError),
    #[error("{0}")]
    Start(#[from] crate::checkpoint::StartError),
    #[error("{0}")]
    Run(#[from] crate::run::RunError),
    #[error("a score or a reading of a device cannot be written or read as JSON: {0}")]
    Json(#[from] serde_json::Error),
    #[error("no row `{id}` in {files}")]
    NoSuchRow { id: String, files: String },
    #[error("{task}: the task has no training prompts; name a file under [prompts] train")]
    NoPrompts { task: String },
    #[error("confidence: {0}")]
    NoConfidence(String),
    #[error("{0}")]
    Scorer(#[from] crate::score::ScorerErrors),
    /// SFT needs answers.
    #[error(
        "train set line {line} (`{id}`): `--method {method}` needs an `expected` value or a `completion` text in every row{}",
        .instead.as_ref().map_or_else(String::new, |why| format!("; here the base cannot answer instead: {why}"))
    )]
    NoAnswer {
        id: String,
        line: usize,
        method: Method,
        /// Why the base cannot answer a row under the task's grammar, where that is possible.
        instead: Option<String>,
    },
    #[error(
        "teacher = expected: no training row of {task} has one turn and an `expected` value that fits the model: add `expected`, or set teacher to a model"
    )]
    NoDemonstration { task: String },
    #[error(
        "teacher = {teacher} has another vocabulary: token {id} is {found}, in the model to train {expected}; take a teacher with the same tokenizer"
    )]
    OtherVocabulary {
        teacher: String,
        id: u32,
        found: String,
        expected: String,
    },
    /// The model under the run's name has changed since the start.
    #[error(
        "the files of `{base_model}` changed since the run started: restore them, or start a new run"
    )]
    OtherModel { base_model: String },
    #[error(
        "the model of the judge `{judge}` is another one than at the run's start: restore it, or start a new run"
    )]
    OtherJudge { judge: String },
    #[error("{path}: {error}: the run's judges cannot be recorded")]
    JudgeRecord { path: String, error: std::io::Error },
    #[error("{0}")]
    Checkpoint(#[from] crate::checkpoint::CheckpointError),
    #[error("{0}")]
    Rank(#[from] RankError),
    /// Ranks that apply equal gradients to equal weights cannot differ, unless memory or a program
    /// is broken.
    #[error(
        "step {step}: rank {rank} took another step than rank 0; check its hardware, then resume the run"
    )]
    RanksDiffer { rank: usize, step: u64 },
    #[error("rank {rank} {what}")]
    RankLoaded { rank: usize, what: String },
    #[error(
        "the last checkpoint here is {own:?}, for rank 0 it is {expected:?}: check that all hosts see the same files"
    )]
    OtherCheckpoint {
        own: Option<u64>,
        expected: Option<u64>,
    },
    /// A rank sees other files than rank 0.
    #[error(
        "{error}. Rank 0 sees them otherwise: all hosts need the same runs folder (--runs DIR) and the same model"
    )]
    Unshared { error: String },
    #[error("stopped now, at your request")]
    StoppedAtOnce,
    /// Stopped between two evals.
    #[error("stopped before the next eval (on {set}), as requested")]
    StoppedBeforeEval { set: PromptSet },
    /// Stopped while the disk was full during a step.
    #[error("stopped while waiting for disk space ({error})")]
    StoppedWithoutRoom { error: String },
    #[error(
        "step {step}: {what} is not finite; lower `learning_rate` and resume from the last checkpoint"
    )]
    NotFinite { step: u64, what: String },
}

impl TrainError {
    /// Whether a write failed because of a full disk and can be retried.
    pub(super) fn is_full_disk(&self) -> bool {
        match self {
            Self::Run(error) => error.is_full_disk(),
            Self::Checkpoint(CheckpointError::Write { source, .. }) => is_full_disk(source),
            _ => false,
        }
    }

    /// Cause of a stop that discarded the current step.
    pub(super) fn interruption(&self) -> Option<String> {
        match self {
            Self::StoppedWithoutRoom { .. }
            | Self::StoppedAtOnce
            | Self::StoppedBeforeEval { .. } => Some(self.to_string()),
            Self::Rank(RankError::Cancelled) => Some(Self::StoppedAtOnce.to_string()),
            Self::Tensor(error)
            | Self::Eval(EvalError::Tensor(error))
            | Self::Checkpoint(CheckpointError::Tensor(error))
                if ThreadPool::is_cancellation(error) =>
            {
                Some(Self::StoppedAtOnce.to_string())
            }
            _ => None,
        }
    }
}
