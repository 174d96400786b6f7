//! Tasks and templates of tasks compiled into the program, so that it works from any folder.

use super::Task;

#[derive(Debug, PartialEq)]
pub(crate) struct EmbeddedTask {
    pub(super) name: &'static str,
    pub(super) files: &'static [(&'static str, &'static [u8])],
}

macro_rules! files {
    ($folder:literal: $($file:literal),+) => {
        &[$(($file, include_bytes!(concat!("../../../../sample-data/", $folder, "/", $file)))),+]
    };
}

macro_rules! template {
    ($folder:literal, $definition:literal) => {
        files!($folder: "task.toml", $definition, "train.jsonl", "eval.jsonl", "test.jsonl", "completions.jsonl")
    };
}

macro_rules! sample {
    ($folder:literal $(, $definition:literal)?) => {
        files!($folder: "task.toml", $($definition,)? "train.jsonl", "eval.jsonl", "test.jsonl", "completions.jsonl", "generator.toml")
    };
}

/// The first is where the program starts.
static EMBEDDED: &[EmbeddedTask] = &[
    EmbeddedTask {
        name: "invoice",
        files: files!("invoice": "task.toml", "schema.json", "train.jsonl", "eval.jsonl", "eval-large.jsonl", "completions.jsonl", "generator.toml"),
    },
    EmbeddedTask { name: "sql", files: sample!("sql", "schema.sql") },
    EmbeddedTask { name: "tool-calls", files: sample!("tool-calls", "tools.json") },
    EmbeddedTask { name: "shell-lint", files: sample!("shell-lint") },
];

/// The embedded models, each with the embedded task that it was pretrained on.
const MODELS: [(&str, &str); 4] =
    [("tiny", "invoice"), ("tiny-sql", "sql"), ("tiny-tools", "tool-calls"), ("tiny-shell", "shell-lint")];

/// Tasks to start from.
static TEMPLATES: &[EmbeddedTask] = &[
    EmbeddedTask { name: "invoice", files: EMBEDDED[0].files },
    EmbeddedTask { name: "classify", files: template!("templates/classify", "schema.json") },
    EmbeddedTask { name: "extract", files: template!("templates/extract", "schema.json") },
    EmbeddedTask { name: "python-scorer", files: template!("templates/python-scorer", "scorer.py") },
    EmbeddedTask { name: "tool-call", files: template!("templates/tool-call", "tools.json") },
];

pub(super) fn find_template(name: &str) -> Option<&'static EmbeddedTask> {
    TEMPLATES.iter().find(|task| task.name == name)
}

pub(super) fn template_names() -> impl Iterator<Item = &'static str> {
    TEMPLATES.iter().map(|task| task.name)
}

/// A note on an embedded model for a task that it was not pretrained on; `None` for its own task, and for other
/// models.
pub(super) fn model_note(task: &Task, model: &str) -> Option<String> {
    let made_for = |sample: &str| Task::embedded(sample).is_ok_and(|sample| names_of(&sample) == names_of(task));
    let (_, sample) = MODELS.iter().find(|(name, _)| *name == model)?;
    if made_for(sample) {
        return None;
    }
    let better = match MODELS.iter().find(|(_, sample)| made_for(sample)) {
        Some((name, _)) => format!("choose `{name}`, which was pretrained for it"),
        None => "choose an instruct model".to_owned(),
    };
    Some(format!(
        "the embedded model `{model}` was pretrained on the sample task `{sample}` alone and writes such answers to \
         every prompt: on this task a run shows how the program works, not what training can do; {better}"
    ))
}

/// The kind of task with the names that its answers may use, sorted.
fn names_of(task: &Task) -> (&'static str, Vec<String>) {
    let mut names = task.definition.answer_names(task);
    names.sort_unstable();
    (task.kind(), names)
}

pub(super) fn find(name: &str) -> Option<&'static EmbeddedTask> {
    EMBEDDED.iter().find(|task| task.name == name)
}

pub(super) fn names() -> impl Iterator<Item = &'static str> {
    EMBEDDED.iter().map(|task| task.name)
}
