//! Screen: How completions score against the schema as it stands.

use super::ScreenParts;

/// The screen's own part of the model.
#[derive(Debug, Default)]
pub struct Scores {}

/// The screen.
pub const PARTS: ScreenParts =
    ScreenParts { title: "Scores", help: "How completions score against the schema as it stands.", ..ScreenParts::PLAIN };
