//! The report of one run, without curves and answers.

use std::path::Path;

use super::eval_pair::{TaskSection, result_page};
use super::event_text::alert_text;
use super::failures::failure_table;
use super::previous_run::RunChanges;
use super::prove_page::prove_page;
use super::run_report::Report;
use super::run_row::RunRow;
use crate::dataset;
use crate::format::{duration, percent_short};
use crate::page::{Block, Cell, Fact, Level, Row, Table};
use crate::run::events::{Alert, Eval};
use crate::run::read_proves;
use crate::score::mutants::{self, MutationReport, mutation_report};
use crate::score::{Scorer, Task};
use crate::task::PromptSet;

#[derive(Debug)]
pub struct RunContext {
    pub launched: String,
    pub folder: String,
    /// `None` if not known yet.
    pub disk: Option<String>,
}

impl RunRow {
    /// Steps, task, configuration, checkpoints, folder, warnings.
    pub fn configuration_facts(&self, context: RunContext) -> Vec<Fact> {
        let file = self.directory.file();
        let total = self
            .total_steps
            .map_or_else(String::new, |total| format!(" of {total}"));
        let left = self.seconds_left();
        let left = left.map_or_else(String::new, |left| format!(", {} left", duration(left)));
        let compute = duration(self.seconds);
        let steps = format!("{}{total}, {compute} compute time{left}", self.last_step);
        let name = match self.directory.name() {
            "" => String::new(),
            name => format!("{name}: "),
        };
        let task = format!(
            "{name}{} ({}) on {}",
            file.task, file.job, file.config.base_model
        );
        let launched = format!("{} on {}", context.launched, file.host);
        let weights: usize = file.mix.iter().map(|task| task.weight).sum();
        let mix = file.mix.iter().map(|task| {
            let share = percent_short(task.weight as f64 / weights as f64);
            let limit = task.max_completion_tokens;
            let text = format!(
                "{}: {share} of the prompts, at most {limit} tokens, from {}",
                task.name, task.origin
            );
            Fact::new("", text)
        });
        let facts = [Fact::new("steps", steps), Fact::new("task", task)];
        let mut facts: Vec<Fact> = facts.into_iter().chain(mix).collect();
        facts.push(Fact::new("launched", launched));
        facts.push(Fact::new("configured", self.changed_text()));
        facts.push(Fact::new("checkpoints", self.checkpoints_text()));
        facts.extend(
            self.slurm
                .as_ref()
                .map(|job| Fact::new("slurm", job.described())),
        );
        if !self.tags.is_empty() {
            facts.push(Fact {
                level: Level::Request,
                ..Fact::new("tags", self.tags.join(" "))
            });
        }
        facts.extend(context.disk.map(|disk| Fact::new("disk", disk)));
        facts.push(Fact::new("folder", context.folder));
        let warning = |text: &String| Fact {
            level: Level::Warning,
            ..Fact::new("warning", text.clone())
        };
        facts.extend(self.warnings.iter().map(warning));
        facts
    }

    pub fn outcome_fact(&self) -> Fact {
        Fact {
            level: self.outcome.level(),
            ..Fact::new("outcome", self.outcome.sentence())
        }
    }

    pub fn happenings(&self) -> Vec<Fact> {
        let alert = |alert: &Alert| Fact {
            level: alert.level.into(),
            ..Fact::new("alert", alert_text(alert))
        };
        let notes = self
            .notes
            .iter()
            .map(|note| Fact::new("note", note.clone()));
        self.alerts.iter().map(alert).chain(notes).collect()
    }

    /// `max_steps=40 lora_rank=4 (--set), max_seq_len=512 (task)`
    fn changed_text(&self) -> String {
        let mut by_source: Vec<(String, String)> = Vec::new();
        for [key, value, source] in self.changed_keys() {
            let changed = format!("{key}={value} ");
            match by_source.iter_mut().find(|(other, _)| *other == source) {
                Some((_, keys)) => keys.push_str(&changed),
                None => by_source.push((source, changed)),
            }
        }
        let by_source = by_source.iter();
        let changed: Vec<_> = by_source
            .map(|(source, keys)| format!("{keys}({source})"))
            .collect();
        match changed.is_empty() {
            true => "all keys at their defaults".to_owned(),
            false => changed.join(", "),
        }
    }

    /// `steps 0, 30 (best), 40`
    fn checkpoints_text(&self) -> String {
        let step = |step: &u64| match self.best == Some(*step) {
            true => format!("{step} (best)"),
            false => step.to_string(),
        };
        let steps: Vec<String> = self.checkpoints.iter().map(step).collect();
        match steps.is_empty() {
            true => "none yet".to_owned(),
            false => format!("steps {}", steps.join(", ")),
        }
    }
}

