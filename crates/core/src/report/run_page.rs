//! What is said of one run, besides its curves and its answers.

use super::event_text::alert_text;
use super::run_row::RunRow;
use crate::facts::AlertLevel;
use crate::format::{duration, percent_short};
use crate::page::{Cell, Fact, Level, Row, Table};
use crate::run::events::{Alert, Eval};

/// What depends on who shows the run.
#[derive(Debug)]
pub struct RunContext {
    /// When it was launched.
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

    /// The verdict against the base.
    pub fn outcome_fact(&self) -> Fact {
        Fact {
            level: self.outcome.level(),
            ..Fact::new("outcome", self.outcome.sentence())
        }
    }

    /// Open alerts, and notes.
    pub fn happenings(&self) -> Vec<Fact> {
        let alert = |alert: &Alert| {
            let level = match alert.level {
                AlertLevel::Info => Level::Info,
                AlertLevel::Warning => Level::Warning,
                AlertLevel::Error => Level::Error,
            };
            Fact {
                level,
                ..Fact::new("alert", alert_text(alert))
            }
        };
        let notes = self
            .notes
            .iter()
            .map(|note| Fact::new("note", note.clone()));
        self.alerts.iter().map(alert).chain(notes).collect()
    }

    fn changed_text(&self) -> String {
        let changed = self.changed_keys().into_iter();
        let changed: Vec<String> = changed
            .map(|[key, value, source]| format!("{key}={value} ({source})"))
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

/// The rates of evals, a row each.
pub fn eval_table<'a>(evals: impl IntoIterator<Item = &'a Eval>) -> Table {
    let row = |eval: &Eval| {
        let summary = &eval.summary;
        let exact = summary.exact.map(Cell::rate);
        Row::new(
            eval.step.to_string(),
            [
                Cell::Text(eval.set.clone()),
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
