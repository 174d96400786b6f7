//! Screen: Base and trained side by side.

use super::ScreenParts;

/// The screen's own part of the model.
#[derive(Debug, Default)]
pub struct Eval {}

/// The screen.
pub const PARTS: ScreenParts = ScreenParts { title: "Eval", help: "Base and trained side by side.", ..ScreenParts::PLAIN };
