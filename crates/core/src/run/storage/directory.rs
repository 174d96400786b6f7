//! The folder of a run: created atomically and private, and checked when opened.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::display_name::read_display_name;
use super::durable::{
    create_file, create_folder, ensure_folder, ensure_runs_folder, remove_left, sync_folder,
};
use crate::config::{KEYS, REMOVED_KEYS, Source, TrainConfig};
use crate::facts::Job;
use crate::files::{self, Access, CHECKSUM_FIELD, Checked};
use crate::format::{hex, line_column};
use crate::run::clock::local_now;
use crate::run::error::RunError;

/// The format that this program writes, and the newest it reads.
pub const FORMAT_VERSION: u64 = 1;

/// `run.toml`: written once by the launcher, never changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunFile {
    pub version: u64,
    /// The algorithm of the checksum at the end of the file; absent in files of older programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checksum: Option<String>,
    pub id: String,
    pub job: Job,
    /// The name that the user gave, or empty.
    #[serde(default)]
    pub name: String,
    pub task: String,
    #[serde(default)]
    pub task_origin: String,
    /// Creation time as RFC 3339 with offset.
    pub created: String,
    /// Creation time in milliseconds since 1970.
    pub created_ms: u64,
    pub host: String,
    pub argv: Vec<String>,
    pub binary_version: String,
    pub features: Vec<String>,
    pub config_digest: String,
    /// SHA-256 of the starting model; empty if not computed.
    #[serde(default)]
    pub model_digest: String,
    pub config: TrainConfig,
    /// The configuration layer that set each key.
    #[serde(default)]
    pub sources: BTreeMap<String, Source>,
    #[serde(default)]
    pub task_files: BTreeMap<String, String>,
    /// Tasks of a run of several, whose files are in folders of these names; empty for one task.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mix: Vec<MixedTask>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MixedTask {
    /// The name of the task's folder, sets and metrics: the task's name in lower-case letters,
    /// digits and hyphens.
    pub name: String,
    pub origin: String,
    /// Weight of the task's prompts relative to the sum of all weights; at least 1.
    pub weight: usize,
    pub max_completion_tokens: usize,
}

impl RunFile {
    pub fn is_of_task(&self, task: &str) -> bool {
        self.task == task
            || (!self.mix.is_empty() && self.mix.iter().any(|mixed| mixed.name == slug(task)))
    }
}

#[derive(Debug, Clone)]
pub struct NewRun {
    pub job: Job,
    /// The name that the user gave, or empty.
    pub name: String,
    pub task: String,
    pub task_origin: String,
    pub task_files: Vec<(String, Vec<u8>)>,
    pub config: TrainConfig,
    /// The configuration layer that set each key.
    pub sources: BTreeMap<String, Source>,
    pub argv: Vec<String>,
    /// Features of the program: `view`, `engine`, `cuda`.
    pub features: Vec<String>,
    /// SHA-256 of the starting model, or empty.
    pub model_digest: String,
    /// Tasks of a run of several; empty for one task.
    pub mix: Vec<MixedTask>,
}

/// An existing run directory. Opening it takes no lock; see [`super::RunLock`].
#[derive(Debug, Clone)]
pub struct RunDirectory {
    path: PathBuf,
    file: RunFile,
    display_name: Option<String>,
    /// Whether `run.toml` has all keys that this program knows.
    has_all_keys: bool,
    /// Whether the checksum of `run.toml` matches; older programs wrote none.
    checked: Checked,
}

