//! Evals on disk: of a run, or standalone; both are in `evals/` beside a frozen task.

use std::collections::BTreeMap;
use std::fs::DirEntry;
use std::io::Cursor;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::error::ReportError;
use super::run_outcome::RunOutcome;
use crate::dataset::{self, PromptRow};
use crate::facts::Target;
use crate::format::short_id;
use crate::run::events::Eval;
use crate::run::{
    EvalRecord, EvalSummary, HeldOut, RunDirectory, RunError, RunState, StoredTarget, TestLook,
    entries, eval_path, list_checkpoints, read_eval_names, read_evals, recorded_file, sha256,
    task_folder,
};
use crate::score::{Score, Scorer, Task};
use crate::statistics::compound;
use crate::task::{PromptSet, SetName};

/// The prompts of a standalone eval, which may come from a file that is not a set of the task.
pub const PROMPTS_FILE: &str = "prompts.jsonl";

/// Identifies an eval's file.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EvalId {
    pub folder: PathBuf,
    /// The step of the evaluated checkpoint; 0 is the start.
    pub step: u64,
    pub set: SetName,
    /// `base`, `trained`, or a model's name.
    pub target: String,
}

/// The records of an eval, with the task and the prompts they answer.
#[derive(Debug, Clone, Default)]
pub struct EvalResult {
    pub id: EvalId,
    pub name: String,
    /// One per completion.
    pub records: Vec<EvalRecord>,
    pub summary: EvalSummary,
    pub task: String,
    pub prompts_digest: String,
    /// What else of the task a prompt is made of: `system`, `thinking`, `template_kwargs`.
    pub prompt_rules: Value,
    /// `schema` or `scorer`; `score` of a log.
    pub judge: &'static str,
    /// SHA-256 of the schema, or of what else defines right answers.
    pub schema_digest: String,
    pub task_digest: String,
    /// How its prompts differ from the task's own; empty where they do not.
    pub prompts: String,
    /// The score of another program's log that decides; empty for scores of our own.
    pub scored_by: String,
    /// Whether its prompts are a log's.
    pub is_inferred: bool,
    /// On the test set: which look it is; `None` of a base, and where looks were not counted.
    pub look: Option<TestLook>,
    pub rows: BTreeMap<String, PromptRow>,
}

impl EvalId {
    pub fn path(&self) -> PathBuf {
        recorded_file(&self.folder, &self.set, &self.target)
            .filter(|_| self.step == 0)
            .unwrap_or_else(|| eval_path(&self.folder, self.step, &self.set, &self.target))
    }

    /// Parses the name of a file in `evals/`: `step-000050-test-trained.jsonl`.
    fn from_file(folder: &Path, name: &str) -> Option<Self> {
        let (step, rest) = name
            .strip_prefix("step-")?
            .strip_suffix(".jsonl")?
            .split_once('-')?;
        let (set, target) = rest.rsplit_once('-')?;
        Some(Self {
            folder: folder.to_owned(),
            step: step.parse().ok()?,
            set: set.into(),
            target: target.to_owned(),
        })
    }

    /// The records of the eval set, of the same model, on which thresholds are chosen; `None` if
    /// this is that set, or it was not evaluated.
    fn fitted_on(&self) -> Result<Option<(SetName, Vec<EvalRecord>)>, RunError> {
        let set = SetName::from(PromptSet::Eval);
        let other = Self {
            set: set.clone(),
            ..self.clone()
        };
        let path = other.path();
        match self.set == set || !path.exists() {
            true => Ok(None),
            false => Ok(Some((set, read_evals(&path)?))),
        }
    }

    /// Which look at the test set an eval of a run is.
    fn look(&self) -> Option<TestLook> {
        let is_of_run = self.step > 0 && self.set.set() == Some(PromptSet::Test);
        let history = is_of_run.then(|| RunState::read(&self.folder).ok())??;
        let is_own = |eval: &&Eval| {
            (eval.step, &eval.set, eval.target.name())
                == (self.step, &self.set, self.target.as_str())
        };
        history
            .evals
            .values()
            .find(is_own)?
            .look
            .as_deref()
            .cloned()
    }

