//! Screen: What the model is asked.

use super::ScreenParts;

/// The screen's own part of the model.
#[derive(Debug, Default)]
pub struct Prompts {}

/// The screen.
pub const PARTS: ScreenParts = ScreenParts { title: "Prompts", help: "What the model is asked.", ..ScreenParts::PLAIN };