impl RunDirectory {
    /// Creates a run in `runs`. The folder appears under its final name once `run.toml` and the
    /// frozen task are durable.
    pub fn create(runs: &Path, new: NewRun) -> Result<Self, RunError> {
        ensure_runs_folder(runs)?;
        remove_left(runs);
        let now = local_now();
        let task_files = new
            .task_files
            .iter()
            .map(|(name, bytes)| (name.clone(), sha256(bytes)))
            .collect();
        let mut file = RunFile {
            version: FORMAT_VERSION,
            checksum: Some(CHECKSUM_FIELD.to_owned()),
            id: String::new(),
            job: new.job,
            name: new.name,
            task: new.task,
            task_origin: new.task_origin,
            created: now.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string(),
            created_ms: u64::try_from(now.timestamp().as_millisecond()).unwrap_or(0),
            host: host_name(),
            argv: new.argv,
            binary_version: env!("CARGO_PKG_VERSION").to_owned(),
            features: new.features,
            config_digest: config_digest(&new.config, &new.mix),
            model_digest: new.model_digest,
            config: new.config,
            sources: new.sources,
            task_files,
            mix: new.mix,
        };
        loop {
            file.id = format!(
                "{}-{}-{}",
                now.strftime("%Y%m%d-%H%M%S"),
                slug(&file.task),
                random_suffix()?
            );
            let path = runs.join(&file.id);
            if path.exists() {
                continue;
            }
            let fail = |path: &Path, source| RunError::io("create", path)(source);
            files::create_folder_with(&path, Access::Private, fail, |building| {
                fill(building, &file, &new.task_files)
            })?;
            return Ok(Self {
                path: std::path::absolute(&path).unwrap_or(path),
                file,
                display_name: None,
                has_all_keys: true,
                checked: Checked::Intact,
            });
        }
    }

    /// Opens an existing run for reading.
    ///
    /// # Errors
    /// [`RunError::NotARun`] without `run.toml`, [`RunError::Newer`], [`RunError::Malformed`] with
    /// the line.
    pub fn open(path: &Path) -> Result<Self, RunError> {
        let file_path = path.join("run.toml");
        let text = match crate::files::read_text(&file_path) {
            Ok(text) => text,
            Err(error)
                if matches!(
                    error.kind(),
                    std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory
                ) =>
            {
                return Err(RunError::NotARun {
                    path: path.to_owned(),
                });
            }
            Err(error) => return Err(RunError::io("read", &file_path)(error)),
        };
        let malformed = |error: &toml::de::Error| RunError::Malformed {
            path: file_path.clone(),
            line: error.span().map(|span| line_column(&text, span.start).0),
            message: error.message().to_owned(),
        };
        let mut table: toml::Table = text.parse().map_err(|error| malformed(&error))?;
        let version = table
            .get("version")
            .and_then(toml::Value::as_integer)
            .and_then(|version| u64::try_from(version).ok());
        if let Some(found) = version.filter(|version| *version > FORMAT_VERSION) {
            return Err(RunError::Newer {
                path: file_path,
                found,
                known: FORMAT_VERSION,
            });
        }
        let checked = match files::check(text.as_bytes()) {
            // The other half of the checksum, the key, is still there.
            Checked::Without if table.get("checksum").is_some() => Checked::Damaged,
            checked => checked,
        };
        let has_all_keys = !add_new_keys(&mut table);
        let file: RunFile = match has_all_keys {
            // Parsing the text gives errors with line numbers.
            true => toml::from_str(&text),
            false => table.try_into(),
        }
        .map_err(|error| malformed(&error))?;
        // A damaged display name does not hide the run; reports warn about it.
        let display_name = read_display_name(path).ok().flatten();
        Ok(Self {
            path: std::path::absolute(path).unwrap_or_else(|_| path.to_owned()),
            file,
            display_name,
            has_all_keys,
            checked,
        })
    }

    /// Checks that configuration and task are unchanged since the run was created.
    ///
    /// # Errors
    /// [`RunError::Edited`] naming a changed file, [`RunError::Io`].
    pub fn check_unedited(&self) -> Result<(), RunError> {
        if self.checked == Checked::Damaged {
            return Err(RunError::Edited {
                path: self.path.join("run.toml"),
            });
        }
        if self.has_all_keys
            && config_digest(&self.file.config, &self.file.mix) != self.file.config_digest
        {
            return Err(RunError::Edited {
                path: self.path.join("run.toml"),
            });
        }
        for (name, digest) in &self.file.task_files {
            let path = self.task_path().join(name);
            if sha256_file(&path)? != *digest {
                return Err(RunError::Edited { path });
            }
        }
        Ok(())
    }

