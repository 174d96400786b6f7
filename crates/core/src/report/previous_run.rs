//! Changes of a run against the previous run of the same task.

use super::compare::{changed_files, different_keys};
use super::tables::shown;
use crate::run::{RunDirectory, RunFile, RunFolders};

const DIGEST: usize = 12;

#[derive(Debug)]
pub struct RunChanges {
    pub previous: String,
    /// Name, before, now: keys, files of the task, starting model, program. Empty if nothing differs.
    pub rows: Vec<[String; 3]>,
}

impl RunChanges {
    /// Compares with the latest run of the same task in the same folder that was created before; `None` without one.
    pub fn since_previous(run: &RunDirectory) -> Option<Self> {
        let (path, now) = (run.path(), run.file());
        let folder = path.parent()?;
        let runs = RunFolders::discover(Some(folder), folder).list();
        let place = runs
            .iter()
            .position(|(_, other)| other.as_ref().is_ok_and(|other| other.file().id == now.id))?;
        let earlier = runs[..place]
            .iter()
            .rev()
            .filter_map(|(_, run)| run.as_ref().ok());
        let previous = earlier
            .into_iter()
            .find(|other| other.file().task == now.task)?
            .file();
        Some(Self {
            previous: previous.id.clone(),
            rows: differences(previous, now),
        })
    }
}

fn differences(before: &RunFile, now: &RunFile) -> Vec<[String; 3]> {
    let pair = [before, now];
    let keys = different_keys(&pair).into_iter().map(|(key, values)| {
        let mut values = values.iter().map(shown);
        [
            key,
            values.next().unwrap_or_default(),
            values.next().unwrap_or_default(),
        ]
    });
    let short = |digest: &str| match digest {
        "" => "n/a".to_owned(),
        digest => digest.chars().take(DIGEST).collect(),
    };
    let digest = |file: &RunFile, name: &str| {
        file.task_files
            .get(name)
            .map_or("absent".to_owned(), |found| short(found))
    };
    let files = changed_files(&pair).into_iter().map(|name| {
        [
            format!("task/{name}"),
            digest(before, &name),
            digest(now, &name),
        ]
    });
    // Weights may change under the same name.
    let model = (before.model_digest != now.model_digest
        && before.config.base_model == now.config.base_model)
        .then(|| {
            [
                "starting model".to_owned(),
                short(&before.model_digest),
                short(&now.model_digest),
            ]
        });
    let program = (before.binary_version != now.binary_version).then(|| {
        [
            "grpo-tui".to_owned(),
            before.binary_version.clone(),
            now.binary_version.clone(),
        ]
    });
    keys.chain(files).chain(model).chain(program).collect()
}
