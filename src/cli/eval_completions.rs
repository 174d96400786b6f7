//! `grpo-tui eval --completions`: answers that are written already, as an eval of a task.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use super::Failure;
use super::output::eprint_line;
use super::rows::Rows;
use crate::dataset::{self, PromptRow};
use crate::format::counted;
use crate::prompts::{CompletionLine, CompletionRows, NoRow};
use crate::run::EvalRecord;
use crate::score::{Scorer, Task};

/// The name and the scored records of `NAME=FILE`, or of a file, which is named as its stem.
pub(super) fn records(
    text: &str,
    task: &Task,
    scorer: &Scorer,
    rows: &Rows,
) -> Result<(String, Vec<EvalRecord>), Failure> {
    let (name, file) = match text.split_once('=') {
        Some((name, file)) => (name.trim().to_owned(), file),
        None => {
            let stem = Path::new(text).file_stem().unwrap_or_default();
            (stem.to_string_lossy().into_owned(), text)
        }
    };
    if name.is_empty() || file.is_empty() {
        return Err(Failure::usage(format!(
            "--completions {text}: write NAME=FILE, for example base=completions.jsonl"
        )));
    }
    if task.toolset().is_some() || task.agent().is_some() {
        return Err(Failure::usage(format!(
            "--completions {text}: {} has tools or an agent, whose conversations a line does not have: take --model",
            task.name
        )));
    }
    let by_id: BTreeMap<&str, &PromptRow> =
        rows.rows.iter().map(|row| (row.id.as_str(), row)).collect();
    if let Some(row) = rows.rows.iter().find(|row| row.turn_count() > 1) {
        return Err(Failure::usage(format!(
            "--completions {text}: {} of {} has several turns, of which a line has one: take --model",
            row.id, rows.label
        )));
    }
    let of_task = CompletionRows::new(task);
    let opened = File::open(file).map_err(|error| Failure::failed(format!("{file}: {error}")))?;
    let mut append = dataset::append_lines(BufReader::new(opened));
    let (mut found, mut line) = (Vec::new(), Vec::new());
    while let Some(number) = append(&mut line) {
        let failed = |line: usize, why: &str| Failure::failed(format!("{file} line {line}: {why}"));
        let number = number.map_err(|(line, why)| failed(line, &why))?;
        let read = CompletionLine::read(&line).map_err(|why| failed(number, &why))?;
        line.clear();
        let named = read.prompt_id.as_deref().and_then(|id| by_id.get(id));
        let row = match named {
            Some(row) => *row,
            None => {
                let row = of_task.find(&read).map_err(|why| match why {
                    NoRow::Unknown(why) | NoRow::Undecided(why) => failed(number, &why),
                })?;
                let row = row.and_then(|row| by_id.get(row.id.as_str()));
                *row.ok_or_else(|| {
                    let why = format!(
                        "no row of {}; give its `prompt_id` or `prompt`, or choose the set by --on",
                        rows.label
                    );
                    failed(number, &why)
                })?
            }
        };
        found.push((row, read.completion));
    }
    if found.is_empty() {
        return Err(Failure::failed(format!("{file}: no completions")));
    }
    let answered: BTreeSet<&str> = found.iter().map(|(row, _)| row.id.as_str()).collect();
    let missing = rows.rows.len() - answered.len();
    if missing > 0 {
        eprint_line(&format!(
            "{name}: {} of {} without a completion are not counted",
            counted(missing, "prompt"),
            rows.label
        ));
    }
    let asked: Vec<_> = found
        .iter()
        .map(|(row, completion)| (completion.as_str(), Some(*row)))
        .collect();
    let scores = scorer.score_all(&asked);
    let mut samples: BTreeMap<&str, usize> = BTreeMap::new();
    let record = |((row, completion), score)| {
        let row: &PromptRow = row;
        let next = samples.entry(&row.id).or_default();
        *next += 1;
        let mut record = EvalRecord {
            prompt_id: row.id.clone(),
            sample: *next - 1,
            tags: row.tags.clone(),
            completion,
            ..EvalRecord::default()
        };
        record
            .judge(&[score])
            .map_err(|error| Failure::failed(format!("{file}: {error}")))?;
        Ok(record)
    };
    // `asked` borrows the completions.
    drop(asked);
    let records = found.into_iter().zip(scores).map(record);
    Ok((name, records.collect::<Result<_, Failure>>()?))
}