    /// Checks that this user may compute in the run or remove it: if others can write here, they
    /// could have tampered with it.
    ///
    /// # Errors
    /// [`RunError::Foreign`] if the folder or a file in it belongs to another user,
    /// [`RunError::Loose`] if others may write to it.
    pub fn check_private(&self) -> Result<(), RunError> {
        let metadata = std::fs::metadata(&self.path).map_err(RunError::io("read", &self.path))?;
        let (owner, user) = (metadata.uid(), rustix::process::geteuid().as_raw());
        if owner != user {
            return Err(RunError::Foreign {
                path: self.path.clone(),
                owner,
                user,
            });
        }
        let mode = metadata.mode() & 0o7777;
        if mode & 0o022 != 0 {
            return Err(RunError::Loose {
                path: self.path.clone(),
                mode,
            });
        }
        // A folder that nobody else can enter protects its contents.
        if mode & 0o011 == 0 {
            Ok(())
        } else {
            check_below(&self.path, user)
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn file(&self) -> &RunFile {
        &self.file
    }

    pub fn id(&self) -> &str {
        &self.file.id
    }

    /// Whether the checksum of `run.toml` matches.
    pub fn checked(&self) -> Checked {
        self.checked
    }

    /// The display name, else the name in `run.toml`; may be empty.
    pub fn name(&self) -> &str {
        self.display_name.as_deref().unwrap_or(&self.file.name)
    }

    pub fn is_named(&self, name: &str) -> bool {
        !name.is_empty() && [self.name(), &self.file.name].contains(&name)
    }

    pub fn task_path(&self) -> PathBuf {
        task_folder(&self.path, "")
    }

    /// The frozen task of this name, or else the first one; empty in a run of one task.
    pub fn task_like(&self, task: &str) -> &str {
        let (names, like) = (self.task_names(), slug(task));
        names
            .iter()
            .copied()
            .find(|name| *name == like)
            .unwrap_or(names[0])
    }

    /// The folder of the first task, whose template also renders other prompts.
    pub fn first_task_path(&self) -> PathBuf {
        task_folder(&self.path, self.task_names()[0])
    }

    /// The names of the frozen tasks; one empty name in a run of one task.
    pub fn task_names(&self) -> Vec<&str> {
        let names: Vec<&str> = self
            .file
            .mix
            .iter()
            .map(|task| task.name.as_str())
            .collect();
        if names.is_empty() { vec![""] } else { names }
    }

    pub fn events_path(&self) -> PathBuf {
        self.path.join("events.jsonl")
    }

    pub fn log_path(&self) -> PathBuf {
        self.path.join("worker.log")
    }
}

/// The frozen task of a run or an eval. `task`: the name of one of several tasks, else empty.
pub fn task_folder(folder: &Path, task: &str) -> PathBuf {
    let tasks = folder.join("task");
    if task.is_empty() {
        tasks
    } else {
        tasks.join(task)
    }
}

/// Digest of the configuration and the mix of tasks, since both determine the results.
fn config_digest(config: &TrainConfig, mix: &[MixedTask]) -> String {
    let task = |task: &MixedTask| {
        format!(
            "{} {} {}\n",
            task.name, task.weight, task.max_completion_tokens
        )
    };
    match mix {
        [] => config.digest(),
        tasks => sha256(
            (config.digest() + "\n" + &tasks.iter().map(task).collect::<String>()).as_bytes(),
        ),
    }
}

/// Checks that only this user may change the contents of a folder. Does not follow links.
fn check_below(folder: &Path, user: u32) -> Result<(), RunError> {
    for entry in std::fs::read_dir(folder).map_err(RunError::io("read", folder))? {
        let path = entry.map_err(RunError::io("read", folder))?.path();
        // A file that has vanished cannot be changed.
        let Ok(found) = std::fs::symlink_metadata(&path) else {
            continue;
        };
        let (owner, mode) = (found.uid(), found.mode() & 0o7777);
        match () {
            () if found.is_symlink() => {}
            () if ![user, 0].contains(&owner) => {
                return Err(RunError::Foreign { path, owner, user });
            }
            () if mode & 0o022 != 0 => return Err(RunError::Loose { path, mode }),
            () if found.is_dir() => check_below(&path, user)?,
            () => {}
        }
    }
    Ok(())
}

/// Adds keys unknown to the release that wrote the table, with what it did, and drops removed ones;
/// returns whether there were any.
fn add_new_keys(table: &mut toml::Table) -> bool {
    let Some(config) = table.get_mut("config").and_then(toml::Value::as_table_mut) else {
        return false;
    };
    let missing: Vec<_> = KEYS
        .iter()
        .filter(|key| !config.contains_key(key.name))
        .collect();
    for key in &missing {
        if let Some(value) = key
            .kind
            .parse(key.before.unwrap_or(key.default))
            .ok()
            .and_then(|value| toml::Value::try_from(value).ok())
        {
            config.insert(key.name.to_owned(), value);
        }
    }
    let removed = REMOVED_KEYS.iter();
    let removed = removed.filter(|removed| config.remove(removed.name).is_some());
    removed.count() + missing.len() > 0
}

fn fill(folder: &Path, file: &RunFile, task_files: &[(String, Vec<u8>)]) -> Result<(), RunError> {
    for name in ["task", "rollouts", "evals", "checkpoints"] {
        create_folder(&folder.join(name))?;
    }
    let task = folder.join("task");
    for (name, bytes) in task_files {
        let inside = !name.is_empty()
            && Path::new(name)
                .components()
                .all(|component| matches!(component, Component::Normal(_)));
        if !inside {
            let message = format!(
                "task file `{name}` is outside the task's folder and cannot be copied into the run: move it inside"
            );
            return Err(RunError::malformed(Path::new("task.toml"), message));
        }
        let path = task.join(name);
        if let Some(parent) = path.parent() {
            ensure_folder(parent)?;
        }
        create_file(&path, bytes)?;
    }
    sync_folder(&task)?;
    let path = folder.join("run.toml");
    let mut text = toml::to_string(file).map_err(|error| RunError::malformed(&path, error))?;
    files::seal_toml(&mut text);
    create_file(&path, text.as_bytes())?;
    create_file(&folder.join("events.jsonl"), b"")
}

pub fn host_name() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned()
}

pub fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest;
    hex(&sha2::Sha256::digest(bytes))
}

