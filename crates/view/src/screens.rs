//! The seven screens, each with its state and its definition in its own file and folder; none names another but by its
//! [`Screen`].

pub mod eval;
pub mod launch;
pub mod live;
pub mod prompts;
pub mod runs;
pub mod schema;
pub mod scores;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Screen {
    #[default]
    Runs,
    Schema,
    Prompts,
    Scores,
    Launch,
    Live,
    Eval,
}

impl Screen {
    /// In the order of their keys.
    pub const ALL: [Self; 7] = [
        Self::Runs,
        Self::Schema,
        Self::Prompts,
        Self::Scores,
        Self::Launch,
        Self::Live,
        Self::Eval,
    ];
}