    /// The id at the end of the folder's name.
    pub fn short_folder(&self) -> String {
        short_id(
            &self
                .folder
                .file_name()
                .unwrap_or_default()
                .to_string_lossy(),
        )
        .to_owned()
    }

    /// Returns `base`, `step 30`, or the model's name; with `with_folder` after the run's id.
    pub fn name(&self, with_folder: bool) -> String {
        let own = match self.target.as_str() {
            // A standalone eval has no steps.
            "trained" if self.step > 0 => format!("step {}", self.step),
            target => target.to_owned(),
        };
        if with_folder {
            format!("{} {own}", self.short_folder())
        } else {
            own
        }
    }
}

/// Lists the evals of a folder, sorted by set (test first), then step.
///
/// # Errors
/// [`RunError::Io`] where `evals/` exists and cannot be read.
pub fn list_evals(folder: &Path) -> Result<Vec<EvalId>, RunError> {
    let names = read_eval_names(folder);
    let id = |entry: DirEntry| {
        let file = entry.file_name().to_string_lossy().into_owned();
        match names.get(&format!("evals/{file}")) {
            Some(name) => Some(EvalId {
                folder: folder.to_owned(),
                step: 0,
                set: name.set.clone(),
                target: name.target.clone(),
            }),
            None => EvalId::from_file(folder, &file),
        }
    };
    let mut found: Vec<EvalId> = entries(&folder.join("evals"))?
        .into_iter()
        .filter_map(id)
        .collect();
    if folder.join("run.toml").exists() {
        // In a run the trained model at step 0 is the base, which has an eval of its own.
        found.retain(|eval| eval.step > 0 || eval.target != Target::Trained.name());
    }
    let is_test = |eval: &EvalId| eval.set.set() == Some(PromptSet::Test);
    found.sort_by(|a, b| {
        (!is_test(a), &a.set, a.step, &a.target).cmp(&(!is_test(b), &b.set, b.step, &b.target))
    });
    // A run that an older program began may have a file of either name.
    found.dedup();
    Ok(found)
}

/// Returns the evals that are compared by default: base and trained on the test set, else on the eval set; of several
/// tasks on that of the first.
pub fn base_and_trained(run: &Path) -> Result<Vec<EvalId>, ReportError> {
    base_and_trained_on(run, &held_out_sets(run))
}

/// The sets of a run's tasks, in the order in which it is judged by them.
pub fn held_out_sets(run: &Path) -> Vec<SetName> {
    let directory = RunDirectory::open(run).ok();
    let tasks = directory
        .as_ref()
        .map_or_else(|| vec![""], RunDirectory::task_names);
    SetName::held_out(&tasks)
}

/// Returns base and trained on the first of the sets that has both; trained as [`RunState::compared`] chooses it.
pub fn base_and_trained_on(run: &Path, sets: &[SetName]) -> Result<Vec<EvalId>, ReportError> {
    base_and(RunState::compared, run, sets).map(Vec::from)
}

/// Returns the result of a run on the first of the sets that has one, to be compared with other runs': where the best
/// checkpoint is step 0, the eval of the base.
pub fn result_on(run: &Path, sets: &[SetName]) -> Result<EvalId, ReportError> {
    base_and(RunState::result, run, sets).map(|[_, result]| result)
}

/// Selects an eval on a set, given the best checkpoint.
type Choice = for<'a> fn(&'a RunState, &SetName, Option<u64>) -> Option<&'a Eval>;

fn base_and(choice: Choice, run: &Path, sets: &[SetName]) -> Result<[EvalId; 2], ReportError> {
    let evals = list_evals(run)?;
    let known = history_and_best(run);
    let of_set = |set: &SetName| {
        let of_set = || evals.iter().filter(|eval| eval.set == *set);
        let base = of_set().find(|eval| eval.step == 0 && eval.target == Target::Base.name())?;
        let chosen = match &known {
            Some((history, best)) if history.result(set, *best).is_some() => {
                Some(choice(history, set, *best)?)
            }
            _ => None,
        };
        let is_chosen = |eval: &&EvalId| {
            chosen.is_some_and(|chosen| {
                (eval.step, eval.target.as_str()) == (chosen.step, chosen.target.name())
            })
        };
        let chosen = of_set()
            .find(is_chosen)
            .or_else(|| of_set().rfind(|eval| eval.target == Target::Trained.name()))?;
        Some([base.clone(), chosen.clone()])
    };
    sets.iter()
        .find_map(of_set)
        .ok_or_else(|| {
            ReportError::Other(format!(
                "{} has no base and trained eval on one set yet: evals run at the start, every eval_every steps and at the end",
                run.display()
            ))
        })
}