/// Returns the SHA-256 of a file as hex; the file may be larger than memory.
pub fn sha256_file(path: &Path) -> Result<String, RunError> {
    use sha2::Digest;
    use std::io::Read;
    let mut file = crate::files::open(path).map_err(RunError::io("read", path))?;
    let (mut hash, mut buffer) = (sha2::Sha256::new(), vec![0u8; 1 << 20]);
    loop {
        match file.read(&mut buffer).map_err(RunError::io("read", path))? {
            0 => return Ok(hex(&hash.finalize())),
            count => hash.update(&buffer[..count]),
        }
    }
}

/// Turns a task's name into a folder name: lower-case letters, digits and single hyphens, at most
/// 32.
pub fn slug(name: &str) -> String {
    let mut slug = String::new();
    for letter in name.to_lowercase().chars() {
        if letter.is_ascii_alphanumeric() {
            slug.push(letter);
        } else if !slug.is_empty() && !slug.ends_with('-') {
            slug.push('-');
        }
    }
    slug.truncate(32);
    let slug = slug.trim_end_matches('-');
    if slug.is_empty() {
        "run".to_owned()
    } else {
        slug.to_owned()
    }
}

/// Distinguishes runs created in the same second.
fn random_suffix() -> Result<String, RunError> {
    const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let bytes =
        files::random_bytes::<6>().map_err(RunError::io("read", Path::new("/dev/urandom")))?;
    Ok(bytes
        .iter()
        .map(|byte| char::from(LETTERS[usize::from(byte % 32)]))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slugs() {
        let check = |name: &str, expected: &str| assert_eq!(slug(name), expected);
        check("invoice", "invoice");
        check("My Task / v2!", "my-task-v2");
        check("---", "run");
        check("ÄÖ", "run");
        check(&"ab-".repeat(30), "ab-ab-ab-ab-ab-ab-ab-ab-ab-ab-ab");
    }
}
