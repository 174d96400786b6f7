//! Screen: Runs there are, and what can be done with them.

use super::ScreenParts;

/// The screen's own part of the model.
#[derive(Debug, Default)]
pub struct Runs {}

/// The screen.
pub const PARTS: ScreenParts = ScreenParts { title: "Runs", help: "Runs there are, and what can be done with them.", ..ScreenParts::PLAIN };
