//! The schema screen: the schema in an editor, with its outline, the expected answers that it rejects, the current
//! scores of the samples, and the rewards of degenerate answers.

pub mod actions;
mod completion;
mod draw;
pub mod expected;
pub mod file;
mod interaction;
mod keyword_help;
mod layout;
mod navigate;
mod outline_pane;
mod program_pane;
mod score_preview;
mod side_panes;
mod structure;

use completion::Completion;
use expected::{Baseline, Rejections};
use structure::Structure;

use crate::json_reader::Place;
use crate::score::audit::Finding;
use crate::score::{Tier, Trial};
use crate::widgets::editor::Editor;
use crate::widgets::list_cursor::Cursor;

const EDITOR: &str = "editor";
/// The outline of valid answers: fields, functions, operations, tables, keys.
const OUTLINE: &str = "outline";
/// The program that scores, if the task has one.
const PROGRAM: &str = "program";
/// Expected answers, and the samples' scores.
const SCORES: &str = "sample scores";
/// Rewards of degenerate answers.
const DEGENERATE: &str = "reward-hacking check";
/// The list of completions at the cursor, over the others.
const COMPLETIONS: &str = "completions";
/// All panes in tab order.
const PANES: [&str; 5] = [EDITOR, OUTLINE, PROGRAM, SCORES, DEGENERATE];

#[derive(Debug)]
pub struct Schema {
    pub editor: Editor,
    /// Whether the editor has the keys.
    pub typing: bool,
    /// The samples' scores under the schema in the editor.
    pub effects: Option<ScorePreview>,
    /// The expected answers that the schema rejects.
    pub rejections: Option<Rejections>,
    /// The rewards of degenerate answers under the schema.
    pub degenerate: Option<Vec<Finding>>,
    /// The structure of the text in the editor.
    structure: Structure,
    /// The open list of completions at the cursor.
    completion: Option<Completion>,
    /// Earlier positions of the cursor, to go back to.
    jumps: Vec<Place>,
    baseline: Option<Baseline>,
    /// The sample that the programs score, and their output.
    sample: Cursor,
    tried: Option<TrialOutput>,
    pane: &'static str,
    /// The selected entry of the outline.
    outline: Cursor,
    /// Scroll positions of the side panes.
    tops: [Cursor; 5],
    /// The text last loaded into the editor or read from it.
    shown: Option<String>,
}

impl Default for Schema {
    fn default() -> Self {
        Self {
            editor: Editor::new("", true),
            typing: false,
            effects: None,
            rejections: None,
            degenerate: None,
            structure: Structure::default(),
            completion: None,
            jumps: Vec::new(),
            baseline: None,
            sample: Cursor::default(),
            tried: None,
            pane: EDITOR,
            outline: Cursor::default(),
            tops: [Cursor::default(); 5],
            shown: None,
        }
    }
}

/// The programs' output on a sample.
#[derive(Debug)]
struct TrialOutput {
    /// Index of the sample.
    index: usize,
    /// Version of the draft.
    version: u64,
    trials: Vec<Trial>,
}

/// The samples' current scores.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ScorePreview {
    /// Samples by tier, in the order unparsable, invalid, valid.
    pub now: [usize; 3],
    /// The same with the saved schema; `None` if that does not compile.
    pub saved: Option<[usize; 3]>,
    pub reward: f64,
    /// Mean reward with the saved schema.
    pub saved_reward: Option<f64>,
    /// Exact samples, of those with an expected answer.
    pub exact: (usize, usize),
    /// Valid after unwrapping only: without a fence or prose around them.
    pub tolerant: usize,
    /// The highest reward of an invalid sample and the lowest of a valid one, where that is less.
    pub inversion: Option<(f64, f64)>,
    /// Samples that the scorer failed to score: in no other number.
    pub errors: usize,
    /// Samples whose tier differs from the saved schema's: line of the file, old tier, new tier.
    pub moved: Vec<(usize, Tier, Tier)>,
}

impl ScorePreview {
    pub fn total(&self) -> usize {
        self.now.iter().sum()
    }
}
