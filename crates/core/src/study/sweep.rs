//! The state of a sweep, its runs included: `RUNS/.sweeps/NAME/sweep.json`, replaced atomically.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::axes::Setting;
use super::error::StudyError;
use super::measure::Metric;
use crate::config::{ConfigFile, Key, TrainConfig};
use crate::files::{self, Access};
use crate::run::{DeviceChoice, RunError, RunFolders, RunLock, check_tag, ensure_runs_folder};

/// The format that this program writes, and the newest that it reads.
pub const FORMAT_VERSION: u64 = 2;
/// Without `--max-runs`, more runs are taken for a mistake.
pub const MAX_RUNS: usize = 100;
/// A run's name adds its number, and a tag has at most 32 characters.
const MAX_NAME_LEN: usize = 32;

const FILE: &str = "sweep.json";
/// Beside the runs; hidden, so that nothing takes it for a run.
const FOLDER: &str = ".sweeps";

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sweep {
    /// [`FORMAT_VERSION`] of the writer.
    pub version: u64,
    /// Also the tag of its runs, and the beginning of their names.
    pub name: String,
    /// Milliseconds since 1970.
    pub created_ms: u64,
    /// A folder, absolute, or an embedded task's name.
    pub task: String,
    pub task_digest: String,
    /// Tasks that its runs train on beside the first.
    #[serde(default)]
    pub other_tasks: Vec<SweepTask>,
    /// Weights of several tasks, as `train --mix` takes them.
    #[serde(default)]
    pub mix: Option<String>,
    #[serde(default)]
    pub preset: Option<String>,
    /// The keys below `fixed`.
    #[serde(default)]
    pub config_file: Option<ConfigFile>,
    /// `KEY=VALUE` of all runs.
    pub fixed: Vec<String>,
    /// Measured on the eval set at the best checkpoint.
    pub metric: Metric,
    pub compute: DeviceChoice,
    #[serde(default)]
    pub max_runs: Option<usize>,
    #[serde(default)]
    pub max_hours: Option<f64>,
    /// Wall-clock time of all sessions so far.
    pub seconds: f64,
    pub settings: Vec<Setting>,
    /// Seed by seed, so that a sweep that ends early has compared all settings.
    pub runs: Vec<SweepRun>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SweepTask {
    /// A folder, absolute, or an embedded task's name.
    pub task: String,
    pub digest: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SweepRun {
    pub setting: usize,
    pub seed: u64,
    /// `None`: not started.
    #[serde(default)]
    pub id: Option<String>,
    /// Why it could not be started.
    #[serde(default)]
    pub problem: Option<String>,
}

impl Sweep {
    /// Its tasks, as the command line names them.
    pub fn tasks(&self) -> Vec<&str> {
        std::iter::once(self.task.as_str())
            .chain(self.other_tasks.iter().map(|other| other.task.as_str()))
            .collect()
    }

    pub fn task_names(&self) -> String {
        let names = self
            .tasks()
            .into_iter()
            .map(|task| task.rsplit('/').next().unwrap_or(task));
        names.collect::<Vec<_>>().join(" ")
    }

    /// The runs of all settings and seeds.
    pub fn all_runs(settings: usize, seeds: &[u64]) -> Vec<SweepRun> {
        let of_seed = |seed: &u64| {
            let seed = *seed;
            (0..settings).map(move |setting| SweepRun {
                setting,
                seed,
                id: None,
                problem: None,
            })
        };
        seeds.iter().flat_map(of_seed).collect()
    }

    /// A run's name, which also finds a run whose start was not recorded.
    pub fn run_name(&self, index: usize) -> String {
        format!("{}-{:03}", self.name, index + 1)
    }

    pub fn seeds(&self) -> Vec<u64> {
        let mut seeds: Vec<u64> = Vec::new();
        for run in &self.runs {
            if !seeds.contains(&run.seed) {
                seeds.push(run.seed);
            }
        }
        seeds
    }

    /// `KEY=VALUE` of a run, in the order in which later ones override.
    pub fn assignments(&self, run: &SweepRun) -> Vec<String> {
        let seed = format!("seed={}", run.seed);
        self.fixed
            .iter()
            .cloned()
            .chain(self.settings[run.setting].set.iter().cloned())
            .chain([seed])
            .collect()
    }

    /// `KEY=VALUE` where `today`, the run's configuration as this program resolves it, differs from what the sweep
    /// resolved when it began: a later release may have other defaults, and keys that were not there.
    pub fn kept(&self, index: usize, today: &TrainConfig) -> Vec<String> {
        let run = &self.runs[index];
        let (then, set) = (&self.settings[run.setting].resolved, self.assignments(run));
        if then.is_empty() {
            return Vec::new();
        }
        let own = set.iter().filter_map(|text| text.split_once('='));
        let own: Vec<&str> = own.map(|(name, _)| name.trim()).collect();
        let kept = |(name, now): (String, String)| {
            let before = Key::find(&name).and_then(|key| key.before);
            let value = then.get(&name).map(String::as_str).or(before)?;
            (value != now && !own.contains(&name.as_str())).then(|| format!("{name}={value}"))
        };
        today.texts().filter_map(kept).collect()
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SweepFolder {
    path: PathBuf,
}

impl SweepFolder {
    /// Creates it in a folder of runs.
    ///
    /// # Errors
    /// A name that is not valid or taken, or what could not be written.
    pub fn create(runs: &Path, sweep: &Sweep) -> Result<Self, StudyError> {
        if check_tag(&sweep.name).is_some() {
            return Err(StudyError::Other(format!(
                "`{}` is not a valid sweep name: a letter or digit, then also - _ . (at most {MAX_NAME_LEN} characters)",
                without_controls(&sweep.name)
            )));
        }
        let root = runs.join(FOLDER);
        let io = |path: &Path, source| {
            StudyError::Run(RunError::Io {
                action: "create",
                path: path.to_owned(),
                source,
            })
        };
        ensure_runs_folder(runs).map_err(StudyError::Run)?;
        files::ensure_folder(&root, Access::Private).map_err(|source| io(&root, source))?;
        let path =
            std::path::absolute(root.join(&sweep.name)).map_err(|source| io(&root, source))?;
        if path.symlink_metadata().is_ok() {
            return Err(StudyError::Other(format!(
                "there is a sweep `{0}` in {1}: resume it with --resume {0}, or choose another --name",
                sweep.name,
                runs.display()
            )));
        }
        files::create_folder_with(&path, Access::Private, io, |building| {
            let file = building.join(FILE);
            files::create_file(&file, &text(sweep), Access::Private)
                .map_err(|source| io(&file, source))
        })?;
        Ok(Self { path })
    }

    /// Finds a sweep by its name in the folders of runs.
    ///
    /// # Errors
    /// The names there are, or the error of reading it.
    pub fn find(run_folders: &RunFolders, name: &str) -> Result<(Self, Sweep), StudyError> {
        let all = Self::list(run_folders);
        match all.iter().find(|folder| folder.name() == name) {
            Some(folder) => Ok((folder.clone(), folder.read()?)),
            None => {
                let known: Vec<String> = all.iter().map(Self::name).collect();
                let advice = if known.is_empty() {
                    "there is none yet: start one with `grpo-tui sweep TASK --set KEY=VALUE,VALUE`"
                        .to_owned()
                } else {
                    format!("there are {}", known.join(", "))
                };
                Err(StudyError::Other(format!(
                    "no sweep `{}` in {}; {advice}",
                    without_controls(name),
                    run_folders.for_new_runs().display()
                )))
            }
        }
    }

    pub fn list(run_folders: &RunFolders) -> Vec<Self> {
        let entries = run_folders
            .roots()
            .iter()
            .filter_map(|root| std::fs::read_dir(root.join(FOLDER)).ok())
            .flatten();
        let paths = entries
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.join(FILE).is_file());
        let mut found: Vec<Self> = paths
            .map(|path| Self {
                path: std::path::absolute(&path).unwrap_or(path),
            })
            .collect();
        found.sort_by_key(Self::name);
        found
    }

    pub fn name(&self) -> String {
        self.path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned()
    }

    pub fn runs(&self) -> &Path {
        self.path
            .parent()
            .and_then(Path::parent)
            .unwrap_or(&self.path)
    }

    pub fn remove(&self) -> Result<(), StudyError> {
        let path = self.path.clone();
        let removed = std::fs::remove_dir_all(&path);
        Ok(removed.map_err(|source| RunError::Io {
            action: "remove",
            path,
            source,
        })?)
    }

    pub fn is_active(&self) -> bool {
        RunLock::is_held(&self.path)
    }

    /// The right to start its runs.
    ///
    /// # Errors
    /// [`RunError::InUse`] with the process that has it.
    pub fn lock(&self) -> Result<RunLock, StudyError> {
        Ok(RunLock::acquire(&self.path)?)
    }

    pub fn read(&self) -> Result<Sweep, StudyError> {
        let path = self.path.join(FILE);
        let bytes = files::read(&path).map_err(|source| RunError::Io {
            action: "read",
            path: path.clone(),
            source,
        })?;
        let malformed = |line: usize, message: String| {
            StudyError::Other(format!(
                "{} line {line}: {message}; restore the file, or start a new sweep",
                path.display()
            ))
        };
        let value: serde_json::Value = serde_json::from_slice(&bytes)
            .map_err(|error| malformed(error.line(), error.to_string()))?;
        if let Some(found) = value["version"]
            .as_u64()
            .filter(|version| *version > FORMAT_VERSION)
        {
            return Err(StudyError::Other(format!(
                "{} has format version {found}, newer than this program's {FORMAT_VERSION}; open it with a newer grpo-tui",
                path.display()
            )));
        }
        for (key, what) in [("study", "a study"), ("halving", "successive halving")] {
            if !value[key].is_null() {
                return Err(StudyError::Other(format!(
                    "{}: the sweep is {what}, which this program no longer has; its runs stay: compare them with `grpo-tui runs list --where tags:{}`, or start a new sweep",
                    path.display(),
                    self.name()
                )));
            }
        }
        let sweep: Sweep = serde_json::from_slice(&bytes)
            .map_err(|error| malformed(error.line(), error.to_string()))?;
        let count = sweep.settings.len();
        // A path in place of an id would lead out of the folder.
        let is_id = |run: &SweepRun| {
            run.id
                .as_ref()
                .is_none_or(|id| !id.starts_with('.') && !id.contains('/'))
        };
        let is_whole = sweep
            .runs
            .iter()
            .all(|run| run.setting < count && is_id(run));
        if is_whole {
            Ok(sweep)
        } else {
            Err(malformed(1, "a place or an id is out of range".to_owned()))
        }
    }

    pub fn write(&self, sweep: &Sweep) -> Result<(), StudyError> {
        let path = self.path.join(FILE);
        let written = files::replace_file(&path, &text(sweep), Access::Private);
        Ok(written.map_err(|source| RunError::Io {
            action: "write",
            path,
            source,
        })?)
    }
}

/// Plain data without maps of other keys than text, so it has a form as JSON.
fn text(sweep: &Sweep) -> Vec<u8> {
    let mut text = serde_json::to_vec_pretty(sweep).unwrap_or_default();
    text.push(b'\n');
    text
}

fn without_controls(name: &str) -> String {
    name.chars().filter(|letter| !letter.is_control()).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(super) mod tests {
    use super::*;

    pub(in crate::study) fn sweep(labels: &[&str], seeds: &[u64]) -> Sweep {
        let setting = |label: &&str| Setting {
            label: (*label).to_owned(),
            ..Setting::default()
        };
        Sweep {
            version: FORMAT_VERSION,
            name: "lr".to_owned(),
            created_ms: 0,
            task: "invoice".to_owned(),
            task_digest: String::new(),
            other_tasks: Vec::new(),
            mix: None,
            preset: None,
            config_file: None,
            fixed: vec!["max_steps=2".to_owned()],
            metric: Metric::Valid,
            compute: DeviceChoice::Cpu,
            max_runs: None,
            max_hours: None,
            seconds: 0.0,
            settings: labels.iter().map(setting).collect(),
            runs: Sweep::all_runs(labels.len(), seeds),
        }
    }

    #[test]
    fn seeds_come_first_and_each_run_has_its_values() {
        let mut sweep = sweep(&["a", "b"], &[3, 4]);
        sweep.settings[1].set = vec!["learning_rate=1e-5".to_owned()];
        let order: Vec<_> = sweep
            .runs
            .iter()
            .map(|run| (run.setting, run.seed))
            .collect();
        assert_eq!(order, [(0, 3), (1, 3), (0, 4), (1, 4)]);
        assert_eq!(
            sweep.assignments(&sweep.runs[3]),
            ["max_steps=2", "learning_rate=1e-5", "seed=4"]
        );
        assert_eq!(
            (sweep.seeds(), sweep.run_name(3)),
            (vec![3, 4], "lr-004".to_owned())
        );
    }

    #[test]
    fn a_sweep_is_found_again_and_a_damaged_one_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let run_folders = RunFolders::discover(Some(folder.path()), folder.path());
        let sweep = sweep(&["a"], &[0]);
        let made = SweepFolder::create(folder.path(), &sweep).unwrap();
        assert_eq!(
            SweepFolder::find(&run_folders, "lr").unwrap(),
            (made.clone(), sweep.clone())
        );
        assert!(run_folders.list().is_empty(), "it is not a run");
        let error = |found: Result<_, StudyError>| {
            found
                .map(|_: (SweepFolder, Sweep)| ())
                .unwrap_err()
                .to_string()
        };
        assert!(
            SweepFolder::create(folder.path(), &sweep)
                .unwrap_err()
                .to_string()
                .contains("--resume lr")
        );
        assert!(error(SweepFolder::find(&run_folders, "other")).contains("there are lr"));
        for wrong in ["", "a/b", "..", &"x".repeat(40)] {
            let named = Sweep {
                name: wrong.to_owned(),
                ..sweep.clone()
            };
            let refused = SweepFolder::create(folder.path(), &named).unwrap_err();
            assert!(
                refused.to_string().contains("not a valid sweep name"),
                "{wrong}"
            );
        }
        let file = made.path.join(FILE);
        let whole = std::fs::read_to_string(&file).unwrap();
        let check = |text: &str, expected: &str| {
            std::fs::write(&file, text).unwrap();
            let found = error(SweepFolder::find(&run_folders, "lr"));
            assert!(
                found.contains("sweep.json") && found.contains(expected),
                "{found}"
            );
        };
        check("{\n\"version\": 1,", "line 2");
        check(
            &whole.replace("\"version\": 2", "\"version\": 9"),
            "newer than this program's 2",
        );
        for (added, expected) in [
            ("\"study\": \"sft-vs-grpo\"", "is a study, which"),
            ("\"halving\": {\"rung\": 0}", "is successive halving, which"),
        ] {
            check(&whole.replacen('{', &format!("{{{added},"), 1), expected);
        }
        check(
            &whole.replace("\"setting\": 0", "\"setting\": 5"),
            "out of range",
        );
        check(
            &whole.replace("\"id\": null", "\"id\": \"../../x\""),
            "out of range",
        );
    }

    #[test]
    fn one_process_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let made = SweepFolder::create(folder.path(), &sweep(&["a"], &[0])).unwrap();
        let lock = made.lock().unwrap();
        assert!(made.is_active());
        drop(lock);
        assert!(!made.is_active());
    }
}
