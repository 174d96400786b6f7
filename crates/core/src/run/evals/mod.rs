//! Evals: their answers, summaries, comparisons, comments.

pub(super) mod against_base;
mod answer_summary;
mod comments;
mod confidence_summary;
mod endpoint_summary;
mod eval_folder;
mod eval_names;
pub(super) mod eval_progress;
mod eval_record;
mod field_rates;
mod sample_rates;
mod speed_summary;
pub(super) mod summary;
pub(super) mod test_looks;
mod tool_summary;

pub use crate::api_client::LogProbs;
pub use against_base::AgainstBase;
pub use answer_summary::AnswerSummary;
pub use comments::{Comment, check_comment, comments_path, read_comments, write_comment};
pub use confidence_summary::{
    Acceptance, Calibration, ConfidenceSummary, HeldOut, PRECISION, Scaled,
};
pub use endpoint_summary::EndpointSummary;
pub use eval_folder::{AnswerLog, EvalFolder, RESULT_FILE, StoredTarget};
pub use eval_names::{EvalName, read_eval_names, recorded_file};
pub use eval_progress::EvalProgress;
pub use eval_record::{EndpointCall, EvalRecord, EvalTurn};
pub use field_rates::{FieldSummary, InventedSummary};
pub use sample_rates::{PassAt, SampleRates, SampleSummary, counts_by_prompt};
pub use speed_summary::{MaskCost, SpeedSummary};
pub use summary::{
    Comparison, EvalSummary, TagSummary, answers_path, eval_file, eval_path, read_evals,
    write_evals,
};
pub use test_looks::TestLook;
pub use tool_summary::{CallCount, ChainRate, ToolSummary, ValidCalls};
