//! The format of a log, by its name and its first bytes.

use std::io::Read;
use std::path::Path;

use serde_json::{Map, Value};

use super::sample::{EvalLogError, LogHeader, LogOptions, Take, fail, open};
use super::{inspect, lm_eval, promptfoo, rows, verifiers};

/// Bytes at the start of a file that tell its format.
const HEAD_BYTES: u64 = 64 << 10;

/// Reads a log, one sample at a time.
pub(super) fn read(
    path: &Path,
    options: &LogOptions,
    take: Take<'_>,
) -> Result<LogHeader, EvalLogError> {
    let extension = path.extension().unwrap_or_default().to_string_lossy();
    if ["parquet", "csv", "tsv"].contains(&extension.to_ascii_lowercase().as_str()) {
        return rows::read(path, options, take);
    }
    let mut head = Vec::new();
    open(path)?
        .take(HEAD_BYTES)
        .read_to_end(&mut head)
        .map_err(|error| fail(path, error.to_string()))?;
    if head.starts_with(b"PK") || extension == "eval" {
        return inspect::read_archive(path, options, take);
    }
    let text = String::from_utf8_lossy(&head);
    let first: String = text.chars().take(400).collect();
    let line = text.lines().next().unwrap_or_default();
    let object = serde_json::from_str::<Map<String, Value>>(line).unwrap_or_default();
    let has = |keys: [&str; 2]| keys.iter().all(|key| object.contains_key(*key));
    let after_results = first
        .split_once("\"results\"")
        .map(|(_, rest)| rest.trim_start_matches([':', ' ', '\n', '\r', '{', '\t']));
    match after_results {
        // A line that is longer than the head has its document first.
        _ if has(["doc_id", "filter"])
            || has(["doc_id", "arguments"])
            || object.is_empty() && line.starts_with("{\"doc_id\"") =>
        {
            lm_eval::read(path, options, take)
        }
        _ if has(["testIdx", "promptIdx"]) => promptfoo::read(path, options, true, take),
        _ if verifiers::is_log(&text) => verifiers::read(path, options, take),
        _ if first.contains("\"status\"") && first.contains("\"eval\"") => {
            inspect::read_json(path, options, take)
        }
        _ if first.contains("\"evalId\"") => promptfoo::read(path, options, false, take),
        Some(rest)
            if ["\"version\"", "\"timestamp\"", "["]
                .iter()
                .any(|start| rest.starts_with(start)) =>
        {
            promptfoo::read(path, options, false, take)
        }
        Some(_) if extension == "json" && text.contains("\"configs\"") => Err(fail(
            path,
            "is the summary of lm-eval, without completions: import its samples_*.jsonl (lm-eval writes them with --log_samples)",
        )),
        _ => rows::read(path, options, take),
    }
}
