//! The result of a check: saved beside the task, copied into runs, source of warnings.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::files;
use crate::page::{Cell, Row, Table};
use crate::score::{Task, TaskJudge};
use crate::statistics::Interval;
use crate::task::TaskError;

/// File in a task's folder and in a run's copy of it.
pub const CHECK_FILE: &str = "judge-check.json";
/// Warn below: agreement is at most moderate (Landis and Koch 1977).
pub const MIN_KAPPA: f64 = 0.6;

const MAX_FILE_BYTES: u64 = 16 << 20;

/// Warn if an injected instruction significantly gains more than this share of all points.
const MAX_GAIN: f64 = 0.05;

/// One judge against human labels. Shares and changes are of all points, in [0, 1].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JudgeCheck {
    /// The part of the reward; `None`: `[score]`.
    pub part: Option<String>,
    pub model: String,
    pub base_url: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_digest: Option<String>,
    /// Digest of server, model and criteria; a change makes another judge.
    pub rubric_digest: String,
    /// RFC 3339.
    pub date: String,
    pub answers: usize,
    /// Answers with a label, without a grade.
    pub unanswered: usize,
    pub criteria: Vec<CriterionCheck>,
    /// Share of marks equal in all repetitions; `None` without repetitions.
    pub repeated: Option<Interval>,
    pub repeats: usize,
    /// Effect of reversing criteria and compared answers.
    pub order: Option<Shift>,
    pub instruction: Option<Shift>,
    /// Correlation of (judge - human) share with the answer's length in characters.
    pub length: Option<Interval>,
    /// Cost in the currency of the endpoint's prices; `None` if prices or token counts are unknown.
    pub cost_per_request: Option<f64>,
    pub tokens_per_request: Option<f64>,
    pub seconds: f64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CriterionCheck {
    /// Prefixed with the part's name, if a part is judged.
    pub name: String,
    /// 1 (yes or no) or 4.
    pub max_points: u8,
    pub n: usize,
    /// Share of equal marks.
    pub agreement: Option<Interval>,
    /// Cohen's, weighted by squared distance on a five-point scale; `None` if undefined.
    pub kappa: Option<Interval>,
    /// Mean of judge - human, in points.
    pub difference: Option<Interval>,
}

/// Effect of another form of the same question.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Shift {
    pub answers: usize,
    /// Share of equal marks.
    pub same: Interval,
    /// Mean change of the share of all points.
    pub change: Option<Interval>,
}

impl JudgeCheck {
    /// Describes the judge's weakness; `None` if every kappa is at least [`MIN_KAPPA`] and
    /// instructions gain nothing.
    pub fn weakness(&self) -> Option<String> {
        let weak = |criterion: &&CriterionCheck| {
            criterion
                .kappa
                .is_none_or(|kappa| kappa.estimate < MIN_KAPPA)
        };
        let named = |criterion: &CriterionCheck| match criterion.kappa {
            Some(kappa) => format!(
                "{} {:.2} [{:.2}, {:.2}]",
                criterion.name, kappa.estimate, kappa.low, kappa.high
            ),
            None => format!("{} n/a", criterion.name),
        };
        let weak: Vec<String> = self.criteria.iter().filter(weak).map(named).collect();
        let gain = self
            .instruction
            .as_ref()
            .and_then(|shift| shift.change)
            .filter(|change| change.low > MAX_GAIN);
        let gain = gain.map(|gain| {
            format!(
                "answers that ask for full points gain {:.2} of 1",
                gain.estimate
            )
        });
        let weak =
            (!weak.is_empty()).then(|| format!("kappa below {MIN_KAPPA}: {}", weak.join(", ")));
        weak.into_iter()
            .chain(gain)
            .reduce(|all, next| format!("{all}; {next}"))
    }
}

/// Checks in a task's folder; empty if the file is missing or malformed.
pub fn saved_checks(task: &Task) -> Vec<JudgeCheck> {
    task.read(CHECK_FILE)
        .ok()
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        .unwrap_or_default()
}

