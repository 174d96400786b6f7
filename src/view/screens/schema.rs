//! Screen: What correct means.

use super::ScreenParts;

/// The screen's own part of the model.
#[derive(Debug, Default)]
pub struct Schema {}

/// The screen.
pub const PARTS: ScreenParts = ScreenParts { title: "Schema", help: "What correct means.", ..ScreenParts::PLAIN };
