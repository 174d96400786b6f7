//! The schema screen: the schema in an editor, with the expected answers that it rejects, the current
//! scores of the samples, and the rewards of degenerate answers.

pub mod actions;
mod completion;
mod draw;
pub mod expected;
pub mod file;
mod interaction;
mod layout;
mod navigate;
mod program_pane;
mod score_preview;
mod side_panes;
mod structure;

use completion::Completion;
use expected::{Baseline, Rejections};
use structure::Structure;

use crate::score::audit::Finding;
use crate::score::mutants::{MutationReport, NoMutants};
use crate::score::{Tier, Trial};
use crate::widgets::editor::Editor;
use crate::widgets::list_cursor::Cursor;

const EDITOR: &str = "editor";
/// The program that scores, if the task has one.
const PROGRAM: &str = "program";
const SCORES: &str = "sample scores";
const DEGENERATE: &str = "reward-hacking check";
/// The list of completions at the cursor, over the others.
const COMPLETIONS: &str = "completions";
/// All panes in tab order.
const PANES: [&str; 4] = [EDITOR, PROGRAM, SCORES, DEGENERATE];

#[derive(Debug)]
pub struct Schema {
    pub editor: Editor,
    pub typing: bool,
    pub effects: Option<ScorePreview>,
    pub rejections: Option<Rejections>,
    pub degenerate: Option<Vec<Finding>>,
    pub mutants: Option<Result<MutationReport, NoMutants>>,
    structure: Structure,
    completion: Option<Completion>,
    baseline: Option<Baseline>,
    /// The sample that the programs score, and their output.
    sample: Cursor,
    tried: Option<TrialOutput>,
    pane: &'static str,
    /// Scroll positions of the side panes.
    tops: [Cursor; 4],
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
            mutants: None,
            structure: Structure::default(),
            completion: None,
            baseline: None,
            sample: Cursor::default(),
            tried: None,
            pane: EDITOR,
            tops: [Cursor::default(); 4],
            shown: None,
        }
    }
}

/// The programs' output on a sample.
#[derive(Debug)]
struct TrialOutput {
    /// Index of the sample.
    index: usize,
    version: u64,
    trials: Vec<Trial>,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct ScorePreview {
    /// Samples by tier, in the order unparsable, invalid, valid.
    pub now: [usize; 3],
    /// The same with the saved schema; `None` if that does not compile.
    pub saved: Option<[usize; 3]>,
    pub reward: f64,
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