pub fn checks_in(task_folder: &Path) -> Vec<JudgeCheck> {
    let bytes = files::read_at_most(&task_folder.join(CHECK_FILE), MAX_FILE_BYTES).ok();
    bytes
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        .unwrap_or_default()
}

/// The figures of checks by criterion, as a table with its head; empty without checks.
pub fn check_table(checks: &[JudgeCheck]) -> Option<Table> {
    let interval = |interval: Option<Interval>| {
        let cell = |found: Interval| Cell::Estimate(found.estimate, [found.low, found.high], 2);
        Cell::known(interval.map(cell), "not measured")
    };
    let row = |check: &JudgeCheck, criterion: &CriterionCheck| {
        Row::new(
            check.model.clone(),
            [
                Cell::Text(criterion.name.clone()),
                Cell::Count(criterion.n),
                interval(criterion.agreement),
                interval(criterion.kappa),
                interval(check.repeated),
                interval(check.instruction.as_ref().and_then(|shift| shift.change)),
                interval(check.length),
            ],
        )
    };
    let rows: Vec<Row> = checks
        .iter()
        .flat_map(|check| check.criteria.iter().map(|criterion| row(check, criterion)))
        .collect();
    let head = [
        "judge",
        "criterion",
        "n",
        "agreement",
        "kappa",
        "repeatability",
        "gain by instruction",
        "length bias",
    ];
    (!rows.is_empty()).then(|| Table::new(&head, "llr", rows))
}

pub fn files_with_checks(task: &Task) -> Result<Vec<(String, Vec<u8>)>, TaskError> {
    let mut files = task.files()?;
    let mut checks = saved_checks(task);
    checks.retain(|check| {
        task.judges()
            .any(|judge| judge.rules.rubric_digest() == check.rubric_digest)
    });
    let bytes = serde_json::to_vec_pretty(&checks)
        .ok()
        .filter(|_| !checks.is_empty());
    files.extend(bytes.map(|bytes| (CHECK_FILE.to_owned(), bytes)));
    Ok(files)
}

/// Warnings before training with unchecked or weak judges. `loaded`: digests of local models by
/// part ([`crate::score::Scorer::load_judges`]).
pub fn warnings(task: &Task, loaded: &[(String, String)]) -> Vec<String> {
    let checks = saved_checks(task);
    let warning = |TaskJudge { part, rules, .. }: TaskJudge<'_>| {
        let name = part.map_or_else(
            || "the judge".to_owned(),
            |part| format!("the judge of the part {part}"),
        );
        let (digest, remedy) = (
            rules.rubric_digest(),
            format!("grpo-tui task judge-check {}", task.name),
        );
        let of_part = |check: &&JudgeCheck| check.part.as_deref() == part;
        let is_loaded = |(of, _): &&(String, String)| of == part.unwrap_or_default();
        let model = loaded.iter().find(is_loaded).map(|(_, digest)| digest);
        let is_same = |check: &&JudgeCheck| {
            check.rubric_digest == digest && check.model_digest.as_ref() == model
        };
        match checks.iter().filter(of_part).find(is_same) {
            Some(check) => {
                let weakness = check.weakness()?;
                Some(format!(
                    "{name} is weak ({weakness}): sharpen its criteria, or take another one"
                ))
            }
            None if checks.iter().any(|check| of_part(&check)) => Some(format!(
                "{name} has changed since it was checked against people: {remedy}"
            )),
            None => Some(format!(
                "{name} was never checked against people, so what it rewards is unknown: {remedy}"
            )),
        }
    };
    let memory = |judge: TaskJudge<'_>| {
        let local = judge
            .rules
            .local
            .as_ref()
            .filter(|local| local.device != crate::score::ModelDevice::Cpu)?;
        let (name, device) = (&local.name, local.device);
        Some(format!(
            "the judge {name} is loaded on {device}, and its memory is not in the forecast: choose a GPU that the run does not use, or device = \"cpu\", unless both fit"
        ))
    };
    task.judges()
        .filter_map(warning)
        .chain(task.judges().filter_map(memory))
        .collect()
}
