//! A recorded run that comes with the program, unpacked into the user's cache to be looked at.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use crate::dataset::DatasetError;
use crate::dataset::new_task::write_files;
use crate::run::storage::directory::sha256;

macro_rules! recording {
    ($($file:literal),+ $(,)?) => {
        &[$(($file, include_bytes!(concat!("../../../../../sample-data/finished-run/", $file)))),+]
    };
}

/// Names and bytes; 1.2 MB.
static FILES: &[(&str, &[u8])] = recording![
    "checkpoints/step-000000/adapter_config.json",
    "checkpoints/step-000000/adapter_model.safetensors",
    "checkpoints/step-000000/trainer.json",
    "checkpoints/step-000030/adapter_config.json",
    "checkpoints/step-000030/adapter_model.safetensors",
    "checkpoints/step-000030/trainer.json",
    "checkpoints/step-000040/adapter_config.json",
    "checkpoints/step-000040/adapter_model.safetensors",
    "checkpoints/step-000040/trainer.json",
    "evals/step-000000-eval-base.jsonl",
    "evals/step-000000-proof-base.jsonl",
    "evals/step-000005-eval-trained.jsonl",
    "evals/step-000010-eval-trained.jsonl",
    "evals/step-000015-eval-trained.jsonl",
    "evals/step-000020-eval-trained.jsonl",
    "evals/step-000025-eval-trained.jsonl",
    "evals/step-000030-eval-trained.jsonl",
    "evals/step-000030-proof-trained.jsonl",
    "evals/step-000035-eval-trained.jsonl",
    "evals/step-000040-eval-trained.jsonl",
    "events.jsonl",
    "notes.md",
    "rollouts/000100.jsonl.zst",
    "run.toml",
    "state.json",
    "task/completions.jsonl",
    "task/eval-large.jsonl",
    "task/eval.jsonl",
    "task/generator.toml",
    "task/schema.json",
    "task/task.toml",
    "task/train.jsonl",
    "worker.log",
];

/// Named for the contents, so that another version of the program unpacks its own. Outside of every runs folder: it is
/// not one of the user's runs.
static FOLDER: LazyLock<Option<PathBuf>> = LazyLock::new(|| {
    let cache = directories::ProjectDirs::from("", "", "grpo-tui")?
        .cache_dir()
        .join("recordings");
    let digests: String = FILES.iter().map(|(_, bytes)| sha256(bytes)).collect();
    Some(
        cache
            .join(&sha256(digests.as_bytes())[..8])
            .join("recorded-run"),
    )
});

/// Unpacks the recorded run, unless it is there, and returns its folder.
///
/// # Errors
/// The cache cannot be written, or there is none.
pub fn unpack_recording() -> Result<PathBuf, DatasetError> {
    let folder = FOLDER.clone().ok_or_else(|| DatasetError::File {
        path: "the cache".to_owned(),
        source: std::io::ErrorKind::NotFound.into(),
        remedy: "set HOME to a folder",
    })?;
    match write_files(
        &folder,
        &FILES
            .iter()
            .map(|(name, bytes)| ((*name).to_owned(), *bytes))
            .collect::<Vec<_>>(),
    ) {
        Err(error) if !folder.join("run.toml").is_file() => Err(error),
        _ => Ok(folder),
    }
}

pub fn is_recording(run: &Path) -> bool {
    FOLDER.as_deref() == Some(run)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_of_the_recording_is_embedded() {
        let mut folders =
            vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("../../sample-data/finished-run")];
        let root = folders[0].clone();
        let mut found = Vec::new();
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder)
                .unwrap()
                .map(|entry| entry.unwrap().path())
            {
                match entry.is_dir() {
                    true => folders.push(entry),
                    false => found.push(entry.strip_prefix(&root).unwrap().display().to_string()),
                }
            }
        }
        // Files that readers leave are not part of it.
        found.retain(|name| !["events.index", "lock"].contains(&name.as_str()));
        found.sort();
        assert_eq!(
            found,
            FILES
                .iter()
                .map(|(name, _)| (*name).to_owned())
                .collect::<Vec<_>>()
        );
    }
}