/// `None` for what is not a run, or cannot be read.
fn history_and_best(run: &Path) -> Option<(RunState, Option<u64>)> {
    let directory = RunDirectory::open(run).ok()?;
    let history = RunState::read(run).ok()?;
    let best = history.best_step_by(
        &list_checkpoints(run).ok()?,
        directory.file().config.keep_best_by,
    );
    Some((history, best))
}

/// Warnings from the run's outcome for a comparison of its evals: its best checkpoint is the base, or it ends below
/// the base.
pub(super) fn outcome_warnings(evals: &[EvalId]) -> Vec<String> {
    let of_one = evals
        .windows(2)
        .all(|pair| pair[0].folder == pair[1].folder)
        && evals.len() > 1;
    let known = evals
        .first()
        .filter(|_| of_one)
        .and_then(|eval| history_and_best(&eval.folder));
    let Some((history, best)) = known else {
        return Vec::new();
    };
    let outcome = RunOutcome::from_history(&history, best);
    let is_shown = |step: u64| {
        evals
            .iter()
            .any(|eval| eval.set.set() == Some(PromptSet::Eval) && eval.step == step)
    };
    let fallen = outcome.fallen().filter(|_| {
        outcome
            .fallen_eval()
            .is_some_and(|fallen| !is_shown(fallen.step))
    });
    let base = "the best checkpoint is step 0 (the base): no later one was better on the eval set";
    outcome
        .base_is_best
        .then(|| base.to_owned())
        .into_iter()
        .chain(fallen)
        .collect()
}

impl EvalResult {
    pub fn read(id: EvalId, with_folder: bool) -> Result<Self, ReportError> {
        let records = read_evals(&id.path())?;
        let task = Task::load(&task_folder(&id.folder, id.set.task()))?;
        let own = crate::files::read(&id.folder.join(PROMPTS_FILE)).ok();
        let of_set = || id.set.set().and_then(|set| task.set_file(set));
        let (label, bytes) = match (own, of_set()) {
            (Some(bytes), _) => (PROMPTS_FILE.to_owned(), bytes),
            (None, Some(file)) => (task.label(file), task.read(file)?.into_owned()),
            (None, None) => {
                return Err(ReportError::Other(format!(
                    "prompts of {} are missing in {}: answers cannot be compared",
                    id.set,
                    id.folder.display()
                )));
            }
        };
        let mut rows = dataset::load_from(&label, Cursor::new(&bytes))?;
        dataset::expect_null(&task, &mut rows);
        let stored = StoredTarget::read(&id.folder, &id.target);
        let mut summary = EvalSummary::from_records(&records);
        if let Some(confidence) = &mut summary.confidence {
            let held_out = |(set, fitted_on): (_, Vec<_>)| HeldOut::new(set, &fitted_on, &records);
            confidence.held_out = id.fitted_on()?.map(held_out);
        }
        let result = Self {
            name: id.name(with_folder),
            summary: EvalSummary {
                speed: stored.speed.filter(|_| stored.set == id.set.to_string()),
                has_calls: task.has_calls(),
                ..summary
            },
            records,
            task: task.name.clone(),
            prompts_digest: sha256(&bytes),
            prompt_rules: json!([task.system, task.thinking, task.template_kwargs]),
            judge: task.judge_name(),
            schema_digest: task.definition_digest(),
            task_digest: task.digest(),
            prompts: stored.prompts,
            is_inferred: stored.is_inferred,
            look: { stored.look }
                .filter(|_| stored.set == id.set.to_string())
                .or_else(|| id.look()),
            rows: rows.into_iter().map(|row| (row.id.clone(), row)).collect(),
            id,
            ..Self::default()
        };
        Ok(result.scored_by(stored.scored_by))
    }

