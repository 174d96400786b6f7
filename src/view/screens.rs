//! The seven screens. Each has its state and its definition in its own file and folder; none names another but by its
//! [`Screen`].

pub mod eval;
pub mod launch;
pub mod live;
pub mod prompts;
pub mod runs;
pub mod schema;
pub mod scores;

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
    pub const ALL: [Self; 7] =
        [Self::Runs, Self::Schema, Self::Prompts, Self::Scores, Self::Launch, Self::Live, Self::Eval];
}
