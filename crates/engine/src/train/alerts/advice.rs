//! Advice of alerts, omitting what task or configuration already do.

use crate::config::{OnCollapse, TrainConfig};
use crate::dataset::{open, read_rows};
use crate::score::{RewardPart, Task};
use crate::task::PromptSet;

/// How a task rewards values, and its share of a step's prompts.
#[derive(Clone, Debug)]
pub(in crate::train) struct TaskFacts {
    /// Share in (0, 1].
    pub(in crate::train) share: f64,
    /// Whether answers have fields.
    has_fields: bool,
    is_graded: bool,
    /// Whether values are compared with labels, of train or eval, or the answers have no fields.
    pub(super) measures_values: bool,
    /// Of the expected answers of train: all, and those that were proposed.
    pub(super) labels: (usize, usize),
    name: String,
    /// Weighted parts that compare values: name and weight.
    value_parts: Vec<(String, f64)>,
}

impl Default for TaskFacts {
    fn default() -> Self {
        Self {
            share: 1.0,
            has_fields: true,
            is_graded: false,
            measures_values: true,
            labels: (0, 0),
            name: String::new(),
            value_parts: Vec::new(),
        }
    }
}

impl TaskFacts {
    pub(in crate::train) fn new(task: &Task, share: f64) -> Self {
        let compared = |part: &&RewardPart| part.weight > 0.0 && part.compares();
        let parts = task.rewards.iter().filter(compared);
        let labels = self::labels(task, PromptSet::Train);
        let has_labels = labels.0 > 0 || self::labels(task, PromptSet::Eval).0 > 0;
        Self {
            share,
            has_fields: task.schema().is_some() || task.has_calls(),
            is_graded: task.score.graded,
            measures_values: task.schema().is_none() || has_labels,
            labels,
            name: task.name.clone(),
            value_parts: parts.map(|part| (part.part.clone(), part.weight)).collect(),
        }
    }

    /// `give values a weight: [[reward]] part = "fields"`, or a larger one.
    pub(super) fn weigh_values(&self) -> String {
        match self.value_parts.first() {
            Some((name, weight)) => {
                format!("raise the weight of [[reward]] \"{name}\" (now {weight})")
            }
            None => {
                let part = if self.has_fields { "fields" } else { "exact" };
                format!("give values a weight: [[reward]] part = \"{part}\"")
            }
        }
    }

    pub(super) fn label_rows(&self) -> String {
        format!("Label 10 rows: grpo-tui dataset propose {}.", self.name)
    }

    pub(super) fn label_doubtful_rows(&self) -> String {
        let name = &self.name;
        format!("Label the most doubtful rows yourself: grpo-tui dataset propose {name} --label.")
    }

    /// Advice for valid answers with wrong values.
    pub(super) fn all_max(&self) -> String {
        sentence(&[self.weigh_values()])
    }

    pub(super) fn all_worst(&self) -> String {
        let graded = unless(self.is_graded, "set graded = true, ");
        format!(
            "Find the cause with `train --plan --sample`; raise completions_per_prompt, {graded}or improve the prompt."
        )
    }

    pub(super) fn value_drift(&self) -> String {
        sentence(&[
            self.weigh_values(),
            "or lower learning_rate and start from an earlier checkpoint (--model RUN@STEP)"
                .to_owned(),
        ])
    }

    pub(super) fn collapsed(&self, config: &TrainConfig) -> String {
        let mut advice = recovery(config);
        advice.push(lower_rate());
        advice.push(self.weigh_values());
        sentence(&advice)
    }
}

/// The rows of a set that have an expected answer, and those of them whose answer was proposed.
fn labels(task: &Task, set: PromptSet) -> (usize, usize) {
    let Ok((file, reader)) = open(task, set) else {
        return (0, 0);
    };
    let rows = read_rows(&file, reader).filter_map(Result::ok);
    rows.filter(|row| row.expected.is_some())
        .fold((0, 0), |(all, proposed), row| {
            (all + 1, proposed + usize::from(row.is_proposed()))
        })
}

pub(super) fn diverged(config: &TrainConfig) -> String {
    let mut advice = recovery(config);
    if config.on_collapse != OnCollapse::Recover {
        advice.push("start from an earlier checkpoint (--model RUN@STEP)".to_owned());
    }
    advice.push(lower_rate());
    sentence(&advice)
}

fn lower_rate() -> String {
    "lower learning_rate".to_owned()
}

fn recovery(config: &TrainConfig) -> Vec<String> {
    let guided = (!config.guided).then_some("guided = true");
    let recover =
        (config.on_collapse != OnCollapse::Recover).then_some("on_collapse = \"recover\"");
    let keys: Vec<&str> = guided.into_iter().chain(recover).collect();
    let set = (!keys.is_empty()).then(|| format!("set {}", keys.join(" or ")));
    set.into_iter().collect()
}

/// Drops advice that is already followed.
pub(super) fn unless(is_followed: bool, advice: &str) -> &str {
    if is_followed { "" } else { advice }
}

/// Joins pieces of advice.
fn sentence(advice: &[String]) -> String {
    let text = advice.join("; ");
    let mut letters = text.chars();
    let first = letters.next().map(|first| first.to_ascii_uppercase());
    first
        .into_iter()
        .chain(letters)
        .chain(['.'])
        .collect::<String>()
        .replace("; or ", ", or ")
}
