//! `grpo-tui dataset propose`: likely values for the rows without labels, learned from those that have some.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;

use serde::Serialize;
use serde_json::{Value, json};

use super::super::{Failure, Outcome, print_json};
use super::import::path_of;
use crate::dataset::{self, PROPOSED, PromptRow};
use crate::exact_json;
use crate::files::{Access, replace_files};
use crate::format::{counted, percent, shortened, shown_lines};
use crate::propose::{Accuracy, FieldOptions, MAX_VALUES, Proposal, Proposer};
use crate::score::Task;
use crate::secrets::visible;
use crate::task::PromptSet;

/// Characters of a value that are shown.
const MAX_SHOWN: usize = 40;

#[derive(Debug, clap::Args)]
#[command(after_long_help = AFTER_HELP)]
pub(super) struct Arguments {
    /// Task: a folder, or a name in the workspace
    task: String,
    /// Write the proposals into the train set; the old file stays beside it, with `.bak` added to its name
    #[arg(long)]
    write: bool,
    /// Most alternatives of a field that is in doubt; 1 writes the likeliest value alone
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..=9))]
    alternatives: u8,
    /// Label N rows yourself, the most doubtful first: choose each field's value among the likely ones, or type it
    #[arg(long, value_name = "N", num_args = 0..=1, default_missing_value = "10", conflicts_with_all = ["write", "json"])]
    label: Option<usize>,
    /// Set whose rows are labelled
    #[arg(long, value_name = "SET", default_value = "train", value_parser = ["train", "eval"], requires = "label")]
    on: String,
    /// Rows to show, the most doubtful first
    #[arg(long, value_name = "N", default_value_t = 10)]
    show: usize,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

const AFTER_HELP: &str = "Examples:\n  grpo-tui dataset propose receipts\n  grpo-tui dataset propose receipts --write\n\n\
     Learns from the rows of train and eval whose `expected` a person wrote, never from test. A row of train without one gets\n\
     the likeliest value of each field, or `$any` of several where it is in doubt, and `proposed`, the probability that all are\n\
     right. Proposed values train; evals and checks count only labels that a person wrote. Proposing again replaces them.";

impl Arguments {
    /// The task, the set and the number of the rows that a person wants to label.
    pub(super) fn labelling(&self) -> Option<(&str, PromptSet, usize)> {
        let set = match self.on.as_str() {
            "eval" => PromptSet::Eval,
            _ => PromptSet::Train,
        };
        Some((&self.task, set, self.label?))
    }
}

/// What the command found, and wrote.
#[derive(Debug, Serialize)]
struct Report {
    labelled: usize,
    accuracy: Accuracy,
    /// Lists, which are not proposed.
    left_out: Vec<String>,
    /// Rows of train without a label of a person.
    rows: usize,
    proposed: usize,
    /// Of these, with alternatives in some field.
    doubtful: usize,
    /// By field, rows in which no candidate fits.
    without: BTreeMap<String, usize>,
    most_doubtful: Vec<DoubtfulRow>,
    written: Option<String>,
}

