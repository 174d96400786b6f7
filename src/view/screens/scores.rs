//! Screen: how completions score against the schema as it stands in the editor, alone, in groups, and over the stored steps of a run.

mod actions;
mod draw;
mod input;
pub mod items;
mod listing;
mod sampling;
mod score_details;
pub mod scoring;
mod source;
mod summary;

use std::path::PathBuf;
use std::sync::Arc;

use super::{Change, ScreenDef};
use crate::score::{FailureClass, Tier};
use crate::view::app::Model;
use crate::view::message::Command;
use crate::view::screens::Screen;
use crate::view::shared::OpenTask;
use crate::view::subprocess::CancelToken;
use crate::view::widgets::editor::Editor;
use crate::view::widgets::field::Field;
use crate::view::widgets::list_cursor::Cursor;
use items::{Items, Rows, Written};
use listing::Shown;
pub use listing::{Order, TierFilter};
use scoring::{Impact, Scored};

/// Where completions come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Source {
    /// The task's own.
    #[default]
    Samples,
    /// Written or pasted here.
    Written,
    /// A stored step of the current run.
    Step,
    /// Drawn from a model here.
    Drawn,
}

/// The screen's own part of the model.
#[derive(Debug, Default)]
pub struct Scores {
    /// Where completions come from.
    pub source: Source,
    /// The step that is looked at; 0 is the latest.
    pub step: u64,
    /// The completions.
    pub items: Arc<Items>,
    /// Why there are none, as a sentence.
    pub error: Option<String>,
    /// Their scores under the last schema that compiled.
    pub scored: Option<Scored>,
    /// The tiers that completions had before the schema's last change that moved any.
    pub moved: Vec<Option<Tier>>,
    /// What the schema changes in the latest stored steps.
    pub impacts: Vec<Impact>,
    /// What it changes in the whole run, where that was asked.
    pub whole: Option<RescoreJob>,
    /// Written or pasted here.
    pub written: Vec<Written>,
    /// Drawn here, the latest last.
    pub drawn: Vec<Written>,
    /// A completion that is being written.
    pub editor: Option<Editor>,
    /// Which of the written ones that is.
    pub editing: usize,
    /// Where the cursor stands among the completions shown.
    pub cursor: Cursor,
    /// Which completions are shown.
    pub only: TierFilter,
    /// Only this kind of failure.
    pub class: Option<FailureClass>,
    /// Only those that hold a text.
    pub filter: Field,
    /// Whether that text is being typed.
    pub filtering: bool,
    pub order: Order,
    /// One after the other instead of in groups.
    pub is_flat: bool,
    /// Which pane has the focus.
    pub pane: Option<&'static str>,
    /// The first lines of the completion and of the summary that are drawn.
    pub tops: [usize; 2],
    /// Draw from the base instead of the trained model.
    pub from_base: bool,
    /// A drawing that goes on.
    pub drawing: Option<SamplingJob>,
    /// Why the last drawing came to nothing.
    pub not_drawn: Option<String>,
    /// Drawings so far: each has its own randomness.
    pub drawings: u64,
    /// The schema has changed since the scores were made.
    is_old: bool,
    /// The lines of the list, as filters and order leave them.
    shown: Vec<Shown>,
    /// A drawing has begun and brought nothing yet.
    fresh: bool,
    rows: Option<(Arc<OpenTask>, Arc<Rows>)>,
    stored: Option<Stored>,
}

/// Stored steps of a run, held so that a keystroke in the schema scores them again.
#[derive(Debug, Clone)]
struct Stored {
    run: PathBuf,
    rows: Arc<Rows>,
    steps: Arc<Vec<(u64, Arc<Items>)>>,
}

/// A drawing that goes on.
#[derive(Debug, Clone)]
pub struct SamplingJob {
    /// Ends it.
    pub cancel: CancelToken,
    /// What it draws from, and for which prompt.
    pub what: String,
    /// The latest that was said of how it goes.
    pub told: String,
    /// Since when, milliseconds since 1970.
    pub since_ms: u64,
}

/// All stored steps of a run under one schema.
#[derive(Debug, Clone, Default)]
pub struct RescoreJob {
    /// Ends it.
    pub cancel: CancelToken,
    /// The steps that were scored, rising.
    pub impacts: Vec<Impact>,
    /// How many steps there are.
    pub steps: u64,
    /// The schema's version with which they were scored.
    pub version: u64,
    /// Whether all are.
    pub is_done: bool,
    /// What could not be read.
    pub error: Option<String>,
}

const LIST: &str = "completions";
const COMPLETION: &str = "completion";
const SUMMARY: &str = "summary";

pub const PARTS: ScreenDef = ScreenDef {
    title: "Scores",
    help: "Completions scored with the schema in the editor: the task's samples, custom ones, stored steps of a run, or sampled from a model. \
           Edits to the schema re-score them at once and show what would change in the run.",
    panes: &[LIST, COMPLETION, SUMMARY],
    actions: actions::ACTIONS,
    pane: |model| model.scores.pane.unwrap_or(LIST),
    focus: |model, pane| model.scores.pane = Some(pane),
    is_typing: |model| model.scores.editor.is_some() || model.scores.filtering,
    takes_tab: |_| false,
    typed: input::typed,
    pasted: input::pasted,
    mouse: input::mouse,
    opens: |model, (column, row)| draw::pane_at(model, column, row).is_some_and(|(pane, area)| pane == LIST && row > area.y),
    entered,
    changed,
    draw: draw::draw,
};

fn entered(model: &mut Model) -> Vec<Command> {
    if model.scores.is_old && !model.scores.items.all.is_empty() {
        return source::rescore(model);
    }
    if model.scores.scored.is_none() { source::load(model) } else { Vec::new() }
}

fn changed(model: &mut Model, change: &Change) -> Vec<Command> {
    let is_here = model.shared.screen == Screen::Scores;
    match change {
        Change::Schema => {
            model.scores.is_old = true;
            if is_here { source::rescore(model) } else { Vec::new() }
        }
        Change::Task => {
            let scores = &mut model.scores;
            (scores.rows, scores.scored, scores.items) = (None, None, Arc::default());
            scores.moved.clear();
            listing::arrange(model);
            if is_here { source::load(model) } else { Vec::new() }
        }
        Change::CurrentRun => {
            source::forget_run(model);
            if is_here && model.scores.source == Source::Step { source::load(model) } else { Vec::new() }
        }
        Change::RunNews
            if is_here && model.scores.source == Source::Step && model.scores.scored.is_none() && !model.shared.is_busy("scores.items") =>
        {
            source::load(model)
        }
        _ => Vec::new(),
    }
}
