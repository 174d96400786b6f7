//! Logs of evals that other programs ran: inspect, promptfoo, lm-eval, verifiers, TRL, and plain
//! tables. Each reader yields samples; [`Importer`] makes records of a task of them.

mod detect_format;
mod import;
mod inspect;
mod json_stream;
mod lm_eval;
mod promptfoo;
mod rows;
mod sample;
mod score_value;
mod verifiers;

pub use import::{ImportedLog, ImportedTarget, Importer, inferred_task};
pub use sample::{EvalLogError, LogHeader, LogOptions, NamedScore, Sample};
