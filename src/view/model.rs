//! The model: everything that the view knows, and nothing that it draws with. `update` changes it, `draw` reads it.

use super::options::Options;
use super::screens::{eval, launch, live, prompts, runs, schema, scores};
use super::shared::Shared;

/// One of the seven screens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Screen {
    /// Runs there are.
    #[default]
    Runs,
    /// The schema, in an editor.
    Schema,
    /// Prompt rows.
    Prompts,
    /// Completions against the schema.
    Scores,
    /// The form of a new run.
    Launch,
    /// A run as it goes.
    Live,
    /// Base and trained side by side.
    Eval,
}

impl Screen {
    /// All, in the order of their keys.
    pub const ALL: [Self; 7] = [Self::Runs, Self::Schema, Self::Prompts, Self::Scores, Self::Launch, Self::Live, Self::Eval];
}

/// Everything that the view knows.
#[derive(Debug)]
pub struct Model {
    /// What all screens share.
    pub shared: Shared,
    /// Time and place of the last click, until it was half of a double click.
    pub clicked: Option<(u64, (u16, u16))>,
    /// Screen 1.
    pub runs: runs::Runs,
    /// Screen 2.
    pub schema: schema::Schema,
    /// Screen 3.
    pub prompts: prompts::Prompts,
    /// Screen 4.
    pub scores: scores::Scores,
    /// Screen 5.
    pub launch: launch::Launch,
    /// Screen 6.
    pub live: live::Live,
    /// Screen 7.
    pub eval: eval::Eval,
}

impl Model {
    /// The model at the start; `super::start` gives the first commands.
    pub fn new(options: Options) -> Self {
        Self {
            shared: Shared::new(options),
            clicked: None,
            runs: runs::Runs::default(),
            schema: schema::Schema::default(),
            prompts: prompts::Prompts::default(),
            scores: scores::Scores::default(),
            launch: launch::Launch::default(),
            live: live::Live::default(),
            eval: eval::Eval::default(),
        }
    }

    /// Whether a popup or a text field takes the keys now.
    pub fn takes_text(&self) -> bool {
        self.shared.popup.is_some() || (super::screens::of(self.shared.screen).is_typing)(self)
    }
}
