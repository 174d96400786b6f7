//! Eval screen: one eval, base and trained, or any two evals side by side on the same
//! prompts.

pub mod actions;
mod answers;
mod chat;
mod chooser;
mod conversations;
mod draw;
mod eval_job;
mod failures;
mod layout;
mod prompts;
mod prove;
mod rows;
mod summary;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::message::{Command, Work};
use crate::report::{
    ComparedPrompt, EvalId, FailureGroup, FailureGroups, Metric, Outcome, PairedComparison,
    ReportError, Versus, base_and_trained, base_and_trained_on,
};
use crate::run::EvalRecord;
use crate::shared::Shared;
use crate::subprocess::CancelToken;
use crate::task::SetName;
use crate::widgets::editor::Editor;
use crate::widgets::filter::Filter;
use crate::widgets::list_cursor::Cursor;
use rows::{Query, Sort};

const SUMMARY: &str = "summary";
const PROMPTS: &str = "prompts";
const ANSWERS: &str = "answers";
const CHOOSER: &str = "chooser";
const CHAT: &str = "chat";

#[derive(Debug)]
pub struct Eval {
    /// The run shown if no evals were selected.
    run: Option<PathBuf>,
    /// The selected evals; empty: base and trained of the current run.
    chosen: Vec<EvalId>,
    /// The comparison, or why there is none; `None` before the first read.
    loaded: Option<Result<Arc<Versus>, String>>,
    failures: Vec<FailureGroups>,
    /// By eval, the indices of prompts that it fails, the lowest rewards first.
    failing: Vec<Vec<usize>>,
    /// Whether re-scoring would make the evals comparable.
    is_of_other_schemas: bool,
    /// For a run of several tasks, the one whose evals are read if none are chosen; `None`: the
    /// first.
    task: Option<String>,
    /// Version of the schema with which the evals are re-scored; `None`: as recorded.
    rescored: Option<u64>,
    /// Number of test-set evals of the run when it was read.
    evals_seen: usize,
    /// Index of the pair of evals compared by the difference, the matrix and the answers.
    pair: usize,
    /// The outcome that filters the prompts, and on which metric.
    only: Option<(Metric, Outcome)>,
    /// The failure group that filters the prompts, and the index of its eval.
    group: Option<(usize, FailureGroup)>,
    filter: Filter,
    sort: Sort,
    shown: Vec<usize>,
    cursor: Cursor,
    pane: &'static str,
    /// First visible line of the answers; `summary_top`: of the summary.
    top: Cursor,
    summary_top: Cursor,
    /// Whether answers are side by side or stacked; `None`: as the width allows.
    side_by_side: Option<bool>,
    chooser: Option<Chooser>,
    chat: Option<Chat>,
    started: Option<EvalJob>,
    proving: Option<ProveJob>,
    /// Whether evals of earlier sessions were searched.
    looked: bool,
}

#[derive(Debug, Default)]
struct Chooser {
    /// Runs, newest first, then evals outside of runs.
    folders: Vec<(PathBuf, String)>,
    folder: Cursor,
    /// Evals of the open folder, with their rates.
    evals: Option<Result<Vec<(EvalId, String)>, String>>,
    eval: Cursor,
    picked: Vec<EvalId>,
}

/// A custom prompt and its answers.
#[derive(Debug)]
struct Chat {
    editor: Editor,
    is_typing: bool,
    /// Answers by model name, the base first.
    answers: Vec<(String, EvalRecord)>,
    /// The job, and its last line of progress.
    job: Option<(CancelToken, String)>,
    error: Option<String>,
    top: Cursor,
}

/// An eval in progress, started in this or an earlier session.
#[derive(Debug)]
struct EvalJob {
    folder: PathBuf,
    /// Whether its process has exited, if this session started it.
    ended: Arc<AtomicBool>,
    /// Last line of its log.
    progress: String,
}

/// A comparison in progress.
#[derive(Debug)]
struct ProveJob {
    server: String,
    cancel: CancelToken,
    progress: String,
}

