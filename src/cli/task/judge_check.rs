//! `grpo-tui task judge-check`: a task's judge against human labels, and what a run with it would cost.

use std::collections::HashMap;
use std::path::PathBuf;

use serde_json::json;

use super::super::output::eprint_line;
use super::super::{Failure, Outcome, print, print_json};
use crate::config::{Assignments, Layers, TrainConfig};
use crate::dataset::PromptRow;
use crate::files::{self, Access};
use crate::format::{counted, duration};
use crate::judge_check::{
    CHECK_FILE, CheckError, CheckSize, CriterionCheck, JudgeCheck, LABELS_FILE, MAX_LABELS,
    MIN_KAPPA, MIN_LABELS, Shift, check_judges, criteria_of, read_labels, saved_checks,
};
use crate::page::text::render;
use crate::page::{Block, Cell, Fact, Level, Row, Table};
use crate::prompts::load_sets;
use crate::score::Task;
use crate::statistics::Interval;
use crate::task::{PromptSet, TASK_FILE};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Task: a folder, or a name in the workspace
    task: String,
    /// JSONL file of 20 to 200 `{"prompt_id": …, "completion": …, "labels": {"CRITERION": 3}}` [default:
    /// judge-labels.jsonl of the task, which the Scores screen writes]
    #[arg(long, value_name = "FILE")]
    labels: Option<PathBuf>,
    /// Ask each question so often again, to see whether the judge repeats itself
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u8).range(0..=20))]
    repeats: u8,
    /// Ask nothing in reverse order, and no answers that instruct the judge
    #[arg(long)]
    no_probes: bool,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    let task = Task::resolve(&arguments.task)?;
    let criteria = criteria_of(&task);
    if criteria.is_empty() {
        let message = format!(
            "{}: no judge scores it ({}): there is nothing to check",
            task.name,
            task.kind()
        );
        return Err(Failure::failed(message));
    }
    let Some(folder) = task.folder() else {
        let message =
            "the result is saved in the task's folder: copy the task into one with `grpo-tui init`";
        return Err(Failure::failed(format!("{}: {message}", task.name)));
    };
    let path = arguments
        .labels
        .clone()
        .unwrap_or_else(|| folder.join(LABELS_FILE));
    let label = path.display().to_string();
    let bytes = files::read(&path).map_err(|error| {
        let remedy =
            "label answers on the Scores screen, or write one JSON object per line (docs/kinds.md)";
        Failure::failed(format!("{label}: {error}; {remedy}"))
    })?;
    let labels = read_labels(&label, &bytes, &criteria)?;
    if labels.len() < MIN_LABELS || labels.len() > MAX_LABELS {
        let remedy = if labels.len() < MIN_LABELS {
            "label more on the Scores screen"
        } else {
            "remove some"
        };
        return Err(Failure::failed(format!(
            "{label}: {}, a check takes {MIN_LABELS} to {MAX_LABELS}: {remedy}",
            counted(labels.len(), "labelled answer")
        )));
    }
    let rows: HashMap<String, PromptRow> = load_sets(&task)?
        .into_iter()
        .flat_map(|(_, rows)| rows)
        .map(|row| (row.id.clone(), row))
        .collect();
    let size = CheckSize {
        repeats: arguments.repeats.into(),
        is_probing: !arguments.no_probes,
    };
    let checks = check_judges(&task, &labels, &rows, size, |pass| {
        eprint_line(&format!("asking: {pass} ..."))
    });
    let checks = checks.map_err(|error| match error {
        CheckError::Labels(problem) => Failure::failed(format!("{label} {problem}")),
        other => other.into(),
    })?;
    save(&task, &checks)?;
    let run = run_of(&task)?;
    if arguments.json {
        let forecast = checks.iter().map(|check| {
            let requests = run.as_ref().map(|run| run.requests(&task, check));
            json!({"requests": requests, "cost": requests.zip(check.cost_per_request).map(|(n, cost)| n as f64 * cost)})
        });
        let forecast: Vec<_> = forecast.collect();
        return print_json(
            json!({"task": task.name, "labels": labels.len(), "checks": checks, "run_forecast": forecast}),
        );
    }
    for check in &checks {
        print(&render(&page(&task, check, run.as_ref())))?;
    }
    let path = folder.join(CHECK_FILE).display().to_string();
    print(&render(&[Block::detail(format!("saved in {path}"))]))
}

/// Keeps the checks of the task's earlier rubrics, so that a restored one is known.
fn save(task: &Task, checks: &[JudgeCheck]) -> Result<(), Failure> {
    let mut all = saved_checks(task);
    let is_new = |old: &JudgeCheck| {
        checks
            .iter()
            .any(|new| (&new.part, &new.rubric_digest) == (&old.part, &old.rubric_digest))
    };
    all.retain(|old| !is_new(old));
    all.extend(checks.iter().cloned());
    let path = task
        .folder()
        .map(|folder| folder.join(CHECK_FILE))
        .unwrap_or_default();
    files::replace_file(
        &path,
        (serde_json::to_string_pretty(&all)? + "\n").as_bytes(),
        Access::Umask,
    )
    .map_err(|error| {
        Failure::failed(format!(
            "{}: {error}: the check is not saved",
            path.display()
        ))
    })
}

/// What a run of the task asks its judges for, by the task's own settings.
struct RunSize {
    config: TrainConfig,
    eval_rows: usize,
    test_rows: usize,
}

