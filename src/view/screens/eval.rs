//! Screen 7: base and trained, or any two or three passes, side by side on the same prompts.

mod actions;
mod answers;
mod chooser;
mod draw;
mod eval_job;
mod mouse;
mod prompts;
mod summary;

use std::path::PathBuf;
use std::sync::Arc;

use crossterm::event::{KeyCode, KeyEvent};

use super::{Change, ScreenDef};
use crate::report::{Asked, EvalId, Outcome, PairedComparison, ReportError, Versus, base_and_trained};
use crate::view::app::Model;
use crate::view::message::{Command, Work};
use crate::view::screens::Screen;
use crate::view::widgets::field::Field;
use crate::view::widgets::list_cursor::Cursor;

const SUMMARY: &str = "summary";
const PROMPTS: &str = "prompts";
const ANSWERS: &str = "answers";
const CHOOSER: &str = "chooser";

/// The screen's own part of the model.
#[derive(Debug)]
pub struct Eval {
    /// The run that is shown, where nobody chose passes.
    run: Option<PathBuf>,
    /// Passes that somebody chose; empty: base and trained of the current run.
    chosen: Vec<EvalId>,
    /// What is shown, or why nothing is; `None` before anything was read.
    loaded: Option<Result<Arc<Versus>, String>>,
    /// Whether scoring the passes again would let them be compared.
    is_of_other_schemas: bool,
    /// The version of the schema in the editor with which the passes are scored again; `None`: as the runs recorded them.
    rescored: Option<u64>,
    /// Held-out passes of the run when it was read.
    passes_seen: usize,
    /// Which two passes the difference, the matrix and the answers are of.
    pair: usize,
    /// Only prompts with this outcome.
    only: Option<Outcome>,
    filter: Field,
    typing: bool,
    sort: Sort,
    shown: Vec<usize>,
    cursor: Cursor,
    pane: &'static str,
    /// The first line of the answers, and of the summary, that is drawn.
    top: usize,
    summary_top: usize,
    /// Side by side or one below the other; `None`: as the width allows.
    side_by_side: Option<bool>,
    chooser: Option<chooser::Chooser>,
    started: Option<eval_job::EvalJob>,
    /// Whether evals of earlier sessions were looked for.
    looked: bool,
}

/// In which order prompts stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sort {
    /// Where the reward fell most.
    Worst,
    /// Where it rose most.
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
            passes_seen: 0,
            pair: 0,
            only: None,
            filter: Field::default(),
            typing: false,
            sort: Sort::Worst,
            shown: Vec::new(),
            cursor: Cursor::default(),
            pane: PROMPTS,
            top: 0,
            summary_top: 0,
            side_by_side: None,
            chooser: None,
            started: None,
            looked: false,
        }
    }
}

pub const PARTS: ScreenDef = ScreenDef {
    title: "Eval",
    help: "Base and trained on the same prompts: rates with 95% CI, improvements, regressions, and both answers to each prompt.",
    panes: &[SUMMARY, PROMPTS, ANSWERS],
    actions: actions::ACTIONS,
    pane: |model| if model.eval.chooser.is_some() { CHOOSER } else { model.eval.pane },
    focus: |model, pane| {
        if model.eval.chooser.is_none() {
            model.eval.pane = pane;
        }
    },
    is_typing: |model| model.eval.typing,
    takes_tab: |_| false,
    typed,
    pasted: |model, text| {
        if model.eval.typing {
            model.eval.filter.paste(text);
            model.eval.arrange();
        }
        Vec::new()
    },
    mouse: mouse::mouse,
    opens: mouse::opens,
    entered: |model| {
        let of_another_run = model.eval.chosen.is_empty() && model.eval.run != model.shared.current;
        let stale = of_another_run || is_rescored_by_another(model);
        let mut commands = eval_job::find(model);
        if stale || (model.eval.loaded.is_none() && model.shared.current.is_some()) {
            commands.extend(read(model));
        }
        commands
    },
    changed,
    draw: draw::draw,
};