    /// The eval with scores of another program's log, unless `score` is empty.
    #[must_use]
    pub fn scored_by(mut self, score: String) -> Self {
        if !score.is_empty() {
            self.judge = "score";
            self.summary = self.summary.without_parse();
            self.schema_digest = sha256(score.as_bytes());
            self.scored_by = score;
        }
        self
    }

    /// P(10 calls valid) and P(50 calls valid) by number of calls, and their 95% intervals, as JSON.
    pub fn in_a_row(&self) -> [Value; 2] {
        let EvalSummary {
            valid,
            valid_interval,
            ..
        } = &self.summary;
        let interval = |calls| valid_interval.map(|rate| compound(rate, calls));
        [
            json!({"10": compound(*valid, 10), "50": compound(*valid, 50)}),
            json!({"10": interval(10), "50": interval(50)}),
        ]
    }

    /// Scores the completions anew.
    ///
    /// # Errors
    /// [`ReportError::Unlike`] for another task.
    pub fn rescored(mut self, task: &Task, scorer: &Scorer) -> Result<Self, ReportError> {
        if self.task != task.name {
            let Self {
                name, task: own, ..
            } = &self;
            return Err(ReportError::Unlike(format!(
                "{name} is of task {own}: it cannot be scored with the {} of {}",
                task.judge_name(),
                task.name
            )));
        }
        let rows: Vec<Vec<Option<PromptRow>>> = self
            .records
            .iter()
            .map(|record| record.rows(self.rows.get(&record.prompt_id)))
            .collect();
        let texts = self.records.iter().flat_map(EvalRecord::texts);
        let answers: Vec<_> = texts
            .zip(rows.iter().flatten())
            .map(|(text, row)| (text, row.as_ref()))
            .collect();
        let mut scores = scorer.score_all(&answers).into_iter();
        for (record, rows) in self.records.iter_mut().zip(&rows) {
            let mut scores: Vec<Score> = scores.by_ref().take(rows.len()).collect();
            // A question without an answer has no score.
            if record.is_endpoint_error() {
                continue;
            }
            scorer.join(&mut scores.iter_mut().collect::<Vec<_>>());
            record
                .judge(&scores)
                .map_err(|error| ReportError::Unlike(error.to_string()))?;
        }
        let speed = self.summary.speed.take();
        // Whether values are right was judged by the scorer of then.
        for record in &mut self.records {
            record.confidence = None;
        }
        self.summary = EvalSummary {
            speed,
            has_calls: task.has_calls(),
            ..EvalSummary::from_records(&self.records)
        };
        self.judge = task.judge_name();
        self.scored_by.clear();
        (self.schema_digest, self.task_digest) = (task.definition_digest(), String::new());
        Ok(self)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn files_and_names() {
        let check = |name: &str, expected: Option<(u64, &str, &str)>| {
            let expected = expected.map(|(step, set, target)| (step, set.into(), target));
            let found = EvalId::from_file(Path::new("/runs/20261120-143041-invoice-6sx3dn"), name);
            assert_eq!(
                found
                    .as_ref()
                    .map(|eval| (eval.step, eval.set.clone(), eval.target.as_str())),
                expected,
                "{name}"
            );
            if let Some(found) = found {
                assert!(
                    found.path().ends_with(Path::new("evals").join(name)),
                    "{name}"
                );
                assert_eq!(found.short_folder(), "6sx3dn");
            }
        };
        check(
            "step-000030-test-trained.jsonl",
            Some((30, "test", "trained")),
        );
        check("step-000000-eval-base.jsonl", Some((0, "eval", "base")));
        check(
            "step-000000-my-file-second_model.jsonl",
            Some((0, "my-file", "second_model")),
        );
        check("step-000000-eval-base.jsonl.12.tmp", None);
        check("notes.txt", None);
        // A run of an older program.
        let run = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../sample-data/finished-run");
        let old = EvalId::from_file(&run, "step-000000-proof-base.jsonl").unwrap();
        assert!(
            old.set == PromptSet::Test.into()
                && old.path().ends_with("step-000000-proof-base.jsonl")
                && old.path().exists(),
            "{old:?}"
        );
    }
}
