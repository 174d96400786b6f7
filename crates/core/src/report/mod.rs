//! Reports of runs: single, listed and compared; as HTML, Markdown, CSV, JSON lines, TensorBoard event files and plain text.

mod answer_diff;
mod chain_text;
mod compare;
mod confidence_page;
mod error;
mod eval_pair;
mod eval_progress;
mod eval_results;
mod event_text;
mod failure_groups;
mod failures;
mod filter;
mod gate;
mod html;
mod listing;
mod markdown;
mod measure;
mod messages;
mod model_card;
mod previous_run;
mod prove_page;
mod rank_table;
mod run_groups;
mod run_outcome;
mod run_page;
mod run_report;
mod run_row;
mod sample_differences;
mod serving;
mod significance;
mod step_facts;
mod summary_table;
mod svg;
mod tables;
mod tensorboard;
mod versus_text;

pub use crate::page::text::table as text_table;
pub use answer_diff::{ComparedPrompt, MAX_EVALS, Outcome, PairedComparison, Versus};
pub use chain_text::{chain_counts, chain_text};
pub use compare::RunComparison;
pub use confidence_page::acceptance_text;
pub use error::ReportError;
pub use eval_progress::{eval_count, eval_pace, eval_progress_text, eval_rates};
pub use eval_results::{
    EvalId, EvalResult, PROMPTS_FILE, base_and_trained, base_and_trained_on, held_out_sets,
    list_evals, result_on,
};
pub use event_text::{
    Level, STEP_METRICS, alert_name, alert_text, control_text, event_text, guard_text, rates,
};
pub use failure_groups::{FailureGroup, FailureGroups, GroupKind};
pub use filter::Filter;
pub use gate::{Threshold, thresholds_markdown};
pub use html::{Page, html, versus_html};
pub use listing::{Entry, Listing};
pub use markdown::markdown;
pub use measure::{Measure, Metric};
pub use messages::{PromptMessages, openai_messages};
pub use model_card::{PublishedBase, model_card, serving_card};
pub use previous_run::RunChanges;
pub use prove_page::prove_page;
pub use rank_table::rank_table;
pub use run_groups::{
    GROUPINGS, MeanStd, RunGroup, group_labels, group_runs, group_values, wrong_grouping,
};
pub use run_outcome::{JudgedEval, RunOutcome};
pub use run_page::{RunContext, eval_table};
pub use run_report::{Report, SMOOTHING};
pub use run_row::{
    EvalSeries, FIELDS, LastValue, RunRow, SMOOTHED, field_text, mistyped_value, number_text,
    order, unknown_field,
};
pub use sample_differences::SampleDifference;
pub use serving::{ExportForm, GgufFiles};
pub use significance::{MetricComparison, MetricVerdict, Verdict, points};
pub use step_facts::step_facts;
pub use summary_table::{
    MeasureRow, call_rows, columns, cost_rows, field_rows, judged_page, rate_rows, table, tag_rows,
};
pub use svg::curves::{Curve, curves_svg};
pub use tables::{csv, csv_line, json_lines, shown, spread};
pub use tensorboard::{EventFile, event_file, write_event_file};
pub use versus_text::{versus_csv, versus_markdown, versus_rates, versus_text};
