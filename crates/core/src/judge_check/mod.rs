//! Reliability of a judge: its grades against human labels, itself, and answers that instruct it.

mod labels;
mod measure;
mod saved;

pub use labels::{
    JudgedCriterion, LABELS_FILE, Label, LabelError, MAX_LABELS, MIN_LABELS, criteria_of,
    read_labels, write_labels,
};
pub use measure::{CheckError, CheckSize, check_judges};
pub use saved::warnings;
pub use saved::{
    CHECK_FILE, CriterionCheck, JudgeCheck, MIN_KAPPA, Shift, check_table, checks_in,
    files_with_checks, saved_checks,
};