#[derive(Debug, Serialize)]
struct DoubtfulRow {
    id: String,
    line: usize,
    confidence: f64,
    fields: Vec<FieldOptions>,
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    let task = Task::resolve(&arguments.task)?;
    let labelled = labelled_rows(&task)?;
    let mut unlabelled = dataset::load(&task, PromptSet::Train)?;
    unlabelled.retain(is_unlabelled);
    let proposer = Proposer::new(&task, &labelled, &unlabelled).map_err(Failure::failed)?;
    let proposals = proposer.propose_all(&unlabelled, usize::from(arguments.alternatives));
    let mut report = Report::new(&labelled, &unlabelled, &proposer, &proposals);
    report.most_doubtful.truncate(arguments.show);
    if arguments.write {
        if labelled.is_empty() {
            return Err(Failure::failed(format!(
                "{}: no row of train or eval has an `expected` that a person wrote: label ten rows first (--label 10)",
                task.name
            )));
        }
        let rows = unlabelled
            .iter()
            .zip(&proposals)
            .map(|(row, proposal)| (row.line, proposed_row(row, proposal)));
        report.written = Some(replace_rows(&task, PromptSet::Train, &rows.collect())?);
    }
    match arguments.json {
        true => print_json(serde_json::to_string(&report)?),
        false => {
            print_report(&report);
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// The rows of train and eval that a person labelled.
pub(super) fn labelled_rows(task: &Task) -> Result<Vec<PromptRow>, Failure> {
    let mut labelled = dataset::load(task, PromptSet::Train)?;
    if task.set_file(PromptSet::Eval).is_some() {
        labelled.extend(dataset::load(task, PromptSet::Eval)?);
    }
    labelled.retain(|row| !is_unlabelled(row));
    Ok(labelled)
}

pub(super) fn is_unlabelled(row: &PromptRow) -> bool {
    row.expected.is_none() || row.is_proposed()
}

impl Report {
    fn new(
        labelled: &[PromptRow],
        rows: &[PromptRow],
        proposer: &Proposer,
        proposals: &[Proposal],
    ) -> Self {
        let mut without: BTreeMap<String, usize> = BTreeMap::new();
        proposals
            .iter()
            .flat_map(|proposal| &proposal.without)
            .for_each(|field| *without.entry(field.clone()).or_default() += 1);
        let mut doubtful: Vec<(&PromptRow, &Proposal)> = rows.iter().zip(proposals).collect();
        doubtful.sort_by(|left, right| left.1.confidence.total_cmp(&right.1.confidence));
        let doubtful = doubtful.into_iter().map(|(row, proposal)| DoubtfulRow {
            id: row.id.clone(),
            line: row.line,
            confidence: rounded(proposal.confidence),
            fields: proposal.options.clone(),
        });
        let has_doubt = |proposal: &&Proposal| proposal.expected.is_some() && proposal.doubtful > 0;
        Self {
            labelled: labelled.len(),
            accuracy: proposer.accuracy.clone(),
            left_out: proposer.lists.clone(),
            rows: rows.len(),
            proposed: proposals
                .iter()
                .filter(|proposal| proposal.expected.is_some())
                .count(),
            doubtful: proposals.iter().filter(has_doubt).count(),
            without,
            most_doubtful: doubtful.collect(),
            written: None,
        }
    }
}

fn rounded(probability: f64) -> f64 {
    (probability * 1000.0).round() / 1000.0
}

/// Replaces lines of a set's file, by number from 1; the old file stays beside it.
pub(super) fn replace_rows(
    task: &Task,
    set: PromptSet,
    rows: &BTreeMap<usize, String>,
) -> Result<String, Failure> {
    let path = path_of(task, set)?;
    let old = task.read(task.set_file(set).unwrap_or_default())?;
    let text = std::str::from_utf8(&old)?;
    let line = |(index, line): (usize, &str)| match rows.get(&(index + 1)) {
        Some(row) => format!("{row}\n"),
        None => format!("{line}\n"),
    };
    let new: String = text.lines().enumerate().map(line).collect();
    let mut kept = path.as_os_str().to_owned();
    kept.push(".bak");
    let files = [(Path::new(&kept), &*old), (&*path, new.as_bytes())];
    replace_files(&files, Access::Umask).map_err(|(path, error)| {
        Failure::failed(format!("{}: {error}; nothing was replaced", path.display()))
    })?;
    Ok(path.display().to_string())
}

/// A row with what is proposed for it, all else as it was.
fn proposed_row(row: &PromptRow, proposal: &Proposal) -> String {
    let mut fields = row.fields.whole();
    match &proposal.expected {
        Some(expected) => {
            fields.insert("expected".to_owned(), expected.clone());
            fields.insert(PROPOSED.to_owned(), json!(rounded(proposal.confidence)));
        }
        None if row.is_proposed() => {
            fields.shift_remove("expected");
            fields.shift_remove(PROPOSED);
        }
        None => {}
    }
    exact_json::write(&fields)
}

fn print_report(report: &Report) {
    let accuracy = &report.accuracy;
    println!("{}", visible(&accuracy.sentence()));
    if accuracy.rows > 0 {
        println!(
            "{} of these {} labels can be read from their prompts",
            accuracy.readable, accuracy.rows
        );
        for field in accuracy
            .fields
            .iter()
            .filter(|field| !field.unreadable.is_empty())
        {
            let count = field.unreadable.len();
            println!(
                "  {}: the label of {} is not in the prompt or reads two ways, {}",
                visible(&field.field),
                counted(count, "row"),
                shown_lines(&field.unreadable)
            );
        }
    }
    if !report.left_out.is_empty() {
        println!(
            "not proposed, since they are lists: {}",
            visible(&report.left_out.join(", "))
        );
    }
    println!(
        "{} without a label: {} proposed, {} of these with alternatives",
        counted(report.rows, "row"),
        report.proposed,
        report.doubtful
    );
    for (field, rows) in &report.without {
        println!(
            "  {}: no value fits in {}",
            visible(field),
            counted(*rows, "row")
        );
    }
    if !report.most_doubtful.is_empty() {
        println!("most doubtful:");
    }
    for row in &report.most_doubtful {
        println!("  line {} ({})", row.line, percent(row.confidence));
        for field in &row.fields {
            let values = field
                .values
                .iter()
                .take(MAX_VALUES)
                .map(|(value, mass)| format!("{} {}", shown(value), percent(*mass)));
            println!(
                "    {}: {}",
                visible(&field.field),
                visible(&values.collect::<Vec<_>>().join(" · "))
            );
        }
    }
    match &report.written {
        Some(path) => println!(
            "{path}: {} proposed; the old file is {path}.bak",
            counted(report.proposed, "row")
        ),
        None => println!("nothing written: add --write"),
    }
}

pub(super) fn shown(value: &Value) -> String {
    let text = value
        .as_str()
        .map_or_else(|| exact_json::write(value), str::to_owned);
    shortened(&text, MAX_SHOWN)
}
