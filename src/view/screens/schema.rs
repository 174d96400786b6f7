//! Screen: what correct means. The schema in an editor, and beside it what it accepts, how the samples score now, and
//! what degenerate answers would earn.

pub mod actions;
mod draw;
pub mod file;
mod layout;
mod score_preview;
mod side_panes;

use crate::score::audit::Finding;
use crate::score::{Accepted, Tier};
use crate::view::message::ScreenState;
use crate::view::shared::Shared;
use crate::view::widgets::editor::Editor;
use crate::view::widgets::list_cursor::Cursor;

const EDITOR: &str = "editor";
/// What the schema accepts, in words.
const ACCEPTS: &str = "accepted answers";
const SCORES: &str = "sample scores";
/// What degenerate answers would earn.
const DEGENERATE: &str = "degenerate answers";
/// All panes, in the order of the tab key.
const PANES: [&str; 4] = [EDITOR, ACCEPTS, SCORES, DEGENERATE];

/// The screen's own part of the model.
#[derive(Debug)]
pub struct Schema {
    pub editor: Editor,
    /// Whether keys are typed into it.
    pub typing: bool,
    /// What the last schema that compiled accepts, in words.
    pub accepts: Vec<Accepted>,
    /// How the task's samples score with it.
    pub effects: Option<ScorePreview>,
    /// What degenerate answers would earn with it.
    pub degenerate: Option<Vec<Finding>>,
    pane: &'static str,
    /// First lines of the panes beside the editor, by their place.
    tops: [Cursor; 4],
    /// The text that was last given to the editor or came from it.
    shown: Option<String>,
    described: u64,
    /// Whether samples and degenerate answers wait to be scored until somebody looks.
    is_waiting: bool,
}

impl Default for Schema {
    fn default() -> Self {
        Self {
            editor: Editor::new("", true),
            typing: false,
            accepts: Vec::new(),
            effects: None,
            degenerate: None,
            pane: EDITOR,
            tops: [Cursor::default(); 4],
            shown: None,
            described: 0,
            is_waiting: false,
        }
    }
}

impl ScreenState for Schema {
    type Shared = Shared;
}

impl Schema {
    fn is_typing(&self) -> bool {
        self.typing && self.pane == EDITOR
    }
}

/// How the task's samples score now.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ScorePreview {
    /// Samples by tier, in the order unparsable, invalid, valid.
    pub now: [usize; 3],
    /// The same with the saved schema; `None` where that does not compile.
    pub saved: Option<[usize; 3]>,
    pub reward: f64,
    /// Mean reward with the saved schema.
    pub saved_reward: Option<f64>,
    /// Not valid, but would be without a fence or prose around it.
    pub tolerant: usize,
    /// Samples whose tier differs from the saved schema's: line of the file, tier then, tier now.
    pub moved: Vec<(usize, Tier, Tier)>,
}

impl ScorePreview {
    pub fn total(&self) -> usize {
        self.now.iter().sum()
    }
}