impl Eval {
    fn versus(&self) -> Option<&Arc<Versus>> {
        self.loaded.as_ref()?.as_ref().ok()
    }

    fn pair<'a>(&self, versus: &'a Versus) -> Option<&'a PairedComparison> {
        versus.pairs.get(self.pair.min(versus.pairs.len().saturating_sub(1)))
    }

    /// The prompt under the cursor.
    fn asked<'a>(&self, versus: &'a Versus) -> Option<&'a Asked> {
        versus.prompts.get(*self.shown.get(self.cursor.at(self.shown.len())?)?)
    }

    /// Filter and sort anew; the cursor stays on its prompt.
    fn arrange(&mut self) {
        let Some(versus) = self.versus().cloned() else {
            self.shown.clear();
            return;
        };
        let Some(pair) = self.pair(&versus) else { return };
        let under = self.asked(&versus).map(|asked| (asked.prompt_id.clone(), asked.sample));
        let words: Vec<String> = self.filter.text().split_whitespace().map(str::to_lowercase).collect();
        let fits = |asked: &Asked| {
            let outcome = versus.outcome(asked, pair);
            self.only.is_none_or(|only| outcome == Some(only)) && words.iter().all(|word| has_word(&versus, asked, pair, word))
        };
        let mut shown: Vec<usize> = (0..versus.prompts.len()).filter(|index| fits(&versus.prompts[*index])).collect();
        let change = |index: usize| {
            let asked = &versus.prompts[index];
            let reward = |pass| versus.record(asked, pass).map_or(0.0, |record| record.reward);
            let exact = |pass| versus.record(asked, pass).map_or(0.0, |record| f64::from(u8::from(record.exact == Some(true))));
            // Where the reward is as it was, exact answers won or lost still matter.
            (reward(pair.second) - reward(pair.first)) + 0.01 * (exact(pair.second) - exact(pair.first))
        };
        match self.sort {
            Sort::Worst => shown.sort_by(|a, b| change(*a).total_cmp(&change(*b))),
            Sort::Best => shown.sort_by(|a, b| change(*b).total_cmp(&change(*a))),
            Sort::File => {}
        }
        let place = under.and_then(|under| {
            shown
                .iter()
                .position(|index| (versus.prompts[*index].prompt_id.as_str(), versus.prompts[*index].sample) == (under.0.as_str(), under.1))
        });
        self.shown = shown;
        self.cursor.index = place.unwrap_or(0);
        if place.is_none() {
            self.top = 0;
        }
    }
}

/// Whether a word stands in the prompt's id, its tags, what became of it, or one of its answers.
fn has_word(versus: &Versus, asked: &Asked, pair: &PairedComparison, word: &str) -> bool {
    let outcome = versus.outcome(asked, pair).map_or("", Outcome::name);
    let records = || (0..versus.passes.len()).filter_map(|pass| versus.record(asked, pass));
    asked.prompt_id.to_lowercase().contains(word)
        || outcome == word
        || records()
            .any(|record| record.tags.iter().any(|tag| tag.to_lowercase() == word) || record.completion.to_lowercase().contains(word))
}

/// Whether the schema in the editor has changed since the passes were scored again.
fn is_rescored_by_another(model: &Model) -> bool {
    model.eval.rescored.is_some_and(|version| version != model.shared.draft.version)
}

/// Score the passes again by the schema in the editor, or show them as the runs recorded them.
fn rescore(model: &mut Model) -> Vec<Command> {
    let version = model.shared.draft.version;
    model.eval.rescored = if model.eval.rescored.is_some() { None } else { Some(version) };
    model.shared.say(match model.eval.rescored {
        Some(_) => "scores: schema in the editor (r shows recorded scores)",
        None => "scores: as recorded",
    });
    read(model)
}