/// Origin, progress, verdict against the base, open alerts.
pub(super) fn summary(report: &Report) -> Vec<Block> {
    let file = report.directory.file();
    let about = format!(
        "run {}, task {}, from {}, launched {}",
        file.id, file.task, file.config.base_model, file.created
    );
    let cause = report
        .cause()
        .map_or_else(String::new, |cause| format!(": {cause}"));
    let outcome = report.outcome();
    let outcome = outcome
        .is_known()
        .then(|| Block::Text(outcome.level(), outcome.sentence()));
    let alerts = report.history.standing_alerts();
    let alerts = alerts.map(|alert| Block::Finding(alert.level.into(), alert_text(alert)));
    [
        Block::detail(about),
        Block::info(report.progress() + &cause),
    ]
    .into_iter()
    .chain(outcome)
    .chain(alerts)
    .collect()
}

pub(super) fn results(report: &Report, tasks: &[TaskSection<'_>]) -> Vec<Block> {
    let task = |section: &TaskSection<'_>| {
        let result = section.result?;
        let heading = Block::heading(format!("Result on the {} set", result.set));
        let page = result_page(report, result, section.pair.as_ref());
        Some(std::iter::once(heading).chain(page))
    };
    tasks.iter().filter_map(task).flatten().collect()
}

/// Failure classes of a task, and the mutants of its expected answers.
pub(super) fn failures(report: &Report, section: &TaskSection<'_>) -> Vec<Block> {
    let of_task = match section.name {
        "" => String::new(),
        name => format!(", {name}"),
    };
    let part = |title: &str, about: &str, table: Option<Table>| {
        let table = Block::Table(table?);
        Some([
            Block::heading(format!("{title}{of_task}")),
            Block::detail(about),
            table,
        ])
    };
    let classes = part(
        "Failure classes",
        "Shares of completions; each has at most one class, the first that explains why it is not valid or not exact.",
        failure_table(&section.history, section.pair.as_ref()),
    );
    let broken = broken_answers(&report.directory.task_path().join(section.name));
    let broken = broken.map(|found| {
        let title = format!("Mutation score of the reward{of_task}");
        [vec![Block::heading(title)], mutants::page(&found)].concat()
    });
    let pages = classes.into_iter().flatten();
    pages.chain(broken.into_iter().flatten()).collect()
}

/// Which expected answers with one fault earn what the truth earns; `None` where a program or a judge would be asked.
fn broken_answers(folder: &Path) -> Option<MutationReport> {
    let task = Task::load(folder).ok()?;
    let scorer = Scorer::new(&task).ok()?;
    if scorer.runs_programs() {
        return None;
    }
    let mut rows = dataset::load(&task, PromptSet::Train).ok()?;
    // What was proposed is not the truth.
    rows.retain(|row| !row.is_proposed());
    mutation_report(&task, &scorer, &rows, Some(mutants::QUICK_LIMIT), &|| true).ok()?
}

/// What differs from the previous run of the task, and the keys without their default.
fn served(report: &Report) -> Vec<Block> {
    let records = read_proves(report.directory.path());
    records.iter().flat_map(prove_page).collect()
}

/// Servers that were compared with the run, then what it was configured with.
pub(super) fn configuration(report: &Report) -> Vec<Block> {
    let mut page = served(report);
    if let Some(changes) = RunChanges::since_previous(&report.directory) {
        let previous = changes.previous;
        let heading = format!("Changed since the previous run of this task, {previous}");
        page.push(Block::heading(heading));
        page.push(if changes.rows.is_empty() {
            Block::info("Nothing: same configuration, task files and starting model.")
        } else {
            Block::Table(text_rows(&["", "previous run", "this run"], changes.rows))
        });
    }
    page.push(Block::heading("Keys without their default"));
    page.push(changed_keys(report));
    page
}

pub(super) fn changed_keys(report: &Report) -> Block {
    let changed = RunRow::from_report(report).changed_keys();
    if changed.is_empty() {
        return Block::info("All keys have their defaults.");
    }
    Block::Table(key_table(changed))
}

pub(super) fn key_table(rows: impl IntoIterator<Item = [String; 3]>) -> Table {
    text_rows(&["key", "value", "set by"], rows)
}

fn text_rows(head: &[&str], rows: impl IntoIterator<Item = [String; 3]>) -> Table {
    let row =
        |[label, first, second]: [String; 3]| Row::new(label, [first, second].map(Cell::Text));
    Table::new(head, "l", rows.into_iter().map(row).collect())
}

pub fn eval_table<'a>(evals: impl IntoIterator<Item = &'a Eval>) -> Table {
    let row = |eval: &Eval| {
        let summary = &eval.summary;
        let exact = summary.exact.map(Cell::rate);
        Row::new(
            eval.step.to_string(),
            [
                Cell::Text(eval.set.to_string()),
                Cell::Text(eval.who().to_string()),
                Cell::Count(summary.n),
                Cell::interval(summary.valid, summary.valid_interval),
                Cell::known(exact, "no expected answers"),
                Cell::rate(summary.parse),
                Cell::Number(eval.seconds, 1),
            ],
        )
    };
    let head = [
        "step", "set", "target", "n", "valid", "exact", "parse", "seconds",
    ];
    Table::new(&head, "rllrrrrr", evals.into_iter().map(row).collect())
}