impl Default for Eval {
    fn default() -> Self {
        Self {
            run: None,
            chosen: Vec::new(),
            loaded: None,
            failures: Vec::new(),
            failing: Vec::new(),
            is_of_other_schemas: false,
            task: None,
            rescored: None,
            evals_seen: 0,
            pair: 0,
            only: None,
            group: None,
            filter: Filter::default(),
            sort: Sort::Worst,
            shown: Vec::new(),
            cursor: Cursor::default(),
            pane: PROMPTS,
            top: Cursor::default(),
            summary_top: Cursor::default(),
            side_by_side: None,
            chooser: None,
            chat: None,
            started: None,
            proving: None,
            looked: false,
        }
    }
}

impl Eval {
    /// Whether nothing was chosen and the newest run may be opened.
    fn is_untouched(&self) -> bool {
        self.chosen.is_empty()
            && self.chooser.is_none()
            && self.chat.is_none()
            && self.started.is_none()
    }

    fn versus(&self) -> Option<&Arc<Versus>> {
        self.loaded.as_ref()?.as_ref().ok()
    }

    fn pair<'a>(&self, versus: &'a Versus) -> Option<&'a PairedComparison> {
        versus
            .pairs
            .get(self.pair.min(versus.pairs.len().saturating_sub(1)))
    }

    /// The outcome of the selected pair, or of a single eval's answer.
    fn outcome(&self, versus: &Versus, prompt: &ComparedPrompt) -> Option<Outcome> {
        self.pair(versus).map_or_else(
            || versus.outcome_alone(prompt),
            |pair| versus.outcome(prompt, pair),
        )
    }

    /// Indices of the selected evals: before and after, or the only one.
    fn sides(&self, versus: &Versus) -> Vec<usize> {
        self.pair(versus)
            .map_or_else(|| vec![0], |pair| vec![pair.first, pair.second])
    }

    fn prompt<'a>(&self, versus: &'a Versus) -> Option<&'a ComparedPrompt> {
        versus
            .prompts
            .get(*self.shown.get(self.cursor.at(self.shown.len())?)?)
    }

    /// Filters and sorts again; the cursor stays on its prompt, or goes to the first one.
    fn arrange(&mut self, keeps_prompt: bool) -> Vec<Command> {
        let Some(versus) = self.versus().cloned() else {
            self.shown.clear();
            return Vec::new();
        };
        let words = self.filter.text().split_whitespace();
        let query = Query {
            versus: Arc::clone(&versus),
            pair: self.pair,
            only: self.only,
            group: self.group.clone(),
            words: words.map(str::to_lowercase).collect(),
            sort: self.sort,
        };
        vec![Work::latest(
            "eval.rows",
            move |sender| query.arranged(sender),
            move |eval: &mut Eval, _, shown: Vec<usize>| {
                if eval.versus().is_none_or(|now| !Arc::ptr_eq(now, &versus)) {
                    return Vec::new();
                }
                let under = eval.cursor.at(eval.shown.len()).filter(|_| keeps_prompt);
                let under = under.and_then(|at| eval.shown.get(at)).copied();
                let place = under.and_then(|under| shown.iter().position(|index| *index == under));
                eval.shown = shown;
                eval.cursor.index = place.unwrap_or(0);
                if place.is_none() {
                    eval.top = Cursor::default();
                }
                Vec::new()
            },
        )]
    }

    /// Stores the result; keeps filters and cursor as far as they still apply.
    fn set_versus(&mut self, read: Result<ReadEvals, ReportError>) -> Vec<Command> {
        self.is_of_other_schemas = matches!(read, Err(ReportError::OtherSchemas(_)));
        let (loaded, failures, failing) = match read {
            Ok(read) => (Ok(Arc::new(read.versus)), read.failures, read.failing),
            Err(error) => (Err(error.to_string()), Vec::new(), Vec::new()),
        };
        let evals = |versus: &Arc<Versus>| {
            versus
                .evals
                .iter()
                .map(|eval| eval.id.clone())
                .collect::<Vec<_>>()
        };
        let before = self.versus().map(evals);
        let pairs = loaded.as_ref().map_or(1, |versus| versus.pairs.len());
        self.pair = self.pair.min(pairs.saturating_sub(1));
        // A single eval has neither improvements nor regressions.
        self.only = self
            .only
            .filter(|(_, only)| pairs > 0 || matches!(only, Outcome::Both | Outcome::Neither));
        self.group = self.group.take().and_then(|(eval, group)| {
            let mut groups = failures.get(eval)?.groups.iter();
            Some((
                eval,
                groups.find(|other| other.label() == group.label())?.clone(),
            ))
        });
        let under = self
            .versus()
            .and_then(|versus| self.prompt(versus))
            .cloned();
        (self.loaded, self.failures, self.failing) = (Some(loaded), failures, failing);
        // An unmoved cursor stays at the top when other evals are listed.
        let is_unmoved = self.cursor.index == 0 && self.versus().map(evals) != before;
        let prompts = self.versus().map_or(&[][..], |versus| &versus.prompts);
        let is_under = |prompt: &ComparedPrompt| {
            let key = |prompt: &ComparedPrompt| (prompt.prompt_id.clone(), prompt.sample);
            under
                .as_ref()
                .is_some_and(|under| key(under) == key(prompt))
        };
        let place = prompts.iter().position(is_under);
        (self.shown, self.cursor.index) = ((0..prompts.len()).collect(), place.unwrap_or(0));
        self.arrange(!is_unmoved && place.is_some())
    }
}

