//! Tasks and templates of tasks compiled into the program, so that it works from any folder.

use serde_json::Value;

#[derive(Debug, PartialEq)]
pub(super) struct EmbeddedTask {
    pub(super) name: &'static str,
    pub(super) files: &'static [(&'static str, &'static [u8])],
}

macro_rules! files {
    ($folder:literal: $($file:literal),+) => {
        &[$(($file, include_bytes!(concat!("../../sample-data/", $folder, "/", $file)))),+]
    };
}

macro_rules! template {
    ($folder:literal, $definition:literal) => {
        files!($folder: "task.toml", $definition, "train.jsonl", "eval.jsonl", "test.jsonl", "completions.jsonl")
    };
}

static EMBEDDED: &[EmbeddedTask] = &[EmbeddedTask {
    name: "invoice",
    files: files!("invoice": "task.toml", "schema.json", "train.jsonl", "eval.jsonl", "eval-large.jsonl", "completions.jsonl", "generator.toml"),
}];

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

/// What to expect of the embedded model on a task with this schema, or without one; `None` for the fields that it was
/// pretrained on.
pub(super) fn model_note(schema: Option<&Value>) -> Option<String> {
    let sample = EMBEDDED[0].files.iter().find(|(name, _)| *name == "schema.json")?.1;
    let sample: Value = serde_json::from_slice(sample).ok()?;
    let known = property_names(&sample);
    (schema.map(property_names).as_ref() != Some(&known)).then(|| {
        format!(
            "the embedded model `tiny` was pretrained on its sample task alone (JSON of invoices: {}) and writes such \
             answers to every prompt: on this task a run shows how the program works, not what training can do; \
             choose an instruct model",
            known.join(", ")
        )
    })
}

/// The top-level properties, sorted.
fn property_names(schema: &Value) -> Vec<&str> {
    let fields = schema.get("properties").and_then(Value::as_object);
    let mut names: Vec<&str> = fields.iter().flat_map(|fields| fields.keys()).map(String::as_str).collect();
    names.sort_unstable();
    names
}

pub(super) fn find(name: &str) -> Option<&'static EmbeddedTask> {
    EMBEDDED.iter().find(|task| task.name == name)
}

pub(super) fn names() -> impl Iterator<Item = &'static str> {
    EMBEDDED.iter().map(|task| task.name)
}