impl RunSize {
    /// Completions, or groups where they are compared, and those of evals.
    fn requests(&self, task: &Task, check: &JudgeCheck) -> usize {
        let compares = task
            .judges()
            .any(|judge| judge.part == check.part.as_deref() && judge.rules.compares_group);
        let TrainConfig {
            prompt_groups_per_step,
            completions_per_prompt,
            eval_every,
            max_steps,
            ..
        } = &self.config;
        let per_step = prompt_groups_per_step * if compares { 1 } else { *completions_per_prompt };
        let steps = usize::try_from(*max_steps).unwrap_or(usize::MAX);
        // At the start, at the end, and between.
        let evals = 2 + max_steps
            .saturating_sub(1)
            .checked_div(*eval_every)
            .unwrap_or(0) as usize;
        steps
            .saturating_mul(per_step)
            .saturating_add(evals * self.eval_rows + 2 * self.test_rows)
    }
}

/// `None` where the task's settings leave the number of steps open.
fn run_of(task: &Task) -> Result<Option<RunSize>, Failure> {
    let text = String::from_utf8_lossy(&task.read(TASK_FILE)?).into_owned();
    let train = Assignments::from_task(&task.label(TASK_FILE), &text)?;
    let config = Layers {
        task: Some(train),
        ..Layers::default()
    }
    .resolve()?
    .config;
    let rows = |set| {
        task.set_file(set).map_or(Ok(0), |_| {
            crate::dataset::load(task, set).map(|rows| rows.len())
        })
    };
    let (eval_rows, test_rows) = (rows(PromptSet::Eval)?, rows(PromptSet::Test)?);
    Ok((config.max_steps > 0).then_some(RunSize {
        config,
        eval_rows,
        test_rows,
    }))
}

fn page(task: &Task, check: &JudgeCheck, run: Option<&RunSize>) -> Vec<Block> {
    let part = check.part.as_ref();
    let part = part.map_or_else(String::new, |part| format!(", part {part}"));
    let (name, model, url) = (&task.name, &check.model, &check.base_url);
    let failed = match check.unanswered {
        0 => String::new(),
        failed => format!(", {failed} without a grade"),
    };
    let (answers, seconds) = (counted(check.answers, "answer"), duration(check.seconds));
    let row = |criterion: &CriterionCheck| {
        let scale = match criterion.max_points {
            1 => "yes/no",
            _ => "0 to 4",
        };
        let cells = [
            scale.into(),
            Cell::Count(criterion.n),
            Cell::known(criterion.agreement.map(rate), "no marks"),
            number(criterion.kappa, "all marks of one side are the same"),
            number(criterion.difference, "no marks"),
        ];
        Row::new(criterion.name.as_str(), cells)
    };
    let head = [
        "criterion",
        "scale",
        "n",
        "agreement",
        "kappa",
        "judge - human, points",
    ];
    let table = Table::new(&head, "llrl", check.criteria.iter().map(row).collect());
    let shift = |shift: &Option<Shift>| {
        let text = |Shift { same, change, .. }: &Shift| {
            let (same, change) = (rate(*same), number(*change, "not measured"));
            format!("{same} of marks are the same, mean change of the score {change}").into()
        };
        Cell::known(shift.as_ref().map(text), "not measured")
    };
    let repeated = check.repeated.map(|same| {
        let text = format!(
            "{} of marks are the same when asked again ({} times)",
            rate(same),
            check.repeats
        );
        Fact::new("repeatability", text)
    });
    let verdict = match check.weakness() {
        Some(weakness) => Fact {
            level: Level::Warning,
            ..Fact::new(
                "verdict",
                format!("{weakness}: sharpen its criteria, or take another judge"),
            )
        },
        None => Fact::new(
            "verdict",
            format!("kappa is at least {MIN_KAPPA} on every criterion"),
        ),
    };
    let tokens = check
        .tokens_per_request
        .map(|tokens| Cell::Number(tokens, 0));
    let tokens = Cell::known(tokens, "not counted");
    let cost = |cost: Option<f64>| Cell::known(cost.map(Cell::Amount), "no price");
    let a_run = run.map(|run| {
        let requests = run.requests(task, check);
        let steps = counted(run.config.max_steps as usize, "step");
        let cost = cost(check.cost_per_request.map(|cost| cost * requests as f64));
        let requests = counted(requests, "request");
        Fact::new(
            "a run",
            format!("at most {requests} in {steps}, cost {cost}"),
        )
    });
    let facts = [
        Fact::new("reverse order", shift(&check.order)),
        Fact::new("instruction", shift(&check.instruction)),
        Fact::new(
            "length bias",
            number(check.length, "answers are equally long, or marks the same"),
        ),
        verdict,
        Fact::new(
            "a request",
            format!("{tokens} tokens, cost {}", cost(check.cost_per_request)),
        ),
    ];
    vec![
        Block::heading(format!("{name}{part}: judge {model} at {url}")),
        Block::detail(format!("{answers} against human labels{failed}, {seconds}")),
        Block::Table(table),
        Block::Facts(repeated.into_iter().chain(facts).chain(a_run).collect()),
    ]
}

fn rate(found: Interval) -> Cell {
    Cell::interval(found.estimate, [found.low, found.high])
}

fn number(found: Option<Interval>, why: &'static str) -> Cell {
    let cell = |found: Interval| match found.high > found.low {
        true => Cell::Estimate(found.estimate, [found.low, found.high], 2),
        // Where nothing varies there is no interval.
        false => Cell::Number(found.estimate, 2),
    };
    Cell::known(found.map(cell), why)
}