/// Evals with what failures have in common, computed once.
struct ReadEvals {
    versus: Versus,
    failures: Vec<FailureGroups>,
    failing: Vec<Vec<usize>>,
}

/// Whether the schema in the editor has changed since the evals were re-scored.
fn is_rescored_by_another(eval: &Eval, shared: &Shared) -> bool {
    eval.rescored
        .is_some_and(|version| version != shared.draft.version)
}

/// Re-scores the evals with the schema in the editor, or shows the recorded scores.
fn rescore(eval: &mut Eval, shared: &mut Shared) -> Vec<Command> {
    let version = shared.draft.version;
    eval.rescored = if eval.rescored.is_some() {
        None
    } else {
        Some(version)
    };
    shared.say(match eval.rescored {
        Some(_) => {
            let (name, key) = (shared.draft.name(), shared.key_of("eval.rescore"));
            format!("scores: {name} in the editor ({key} shows recorded scores)")
        }
        None => "scores: as recorded".to_owned(),
    });
    read(eval, shared)
}

pub fn show(eval: &mut Eval, shared: &mut Shared, evals: Vec<EvalId>) -> Vec<Command> {
    eval.chosen = evals;
    read(eval, shared)
}

fn next_task(eval: &mut Eval, shared: &mut Shared) -> Vec<Command> {
    let Some(run) = shared.current_run().and_then(|run| run.directory.as_ref()) else {
        return Vec::new();
    };
    let names = run.task_names();
    let shown = eval.versus();
    let shown = shown.map_or("", |versus| versus.evals[0].id.set.task());
    let next = names
        .iter()
        .position(|name| *name == shown)
        .map_or(0, |shown| (shown + 1) % names.len());
    eval.task = Some(names[next].to_owned());
    (eval.chosen, eval.run) = (Vec::new(), shared.current.clone());
    read(eval, shared)
}

fn read(eval: &mut Eval, shared: &mut Shared) -> Vec<Command> {
    let chosen = eval.chosen.clone();
    let run = shared.current.clone();
    eval.task = eval.task.take().filter(|_| eval.run == run);
    let task = eval.task.clone();
    eval.run.clone_from(&run);
    eval.evals_seen = shared
        .current_run()
        .map_or(0, |run| run.history.evals.len());
    if chosen.is_empty() && run.is_none() {
        eval.loaded = None;
        return Vec::new();
    }
    let draft = &shared.draft;
    let scored_by = draft
        .task
        .clone()
        .zip(draft.scorer.clone())
        .filter(|_| eval.rescored.is_some());
    eval.rescored = eval.rescored.map(|_| draft.version);
    vec![Work::once(
        "eval",
        move || -> Result<ReadEvals, ReportError> {
            let evals = match (chosen.is_empty(), run) {
                (true, Some(run)) => match &task {
                    Some(task) => base_and_trained_on(&run, &SetName::held_out(&[task]))?,
                    None => base_and_trained(&run)?,
                },
                _ => chosen,
            };
            let versus = match scored_by {
                Some((task, scorer)) => Versus::rescored(&evals, &task, &scorer),
                None => Versus::read(&evals),
            }?;
            let evals = 0..versus.evals.len();
            Ok(ReadEvals {
                failures: versus.evals.iter().map(FailureGroups::for_eval).collect(),
                failing: evals.map(|eval| rows::failing(&versus, eval)).collect(),
                versus,
            })
        },
        |eval: &mut Eval, _, read| eval.set_versus(read),
    )]
}
