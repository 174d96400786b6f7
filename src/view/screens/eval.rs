//! The eval screen: base and trained, or any two or three evals, side by side on the same prompts.

pub mod actions;
mod answers;
mod chooser;
mod draw;
mod eval_job;
mod layout;
mod prompts;
mod summary;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::report::{ComparedPrompt, EvalId, Outcome, PairedComparison, ReportError, Versus, base_and_trained};
use crate::view::message::{Command, ScreenState, Work};
use crate::view::shared::Shared;
use crate::view::widgets::filter::Filter;
use crate::view::widgets::list_cursor::Cursor;

const SUMMARY: &str = "summary";
const PROMPTS: &str = "prompts";
const ANSWERS: &str = "answers";
const CHOOSER: &str = "chooser";

#[derive(Debug)]
pub struct Eval {
    /// The run that is shown, if no evals were selected.
    run: Option<PathBuf>,
    /// The selected evals; empty: base and trained of the current run.
    chosen: Vec<EvalId>,
    /// The comparison, or why there is none; `None` before anything was read.
    loaded: Option<Result<Arc<Versus>, String>>,
    /// Whether re-scoring would make the evals comparable.
    is_of_other_schemas: bool,
    /// The version of the schema with which the evals are re-scored; `None`: as recorded.
    rescored: Option<u64>,
    /// Test-set evals of the run when it was read.
    evals_seen: usize,
    /// Which two evals the difference, the matrix and the answers are of.
    pair: usize,
    /// Only prompts with this outcome.
    only: Option<Outcome>,
    filter: Filter,
    sort: Sort,
    shown: Vec<usize>,
    cursor: Cursor,
    pane: &'static str,
    /// The first visible line of the answers, and of the summary.
    top: Cursor,
    summary_top: Cursor,
    /// Whether answers are side by side or stacked; `None`: as the width allows.
    side_by_side: Option<bool>,
    chooser: Option<Chooser>,
    started: Option<EvalJob>,
    /// Whether evals of earlier sessions were searched.
    looked: bool,
}

/// The list of evals to select from.
#[derive(Debug, Default)]
struct Chooser {
    /// Runs, newest first, then evals outside of runs.
    folders: Vec<(PathBuf, String)>,
    folder: Cursor,
    /// The evals of the open folder.
    evals: Option<Result<Vec<EvalId>, String>>,
    eval: Cursor,
    picked: Vec<EvalId>,
}

/// An eval in progress, started in this session or in an earlier one.
#[derive(Debug)]
struct EvalJob {
    folder: PathBuf,
    /// Whether its process has exited, if this session started it.
    ended: Arc<AtomicBool>,
    /// The last line of its log.
    progress: String,
}

/// The order of prompts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sort {
    /// By reward difference, falling most first.
    Worst,
    /// By reward difference, rising most first.
    Best,
    /// As in the prompt file.
    File,
}

impl Sort {
    fn next(self) -> Self {
        match self {
            Self::Worst => Self::Best,
            Self::Best => Self::File,
            Self::File => Self::Worst,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Worst => "largest regression first",
            Self::Best => "largest improvement first",
            Self::File => "file order",
        }
    }
}

impl Default for Eval {
    fn default() -> Self {
        Self {
            run: None,
            chosen: Vec::new(),
            loaded: None,
            is_of_other_schemas: false,
            rescored: None,
            evals_seen: 0,
            pair: 0,
            only: None,
            filter: Filter::default(),
            sort: Sort::Worst,
            shown: Vec::new(),
            cursor: Cursor::default(),
            pane: PROMPTS,
            top: Cursor::default(),
            summary_top: Cursor::default(),
            side_by_side: None,
            chooser: None,
            started: None,
            looked: false,
        }
    }
}

impl ScreenState for Eval {
    type Shared = Shared;
}

impl Eval {
    fn versus(&self) -> Option<&Arc<Versus>> {
        self.loaded.as_ref()?.as_ref().ok()
    }

