//! Tasks compiled into the program, so that it works from any folder.

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

static EMBEDDED: &[EmbeddedTask] = &[EmbeddedTask {
    name: "invoice",
    files: files!("invoice": "task.toml", "schema.json", "train.jsonl", "eval.jsonl", "eval-large.jsonl", "completions.jsonl", "generator.toml"),
}];

pub(super) fn find(name: &str) -> Option<&'static EmbeddedTask> {
    EMBEDDED.iter().find(|task| task.name == name)
}

pub(super) fn names() -> impl Iterator<Item = &'static str> {
    EMBEDDED.iter().map(|task| task.name)
}
