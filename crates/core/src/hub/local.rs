//! Finds local models: embedded, in the Hugging Face cache, and folders that look like one.

use std::path::{Path, PathBuf};

use super::{ModelSource, cache, embedded};

#[derive(Debug, Clone)]
pub struct LocalModel {
    /// Value for `base_model`: an embedded name, a cache name, or a folder.
    pub name: String,
    pub place: ModelPlace,
    /// Nothing is read yet.
    pub source: ModelSource,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ModelPlace {
    Embedded,
    Folder,
    Cache,
}

/// Search depth: a workspace, its `models/`, an organisation, a model.
const MAX_DEPTH: usize = 3;
/// More folders mean that the given folder is not for models.
const MAX_FOLDERS: usize = 4_000;
/// Large folders without start models; a run's models are named by the run.
const NOT_SEARCHED: [&str; 4] = ["runs", "target", "node_modules", "checkpoints"];

/// Local models by place and name: embedded, in and below `folders`, and in the cache. Skips
/// unreadable ones.
pub fn local_models(folders: &[PathBuf]) -> Vec<LocalModel> {
    local_models_in(
        folders,
        &cache::cache_folders(|variable| std::env::var_os(variable)),
    )
}

fn local_models_in(folders: &[PathBuf], caches: &[PathBuf]) -> Vec<LocalModel> {
    let embedded = |(name, files): &embedded::EmbeddedModel| LocalModel {
        name: (*name).to_owned(),
        place: ModelPlace::Embedded,
        source: ModelSource::embedded(name, files),
    };
    let mut found: Vec<LocalModel> = embedded::MODELS.iter().map(embedded).collect();
    let mut left = MAX_FOLDERS;
    for folder in folders {
        look_into(folder, 0, &mut left, &mut found);
    }
    found.extend(caches.iter().flat_map(|folder| cached_models(folder)));
    found.sort_by(|a, b| (a.place, &a.name).cmp(&(b.place, &b.name)));
    found.dedup_by(|a, b| a.name == b.name && a.place == b.place);
    found
}

fn look_into(folder: &Path, depth: usize, left: &mut usize, found: &mut Vec<LocalModel>) {
    let Some(fewer) = left.checked_sub(1) else {
        return;
    };
    *left = fewer;
    if is_model(folder) {
        let name = folder.display().to_string();
        found.push(LocalModel {
            source: ModelSource::at(&name, folder),
            name,
            place: ModelPlace::Folder,
        });
        return;
    }
    let Ok(entries) = std::fs::read_dir(folder) else {
        return;
    };
    let inside = entries.flatten().filter(|entry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        // Not following symlinks avoids cycles.
        !name.starts_with('.')
            && !NOT_SEARCHED.contains(&name.as_str())
            && entry.file_type().is_ok_and(|kind| kind.is_dir())
    });
    if depth < MAX_DEPTH {
        inside.for_each(|entry| look_into(&entry.path(), depth + 1, left, found));
    }
}

fn is_model(folder: &Path) -> bool {
    let has = |name: &str| folder.join(name).is_file();
    has("config.json") && (has("model.safetensors") || has("model.safetensors.index.json"))
}

fn cached_models(folder: &Path) -> Vec<LocalModel> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    let one = |entry: std::fs::DirEntry| {
        let name = entry
            .file_name()
            .to_str()?
            .strip_prefix("models--")?
            .replacen("--", "/", 1);
        // A name containing `--` cannot be derived from its folder, so is only found when written
        // out.
        let snapshot = (cache::repository(folder, &name)? == entry.path())
            .then(|| cache::snapshot(folder, &name))
            .flatten()?;
        is_model(&snapshot).then(|| LocalModel {
            source: ModelSource::at(&name, &snapshot),
            name,
            place: ModelPlace::Cache,
        })
    };
    entries.flatten().filter_map(one).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn models_are_found_where_they_lie() {
        let work = tempfile::tempdir().unwrap();
        let model = |folder: &str| {
            let folder = work.path().join(folder);
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join("config.json"), "{}").unwrap();
            std::fs::write(folder.join("model.safetensors"), "").unwrap();
        };
        model("here/models/mine");
        model("here/models/org/yours");
        model("here/runs/x/checkpoints/step-000010");
        model("here/a/b/c/d/too-deep");
        model("here/.hidden");
        model("hub/models--org--name/snapshots/abc");
        model("hub/models--plain/snapshots/abc");
        model("hub/datasets--org--data/snapshots/abc");
        std::fs::create_dir_all(work.path().join("here/models/empty")).unwrap();
        std::fs::create_dir_all(work.path().join("hub/models--org--begun/snapshots/abc")).unwrap();
        std::os::unix::fs::symlink(
            work.path().join("here"),
            work.path().join("here/models/circle"),
        )
        .unwrap();
        let found = local_models_in(
            &[work.path().join("here"), work.path().join("absent")],
            &[work.path().join("hub")],
        );
        let shown: Vec<(ModelPlace, String)> = found
            .into_iter()
            .map(|model| {
                (
                    model.place,
                    model
                        .name
                        .replace(&format!("{}/", work.path().display()), ""),
                )
            })
            .filter(|(place, _)| *place != ModelPlace::Embedded)
            .collect();
        let expected = [
            (ModelPlace::Folder, "here/models/mine"),
            (ModelPlace::Folder, "here/models/org/yours"),
            (ModelPlace::Cache, "org/name"),
            (ModelPlace::Cache, "plain"),
        ];
        assert_eq!(
            shown,
            expected.map(|(place, name)| (place, name.to_owned()))
        );
    }
}
