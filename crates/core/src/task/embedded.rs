//! Tasks and task templates compiled into the program.

use super::error::{Read, TaskError};

#[derive(Debug, PartialEq)]
pub(crate) struct EmbeddedTask {
    pub(super) name: &'static str,
    pub(crate) files: &'static [(&'static str, &'static [u8])],
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
        files!($folder: "task.toml", $($definition,)? "train.jsonl", "eval.jsonl", "test.jsonl", "completions.jsonl")
    };
}

/// The first is the default.
static EMBEDDED: &[EmbeddedTask] = &[
    EmbeddedTask {
        name: "invoice",
        files: files!("invoice": "task.toml", "schema.json", "train.jsonl", "eval.jsonl", "eval-large.jsonl", "completions.jsonl"),
    },
    EmbeddedTask {
        name: "sql",
        files: sample!("sql", "schema.sql"),
    },
    EmbeddedTask {
        name: "tool-calls",
        files: sample!("tool-calls", "tools.json"),
    },
    EmbeddedTask {
        name: "shell-lint",
        files: sample!("shell-lint"),
    },
    EmbeddedTask {
        name: "py-functions",
        files: sample!("py-functions"),
    },
    EmbeddedTask {
        name: "assistant",
        files: files!("assistant": "task.toml", "tools.json", "invoices.sql", "train.jsonl", "eval.jsonl", "test.jsonl"),
    },
];

pub(crate) const MODELS: [(&str, &str); 6] = [
    ("tiny", "invoice"),
    ("tiny-sql", "sql"),
    ("tiny-tools", "tool-calls"),
    ("tiny-shell", "shell-lint"),
    ("tiny-python", "py-functions"),
    ("tiny-assistant", "assistant"),
];

static TEMPLATES: &[EmbeddedTask] = &[
    EmbeddedTask {
        name: "invoice",
        files: EMBEDDED[0].files,
    },
    EmbeddedTask {
        name: "agent",
        files: files!("templates/agent": "task.toml", "agent.py", "train.jsonl", "eval.jsonl", "test.jsonl"),
    },
    EmbeddedTask {
        name: "classify",
        files: template!("templates/classify", "schema.json"),
    },
    EmbeddedTask {
        name: "extract",
        files: template!("templates/extract", "schema.json"),
    },
    EmbeddedTask {
        name: "python-scorer",
        files: template!("templates/python-scorer", "scorer.py"),
    },
    EmbeddedTask {
        name: "support-judge",
        files: files!("templates/support-judge": "task.toml", "train.jsonl", "eval.jsonl", "test.jsonl", "completions.jsonl"),
    },
    EmbeddedTask {
        name: "tool-call",
        files: template!("templates/tool-call", "tools.json"),
    },
    EmbeddedTask {
        name: "unlabeled",
        files: template!("templates/unlabeled", "schema.json"),
    },
    EmbeddedTask {
        name: "yaml-config",
        files: template!("templates/yaml-config", "schema.json"),
    },
];

pub(super) fn find(name: &str) -> Option<&'static EmbeddedTask> {
    EMBEDDED.iter().find(|task| task.name == name)
}

pub(super) fn names() -> impl Iterator<Item = &'static str> {
    EMBEDDED.iter().map(|task| task.name)
}

pub(crate) fn find_template(name: &str) -> Read<&'static EmbeddedTask> {
    TEMPLATES
        .iter()
        .find(|task| task.name == name)
        .ok_or_else(|| TaskError::Unknown {
            text: name.to_owned(),
            advice: format!(
                "the templates are {}",
                template_names().collect::<Vec<_>>().join(", ")
            ),
        })
}

pub fn template_names() -> impl Iterator<Item = &'static str> {
    TEMPLATES.iter().map(|task| task.name)
}