/// Compare passes that somebody chose, and show them.
pub fn show(model: &mut Model, passes: Vec<EvalId>) -> Vec<Command> {
    model.eval.chosen = passes;
    read(model)
}

/// Read what is to be shown, beside the view.
fn read(model: &mut Model) -> Vec<Command> {
    let chosen = model.eval.chosen.clone();
    let run = model.shared.current.clone();
    model.eval.run.clone_from(&run);
    model.eval.passes_seen = model.shared.current_run().map_or(0, |run| run.history.evals.len());
    if chosen.is_empty() && run.is_none() {
        model.eval.loaded = None;
        return Vec::new();
    }
    let draft = &model.shared.draft;
    let scored_by = draft.task.clone().zip(draft.scorer.clone()).filter(|_| model.eval.rescored.is_some());
    model.eval.rescored = model.eval.rescored.map(|_| draft.version);
    vec![Work::once(
        "eval",
        move || -> Result<Versus, ReportError> {
            let passes = match (chosen.is_empty(), run) {
                (true, Some(run)) => base_and_trained(&run)?,
                _ => chosen,
            };
            match scored_by {
                Some((task, scorer)) => Versus::rescored(&passes, &task, &scorer),
                None => Versus::read(&passes),
            }
        },
        |model, versus| {
            model.eval.is_of_other_schemas = matches!(versus, Err(ReportError::OtherSchemas(_)));
            let versus = versus.map_err(|error| error.to_string());
            let pairs = versus.as_ref().map_or(1, |versus| versus.pairs.len());
            model.eval.pair = model.eval.pair.min(pairs.saturating_sub(1));
            model.eval.loaded = Some(versus.map(Arc::new));
            model.eval.arrange();
            Vec::new()
        },
    )]
}

fn changed(model: &mut Model, change: &Change) -> Vec<Command> {
    match change {
        Change::Schema if model.shared.screen == Screen::Eval && is_rescored_by_another(model) => read(model),
        Change::CurrentRun => {
            model.eval.chosen.clear();
            model.eval.rescored = None;
            model.eval.loaded = None;
            model.eval.run = None;
            if model.shared.screen == Screen::Eval { read(model) } else { Vec::new() }
        }
        Change::RunNews if model.eval.chosen.is_empty() && model.eval.run == model.shared.current => {
            let passes = model.shared.current_run().map_or(0, |run| run.history.evals.len());
            if passes != model.eval.passes_seen && model.eval.run.is_some() { read(model) } else { Vec::new() }
        }
        Change::Second => eval_job::look(model),
        _ => Vec::new(),
    }
}

fn typed(model: &mut Model, event: KeyEvent) -> Vec<Command> {
    if model.eval.typing {
        match event.code {
            KeyCode::Enter | KeyCode::Down => model.eval.typing = false,
            _ if model.eval.filter.key(event) => model.eval.arrange(),
            _ => {}
        }
        return Vec::new();
    }
    let page = draw::page_rows(model);
    if model.eval.chooser.is_some() {
        return chooser::key(model, event, page);
    }
    let length = model.eval.shown.len();
    let eval = &mut model.eval;
    match eval.pane {
        PROMPTS => {
            if eval.cursor.key(event, page, length) {
                eval.top = 0;
            }
        }
        pane => match event.code {
            KeyCode::Right | KeyCode::Char('l') => go(model, 1),
            KeyCode::Left | KeyCode::Char('h') => go(model, -1),
            _ => {
                let lines = draw::lines_of(model, pane);
                let top = if pane == ANSWERS { &mut model.eval.top } else { &mut model.eval.summary_top };
                let mut scroll = Cursor { index: *top };
                if scroll.key(event, page, lines) {
                    *top = scroll.index;
                }
            }
        },
    }
    Vec::new()
}

/// To another prompt of the list.
fn go(model: &mut Model, by: isize) {
    let length = model.eval.shown.len();
    model.eval.cursor.go(by, length);
    model.eval.top = 0;
}