    fn pair<'a>(&self, versus: &'a Versus) -> Option<&'a PairedComparison> {
        versus.pairs.get(self.pair.min(versus.pairs.len().saturating_sub(1)))
    }

    /// The prompt under the cursor.
    fn prompt<'a>(&self, versus: &'a Versus) -> Option<&'a ComparedPrompt> {
        versus.prompts.get(*self.shown.get(self.cursor.at(self.shown.len())?)?)
    }

    /// Filters and sorts again; the cursor stays on its prompt.
    fn arrange(&mut self) {
        let Some(versus) = self.versus().cloned() else {
            self.shown.clear();
            return;
        };
        let Some(pair) = self.pair(&versus) else { return };
        let under = self.prompt(&versus).map(|prompt| (prompt.prompt_id.clone(), prompt.sample));
        let words: Vec<String> = self.filter.text().split_whitespace().map(str::to_lowercase).collect();
        let fits = |prompt: &ComparedPrompt| {
            let outcome = versus.outcome(prompt, pair);
            self.only.is_none_or(|only| outcome == Some(only))
                && words.iter().all(|word| has_word(&versus, prompt, pair, word))
        };
        let mut shown: Vec<usize> = (0..versus.prompts.len()).filter(|index| fits(&versus.prompts[*index])).collect();
        let change = |index: usize| {
            let prompt = &versus.prompts[index];
            let reward = |eval| versus.record(prompt, eval).map_or(0.0, |record| record.reward);
            let exact = |eval| {
                versus.record(prompt, eval).map_or(0.0, |record| f64::from(u8::from(record.exact == Some(true))))
            };
            // At equal rewards, gained or lost exact answers still matter.
            (reward(pair.second) - reward(pair.first)) + 0.01 * (exact(pair.second) - exact(pair.first))
        };
        match self.sort {
            Sort::Worst => shown.sort_by(|a, b| change(*a).total_cmp(&change(*b))),
            Sort::Best => shown.sort_by(|a, b| change(*b).total_cmp(&change(*a))),
            Sort::File => {}
        }
        let place = under.and_then(|under| {
            shown.iter().position(|index| {
                (versus.prompts[*index].prompt_id.as_str(), versus.prompts[*index].sample)
                    == (under.0.as_str(), under.1)
            })
        });
        self.shown = shown;
        self.cursor.index = place.unwrap_or(0);
        if place.is_none() {
            self.top = Cursor::default();
        }
    }
}

/// Whether a word is in the prompt's id, its tags, its outcome, or one of its answers.
fn has_word(versus: &Versus, prompt: &ComparedPrompt, pair: &PairedComparison, word: &str) -> bool {
    let outcome = versus.outcome(prompt, pair).map_or("", Outcome::name);
    let records = || (0..versus.evals.len()).filter_map(|eval| versus.record(prompt, eval));
    prompt.prompt_id.to_lowercase().contains(word)
        || outcome == word
        || records().any(|record| {
            record.tags.iter().any(|tag| tag.to_lowercase() == word) || record.completion.to_lowercase().contains(word)
        })
}

/// Whether the schema in the editor has changed since the evals were re-scored.
fn is_rescored_by_another(eval: &Eval, shared: &Shared) -> bool {
    eval.rescored.is_some_and(|version| version != shared.draft.version)
}

/// Re-scores the evals with the schema in the editor, or shows the recorded scores.
fn rescore(eval: &mut Eval, shared: &mut Shared) -> Vec<Command> {
    let version = shared.draft.version;
    eval.rescored = if eval.rescored.is_some() { None } else { Some(version) };
    shared.say(match eval.rescored {
        Some(_) => format!("scores: schema in the editor ({} shows recorded scores)", shared.key_of("eval.rescore")),
        None => "scores: as recorded".to_owned(),
    });
    read(eval, shared)
}

/// Compares the given evals, and shows them.
pub fn show(eval: &mut Eval, shared: &mut Shared, evals: Vec<EvalId>) -> Vec<Command> {
    eval.chosen = evals;
    read(eval, shared)
}

/// Reads the evals in the background.
fn read(eval: &mut Eval, shared: &mut Shared) -> Vec<Command> {
    let chosen = eval.chosen.clone();
    let run = shared.current.clone();
    eval.run.clone_from(&run);
    eval.evals_seen = shared.current_run().map_or(0, |run| run.history.evals.len());
    if chosen.is_empty() && run.is_none() {
        eval.loaded = None;
        return Vec::new();
    }
    let draft = &shared.draft;
    let scored_by = draft.task.clone().zip(draft.scorer.clone()).filter(|_| eval.rescored.is_some());
    eval.rescored = eval.rescored.map(|_| draft.version);
    vec![Work::once(
        "eval",
        move || -> Result<Versus, ReportError> {
            let evals = match (chosen.is_empty(), run) {
                (true, Some(run)) => base_and_trained(&run)?,
                _ => chosen,
            };
            match scored_by {
                Some((task, scorer)) => Versus::rescored(&evals, &task, &scorer),
                None => Versus::read(&evals),
            }
        },
        |eval: &mut Eval, _, versus| {
            eval.is_of_other_schemas = matches!(versus, Err(ReportError::OtherSchemas(_)));
            let versus = versus.map_err(|error| error.to_string());
            let pairs = versus.as_ref().map_or(1, |versus| versus.pairs.len());
            eval.pair = eval.pair.min(pairs.saturating_sub(1));
            eval.loaded = Some(versus.map(Arc::new));
            eval.arrange();
            Vec::new()
        },
    )]
}
